/* Relative errors matter: a step of one token is judged by its own few milliseconds, not by those of a step that
 * carries a whole prompt. So rows of the system are divided by their step's time: the one that the fit before predicts.
 * By the measured one (as the first fit has to) a step that happened to be fast would weigh more than one that happened
 * to be slow, and predictions would be short of the mean, by twice the variance of the relative error. Where the two
 * are far apart the measured time bounds the predicted one, so that a single step that somebody disturbed cannot take
 * over. */
#include "sched/cost_fit.h"

#include <math.h>
#include <stdlib.h>

#include "base/stats.h"
#include "sched/nnls.h"

enum { ROUNDS = 4 }; /* of fitting: the scales hardly move any more */
#define SCALE_BOUND 2.0

typedef struct sums {
    double gram[COST_FEATURES * COST_FEATURES], rhs[COST_FEATURES];
} sums;

static void add(sums *s, const cost_sample *sample, double scale_ns)
{
    double row[COST_FEATURES];
    for (size_t i = 0; i < COST_FEATURES; i++) row[i] = sample->features[i] / scale_ns;
    for (size_t i = 0; i < COST_FEATURES; i++) {
        for (size_t j = 0; j < COST_FEATURES; j++) s->gram[i * COST_FEATURES + j] += row[i] * row[j];
        s->rhs[i] += row[i] * sample->ns / scale_ns;
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

static double scale_of(const cost_model *m, const cost_sample *sample)
{
    return fmin(fmax(cost_predict_ns(m, sample->features), sample->ns / SCALE_BOUND), sample->ns * SCALE_BOUND);
}

/* All samples but those of fold `without`; folds = 0: all. */
static void fit(const cost_sample *samples, size_t n, size_t folds, size_t without, cost_model *m)
{
    m->correction = 1;
    for (int round = 0; round < ROUNDS; round++) {
        sums s = {0};
        for (size_t i = 0; i < n; i++)
            if (folds == 0 || i % folds != without)
                add(&s, &samples[i], round == 0 ? samples[i].ns : scale_of(m, &samples[i]));
        nnls_solve(s.gram, s.rhs, COST_FEATURES, m->ns);
    }
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
