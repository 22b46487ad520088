/* Thresholds, uses and gains of a split layer, on a sample of its calibration tokens, computed by the very kernels that
 * will serve it: the layer is laid out in memory as the artifact will hold it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "refactor/refactor.h"

#define CHUNK            256
#define THRESHOLD_TOKENS 16384
#define GAIN_TOKENS      4096
#define LEAST_JUDGES     2048
#define BISECTIONS       40

typedef struct calibration {
    refactor *r;
    layer_result *out;
    arena memory;
    uint8_t *gate_up, *down;
    double (*error)[2]; /* [E] of the down matrices: squared error, squared norm */
    float *buf;         /* [threads, layout_scratch] */
    moe_layer layer;
    moe_rung rungs[LADDER_N_SHARES];
    moe_exec exec;
    acts in;
    uint32_t *points;  /* [CHUNK] */
    float *y_full, *y; /* [CHUNK, d] */
    float *scores;     /* [sampled, k0 * N], each token's from high to low */
    size_t n_sampled;
} calibration;

/* ---- the layer in memory ---- */

static void lay_out_expert(void *arg, size_t e, unsigned thread)
{
    calibration *c = arg;
    const refactor *r = c->r;
    const uint32_t *order = c->out->order + e * r->split.width;
    float *buf = c->buf + (size_t)thread * layout_scratch(r);
    layout_gate_up(r, r->layer, (uint32_t)e, order, buf, c->gate_up + e * layout_gate_up_bytes(r, r->layer));
    layout_down(r, r->layer, (uint32_t)e, order, buf, c->down + e * layout_down_bytes(r, r->layer), c->error[e]);
}

static tensor view(dtype type, const uint8_t *data, uint32_t cols, uint32_t rows, uint32_t mats)
{
    return (tensor){
        .type = type, .data = data, .cols = cols, .rows = rows, .mats = mats, .row_bytes = dtype_row_bytes(type, cols)};
}

static void describe_layer(calibration *c)
{
    const refactor *r = c->r;
    const moe_shape *s = &r->split;
    const uint32_t subs = (uint32_t)refactor_subs(r);
    moe_weights *w = &c->layer.w;
    c->layer = (moe_layer){
        .shape = *s,
        .gate = r->p.gate,
        .select = r->p.select,
        .proxy_neurons = r->p.gate == MP_GATE_PROXY ? r->gate_rank : 0,
        .rungs = c->rungs,
        .n_rungs = r->n_points,
    };
    w->router = r->source->moe[r->layer].w.router;
    w->router_bias = r->source->moe[r->layer].w.router_bias;
    w->gate_up = view(c->out->gate_up_type, c->gate_up, s->d, 2 * s->part_width, subs);
    w->down_t = view(c->out->down_type, c->down, s->tile, s->part_width * moe_tiles(s), subs);
    for (uint32_t p = 0; p < r->n_points; p++) c->rungs[p] = moe_rung_for_budget(r->budgets[p], moe_full_budget(s));
    if (r->p.gate != MP_GATE_PROBE) return;
    if (r->gate_rank) w->probe_in = view(c->out->probe_in_type, c->out->probe_in, s->d, r->gate_rank, 1);
    w->probe = view(c->out->probe_type, c->out->probe, r->gate_rank ? r->gate_rank : s->d, subs, 1);
    w->probe_bias = c->out->probe_bias;
}

static void layout_memory(calibration *c)
{
    const refactor *r = c->r;
    const moe_shape *s = &r->split;
    const size_t full = moe_full_budget(s), threads = pool_threads(r->engine->x.pool);
    arena *a = &c->memory;
    c->gate_up = arena_take(a, s->n_experts, layout_gate_up_bytes(r, r->layer));
    c->down = arena_take(a, s->n_experts, layout_down_bytes(r, r->layer));
    c->error = arena_take(a, s->n_experts, sizeof *c->error);
    c->buf = arena_take(a, threads, layout_scratch(r) * sizeof *c->buf);
    c->points = arena_take(a, CHUNK, sizeof *c->points);
    c->y_full = arena_take(a, CHUNK, s->d * sizeof *c->y_full);
    c->y = arena_take(a, CHUNK, s->d * sizeof *c->y);
    c->scores = arena_take(a, THRESHOLD_TOKENS + CHUNK, full * sizeof *c->scores);
    acts_layout(a, &c->in, s->d, CHUNK);
    c->exec.x = &r->engine->x;
    c->exec.shape = *s;
    c->exec.cap = CHUNK;
    c->exec.threads = (unsigned)threads;
    moe_exec_layout(a, &c->exec, r->gate_rank, r->p.gate == MP_GATE_PROXY ? r->gate_rank : 0);
}

/* ---- the sample ---- */

/* Chunk i of `of`, evenly spread over the tokens [from, to). Returns its tokens, routed and scored. */
static size_t take_chunk(calibration *c, size_t from, size_t to, size_t i, size_t of)
{
    const refactor *r = c->r;
    const size_t chunks = (to - from + CHUNK - 1) / CHUNK, begin = from + i * chunks / of * CHUNK;
    const size_t n = to - begin < CHUNK ? to - begin : CHUNK;
    acts_set(c->exec.x, &c->in, r->x + begin * r->split.d, n, moe_wants_quantized(&c->layer));
    for (size_t t = 0; t < n; t++) c->points[t] = 1; /* any rung but full: they all share the scores */
    moe_exec_route(&c->exec, &c->layer, &c->in, n);
    moe_exec_score(&c->exec, &c->layer, &c->in, c->points, n);
    return n;
}

static size_t chunks_for(size_t have, size_t tokens)
{
    const size_t chunks = (have + CHUNK - 1) / CHUNK;
    return chunks < tokens / CHUNK ? chunks : tokens / CHUNK;
}

/* ---- thresholds ---- */

static int high_first(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void sort_token(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    calibration *c = arg;
    const size_t full = moe_full_budget(&c->r->split);
    qsort(c->scores + t * full, full, sizeof *c->scores, high_first);
}

static size_t count_at_least(const float *sorted, size_t n, float tau)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (sorted[mid] >= tau)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static double mean_budget(const calibration *c, float tau, size_t at_least)
{
    const size_t full = moe_full_budget(&c->r->split);
    double sum = 0;
    for (size_t t = 0; t < c->n_sampled; t++) {
        const size_t n = count_at_least(c->scores + t * full, full, tau);
        sum += (double)(n > at_least ? n : at_least);
    }
    return sum / (double)c->n_sampled;
}

/* The mean budget falls as tau rises: bisection. */
static void find_threshold(void *arg, size_t p, unsigned thread)
{
    (void)thread;
    calibration *c = arg;
    moe_rung *rung = &c->rungs[p];
    float low = -80, high = 80; /* log scores: anything outside is 0 or infinite in F32 */
    if (p == 0 || c->r->p.select == MP_SELECT_TOPK) return;
    for (int i = 0; i < BISECTIONS; i++) {
        const float mid = low + (high - low) / 2;
        if (mean_budget(c, mid, rung->at_least) > c->r->budgets[p])
            low = mid;
        else
            high = mid;
    }
    rung->log_tau = high;
}

/* Scores of tokens that the gate was fitted on spread wider than others' and would promise smaller budgets than texts
 * then take: the tokens kept to judge by decide, where there are enough of them. */
static mp_status find_thresholds(calibration *c, mp_error *err)
{
    refactor *r = c->r;
    const bool enough = r->n_tokens - r->n_fit >= LEAST_JUDGES;
    const size_t from = enough ? r->n_fit : 0, to = enough ? r->n_tokens : r->n_fit;
    const size_t full = moe_full_budget(&r->split), chunks = chunks_for(to - from, THRESHOLD_TOKENS);
    for (size_t i = 0; i < chunks; i++) {
        const size_t n = take_chunk(c, from, to, i, chunks);
        memcpy(c->scores + c->n_sampled * full, c->exec.scores, n * full * sizeof *c->scores);
        c->n_sampled += n;
        MP_TRY(refactor_progress(r, "thresholds", "tokens", c->n_sampled, chunks * CHUNK, err));
    }
    pool_for(c->exec.x->pool, c->n_sampled, sort_token, c);
    pool_for(c->exec.x->pool, r->n_points, find_threshold, c);
    return MP_OK;
}

/* ---- gains ---- */

static void run_point(calibration *c, uint32_t p, size_t n, float *y)
{
    for (size_t t = 0; t < n; t++) c->points[t] = p;
    moe_exec_select(&c->exec, &c->layer, c->points, n);
    const moe_pass pass = {.layer = &c->layer, .in = &c->in, .points = c->points, .tokens = n, .y = y};
    moe_exec_apply(&c->exec, &pass, NULL); /* of weights in memory: cannot fail */
}

/* Per point, the factor that brings the reduced output nearest to the full one (least squares over tokens and outputs).
 */
static mp_status find_gains(calibration *c, mp_error *err)
{
    refactor *r = c->r;
    const size_t d = r->split.d, chunks = chunks_for(r->n_fit, GAIN_TOKENS);
    double cross[LADDER_N_SHARES] = {0}, square[LADDER_N_SHARES] = {0};
    if (r->p.no_gain) return MP_OK;
    refactor_stage(r);
    for (size_t i = 0; i < chunks; i++) {
        const size_t n = take_chunk(c, 0, r->n_fit, i, chunks);
        run_point(c, 0, n, c->y_full);
        for (uint32_t p = 1; p < r->n_points; p++) {
            run_point(c, p, n, c->y);
            for (size_t k = 0; k < n * d; k++) {
                cross[p] += (double)c->y_full[k] * (double)c->y[k];
                square[p] += (double)c->y[k] * (double)c->y[k];
            }
        }
        MP_TRY(refactor_progress(r, "gains", "chunks", i + 1, chunks, err));
    }
    for (uint32_t p = 1; p < r->n_points; p++)
        if (square[p] > 0 && cross[p] > 0) c->rungs[p].gain = (float)(cross[p] / square[p]);
    return MP_OK;
}

/* ---- use ---- */

static uint32_t half_point(const refactor *r)
{
    const double half = moe_full_budget(&r->split) / 2.0;
    uint32_t best = 0;
    for (uint32_t p = 1; p < r->n_points; p++)
        if (fabs(r->budgets[p] - half) < fabs(r->budgets[best] - half)) best = p;
    return best;
}

/* How often each sub-expert runs where the budget binds and is still large. It tells a cache what to keep, so all
 * tokens count, those that the gate was fitted on too: they are like any others in what they are about. */
static mp_status count_use(calibration *c, mp_error *err)
{
    refactor *r = c->r;
    const moe_shape *s = &r->split;
    const size_t chunks = chunks_for(r->n_tokens, THRESHOLD_TOKENS), full = moe_full_budget(s);
    const uint32_t point = half_point(r);
    size_t tokens = 0;
    refactor_stage(r);
    for (size_t i = 0; i < chunks; i++) {
        const size_t n = take_chunk(c, 0, r->n_tokens, i, chunks);
        for (size_t t = 0; t < n; t++) c->points[t] = point;
        moe_exec_select(&c->exec, &c->layer, c->points, n);
        for (size_t t = 0; t < n; t++)
            for (uint32_t k = 0; k < c->exec.n_run[t]; k++) {
                const uint32_t run = c->exec.run[t * full + k];
                c->out->use[c->exec.experts[t * s->n_used + run / s->n_parts] * s->n_parts + run % s->n_parts]++;
            }
        tokens += n;
        MP_TRY(refactor_progress(r, "use", "tokens", tokens, chunks * CHUNK, err));
    }
    for (size_t i = 0; i < refactor_subs(r); i++) c->out->use[i] /= (float)tokens;
    return MP_OK;
}

/* ---- the layer ---- */

static void keep(calibration *c)
{
    const refactor *r = c->r;
    mp_refactor_layer *report = &c->out->report;
    double error[2] = {0};
    for (uint32_t e = 0; e < r->split.n_experts; e++)
        for (int i = 0; i < 2; i++) error[i] += c->error[e][i];
    report->requant_rmse = error[1] > 0 ? sqrt(error[0] / error[1]) : 0;
    report->gain_min = report->gain_max = 1;
    for (uint32_t p = 0; p < r->n_points; p++) {
        c->out->tau[p] = p && r->p.select == MP_SELECT_THRESHOLD ? expf(c->rungs[p].log_tau) : 0;
        c->out->gain[p] = c->rungs[p].gain;
        report->gain_min = fmin(report->gain_min, (double)c->rungs[p].gain);
        report->gain_max = fmax(report->gain_max, (double)c->rungs[p].gain);
    }
}

mp_status calibrate_layer(refactor *r, layer_result *out, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    calibration c = {.r = r, .out = out};
    layout_memory(&c);
    mp_status status = arena_reserve(&c.memory, "the split layer", err);
    if (!status) {
        layout_memory(&c);
        pool_for(r->engine->x.pool, r->split.n_experts, lay_out_expert, &c);
        describe_layer(&c);
        refactor_stage(r);
        status = find_thresholds(&c, err);
    }
    if (!status) status = count_use(&c, err);
    if (!status) status = find_gains(&c, err);
    if (!status) keep(&c);
    arena_clear(&c.memory);
    r->report.calibrate_s += (double)(clock_now_ns() - start) * 1e-9;
    return status;
}
