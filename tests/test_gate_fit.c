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
#include "refactor/gate_fit.h"

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

static void fill_normal(rng *r, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) v[i] = rng_normal(r);
}

/* a [n, n] x = b [n, m] in place of b, by elimination with pivots. */
static void naive_solve(double *a, double *b, size_t n, size_t m)
{
    for (size_t k = 0; k < n; k++) {
        size_t pivot = k;
        for (size_t i = k; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
        for (size_t j = 0; j < n; j++) {
            double t = a[k * n + j];
            a[k * n + j] = a[pivot * n + j];
            a[pivot * n + j] = t;
        }
        for (size_t j = 0; j < m; j++) {
            double t = b[k * m + j];
            b[k * m + j] = b[pivot * m + j];
            b[pivot * m + j] = t;
        }
        for (size_t i = 0; i < n; i++) {
            if (i == k) continue;
            double factor = a[i * n + k] / a[k * n + k];
            for (size_t j = 0; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
            for (size_t j = 0; j < m; j++) b[i * m + j] -= factor * b[k * m + j];
        }
    }
    for (size_t k = 0; k < n; k++)
        for (size_t j = 0; j < m; j++) b[k * m + j] /= a[k * n + k];
}

/* ---- probe ---- */

typedef struct sample {
    probe_data data;
    float *x, *g, *target;
    float *rows, *bias;           /* fitted */
    float *true_rows, *true_bias; /* planted */
} sample;

/* Targets are planted rows . x + bias + noise; inputs have unequal scales and a mean. */
static sample sample_new(size_t n_tokens, size_t n_fit, uint32_t d, uint32_t n_parts, float noise, uint64_t seed)
{
    rng r;
    rng_init(&r, seed);
    sample s = {.x = zeroed(n_tokens * d, sizeof(float)),
                .g = zeroed(n_tokens, sizeof(float)),
                .target = zeroed(n_tokens * n_parts, sizeof(float)),
                .rows = zeroed((size_t)n_parts * d, sizeof(float)),
                .bias = zeroed(n_parts, sizeof(float)),
                .true_rows = zeroed((size_t)n_parts * d, sizeof(float)),
                .true_bias = zeroed(n_parts, sizeof(float))};
    fill_normal(&r, s.true_rows, (size_t)n_parts * d);
    fill_normal(&r, s.true_bias, n_parts);
    for (size_t b = 0; b < n_tokens; b++) {
        s.g[b] = 0.1f + (float)rng_uniform(&r);
        for (size_t i = 0; i < d; i++)
            s.x[b * d + i] = rng_normal(&r) * (0.5f + (float)(i % 3)) + 0.3f * (float)(i % 5);
        for (size_t n = 0; n < n_parts; n++) {
            double t = (double)s.true_bias[n] + (double)noise * (double)rng_normal(&r);
            for (size_t i = 0; i < d; i++) t += (double)s.true_rows[n * d + i] * (double)s.x[b * d + i];
            s.target[b * n_parts + n] = (float)t;
        }
    }
    s.data = (probe_data){s.x, s.g, s.target, n_tokens, n_fit, d, n_parts};
    return s;
}

static void sample_free(sample *s)
{
    free(s->x);
    free(s->g);
    free(s->target);
    free(s->rows);
    free(s->bias);
    free(s->true_rows);
    free(s->true_bias);
}

static probe_fit sample_fit(sample *s, const double *lambdas, size_t n)
{
    probe_fit fit;
    mp_error err = {0};
    if (probe_fit_expert(&s->data, lambdas, n, s->rows, s->bias, &fit, &err) != MP_OK) fail_msg("%s", err.message);
    return fit;
}

/* The definition in F64: centre by weighted means over the first n tokens, normal equations, elimination.
 * rows [d, N] (transposed), bias [N]. */
static void naive_ridge(const probe_data *p, size_t n, double lambda, double *rows, double *bias)
{
    size_t d = p->d, parts = p->n_parts;
    double *gram = zeroed(d * d, sizeof *gram), *mx = zeroed(d, sizeof *mx), *mt = zeroed(parts, sizeof *mt);
    double weight = 0, trace = 0;
    for (size_t b = 0; b < n; b++) {
        double w = (double)p->g[b] * (double)p->g[b];
        weight += w;
        for (size_t i = 0; i < d; i++) mx[i] += w * (double)p->x[b * d + i];
        for (size_t i = 0; i < parts; i++) mt[i] += w * (double)p->target[b * parts + i];
    }
    for (size_t i = 0; i < d; i++) mx[i] /= weight;
    for (size_t i = 0; i < parts; i++) mt[i] /= weight;
    memset(rows, 0, d * parts * sizeof *rows);
    for (size_t b = 0; b < n; b++) {
        double w = (double)p->g[b] * (double)p->g[b];
        for (size_t i = 0; i < d; i++) {
            double xi = w * ((double)p->x[b * d + i] - mx[i]);
            for (size_t j = 0; j < d; j++) gram[i * d + j] += xi * ((double)p->x[b * d + j] - mx[j]);
            for (size_t j = 0; j < parts; j++) rows[i * parts + j] += xi * ((double)p->target[b * parts + j] - mt[j]);
        }
    }
    for (size_t i = 0; i < d; i++) trace += gram[i * d + i];
    for (size_t i = 0; i < d; i++) gram[i * d + i] += lambda * trace / (double)d;
    naive_solve(gram, rows, d, parts);
    for (size_t n_part = 0; n_part < parts; n_part++) {
        bias[n_part] = mt[n_part];
        for (size_t i = 0; i < d; i++) bias[n_part] -= rows[i * parts + n_part] * mx[i];
    }
    free(gram);
    free(mx);
    free(mt);
}

static double naive_error(const probe_data *p, size_t begin, size_t end, const double *rows, const double *bias)
{
    double error = 0;
    for (size_t b = begin; b < end; b++)
        for (size_t n = 0; n < p->n_parts; n++) {
            double miss = (double)p->target[b * p->n_parts + n] - bias[n];
            for (size_t i = 0; i < p->d; i++) miss -= rows[i * p->n_parts + n] * (double)p->x[b * p->d + i];
            error += (double)p->g[b] * (double)p->g[b] * miss * miss;
        }
    return error;
}

static double naive_r2(const probe_data *p, size_t begin, size_t end, const double *rows, const double *bias)
{
    double *none = zeroed((size_t)p->d * p->n_parts, sizeof *none), *mean = zeroed(p->n_parts, sizeof *mean);
    double weight = 0;
    for (size_t b = begin; b < end; b++) {
        double w = (double)p->g[b] * (double)p->g[b];
        weight += w;
        for (size_t n = 0; n < p->n_parts; n++) mean[n] += w * (double)p->target[b * p->n_parts + n];
    }
    for (size_t n = 0; n < p->n_parts; n++) mean[n] /= weight;
    double r2 = 1 - naive_error(p, begin, end, rows, bias) / naive_error(p, begin, end, none, mean);
    free(none);
    free(mean);
    return r2;
}

static void assert_same_solution(const sample *s, const double *rows, const double *bias, double tolerance)
{
    for (size_t n = 0; n < s->data.n_parts; n++) {
        assert_near((double)s->bias[n], bias[n], tolerance);
        for (size_t i = 0; i < s->data.d; i++)
            assert_near((double)s->rows[n * s->data.d + i], rows[i * s->data.n_parts + n], tolerance);
    }
}

static void ridge_is_the_normal_equations(void **state)
{
    (void)state;
    static const struct {
        size_t tokens, fit;
        uint32_t d, parts;
        double lambda;
    } cases[] = {
        {50, 50, 1, 1, 0.1}, {50, 40, 7, 3, 0.03}, {1300, 1100, 9, 4, 0.3}, {6, 4, 12, 2, 0.3}, {60, 1, 6, 9, 1}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        sample s = sample_new(cases[c].tokens, cases[c].fit, cases[c].d, cases[c].parts, 0.5f, c + 1);
        size_t cells = (size_t)s.data.d * s.data.n_parts, known = s.data.n_fit > 1 ? s.data.n_fit : s.data.n_tokens;
        double *rows = zeroed(cells, sizeof *rows), *bias = zeroed(s.data.n_parts, sizeof *bias);
        probe_fit fit = sample_fit(&s, &cases[c].lambda, 1);
        assert_true(fit.lambda == cases[c].lambda);

        naive_ridge(&s.data, known, cases[c].lambda, rows, bias); /* r2: before the last tokens are seen */
        size_t begin = known < s.data.n_tokens ? known : 0;
        assert_near(fit.r2, naive_r2(&s.data, begin, s.data.n_tokens, rows, bias), 1e-4);
        naive_ridge(&s.data, s.data.n_tokens, cases[c].lambda, rows, bias); /* the rows: after */
        assert_same_solution(&s, rows, bias, 2e-4);
        free(rows);
        free(bias);
        sample_free(&s);
    }
}

static void planted_rows_are_found(void **state)
{
    (void)state;
    sample s = sample_new(3000, 2500, 24, 5, 0.01f, 42);
    probe_fit fit = sample_fit(&s, (const double[]){1e-6, 0.3}, 2);
    assert_true(fit.lambda == 1e-6);
    assert_true(fit.r2 > 0.9999);
    for (size_t e = 0; e < 24 * 5; e++) assert_near((double)s.rows[e], (double)s.true_rows[e], 0.01);
    for (size_t n = 0; n < 5; n++) assert_near((double)s.bias[n], (double)s.true_bias[n], 0.02);
    sample_free(&s);
}

static void lambda_is_the_one_of_least_error(void **state)
{
    (void)state;
    static const double lambdas[] = {3, 0.001, 0.1, 0.01, 1, 0.3};
    for (uint64_t seed = 1; seed <= 4; seed++) {
        sample s = sample_new(160, 100, 30, 2, 10, seed);
        double *rows = zeroed(60, sizeof *rows), bias[2], least = INFINITY, best = 0;
        for (size_t i = 0; i < 6; i++) {
            naive_ridge(&s.data, 100, lambdas[i], rows, bias);
            double error = naive_error(&s.data, 100, 160, rows, bias);
            if (error < least) least = error, best = lambdas[i];
        }
        assert_true(sample_fit(&s, lambdas, 6).lambda == best);
        free(rows);
        sample_free(&s);
    }
}

static void few_tokens_want_a_larger_lambda(void **state)
{
    (void)state;
    static const double lambdas[] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1};
    sample few = sample_new(1060, 60, 40, 4, 8, 7), many = sample_new(9000, 8000, 40, 4, 8, 7);
    probe_fit a = sample_fit(&few, lambdas, 7), b = sample_fit(&many, lambdas, 7);
    assert_true(a.lambda > b.lambda);
    assert_true(b.r2 > a.r2);
    sample_free(&few);
    sample_free(&many);
}

static void degenerate_inputs_are_served(void **state)
{
    (void)state;
    const double zero = 0;
    sample s = sample_new(40, 30, 6, 3, 0, 3);
    for (size_t e = 0; e < 40 * 6; e++) s.x[e] = 1.1f; /* constant inputs: the bias is all there is */
    probe_fit fit = sample_fit(&s, &zero, 1);
    double mean = 0, weight = 0;
    for (size_t b = 0; b < 40; b++) {
        double w = (double)s.g[b] * (double)s.g[b];
        weight += w;
        mean += w * (double)s.target[b * 3];
    }
    assert_near((double)s.bias[0], mean / weight, 1e-5);
    for (size_t e = 0; e < 18; e++) assert_true(s.rows[e] == 0);
    assert_true(isfinite(fit.r2));

    for (size_t b = 0; b < 40; b++) /* two inputs equal, one constant; a ridge of 0 */
        for (size_t i = 0; i < 6; i++) s.x[b * 6 + i] = i == 5 ? 2 : (float)((b * (i < 2 ? 1 : i + 1)) % 17);
    fit = sample_fit(&s, &zero, 1);
    for (size_t e = 0; e < 18; e++) assert_true(isfinite(s.rows[e]) && fabsf(s.rows[e]) < 1e3f);
    assert_near((double)s.rows[0], (double)s.rows[1], 1e-2 * (1 + fabs((double)s.rows[0])));

    for (size_t b = 0; b < 40; b++) s.g[b] = 0; /* nothing weighs anything */
    fit = sample_fit(&s, &zero, 1);
    for (size_t e = 0; e < 18; e++) assert_true(s.rows[e] == 0);
    assert_true(isfinite(s.bias[0]) && isfinite(fit.r2));
    sample_free(&s);
}

static void hardly_any_tokens(void **state)
{
    (void)state;
    const double lambda = 0.3;
    sample s = sample_new(1, 1, 4, 2, 0, 5);
    probe_fit fit = sample_fit(&s, &lambda, 1);
    for (size_t e = 0; e < 8; e++) assert_true(s.rows[e] == 0);
    assert_true(s.bias[0] == s.target[0] && s.bias[1] == s.target[1]);
    s.data.n_tokens = s.data.n_fit = 0;
    s.data.x = s.data.g = s.data.target = NULL;
    fit = sample_fit(&s, &lambda, 1);
    assert_true(s.bias[0] == 0 && s.bias[1] == 0 && s.rows[0] == 0);
    assert_true(fit.lambda == 0.3);
    sample_free(&s);

    s = sample_new(20, 20, 4, 2, 0, 5); /* no tokens to choose with: the cautious end */
    fit = sample_fit(&s, (const double[]){0.1, 0.3, 0.03}, 3);
    assert_true(fit.lambda == 0.3);
    sample_free(&s);
}

static void bad_probe_data_is_refused(void **state)
{
    (void)state;
    sample s = sample_new(20, 10, 4, 2, 0, 5);
    probe_fit fit;
    mp_error err;
    const double good = 0.1, bad = -1;
    assert_int_equal(probe_fit_expert(&s.data, &bad, 1, s.rows, s.bias, &fit, &err), MP_E_INVALID);
    assert_int_equal(probe_fit_expert(&s.data, &good, 0, s.rows, s.bias, &fit, &err), MP_E_INVALID);
    s.data.n_fit = 21;
    assert_int_equal(probe_fit_expert(&s.data, &good, 1, s.rows, s.bias, &fit, &err), MP_E_INVALID);
    s.data.n_fit = 10;
    s.target[17] = -INFINITY;
    assert_int_equal(probe_fit_expert(&s.data, &good, 1, s.rows, s.bias, &fit, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "token 8"));
    sample_free(&s);
}

/* ---- factorise ---- */

/* A second moment of correlated inputs of uneven scale, or of rank d - 2. */
static double *make_cov(rng *r, size_t d, bool singular)
{
    size_t count = singular ? d - 2 : 3 * d;
    double *cov = zeroed(d * d, sizeof *cov);
    float *x = zeroed(d, sizeof *x);
    for (size_t b = 0; b < count; b++) {
        float common = rng_normal(r);
        for (size_t i = 0; i < d; i++) x[i] = (rng_normal(r) + 0.7f * common) * expf(0.3f * (float)(i % 7));
        for (size_t i = 0; i < d * d; i++) cov[i] += (double)x[i / d] * (double)x[i % d] / (double)count;
    }
    free(x);
    return cov;
}

/* sum over rows of weight * (row - stand-in) cov (row - stand-in)^T */
static double weighted_distance(const float *rows, size_t n, size_t d, const double *cov, const float *weight,
                                const float *in, const float *out, size_t rank)
{
    double sum = 0, *miss = zeroed(d, sizeof *miss);
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < d; i++) {
            miss[i] = rows ? (double)rows[r * d + i] : 0;
            for (size_t k = 0; in && k < rank; k++) miss[i] -= (double)out[r * rank + k] * (double)in[k * d + i];
        }
        for (size_t e = 0; e < d * d; e++) sum += (double)(weight ? weight[r] : 1) * miss[e / d] * cov[e] * miss[e % d];
    }
    free(miss);
    return sum;
}

/* Eigenvalues of a symmetric a [n, n], descending, by Jacobi rotations; destroys a. */
static void jacobi(double *a, size_t n, double *values)
{
    for (int sweep = 0; sweep < 60; sweep++)
        for (size_t p = 0; p < n; p++)
            for (size_t q = p + 1; q < n; q++) {
                if (fabs(a[p * n + q]) < 1e-300) continue;
                double theta = 0.5 * atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]), c = cos(theta),
                       s = sin(theta);
                for (size_t k = 0; k < n; k++) {
                    double x = a[k * n + p], y = a[k * n + q];
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for (size_t k = 0; k < n; k++) {
                    double x = a[p * n + k], y = a[q * n + k];
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                }
            }
    for (size_t i = 0; i < n; i++) values[i] = a[i * n + i];
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            if (values[j] > values[i]) {
                double t = values[i];
                values[i] = values[j];
                values[j] = t;
            }
}

/* Squared singular values of the weighted, whitened rows: those of the Gram of the rows in the norm of cov [n, n]. */
static void naive_spectrum(const float *rows, size_t n, size_t d, const double *cov, const float *weight,
                           double *values)
{
    double *a = zeroed(n * n, sizeof *a);
    for (size_t r = 0; r < n; r++)
        for (size_t q = 0; q < n; q++) {
            double scale = weight ? sqrt((double)weight[r] * (double)weight[q]) : 1;
            for (size_t e = 0; e < d * d; e++)
                a[r * n + q] += scale * (double)rows[r * d + e / d] * cov[e] * (double)rows[q * d + e % d];
        }
    jacobi(a, n, values);
    free(a);
}

static void factors_are_the_best_of_their_rank(void **state)
{
    (void)state;
    enum { D = 12, ROWS = 9 };
    for (int variant = 0; variant < 4; variant++) {
        rng r;
        rng_init(&r, 11 + (uint64_t)variant);
        float rows[ROWS * D], weight[ROWS], in[D * D], out[ROWS * D];
        double *cov = make_cov(&r, D, variant & 1), spectrum[ROWS];
        const float *w = variant & 2 ? weight : NULL;
        fill_normal(&r, rows, ROWS * D);
        for (size_t i = 0; i < ROWS; i++) weight[i] = (float)rng_uniform(&r) * 4;
        naive_spectrum(rows, ROWS, D, cov, w, spectrum);
        double total = weighted_distance(rows, ROWS, D, cov, w, NULL, NULL, 0);
        for (uint32_t rank = 1; rank <= D; rank++) {
            double best = 0;
            for (size_t i = rank; i < ROWS; i++) best += spectrum[i];
            assert_int_equal(probe_factorise(rows, ROWS, D, cov, w, rank, in, out, NULL), MP_OK);
            double got = weighted_distance(rows, ROWS, D, cov, w, in, out, rank);
            assert_true(got >= best - 1e-5 * total);
            assert_true(got <= best * 1.0001 + 2e-5 * total); /* the ridge under L costs a little */
        }
        for (size_t e = 0; e < ROWS * D; e++) { /* full rank: the rows themselves */
            double sum = 0;
            for (size_t k = 0; k < D; k++) sum += (double)out[e / D * D + k] * (double)in[k * D + e % D];
            assert_near(sum, (double)rows[e], variant & 1 ? 1e-2 : 1e-4);
        }
        free(cov);
    }
}

static void factored_coordinates_have_unit_moment(void **state)
{
    (void)state;
    enum { D = 10, ROWS = 30, RANK = 4 };
    rng r;
    rng_init(&r, 5);
    float rows[ROWS * D], in[RANK * D], out[ROWS * RANK];
    double *cov = make_cov(&r, D, false);
    fill_normal(&r, rows, ROWS * D);
    assert_int_equal(probe_factorise(rows, ROWS, D, cov, NULL, RANK, in, out, NULL), MP_OK);
    for (size_t k = 0; k < RANK; k++)
        for (size_t l = 0; l < RANK; l++) {
            double moment = 0;
            for (size_t e = 0; e < D * D; e++) moment += (double)in[k * D + e / D] * cov[e] * (double)in[l * D + e % D];
            assert_near(moment, k == l, 1e-3);
        }
    free(cov);
}

static void factorise_edges(void **state)
{
    (void)state;
    float rows[8] = {1, 2, 3, 4, 5, 6, 7, 8}, in[16], out[8];
    double cov[16] = {0};
    mp_error err;
    assert_int_equal(probe_factorise(rows, 2, 4, cov, NULL, 4, in, out, NULL), MP_OK); /* inputs never seen */
    for (size_t e = 0; e < 8; e++) {
        double sum = 0;
        for (size_t k = 0; k < 4; k++) sum += (double)out[e / 4 * 4 + k] * (double)in[k * 4 + e % 4];
        assert_near(sum, (double)rows[e], 1e-3);
    }
    assert_int_equal(probe_factorise(rows, 2, 4, cov, NULL, 0, in, out, &err), MP_E_INVALID);
    assert_int_equal(probe_factorise(rows, 2, 4, cov, NULL, 5, in, out, &err), MP_E_INVALID);
    cov[5] = NAN;
    assert_int_equal(probe_factorise(rows, 2, 4, cov, NULL, 2, in, out, &err), MP_E_INVALID);
    cov[5] = -100; /* not a second moment */
    cov[0] = 1;
    assert_int_equal(probe_factorise(rows, 2, 4, cov, NULL, 2, in, out, &err), MP_E_INVALID);
}

/* ---- proxy ---- */

static int compare_rank(const float *a, uint32_t i, uint32_t j)
{
    if (a[i] != a[j]) return a[i] > a[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* By the definition: indicator matrix, C_co = B^T B, row sums inside the set, a stable selection. */
static void naive_proxy(const float *a, size_t n_tokens, uint32_t c, uint32_t parts, uint32_t r, uint32_t k,
                        uint32_t *order)
{
    uint32_t *co = zeroed((size_t)c * c, sizeof *co), size = c / parts;
    for (size_t b = 0; b < n_tokens; b++) {
        bool *top = zeroed(c, sizeof *top);
        for (uint32_t j = 0; j < c; j++) {
            uint32_t ahead = 0;
            for (uint32_t i = 0; i < c; i++) ahead += i != j && compare_rank(a + b * c, i, j) < 0;
            top[j] = ahead < k;
        }
        for (uint32_t i = 0; i < c; i++)
            for (uint32_t j = 0; j < c; j++) co[(size_t)i * c + j] += top[i] && top[j];
        free(top);
    }
    for (uint32_t n = 0; n < parts; n++) {
        uint32_t *set = order + n * size, *sum = zeroed(size, sizeof *sum), *old = zeroed(size, sizeof *old);
        bool *used = zeroed(size, sizeof *used);
        memcpy(old, set, size * sizeof *old);
        for (uint32_t i = 0; i < size; i++)
            for (uint32_t j = 0; j < size; j++) sum[i] += co[(size_t)old[i] * c + old[j]];
        for (uint32_t at = 0; at < size; at++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t i = 0; i < size; i++)
                if (!used[i] && (best == UINT32_MAX || (at < r && sum[i] > sum[best]))) best = i;
            used[best] = true;
            set[at] = old[best];
        }
        free(sum);
        free(old);
        free(used);
    }
    free(co);
}

static void proxy_is_the_definition(void **state)
{
    (void)state;
    static const struct {
        uint32_t c, parts, r, tokens, levels;
    } cases[] = {{12, 3, 2, 40, 0}, {16, 1, 16, 9, 3}, {8, 8, 1, 10, 2}, {60, 4, 4, 100, 5}, {24, 4, 3, 0, 0}};
    rng r;
    rng_init(&r, 9);
    for (size_t t = 0; t < sizeof cases / sizeof *cases; t++) {
        uint32_t c = cases[t].c, k = (uint32_t)lround(0.75 * c);
        float *a = zeroed((size_t)cases[t].tokens * c, sizeof *a);
        uint32_t *order = zeroed(c, sizeof *order), *want = zeroed(c, sizeof *want);
        for (size_t e = 0; e < (size_t)cases[t].tokens * c; e++) /* a few levels: many ties */
            a[e] = cases[t].levels ? (float)rng_below(&r, cases[t].levels) : fabsf(rng_normal(&r));
        for (uint32_t j = 0; j < c; j++) order[j] = j;
        for (uint32_t j = c; j-- > 1;) {
            uint32_t i = (uint32_t)rng_below(&r, j + 1), other = order[j];
            order[j] = order[i];
            order[i] = other;
        }
        memcpy(want, order, c * sizeof *want);
        naive_proxy(a, cases[t].tokens, c, cases[t].parts, cases[t].r, k, want);
        assert_int_equal(proxy_order(a, cases[t].tokens, c, cases[t].parts, cases[t].r, 0.75, order, NULL), MP_OK);
        assert_memory_equal(order, want, c * sizeof *want);
        free(a);
        free(order);
        free(want);
    }
}

static void bad_proxy_data_is_refused(void **state)
{
    (void)state;
    float a[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t order[4] = {0, 1, 2, 3}, twice[4] = {0, 1, 1, 3}, past[4] = {0, 1, 2, 4};
    mp_error err;
    assert_int_equal(proxy_order(a, 2, 4, 3, 1, 0.75, order, &err), MP_E_INVALID);
    assert_int_equal(proxy_order(a, 2, 4, 2, 3, 0.75, order, &err), MP_E_INVALID);
    assert_int_equal(proxy_order(a, 2, 4, 2, 0, 0.75, order, &err), MP_E_INVALID);
    assert_int_equal(proxy_order(a, 2, 4, 2, 1, 0, order, &err), MP_E_INVALID);
    assert_int_equal(proxy_order(a, 2, 4, 2, 1, 0.75, twice, &err), MP_E_INVALID);
    assert_int_equal(proxy_order(a, 2, 4, 2, 1, 0.75, past, &err), MP_E_INVALID);
    a[6] = NAN;
    assert_int_equal(proxy_order(a, 2, 4, 2, 1, 0.75, order, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "token 1, neuron 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ridge_is_the_normal_equations),
        cmocka_unit_test(planted_rows_are_found),
        cmocka_unit_test(lambda_is_the_one_of_least_error),
        cmocka_unit_test(few_tokens_want_a_larger_lambda),
        cmocka_unit_test(degenerate_inputs_are_served),
        cmocka_unit_test(hardly_any_tokens),
        cmocka_unit_test(bad_probe_data_is_refused),
        cmocka_unit_test(factors_are_the_best_of_their_rank),
        cmocka_unit_test(factored_coordinates_have_unit_moment),
        cmocka_unit_test(factorise_edges),
        cmocka_unit_test(proxy_is_the_definition),
        cmocka_unit_test(bad_proxy_data_is_refused),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
