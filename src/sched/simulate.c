/* The server's loop without a server: submit what has arrived, ask for a step, let the clock jump by what it costs,
 * hand out the tokens. What a step costs is worked out here from what its items hold, not taken from the scheduler's
 * own prediction. */
#include "sched/simulate.h"

#include <math.h>
#include <stdlib.h>

#include "sched/work.h"

typedef struct live {
    uint32_t floor;    /* point */
    uint32_t position; /* tokens that ran */
    uint32_t replied;
    double share_sum, loss_sum; /* over tokens that ran */
} live;

typedef struct replay {
    const simulate_params *params;
    const trace *trace;
    report_request *out;
    sched *scheduler;
    live *lives;      /* [trace->n] */
    cost_item *costs; /* [slots] */
    cost_model truth;
    simulate_totals *totals;
    uint64_t now;
    size_t arrived, gone; /* requests */
    mp_error *err;
} replay;

/* ids are indices of the trace plus one. */
static size_t index_of(uint64_t id)
{
    return (size_t)id - 1;
}

static mp_status submit(replay *r)
{
    const size_t i = r->arrived++;
    const trace_request *t = &r->trace->requests[i];
    const sched_config *c = &r->params->config;
    live *l = &r->lives[i];
    if (!trace_floor_point(&t->floor, c->points, c->n_points, &l->floor))
        return status_fail(r->err, MP_E_INVALID, "request %zu: there is no operating point %u; the last is %u", i + 1,
                           t->floor.point, c->n_points - 1);
    const sched_request request = {.id = i + 1,
                                   .arrival_ns = t->arrival_ns,
                                   .prompt_tokens = t->prompt_tokens,
                                   .max_tokens = t->output_tokens,
                                   .floor = l->floor,
                                   .ttft_ns = t->ttft_ns,
                                   .tpot_ns = t->tpot_ns};
    uint64_t retry;
    const sched_verdict verdict = sched_submit(r->scheduler, &request, r->now, &retry);
    r->out[i] = (report_request){.outcome = verdict == SCHED_ACCEPTED     ? REPORT_DONE
                                            : verdict == SCHED_QUEUE_FULL ? REPORT_REFUSED
                                                                          : REPORT_FAILED,
                                 .arrival_ns = t->arrival_ns,
                                 .prompt_tokens = t->prompt_tokens,
                                 .output_tokens = t->output_tokens,
                                 .ttft_target_ns = t->ttft_ns ? t->ttft_ns : c->ttft_ns,
                                 .tpot_target_ns = t->tpot_ns ? t->tpot_ns : c->tpot_ns,
                                 .floor_share = c->points[l->floor].share,
                                 .floor_loss = c->points[l->floor].loss};
    r->gone += verdict != SCHED_ACCEPTED;
    return MP_OK;
}

static uint64_t time_of(const replay *r, const sched_plan *plan)
{
    double features[COST_FEATURES];
    for (size_t i = 0; i < plan->n; i++) {
        const sched_item *item = &plan->items[i];
        r->costs[i] = (cost_item){.n_tokens = item->n_tokens,
                                  .context = r->lives[index_of(item->id)].position,
                                  .logits = item->samples,
                                  .share = r->params->config.points[item->point].share};
    }
    cost_features(&r->truth.shape, r->costs, plan->n, features);
    const double ns = cost_predict_ns(&r->truth, features);
    return ns >= 1 ? (uint64_t)ns : 1; /* time must go on */
}

static void finish(replay *r, size_t i)
{
    const live *l = &r->lives[i];
    r->out[i].end_ns = r->now;
    r->out[i].share = l->share_sum / l->position;
    r->out[i].loss = l->loss_sum / l->position;
    r->gone++;
    sched_finish(r->scheduler, i + 1, r->now);
}

static void deliver(replay *r, const sched_item *item)
{
    const size_t i = index_of(item->id);
    const sched_point *point = &r->params->config.points[item->point];
    live *l = &r->lives[i];
    l->position += item->n_tokens;
    l->share_sum += item->n_tokens * point->share;
    l->loss_sum += item->n_tokens * point->loss;
    r->totals->tokens += item->n_tokens;
    r->out[i].violated |= item->point > l->floor;
    if (!item->samples) return;
    if (l->replied++ == 0) r->out[i].first_ns = r->now;
    if (l->replied == r->trace->requests[i].output_tokens) finish(r, i);
}

static void run_step(replay *r, sched_plan *plan)
{
    const uint64_t took = time_of(r, plan);
    r->now += took;
    r->totals->steps++;
    r->totals->busy_ns += took;
    sched_ran(r->scheduler, plan, r->now, took);
    for (size_t i = 0; i < plan->n; i++) deliver(r, &plan->items[i]);
}

/* Nothing to run: on to the next arrival, or to when the scheduler wants to be asked again. */
static mp_status wait(replay *r, uint64_t wake)
{
    uint64_t next = r->arrived < r->trace->n ? r->trace->requests[r->arrived].arrival_ns : UINT64_MAX;
    if (wake > 0 && wake < next) next = wake;
    if (next == UINT64_MAX)
        return status_fail(r->err, MP_E_LIMIT, "the policy %s stopped while %zu requests wait",
                           sched_policy_names[r->params->config.policy], r->arrived - r->gone);
    r->now = next > r->now ? next : r->now + 1;
    return MP_OK;
}

static mp_status run(replay *r)
{
    while (r->gone < r->trace->n) {
        sched_plan plan;
        while (r->arrived < r->trace->n && r->trace->requests[r->arrived].arrival_ns <= r->now) MP_TRY(submit(r));
        sched_next(r->scheduler, r->now, &plan);
        if (plan.n > 0)
            run_step(r, &plan);
        else if (r->gone < r->trace->n)
            MP_TRY(wait(r, plan.wake_ns));
    }
    r->totals->end_ns = r->now;
    return MP_OK;
}

/* What steps really take. */
static cost_model truth_of(const simulate_params *p)
{
    cost_model m = p->config.cost;
    if (!(m.correction > 0)) m.correction = 1;
    if (p->slower > 0) m.correction *= p->slower;
    m.ns[COST_STEP] += (double)p->overhead_ns / m.correction;
    return m;
}

static double work_end(const replay *r)
{
    sched_config c = r->params->config;
    c.cost = r->truth;
    return work_end_ns(&c, r->trace);
}

mp_status simulate(const simulate_params *params, const trace *t, report_request *requests, simulate_totals *totals,
                   mp_error *err)
{
    replay r = {.params = params, .trace = t, .out = requests, .truth = truth_of(params), .totals = totals, .err = err};
    *totals = (simulate_totals){0};
    r.lives = calloc(t->n > 0 ? t->n : 1, sizeof *r.lives);
    r.costs = calloc(params->config.slots > 0 ? params->config.slots : 1, sizeof *r.costs);
    mp_status status = r.lives && r.costs ? MP_OK : status_no_memory(err, t->n * sizeof *r.lives, "a simulation");
    if (status == MP_OK) status = sched_new(&params->config, &r.scheduler, err);
    if (status == MP_OK) status = run(&r);
    if (status == MP_OK) totals->work_end_ns = (uint64_t)work_end(&r);
    sched_free(r.scheduler);
    free(r.lives);
    free(r.costs);
    return status;
}
