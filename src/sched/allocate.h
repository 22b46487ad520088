/* allocate.h: time is given where it buys most quality. */
#ifndef SCHED_ALLOCATE_H
#define SCHED_ALLOCATE_H

#include "sched/policy.h"

/* Chooses a point for each item, between its request's best and floor, so that the step is predicted to take at most
 * `limit_ns` and the sum over tokens of the points' losses is as small as that allows. All at their floors must fit.
 * Uses v->scratch. */
void allocate_points(const policy_view *v, policy_step *step, double limit_ns);

#endif
