/* The active set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23) on the normal
 * equations: columns enter the passive set by steepest descent, and those that would turn negative leave it again;
 * every change lowers the residual, so it ends. Columns are scaled to unit length first: features differ by many orders
 * of magnitude, and then one tolerance suits all. */
#include "sched/nnls.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* A column whose part across the others is smaller than this share of it (squared) counts as dependent on them. */
#define DEPENDENT 1e-10
/* Slopes below this share of the largest right-hand side are rounding. */
#define FLAT 1e-12

typedef struct problem {
    size_t n;
    double gram[NNLS_MAX][NNLS_MAX], rhs[NNLS_MAX]; /* of columns of unit length */
    double x[NNLS_MAX];
    bool passive[NNLS_MAX];  /* x is free here, 0 elsewhere */
    bool rejected[NNLS_MAX]; /* depends on the present passive columns */
} problem;

/* Minimiser z [n] over the passive columns, 0 elsewhere, by Cholesky; false where they depend on each other. */
static bool solve_passive(const problem *p, double *z)
{
    size_t index[NNLS_MAX], m = 0;
    double l[NNLS_MAX][NNLS_MAX], y[NNLS_MAX];
    for (size_t j = 0; j < p->n; j++)
        if (p->passive[j]) index[m++] = j;
    for (size_t i = 0; i < m; i++) {
        y[i] = p->rhs[index[i]];
        for (size_t j = 0; j <= i; j++) {
            double sum = p->gram[index[i]][index[j]];
            for (size_t k = 0; k < j; k++) sum -= l[i][k] * l[j][k];
            if (i == j && !(sum > DEPENDENT)) return false;
            l[i][j] = i == j ? sqrt(sum) : sum / l[j][j];
        }
        for (size_t k = 0; k < i; k++) y[i] -= l[i][k] * y[k];
        y[i] /= l[i][i];
    }
    memset(z, 0, p->n * sizeof *z);
    for (size_t i = m; i-- > 0;) {
        for (size_t k = i + 1; k < m; k++) y[i] -= l[k][i] * y[k];
        y[i] /= l[i][i];
        z[index[i]] = y[i];
    }
    return true;
}

/* The column outside the passive set along which the residual falls fastest; n where none does. */
static size_t steepest(const problem *p, double tolerance)
{
    size_t best = p->n;
    double most = tolerance;
    for (size_t j = 0; j < p->n; j++) {
        if (p->passive[j] || p->rejected[j] || p->gram[j][j] == 0) continue;
        double slope = p->rhs[j];
        for (size_t k = 0; k < p->n; k++) slope -= p->gram[j][k] * p->x[k];
        if (slope <= most) continue;
        most = slope;
        best = j;
    }
    return best;
}

/* From x towards z as far as nothing turns negative; what reaches 0 leaves the passive set. */
static void step_back(problem *p, const double *z)
{
    double alpha = 1;
    size_t first = p->n;
    for (size_t j = 0; j < p->n; j++) {
        if (!p->passive[j] || z[j] > 0) continue;
        const double a = p->x[j] > 0 ? p->x[j] / (p->x[j] - z[j]) : 0;
        if (first < p->n && a >= alpha) continue;
        alpha = a;
        first = j;
    }
    for (size_t j = 0; j < p->n; j++) {
        p->x[j] += alpha * (z[j] - p->x[j]);
        if (p->passive[j] && (j == first || p->x[j] <= 0)) {
            p->x[j] = 0;
            p->passive[j] = false;
        }
    }
}

static bool all_positive(const problem *p, const double *z)
{
    for (size_t j = 0; j < p->n; j++)
        if (p->passive[j] && z[j] <= 0) return false;
    return true;
}

/* Lets column j in. False, with nothing changed, where it depends on those that are. */
static bool enter(problem *p, size_t j)
{
    double z[NNLS_MAX];
    p->passive[j] = true;
    if (!solve_passive(p, z) || z[j] <= 0) {
        p->passive[j] = false;
        return false;
    }
    while (!all_positive(p, z)) {
        step_back(p, z);
        const bool solved = solve_passive(p, z); /* a part of an independent set */
        assert(solved);
        (void)solved;
    }
    memcpy(p->x, z, p->n * sizeof *z);
    return true;
}

static double scale_columns(problem *p, const double *gram, const double *rhs, double *length)
{
    double most = 0;
    const size_t n = p->n;
    for (size_t j = 0; j < n; j++) length[j] = gram[j * n + j] > 0 ? sqrt(gram[j * n + j]) : 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            p->gram[i][j] = length[i] > 0 && length[j] > 0 ? gram[i * n + j] / (length[i] * length[j]) : 0;
        p->rhs[i] = length[i] > 0 ? rhs[i] / length[i] : 0;
        most = fmax(most, fabs(p->rhs[i]));
    }
    return most;
}

void nnls_solve(const double *gram, const double *rhs, size_t n, double *x)
{
    problem p = {.n = n};
    double length[NNLS_MAX] = {0};
    assert(n <= NNLS_MAX);
    const double most = scale_columns(&p, gram, rhs, length);
    /* Exact arithmetic needs no bound: each passive set comes once at most. Rounding might let two take turns. */
    for (size_t round = 0; round < (size_t)1 << NNLS_MAX; round++) {
        const size_t j = steepest(&p, FLAT * most);
        if (j == n) break;
        if (enter(&p, j))
            memset(p.rejected, 0, sizeof p.rejected);
        else
            p.rejected[j] = true;
    }
    for (size_t j = 0; j < n; j++) x[j] = length[j] > 0 ? p.x[j] / length[j] : 0;
}
