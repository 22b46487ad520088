/* export.h: the inside of one mp_export() call: an artifact's split carried into a standard GGUF.
 *
 * export.c        checks, keys, the order of it all
 * export_write.c  tensors: rows moved, down matrices gathered, scaled and requantized
 * export_check.c  both models run at full beside each other
 *
 * Expert e becomes n experts e*n .. e*n+n-1 with the same router row, each the union of N/n consecutive sets. One
 * expert is in memory at a time. Everything belongs to the caller's thread. */
#ifndef REFACTOR_EXPORT_H
#define REFACTOR_EXPORT_H

#include "model/model.h"

typedef struct export_job {
    mp_export_params p;
    const char *out_path;
    mp_model *artifact, *source;
    gguf_writer *w;
    uint32_t n, width; /* experts an expert becomes, their neurons */
    float scale;       /* of the down matrices: what repeated router rows take off the mixing weights */
    float bias_scale;  /* of exp_probs_b, for the same choice of experts */
    float *down;       /* [d, C] of the expert at hand */
    float *row, *back; /* [max(C, d)] */
    uint8_t *bytes;    /* a row in its new type */
    double error[2];   /* of the layer at hand: squared error, squared norm */
    mp_export_report report;
    uint64_t stage_start;
} export_job;

mp_status export_progress(export_job *j, const char *stage, const char *unit, uint64_t done, uint64_t total,
                          mp_error *err);

/* export_write.c */
mp_status export_add_tensors(export_job *j, mp_error *err);
mp_status export_write_tensors(export_job *j, mp_error *err);

/* export_check.c: fills the report's differences; MP_E_FORMAT where they are beyond what the types explain. */
mp_status export_check(export_job *j, const char *path, mp_error *err);

#endif
