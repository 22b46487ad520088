/* policy_elastic.c: every request at its own point (the default).
 *
 * The engine runs each token at its own point, and a step costs the sum of what its tokens ask for. So nothing needs
 * grouping: requests start in turn, as with fifo, and the only question is how much better than its floor each may run.
 *
 * Admission is judged at the floors. A request starts if, with everybody at the floor, the step still holds the time
 * per token that running requests and itself were promised, and whoever decodes can spare the time that its prompt
 * takes and keep its promise in the mean; else it waits until others are done, and so does everybody after it. A target
 * that the request would miss all alone binds nobody. One that lacks pages lets smaller ones pass for a while
 * (max_wait_ns), then nobody.
 *
 * A target for the first token is judged when a request comes, for once it waits nothing that the scheduler could do
 * would make it sooner: the prompts before it have to run, and if there is no free slot, replies have to end. What
 * would come too late although an idle server could have made it is refused at once, so that the client may go
 * elsewhere or come back, and the time goes to those that can still be served as promised.
 *
 * Spare time buys quality. A step may take
 *
 *     limit = min(best - pressure * (best - floor), tightest slack)
 *
 * where `best` and `floor` are its predicted times with everybody at their best and at their floors. While nobody waits
 * cheaper steps serve nobody else sooner, and what those who run were promised is kept by the slack. So pressure is 0
 * with up to a quarter of the slots in use, and an idle server answers at full. It is 1 at once while anybody waits:
 * then cheaper is faster, and faster is sooner. From there to the last slot it grows: losses curve upwards, so a little
 * quality given up early, by many, is less than all of it given up late, and it keeps a token's time within what fifo
 * takes, which runs the dearest floor in a batch. It falls slowly (a fifth a step), so that a queue that comes and goes
 * does not make points come and go. What it depends on, slots in use and requests waiting, moves by whole requests,
 * hundreds of steps each, not with the points of the last step: there is no loop to ring.
 *
 * Slack is what targets leave: the time per token of those who decode, less while they catch up after a prompt; for a
 * prompt with a target for its first token, the time left shared among the steps it needs. allocate.c makes the most of
 * the limit. */
#include <math.h>

#include "sched/allocate.h"

#define LOAD_CALM     0.15 /* slots in use beyond the first, share of all beyond the first: no pressure up to here */
#define PRESSURE_KEPT 0.8  /* a step */
#define PRESSURE_NONE 0.05 /* anything less is none */
#define TARGET_SHARE  0.95 /* of a target, may be planned with */

/* ---- admission ---- */

typedef struct promise {
    double features[COST_FEATURES]; /* one token each, at the floors */
    double tightest_ns;             /* time per token, INFINITY: none */
    double prompts_ns;              /* of what has to run before all of them decode */
} promise;

/* Of what is left of its prompt, at the floor, beside what the step costs anyway. */
static double prompt_ns(const policy_view *v, const task *t)
{
    double features[COST_FEATURES] = {0};
    const cost_item rest = {.n_tokens = t->request.prompt_tokens - t->done,
                            .context = t->done,
                            .share = v->config->points[t->request.floor].share};
    cost_add(&v->cost->shape, &rest, features);
    return cost_predict_ns(v->cost, features);
}

static promise promise_with(const policy_view *v, const promise *before, const task *t)
{
    promise all = *before, alone = {.features = {[COST_STEP] = 1}};
    cost_item cost = task_decode_cost(t, v->config->points, t->request.floor);
    double target = TARGET_SHARE * (double)t->request.tpot_ns;
    cost_add(&v->cost->shape, &cost, all.features);
    cost_add(&v->cost->shape, &cost, alone.features);
    if (target > 0 && cost_predict_ns(v->cost, alone.features) <= target)
        all.tightest_ns = fmin(all.tightest_ns, target);
    all.prompts_ns += prompt_ns(v, t);
    return all;
}

/* Everybody decodes in time, and whoever does already can spare the time that the prompts take. */
static bool holds(const policy_view *v, const promise *p)
{
    double decode_ns = cost_predict_ns(v->cost, p->features);
    if (decode_ns > p->tightest_ns) return false;
    for (size_t i = 0; i < v->n_running; i++) {
        const task *t = v->running[i];
        bool decodes = !task_in_prompt(t) && t->request.tpot_ns && decode_ns <= (double)t->request.tpot_ns;
        if (decodes && policy_spare_ns(v, t, decode_ns) < p->prompts_ns) return false;
    }
    return true;
}

static bool is_young(const policy_view *v, const task *t)
{
    return v->now_ns < t->request.arrival_ns + v->config->max_wait_ns;
}

static size_t elastic_admit(const policy_view *v, policy_pick *picks)
{
    promise kept = {.features = {[COST_STEP] = 1}, .tightest_ns = INFINITY};
    uint32_t pages = v->free_pages;
    size_t n = 0;
    for (size_t i = 0; i < v->n_running; i++) kept = promise_with(v, &kept, v->running[i]);
    for (size_t i = 0; i < v->n_waiting && n < v->free_slots; i++) {
        const task *t = v->waiting[i];
        if (t->pages > pages) {
            if (is_young(v, t)) continue;
            break;
        }
        promise next = promise_with(v, &kept, t);
        if (v->n_running + n > 0 && !holds(v, &next)) break;
        kept = next;
        pages -= t->pages;
        picks[n++] = (policy_pick){.waiting = i, .point = t->request.floor};
    }
    return n;
}

/* ---- refusal ---- */

/* Until a slot is left for somebody with `ahead` before it, all decoding at their floors. */
static double slot_ns(const policy_view *v, size_t ahead)
{
    double features[COST_FEATURES] = {[COST_STEP] = 1}, steps = 0;
    if (ahead < v->free_slots || v->n_running == 0) return 0;
    for (size_t i = 0; i < v->n_running; i++) {
        const task *r = v->running[i];
        cost_item cost = task_decode_cost(r, v->config->points, r->request.floor);
        cost_add(&v->cost->shape, &cost, features);
        steps += policy_reply_tokens(v, r) / (double)v->n_running;
    }
    double departures = (double)(ahead + 1 - v->free_slots);
    return departures * steps / (double)v->n_running * cost_predict_ns(v->cost, features);
}

static uint64_t elastic_late_ns(const policy_view *v, const task *t)
{
    double target = (double)t->request.ttft_ns, first = prompt_ns(v, t);
    size_t ahead = 0;
    if (target <= 0 || first > target) return 0;
    for (size_t i = 0; i < v->n_running; i++) first += prompt_ns(v, v->running[i]);
    for (; ahead < v->n_waiting && v->waiting[ahead]->turn <= t->turn; ahead++)
        first += prompt_ns(v, v->waiting[ahead]);
    first += (double)(v->now_ns - t->request.arrival_ns) + slot_ns(v, ahead);
    return first > target ? (uint64_t)ceil(first - target) : 0;
}

/* ---- pressure ---- */

static double pressure(const policy_view *v)
{
    double now = 0;
    if (v->n_waiting)
        now = 1;
    else if (v->n_running > 1)
        now = fmax((((double)v->n_running - 1) / (v->config->slots - 1.0) - LOAD_CALM) / (1 - LOAD_CALM), 0);
    double p = fmax(now, v->memory->pressure);
    return p < PRESSURE_NONE ? 0 : p;
}

static void elastic_points(const policy_view *v, uint32_t *points, policy_memory *after)
{
    for (size_t i = 0; i < v->n_running; i++) points[i] = v->running[i]->request.floor;
    after->pressure = PRESSURE_KEPT * pressure(v);
}

/* ---- slack ---- */

/* What a stream was promised a token, or less while it has to catch up: time that it lost to somebody's prompt. */
static double decode_slack(const policy_view *v, const policy_step *step)
{
    double slack = INFINITY;
    for (size_t i = 0; i < step->n; i++) {
        const task *t = step->tasks[i];
        if (step->items[i].prompt || t->request.tpot_ns == 0) continue;
        double catch_up = policy_spare_ns(v, t, 0) / policy_tokens_left(v, t);
        slack = fmin(slack, fmin(catch_up, TARGET_SHARE * (double)t->request.tpot_ns));
    }
    return slack;
}

/* Prompts run one after the other: the steps of one are those of all before it too. */
static double prompt_slack(const policy_view *v, const policy_step *step)
{
    double slack = INFINITY, a_step = 0, ahead = 0;
    for (size_t i = 0; i < step->n; i++)
        if (step->items[i].prompt) a_step += step->items[i].n_tokens;
    for (size_t i = 0; i < v->n_running && a_step > 0; i++) {
        const task *t = v->running[i];
        if (!task_in_prompt(t)) continue;
        ahead += t->request.prompt_tokens - t->done;
        uint64_t due = t->request.arrival_ns + t->request.ttft_ns;
        if (t->request.ttft_ns && due > v->now_ns)
            slack = fmin(slack, TARGET_SHARE * (double)(due - v->now_ns) / ceil(ahead / a_step));
    }
    return slack;
}

/* ---- quality ---- */

static double at_best_ns(const policy_view *v, policy_step *step)
{
    for (size_t i = 0; i < step->n; i++) policy_set_point(v, step, i, step->tasks[i]->request.best);
    return policy_step_ns(v, step);
}

static void elastic_improve(const policy_view *v, policy_step *step)
{
    double p = pressure(v);
    if (p >= 1) return;
    double floor_ns = policy_step_ns(v, step), best_ns = at_best_ns(v, step);
    double limit = fmin(best_ns - p * (best_ns - floor_ns), fmin(decode_slack(v, step), prompt_slack(v, step)));
    if (limit < best_ns) allocate_points(v, step, fmax(limit, floor_ns));
}

const policy policy_elastic = {
    .late_ns = elastic_late_ns,
    .admit = elastic_admit,
    .points = elastic_points,
    .improve = elastic_improve,
};
