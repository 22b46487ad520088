/* policy_lanes.c: similar budgets together, a lane for the cheap and one for the dear (the paper's second version).
 *
 * A batch that runs at its dearest floor should hold similar floors. Requests start in turn, as with fifo; whoever runs
 * belongs to the dear lane if its floor's share of the expert compute is above the middle of the ladder, else to the
 * cheap one. A step runs one lane, at the dearest floor in it. Lanes take steps in proportion to how many they hold:
 * each step every lane is credited its part of the requests, the one that is owed most runs and pays 1, so after any
 * number of steps neither is more than one step from its exact share.
 *
 * What it wins over fifo is that the cheap no longer run at the dear ones' floor. What it pays is that each request
 * gets a token only in its own lane's steps, and that a step's fixed work is shared by fewer. */
#include "sched/policy.h"

enum { DEAR, CHEAP, LANES };

static int lane_of(const policy_view *v, const task *t)
{
    const sched_point *points = v->config->points;
    double middle = (points[0].share + points[v->config->n_points - 1].share) / 2;
    return points[t->request.floor].share > middle ? DEAR : CHEAP;
}

static void lanes_points(const policy_view *v, uint32_t *points, policy_memory *after)
{
    double members[LANES] = {0};
    for (size_t i = 0; i < v->n_running; i++)
        if (!task_is_over(v->running[i])) members[lane_of(v, v->running[i])]++;
    double all = members[DEAR] + members[CHEAP];
    int runs = members[DEAR] > 0 ? DEAR : CHEAP;
    if (members[DEAR] > 0 && members[CHEAP] > 0) {
        for (int lane = 0; lane < LANES; lane++) after->credit[lane] += members[lane] / all;
        if (after->credit[CHEAP] > after->credit[DEAR]) runs = CHEAP;
        after->credit[runs] -= 1;
    } else {
        after->credit[DEAR] = after->credit[CHEAP] = 0;
    }
    for (size_t i = 0; i < v->n_running; i++) points[i] = lane_of(v, v->running[i]) == runs ? 0 : POLICY_SITS_OUT;
    policy_run_at_dearest_floor(v, points);
}

const policy policy_lanes = {
    .admit = policy_take_in_order,
    .points = lanes_points,
};
