/* point.c: from the points of a model to those that policies go by.
 *
 * A curve is measured on a text, so a cheaper rung may come out better than a dearer one by the luck of that text, even
 * better than full. Policies walk down the ladder and expect that quality only falls: such a rung counts as no better
 * than the one before it. */
#include <math.h>

#include "sched/sched.h"

/* Grows as the share falls, like the curves of split models that were measured. */
static double guess_loss(double share)
{
    return share > 0 ? 0.004 * pow(1 / share - 1, 1.3) : INFINITY;
}

double sched_loss_measured(const mp_point *full, const mp_point *p)
{
    return full->measured && p->measured ? log(p->ppl / full->ppl) : NAN;
}

sched_point sched_point_of(const mp_point *full, const mp_point *p, const sched_point *before)
{
    const double measured = sched_loss_measured(full, p);
    if (before == NULL) return (sched_point){.share = p->compute_share, .loss = 0};
    return (sched_point){.share = fmin(p->compute_share, before->share),
                         .loss = fmax(isnan(measured) ? guess_loss(p->compute_share) : measured, before->loss)};
}
