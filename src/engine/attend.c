/* Causal attention over the paged cache: out = softmax(scale q K^T) V, page by page with a running maximum (online
 * softmax, arXiv 2205.14135), so that memory does not grow with the context.
 *
 * Queries that meet the same cached head go together: the heads of a group (GQA; MLA: all) and neighbouring tokens of a
 * sequence. A page is then read and widened once for all of them. What a query gets depends on the query and its pages
 * alone, not on its company. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/engine.h"

/* Queries of an item; items a thread, so that threads finish together. */
enum { QUERIES = 32, ITEMS_PER_THREAD = 4 };

typedef struct attend_job {
    const mp_engine *e;
    uint32_t layer;
    size_t tokens, blocks;        /* of an item; in the batch */
    uint32_t group, heads, parts; /* heads to a cached head; of them in an item; items to a group */
} attend_job;

/* Queries of one sequence and one cached head on their way through the pages. */
typedef struct block {
    size_t n;
    const float *q[QUERIES];
    float *out[QUERIES];
    float *p[QUERIES];     /* scores of a page, then shares */
    uint32_t len[QUERIES]; /* positions seen, not descending */
    float scale[QUERIES];  /* of scores */
    float largest[QUERIES];
    double sum[QUERIES];
    float scores[QUERIES][MP_KV_PAGE]; /* of a page, then shares */
} block;

/* ---- one page ---- */

static void score_page(const mp_engine *e, const block *b, const uint8_t *keys, uint32_t count)
{
    const size_t stride = e->kv.key_bytes, n = e->shape.key_dim;
    if (e->params.kv_type == MP_KV_Q8_0) {
        for (size_t i = 0; i < b->n; i++) e->x.k->dot_q8_0(b->q[i], keys, stride, count, b->p[i], n);
        return;
    }
    const dtype type = e->params.kv_type == MP_KV_F32 ? DTYPE_F32 : DTYPE_F16;
    e->x.k->rows_dot(type, n, keys, stride, count, (const void *const *)b->q, b->p, b->n, NULL);
}

static void mix_page(const mp_engine *e, const block *b, const uint8_t *values, size_t stride, uint32_t count)
{
    const size_t n = e->shape.value_dim;
    if (e->params.kv_type == MP_KV_Q8_0) {
        for (size_t i = 0; i < b->n; i++) e->x.k->mix_q8_0(b->p[i], values, stride, count, b->out[i], n);
        return;
    }
    const dtype type = e->params.kv_type == MP_KV_F32 ? DTYPE_F32 : DTYPE_F16;
    e->x.k->rows_accumulate(type, n, 1, values, stride, count, (const float *const *)b->p, b->out, b->n, NULL);
}

/* Scores into shares. Positions that a query does not see get none. */
static void share_page(const mp_engine *e, block *b, uint32_t at, uint32_t count)
{
    for (size_t i = 0; i < b->n; i++) {
        const uint32_t seen = b->len[i] > at ? b->len[i] - at : 0, here = seen < count ? seen : count;
        memset(b->p[i] + here, 0, (count - here) * sizeof *b->p[i]);
        if (here == 0) continue;
        const float before = b->largest[i];
        const float fade = e->x.k->softmax_step(b->p[i], here, b->scale[i], &b->largest[i], &b->sum[i]);
        if (b->largest[i] == before) continue;
        for (size_t c = 0; c < e->shape.value_dim; c++) b->out[i][c] *= fade;
    }
}

/* ---- all pages ---- */

static void attend_block(const attend_job *j, uint32_t seq, uint32_t cached, block *b)
{
    const mp_engine *e = j->e;
    const cache_shape *s = &e->shape;
    const bool latent = e->kv.value_bytes == 0;
    const size_t key_offset = attention_row_bytes(e->params.kv_type, (size_t)cached * s->key_dim),
                 value_offset = attention_row_bytes(e->params.kv_type, (size_t)cached * s->value_dim),
                 value_bytes = latent ? e->kv.key_bytes : e->kv.value_bytes;
    const uint32_t len = b->len[b->n - 1];
    for (size_t i = 0; i < b->n; i++) {
        b->p[i] = b->scores[i];
        b->largest[i] = -INFINITY;
        b->sum[i] = 0;
        memset(b->out[i], 0, s->value_dim * sizeof *b->out[i]);
    }
    for (uint32_t at = 0; at < len; at += MP_KV_PAGE) {
        const uint32_t count = len - at < MP_KV_PAGE ? len - at : MP_KV_PAGE;
        const uint8_t *keys = kv_page_keys(&e->kv, seq, j->layer, at / MP_KV_PAGE);
        const uint8_t *values = latent ? keys : kv_page_values(&e->kv, seq, j->layer, at / MP_KV_PAGE);
        score_page(e, b, keys + key_offset, count);
        share_page(e, b, at, count);
        mix_page(e, b, values + value_offset, value_bytes, count);
    }
    for (size_t i = 0; i < b->n; i++) {
        const float whole = (float)(1 / b->sum[i]);
        for (size_t c = 0; c < s->value_dim; c++) b->out[i][c] *= whole;
    }
}

/* Some heads of a group for neighbouring tokens of the batch, those of one sequence together. The last tokens, which
 * see most, come first. */
static void attend_item(void *arg, size_t item, unsigned thread)
{
    (void)thread;
    const attend_job *j = arg;
    const mp_engine *e = j->e;
    const cache_shape *s = &e->shape;
    const size_t per_block = (size_t)s->heads * j->parts, first = (j->blocks - 1 - item / per_block) * j->tokens,
                 end = first + j->tokens < e->n ? first + j->tokens : e->n;
    const uint32_t cached = (uint32_t)(item % per_block) / j->parts, part = (uint32_t)(item % j->parts) * j->heads,
                   part_end = part + j->heads < j->group ? part + j->heads : j->group;
    block b = {.n = 0};
    for (size_t t = first; t < end; t++) {
        const float scale = hparams_score_scale(&e->model->hp, e->batch[t].pos);
        for (uint32_t h = part; h < part_end; h++, b.n++) {
            const size_t row = t * e->model->hp.n_heads + (size_t)cached * j->group + h;
            b.q[b.n] = e->query + row * s->key_dim;
            b.out[b.n] = e->mixed + row * s->value_dim;
            b.len[b.n] = e->batch[t].pos + 1;
            b.scale[b.n] = scale;
        }
        if (t + 1 < end && e->batch[t + 1].seq == e->batch[t].seq) continue;
        if (b.n > 0) attend_block(j, e->batch[t].seq, cached, &b);
        b.n = 0;
    }
}

void attend(const mp_engine *e, uint32_t layer)
{
    const uint32_t group = e->model->hp.n_heads / e->shape.heads;
    assert(group > 0);
    const size_t wanted = ITEMS_PER_THREAD * (size_t)pool_threads(e->x.pool);
    attend_job j = {.e = e, .layer = layer, .tokens = 1, .group = group, .heads = group < QUERIES ? group : QUERIES};
    while (j.heads * 2 * j.tokens <= QUERIES && e->n / (2 * j.tokens) * e->shape.heads >= wanted) j.tokens *= 2;
    while (j.heads > 1 && e->n / j.tokens * e->shape.heads * ((group + j.heads - 1) / j.heads) < wanted)
        j.heads = (j.heads + 1) / 2;
    j.parts = (group + j.heads - 1) / j.heads;
    j.blocks = (e->n + j.tokens - 1) / j.tokens;
    pool_for(e->x.pool, j.blocks * e->shape.heads * j.parts, attend_item, &j);
}
