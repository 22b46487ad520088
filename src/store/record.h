/* record.h: a record of which sub-experts the steps of a run used, for the simulator of caches.
 *
 * A text file: a line "# moeprism record 1 layers=L experts=E parts=N bytes=B" (bytes of a
 * sub-expert; other pairs are ignored), then one line a layer and step:
 *
 *     STEP LAYER TOKENS experts E1 E2 ... subs S1 S2 ...
 *
 * experts: those the router chose for any token of the step; subs: the sub-experts e * N + n that ran, best score
 * first. Lines come in order of step and layer; within one, no number comes twice and every sub-expert belongs to one
 * of the experts. Empty lines and others that begin with # are passed over. */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include <stdio.h>

#include "base/status.h"

typedef struct record_shape {
    uint32_t n_layers, n_experts, n_parts;
    uint64_t sub_bytes;
} record_shape;

typedef struct record_step {
    uint64_t step;
    uint32_t layer, tokens;
    const uint32_t *experts, *subs;
    uint32_t n_experts, n_subs;
} record_step;

/* MP_E_IO where the stream has failed; errno is of use then. */
mp_status record_write_header(FILE *f, const record_shape *shape);
mp_status record_write(FILE *f, const record_step *step);

/* A whole record in memory. */
typedef struct record_trace {
    record_shape shape;
    record_step *steps; /* [n] */
    size_t n;
    uint32_t *ids; /* what they point into */
} record_trace;

/* Every number is checked; errors name the line. record_parse() reads text [len], which is called `name` in errors. */
mp_status record_read(const char *path, record_trace *out, mp_error *err);
mp_status record_parse(const char *text, size_t len, const char *name, record_trace *out, mp_error *err);
void record_free(record_trace *t);

#endif
