#include "refactor/expert_fit.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "refactor/gate_fit.h"
#include "refactor/partition.h"

/* Tokens an expert's partition is fitted on, and judged on: more changes nothing but the time. */
#define PARTITION_TOKENS 4096
/* Paper 4.3.1: the share of a token's neurons that counts as active. */
#define PROXY_KEEP_SHARE 0.75
/* Outputs this much smaller than the expert's mean count as this small: nobody needs to tell them apart. */
#define TARGET_FLOOR 1e-3

/* ---- tokens ---- */

static void count_tokens(const refactor *r, size_t *start)
{
    const size_t pairs = r->n_tokens * r->split.n_used;
    for (size_t i = 0; i < pairs; i++) start[r->experts[i] + 1]++;
    for (uint32_t e = 0; e < r->split.n_experts; e++) {
        if (start[e + 1] > r->p.max_tokens_per_expert) start[e + 1] = r->p.max_tokens_per_expert;
        start[e + 1] += start[e];
    }
}

static int by_token(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Reservoir sampling: every token routed to an expert is as likely to stay as any other. */
static void sample_tokens(const refactor *r, const expert_tokens *l, size_t *seen, uint64_t *kept)
{
    const uint32_t k0 = r->split.n_used;
    rng random;
    rng_init_stream(&random, r->p.seed, 0x10000 + r->layer);
    for (size_t t = 0; t < r->n_tokens; t++)
        for (uint32_t k = 0; k < k0; k++) {
            const uint32_t e = r->experts[t * k0 + k];
            const size_t room = l->start[e + 1] - l->start[e], n = seen[e]++;
            const size_t at = n < room ? n : rng_below(&random, n + 1);
            if (at < room) kept[l->start[e] + at] = (uint64_t)t << 8 | k;
        }
    for (uint32_t e = 0; e < r->split.n_experts; e++)
        qsort(kept + l->start[e], l->start[e + 1] - l->start[e], sizeof *kept, by_token);
}

mp_status expert_tokens_build(const refactor *r, expert_tokens *out, mp_error *err)
{
    const uint32_t n_experts = r->split.n_experts;
    const size_t pairs = r->n_tokens * r->split.n_used;
    mp_status status = MP_OK;
    *out = (expert_tokens){
        .start = calloc(n_experts + 1, sizeof *out->start),
        .token = calloc(pairs, sizeof *out->token),
        .slot = calloc(pairs, sizeof *out->slot),
    };
    size_t *seen = calloc(n_experts, sizeof *seen);
    uint64_t *kept = calloc(pairs, sizeof *kept);
    if (!out->start || !out->token || !out->slot || !seen || !kept) {
        status = status_no_memory(err, pairs * (sizeof *kept + sizeof *out->token), "the experts' token lists");
        goto out;
    }
    count_tokens(r, out->start);
    sample_tokens(r, out, seen, kept);
    for (size_t i = 0; i < out->start[n_experts]; i++) {
        out->token[i] = (uint32_t)(kept[i] >> 8);
        out->slot[i] = (uint8_t)kept[i];
    }
out:
    free(seen);
    free(kept);
    if (status) expert_tokens_clear(out);
    return status;
}

void expert_tokens_clear(expert_tokens *l)
{
    free(l->start);
    free(l->token);
    free(l->slot);
    *l = (expert_tokens){0};
}

/* ---- activations ---- */

void expert_work_layout(const refactor *r, size_t cap, expert_work *w)
{
    const size_t c = r->split.width, d = r->split.d, s = r->split.part_width;
    const size_t part_tokens = cap < PARTITION_TOKENS ? cap : PARTITION_TOKENS;
    arena *a = &w->memory;
    w->x = arena_take(a, cap, d * sizeof *w->x);
    w->g = arena_take(a, cap, sizeof *w->g);
    w->a = arena_take(a, cap, c * sizeof *w->a);
    w->up = arena_take(a, cap, c * sizeof *w->up);
    w->gate_w = arena_take(a, c, d * sizeof *w->gate_w);
    w->up_w = arena_take(a, c, d * sizeof *w->up_w);
    w->columns = arena_take(a, c, d * sizeof *w->columns);
    w->column_norm = arena_take(a, c, sizeof *w->column_norm);
    w->weights = arena_take(a, part_tokens, c * sizeof *w->weights);
    w->held = arena_take(a, part_tokens, c * sizeof *w->held);
    w->set = arena_take(a, cap, 2 * s * sizeof *w->set);
    w->gram = arena_take(a, s, s * sizeof *w->gram);
    w->row = arena_take(a, c > d ? c : d, sizeof *w->row);
    w->part = arena_take(a, c, sizeof *w->part);
}

static void load_weights(const refactor *r, uint32_t e, expert_work *w)
{
    const moe_weights *from = &r->source->moe[r->layer].w;
    const uint32_t c = r->split.width, d = r->split.d;
    for (uint32_t j = 0; j < c; j++) {
        dtype_to_f32(from->gate.type, tensor_row(&from->gate, e, j), w->gate_w + (size_t)j * d, d);
        dtype_to_f32(from->up.type, tensor_row(&from->up, e, j), w->up_w + (size_t)j * d, d);
    }
    for (uint32_t i = 0; i < d; i++) {
        dtype_to_f32(from->down.type, tensor_row(&from->down, e, i), w->row, c);
        for (uint32_t j = 0; j < c; j++) w->columns[(size_t)j * d + i] = w->row[j];
    }
    for (uint32_t j = 0; j < c; j++) w->column_norm[j] = cblas_snrm2((int)d, w->columns + (size_t)j * d, 1);
}

/* out [n, c] = x [n, d] w [c, d]^T */
static void product(size_t n, const expert_work *w, const float *weights, const refactor *r, float *out)
{
    const int c = (int)r->split.width, d = (int)r->split.d;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, c, d, 1, w->x, d, weights, d, 0, out, c);
}

size_t expert_load(const refactor *r, const expert_tokens *l, uint32_t e, expert_work *w)
{
    const uint32_t d = r->split.d, k0 = r->split.n_used;
    const size_t begin = l->start[e], n = l->start[e + 1] - begin;
    size_t n_fit = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t t = l->token[begin + i];
        memcpy(w->x + i * d, r->x + t * d, d * sizeof *w->x);
        w->g[i] = r->mix[t * k0 + l->slot[begin + i]];
        n_fit += t < r->n_fit;
    }
    load_weights(r, e, w);
    if (n == 0) return 0;
    product(n, w, w->gate_w, r, w->a);
    product(n, w, w->up_w, r, w->up);
    for (size_t i = 0; i < n; i++)
        r->engine->x.k->swiglu(w->a + i * r->split.width, w->up + i * r->split.width, w->a + i * r->split.width,
                               r->split.width);
    return n_fit;
}

/* ---- partition ---- */

/* |a_j| * g * ||Wdown_j|| of at most PARTITION_TOKENS of the tokens [begin, end), evenly spread. */
static size_t importance(const refactor *r, const expert_work *w, size_t begin, size_t end, float *out)
{
    const uint32_t c = r->split.width;
    const size_t have = end - begin, n = have < PARTITION_TOKENS ? have : PARTITION_TOKENS;
    for (size_t i = 0; i < n; i++) {
        const size_t t = begin + i * have / n;
        for (uint32_t j = 0; j < c; j++) out[i * c + j] = fabsf(w->a[t * c + j]) * w->g[t] * w->column_norm[j];
    }
    return n;
}

static mp_status solve(const refactor *r, uint32_t e, const partition_problem *p, uint16_t *part, mp_error *err)
{
    const uint64_t seed = r->p.seed + ((uint64_t)r->layer << 32) + e;
    switch (r->p.solver) {
    case MP_SOLVER_SORT:
        return MP_OK; /* the start is the answer */
    case MP_SOLVER_ANNEAL:
        return partition_anneal(p, &(partition_anneal_params){.seed = seed}, part, err);
    case MP_SOLVER_BCD:
        return partition_bcd(p, &(partition_bcd_params){.seed = seed}, part, err);
    }
    return status_fail(err, MP_E_INVALID, "unknown solver");
}

static mp_status reorder_for_proxy(const refactor *r, size_t n_fit, expert_work *w, uint32_t *order, mp_error *err)
{
    const uint32_t c = r->split.width;
    const size_t n = n_fit < PARTITION_TOKENS ? n_fit : PARTITION_TOKENS;
    for (size_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < c; j++) w->weights[i * c + j] = fabsf(w->a[(i * n_fit / n) * c + j]);
    return proxy_order(w->weights, n, c, r->split.n_parts, r->gate_rank, PROXY_KEEP_SHARE, order, err);
}

mp_status expert_partition(const refactor *r, uint32_t e, size_t n, size_t n_fit, expert_work *w, uint32_t *order,
                           expert_summary *s, mp_error *err)
{
    partition_problem fit = {.w = w->weights, .n_neurons = r->split.width, .n_parts = r->split.n_parts};
    fit.n_tokens = importance(r, w, 0, n_fit, w->weights);
    partition_default_keeps(&fit);
    partition_problem held = fit;
    held.w = w->held;
    held.n_tokens = s->held_tokens = importance(r, w, n_fit, n, w->held);

    if (r->p.solver == MP_SOLVER_ANNEAL)
        MP_TRY(partition_greedy(&fit, w->part, err));
    else
        MP_TRY(partition_sort(&fit, w->part, err));
    s->start = partition_objective(&fit, w->part);
    s->held_start = partition_objective(&held, w->part);
    const uint64_t before = clock_thread_cpu_ns();
    MP_TRY(solve(r, e, &fit, w->part, err));
    s->solver_ns = clock_thread_cpu_ns() - before;
    s->end = partition_objective(&fit, w->part);
    s->held_end = partition_objective(&held, w->part);
    MP_TRY(partition_order(&fit, w->part, order, err));
    return r->p.gate == MP_GATE_PROXY ? reorder_for_proxy(r, n_fit, w, order, err) : MP_OK;
}

/* ---- targets ---- */

/* ||y||^2 = a^T G a with G the Gram matrix of the set's down columns: S^2 work a token instead of S * d. */
void expert_targets(const refactor *r, const uint32_t *order, size_t n, expert_work *w, float *target)
{
    const uint32_t s = r->split.part_width, c = r->split.width, d = r->split.d, parts = r->split.n_parts;
    float *a = w->set, *ga = w->set + n * s;
    double sum = 0;
    for (uint32_t p = 0; p < parts; p++) {
        const uint32_t *set = order + (size_t)p * s;
        for (uint32_t i = 0; i < s; i++)
            for (uint32_t j = 0; j < s; j++)
                w->gram[i * s + j] =
                    cblas_sdot((int)d, w->columns + (size_t)set[i] * d, 1, w->columns + (size_t)set[j] * d, 1);
        for (size_t t = 0; t < n; t++)
            for (uint32_t j = 0; j < s; j++) a[t * s + j] = w->a[t * c + set[j]];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)s, (int)s, 1, a, (int)s, w->gram, (int)s, 0,
                    ga, (int)s);
        for (size_t t = 0; t < n; t++) {
            const float square = cblas_sdot((int)s, a + t * s, 1, ga + t * s, 1);
            target[t * parts + p] = sqrtf(fmaxf(square, 0));
            sum += (double)target[t * parts + p];
        }
    }
    const float floor_norm = (float)fmax(TARGET_FLOOR * sum / (double)(n * parts), 1e-30);
    for (size_t i = 0; i < n * parts; i++) target[i] = logf(fmaxf(target[i], floor_norm));
}
