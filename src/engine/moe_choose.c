/* Which sub-experts of the k0 routed experts a token runs: the gate scores them, the rung selects. A choice depends on
 * its token alone. */
#include <math.h>
#include <string.h>

#include "engine/moe_exec.h"

typedef struct choose_job {
    moe_exec *m;
    const moe_layer *layer;
    const uint32_t *points; /* of select_token() */
    void (*score)(const struct choose_job *job, size_t i, uint32_t k, unsigned thread);
} choose_job;

/* ---- gates: each scores the sub-experts of expert k of gated token i ---- */

static void score_linear(const choose_job *j, size_t i, uint32_t k, unsigned thread)
{
    (void)thread;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const size_t t = m->gated[i];
    float *scores = m->scores + t * moe_full_budget(s) + (size_t)k * s->n_parts;
    for (uint32_t n = 0; n < s->n_parts; n++) scores[n] = logf(m->mix[t * s->n_used + k]);
}

static void score_probe(const choose_job *j, size_t i, uint32_t k, unsigned thread)
{
    (void)thread;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const moe_weights *w = &j->layer->w;
    const size_t t = m->gated[i];
    const void *in = acts_for(w->probe_in.data ? &m->z_acts : &m->gate_in, &w->probe)[i];
    const uint32_t *expert = m->experts + t * s->n_used + k, first = *expert * s->n_parts;
    const void *next = k + 1 < s->n_used ? tensor_row(&w->probe, 0, expert[1] * s->n_parts) : NULL;
    const float log_mix = logf(m->mix[t * s->n_used + k]);
    float *scores = m->scores + t * moe_full_budget(s) + (size_t)k * s->n_parts;
    m->x->k->rows_dot(w->probe.type, w->probe.cols, tensor_row(&w->probe, 0, first), w->probe.row_bytes, s->n_parts,
                      &in, &scores, 1, next);
    for (uint32_t n = 0; n < s->n_parts; n++) scores[n] += w->probe_bias[first + n] + log_mix;
}

/* Mean |a| over the first r neurons of a set; the activations are kept for when it runs. */
static void score_proxy(const choose_job *j, size_t i, uint32_t k, unsigned thread)
{
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const tensor *w = &j->layer->w.gate_up;
    const uint32_t r = j->layer->proxy_neurons;
    const size_t t = m->gated[i], bytes = r * w->row_bytes, first = t * moe_full_budget(s) + (size_t)k * s->n_parts;
    const uint8_t *kept = m->disk.proxies ? m->disk.proxies[j->layer->number] : NULL;
    const void *in = acts_for(&m->gate_in, w)[i];
    float *up = m->proxy_up + (size_t)thread * r;
    for (uint32_t n = 0; n < s->n_parts; n++) {
        const uint32_t sub = m->experts[t * s->n_used + k] * s->n_parts + n;
        float *a = m->proxy + (first + n) * r, sum = 0;
        const uint8_t *gate_rows = kept ? kept + (size_t)sub * 2 * bytes : tensor_row(w, sub, 0);
        const uint8_t *up_rows = kept ? gate_rows + bytes : tensor_row(w, sub, s->part_width);
        m->x->k->rows_dot(w->type, w->cols, gate_rows, w->row_bytes, r, &in, &a, 1, NULL);
        m->x->k->rows_dot(w->type, w->cols, up_rows, w->row_bytes, r, &in, &up, 1, NULL);
        m->x->k->swiglu(a, up, a, r);
        for (uint32_t c = 0; c < r; c++) sum += fabsf(a[c]);
        m->scores[first + n] = logf(sum / (float)r) + logf(m->mix[t * s->n_used + k]);
    }
}

bool moe_exec_is_scored(const moe_exec *m, const uint32_t *points, size_t token)
{
    return points[token] != 0 || (m->disk.floors && m->disk.floors[token] != 0);
}

float moe_exec_run_score(const moe_exec *m, const uint32_t *points, size_t token, uint32_t run)
{
    const moe_shape *s = &m->shape;
    return moe_exec_is_scored(m, points, token) ? m->scores[token * moe_full_budget(s) + run]
                                                : logf(m->mix[token * s->n_used + run / s->n_parts]);
}

/* Gathers the activations of the tokens that need a gate; returns how many. */
static size_t gather_gated(moe_exec *m, const acts *in, const uint32_t *points, size_t tokens)
{
    size_t n = 0;
    for (size_t t = 0; t < tokens; t++) {
        if (!moe_exec_is_scored(m, points, t)) continue;
        m->gated[n] = (uint32_t)t;
        m->gate_in.f32[n] = in->f32[t];
        m->gate_in.quant[n] = in->quant[t];
        n++;
    }
    return n;
}

static void score_item(void *arg, size_t item, unsigned thread)
{
    const choose_job *j = arg;
    const uint32_t used = j->m->shape.n_used;
    j->score(j, item / used, (uint32_t)(item % used), thread);
}

void moe_exec_score(moe_exec *m, const moe_layer *layer, const acts *in, const uint32_t *points, size_t tokens)
{
    const size_t n = gather_gated(m, in, points, tokens);
    const moe_weights *w = &layer->w;
    choose_job job = {.m = m, .layer = layer, .score = score_linear};
    if (n == 0) return;
    if (layer->gate == MP_GATE_PROXY) job.score = score_proxy;
    if (layer->gate == MP_GATE_PROBE) {
        job.score = score_probe;
        if (w->probe_in.data) {
            m->z_acts.n = w->probe_in.rows;
            linear(m->x, &w->probe_in, &m->gate_in, n, m->z, w->probe_in.rows, m->ptrs);
            acts_set(m->x, &m->z_acts, m->z, n, tensor_is_quantized(&w->probe));
        }
    }
    pool_for(m->x->pool, n * m->shape.n_used, score_item, &job);
}

/* ---- selection ---- */

/* Moves the k smallest keys to the front, k >= 1 (Hoare's quickselect; keys are distinct). */
static void select_smallest(uint64_t *keys, ptrdiff_t n, ptrdiff_t k)
{
    ptrdiff_t low = 0, high = n - 1;
    while (low < high) {
        const uint64_t pivot = keys[low + (high - low) / 2];
        ptrdiff_t i = low, j = high;
        while (i <= j) {
            while (keys[i] < pivot) i++;
            while (keys[j] > pivot) j--;
            if (i > j) break;
            const uint64_t swap = keys[i];
            keys[i++] = keys[j];
            keys[j--] = swap;
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            return;
    }
}

/* Marks the `count` best slots in keep [full]. */
static void keep_best(const float *scores, uint32_t full, uint32_t count, uint64_t *keys, uint8_t *keep)
{
    for (uint32_t i = 0; i < full; i++) keys[i] = moe_score_key(scores[i], i);
    select_smallest(keys, full, count);
    memset(keep, 0, full);
    for (uint32_t i = 0; i < count; i++) keep[(uint32_t)keys[i]] = 1;
}

void moe_exec_mark(const moe_exec *m, const moe_layer *layer, size_t token, uint32_t rung, uint64_t *keys,
                   uint8_t *keep)
{
    const uint32_t full = moe_full_budget(&m->shape);
    const moe_rung *r = &layer->rungs[rung];
    const float *scores = m->scores + token * full;
    if (rung == 0) {
        memset(keep, 1, full);
    } else if (layer->select == MP_SELECT_TOPK) {
        keep_best(scores, full, r->top, keys, keep);
    } else {
        uint32_t count = 0;
        for (uint32_t i = 0; i < full; i++) count += keep[i] = scores[i] >= r->log_tau;
        if (count < r->at_least) keep_best(scores, full, r->at_least, keys, keep);
    }
}

static void select_token(void *arg, size_t t, unsigned thread)
{
    const choose_job *j = arg;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const uint32_t full = moe_full_budget(s), *experts = m->experts + t * s->n_used;
    uint32_t *run = m->run + t * full, n = 0, done = 0;
    uint8_t *keep = m->keep + (size_t)thread * full;
    moe_exec_mark(m, j->layer, t, j->points[t], m->sort + (size_t)thread * full, keep);
    if (m->disk.resident_margin < 0 && j->points[t] != 0) moe_disk_prefer_resident(m, j->layer, t, keep, thread);
    for (uint32_t i = 0; i < s->n_used; i++) { /* experts ascending: each time the smallest not yet done */
        uint32_t slot = UINT32_MAX;
        for (uint32_t k = 0; k < s->n_used; k++)
            if (experts[k] >= done && (slot == UINT32_MAX || experts[k] < experts[slot])) slot = k;
        for (uint32_t p = 0; p < s->n_parts; p++)
            if (keep[slot * s->n_parts + p]) run[n++] = slot * s->n_parts + p;
        done = experts[slot] + 1;
    }
    m->n_run[t] = n;
}

void moe_exec_select(moe_exec *m, const moe_layer *layer, const uint32_t *points, size_t tokens)
{
    pool_for(m->x->pool, tokens, select_token, &(choose_job){.m = m, .layer = layer, .points = points});
}
