/* One step: check -> embed -> layers (attention, experts) -> head. The refactorer calls the same stages. */
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "tensor/rows16.h"

/* ---- check ---- */

static mp_status check_token(const mp_engine *e, const mp_batch_token *b, size_t i, mp_error *err)
{
    const mp_model *m = e->model;
    if (b->token < 0 || (uint32_t)b->token >= m->hp.n_vocab)
        return status_fail(err, MP_E_INVALID, "token %zu of the step: id %d is not in the vocabulary of %u", i,
                           b->token, m->hp.n_vocab);
    if (b->seq >= e->params.n_seqs)
        return status_fail(err, MP_E_INVALID, "token %zu of the step: sequence %u, there are %u", i, b->seq,
                           e->params.n_seqs);
    if (b->point >= m->info.n_points)
        return status_fail(err, MP_E_INVALID, "operating point %u does not exist: choose 0 to %u", b->point,
                           m->info.n_points - 1);
    if (b->floor >= m->info.n_points)
        return status_fail(err, MP_E_INVALID, "a floor at operating point %u, which does not exist: choose 0 to %u",
                           b->floor, m->info.n_points - 1);
    if (b->pos != e->seq_len[b->seq])
        return status_fail(err, MP_E_INVALID, "token %zu of the step: position %u, sequence %u continues at %u", i,
                           b->pos, b->seq, e->seq_len[b->seq]);
    if (b->pos >= e->params.n_ctx)
        return status_fail(err, MP_E_LIMIT, "sequence %u is full: the context holds %u tokens", b->seq,
                           e->params.n_ctx);
    return MP_OK;
}

static mp_status check_batch(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err)
{
    size_t rows = 0;
    if (n == 0 || n > e->params.n_batch)
        return status_fail(err, MP_E_INVALID, "a step of %zu tokens: it may hold 1 to %u", n, e->params.n_batch);
    memcpy(e->seq_len, e->kv.len, e->params.n_seqs * sizeof *e->seq_len);
    for (size_t i = 0; i < n; i++) {
        MP_TRY(check_token(e, &tokens[i], i, err));
        e->seq_len[tokens[i].seq]++;
        rows += tokens[i].logits;
    }
    if (rows > e->params.n_logits)
        return status_fail(err, MP_E_INVALID, "logits of %zu tokens: a step may ask for %u", rows, e->params.n_logits);
    uint64_t pages = 0;
    for (uint32_t s = 0; s < e->params.n_seqs; s++) pages += kv_need(&e->kv, s, e->seq_len[s]);
    return pages > e->kv.n_free ? kv_full(&e->kv, err) : MP_OK;
}

mp_status engine_begin(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err)
{
    MP_TRY(check_batch(e, tokens, n, err));
    for (size_t i = 0; i < n; i++) MP_TRY(kv_grow(&e->kv, tokens[i].seq, tokens[i].pos + 1, err)); /* was checked */
    e->n = n;
    memcpy(e->batch, tokens, n * sizeof *tokens);
    size_t row = 0;
    for (size_t i = 0; i < n; i++) {
        e->points[i] = tokens[i].point;
        if (e->floors) {
            e->floors[i] = tokens[i].floor;
            e->moe.disk.lost[i] = 0;
        }
        e->subs_run[i] = 0;
        e->logit_row[i] = tokens[i].logits ? row++ : SIZE_MAX;
    }
    attention_set_positions(e);
    return MP_OK;
}

/* ---- stages ---- */

void engine_embed(mp_engine *e, float *h)
{
    const tensor *w = &e->model->embed;
    const float scale = e->model->hp.embedding_scale;
    for (size_t t = 0; t < e->n; t++) {
        const uint32_t row = (uint32_t)e->batch[t].token, lane = row % ROWS16;
        if (dtype_is_r16(w->type))
            rows16_to_f32(w->type, w->cols, tensor_row(w, 0, row - lane), lane, 0, h + t * w->cols, w->cols);
        else
            dtype_to_f32(w->type, tensor_row(w, 0, row), h + t * w->cols, w->cols);
    }
    for (size_t i = 0; scale != 1 && i < e->n * w->cols; i++) h[i] *= scale;
}

typedef struct rows_job {
    const mp_engine *e;
    const float *weight, *in;
    float *out;
} rows_job;

static void norm_row(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const rows_job *j = arg;
    const size_t d = j->e->model->hp.n_embd;
    j->e->x.k->rms_norm(j->in + t * d, j->weight, j->e->model->hp.rms_eps, j->out + t * d, d);
}

void engine_norm(mp_engine *e, const tensor *weight, const float *h, float *x)
{
    pool_for(e->x.pool, e->n, norm_row, &(rows_job){e, (const float *)weight->data, h, x});
}

static void add_row(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const rows_job *j = arg;
    const size_t d = j->e->model->hp.n_embd;
    const float scale = j->e->model->hp.residual_scale, *in = j->in + t * d;
    float *out = j->out + t * d;
    for (size_t i = 0; i < d; i++) out[i] += scale * in[i];
}

void engine_add(mp_engine *e, float *h, const float *delta)
{
    pool_for(e->x.pool, e->n, add_row, &(rows_job){e, NULL, delta, h});
}

void engine_head(mp_engine *e, const float *h)
{
    const mp_model *m = e->model;
    size_t rows = 0;
    for (size_t t = 0; t < e->n; t++)
        if (e->logit_row[t] != SIZE_MAX)
            e->x.k->rms_norm(h + t * m->hp.n_embd, (const float *)m->output_norm.data, m->hp.rms_eps,
                             e->norm + rows++ * m->hp.n_embd, m->hp.n_embd);
    if (rows == 0) return;
    acts_set(&e->x, &e->in_acts, e->norm, rows, tensor_is_quantized(&m->output));
    linear(&e->x, &m->output, &e->in_acts, rows, e->logits, m->hp.n_vocab, e->moe.ptrs);
    for (size_t i = 0; m->hp.logit_scale != 1 && i < rows * m->hp.n_vocab; i++) e->logits[i] /= m->hp.logit_scale;
}

/* The experts that any token of the step was routed to, in the order of tokens; list [E]. */
static uint32_t routed_experts(const mp_engine *e, uint32_t *list)
{
    const moe_exec *m = &e->moe;
    uint32_t n = 0;
    for (size_t i = 0; i < e->n * m->shape.n_used; i++) {
        uint32_t at = 0;
        while (at < n && list[at] != m->experts[i]) at++;
        if (at == n) list[n++] = m->experts[i];
    }
    return n;
}

static void watch_layer(mp_engine *e, uint32_t i)
{
    moe_exec *m = &e->moe;
    moe_disk_order(m, e->points);
    for (size_t g = 0; g < m->n_active; g++) m->disk.order[g] = m->active[m->disk.order[g]];
    const mp_layer_run run = {
        .step = e->times.steps,
        .layer = i,
        .n_tokens = (uint32_t)e->n,
        .experts = e->watched_experts,
        .n_experts = routed_experts(e, e->watched_experts),
        .subs = m->disk.order,
        .n_subs = (uint32_t)m->n_active,
    };
    e->watch(e->watch_user, &run);
}

void mp_engine_watch_layers(mp_engine *e, mp_layer_run_fn fn, void *user)
{
    e->watch = fn;
    e->watch_user = user;
}

/* What the i-th MoE layer has just run. */
static void count_run(mp_engine *e, uint32_t i)
{
    for (size_t t = 0; t < e->n; t++) {
        e->subs_run[t] += e->moe.n_run[t];
        e->layer_run[i] += e->moe.n_run[t];
    }
    if (e->watch) watch_layer(e, i);
}

/* Tells which expert layer comes after layer l, for what may be read of it ahead. */
static void look_ahead(mp_engine *e, uint32_t l)
{
    const mp_model *m = e->model;
    moe_ahead *a = &e->moe.disk.ahead;
    const bool experts = l + 1 < m->hp.n_layers && model_has_experts(m, l + 1);
    a->layer = experts ? &m->moe[l + 1] : NULL;
    a->norm = experts ? (const float *)m->layers[l + 1].ffn_norm.data : NULL;
    a->h = e->h;
    a->eps = m->hp.rms_eps;
}

static mp_status run_layers(mp_engine *e, uint64_t start, mp_error *err)
{
    const uint32_t moe_layers = e->model->info.n_moe_layers;
    uint32_t done = 0;
    for (uint32_t l = 0; l < e->model->hp.n_layers; l++) {
        const uint64_t before = clock_now_ns(), deadline = e->params.store.deadline_ns;
        engine_attention(e, l, e->h);
        e->times.attention_ns += clock_now_ns() - before;
        engine_ffn_norm(e, l, e->h, e->norm);
        if (deadline) e->moe.disk.until_ns = start + deadline * (done + 1) / moe_layers;
        look_ahead(e, l);
        MP_TRY(engine_ffn(e, l, e->out, err));
        engine_add(e, e->h, e->out);
        if (model_has_experts(e->model, l)) count_run(e, done++);
    }
    return MP_OK;
}

mp_status mp_engine_step(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    MP_TRY(engine_begin(e, tokens, n, err));
    engine_embed(e, e->h);
    const mp_status status = run_layers(e, start, err);
    if (status) { /* as if it had not begun */
        for (size_t i = n; i-- > 0;) kv_truncate(&e->kv, tokens[i].seq, tokens[i].pos);
        e->n = 0;
        return status;
    }
    const uint64_t head = clock_now_ns();
    engine_head(e, e->h);
    const uint64_t end = clock_now_ns();
    e->times.head_ns += end - head;
    e->times.total_ns += end - start;
    e->times.steps++;
    e->times.tokens += n;
    return MP_OK;
}

/* ---- queries ---- */

const float *mp_engine_logits(const mp_engine *e, size_t i)
{
    if (i >= e->n || e->logit_row[i] == SIZE_MAX) return NULL;
    return e->logits + e->logit_row[i] * e->model->hp.n_vocab;
}

void mp_engine_for(mp_engine *e, size_t n, void (*fn)(void *arg, size_t item, unsigned thread), void *arg)
{
    pool_for(e->x.pool, n, fn, arg);
}

uint32_t mp_engine_dropped(const mp_engine *e, size_t i)
{
    return e->floors && i < e->n ? e->moe.disk.lost[i] : 0;
}

double mp_engine_compute_share(const mp_engine *e, size_t i)
{
    if (i >= e->n) return 0;
    return (double)e->subs_run[i] / ((double)moe_full_budget(&e->moe.shape) * e->model->info.n_moe_layers);
}

void mp_engine_layer_use(const mp_engine *e, uint32_t i, uint64_t *run, uint64_t *full)
{
    const bool exists = i < e->model->info.n_moe_layers;
    *run = exists ? e->layer_run[i] : 0;
    *full = exists ? e->times.tokens * moe_full_budget(&e->moe.shape) : 0;
}

uint32_t mp_engine_seq_len(const mp_engine *e, uint32_t seq)
{
    return seq < e->params.n_seqs ? e->kv.len[seq] : 0;
}

void mp_engine_seq_truncate(mp_engine *e, uint32_t seq, uint32_t len)
{
    if (seq < e->params.n_seqs) kv_truncate(&e->kv, seq, len);
}

mp_timings mp_engine_timings(const mp_engine *e)
{
    mp_timings t = e->times;
    t.router_ns = e->moe.router_ns;
    t.gate_ns = e->moe.gate_ns;
    t.experts_ns = e->moe.experts_ns;
    return t;
}
