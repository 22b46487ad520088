/* Ridge regression of all sub-experts of one expert at once, from moments that are summed once and solved for several
 * lambdas.
 *
 * Moments are taken about a fixed centre, the weighted mean of the fitted tokens: products of deviations can be summed
 * in F32 within a chunk (half the time of F64) and lose nothing that matters next to the ridge; chunks are summed in
 * F64. What the centre is off when the validation tokens join is subtracted exactly. The Gram keeps to the upper
 * triangle of its matrix and leaves the lower one to the Cholesky factor, so that a fit needs 12 d^2 bytes. */
#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refactor/gate_fit.h"

enum { CHUNK = 512 }; /* tokens multiplied at a time */

typedef struct moments {
    uint32_t d, n;
    double weight;             /* sum of g^2 */
    double *centre, *t_centre; /* [d], [N] */
    double *sum, *t_sum;       /* [d], [N] weighted, about the centre */
    double *gram;              /* [d, d] column-major; upper: about the centre; lower: scratch of solve() */
    double *diagonal;          /* [d] of the gram, while the factor takes its place */
    double *cross;             /* [d, N] row-major */
    double *rows;              /* [N, d]: the solution */
    double *bias;              /* [N] */
    float *x, *t;              /* [CHUNK, d], [CHUNK, N] scaled deviations; also predictions */
    float *product;            /* [d, d] of a chunk, and its [d, N] */
    float *rows32;             /* [N, d] */
} moments;

static void *array(size_t n, size_t m, size_t size, bool *ok)
{
    size_t count, bytes;
    void *p = NULL;
    if (size_mul(n, m, &count) && size_mul(count, size, &bytes)) p = calloc(1, bytes ? bytes : 1);
    *ok = *ok && p;
    return p;
}

static void moments_clear(moments *m)
{
    void *const all[] = {m->centre, m->t_centre, m->sum, m->t_sum, m->gram,    m->diagonal, m->cross,
                         m->rows,   m->bias,     m->x,   m->t,     m->product, m->rows32};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static mp_status moments_init(moments *m, const probe_data *data, mp_error *err)
{
    size_t d = data->d, n = data->n_parts, widest = d > n ? d : n;
    bool ok = true;
    *m = (moments){.d = data->d, .n = data->n_parts};
    m->centre = array(d, 1, sizeof(double), &ok);
    m->t_centre = array(n, 1, sizeof(double), &ok);
    m->sum = array(d, 1, sizeof(double), &ok);
    m->t_sum = array(n, 1, sizeof(double), &ok);
    m->gram = array(d, d, sizeof(double), &ok);
    m->diagonal = array(d, 1, sizeof(double), &ok);
    m->cross = array(d, n, sizeof(double), &ok);
    m->rows = array(n, d, sizeof(double), &ok);
    m->bias = array(n, 1, sizeof(double), &ok);
    m->x = array(CHUNK, d, sizeof(float), &ok);
    m->t = array(CHUNK, n, sizeof(float), &ok);
    m->product = array(d, widest, sizeof(float), &ok);
    m->rows32 = array(n, d, sizeof(float), &ok);
    if (ok) return MP_OK;
    moments_clear(m);
    return status_fail(err, MP_E_MEMORY, "out of memory: a probe of width %zu for %zu sub-experts", d, n);
}

static double token_weight(const probe_data *data, size_t b)
{
    return (double)data->g[b] * (double)data->g[b];
}

/* Weighted means of v [n_tokens, width] over tokens [begin, end) into mean; plain means where nothing has weight. */
static void weighted_mean(const probe_data *data, const float *v, uint32_t width, size_t begin, size_t end,
                          double *mean)
{
    double total = 0;
    for (size_t b = begin; b < end; b++) total += token_weight(data, b);
    memset(mean, 0, width * sizeof *mean);
    for (size_t b = begin; b < end; b++) {
        double weight = total > 0 ? token_weight(data, b) / total : 1.0 / (double)(end - begin);
        for (size_t i = 0; i < width; i++) mean[i] += weight * (double)v[b * width + i];
    }
}

/* out [CHUNK, width] = g (v - centre), and the g^2-weighted sum of v - centre. */
static void deviations(const probe_data *data, const float *v, uint32_t width, size_t begin, size_t end,
                       const double *centre, float *out, double *sum)
{
    for (size_t b = begin; b < end; b++) {
        double g = (double)data->g[b];
        float *row = out + (b - begin) * width;
        for (size_t i = 0; i < width; i++) {
            double x = (double)v[b * width + i] - centre[i];
            row[i] = (float)(g * x);
            sum[i] += g * g * x;
        }
    }
}

static void moments_add_chunk(moments *m, const probe_data *data, size_t begin, size_t end)
{
    const int d = (int)m->d, n = (int)m->n, count = (int)(end - begin);
    for (size_t b = begin; b < end; b++) m->weight += token_weight(data, b);
    deviations(data, data->x, m->d, begin, end, m->centre, m->x, m->sum);
    deviations(data, data->target, m->n, begin, end, m->t_centre, m->t, m->t_sum);
    cblas_ssyrk(CblasColMajor, CblasUpper, CblasNoTrans, d, count, 1, m->x, d, 0, m->product, d);
    for (size_t j = 0; j < m->d; j++)
        for (size_t i = 0; i <= j; i++) m->gram[j * m->d + i] += (double)m->product[j * m->d + i];
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, d, n, count, 1, m->x, d, m->t, n, 0, m->product, n);
    for (size_t e = 0; e < (size_t)m->d * m->n; e++) m->cross[e] += (double)m->product[e];
}

static void moments_add(moments *m, const probe_data *data, size_t begin, size_t end)
{
    for (size_t b = begin; b < end; b += CHUNK) moments_add_chunk(m, data, b, b + CHUNK < end ? b + CHUNK : end);
}

/* Lower triangle = Gram about the true mean, plus ridge on the diagonal; tiles, since one side is read across. */
static void fill_lower(moments *m, double ridge)
{
    enum { TILE = 32 };
    const size_t d = m->d;
    for (size_t j0 = 0; j0 < d; j0 += TILE)
        for (size_t i0 = j0; i0 < d; i0 += TILE)
            for (size_t j = j0; j < d && j < j0 + TILE; j++)
                for (size_t i = i0 > j ? i0 : j + 1; i < d && i < i0 + TILE; i++)
                    m->gram[j * d + i] = m->gram[i * d + j] - m->sum[i] * m->sum[j] / m->weight;
    for (size_t i = 0; i < d; i++) m->gram[i * d + i] = m->diagonal[i] - m->sum[i] * m->sum[i] / m->weight + ridge;
}

/* Cholesky factor of Gram + ridge into the lower triangle. Rounding can leave a Gram of fewer tokens than dimensions
 * slightly indefinite: the ridge then grows until it is not. */
static bool factorise(moments *m, double ridge)
{
    for (int attempt = 0; attempt < 16; attempt++, ridge *= 10) {
        fill_lower(m, ridge);
        if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', (int)m->d, m->gram, (int)m->d) == 0) return true;
    }
    return false;
}

/* Mean variance of the inputs times the weight: the unit of lambda. 0 where the inputs differ by no more than F32
 * rounding does: nothing can be learnt from that, but large rows could be. */
static double mean_diagonal(const moments *m)
{
    double mean = 0, square = 0;
    if (!(m->weight > 0)) return 0;
    for (size_t i = 0; i < m->d; i++) {
        mean += m->gram[i * m->d + i] - m->sum[i] * m->sum[i] / m->weight;
        square += m->centre[i] * m->centre[i];
    }
    return mean > 1e-12 * square * m->weight ? mean / m->d : 0;
}

/* The answer without any input: each part's mean. */
static void solve_constant(moments *m)
{
    memset(m->rows, 0, (size_t)m->n * m->d * sizeof *m->rows);
    for (size_t n = 0; n < m->n; n++) m->bias[n] = m->t_centre[n] + (m->weight > 0 ? m->t_sum[n] / m->weight : 0);
}

/* (Gram + lambda mean-diagonal I) rows^T = cross; bias = mean target - rows . mean input. */
static void solve(moments *m, double lambda)
{
    const size_t d = m->d;
    double scale = mean_diagonal(m);
    solve_constant(m);
    if (!(scale > 0)) return;
    for (size_t i = 0; i < d; i++) m->diagonal[i] = m->gram[i * d + i];
    bool ok = factorise(m, fmax(lambda, 1e-7) * scale);
    if (ok) {
        for (size_t n = 0; n < m->n; n++)
            for (size_t i = 0; i < d; i++)
                m->rows[n * d + i] = m->cross[i * m->n + n] - m->sum[i] * m->t_sum[n] / m->weight;
        LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'L', (int)d, (int)m->n, m->gram, (int)d, m->rows, (int)d);
        for (size_t n = 0; n < m->n; n++)
            for (size_t i = 0; i < d; i++) m->bias[n] -= m->rows[n * d + i] * (m->centre[i] + m->sum[i] / m->weight);
    }
    for (size_t i = 0; i < d; i++) m->gram[i * d + i] = m->diagonal[i];
}

/* Weighted squared error of the present solution on tokens [begin, end). */
static double squared_error(moments *m, const probe_data *data, size_t begin, size_t end)
{
    const int d = (int)m->d, n = (int)m->n;
    double error = 0;
    for (size_t e = 0; e < (size_t)m->n * m->d; e++) m->rows32[e] = (float)m->rows[e];
    for (size_t b0 = begin; b0 < end; b0 += CHUNK) {
        size_t count = end - b0 < CHUNK ? end - b0 : CHUNK;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)count, n, d, 1, data->x + b0 * m->d, d, m->rows32, d,
                    0, m->t, n);
        for (size_t b = 0; b < count; b++)
            for (size_t i = 0; i < m->n; i++) {
                double miss = (double)data->target[(b0 + b) * m->n + i] - m->bias[i] - (double)m->t[b * m->n + i];
                error += token_weight(data, b0 + b) * miss * miss;
            }
    }
    return error;
}

static double variance(const moments *m, const probe_data *data, size_t begin, size_t end, double *mean)
{
    double sum = 0;
    weighted_mean(data, data->target, m->n, begin, end, mean);
    for (size_t b = begin; b < end; b++)
        for (size_t i = 0; i < m->n; i++) {
            double off = (double)data->target[b * m->n + i] - mean[i];
            sum += token_weight(data, b) * off * off;
        }
    return sum;
}

/* The lambda of least error on tokens past n_fit; without such tokens the largest, which trusts the data least. */
static void choose_lambda(moments *m, const probe_data *data, const double *lambdas, size_t n_lambdas, probe_fit *fit)
{
    double least = INFINITY;
    bool blind = data->n_fit < 2 || data->n_fit == data->n_tokens;
    fit->lambda = lambdas[0];
    for (size_t i = 0; i < n_lambdas; i++) {
        double error = 0;
        if (!blind) {
            solve(m, lambdas[i]);
            error = squared_error(m, data, data->n_fit, data->n_tokens);
        }
        if (blind ? lambdas[i] > fit->lambda : error < least) fit->lambda = lambdas[i];
        if (error < least) least = error;
    }
    if (!blind) {
        double around = variance(m, data, data->n_fit, data->n_tokens, m->bias); /* solved anew below: scratch */
        fit->r2 = around > 0 ? 1 - least / around : 0;
    }
}

static mp_status check_values(const float *v, size_t n_tokens, size_t width, const char *what, mp_error *err)
{
    size_t count;
    if (!size_mul(n_tokens, width, &count) || (!v && count))
        return status_fail(err, MP_E_INVALID, "probe: %s missing or too many", what);
    for (size_t e = 0; e < count; e++)
        if (!isfinite(v[e]))
            return status_fail(err, MP_E_INVALID, "probe: token %zu of the %s is not finite at %zu", e / width, what,
                               e % width);
    return MP_OK;
}

static mp_status check_data(const probe_data *data, const double *lambdas, size_t n_lambdas, mp_error *err)
{
    if (data->d == 0 || data->n_parts == 0 || data->d > INT32_MAX || data->n_parts > INT32_MAX)
        return status_fail(err, MP_E_INVALID, "probe: %u inputs, %u sub-experts", data->d, data->n_parts);
    if (data->n_fit > data->n_tokens)
        return status_fail(err, MP_E_INVALID, "probe: %zu tokens to fit of %zu", data->n_fit, data->n_tokens);
    if (n_lambdas == 0) return status_fail(err, MP_E_INVALID, "probe: no lambda");
    for (size_t i = 0; i < n_lambdas; i++)
        if (!(lambdas[i] >= 0) || !isfinite(lambdas[i]))
            return status_fail(err, MP_E_INVALID, "probe: lambda is %g; must be >= 0", lambdas[i]);
    MP_TRY(check_values(data->x, data->n_tokens, data->d, "inputs", err));
    MP_TRY(check_values(data->g, data->n_tokens, 1, "router weights", err));
    return check_values(data->target, data->n_tokens, data->n_parts, "targets", err);
}

static void fit_all(moments *m, const probe_data *data, const double *lambdas, size_t n_lambdas, probe_fit *fit)
{
    size_t known = data->n_fit > 1 ? data->n_fit : data->n_tokens;
    weighted_mean(data, data->x, m->d, 0, known, m->centre);
    weighted_mean(data, data->target, m->n, 0, known, m->t_centre);
    moments_add(m, data, 0, known);
    choose_lambda(m, data, lambdas, n_lambdas, fit);
    moments_add(m, data, known, data->n_tokens);
    solve(m, fit->lambda);
    if (known < data->n_tokens) return;
    double error = squared_error(m, data, 0, data->n_tokens);
    double around = variance(m, data, 0, data->n_tokens, m->cross); /* no longer needed: scratch */
    fit->r2 = around > 0 ? 1 - error / around : 0;
}

mp_status probe_fit_expert(const probe_data *data, const double *lambdas, size_t n_lambdas, float *rows, float *bias,
                           probe_fit *fit, mp_error *err)
{
    moments m;
    MP_TRY(check_data(data, lambdas, n_lambdas, err));
    memset(rows, 0, (size_t)data->d * data->n_parts * sizeof *rows);
    *fit = (probe_fit){.lambda = lambdas[0]};
    for (size_t n = 0; n < data->n_parts; n++) bias[n] = data->n_tokens ? data->target[n] : 0;
    if (data->n_tokens < 2) return MP_OK;
    MP_TRY(moments_init(&m, data, err));
    fit_all(&m, data, lambdas, n_lambdas, fit);
    for (size_t e = 0; e < (size_t)m.d * m.n; e++) rows[e] = (float)m.rows[e];
    for (size_t n = 0; n < m.n; n++) bias[n] = (float)m.bias[n];
    moments_clear(&m);
    return MP_OK;
}
