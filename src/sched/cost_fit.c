/* Relative errors matter: a step of one token is judged by its own few milliseconds, not by those of a step that
 * carries a whole prompt. Dividing a row of the system by its measured time does that: the target becomes 1 everywhere.
 */
#include "sched/cost_fit.h"

#include <math.h>
#include <stdlib.h>

#include "base/stats.h"
#include "sched/nnls.h"

typedef struct sums {
    double gram[COST_FEATURES * COST_FEATURES], rhs[COST_FEATURES];
} sums;

static void add(sums *s, const cost_sample *sample)
{
    double row[COST_FEATURES];
    for (size_t i = 0; i < COST_FEATURES; i++) row[i] = sample->features[i] / sample->ns;
    for (size_t i = 0; i < COST_FEATURES; i++) {
        for (size_t j = 0; j < COST_FEATURES; j++) s->gram[i * COST_FEATURES + j] += row[i] * row[j];
        s->rhs[i] += row[i];
    }
}

static mp_status check(const cost_sample *samples, size_t n, mp_error *err)
{
    if (n < COST_FEATURES)
        return status_fail(err, MP_E_INVALID, "%zu measured steps are too few to fit %d coefficients", n,
                           COST_FEATURES);
    for (size_t i = 0; i < n; i++) {
        bool good = isfinite(samples[i].ns) && samples[i].ns > 0;
        for (size_t f = 0; f < COST_FEATURES; f++) good &= isfinite(samples[i].features[f]);
        if (!good) return status_fail(err, MP_E_INVALID, "measured step %zu has no finite time or features", i);
    }
    return MP_OK;
}

/* All samples but those of fold `without`; folds = 0: all. */
static void fit(const cost_sample *samples, size_t n, size_t folds, size_t without, cost_model *m)
{
    sums s = {0};
    for (size_t i = 0; i < n; i++)
        if (folds == 0 || i % folds != without) add(&s, &samples[i]);
    nnls_solve(s.gram, s.rhs, COST_FEATURES, m->ns);
    m->correction = 1;
}

mp_status cost_fit(const cost_sample *samples, size_t n, cost_model *m, mp_error *err)
{
    MP_TRY(check(samples, n, err));
    fit(samples, n, 0, 0, m);
    return MP_OK;
}

double cost_error(const cost_model *m, const cost_sample *sample)
{
    return fabs(cost_predict_ns(m, sample->features) / sample->ns - 1);
}

mp_status cost_cross_validate(const cost_sample *samples, size_t n, size_t folds, double *errors, double *median,
                              mp_error *err)
{
    MP_TRY(check(samples, n, err));
    if (folds < 2 || folds > n) return status_fail(err, MP_E_INVALID, "%zu folds of %zu measured steps", folds, n);
    double *sorted = calloc(n, sizeof *sorted);
    if (!sorted) return status_no_memory(err, n * sizeof *sorted, "errors");
    for (size_t f = 0; f < folds; f++) {
        cost_model m = {0};
        fit(samples, n, folds, f, &m);
        for (size_t i = f; i < n; i += folds) sorted[i] = cost_error(&m, &samples[i]);
    }
    for (size_t i = 0; errors && i < n; i++) errors[i] = sorted[i];
    *median = stats_median(sorted, n);
    free(sorted);
    return MP_OK;
}
