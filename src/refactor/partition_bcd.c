/* The default solver: block coordinate descent on (assignment, what each token drops), then swaps.
 *
 * Fix for each token and keep which sets are dropped. The loss is then linear in the assignment: neuron j in set n
 * costs c[j][n] = sum_b w[b][j] * rate[b][n], one matrix product for all, and the cheapest balanced assignment is a
 * transport problem, solved exactly. What each token then drops can only get cheaper still, because the true loss is
 * the minimum over the choices of what to drop. So every round lowers the objective, all neurons moving at once, where
 * a swap moves two and must be found first.
 *
 * The end of a descent depends on its start. Importance order puts what is always needed together; clusters of neurons
 * that are active on the same tokens is what the objective wants to see; random starts guard against both being wrong.
 *
 * A descent stops early where sets are small: a set is dropped where it is light because of the very neurons that are
 * in it. Swaps see through that. Most are bad, which a few tokens suffice to tell: candidates race, block after block
 * of tokens, and leave when their loss so far is beyond what chance explains. Where that converges within the effort
 * allowed, the rest of it goes into kicks: shake the best partition, refine, keep the better one.
 *
 * Effort is counted in tokens visited, never in time: the answer is the same on any machine load. All of it is about a
 * tenth of the work of 100,000 proposals of the annealer. */
#include "refactor/partition_impl.h"

#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum {
    CLUSTER_ROUNDS = 4,
    SWAP_CANDIDATES = 8,  /* neurons of each set of a pair that are tried against each other */
    RACE_TOKENS = 128,    /* before the first swap is given up; then as many again as were seen */
    EFFORT = 15000,       /* in evaluations of a swap over all tokens, the starts included */
    REFINE_EFFORT = 3000, /* of which this much is left to swaps where the starts of a large expert take all */
};

static const double RACE_DEVIATIONS = 2; /* a loss beyond this many standard deviations ends a candidate's race */
static const double START_GAIN = 1e-2;   /* relative gain of a round below which a start is known well enough */
static const double ROUND_GAIN = 1e-4;   /* ... and a descent has ended */
static const double SWEEP_GAIN = 1e-4;   /* ... and so has a refinement */
static const double KICK_SHARE = 0.3;    /* random swaps per neuron */

typedef struct bcd {
    partition_state state;
    transport transport;
    float *product;         /* [C, N] */
    double *cost;           /* [C, N] */
    float *norm;            /* [C] 1 / ||wt_j||, 0 for a neuron that is never active */
    uint16_t *best, *trial; /* [C] */
    double objective;       /* of best */
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
    partition_state *p = &s->state;
    p->visited += p->stride * p->n_neurons / 2; /* a round takes the time of so many tokens of swaps */
    int c = (int)p->n_neurons, n = (int)p->n_parts, b = (int)p->stride;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, c, n, b, 1, p->wt, b, p->rate, b, 0, s->product, n);
}

static void costs_of_loads(bcd *s)
{
    partition_state_rates(&s->state);
    multiply(s);
    for (size_t e = 0; e < (size_t)s->state.n_neurons * s->state.n_parts; e++) s->cost[e] = (double)s->product[e];
}

/* Rounds of costs and transport from `part`, whose state is set, until one gains less than `gain` of the objective.
 * Leaves part and state at the best; returns the objective. */
static double descend(bcd *s, uint16_t *part, uint32_t max_rounds, double gain)
{
    const size_t bytes = s->state.n_neurons * sizeof *part;
    double objective = partition_state_objective(&s->state);
    for (uint32_t round = 0; round < max_rounds; round++) {
        costs_of_loads(s);
        memcpy(s->trial, part, bytes);
        transport_solve(&s->transport, s->cost, s->trial);
        if (memcmp(s->trial, part, bytes) == 0) break;
        double next = partition_state_set(&s->state, s->trial);
        assert(next <= objective * (1 + 1e-5) + 1e-12); /* the costs are F32 sums */
        if (!(next < objective)) {
            partition_state_set(&s->state, part);
            break;
        }
        memcpy(part, s->trial, bytes);
        bool enough = next > objective * (1 - gain);
        objective = next;
        if (enough) break;
    }
    return objective;
}

/* ---- starts ---- */

static void exchange(uint16_t *part, uint32_t j, uint32_t i)
{
    uint16_t n = part[j];
    part[j] = part[i];
    part[i] = n;
}

static void start_random(bcd *s, uint16_t *part)
{
    uint32_t c = s->state.n_neurons, size = c / s->state.n_parts;
    for (uint32_t j = 0; j < c; j++) part[j] = (uint16_t)(j / size);
    for (uint32_t j = c; j-- > 1;) exchange(part, j, (uint32_t)rng_below(&s->rng, j + 1));
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

/* The members of n that the linear cost would rather see in m, the keenest first; at most SWAP_CANDIDATES. */
static uint32_t willing(const bcd *s, const uint16_t *part, uint32_t n, uint32_t m, uint32_t *out)
{
    double price[SWAP_CANDIDATES];
    uint32_t count = 0;
    for (uint32_t j = 0; j < s->state.n_neurons; j++) {
        if (part[j] != n) continue;
        const double *c = s->cost + (size_t)j * s->state.n_parts, move = c[m] - c[n];
        if (count == SWAP_CANDIDATES && !(move < price[count - 1])) continue;
        uint32_t at = count < SWAP_CANDIDATES ? count++ : count - 1;
        for (; at > 0 && move < price[at - 1]; at--) price[at] = price[at - 1], out[at] = out[at - 1];
        price[at] = move;
        out[at] = j;
    }
    return count;
}

/* Tokens visited block by block; a candidate leaves when it is likely to lose. Returns how many stay to the end. */
static uint32_t race(partition_state *s, partition_swap *swaps, uint32_t count)
{
    for (size_t begin = 0, end; begin < s->stride && count; begin = end) {
        end = begin ? 2 * begin : RACE_TOKENS;
        if (end > s->stride) end = s->stride;
        uint32_t kept = 0;
        for (uint32_t t = 0; t < count; t++) {
            partition_swap_add(s, &swaps[t], begin, end);
            if (swaps[t].delta <= RACE_DEVIATIONS * sqrt(swaps[t].square)) swaps[kept++] = swaps[t];
        }
        count = kept;
    }
    return count;
}

/* The best swap of j in n with one of m, made if it gains. */
static bool swap_neuron(bcd *s, uint16_t *part, uint32_t j, uint32_t m)
{
    const uint16_t n = part[j];
    uint32_t to[SWAP_CANDIDATES], count = willing(s, part, m, n, to);
    partition_swap swaps[SWAP_CANDIDATES], best = {0};
    for (uint32_t t = 0; t < count; t++) swaps[t] = (partition_swap){.j = j, .i = to[t]};
    count = race(&s->state, swaps, count);
    for (uint32_t t = 0; t < count; t++)
        if (swaps[t].delta < best.delta) best = swaps[t];
    if (!(best.delta < 0)) return false;
    part[best.j] = (uint16_t)m;
    part[best.i] = n;
    partition_state_update(&s->state, part, n, m);
    partition_pair_begin(&s->state, n, m);
    return true;
}

/* One look at every pair of sets, as far as the effort goes. */
static bool sweep_swaps(bcd *s, uint16_t *part, uint64_t effort)
{
    uint32_t from[SWAP_CANDIDATES];
    bool any = false;
    costs_of_loads(s);
    for (uint32_t n = 0; n < s->state.n_parts; n++)
        for (uint32_t m = n + 1; m < s->state.n_parts && s->state.visited < effort; m++) {
            uint32_t count = willing(s, part, n, m, from);
            partition_pair_begin(&s->state, n, m);
            for (uint32_t f = 0; f < count; f++) any |= swap_neuron(s, part, from[f], m);
        }
    return any;
}

/* Descent and swaps in turn, until a turn gains little or the effort is spent. */
static double refine(bcd *s, uint16_t *part, uint32_t max_rounds, uint64_t effort)
{
    partition_state_set(&s->state, part);
    double objective = descend(s, part, max_rounds, ROUND_GAIN);
    while (s->state.visited < effort && sweep_swaps(s, part, effort)) {
        double next = descend(s, part, max_rounds, ROUND_GAIN);
        assert(next <= objective * (1 + 1e-5) + 1e-12);
        bool enough = next > objective * (1 - SWEEP_GAIN);
        objective = next;
        if (enough) break;
    }
    return objective;
}

/* ---- solver ---- */

static void keep_better(bcd *s, const uint16_t *part, double objective)
{
    if (!(objective < s->objective)) return;
    s->objective = objective;
    memcpy(s->best, part, s->state.n_neurons * sizeof *part);
}

static void try_start(bcd *s, uint16_t *part, uint32_t max_rounds)
{
    keep_better(s, part, partition_state_set(&s->state, part));
    keep_better(s, part, descend(s, part, max_rounds, START_GAIN));
}

static void kick(bcd *s, uint16_t *part)
{
    const uint32_t c = s->state.n_neurons;
    for (uint32_t count = (uint32_t)ceil(KICK_SHARE * c); count > 0; count--)
        exchange(part, (uint32_t)rng_below(&s->rng, c), (uint32_t)rng_below(&s->rng, c));
}

/* `part` holds the importance order and receives the answer. */
static void solve(bcd *s, const partition_bcd_params *params, uint16_t *part)
{
    const uint32_t max_rounds = params->max_rounds ? params->max_rounds : 50;
    const uint32_t random_starts = params->random_starts ? params->random_starts : 1;
    const size_t bytes = s->state.n_neurons * sizeof *part;
    s->objective = INFINITY;
    try_start(s, part, max_rounds);
    start_clusters(s, part);
    try_start(s, part, max_rounds);
    for (uint32_t i = 0; i < random_starts; i++) {
        start_random(s, part);
        try_start(s, part, max_rounds);
    }
    memcpy(part, s->best, bytes);
    const uint64_t least = s->state.visited + (uint64_t)REFINE_EFFORT * s->state.stride;
    const uint64_t all = (uint64_t)EFFORT * s->state.stride, effort = all > least ? all : least;
    keep_better(s, part, refine(s, part, max_rounds, effort));
    while (s->objective > 0 && s->state.visited < effort) {
        memcpy(part, s->best, bytes);
        kick(s, part);
        keep_better(s, part, refine(s, part, max_rounds, effort));
    }
    memcpy(part, s->best, bytes);
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
