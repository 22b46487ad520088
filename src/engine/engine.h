/* engine.h: the inside of an mp_engine, for the stages of a step and for the refactorer, which runs layers one by one.
 * Owned by whoever called mp_engine_open(); one caller at a time. All memory is taken at open. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/kv.h"
#include "engine/moe_exec.h"
#include "model/model.h"

/* The heads as the cache holds them. MLA: one head of latents, whose values are the first value_dim elements of its
 * keys. */
typedef struct cache_shape {
    uint32_t heads, key_dim, value_dim;
} cache_shape;

struct mp_engine {
    const mp_model *model;
    mp_engine_params params; /* defaults filled in */
    exec x;
    arena memory, kv_memory, logits_memory;
    kv_cache kv;
    moe_exec moe;

    /* the step at hand */
    size_t n;
    mp_batch_token *batch; /* [n_batch] */
    uint32_t *points;      /* [n_batch] */
    uint32_t *floors;      /* [n_batch]; NULL without a deadline */
    uint32_t *subs_run;    /* [n_batch] summed over layers */
    uint32_t *seq_len;     /* [n_seqs] while a batch is checked */
    size_t *logit_row;     /* [n_batch], SIZE_MAX: not wanted */
    float *h;              /* [n_batch, d] residual stream */
    float *norm;           /* [n_batch, d] */
    float *out;            /* [n_batch, d] of a block */
    acts in_acts;

    /* attention.c */
    cache_shape shape;
    float *q, *k, *v;           /* [n_batch, .] projections */
    float *query;               /* [n_batch, heads * key_dim] what meets the cache: q, or absorbed queries */
    float *mixed;               /* [n_batch, heads * value_dim] what the cache gives back */
    float *values;              /* [n_batch, heads * hp.value_dim] input of the output projection: mixed, or expanded */
    float *rope_freq;           /* [n_rot / 2] radians per position */
    float *rope_cos, *rope_sin; /* [n_batch, n_rot / 2] */
    float *q_lora;              /* [n_batch, q_lora] */
    acts lora_acts, head_acts;  /* MLA: of q_lora; of every head's part, [heads, n] */
    acts value_acts;

    /* ffn.c */
    float *ffn_gate, *ffn_up; /* [n_batch, widest] */
    float *ffn_out, *ffn_mix; /* [n_batch, d], [n_batch] of shared experts */
    acts ffn_acts;

    float *logits;       /* [n_logits, vocab] */
    uint64_t *layer_run; /* [n_layers] sub-experts run in MoE layers, in their order */
    mp_timings times;

    mp_layer_run_fn watch; /* NULL: nobody */
    void *watch_user;
    uint32_t *watched_experts; /* [E] */
    char notice[MP_ERROR_MAX]; /* of the store */
};

/* The stages of a step, also called one by one. engine_begin() can fail, and engine_ffn() where a store has to read. */
mp_status engine_begin(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err); /* check, reserve pages */
void engine_embed(mp_engine *e, float *h);                                                   /* h [n, d] */
void engine_norm(mp_engine *e, const tensor *weight, const float *h, float *x);              /* x [n, d] */
void engine_attention(mp_engine *e, uint32_t layer, float *h);                /* h += attention(norm(h)) */
void engine_ffn_norm(mp_engine *e, uint32_t layer, const float *h, float *x); /* x [n, d]; fills in_acts from it */
void engine_ffn_input(mp_engine *e, uint32_t layer, const float *x);          /* in_acts from x [n, d] */
/* y [n, d] of in_acts: dense, or experts and shared ones */
mp_status engine_ffn(mp_engine *e, uint32_t layer, float *y, mp_error *err);
void engine_add(mp_engine *e, float *h, const float *delta); /* h += delta, [n, d] */
void engine_head(mp_engine *e, const float *h);              /* logits of the tokens that want them */

/* attention.c */
cache_shape attention_cache_shape(const hparams *hp);
size_t attention_row_bytes(mp_kv_type type, size_t width);
void attention_layout(arena *a, mp_engine *e);
void attention_start(mp_engine *e);
void attention_set_positions(mp_engine *e);
/* Rotates n_rot elements at x by token t's position. */
void attention_rotate(const mp_engine *e, size_t t, float *x);
/* Stores a cached row of `width` elements. */
void attention_store(const mp_engine *e, const float *row, size_t width, uint8_t *out);

/* attend.c: mixed = attention of query over the cache, which holds this step's keys and values already. */
void attend(const mp_engine *e, uint32_t layer);

/* mla.c: h's projections into query and cache; mixed latents into values. */
void mla_layout(arena *a, mp_engine *e);
void mla_project(mp_engine *e, uint32_t layer);
void mla_expand(mp_engine *e, uint32_t layer);

/* ffn.c */
void ffn_layout(arena *a, mp_engine *e);

/* disk.c: the store of an engine whose experts are capped. */
mp_status disk_plan(const mp_model *m, const mp_store_params *params, bool *wanted, mp_plan *plan, mp_error *err);
mp_status disk_open(mp_engine *e, mp_error *err);
void disk_close(mp_engine *e);

#endif
