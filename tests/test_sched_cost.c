/* The cost model: features against their definition token by token, the prediction, and the correction's speed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sched/cost.h"

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fmax(1, fabs(b)))) fail_msg("%.17g, expected %.17g", a, b);
}

static void test_features(void **state)
{
    (void)state;
    const cost_shape shape = {.used = 0.125};
    const cost_item items[] = {
        {.n_tokens = 1, .context = 10, .logits = 1, .share = 0.5},
        {.n_tokens = 3, .context = 4, .logits = 0, .share = 1},
    };
    double f[COST_FEATURES];
    cost_features(&shape, items, 2, f);
    assert_near(f[COST_STEP], 1);
    assert_near(f[COST_TOKENS], 4);
    assert_near(f[COST_EXPERTS], 3.5);
    assert_near(f[COST_TOUCHED], 1 - (1 - 0.0625) * 0.875 * 0.875 * 0.875);
    assert_near(f[COST_CONTEXT], 11 + 5 + 6 + 7);
    assert_near(f[COST_LOGITS], 1);
    assert_near(f[COST_CACHE], 11 + 7);
}

/* A run of tokens is the same as its tokens one by one, but that its sequence's cache is read once. */
static void test_features_of_runs(void **state)
{
    (void)state;
    const cost_shape shape = {.used = 0.25};
    rng r;
    rng_init(&r, 7);
    for (int round = 0; round < 100; round++) {
        cost_item runs[4], single[4 * 16];
        double a[COST_FEATURES], b[COST_FEATURES];
        size_t n = 0;
        for (size_t i = 0; i < 4; i++) {
            runs[i] = (cost_item){.n_tokens = (uint32_t)rng_below(&r, 16) + 1,
                                  .context = (uint32_t)rng_below(&r, 1000),
                                  .share = rng_uniform(&r)};
            runs[i].logits = 1;
            for (uint32_t t = 0; t < runs[i].n_tokens; t++)
                single[n++] = (cost_item){
                    .n_tokens = 1, .context = runs[i].context + t, .logits = t == 0, .share = runs[i].share};
        }
        cost_features(&shape, runs, 4, a);
        cost_features(&shape, single, n, b);
        for (size_t f = 0; f < COST_FEATURES; f++)
            if (f != COST_CACHE) assert_near(a[f], b[f]);
        assert_true(a[COST_CACHE] <= b[COST_CACHE]);
    }
}

/* A dense model uses everything at full: one token touches it all. */
static void test_touched_bounds(void **state)
{
    (void)state;
    const cost_shape dense = {.used = 1};
    const cost_item one = {.n_tokens = 1, .share = 1};
    double f[COST_FEATURES];
    cost_features(&dense, &one, 1, f);
    assert_near(f[COST_TOUCHED], 1);
    cost_features(&dense, NULL, 0, f);
    assert_near(f[COST_TOUCHED], 0);
    assert_near(f[COST_STEP], 1);
}

static void test_predict(void **state)
{
    (void)state;
    const cost_model m = {.ns = {100, 10, 20, 1000, 1, 5}, .correction = 1.5};
    const double f[COST_FEATURES] = {1, 2, 1.5, 0.25, 30, 2};
    assert_near(cost_predict_ns(&m, f), 1.5 * (100 + 20 + 30 + 250 + 30 + 10));
}

/* Steps take `factor` times what the fit says: the correction follows, and stays. */
static void test_observe_converges(void **state)
{
    (void)state;
    static const double factors[] = {0.5, 0.9, 1, 1.3, 3};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        cost_model m = {.correction = 1};
        for (int step = 0; step < 600; step++) cost_observe(&m, 1e6 * m.correction, 1e6 * factors[i]);
        if (fabs(m.correction / factors[i] - 1) > 0.01) fail_msg("%g became %g", factors[i], m.correction);
    }
}

static void test_observe_outliers(void **state)
{
    (void)state;
    cost_model m = {.correction = 1};
    cost_observe(&m, 1e6, 1e12);
    assert_true(m.correction > 1 && m.correction < 1.0101);
    m.correction = 1;
    cost_observe(&m, 1e6, 1);
    assert_true(m.correction < 1 && m.correction > 0.9899);
    m.correction = 1;
    cost_observe(&m, 0, 1e6);
    cost_observe(&m, 1e6, 0);
    cost_observe(&m, NAN, 1e6);
    assert_near(m.correction, 1);
    for (int step = 0; step < 10000; step++) cost_observe(&m, 1, 1e9);
    assert_true(m.correction <= 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),          cmocka_unit_test(test_features_of_runs),
        cmocka_unit_test(test_touched_bounds),    cmocka_unit_test(test_predict),
        cmocka_unit_test(test_observe_converges), cmocka_unit_test(test_observe_outliers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
