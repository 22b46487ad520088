/* The default solver: block coordinate descent on (assignment, what each token drops).
 *
 * Fix for each token and keep which sets are dropped. The loss is then linear in the assignment: neuron j in set n
 * costs c[j][n] = sum_b w[b][j] * rate[b][n], one matrix product for all, and the cheapest balanced assignment is a
 * transport problem, solved exactly. What each token then drops can only get cheaper still, because the true loss is
 * the minimum over the choices of what to drop. So every round lowers the objective, all neurons moving at once, where
 * a swap moves two and must be found first.
 *
 * The end of a descent depends on its start. Importance order puts what is always needed together; clusters of neurons
 * that are active on the same tokens is what the objective wants to see; random starts guard against both being wrong.
 * The best end is refined by single swaps, which see what the linear cost does not: that a token changes its mind. */
#include "refactor/partition_impl.h"

#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum {
    CLUSTER_ROUNDS = 6,
    SWAP_SWEEPS = 3,
    SWAP_CANDIDATES = 8, /* neurons of each set of a pair that are tried against each other */
};

typedef struct bcd {
    partition_state state;
    transport transport;
    float *product;         /* [C, N] */
    double *cost;           /* [C, N] */
    float *norm;            /* [C] 1 / ||wt_j||, 0 for a neuron that is never active */
    uint16_t *best, *trial; /* [C] */
    rng rng;
} bcd;

static void bcd_clear(bcd *s)
{
    partition_state_clear(&s->state);
    transport_clear(&s->transport);
    free(s->product);
    free(s->cost);
    free(s->norm);
    free(s->best);
    free(s->trial);
}

static mp_status bcd_init(bcd *s, const partition_problem *p, uint64_t seed, mp_error *err)
{
    size_t cells, bytes, c = p->n_neurons;
    mp_status status;
    *s = (bcd){0};
    rng_init(&s->rng, seed);
    if (!size_mul(c, p->n_parts, &cells) || !size_mul(cells, sizeof *s->cost, &bytes) || c > INT32_MAX)
        return status_fail(err, MP_E_LIMIT, "partition: %zu neurons in %u sets are too many", c, p->n_parts);
    if ((status = partition_state_init(&s->state, p, err)) != MP_OK) goto out;
    if ((status = transport_init(&s->transport, p->n_neurons, p->n_parts, err)) != MP_OK) goto out;
    s->product = malloc(cells * sizeof *s->product);
    s->cost = malloc(bytes);
    s->norm = malloc(c * sizeof *s->norm);
    s->best = malloc(c * sizeof *s->best);
    s->trial = malloc(c * sizeof *s->trial);
    if (!s->product || !s->cost || !s->norm || !s->best || !s->trial) status = status_no_memory(err, bytes, "costs");
out:
    if (status != MP_OK) bcd_clear(s);
    return status;
}

/* product [C, N] = wt [C, B] * rate^T [B, N] */
static void multiply(bcd *s)
{
    const partition_state *p = &s->state;
    int c = (int)p->n_neurons, n = (int)p->n_parts, b = (int)p->stride;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, c, n, b, 1, p->wt, b, p->rate, b, 0, s->product, n);
}

static void costs_of_loads(bcd *s)
{
    partition_state_rates(&s->state);
    multiply(s);
    for (size_t e = 0; e < (size_t)s->state.n_neurons * s->state.n_parts; e++) s->cost[e] = (double)s->product[e];
}

/* Rounds of costs and transport from `part`, whose state is set; returns the objective reached. */
static double descend(bcd *s, uint16_t *part, double objective, uint32_t max_rounds)
{
    size_t bytes = s->state.n_neurons * sizeof *part;
    for (uint32_t round = 0; round < max_rounds; round++) {
        costs_of_loads(s);
        memcpy(s->trial, part, bytes);
        transport_solve(&s->transport, s->cost, s->trial);
        double next = partition_state_set(&s->state, s->trial);
        assert(next <= objective * (1 + 1e-5) + 1e-12); /* F32 products */
        if (next < objective) memcpy(part, s->trial, bytes);
        if (!(next < objective * (1 - 1e-6))) return fmin(next, objective);
        objective = next;
    }
    return objective;
}

/* ---- starts ---- */

static void start_random(bcd *s, uint16_t *part)
{
    uint32_t c = s->state.n_neurons, size = c / s->state.n_parts;
    for (uint32_t j = 0; j < c; j++) part[j] = (uint16_t)(j / size);
    for (uint32_t j = c; j-- > 1;) {
        uint32_t i = (uint32_t)rng_below(&s->rng, j + 1);
        uint16_t n = part[j];
        part[j] = part[i];
        part[i] = n;
    }
}

/* Centres in `rate`: the mean direction of each set's neurons over the tokens, centred and of unit length. */
static void cluster_centres(bcd *s, const uint16_t *part)
{
    partition_state *p = &s->state;
    memset(p->rate, 0, p->n_parts * p->stride * sizeof *p->rate);
    for (size_t j = 0; j < p->n_neurons; j++)
        cblas_saxpy((int)p->n_tokens, s->norm[j], p->wt + j * p->stride, 1, p->rate + part[j] * p->stride, 1);
    for (size_t n = 0; n < p->n_parts; n++) {
        float *centre = p->rate + n * p->stride;
        double mean = 0;
        for (size_t b = 0; b < p->n_tokens; b++) mean += (double)centre[b];
        mean /= (double)p->n_tokens;
        for (size_t b = 0; b < p->n_tokens; b++) centre[b] -= (float)mean;
        float length = cblas_snrm2((int)p->n_tokens, centre, 1);
        cblas_sscal((int)p->n_tokens, length > 0 ? 1 / length : 0, centre, 1);
    }
}

/* Balanced k-means by direction: neurons active on the same tokens together, however much they weigh. */
static void start_clusters(bcd *s, uint16_t *part)
{
    const partition_state *p = &s->state;
    for (size_t j = 0; j < p->n_neurons; j++) {
        float length = cblas_snrm2((int)p->n_tokens, p->wt + j * p->stride, 1);
        s->norm[j] = length > 0 ? 1 / length : 0;
    }
    start_random(s, part);
    for (int round = 0; round < CLUSTER_ROUNDS; round++) {
        cluster_centres(s, part);
        multiply(s);
        for (size_t e = 0; e < (size_t)p->n_neurons * p->n_parts; e++)
            s->cost[e] = -(double)(s->product[e] * s->norm[e / p->n_parts]);
        transport_solve(&s->transport, s->cost, part);
    }
}

/* ---- swaps ---- */

/* The members of n that the linear cost would rather see in m, best first, at most `cap`. */
static uint32_t willing(const bcd *s, const uint16_t *part, uint32_t n, uint32_t m, uint32_t *out, uint32_t cap)
{
    uint32_t count = 0, n_parts = s->state.n_parts;
    for (uint32_t j = 0; j < s->state.n_neurons; j++) {
        if (part[j] != n) continue;
        const double *c = s->cost + (size_t)j * n_parts;
        uint32_t at = count < cap ? count++ : cap;
        while (at > 0) {
            const double *d = s->cost + (size_t)out[at - 1] * n_parts;
            if (d[m] - d[n] <= c[m] - c[n]) break;
            if (at < cap) out[at] = out[at - 1];
            at--;
        }
        if (at < cap) out[at] = j;
    }
    return count;
}

/* The best of the candidate swaps between n and m, made if it gains. */
static bool swap_pair(bcd *s, uint16_t *part, uint32_t n, uint32_t m)
{
    uint32_t from[SWAP_CANDIDATES], to[SWAP_CANDIDATES], j = 0, i = 0;
    uint32_t n_from = willing(s, part, n, m, from, SWAP_CANDIDATES), n_to = willing(s, part, m, n, to, SWAP_CANDIDATES);
    double best = 0;
    partition_pair_prepare(&s->state, n, m);
    for (uint32_t f = 0; f < n_from; f++)
        for (uint32_t t = 0; t < n_to; t++) {
            double delta = partition_swap_delta(&s->state, from[f], to[t]);
            if (delta < best) best = delta, j = from[f], i = to[t];
        }
    if (!(best < 0)) return false;
    part[j] = (uint16_t)m;
    part[i] = (uint16_t)n;
    partition_state_update(&s->state, part, n, m);
    return true;
}

static bool sweep_swaps(bcd *s, uint16_t *part)
{
    bool any = false;
    costs_of_loads(s);
    for (uint32_t n = 0; n < s->state.n_parts; n++)
        for (uint32_t m = n + 1; m < s->state.n_parts; m++) any |= swap_pair(s, part, n, m);
    return any;
}

/* ---- solver ---- */

static void try_start(bcd *s, uint16_t *part, uint32_t max_rounds, double *best)
{
    double objective = partition_state_set(&s->state, part);
    objective = descend(s, part, objective, max_rounds);
    if (objective < *best) {
        *best = objective;
        memcpy(s->best, part, s->state.n_neurons * sizeof *part);
    }
}

/* `part` holds the importance order. */
static void solve(bcd *s, const partition_bcd_params *params, uint16_t *part)
{
    uint32_t max_rounds = params->max_rounds ? params->max_rounds : 50;
    uint32_t random_starts = params->random_starts ? params->random_starts : 1;
    double best = INFINITY;
    try_start(s, part, max_rounds, &best);
    start_clusters(s, part);
    try_start(s, part, max_rounds, &best);
    for (uint32_t i = 0; i < random_starts; i++) {
        start_random(s, part);
        try_start(s, part, max_rounds, &best);
    }
    memcpy(part, s->best, s->state.n_neurons * sizeof *part);
    best = partition_state_set(&s->state, part);
    for (int sweep = 0; sweep < SWAP_SWEEPS && sweep_swaps(s, part); sweep++) {
        best = partition_state_set(&s->state, part);
        best = descend(s, part, best, max_rounds);
        partition_state_set(&s->state, part);
    }
}

mp_status partition_bcd(const partition_problem *p, const partition_bcd_params *params, uint16_t *part, mp_error *err)
{
    bcd s;
    MP_TRY(partition_sort(p, part, err));
    if (p->n_parts == 1 || p->n_tokens == 0) return MP_OK;
    MP_TRY(bcd_init(&s, p, params->seed, err));
    solve(&s, params, part);
    bcd_clear(&s);
    return MP_OK;
}
