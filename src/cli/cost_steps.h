/* cost_steps.h: which steps to measure. */
#ifndef CLI_COST_STEPS_H
#define CLI_COST_STEPS_H

#include "base/rng.h"
#include "moeprism.h"
#include "sched/cost.h"

enum {
    COST_STEPS = 96, /* kinds of steps that are measured ... */
    COST_ROUNDS = 3, /* ... at least so many times each */
    COST_STEPS_QUICK = 32,
};

/* What one sequence does in a step. */
typedef struct cost_part {
    uint32_t n_tokens;
    uint32_t pages; /* of MP_KV_PAGE positions before them */
    uint32_t point;
    bool prompt, logits;
} cost_part;

typedef struct cost_plan {
    cost_part *parts; /* [n_seqs], sequence 0 first */
    uint32_t n_seqs;
} cost_plan;

cost_shape cost_shape_of(const mp_model *model);

/* Longest context that steps have, a multiple of MP_KV_PAGE: leaves room for a step in the engine's n_ctx. */
uint32_t cost_plan_context(const mp_engine_params *engine, bool quick);

/* n random steps that fit into the engine, corners first; the caller frees with cost_plans_free(). */
mp_status cost_plans_new(const mp_model *model, const mp_engine_params *engine, bool quick, size_t n, rng *random,
                         cost_plan **out, mp_error *err);
void cost_plans_free(cost_plan *plans, size_t n);

#endif
