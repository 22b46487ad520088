/* compose.h: which tokens the next step holds, the same for every policy. */
#ifndef SCHED_COMPOSE_H
#define SCHED_COMPOSE_H

#include "sched/policy.h"

/* Fills `step` from the running requests at points[n_running] (POLICY_SITS_OUT: not in this step). */
void compose_step(const policy_view *v, const uint32_t *points, policy_step *step);

#endif
