/* Causal attention over the paged cache, one work item per token and head. Scores of one (token, head) are kept whole:
 * memory grows linearly with the context, once per thread. */
#include <math.h>
#include <string.h>

#include "engine/engine.h"

void attention_layout(arena *a, mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    const size_t n = e->params.n_batch, q = (size_t)hp->n_heads * hp->head_dim,
                 kv = (size_t)hp->n_kv_heads * hp->head_dim;
    e->q = arena_take(a, n, q * sizeof *e->q);
    e->k = arena_take(a, n, kv * sizeof *e->k);
    e->v = arena_take(a, n, kv * sizeof *e->v);
    e->mixed = arena_take(a, n, q * sizeof *e->mixed);
    acts_layout(a, &e->mixed_acts, q, n);
    e->rope_freq = arena_take(a, hp->n_rot / 2, sizeof *e->rope_freq);
    e->rope_cos = arena_take(a, n, hp->n_rot / 2 * sizeof *e->rope_cos);
    e->rope_sin = arena_take(a, n, hp->n_rot / 2 * sizeof *e->rope_sin);
    e->att = arena_take(a, e->params.threads, e->params.n_ctx * sizeof *e->att);
}

void attention_start(mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    for (uint32_t i = 0; i < hp->n_rot / 2; i++)
        e->rope_freq[i] = (float)pow((double)hp->rope_base, -2.0 * i / hp->n_rot);
}

/* Angles are the same for all heads and layers: once per token and step. */
void attention_set_positions(mp_engine *e)
{
    const size_t half = e->model->hp.n_rot / 2;
    for (size_t t = 0; t < e->n; t++)
        for (size_t i = 0; i < half; i++) {
            const float angle = (float)e->batch[t].pos * e->rope_freq[i];
            e->rope_cos[t * half + i] = cosf(angle);
            e->rope_sin[t * half + i] = sinf(angle);
        }
}

/* Rotates pairs (i, i + n_rot/2) of each head ("NeoX" order). x [heads, head_dim]. */
static void rope(const mp_engine *e, size_t t, float *x, uint32_t heads)
{
    const uint32_t half = e->model->hp.n_rot / 2, dim = e->model->hp.head_dim;
    const float *c = e->rope_cos + t * half, *s = e->rope_sin + t * half;
    for (uint32_t h = 0; h < heads; h++, x += dim)
        for (uint32_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half];
            x[i] = a * c[i] - b * s[i];
            x[i + half] = a * s[i] + b * c[i];
        }
}

typedef struct attention_job {
    mp_engine *e;
    uint32_t layer;
} attention_job;

/* Norms, rotates and stores one token's keys and values. */
static void prepare_token(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const attention_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[j->layer];
    const size_t nq = (size_t)hp->n_heads * hp->head_dim, nkv = (size_t)hp->n_kv_heads * hp->head_dim;
    const kernels *kern = e->x.k;
    float *q = e->q + t * nq, *k = e->k + t * nkv;
    const float *v = e->v + t * nkv;
    if (e->model->arch->qk_norm == ARCH_QK_NORM_FULL) {
        kern->rms_norm(q, (const float *)w->q_norm.data, hp->rms_eps, q, nq);
        kern->rms_norm(k, (const float *)w->k_norm.data, hp->rms_eps, k, nkv);
    }
    rope(e, t, q, hp->n_heads);
    rope(e, t, k, hp->n_kv_heads);
    const uint32_t seq = e->batch[t].seq, pos = e->batch[t].pos;
    const size_t at = (size_t)(pos % KV_PAGE) * nkv * e->kv.element;
    uint8_t *keys = kv_page_keys(&e->kv, seq, j->layer, pos / KV_PAGE) + at;
    uint8_t *values = kv_page_values(&e->kv, seq, j->layer, pos / KV_PAGE) + at;
    if (e->params.kv_type == MP_KV_F32) {
        memcpy(keys, k, nkv * sizeof *k);
        memcpy(values, v, nkv * sizeof *v);
    } else {
        kern->f32_to_f16_row(k, (uint16_t *)keys, nkv);
        kern->f32_to_f16_row(v, (uint16_t *)values, nkv);
    }
}

static void attend(void *arg, size_t item, unsigned thread)
{
    const attention_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const kernels *kern = e->x.k;
    const uint32_t head = (uint32_t)(item % hp->n_heads), kv_head = head / (hp->n_heads / hp->n_kv_heads);
    const size_t t = item / hp->n_heads, dim = hp->head_dim, stride = e->kv.kv_dim,
                 offset = kv_head * dim * e->kv.element;
    const uint32_t seq = e->batch[t].seq, len = e->batch[t].pos + 1;
    const float *q = e->q + (t * hp->n_heads + head) * dim, scale = 1.0f / sqrtf((float)dim);
    float *p = e->att + (size_t)thread * e->params.n_ctx, *out = e->mixed + (t * hp->n_heads + head) * dim;
    const bool f32 = e->params.kv_type == MP_KV_F32;
    for (uint32_t at = 0; at < len; at += KV_PAGE) {
        const uint8_t *keys = kv_page_keys(&e->kv, seq, j->layer, at / KV_PAGE) + offset;
        const uint32_t count = len - at < KV_PAGE ? len - at : KV_PAGE;
        if (f32)
            kern->dot_f32(q, (const float *)keys, stride, count, p + at, dim);
        else
            kern->dot_f16(q, (const uint16_t *)keys, stride, count, p + at, dim);
    }
    for (uint32_t i = 0; i < len; i++) p[i] *= scale;
    kern->softmax(p, len);
    memset(out, 0, dim * sizeof *out);
    for (uint32_t at = 0; at < len; at += KV_PAGE) {
        const uint8_t *values = kv_page_values(&e->kv, seq, j->layer, at / KV_PAGE) + offset;
        const uint32_t count = len - at < KV_PAGE ? len - at : KV_PAGE;
        if (f32)
            kern->mix_f32(p + at, (const float *)values, stride, count, out, dim);
        else
            kern->mix_f16(p + at, (const uint16_t *)values, stride, count, out, dim);
    }
}

void engine_attention(mp_engine *e, uint32_t layer, float *h)
{
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[layer];
    const size_t nq = (size_t)hp->n_heads * hp->head_dim, nkv = (size_t)hp->n_kv_heads * hp->head_dim;
    attention_job job = {e, layer};
    for (size_t t = 0; t < e->n; t++)
        e->x.k->rms_norm(h + t * hp->n_embd, (const float *)w->attn_norm.data, hp->rms_eps, e->norm + t * hp->n_embd,
                         hp->n_embd);
    acts_set(&e->x, &e->in_acts, e->norm, e->n,
             tensor_is_quantized(&w->wq) || tensor_is_quantized(&w->wk) || tensor_is_quantized(&w->wv));
    linear(&e->x, &w->wq, &e->in_acts, e->n, e->q, nq, e->moe.ptrs);
    linear(&e->x, &w->wk, &e->in_acts, e->n, e->k, nkv, e->moe.ptrs);
    linear(&e->x, &w->wv, &e->in_acts, e->n, e->v, nkv, e->moe.ptrs);
    pool_for(e->x.pool, e->n, prepare_token, &job);
    pool_for(e->x.pool, e->n * hp->n_heads, attend, &job);
    acts_set(&e->x, &e->mixed_acts, e->mixed, e->n, tensor_is_quantized(&w->wo));
    linear(&e->x, &w->wo, &e->mixed_acts, e->n, e->out, hp->n_embd, e->moe.ptrs);
    engine_add(e, h, e->out);
}
