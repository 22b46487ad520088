#include <cblas.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "refactor/partition_impl.h"

enum { MAX_C = 512 };

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static void near(double got, double want, double tolerance, int line)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("line %d: %.9g is not within %g of %.9g", line, got, tolerance, want);
}

#define assert_near(got, want, tolerance) near(got, want, tolerance, __LINE__)

static partition_problem problem(const float *w, size_t n_tokens, uint32_t c, uint32_t n)
{
    partition_problem p = {.w = w, .n_tokens = n_tokens, .n_neurons = c, .n_parts = n};
    partition_default_keeps(&p);
    return p;
}

/* Heavy-tailed weights without structure; a few levels only where many ties are wanted. */
static float *random_weights(rng *r, size_t n_tokens, uint32_t c, uint32_t levels)
{
    float *w = zeroed(n_tokens * c, sizeof *w);
    for (size_t e = 0; e < n_tokens * c; e++)
        w[e] = levels ? (float)rng_below(r, levels) : fabsf(rng_normal(r)) * expf(rng_normal(r));
    return w;
}

/* Neuron j belongs to group truth[j]; groups fire on some tokens; sizes are log-normal by `spread`, noise everywhere.
 */
static float *grouped_weights(rng *r, size_t n_tokens, uint32_t c, uint32_t groups, float noise, float spread,
                              uint16_t *truth)
{
    float *w = zeroed(n_tokens * c, sizeof *w), size[MAX_C];
    for (uint32_t j = 0; j < c; j++) {
        truth[j] = (uint16_t)(j % groups);
        size[j] = expf(spread * rng_normal(r));
    }
    for (size_t b = 0; b < n_tokens; b++) {
        uint64_t fires = rng_u64(r);
        fires &= rng_u64(r); /* a quarter of the groups */
        for (uint32_t j = 0; j < c; j++)
            w[b * c + j] = size[j] * fabsf(1 + 0.5f * rng_normal(r)) * (fires >> truth[j] & 1 ? 1 : noise);
    }
    return w;
}

static void shuffle(rng *r, uint16_t *v, uint32_t n)
{
    for (uint32_t j = n; j-- > 1;) {
        uint32_t i = (uint32_t)rng_below(r, j + 1);
        uint16_t x = v[j];
        v[j] = v[i];
        v[i] = x;
    }
}

static void random_partition(rng *r, uint16_t *part, uint32_t c, uint32_t n)
{
    for (uint32_t j = 0; j < c; j++) part[j] = (uint16_t)(j % n);
    shuffle(r, part, c);
}

static void assert_balanced(const uint16_t *part, uint32_t c, uint32_t n)
{
    uint32_t *count = zeroed(n, sizeof *count);
    for (uint32_t j = 0; j < c; j++) {
        assert_true(part[j] < n);
        count[part[j]]++;
    }
    for (uint32_t i = 0; i < n; i++) assert_int_equal(count[i], c / n);
    free(count);
}

/* The objective once more, by selection instead of sorting: drop the lightest set n - k times. */
static double naive_objective(const partition_problem *p, const uint16_t *part)
{
    double lost = 0, total = 0, weights = 0;
    for (uint32_t k = 0; k < p->n_keeps; k++) weights += (double)p->keep_weights[k];
    for (size_t b = 0; b < p->n_tokens; b++)
        for (uint32_t k = 0; k < p->n_keeps; k++) {
            double load[MAX_C] = {0};
            for (uint32_t j = 0; j < p->n_neurons; j++) load[part[j]] += (double)p->w[b * p->n_neurons + j];
            for (uint32_t n = 0; n < p->n_parts && k == 0; n++) total += load[n];
            for (uint32_t drop = p->n_parts - p->keeps[k]; drop > 0; drop--) {
                uint32_t least = 0;
                for (uint32_t n = 1; n < p->n_parts; n++)
                    if (load[n] < load[least]) least = n;
                lost += (double)p->keep_weights[k] / weights * load[least];
                load[least] = INFINITY;
            }
        }
    return total > 0 ? lost / total : 0;
}

/* ---- keeps, objective ---- */

static void default_keeps(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, count, keeps[4];
    } cases[] = {{1, 0, {0}},       {2, 1, {1}},          {3, 2, {1, 2}},
                 {4, 3, {1, 2, 3}}, {8, 4, {1, 2, 4, 6}}, {32, 4, {4, 8, 16, 24}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        partition_problem p = {.n_parts = cases[i].n, .n_keeps = 7};
        partition_default_keeps(&p);
        assert_int_equal(p.n_keeps, cases[i].count);
        for (uint32_t k = 0; k < p.n_keeps; k++) {
            assert_int_equal(p.keeps[k], cases[i].keeps[k]);
            assert_true(p.keep_weights[k] == 1);
        }
    }
}

static void objective_is_the_definition(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{2, 2}, {6, 3}, {12, 4}, {20, 5}, {33, 11}, {64, 32}, {40, 40}};
    rng r;
    rng_init(&r, 1);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (uint32_t levels = 0; levels < 4; levels += 3) {
            uint32_t c = shapes[i][0], n = shapes[i][1];
            float *w = random_weights(&r, 29, c, levels);
            uint16_t part[MAX_C];
            partition_problem p = problem(w, 29, c, n);
            for (uint32_t k = 0; k < p.n_keeps; k++) p.keep_weights[k] = 0.5f + (float)k;
            random_partition(&r, part, c, n);
            assert_near(partition_objective(&p, part), naive_objective(&p, part), 1e-12);
            free(w);
        }
}

static void objective_by_hand(void **state)
{
    (void)state;
    const float w[] = {1, 2, 3, 4, /* sets {0, 1}, {2, 3}: 3, 7 */ 5, 5, 1, 0 /* 10, 1 */};
    const uint16_t part[] = {0, 0, 1, 1};
    partition_problem p = problem(w, 2, 4, 2);
    assert_near(partition_objective(&p, part), (3.0 + 1.0) / 21, 1e-15);
    p.n_tokens = 0;
    assert_true(partition_objective(&p, part) == 0);
}

/* What the solvers compute against the definition: objective, rates, and every swap of every pair. */
static void fast_evaluation_is_the_definition(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{4, 2}, {6, 3}, {12, 4}, {12, 12}, {18, 9}, {34, 17}};
    rng r;
    rng_init(&r, 2);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (uint32_t levels = 0; levels < 4; levels += 3) {
            uint32_t c = shapes[i][0], n = shapes[i][1];
            size_t n_tokens = 37;
            float *w = random_weights(&r, n_tokens, c, levels);
            uint16_t part[MAX_C];
            partition_state s;
            partition_problem p = problem(w, n_tokens, c, n);
            if (n > 2) p.n_keeps = 2, p.keeps[0] = 1, p.keeps[1] = n - 1; /* the ends of the order */
            p.keep_weights[0] = 3;
            random_partition(&r, part, c, n);
            assert_int_equal(partition_state_init(&s, &p, NULL), MP_OK);
            double now = partition_state_set(&s, part), unit = s.total * s.scale, linear = 0;
            assert_near(now, partition_objective(&p, part), 1e-6);
            partition_state_rates(&s);
            for (size_t j = 0; j < c; j++)
                for (size_t b = 0; b < n_tokens; b++)
                    linear += (double)s.wt[j * s.stride + b] * (double)s.rate[part[j] * s.stride + b];
            assert_near(linear / unit, now, 1e-6);
            for (uint32_t j = 0; j < c; j++)
                for (uint32_t k = 0; k < c; k++) {
                    if (part[j] == part[k]) continue;
                    uint16_t other[MAX_C];
                    memcpy(other, part, sizeof other);
                    other[j] = part[k], other[k] = part[j];
                    partition_pair_begin(&s, part[j], part[k]);
                    double delta = partition_swap_delta(&s, j, k) / unit;
                    assert_near(delta, partition_objective(&p, other) - partition_objective(&p, part), 1e-6);
                }
            partition_state_clear(&s);
            free(w);
        }
}

/* ---- transport ---- */

static double cost_of(const double *cost, const uint16_t *part, uint32_t c, uint32_t n)
{
    double sum = 0;
    for (uint32_t j = 0; j < c; j++) sum += cost[j * n + part[j]];
    return sum;
}

/* Calls fn for every balanced partition. */
typedef void (*visit_fn)(void *arg, const uint16_t *part);

static void visit_all(uint16_t *part, uint32_t *count, uint32_t j, uint32_t c, uint32_t n, visit_fn fn, void *arg)
{
    if (j == c) {
        fn(arg, part);
        return;
    }
    for (uint32_t set = 0; set < n; set++) {
        if (count[set] == c / n) continue;
        part[j] = (uint16_t)set;
        count[set]++;
        visit_all(part, count, j + 1, c, n, fn, arg);
        count[set]--;
    }
}

typedef struct least_cost {
    const double *cost;
    uint32_t c, n;
    double least;
} least_cost;

static void visit_cost(void *arg, const uint16_t *part)
{
    least_cost *l = arg;
    l->least = fmin(l->least, cost_of(l->cost, part, l->c, l->n));
}

static void transport_is_the_optimum(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {4, 1}, {6, 2}, {6, 3}, {9, 3}, {6, 6}, {8, 4}};
    rng r;
    rng_init(&r, 3);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int trial = 0; trial < 30; trial++) {
            uint32_t c = shapes[i][0], n = shapes[i][1], count[16] = {0};
            uint16_t part[16], scratch[16];
            double cost[128];
            for (uint32_t e = 0; e < c * n; e++) /* every third trial full of ties */
                cost[e] = trial % 3 ? (double)rng_normal(&r) : (double)rng_below(&r, 3);
            least_cost l = {cost, c, n, INFINITY};
            visit_all(scratch, count, 0, c, n, visit_cost, &l);
            assert_int_equal(partition_transport(cost, c, n, part, NULL), MP_OK);
            assert_balanced(part, c, n);
            assert_near(cost_of(cost, part, c, n), l.least, 1e-9);
        }
}

/* No negative cycle in the graph of the sets: the proof of optimality where enumeration is out of reach. */
static void assert_no_better(const double *cost, const uint16_t *part, uint32_t c, uint32_t n)
{
    double *dist = zeroed((size_t)n * n, sizeof *dist);
    for (uint32_t e = 0; e < n * n; e++) dist[e] = e / n == e % n ? 0 : INFINITY;
    for (uint32_t j = 0; j < c; j++)
        for (uint32_t m = 0; m < n; m++) {
            double *d = dist + part[j] * n + m;
            *d = fmin(*d, cost[j * n + m] - cost[j * n + part[j]]);
        }
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t m = 0; m < n; m++) dist[i * n + m] = fmin(dist[i * n + m], dist[i * n + k] + dist[k * n + m]);
    for (uint32_t i = 0; i < n; i++) assert_true(dist[i * n + i] > -1e-9);
    free(dist);
}

static void large_transport_and_warm_starts(void **state)
{
    (void)state;
    enum { C = 480, N = 32 };
    rng r;
    rng_init(&r, 4);
    double *cost = zeroed((size_t)C * N, sizeof *cost);
    uint16_t warm[C], cold[C];
    transport t;
    assert_int_equal(transport_init(&t, C, N, NULL), MP_OK);
    memset(warm, 0, sizeof warm); /* not even balanced */
    for (size_t e = 0; e < (size_t)C * N; e++) cost[e] = e % N ? 1 + rng_uniform(&r) : 0.1 * rng_uniform(&r);
    for (int round = 0; round < 5; round++) {
        transport_solve(&t, cost, warm);
        assert_int_equal(partition_transport(cost, C, N, cold, NULL), MP_OK);
        assert_balanced(warm, C, N);
        assert_balanced(cold, C, N);
        assert_no_better(cost, warm, C, N);
        assert_near(cost_of(cost, warm, C, N), cost_of(cost, cold, C, N), 1e-9);
        for (size_t e = 0; e < (size_t)C * N; e++) cost[e] += 0.2 * rng_uniform(&r);
    }
    transport_clear(&t);
    free(cost);
}

static void all_costs_equal(void **state)
{
    (void)state;
    double cost[24 * 4] = {0};
    uint16_t part[24];
    assert_int_equal(partition_transport(cost, 24, 4, part, NULL), MP_OK);
    assert_balanced(part, 24, 4);
}

/* ---- starts, orders ---- */

static void sort_greedy_and_order(void **state)
{
    (void)state;
    const float w[] = {1, 5, 2, 8, 0, 1, /* token 0 */ 0, 0, 2, 4, 0, 1}; /* in all 1 5 4 12 0 2 */
    const uint16_t sorted[] = {2, 0, 1, 0, 2, 1};
    /* 12 -> 0, 5 -> 1, 4 -> 2, 2 -> 2 (4 is the lightest), 1 -> 1 (0 is heavier, 2 full), 0 -> 0, which has room */
    const uint16_t greedy[] = {1, 1, 2, 0, 0, 2};
    const uint32_t ordered[] = {3, 4, 1, 0, 2, 5}; /* sets of 12, 6 and 6 */
    uint16_t part[6];
    uint32_t order[6];
    partition_problem p = problem(w, 2, 6, 3);
    assert_int_equal(partition_sort(&p, part, NULL), MP_OK);
    assert_memory_equal(part, sorted, sizeof sorted);
    assert_int_equal(partition_greedy(&p, part, NULL), MP_OK);
    assert_memory_equal(part, greedy, sizeof greedy);
    assert_int_equal(partition_order(&p, part, order, NULL), MP_OK);
    assert_memory_equal(order, ordered, sizeof ordered);
}

/* ---- solvers ---- */

typedef struct least_objective {
    const partition_problem *p;
    double least;
} least_objective;

static void visit_objective(void *arg, const uint16_t *part)
{
    least_objective *l = arg;
    l->least = fmin(l->least, partition_objective(l->p, part));
}

static void tiny_cases_reach_the_optimum(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{6, 2}, {6, 3}, {8, 4}, {8, 2}};
    rng r;
    rng_init(&r, 6);
    int reached = 0, cases = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int trial = 0; trial < 10; trial++, cases++) {
            uint32_t c = shapes[i][0], n = shapes[i][1], count[16] = {0};
            float *w = random_weights(&r, 12, c, 0);
            uint16_t part[16], scratch[16];
            partition_problem p = problem(w, 12, c, n);
            least_objective l = {&p, INFINITY};
            visit_all(scratch, count, 0, c, n, visit_objective, &l);
            assert_int_equal(partition_bcd(&p, &(partition_bcd_params){.random_starts = 4}, part, NULL), MP_OK);
            double got = partition_objective(&p, part);
            assert_true(got >= l.least - 1e-12);
            assert_true(got <= l.least * 1.1);
            reached += got <= l.least * (1 + 1e-6);
            free(w);
        }
    assert_true(reached >= cases * 9 / 10);
}

static void solvers_keep_their_promises(void **state)
{
    (void)state;
    static const struct {
        size_t n_tokens;
        uint32_t c, n, levels;
    } cases[] = {{100, 24, 4, 0}, {33, 32, 32, 0}, {5, 60, 12, 0}, {1, 16, 4, 0},
                 {64, 24, 3, 2},  {0, 12, 3, 0},   {9, 8, 1, 0},   {50, 40, 8, 1} /* all zero */};
    rng r;
    rng_init(&r, 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t c = cases[i].c, n = cases[i].n;
        float *w = random_weights(&r, cases[i].n_tokens, c, cases[i].levels);
        partition_problem p = problem(w, cases[i].n_tokens, c, n);
        uint16_t sorted[MAX_C], greedy[MAX_C], a[MAX_C], b[MAX_C];
        partition_bcd_params bcd = {.seed = i};
        partition_anneal_params anneal = {.seed = i, .iterations = 500};
        assert_int_equal(partition_sort(&p, sorted, NULL), MP_OK);
        assert_int_equal(partition_greedy(&p, greedy, NULL), MP_OK);
        assert_balanced(sorted, c, n);
        assert_balanced(greedy, c, n);

        assert_int_equal(partition_bcd(&p, &bcd, a, NULL), MP_OK);
        assert_int_equal(partition_bcd(&p, &bcd, b, NULL), MP_OK);
        assert_balanced(a, c, n);
        assert_memory_equal(a, b, c * sizeof *a);
        assert_true(partition_objective(&p, a) <= partition_objective(&p, sorted) + 1e-9);

        memcpy(a, greedy, sizeof a);
        memcpy(b, greedy, sizeof b);
        assert_int_equal(partition_anneal(&p, &anneal, a, NULL), MP_OK);
        assert_int_equal(partition_anneal(&p, &anneal, b, NULL), MP_OK);
        assert_balanced(a, c, n);
        assert_memory_equal(a, b, c * sizeof *a);
        assert_true(partition_objective(&p, a) <= partition_objective(&p, greedy) + 1e-9);
        anneal.t0 = 1e9, anneal.alpha = 1; /* never cools: a random walk must not be handed out */
        memcpy(a, greedy, sizeof a);
        assert_int_equal(partition_anneal(&p, &anneal, a, NULL), MP_OK);
        assert_balanced(a, c, n);
        assert_true(partition_objective(&p, a) <= partition_objective(&p, greedy) + 1e-9);
        free(w);
    }
}

static void scale_does_not_matter(void **state)
{
    (void)state;
    rng r;
    rng_init(&r, 8);
    uint16_t a[48], b[48];
    float *w = random_weights(&r, 80, 48, 0);
    partition_problem p = problem(w, 80, 48, 8);
    assert_int_equal(partition_bcd(&p, &(partition_bcd_params){0}, a, NULL), MP_OK);
    for (size_t e = 0; e < 80 * 48; e++) w[e] *= 0x1p118f; /* their sum is beyond F32 */
    assert_int_equal(partition_bcd(&p, &(partition_bcd_params){0}, b, NULL), MP_OK);
    assert_memory_equal(a, b, sizeof a);
    for (size_t e = 0; e < 80 * 48; e++) w[e] = w[e] * 0x1p-118f * 0x1p-90f;
    assert_int_equal(partition_bcd(&p, &(partition_bcd_params){0}, b, NULL), MP_OK);
    assert_memory_equal(a, b, sizeof a);
    free(w);
}

static void planted_groups_are_found(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{32, 4}, {64, 8}, {128, 16}, {256, 32}};
    rng r;
    rng_init(&r, 9);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint32_t c = shapes[i][0], n = shapes[i][1];
        uint16_t truth[MAX_C], part[MAX_C], image[MAX_C];
        float *w = grouped_weights(&r, 600, c, n, 0.1f, 0.2f, truth);
        partition_problem p = problem(w, 600, c, n);
        assert_int_equal(partition_bcd(&p, &(partition_bcd_params){.seed = 1}, part, NULL), MP_OK);
        assert_true(partition_objective(&p, part) <= partition_objective(&p, truth) * (1 + 1e-6));
        memset(image, 0xff, sizeof image);
        uint32_t agree = 0;
        for (uint32_t j = 0; j < c; j++) { /* the same sets but for their names */
            if (image[truth[j]] == 0xffff) image[truth[j]] = part[j];
            agree += image[truth[j]] == part[j];
        }
        assert_int_equal(agree, c);
        free(w);
    }
}

static void bcd_is_no_worse_than_anneal_held_out(void **state)
{
    (void)state;
    rng r;
    rng_init(&r, 10);
    for (int trial = 0; trial < 4; trial++) {
        uint32_t c = 96, n = trial % 2 ? 8 : 32;
        uint16_t truth[MAX_C], a[MAX_C], b[MAX_C];
        float *w = grouped_weights(&r, 1200, c, 24, 0.3f, 0.7f, truth);
        partition_problem fit = problem(w, 400, c, n), held = problem(w + 400 * c, 800, c, n);
        assert_int_equal(partition_bcd(&fit, &(partition_bcd_params){.seed = 5}, b, NULL), MP_OK);
        assert_int_equal(partition_greedy(&fit, a, NULL), MP_OK);
        assert_int_equal(partition_anneal(&fit, &(partition_anneal_params){.seed = 5, .iterations = 20000}, a, NULL),
                         MP_OK);
        assert_true(partition_objective(&held, b) <= partition_objective(&held, a));
        free(w);
    }
}

/* ---- refusals ---- */

static void bad_problems_are_refused(void **state)
{
    (void)state;
    const float w[] = {1, 2, 3, 4, 5, 6, 7, 8};
    float broken[] = {1, 2, 3, 4, 5, -1, 7, 8};
    uint16_t part[4] = {0, 0, 1, 1}, uneven[4] = {0, 0, 0, 1}, strange[4] = {0, 0, 1, 7};
    uint32_t order[4];
    mp_error err;
    partition_problem good = problem(w, 2, 4, 2), p;
    partition_anneal_params anneal = {0};

    p = good, p.n_parts = 3;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_INVALID);
    p = good, p.n_parts = 0;
    assert_int_equal(partition_bcd(&p, &(partition_bcd_params){0}, part, &err), MP_E_INVALID);
    p = good, p.keeps[0] = 2;
    assert_int_equal(partition_greedy(&p, part, &err), MP_E_INVALID);
    p = good, p.n_keeps = 0;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_INVALID);
    p = good, p.n_keeps = PARTITION_MAX_KEEPS + 1;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_INVALID);
    p = good, p.keep_weights[0] = 0;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_INVALID);
    p = good, p.w = NULL;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_INVALID);
    p = good, p.n_tokens = SIZE_MAX / 2;
    assert_int_equal(partition_sort(&p, part, &err), MP_E_LIMIT);
    p = good, p.w = broken;
    assert_int_equal(partition_bcd(&p, &(partition_bcd_params){0}, part, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "token 1, neuron 1"));
    broken[5] = NAN;
    assert_int_equal(partition_anneal(&p, &anneal, part, &err), MP_E_INVALID);
    broken[5] = INFINITY;
    assert_int_equal(partition_anneal(&p, &anneal, part, &err), MP_E_INVALID);

    assert_int_equal(partition_anneal(&good, &anneal, uneven, &err), MP_E_INVALID);
    assert_int_equal(partition_anneal(&good, &anneal, strange, &err), MP_E_INVALID);
    assert_int_equal(partition_order(&good, uneven, order, &err), MP_E_INVALID);
    anneal.alpha = 1.5;
    assert_int_equal(partition_anneal(&good, &anneal, part, &err), MP_E_INVALID);

    double cost[8] = {0, 1, 2, 3, 4, 5, NAN, 7};
    assert_int_equal(partition_transport(cost, 4, 2, part, &err), MP_E_INVALID);
    cost[6] = 6;
    assert_int_equal(partition_transport(cost, 4, 3, part, &err), MP_E_INVALID);
    assert_int_equal(partition_transport(NULL, 4, 2, part, &err), MP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_keeps),
        cmocka_unit_test(objective_is_the_definition),
        cmocka_unit_test(objective_by_hand),
        cmocka_unit_test(fast_evaluation_is_the_definition),
        cmocka_unit_test(transport_is_the_optimum),
        cmocka_unit_test(large_transport_and_warm_starts),
        cmocka_unit_test(all_costs_equal),
        cmocka_unit_test(sort_greedy_and_order),
        cmocka_unit_test(tiny_cases_reach_the_optimum),
        cmocka_unit_test(solvers_keep_their_promises),
        cmocka_unit_test(scale_does_not_matter),
        cmocka_unit_test(planted_groups_are_found),
        cmocka_unit_test(bcd_is_no_worse_than_anneal_held_out),
        cmocka_unit_test(bad_problems_are_refused),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
