/* model.h: an opened model, read-only: hyper-parameters, weights as views of the file, the ladder, the tokenizer. Owned
 * by whoever called mp_model_open(); shared by any number of engines and threads. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/pool.h"
#include "gguf/gguf.h"
#include "model/arch.h"
#include "model/moe.h"
#include "tensor/kernels.h"
#include "text/tokenizer.h"

/* Rotary positions. Wavelengths past the trained context are stretched by `factor` (YaRN: only the long ones). */
typedef struct rope_params {
    float base, factor; /* factor 1: as trained */
    bool yarn;
    uint32_t n_ctx_orig;
    float beta_fast, beta_slow;
    float magnitude; /* of the rotated vectors */
} rope_params;

typedef struct hparams {
    uint32_t n_layers, n_embd, n_vocab, n_ctx;
    uint32_t n_heads, n_kv_heads;
    uint32_t head_dim, value_dim; /* of a head's queries and keys (MLA: n_nope + n_rot), of its values */
    uint32_t n_rot;               /* MLA: the last n_rot of a head, else the first */
    uint32_t kv_lora, q_lora;     /* MLA: width of the cached latent; of the queries' one, 0: none */
    uint32_t n_dense;             /* leading layers without experts */
    uint32_t n_experts, n_used, expert_width;
    moe_routing routing;
    rope_params rope;
    float rms_eps;
    float attention_scale;       /* of the scores */
    float temperature;           /* 0: the same for all positions, see hparams_score_scale() */
    uint32_t temperature_length; /* tokens */
    float embedding_scale, residual_scale, logit_scale;
} hparams;

/* A projection of a layer; biases are F32 rows. */
typedef struct projection {
    tensor w, bias; /* bias.data NULL: none */
} projection;

typedef struct layer_weights {
    tensor attn_norm, q_norm, k_norm; /* norms are F32 rows */
    projection q, k, v, o;
    /* MLA: q = q . norm(q_a x) where q_a is there; kv_a x = latent, rotary key; keys and values come from the latent
     * by kv_b [kv_lora, heads * (nope + value)], or by k_b [nope, kv_lora, heads] and v_b [kv_lora, value, heads] */
    tensor q_a, q_a_norm, kv_a, kv_a_norm, kv_b, k_b, v_b;
    tensor ffn_norm;
    ffn_weights ffn; /* the dense block, or the shared experts */
} layer_weights;

/* residence.c: whether weights are the file's pages or memory of our own. */
typedef struct model_residence model_residence;
mp_status residence_new(model_residence **out, mp_error *err);
void residence_free(model_residence *r);

struct mp_model {
    gguf *file;
    bool copied;                /* its weights, into memory, by the first engine */
    model_residence *residence; /* of its weights */
    const arch *arch;
    hparams hp;
    tensor embed, output_norm, output;
    const float *rope_freqs; /* [n_rot / 2] divisors of the frequencies; NULL: none */
    layer_weights *layers;   /* [n_layers] */
    moe_layer *moe;          /* [n_layers]; of a dense layer: no experts, no weights */
    moe_rung *rungs;         /* [n_layers, n_points] */
    mp_point *points;        /* [info.n_points] */
    tokenizer *tok;          /* NULL where the file has none: ids still run */
    mp_error tok_error;      /* why it has none */
    mp_model_info info;
};

static inline bool model_has_experts(const mp_model *m, uint32_t layer)
{
    return layer >= m->hp.n_dense;
}

/* The first layer with experts: all of them have its shape. */
static inline const moe_layer *model_first_moe(const mp_model *m)
{
    return &m->moe[m->hp.n_dense];
}

/* Version of the artifact this code writes; it reads this one and older. */
#define MODEL_ARTIFACT_VERSION 1

/* Tensors of integers, as GGUF numbers their type: no weights, only stored. */
#define MODEL_TYPE_I32 26

/* What a model file may hold: weights of dtype.h and integers. */
gguf_types model_types(void);

/* Of the scores of a query at `pos`: attention_scale, times 1 + temperature * ln(1 + floor(pos / temperature_length)).
 */
float hparams_score_scale(const hparams *hp, uint32_t pos);

/* Whether this cap (mp_store_params.memory) leaves some of the experts on disk. */
static inline bool model_is_capped(const mp_model *m, uint64_t memory)
{
    return memory && memory < m->info.bytes_experts;
}

/* Whether an engine under this cap runs on pages of the file. */
static inline bool model_stays_mapped(const mp_model *m, uint64_t memory)
{
    return !m->copied && !model_is_capped(m, memory);
}

/* Brings weights into memory for an engine under this cap, where they are not yet: all of them if the model was opened
 * for that, all but the experts under a cap that binds; the first time arranged for the engine's kernels by its
 * threads, unless an engine was opened on them as they are. Any thread may call, any number of times; the first one
 * pays. MP_E_INVALID where weights are there, but arranged for kernels other than `k`. `progress` may be NULL. */
mp_status model_settle(const mp_model *m, uint64_t memory, const kernels *k, pool *p, mp_progress_fn progress,
                       void *user, mp_error *err);
/* arrange.c: interleaves rows and puts tiles in blocks as k takes them (one of them at least), and brings together what
 * each of p's threads reads; of experts, too, or of all else, which may be written to. Engines with other numbers of
 * threads read it, too. */
mp_status model_arrange(mp_model *m, bool experts, const kernels *k, pool *p, mp_error *err);

/* A proxy gate scores a sub-expert by its first neurons. Where the experts stay on disk these are kept in memory,
 * beside the other weights: proxies.c. */
typedef struct proxy_rows {
    const uint8_t **layers; /* [n_moe_layers] rows [N * E, 2, r]: of gate, of up; as gate_up has them */
    uint8_t *data;
} proxy_rows;
uint64_t proxies_bytes(const mp_model *m); /* 0: the model has no such gate */
/* Reads them from the file; `out` is empty where there are none. */
mp_status proxies_read(const mp_model *m, proxy_rows *out, mp_error *err);
void proxies_clear(proxy_rows *p);
/* NULL until model_settle() has kept the experts on disk, and where there are none. */
const uint8_t *const *model_proxies(const mp_model *m);

/* The stages of mp_model_open(), in order. */
mp_status hparams_read(mp_model *m, mp_error *err); /* hparams.c */
mp_status weights_load(mp_model *m, mp_error *err); /* weights.c */
mp_status ladder_load(mp_model *m, mp_error *err);  /* ladder.c */

/* MP_E_UNSUPPORTED with the reason, where the file has no tokenizer we can use. */
mp_status model_need_tokenizer(const mp_model *m, mp_error *err);

/* The SUFFIX of a tensor's name "blk.LAYER.SUFFIX", NULL for other names. A model that opened has no layer out of range
 * and no experts in dense layers. */
const char *model_layer_suffix(const char *name, uint32_t *layer);

#endif
