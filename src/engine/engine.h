/* engine.h: the inside of an mp_engine, for the stages of a step and for the refactorer, which runs layers one by one.
 * Owned by whoever called mp_engine_open(); one caller at a time. All memory is taken at open. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/kv.h"
#include "engine/moe_exec.h"
#include "model/model.h"

struct mp_engine {
    const mp_model *model;
    mp_engine_params params; /* defaults filled in */
    exec x;
    arena memory, kv_memory, logits_memory;
    kv_cache kv;
    moe_exec moe;

    /* the step at hand */
    size_t n;
    mp_batch_token *batch;      /* [n_batch] */
    uint32_t *points;           /* [n_batch] */
    uint32_t *subs_run;         /* [n_batch] summed over layers */
    uint32_t *seq_len;          /* [n_seqs] while a batch is checked */
    size_t *logit_row;          /* [n_batch], SIZE_MAX: not wanted */
    float *h;                   /* [n_batch, d] residual stream */
    float *norm;                /* [n_batch, d] */
    float *q, *k, *v;           /* [n_batch, heads * head_dim], kv */
    float *mixed;               /* [n_batch, heads * head_dim] attention output */
    float *out;                 /* [n_batch, d] of a block */
    float *rope_freq;           /* [n_rot / 2] */
    float *rope_cos, *rope_sin; /* [n_batch, n_rot / 2] */
    float *att;                 /* [threads, n_ctx] scores */
    float *logits;              /* [n_logits, vocab] */
    acts in_acts, mixed_acts;
    mp_timings times;
};

/* The stages of a step, also called one by one. Only engine_begin() can fail. */
mp_status engine_begin(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err); /* check, reserve pages */
void engine_embed(mp_engine *e, float *h);                                                   /* h [n, d] */
void engine_attention(mp_engine *e, uint32_t layer, float *h);                /* h += attention(norm(h)) */
void engine_moe_norm(mp_engine *e, uint32_t layer, const float *h, float *x); /* x [n, d]; fills in_acts from it */
void engine_add(mp_engine *e, float *h, const float *delta);                  /* h += delta, [n, d] */
void engine_head(mp_engine *e, const float *h);                               /* logits of the tokens that want them */

/* attention.c */
void attention_layout(arena *a, mp_engine *e);
void attention_start(mp_engine *e);
void attention_set_positions(mp_engine *e);

#endif
