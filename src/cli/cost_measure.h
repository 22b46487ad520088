/* cost_measure.h: measures what steps cost on this machine. One thread; the model must outlive the call. */
#ifndef CLI_COST_MEASURE_H
#define CLI_COST_MEASURE_H

#include "cli/cost_file.h"
#include "sched/cost_fit.h"

typedef struct cost_measure_params {
    mp_engine_params engine; /* as it will serve: n_seqs slots, n_batch tokens a step */
    bool quick;              /* some seconds instead of minutes */
    uint64_t seed;           /* of the steps and their tokens */
    mp_progress_fn progress; /* or NULL; false stops with MP_E_INTERRUPTED */
    void *user;
} cost_measure_params;

/* A kind of step, as measured. */
typedef struct cost_step {
    uint32_t decodes;       /* sequences that decode one token each */
    uint32_t prompt_tokens; /* of one more sequence */
    double context;         /* mean positions before a sequence's tokens */
    double share;           /* mean of the expert compute really used, over tokens */
    cost_sample sample;     /* mean time */
} cost_step;

typedef struct cost_steps {
    cost_step *steps; /* [n] in random order */
    size_t n;
} cost_steps;

/* Measures into *out, which the caller clears with cost_steps_clear(). Opens an engine of its own for the time, whose
 * store tells what it was refused unless this is quick. */
mp_status cost_measure(const mp_model *model, const cost_measure_params *params, cost_steps *out, mp_error *err);
void cost_steps_clear(cost_steps *s);
/* Coefficients from all steps, error_median by cross-validation; `errors` [s->n] as there, may be NULL. */
mp_status cost_steps_fit(const cost_steps *s, cost_model *m, double *errors, mp_error *err);

/* What a server starts with: the file beside the model where it fits, else a quick measurement with a line on stderr
 * that says why, and with progress. `engine` is how it will serve. */
mp_status cost_obtain(const mp_model *model, const cli_common *common, const mp_engine_params *engine, cost_model *out,
                      mp_error *err);

#endif
