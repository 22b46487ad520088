/* cost_fit.h: a cost model from measured steps. Pure; the caller owns the samples. */
#ifndef SCHED_COST_FIT_H
#define SCHED_COST_FIT_H

#include "sched/cost.h"

/* A step: what it held and what it took. */
typedef struct cost_sample {
    double features[COST_FEATURES]; /* cost_features() */
    double ns;                      /* > 0 */
} cost_sample;

/* Coefficients that minimise the sum of squared errors relative to the prediction, so that measured times are on
 * average what is predicted; correction becomes 1, shape and error_median stay. Refused where there are fewer samples
 * than features, or a sample is not finite. */
mp_status cost_fit(const cost_sample *samples, size_t n, cost_model *m, mp_error *err);

/* |predicted / measured - 1| of a sample. */
double cost_error(const cost_model *m, const cost_sample *sample);

/* Errors [n] of every sample under a model fitted without it: sample i belongs to fold i % folds, and each fold is
 * predicted by the fit of the others. Samples should come in random order; 2 <= folds <= n. `errors` may be NULL.
 * *median is over all samples. */
mp_status cost_cross_validate(const cost_sample *samples, size_t n, size_t folds, double *errors, double *median,
                              mp_error *err);

#endif
