/* Non-negative least squares against brute force, and cost models recovered from made-up steps. */
#include "base/rng.h"
#include "base/stats.h"
#include "sched/cost_fit.h"
#include "sched/nnls.h"
#include "testing.h"

static mp_error err;

/* ---- order statistics ---- */

static void test_quantiles(void **state)
{
    (void)state;
    double v[] = {5, 1, 4, 2, 3};
    assert_true(stats_median(v, 5) == 3);
    assert_true(stats_quantile(v, 5, 0) == 1 && stats_quantile(v, 5, 1) == 5 && stats_quantile(v, 5, 0.25) == 2);
    assert_true(stats_quantile(v, 4, 0.5) == 2.5 && stats_quantile(v, 1, 0.9) == 1);
    assert_true(isnan(stats_median(v, 0)));
    double with_nan[] = {NAN, 2, 1};
    stats_sort(with_nan, 3);
    assert_true(with_nan[0] == 1 && with_nan[1] == 2 && isnan(with_nan[2]));
}

/* ---- least squares ---- */

/* x minimising 1/2 x'Gx - r'x over the columns in `mask` alone, by elimination with pivoting; false: singular. */
static bool solve_subset(const double *gram, const double *rhs, size_t n, unsigned mask, double *x)
{
    double a[NNLS_MAX][NNLS_MAX + 1];
    size_t index[NNLS_MAX], m = 0;
    for (size_t j = 0; j < n; j++)
        if (mask >> j & 1) index[m++] = j;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < m; j++) a[i][j] = gram[index[i] * n + index[j]];
        a[i][m] = rhs[index[i]];
    }
    for (size_t c = 0; c < m; c++) {
        size_t best = c;
        for (size_t i = c + 1; i < m; i++)
            if (fabs(a[i][c]) > fabs(a[best][c])) best = i;
        if (fabs(a[best][c]) < 1e-9) return false;
        for (size_t j = 0; j <= m; j++) {
            const double kept = a[c][j];
            a[c][j] = a[best][j];
            a[best][j] = kept;
        }
        for (size_t i = 0; i < m; i++)
            for (size_t j = m + 1; i != c && j-- > c;) a[i][j] -= a[c][j] * a[i][c] / a[c][c];
    }
    for (size_t j = 0; j < n; j++) x[j] = 0;
    for (size_t i = 0; i < m; i++) x[index[i]] = a[i][m] / a[i][i];
    return true;
}

static double objective(const double *gram, const double *rhs, size_t n, const double *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) sum += 0.5 * x[i] * gram[i * n + j] * x[j];
        sum -= rhs[i] * x[i];
    }
    return sum;
}

/* The least of all non-negative solutions of subsets of the columns: one of them is the optimum. */
static double brute_force(const double *gram, const double *rhs, size_t n)
{
    double best = 0, x[NNLS_MAX];
    for (unsigned mask = 1; mask < 1u << n; mask++) {
        if (!solve_subset(gram, rhs, n, mask, x)) continue;
        bool good = true;
        for (size_t j = 0; j < n; j++) good &= x[j] >= 0;
        if (good) best = fmin(best, objective(gram, rhs, n, x));
    }
    return best;
}

static void normal_equations(const double *a, const double *b, size_t rows, size_t n, double *gram, double *rhs)
{
    for (size_t i = 0; i < n; i++) {
        rhs[i] = 0;
        for (size_t r = 0; r < rows; r++) rhs[i] += a[r * n + i] * b[r];
        for (size_t j = 0; j < n; j++) {
            gram[i * n + j] = 0;
            for (size_t r = 0; r < rows; r++) gram[i * n + j] += a[r * n + i] * a[r * n + j];
        }
    }
}

static void test_nnls(void **state)
{
    (void)state;
    enum { ROWS = 12 };
    double a[ROWS * NNLS_MAX], b[ROWS], gram[NNLS_MAX * NNLS_MAX], rhs[NNLS_MAX], x[NNLS_MAX];
    rng r;
    rng_init(&r, 1);
    for (int round = 0; round < 600; round++) {
        const size_t n = 1 + (size_t)round % 8;
        const bool alike = round % 3 == 0; /* columns that nearly agree: steep valleys */
        for (size_t i = 0; i < ROWS; i++) {
            const double common = (double)rng_normal(&r);
            for (size_t j = 0; j < n; j++)
                a[i * n + j] = alike ? common + 0.05 * (double)rng_normal(&r) : (double)rng_normal(&r);
            b[i] = (double)rng_normal(&r);
        }
        normal_equations(a, b, ROWS, n, gram, rhs);
        nnls_solve(gram, rhs, n, x);
        for (size_t j = 0; j < n; j++) assert_true(x[j] >= 0);
        const double got = objective(gram, rhs, n, x), best = brute_force(gram, rhs, n);
        if (fabs(got - best) > 1e-9 * (1 + fabs(best))) fail_msg("round %d: %.12g, best %.12g", round, got, best);
    }
}

/* Columns of zeros, columns twice, scales far apart. */
static void test_nnls_degenerate(void **state)
{
    (void)state;
    const double a[] = {1, 0, 1, 1e9, 2, 0, 2, 3e9, 3, 0, 3, 2e9}, b[] = {3, 8, 7};
    double gram[16], rhs[4], x[4];
    normal_equations(a, b, 3, 4, gram, rhs);
    nnls_solve(gram, rhs, 4, x);
    assert_true(x[1] == 0 && (x[0] == 0 || x[2] == 0));
    assert_true(fabs(x[0] + x[2] - 1) < 1e-6 && fabs(x[3] - 2e-9) < 1e-15); /* b = 1 (1, 2, 3) + 2e-9 the last column */
    const double zero[4] = {0};
    nnls_solve(zero, zero, 2, x);
    assert_true(x[0] == 0 && x[1] == 0);
}

/* ---- cost models ---- */

static const double truth[COST_FEATURES] = {3e6, 1e5, 4e5, 2e7, 50, 3e5, 2e3};

static void random_steps(cost_sample *samples, size_t n, double noise, uint64_t seed)
{
    const cost_shape shape = {.used = 0.125};
    cost_model m = {.shape = shape, .correction = 1};
    rng r;
    memcpy(m.ns, truth, sizeof truth);
    rng_init(&r, seed);
    for (size_t i = 0; i < n; i++) {
        cost_item items[8];
        const size_t k = 1 + (size_t)rng_below(&r, 8);
        for (size_t s = 0; s < k; s++)
            items[s] = (cost_item){.n_tokens = rng_below(&r, 4) ? 1 : 1 + (uint32_t)rng_below(&r, 200),
                                   .context = (uint32_t)rng_below(&r, 2000),
                                   .logits = (uint32_t)rng_below(&r, 2),
                                   .share = 0.1 + 0.9 * rng_uniform(&r)};
        cost_features(&shape, items, k, samples[i].features);
        samples[i].ns = cost_predict_ns(&m, samples[i].features) * exp(noise * (double)rng_normal(&r));
    }
}

static void test_recovers(void **state)
{
    (void)state;
    cost_sample samples[100];
    cost_model m = {.shape = {.used = 0.125}};
    double median, errors[100];
    random_steps(samples, 100, 0, 1);
    assert_ok(cost_fit(samples, 100, &m, &err), &err);
    for (size_t f = 0; f < COST_FEATURES; f++) assert_true(fabs(m.ns[f] / truth[f] - 1) < 1e-6);
    assert_true(m.correction == 1 && m.shape.used == 0.125);
    assert_ok(cost_cross_validate(samples, 100, 10, errors, &median, &err), &err);
    assert_true(median < 1e-6);
}

/* With noise the left-out error is that of the noise: the median of |exp(N(0, s)) - 1| is about 0.67 s. */
static void test_noise(void **state)
{
    (void)state;
    enum { N = 2000 };
    cost_sample *samples = calloc(N, sizeof *samples);
    double *errors = calloc(N, sizeof *errors), median;
    assert_non_null(samples);
    assert_non_null(errors);
    random_steps(samples, N, 0.1, 2);
    assert_ok(cost_cross_validate(samples, N, 10, errors, &median, &err), &err);
    if (fabs(median - 0.067) > 0.008) fail_msg("median error %g", median);
    assert_true(stats_median(errors, N) == median);
    free(samples);
    free(errors);
}

/* What steps take on average is predicted, not less: a server's hour is the sum of its steps. */
static void test_unbiased(void **state)
{
    (void)state;
    enum { N = 4000 };
    cost_sample *samples = calloc(N, sizeof *samples);
    cost_model m = {.shape = {.used = 0.125}};
    double ratios = 0;
    assert_non_null(samples);
    random_steps(samples, N, 0.2, 5);
    assert_ok(cost_fit(samples, N, &m, &err), &err);
    for (size_t i = 0; i < N; i++) ratios += samples[i].ns / cost_predict_ns(&m, samples[i].features) / N;
    if (fabs(ratios - 1) > 0.005) fail_msg("steps take %g times what is predicted", ratios);
    free(samples);
}

/* One step in a hundred that took twenty times as long moves the others' predictions by little. */
static void test_disturbed(void **state)
{
    (void)state;
    cost_sample samples[100];
    cost_model m = {.shape = {.used = 0.125}};
    random_steps(samples, 100, 0, 6);
    samples[11].ns *= 20;
    assert_ok(cost_fit(samples, 100, &m, &err), &err);
    for (size_t i = 0; i < 100; i++)
        if (i != 11 && cost_error(&m, &samples[i]) > 0.15)
            fail_msg("step %zu: off by %g", i, cost_error(&m, &samples[i]));
}

/* Left out is left out: a step that is wildly off is not helped by its own measurement. */
static void test_left_out(void **state)
{
    (void)state;
    cost_sample samples[60];
    double median, errors[60];
    random_steps(samples, 60, 0, 3);
    samples[7].ns *= 10;
    assert_ok(cost_cross_validate(samples, 60, 60, errors, &median, &err), &err);
    assert_true(fabs(errors[7] - 0.9) < 1e-6);
}

static void test_refuses(void **state)
{
    (void)state;
    cost_sample samples[20];
    cost_model m = {0};
    double median;
    random_steps(samples, 20, 0, 4);
    assert_int_equal(cost_fit(samples, COST_FEATURES - 1, &m, &err), MP_E_INVALID);
    assert_int_equal(cost_cross_validate(samples, 20, 1, NULL, &median, &err), MP_E_INVALID);
    assert_int_equal(cost_cross_validate(samples, 20, 21, NULL, &median, &err), MP_E_INVALID);
    const double bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        samples[3].ns = bad[i];
        assert_int_equal(cost_fit(samples, 20, &m, &err), MP_E_INVALID);
    }
    samples[3].ns = 1;
    samples[3].features[2] = NAN;
    assert_int_equal(cost_fit(samples, 20, &m, &err), MP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles), cmocka_unit_test(test_nnls),     cmocka_unit_test(test_nnls_degenerate),
        cmocka_unit_test(test_recovers),  cmocka_unit_test(test_noise),    cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_refuses),   cmocka_unit_test(test_unbiased), cmocka_unit_test(test_disturbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
