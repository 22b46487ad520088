/* The directions in which the probes of a layer look at its input.
 *
 * The error of a rank-r stand-in for the rows R is what it does to predictions: sum over rows of E[((R - R') x)^2] =
 * ||(R - R') L||_F^2 with L the Cholesky factor of the inputs' second moment. By Eckart and Young the best R' L is R L
 * projected on its first right singular vectors V; they are the eigenvectors of L^T R^T R L, d x d however many rows
 * there are. Back: R' = (R L V) (V^T L^-1), and the coordinates V^T L^-1 x have unit second moment, which suits
 * quantization. All matrices of this file are column-major. */
#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refactor/gate_fit.h"

enum { CHUNK = 256 }; /* rows multiplied at a time */

typedef struct factors {
    double *root;        /* [d, d] lower: L */
    double *gram;        /* [d, d] L^T R^T R L */
    double *chunk;       /* [d, CHUNK] */
    double *vectors;     /* [d, rank] V, heaviest first */
    double *values;      /* [d] */
    double *mapped;      /* [d, rank] L V or L^-T V */
    float *mapped32;     /* [d, rank] */
    lapack_int *support; /* [2 rank], LAPACK's */
} factors;

static void *array(size_t n, size_t m, size_t size, bool *ok)
{
    size_t count, bytes;
    void *p = NULL;
    if (size_mul(n, m, &count) && size_mul(count, size, &bytes)) p = calloc(1, bytes ? bytes : 1);
    *ok = *ok && p;
    return p;
}

static void factors_clear(factors *f)
{
    free(f->root);
    free(f->gram);
    free(f->chunk);
    free(f->vectors);
    free(f->values);
    free(f->mapped);
    free(f->mapped32);
    free(f->support);
}

static mp_status factors_init(factors *f, size_t d, size_t rank, mp_error *err)
{
    bool ok = true;
    *f = (factors){0};
    f->root = array(d, d, sizeof(double), &ok);
    f->gram = array(d, d, sizeof(double), &ok);
    f->chunk = array(d, CHUNK, sizeof(double), &ok);
    f->vectors = array(d, rank, sizeof(double), &ok);
    f->values = array(d, 1, sizeof(double), &ok);
    f->mapped = array(d, rank, sizeof(double), &ok);
    f->mapped32 = array(d, rank, sizeof(float), &ok);
    f->support = array(rank, 2, sizeof(lapack_int), &ok);
    if (ok) return MP_OK;
    factors_clear(f);
    return status_fail(err, MP_E_MEMORY, "out of memory: %zu directions of width %zu", rank, d);
}

/* Cholesky factor of cov + a ridge, as small as will do: directions the inputs never take need some length too. */
static mp_status take_root(factors *f, const double *cov, size_t d, mp_error *err)
{
    double mean = 0;
    for (size_t i = 0; i < d; i++) mean += cov[i * d + i] / (double)d;
    if (!(mean > 0)) mean = 1;
    for (double ridge = 1e-6 * mean; ridge <= 10 * mean; ridge *= 10) {
        memcpy(f->root, cov, d * d * sizeof *cov);
        for (size_t i = 0; i < d; i++) f->root[i * d + i] += ridge;
        if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', (int)d, f->root, (int)d) == 0) return MP_OK;
    }
    return status_fail(err, MP_E_INVALID, "probe: the inputs' second moment is not positive semidefinite");
}

/* gram = L^T (sum over rows of weight * row row^T) L */
static void whiten_rows(factors *f, const float *rows, size_t n_rows, size_t d, const float *row_weight)
{
    const int n = (int)d;
    for (size_t r0 = 0; r0 < n_rows; r0 += CHUNK) {
        size_t count = n_rows - r0 < CHUNK ? n_rows - r0 : CHUNK;
        for (size_t r = 0; r < count; r++) {
            double scale = row_weight ? sqrt((double)row_weight[r0 + r]) : 1;
            for (size_t i = 0; i < d; i++) f->chunk[r * d + i] = scale * (double)rows[(r0 + r) * d + i];
        }
        cblas_dsyrk(CblasColMajor, CblasLower, CblasNoTrans, n, (int)count, 1, f->chunk, n, 1, f->gram, n);
    }
    for (size_t j = 0; j < d; j++)
        for (size_t i = j + 1; i < d; i++) f->gram[i * d + j] = f->gram[j * d + i];
    cblas_dtrmm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, n, n, 1, f->root, n, f->gram, n);
    cblas_dtrmm(CblasColMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, n, n, 1, f->root, n, f->gram, n);
}

/* vectors [d, rank]: eigenvectors of the largest eigenvalues of gram, heaviest first. */
static mp_status take_vectors(factors *f, size_t d, size_t rank, mp_error *err)
{
    lapack_int found = 0, n = (lapack_int)d, first = (lapack_int)(d - rank + 1);
    lapack_int info = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'L', n, f->gram, n, 0, 0, first, n, 0, &found,
                                     f->values, f->mapped, n, f->support);
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR)
        return status_fail(err, MP_E_MEMORY, "out of memory: eigenvectors of width %zu", d);
    if (info != 0 || (size_t)found != rank)
        return status_fail(err, MP_E_INVALID, "probe: eigenvectors of width %zu not found (LAPACK says %d)", d,
                           (int)info);
    for (size_t r = 0; r < rank; r++)
        memcpy(f->vectors + r * d, f->mapped + (rank - 1 - r) * d, d * sizeof *f->vectors);
    return MP_OK;
}

static mp_status check(const float *rows, size_t n_rows, uint32_t d, const double *cov, const float *row_weight,
                       uint32_t rank, mp_error *err)
{
    size_t count;
    if (d == 0 || d > INT32_MAX || n_rows > INT32_MAX || !size_mul(n_rows, d, &count))
        return status_fail(err, MP_E_INVALID, "probe: %zu rows of width %u", n_rows, d);
    if (rank < 1 || rank > d) return status_fail(err, MP_E_INVALID, "probe: rank %u; must be 1 to %u", rank, d);
    for (size_t e = 0; e < count; e++)
        if (!isfinite(rows[e])) return status_fail(err, MP_E_INVALID, "probe: row %zu is not finite", e / d);
    for (size_t e = 0; e < (size_t)d * d; e++)
        if (!isfinite(cov[e])) return status_fail(err, MP_E_INVALID, "probe: the second moment is not finite");
    for (size_t r = 0; row_weight && r < n_rows; r++)
        if (!(row_weight[r] >= 0) || !isfinite(row_weight[r]))
            return status_fail(err, MP_E_INVALID, "probe: the weight of row %zu is %g; must be >= 0", r,
                               (double)row_weight[r]);
    return MP_OK;
}

mp_status probe_factorise(const float *rows, size_t n_rows, uint32_t d, const double *cov, const float *row_weight,
                          uint32_t rank, float *in, float *out, mp_error *err)
{
    const int n = (int)d, k = (int)rank;
    const size_t cells = (size_t)d * rank;
    factors f;
    MP_TRY(check(rows, n_rows, d, cov, row_weight, rank, err));
    MP_TRY(factors_init(&f, d, rank, err));
    mp_status status = take_root(&f, cov, d, err);
    if (status != MP_OK) goto out;
    whiten_rows(&f, rows, n_rows, d, row_weight);
    if ((status = take_vectors(&f, d, rank, err)) != MP_OK) goto out;

    memcpy(f.mapped, f.vectors, cells * sizeof *f.mapped);
    cblas_dtrmm(CblasColMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, n, k, 1, f.root, n, f.mapped, n);
    for (size_t e = 0; e < cells; e++) f.mapped32[e] = (float)f.mapped[e];
    /* out^T [rank, n_rows] = (L V)^T R^T; rows [n_rows, d] row-major is R^T here */
    cblas_sgemm(CblasColMajor, CblasTrans, CblasNoTrans, k, (int)n_rows, n, 1, f.mapped32, n, rows, n, 0, out, k);

    cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, n, k, 1, f.root, n, f.vectors, n);
    for (size_t e = 0; e < cells; e++) in[e] = (float)f.vectors[e];
out:
    factors_clear(&f);
    return status;
}
