/* synth.h: the parts of mp_synth(): which shape, which keys, which tensors, and where random rows come from.
 *
 * synth_shape.c  the models' shapes and their keys, as llama.cpp's converter writes them
 * synth_vocab.c  a byte-level BPE vocabulary of the right size
 * synth_tensor.c the list of tensors
 * synth_pool.c   random rows, quantized once and drawn from
 * synth.c        the order of all this
 *
 * Everything belongs to one mp_synth() call and its thread. */
#ifndef REFACTOR_SYNTH_H
#define REFACTOR_SYNTH_H

#include "base/rng.h"
#include "gguf/gguf.h"
#include "model/arch.h"
#include "model/moe.h"

typedef struct synth_shape {
    const char *like, *arch, *name;
    uint32_t n_layers, d, n_heads, n_kv_heads, context, n_vocab;
    uint32_t head_dim, value_dim; /* of a key and of a value */
    bool head_dim_key, vocab_key; /* whether the converter writes these down */
    uint32_t n_experts, n_used, width;
    uint32_t ffn;               /* feed_forward_length: of the dense layers, where there are any */
    uint32_t n_dense, n_shared; /* leading dense layers, shared experts */
    uint32_t kv_lora, n_rot;    /* MLA; 0: ordinary attention */
    uint32_t q_norm, k_norm;    /* lengths; 0: none */
    float rope_base, rms_eps;
    float yarn_factor; /* 0: none */
    uint32_t yarn_context;
    float yarn_log_multiplier;
    /* vocabulary: ids of control tokens, from n_text on; -1: none */
    const char *pre;
    uint32_t n_text;
    int32_t bos, eos, pad;
    bool add_bos;
} synth_shape;

/* How the artifact splits the experts; n_parts 1: it does not. */
typedef struct synth_split {
    uint32_t n_parts;
    uint32_t rank; /* of the probes; 0: not factorised */
    uint64_t seed;
} synth_split;

/* MP_E_INVALID names those there are. */
mp_status synth_shape_find(const char *like, const synth_shape **out, mp_error *err);
/* All keys but the tokenizer's and the artifact's. */
mp_status synth_shape_keys(const synth_shape *s, uint32_t n_layers, dtype type, gguf_writer *w, mp_error *err);
mp_status synth_vocab_keys(const synth_shape *s, gguf_writer *w, mp_error *err);
mp_status synth_artifact_keys(const synth_shape *s, uint32_t n_layers, const synth_split *split, gguf_writer *w,
                              mp_error *err);

typedef enum synth_fill {
    SYNTH_NORMAL,  /* rows of normal numbers */
    SYNTH_ONES,    /* F32 */
    SYNTH_ZEROS,   /* F32 */
    SYNTH_INDICES, /* I32: 0, 1, 2, ... in each row */
} synth_fill;

enum { SYNTH_NAME = 48 };

typedef struct synth_tensor {
    char name[SYNTH_NAME];
    int type;
    synth_fill fill;
    float deviation; /* SYNTH_NORMAL */
    uint32_t n_dims;
    uint64_t dims[3]; /* fastest first */
    size_t rows, row_bytes;
    /* Where numbers are drawn from: one stream, or two whose rows take turns, so many of each. */
    uint64_t streams[2];
    size_t turn; /* 0: one */
} synth_tensor;

typedef struct synth_list {
    synth_tensor *tensors; /* owned */
    size_t n, cap;
    size_t bytes;
} synth_list;

mp_status synth_list_build(const synth_shape *s, uint32_t n_layers, dtype type, const synth_split *split,
                           synth_list *out, mp_error *err);
void synth_list_clear(synth_list *list);

/* Random rows by (type, deviation): built at first use, then read-only. Zeroed storage is an empty set. */
typedef struct synth_pool {
    dtype type;
    float deviation;
    uint8_t *data;
} synth_pool;

typedef struct synth_pools {
    uint64_t seed;
    float *normal; /* [SYNTH_POOL] */
    synth_pool *pools;
    size_t n;
} synth_pools;

/* A row of n elements is a window into the pool that begins at any block: as many rows as there are blocks. */
mp_status synth_pools_get(synth_pools *set, dtype type, float deviation, const synth_pool **out, mp_error *err);
/* `rows` rows of n <= SYNTH_POOL / 2 elements. */
void synth_pool_rows(const synth_pool *pool, rng *r, size_t n, size_t rows, uint8_t *out);
void synth_pools_clear(synth_pools *set);

#define SYNTH_POOL ((size_t)1 << 20)

/* mp_synth() of any shape; params->like is not looked at. */
mp_status synth_write(const char *out, const synth_shape *shape, const mp_synth_params *params, mp_error *err);

#endif
