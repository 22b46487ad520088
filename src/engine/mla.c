/* Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), absorbed: the cache holds one latent and
 * one rotary key per position, whatever the number of heads. With W_k, W_v a head's parts of the up-projection,
 *
 *     q_nope . (W_k c) = (W_k^T q_nope) . c        sum_i p_i (W_v c_i) = W_v (sum_i p_i c_i)
 *
 * so queries are brought into the latent space once per step, attention runs there, and what it mixes is expanded once:
 * keys and values of past positions are never expanded. W_k, W_v come as rows of kv_b, or as k_b and v_b. */
#include <string.h>

#include "engine/engine.h"

void mla_layout(arena *a, mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    const size_t n = e->params.n_batch, heads = hp->n_heads, nope = hp->head_dim - hp->n_rot;
    e->query = arena_take(a, n, heads * e->shape.key_dim * sizeof *e->query);
    e->values = arena_take(a, n, heads * hp->value_dim * sizeof *e->values);
    e->q_lora = arena_take(a, n, hp->q_lora * sizeof *e->q_lora);
    acts_layout(a, &e->lora_acts, hp->q_lora, n);
    acts_layout(a, &e->head_acts, nope > hp->kv_lora ? nope : hp->kv_lora, n * heads);
}

/* ---- a head's part as activations ---- */

typedef struct head_acts_job {
    mp_engine *e;
    const float *rows; /* [n, heads, stride] */
    size_t stride;     /* floats from head to head */
    bool quantize;
} head_acts_job;

static void set_head_act(void *arg, size_t item, unsigned thread)
{
    (void)thread;
    const head_acts_job *j = arg;
    acts *a = &j->e->head_acts;
    const size_t n = j->e->n, heads = j->e->model->hp.n_heads, head = item / n, t = item % n;
    const float *row = j->rows + (t * heads + head) * j->stride;
    uint8_t *quant = a->quant_rows + item * a->quant_stride;
    a->f32[item] = row;
    a->quant[item] = quant;
    if (j->quantize) j->e->x.k->quantize_act(row, a->n, quant);
}

/* head_acts [heads, n] = the first `width` floats of every head's part. */
static void set_head_acts(mp_engine *e, const float *rows, size_t stride, size_t width, bool quantize)
{
    head_acts_job job = {e, rows, stride, quantize};
    e->head_acts.n = width;
    pool_for(e->x.pool, e->n * e->model->hp.n_heads, set_head_act, &job);
}

/* ---- into the latent space ---- */

typedef struct mla_job {
    mp_engine *e;
    const layer_weights *w;
    uint32_t layer;
} mla_job;

/* Norms and stores the latent, rotates the key and the queries. */
static void prepare_token(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const mla_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const size_t nope = hp->head_dim - hp->n_rot;
    float *latent = e->k + t * e->shape.key_dim, *q = e->q + t * hp->n_heads * hp->head_dim;
    e->x.k->rms_norm(latent, (const float *)j->w->kv_a_norm.data, hp->rms_eps, latent, hp->kv_lora);
    attention_rotate(e, t, latent + hp->kv_lora);
    for (uint32_t h = 0; h < hp->n_heads; h++) {
        float *rotary = q + (size_t)h * hp->head_dim + nope;
        attention_rotate(e, t, rotary);
        memcpy(e->query + (t * hp->n_heads + h) * e->shape.key_dim + hp->kv_lora, rotary, hp->n_rot * sizeof *rotary);
    }
    const uint32_t pos = e->batch[t].pos;
    uint8_t *keys = kv_page_keys(&e->kv, e->batch[t].seq, j->layer, pos / MP_KV_PAGE);
    attention_store(e, latent, e->shape.key_dim, keys + pos % MP_KV_PAGE * e->kv.key_bytes);
}

/* query[t][head] = W_k^T q_nope */
static void absorb_head(void *arg, size_t head, unsigned thread)
{
    const mla_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const kernels *k = e->x.k;
    const size_t nope = hp->head_dim - hp->n_rot;
    const tensor *w = j->w->kv_b.data ? &j->w->kv_b : &j->w->k_b;
    float **out = e->moe.ptrs + (size_t)thread * 4 * e->moe.cap;
    for (size_t t = 0; t < e->n; t++) out[t] = e->query + (t * hp->n_heads + head) * e->shape.key_dim;
    if (w == &j->w->k_b) {
        const void *const *in = acts_for(&e->head_acts, w) + head * e->n;
        k->rows_dot(w->type, nope, tensor_row(w, (uint32_t)head, 0), w->row_bytes, hp->kv_lora, in, out, e->n, NULL);
        return;
    }
    const float **q = (const float **)(out + e->moe.cap);
    for (size_t t = 0; t < e->n; t++) {
        q[t] = e->q + (t * hp->n_heads + head) * hp->head_dim;
        memset(out[t], 0, hp->kv_lora * sizeof *out[t]);
    }
    const uint32_t row = (uint32_t)(head * (nope + hp->value_dim));
    k->rows_accumulate(w->type, hp->kv_lora, 1, tensor_row(w, 0, row), w->row_bytes, nope, q, out, e->n, NULL);
}

static void project_queries(mp_engine *e, const layer_weights *w)
{
    const hparams *hp = &e->model->hp;
    const size_t nq = (size_t)hp->n_heads * hp->head_dim;
    if (!hp->q_lora) {
        linear(&e->x, &w->q.w, &e->in_acts, e->n, e->q, nq, e->moe.ptrs);
        return;
    }
    linear(&e->x, &w->q_a, &e->in_acts, e->n, e->q_lora, hp->q_lora, e->moe.ptrs);
    for (size_t t = 0; t < e->n; t++) {
        float *row = e->q_lora + t * hp->q_lora;
        e->x.k->rms_norm(row, (const float *)w->q_a_norm.data, hp->rms_eps, row, hp->q_lora);
    }
    acts_set(&e->x, &e->lora_acts, e->q_lora, e->n, tensor_is_quantized(&w->q.w));
    linear(&e->x, &w->q.w, &e->lora_acts, e->n, e->q, nq, e->moe.ptrs);
}

void mla_project(mp_engine *e, uint32_t layer)
{
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[layer];
    mla_job job = {e, w, layer};
    acts_set(&e->x, &e->in_acts, e->norm, e->n,
             tensor_is_quantized(&w->kv_a) || tensor_is_quantized(hp->q_lora ? &w->q_a : &w->q.w));
    project_queries(e, w);
    linear(&e->x, &w->kv_a, &e->in_acts, e->n, e->k, e->shape.key_dim, e->moe.ptrs);
    pool_for(e->x.pool, e->n, prepare_token, &job);
    if (!w->kv_b.data) set_head_acts(e, e->q, hp->head_dim, hp->head_dim - hp->n_rot, tensor_is_quantized(&w->k_b));
    pool_for(e->x.pool, hp->n_heads, absorb_head, &job);
}

/* ---- out of the latent space ---- */

/* values[t][head] = W_v mixed[t][head] */
static void expand_head(void *arg, size_t head, unsigned thread)
{
    const mla_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const uint32_t nope = hp->head_dim - hp->n_rot;
    const tensor *w = j->w->kv_b.data ? &j->w->kv_b : &j->w->v_b;
    const uint8_t *rows = w == &j->w->v_b ? tensor_row(w, (uint32_t)head, 0)
                                          : tensor_row(w, 0, (uint32_t)head * (nope + hp->value_dim) + nope);
    float **out = e->moe.ptrs + (size_t)thread * 4 * e->moe.cap;
    for (size_t t = 0; t < e->n; t++) out[t] = e->values + (t * hp->n_heads + head) * hp->value_dim;
    e->x.k->rows_dot(w->type, hp->kv_lora, rows, w->row_bytes, hp->value_dim, acts_for(&e->head_acts, w) + head * e->n,
                     out, e->n, NULL);
}

void mla_expand(mp_engine *e, uint32_t layer)
{
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[layer];
    const tensor *values = w->kv_b.data ? &w->kv_b : &w->v_b;
    set_head_acts(e, e->mixed, e->shape.value_dim, hp->kv_lora, tensor_is_quantized(values));
    pool_for(e->x.pool, hp->n_heads, expand_head, &(mla_job){e, w, layer});
}
