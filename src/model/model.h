/* model.h: an opened model, read-only: hyper-parameters, weights as views of the mapped file, the ladder, the
 * tokenizer. Owned by whoever called mp_model_open(); shared by any number of engines and threads. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "gguf/gguf.h"
#include "model/arch.h"
#include "model/moe.h"
#include "text/tokenizer.h"

typedef struct hparams {
    uint32_t n_layers, n_embd, n_vocab, n_ctx;
    uint32_t n_heads, n_kv_heads, head_dim, n_rot;
    uint32_t n_experts, n_used, expert_width;
    float rms_eps, rope_base;
} hparams;

typedef struct layer_weights {
    tensor attn_norm, wq, wk, wv, wo, q_norm, k_norm; /* norms are F32 rows */
    tensor ffn_norm;
} layer_weights;

struct mp_model {
    gguf *file;
    const arch *arch;
    hparams hp;
    tensor embed, output_norm, output;
    layer_weights *layers; /* [n_layers] */
    moe_layer *moe;        /* [n_layers] */
    moe_rung *rungs;       /* [n_layers, n_points] */
    mp_point *points;      /* [info.n_points] */
    tokenizer *tok;        /* NULL where the file has none: ids still run */
    mp_error tok_error;    /* why it has none */
    mp_model_info info;
};

/* Version of the artifact this code writes; it reads this one and older. */
#define MODEL_ARTIFACT_VERSION 1

/* Tensors of integers, as GGUF numbers their type: no weights, only stored. */
#define MODEL_TYPE_I32 26

/* What a model file may hold: weights of dtype.h and integers. */
gguf_types model_types(void);

/* The stages of mp_model_open(), in order. */
mp_status hparams_read(mp_model *m, mp_error *err); /* hparams.c */
mp_status weights_load(mp_model *m, mp_error *err); /* weights.c */
mp_status ladder_load(mp_model *m, mp_error *err);  /* ladder.c */

/* MP_E_UNSUPPORTED with the reason, where the file has no tokenizer we can use. */
mp_status model_need_tokenizer(const mp_model *m, mp_error *err);

#endif
