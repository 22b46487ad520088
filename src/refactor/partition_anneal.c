/* The paper's refinement (4.2): random swaps between sets, better ones always accepted, worse ones with probability
 * exp(-delta / T), T cooled at every step. Kept as the reference the default solver is measured against, so a proposal
 * is evaluated as cheaply as the default solver evaluates its own: a few minima per token and keep. */
#include "refactor/partition_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static mp_status check_params(const partition_problem *p, const partition_anneal_params *params, const uint16_t *part,
                              mp_error *err)
{
    MP_TRY(partition_check(p, err));
    if (!(params->t0 >= 0) || !(params->alpha >= 0) || params->alpha > 1 || !isfinite(params->t0))
        return status_fail(err, MP_E_INVALID, "anneal: t0 %g must be >= 0 and alpha %g in 0..1", params->t0,
                           params->alpha);
    return partition_check_balance(p, part, err);
}

static void swap(uint16_t *part, uint32_t j, uint32_t i)
{
    uint16_t n = part[j];
    part[j] = part[i];
    part[i] = n;
}

/* Returns the objective gained. */
static double anneal(partition_state *s, const partition_anneal_params *params, uint16_t *part)
{
    double temperature = params->t0 > 0 ? params->t0 : 100, alpha = params->alpha > 0 ? params->alpha : 0.995;
    uint32_t iterations = params->iterations ? params->iterations : 100000;
    rng r;
    rng_init(&r, params->seed);
    const double start = partition_state_set(s, part);
    for (uint32_t it = 0; it < iterations; it++, temperature *= alpha) {
        uint32_t j = (uint32_t)rng_below(&r, s->n_neurons), i = j;
        while (part[i] == part[j]) i = (uint32_t)rng_below(&r, s->n_neurons);
        uint32_t n = part[j], m = part[i];
        partition_pair_begin(s, n, m);
        double delta = partition_swap_delta(s, j, i) / s->scale, lot = rng_uniform(&r);
        if (delta > 0 && !(lot < exp(-delta / temperature))) continue;
        swap(part, j, i);
        partition_state_update(s, part, n, m);
    }
    return start - partition_state_objective(s);
}

mp_status partition_anneal(const partition_problem *p, const partition_anneal_params *params, uint16_t *part,
                           mp_error *err)
{
    partition_state s;
    size_t bytes = p->n_neurons * sizeof *part;
    MP_TRY(check_params(p, params, part, err));
    if (p->n_parts == 1) return MP_OK;
    uint16_t *trial = malloc(bytes);
    if (!trial) return status_no_memory(err, bytes, "a partition");
    mp_status status = partition_state_init(&s, p, err);
    if (status == MP_OK) {
        memcpy(trial, part, bytes);
        if (anneal(&s, params, trial) > 0) memcpy(part, trial, bytes); /* too hot an end can lose */
        partition_state_clear(&s);
    }
    free(trial);
    return status;
}
