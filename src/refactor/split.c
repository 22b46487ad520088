/* Splits the experts of a layer and fits its gate. Experts are independent: a wave of them at a time over all threads,
 * each result depending on its expert alone. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "refactor/expert_fit.h"
#include "refactor/gate_fit.h"

/* Ridge strengths tried, in multiples of the Gram matrix's mean diagonal: .01 to .05 suits 10,000 tokens, .3 a few
 * hundred. */
static const double LAMBDAS[] = {0.003, 0.01, 0.03, 0.1, 0.3, 1};
/* Tokens of a layer's covariance product. */
#define COV_BLOCK 4096

typedef struct split_job {
    refactor *r;
    layer_result *out;
    expert_tokens lists;
    expert_work *work;       /* [threads] */
    expert_summary *summary; /* [E] */
    float *target;           /* [pairs, N] log norms, in the order of lists.token */
    float *rows, *bias;      /* [N*E, d], [N*E] probes, not factorised */
    float *z;                /* [n_tokens, rank] inputs of factorised probes */
    float *small;            /* [N*E, rank] */
    probe_fit *fit;          /* [E] */
    uint64_t *gate_ns;       /* [E] CPU time */
    mp_error *errors;        /* [E] */
    uint32_t first;          /* expert of the wave */
} split_job;

/* Shares of the full expert compute that a gate may cost: whole probes where they stay below the first, else the rank
 * that stays below the second. Measured on the demo models: at a given expert compute quality rises with the rank until
 * the probes are whole. At real sizes whole probes cost 1 to 2 %. */
#define WHOLE_SHARE_LIMIT 0.09
#define RANK_SHARE_LIMIT  0.045

uint32_t split_default_rank(const moe_shape *s)
{
    const double full = 3.0 * s->n_used * s->width * s->d, subs = moe_full_budget(s);
    if (subs * s->d <= WHOLE_SHARE_LIMIT * full) return 0;
    const uint32_t rank = (uint32_t)(RANK_SHARE_LIMIT * full / (s->d + subs)) / 32 * 32;
    if (rank == 0) return 32 < s->d ? 32 : 0;
    return rank < s->d ? rank : 0;
}

static float *targets_of(const split_job *j, uint32_t e)
{
    return j->target + j->lists.start[e] * j->r->split.n_parts;
}

static void fit_expert(void *arg, size_t item, unsigned thread)
{
    split_job *j = arg;
    refactor *r = j->r;
    const uint32_t e = j->first + (uint32_t)item, parts = r->split.n_parts;
    const size_t n = j->lists.start[e + 1] - j->lists.start[e];
    expert_work *w = &j->work[thread];
    uint32_t *order = j->out->order + (size_t)e * r->split.width;
    const size_t n_fit = expert_load(r, &j->lists, e, w);
    if (expert_partition(r, e, n, n_fit, w, order, &j->summary[e], &j->errors[e]) || r->p.gate != MP_GATE_PROBE) return;
    const uint64_t before = clock_thread_cpu_ns();
    expert_targets(r, order, n, w, targets_of(j, e));
    const probe_data data = {w->x, w->g, targets_of(j, e), n, n_fit, r->split.d, parts};
    probe_fit_expert(&data, LAMBDAS, sizeof LAMBDAS / sizeof *LAMBDAS, j->rows + (size_t)e * parts * r->split.d,
                     j->bias + (size_t)e * parts, &j->fit[e], &j->errors[e]);
    j->gate_ns[e] = clock_thread_cpu_ns() - before;
}

/* The directions are shared, what each probe reads from them is fitted again: better than the projection alone. */
static void refit_expert(void *arg, size_t item, unsigned thread)
{
    split_job *j = arg;
    refactor *r = j->r;
    const uint32_t e = j->first + (uint32_t)item, parts = r->split.n_parts, rank = r->gate_rank;
    const size_t begin = j->lists.start[e], n = j->lists.start[e + 1] - begin;
    expert_work *w = &j->work[thread];
    size_t n_fit = 0;
    const uint64_t before = clock_thread_cpu_ns();
    for (size_t i = 0; i < n; i++) {
        const size_t t = j->lists.token[begin + i];
        memcpy(w->x + i * rank, j->z + t * rank, rank * sizeof *w->x);
        w->g[i] = r->mix[t * r->split.n_used + j->lists.slot[begin + i]];
        n_fit += t < r->n_fit;
    }
    const probe_data data = {w->x, w->g, targets_of(j, e), n, n_fit, rank, parts};
    probe_fit_expert(&data, LAMBDAS, sizeof LAMBDAS / sizeof *LAMBDAS, j->small + (size_t)e * parts * rank,
                     j->bias + (size_t)e * parts, &j->fit[e], &j->errors[e]);
    j->gate_ns[e] += clock_thread_cpu_ns() - before;
}

/* All experts, a few per thread between two looks at the caller. */
static mp_status run_waves(split_job *j, const char *stage, pool_item_fn fn, mp_error *err)
{
    refactor *r = j->r;
    const uint32_t wave = 2 * pool_threads(r->engine->x.pool), n = r->split.n_experts;
    refactor_stage(r);
    for (j->first = 0; j->first < n; j->first += wave) {
        const uint32_t count = n - j->first < wave ? n - j->first : wave;
        pool_for(r->engine->x.pool, count, fn, j);
        for (uint32_t e = j->first; e < j->first + count; e++)
            if (j->errors[e].status) return status_fail(err, j->errors[e].status, "%s", j->errors[e].message);
        MP_TRY(refactor_progress(r, stage, "experts", j->first + count, n, err));
    }
    return MP_OK;
}

/* ---- the layer's directions ---- */

/* Covariance [d, d] of the layer's inputs: what the bias cannot absorb. */
static mp_status input_covariance(const refactor *r, double *cov, mp_error *err)
{
    const size_t d = r->split.d, n = r->n_tokens;
    float *block = malloc(COV_BLOCK * d * sizeof *block), *gram = malloc(d * d * sizeof *gram);
    double *mean = calloc(d, sizeof *mean);
    mp_status status = MP_OK;
    if (!block || !gram || !mean) {
        status = status_no_memory(err, (COV_BLOCK + d) * d * sizeof *block, "the inputs' covariance");
        goto out;
    }
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < d; i++) mean[i] += (double)r->x[t * d + i] / (double)n;
    memset(cov, 0, d * d * sizeof *cov);
    for (size_t t = 0; t < n; t += COV_BLOCK) {
        const size_t rows = n - t < COV_BLOCK ? n - t : COV_BLOCK;
        for (size_t row = 0; row < rows; row++)
            for (size_t i = 0; i < d; i++) block[row * d + i] = r->x[(t + row) * d + i] - (float)mean[i];
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)d, (int)rows, 1, block, (int)d, 0, gram, (int)d);
        for (size_t i = 0; i < d; i++)
            for (size_t k = i; k < d; k++) cov[i * d + k] += (double)gram[i * d + k] / (double)n;
    }
    for (size_t i = 0; i < d; i++)
        for (size_t k = 0; k < i; k++) cov[i * d + k] = cov[k * d + i];
out:
    free(block);
    free(gram);
    free(mean);
    return status;
}

/* A probe's squared error matters as much as the squared mixing weights its expert receives. */
static void probe_weights(const split_job *j, float *weight)
{
    const refactor *r = j->r;
    const uint32_t parts = r->split.n_parts;
    for (uint32_t e = 0; e < r->split.n_experts; e++) {
        double sum = 0;
        for (size_t i = j->lists.start[e]; i < j->lists.start[e + 1]; i++) {
            const float g = r->mix[(size_t)j->lists.token[i] * r->split.n_used + j->lists.slot[i]];
            sum += (double)(g * g);
        }
        for (uint32_t n = 0; n < parts; n++) weight[e * parts + n] = (float)(sum / (double)r->n_tokens);
    }
}

/* in [rank, d], and z for all tokens. */
static mp_status find_directions(split_job *j, float *in, mp_error *err)
{
    const refactor *r = j->r;
    const size_t d = r->split.d, subs = refactor_subs(r), rank = r->gate_rank;
    double *cov = malloc(d * d * sizeof *cov);
    float *weight = malloc(subs * sizeof *weight);
    mp_status status = MP_OK;
    if (!cov || !weight) status = status_no_memory(err, d * d * sizeof *cov, "the inputs' covariance");
    if (!status) status = input_covariance(r, cov, err);
    if (!status) {
        probe_weights(j, weight);
        status = probe_factorise(j->rows, subs, (uint32_t)d, cov, weight, (uint32_t)rank, in, j->small, err);
    }
    if (!status)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)r->n_tokens, (int)rank, (int)d, 1, r->x, (int)d, in,
                    (int)d, 0, j->z, (int)rank);
    free(cov);
    free(weight);
    return status;
}

/* ---- results ---- */

static void store_rows(dtype type, const float *rows, size_t n, size_t width, uint8_t *out)
{
    const size_t bytes = dtype_row_bytes(type, width);
    for (size_t i = 0; i < n; i++) dtype_from_f32(type, rows + i * width, out + i * bytes, width);
}

static mp_status fit_gate(split_job *j, mp_error *err)
{
    refactor *r = j->r;
    layer_result *out = j->out;
    const size_t d = r->split.d, subs = refactor_subs(r), rank = r->gate_rank;
    const uint64_t before = clock_thread_cpu_ns();
    if (rank) {
        float *in = malloc(rank * d * sizeof *in);
        if (!in) return status_no_memory(err, rank * d * sizeof *in, "the probe's directions");
        mp_status status = find_directions(j, in, err);
        if (!status) store_rows(out->probe_in_type, in, rank, d, out->probe_in);
        free(in);
        MP_TRY(status);
        MP_TRY(run_waves(j, "gate", refit_expert, err));
    }
    store_rows(out->probe_type, rank ? j->small : j->rows, subs, rank ? rank : d, out->probe);
    memcpy(out->probe_bias, j->bias, subs * sizeof *j->bias);
    r->report.gate_s += (double)(clock_thread_cpu_ns() - before) * 1e-9;
    return MP_OK;
}

static void summarise(split_job *j)
{
    const refactor *r = j->r;
    mp_refactor_layer *s = &j->out->report;
    double tokens = 0, held = 0;
    *s = (mp_refactor_layer){.layer = r->layer};
    for (uint32_t e = 0; e < r->split.n_experts; e++) {
        const expert_summary *x = &j->summary[e];
        const double n = (double)(j->lists.start[e + 1] - j->lists.start[e]), h = (double)x->held_tokens;
        s->objective_start += n * x->start;
        s->objective_end += n * x->end;
        s->objective_heldout_start += h * x->held_start;
        s->objective_heldout_end += h * x->held_end;
        s->solver_s += (double)x->solver_ns * 1e-9;
        s->gate_r2 += n * j->fit[e].r2;
        s->lambda += n * j->fit[e].lambda;
        j->r->report.gate_s += (double)j->gate_ns[e] * 1e-9;
        tokens += n;
        held += h;
    }
    s->objective_start /= fmax(tokens, 1);
    s->objective_end /= fmax(tokens, 1);
    s->objective_heldout_start /= fmax(held, 1);
    s->objective_heldout_end /= fmax(held, 1);
    s->gate_r2 /= fmax(tokens, 1);
    s->lambda /= fmax(tokens, 1);
    j->r->report.partition_s += s->solver_s;
}

/* ---- memory ---- */

static mp_status job_alloc(split_job *j, arena *a, mp_error *err)
{
    const refactor *r = j->r;
    const unsigned threads = pool_threads(r->engine->x.pool);
    const size_t n_experts = r->split.n_experts, subs = refactor_subs(r), d = r->split.d, parts = r->split.n_parts;
    const bool probe = r->p.gate == MP_GATE_PROBE;
    size_t cap = 1;
    for (uint32_t e = 0; e < n_experts; e++)
        if (j->lists.start[e + 1] - j->lists.start[e] > cap) cap = j->lists.start[e + 1] - j->lists.start[e];
    for (int pass = 0; pass < 2; pass++) {
        if (pass) MP_TRY(arena_reserve(a, "splitting a layer (lower --max-tokens)", err));
        j->work = arena_take(a, threads, sizeof *j->work);
        j->summary = arena_take(a, n_experts, sizeof *j->summary);
        j->fit = arena_take(a, n_experts, sizeof *j->fit);
        j->gate_ns = arena_take(a, n_experts, sizeof *j->gate_ns);
        j->errors = arena_take(a, n_experts, sizeof *j->errors);
        j->target = arena_take(a, probe ? j->lists.start[n_experts] : 0, parts * sizeof *j->target);
        j->rows = arena_take(a, probe ? subs : 0, d * sizeof *j->rows);
        j->bias = arena_take(a, probe ? subs : 0, sizeof *j->bias);
        j->small = arena_take(a, probe ? subs : 0, r->gate_rank * sizeof *j->small);
        j->z = arena_take(a, probe ? r->n_tokens : 0, r->gate_rank * sizeof *j->z);
    }
    for (unsigned t = 0; t < threads; t++) {
        expert_work_layout(r, cap, &j->work[t]);
        MP_TRY(arena_reserve(&j->work[t].memory, "an expert's activations (lower --max-tokens-per-expert)", err));
        expert_work_layout(r, cap, &j->work[t]);
    }
    return MP_OK;
}

mp_status split_layer(refactor *r, layer_result *out, mp_error *err)
{
    split_job j = {.r = r, .out = out};
    arena memory = {0};
    mp_status status = expert_tokens_build(r, &j.lists, err);
    if (!status) status = job_alloc(&j, &memory, err);
    if (!status) status = run_waves(&j, "partition", fit_expert, err);
    if (!status && r->p.gate == MP_GATE_PROBE) status = fit_gate(&j, err);
    if (!status) summarise(&j);
    for (unsigned t = 0; memory.base && t < pool_threads(r->engine->x.pool); t++) arena_clear(&j.work[t].memory);
    arena_clear(&memory);
    expert_tokens_clear(&j.lists);
    return status;
}
