/* refactor.h: the offline pipeline of DESIGN 2, one layer at a time.
 *
 * profile.c   runs the calibration tokens through the source, layer by layer: inputs and routing of the layer at hand
 * split.c     per expert: activations, partition, targets, gate (parallel over experts)
 * layout.c    the split weights of an expert as bytes, in the artifact's layout
 * calibrate.c thresholds and gains of every operating point
 * resume.c    a finished layer to disk and back
 * write.c     the artifact: header, tensors, curve
 * refactor.c  the order of all this
 *
 * Nothing of a model but the layer at hand is held in memory: two [tokens, d] arrays, one layer's split weights, and
 * per thread one expert's activations. Everything here belongs to one mp_refactor() call and its thread. */
#ifndef REFACTOR_REFACTOR_H
#define REFACTOR_REFACTOR_H

#include "engine/engine.h"
#include "model/ladder.h"

/* What a finished layer leaves behind; all that write.c needs beside the source. */
typedef struct layer_result {
    dtype gate_up_type, down_type; /* of the layer's experts in the artifact */
    uint32_t *order;               /* [E, C] original neuron numbers, set by set, most important set first */
    dtype probe_type, probe_in_type;
    uint8_t *probe;    /* [N*E] rows of rank (or d), NULL unless the gate is a probe */
    uint8_t *probe_in; /* [rank] rows of d, NULL where not factorised */
    float *probe_bias; /* [N*E] */
    float *use;        /* [N*E] share of calibration tokens that run it near half of the compute */
    float *tau, *gain; /* [n_points] */
    mp_refactor_layer report;
} layer_result;

typedef struct refactor {
    mp_refactor_params p; /* defaults filled in */
    const char *out_path;
    mp_model *source;
    mp_engine *engine;
    moe_shape split;                 /* shape of the layers to come */
    uint32_t gate_rank;              /* probe: directions, 0 for not factorised; proxy: neurons */
    double budgets[LADDER_N_SHARES]; /* mean sub-experts of each operating point */
    uint32_t n_points;
    char source_sha[65], calibration_sha[65], fingerprint[65];

    /* calibration tokens: the first n_fit are fitted, the rest only judge */
    int32_t *tokens;
    size_t n_tokens, n_fit;
    uint32_t ctx;

    /* the layer at hand */
    uint32_t layer;
    bool in_layers;    /* false before the first and after the last */
    float *h;          /* [n_tokens, d] residual stream before the layer, then before its experts */
    float *x;          /* [n_tokens, d] input of its experts */
    uint32_t *experts; /* [n_tokens, k0] routing */
    float *mix;        /* [n_tokens, k0] mixing weights */

    layer_result *results; /* [n_layers] */
    mp_refactor_report report;
    uint64_t stage_start;
} refactor;

/* Shorthands every stage uses. */
static inline size_t refactor_subs(const refactor *r)
{
    return (size_t)r->split.n_parts * r->split.n_experts;
}

/* Tells the caller; MP_E_INTERRUPTED where it wants to stop. A new stage name restarts the stage's clock. */
void refactor_stage(refactor *r);
mp_status refactor_progress(refactor *r, const char *stage, const char *unit, uint64_t done, uint64_t total,
                            mp_error *err);

/* profile.c */
mp_status profile_start(refactor *r, mp_error *err);     /* h = embeddings */
mp_status profile_attention(refactor *r, mp_error *err); /* h, x, experts, mix of r->layer */
mp_status profile_advance(refactor *r, mp_error *err);   /* h += experts(x): ready for the next layer */

/* split.c */
mp_status split_layer(refactor *r, layer_result *out, mp_error *err);
uint32_t split_default_rank(const moe_shape *s);

/* layout.c. buf: f32 scratch of layout_scratch(r) floats. */
size_t layout_scratch(const refactor *r);
size_t layout_gate_up_bytes(const refactor *r, uint32_t layer); /* of one expert */
size_t layout_down_bytes(const refactor *r, uint32_t layer);    /* of one expert */
/* Expert e of a layer, its neurons in `order` [C]. */
void layout_gate_up(const refactor *r, uint32_t layer, uint32_t e, const uint32_t *order, float *buf, uint8_t *out);
/* Adds the squared error and the squared norm of the down matrix to error[0], error[1]. */
void layout_down(const refactor *r, uint32_t layer, uint32_t e, const uint32_t *order, float *buf, uint8_t *out,
                 double error[2]);

/* calibrate.c: fills out->tau and out->gain. */
mp_status calibrate_layer(refactor *r, layer_result *out, mp_error *err);

/* resume.c */
mp_status resume_prepare(refactor *r, uint32_t *n_done,
                         mp_error *err); /* loads finished layers, or clears what is there */
mp_status resume_save(const refactor *r, uint32_t layer, mp_error *err);
void resume_remove(const refactor *r);
mp_status layer_result_alloc(const refactor *r, layer_result *l, mp_error *err);
void layer_result_clear(layer_result *l);

#endif
