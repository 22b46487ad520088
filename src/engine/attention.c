/* What surrounds attend(): norms, projections, rotary positions, storing into the cache. MLA's are in mla.c. */
#include <math.h>
#include <string.h>

#include "engine/engine.h"

cache_shape attention_cache_shape(const hparams *hp)
{
    if (hp->kv_lora) return (cache_shape){.heads = 1, .key_dim = hp->kv_lora + hp->n_rot, .value_dim = hp->kv_lora};
    return (cache_shape){.heads = hp->n_kv_heads, .key_dim = hp->head_dim, .value_dim = hp->value_dim};
}

size_t attention_row_bytes(mp_kv_type type, size_t width)
{
    return type == MP_KV_F32 ? width * sizeof(float)
                             : dtype_row_bytes(type == MP_KV_Q8_0 ? DTYPE_Q8_0 : DTYPE_F16, width);
}

/* ---- memory ---- */

void attention_layout(arena *a, mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    const size_t n = e->params.n_batch, q = (size_t)hp->n_heads * hp->head_dim;
    const cache_shape *s = &e->shape;
    e->q = arena_take(a, n, q * sizeof *e->q);
    e->k = arena_take(a, n, (size_t)s->heads * s->key_dim * sizeof *e->k);
    e->mixed = arena_take(a, n, (size_t)hp->n_heads * s->value_dim * sizeof *e->mixed);
    acts_layout(a, &e->value_acts, (size_t)hp->n_heads * hp->value_dim, n);
    e->rope_freq = arena_take(a, hp->n_rot / 2, sizeof *e->rope_freq);
    e->rope_cos = arena_take(a, n, hp->n_rot / 2 * sizeof *e->rope_cos);
    e->rope_sin = arena_take(a, n, hp->n_rot / 2 * sizeof *e->rope_sin);
    if (e->model->arch->mla) {
        mla_layout(a, e);
    } else {
        e->v = arena_take(a, n, (size_t)s->heads * s->value_dim * sizeof *e->v);
        e->query = e->q;
        e->values = e->mixed;
    }
}

/* ---- rotary positions ---- */

/* The pair that turns `turns` times over the context the model was trained on. */
static double yarn_pair(const rope_params *r, uint32_t n_rot, double turns)
{
    return n_rot * log(r->n_ctx_orig / (turns * 2 * M_PI)) / (2 * log((double)r->base));
}

/* YaRN stretches pairs that turn less than beta_slow times, leaves those that turn more than beta_fast times, and
 * passes linearly from one to the other. Returns the share of stretching of pair i. */
static double yarn_share(const rope_params *r, uint32_t n_rot, uint32_t i)
{
    const double low = fmax(0, floor(yarn_pair(r, n_rot, (double)r->beta_fast)));
    const double high = fmin(n_rot - 1, ceil(yarn_pair(r, n_rot, (double)r->beta_slow)));
    return fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
}

void attention_start(mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    const rope_params *r = &hp->rope;
    for (uint32_t i = 0; i < hp->n_rot / 2; i++) {
        double freq = pow((double)r->base, -2.0 * i / hp->n_rot);
        if (e->model->rope_freqs) freq /= (double)e->model->rope_freqs[i];
        const double share = r->yarn ? yarn_share(r, hp->n_rot, i) : 1;
        e->rope_freq[i] = (float)(freq * (1 - share) + freq / (double)r->factor * share);
    }
}

/* Angles are the same for all heads and layers: once per token and step. */
void attention_set_positions(mp_engine *e)
{
    const size_t half = e->model->hp.n_rot / 2;
    const float magnitude = e->model->hp.rope.magnitude;
    for (size_t t = 0; t < e->n; t++)
        for (size_t i = 0; i < half; i++) {
            const float angle = (float)e->batch[t].pos * e->rope_freq[i];
            e->rope_cos[t * half + i] = cosf(angle) * magnitude;
            e->rope_sin[t * half + i] = sinf(angle) * magnitude;
        }
}

void attention_rotate(const mp_engine *e, size_t t, float *x)
{
    const uint32_t half = e->model->hp.n_rot / 2;
    const float *c = e->rope_cos + t * half, *s = e->rope_sin + t * half;
    const bool pairs = e->model->arch->rope == ARCH_ROPE_PAIRS;
    const uint32_t step = pairs ? 2 : 1, other = pairs ? 1 : half;
    for (uint32_t i = 0; i < half; i++) {
        float *at = x + (size_t)i * step;
        const float a = at[0], b = at[other];
        at[0] = a * c[i] - b * s[i];
        at[other] = a * s[i] + b * c[i];
    }
}

/* ---- projections of plain attention ---- */

void attention_store(const mp_engine *e, const float *row, size_t width, uint8_t *out)
{
    if (e->params.kv_type == MP_KV_F32)
        memcpy(out, row, width * sizeof *row);
    else if (e->params.kv_type == MP_KV_Q8_0)
        dtype_from_f32(DTYPE_Q8_0, row, out, width);
    else
        e->x.k->f32_to_f16_row(row, (uint16_t *)out, width);
}

typedef struct attention_job {
    mp_engine *e;
    uint32_t layer;
} attention_job;

static void add_bias(const tensor *bias, float *row)
{
    const float *b = (const float *)bias->data;
    for (uint32_t i = 0; b && i < bias->cols; i++) row[i] += b[i];
}

/* x [heads, head_dim] */
static void norm_heads(const mp_engine *e, const tensor *weight, float *x, uint32_t heads)
{
    const hparams *hp = &e->model->hp;
    const float *w = (const float *)weight->data;
    const size_t dim = hp->head_dim;
    if (e->model->arch->qk_norm == ARCH_QK_NORM_FULL) e->x.k->rms_norm(x, w, hp->rms_eps, x, heads * dim);
    if (e->model->arch->qk_norm != ARCH_QK_NORM_HEAD) return;
    for (uint32_t h = 0; h < heads; h++) e->x.k->rms_norm(x + h * dim, w, hp->rms_eps, x + h * dim, dim);
}

/* Norms, rotates and stores one token's keys and values. */
static void prepare_token(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const attention_job *j = arg;
    mp_engine *e = j->e;
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[j->layer];
    const size_t dim = hp->head_dim, nk = hp->n_kv_heads * dim, nv = (size_t)hp->n_kv_heads * hp->value_dim;
    float *q = e->q + t * hp->n_heads * dim, *k = e->k + t * nk, *v = e->v + t * nv;
    add_bias(&w->q.bias, q);
    add_bias(&w->k.bias, k);
    add_bias(&w->v.bias, v);
    norm_heads(e, &w->q_norm, q, hp->n_heads);
    norm_heads(e, &w->k_norm, k, hp->n_kv_heads);
    for (uint32_t h = 0; h < hp->n_heads; h++) attention_rotate(e, t, q + h * dim);
    for (uint32_t h = 0; h < hp->n_kv_heads; h++) attention_rotate(e, t, k + h * dim);
    const uint32_t seq = e->batch[t].seq, page = e->batch[t].pos / MP_KV_PAGE, row = e->batch[t].pos % MP_KV_PAGE;
    attention_store(e, k, nk, kv_page_keys(&e->kv, seq, j->layer, page) + row * e->kv.key_bytes);
    attention_store(e, v, nv, kv_page_values(&e->kv, seq, j->layer, page) + row * e->kv.value_bytes);
}

static void project(mp_engine *e, uint32_t layer)
{
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[layer];
    acts_set(&e->x, &e->in_acts, e->norm, e->n,
             tensor_is_quantized(&w->q.w) || tensor_is_quantized(&w->k.w) || tensor_is_quantized(&w->v.w));
    const linear_product products[] = {{&w->q.w, e->q, (size_t)hp->n_heads * hp->head_dim},
                                       {&w->k.w, e->k, (size_t)hp->n_kv_heads * hp->head_dim},
                                       {&w->v.w, e->v, (size_t)hp->n_kv_heads * hp->value_dim}};
    linear_several(&e->x, products, 3, &e->in_acts, e->n, e->moe.ptrs);
    pool_for(e->x.pool, e->n, prepare_token, &(attention_job){e, layer});
}

/* ---- a layer's attention ---- */

void engine_attention(mp_engine *e, uint32_t layer, float *h)
{
    const hparams *hp = &e->model->hp;
    const layer_weights *w = &e->model->layers[layer];
    engine_norm(e, &w->attn_norm, h, e->norm);
    if (e->model->arch->mla)
        mla_project(e, layer);
    else
        project(e, layer);
    attend(e, layer);
    if (e->model->arch->mla) mla_expand(e, layer);
    acts_set(&e->x, &e->value_acts, e->values, e->n, tensor_is_quantized(&w->o.w));
    linear(&e->x, &w->o.w, &e->value_acts, e->n, e->out, hp->n_embd, e->moe.ptrs);
    for (size_t t = 0; w->o.bias.data && t < e->n; t++) add_bias(&w->o.bias, e->out + t * hp->n_embd);
    engine_add(e, h, e->out);
}
