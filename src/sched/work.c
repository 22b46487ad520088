/* work.c: the work of a request, and a server that does nothing else.
 *
 * A request's work is what it adds to the time of the steps it is in, at its floor. Most of that is its own: what the
 * cost model charges by the token. The rest is shared. A step reads experts' weights once for all, and costs something
 * whatever it holds; where the slots are full, the bill is split by their number. What a step of decodes reads follows
 * from the trace's mean: with x = -ln(1 - used * share) of a token, n of them leave exp(-n * mean x) untouched. A chunk
 * of a prompt takes the place of one decode in its step and reads most of what the others left.
 *
 * Work is then poured into the server as it arrives: done at the later of arrival and the end of all work before it. At
 * low load that is the arrivals' own pace, under overload the sum of the work. Two prompts in one step, or steps of
 * equal floors, would need a little less, so it is no strict bound; what a policy loses against it is what it loses by
 * empty slots and by running dearer than asked. */
#include "sched/work.h"

#include <math.h>

typedef struct account {
    const sched_config *config;
    double together, others; /* touched by a full step of decodes; by one decode less */
} account;

static double share_at(const sched_config *c, const trace_request *r)
{
    uint32_t floor = 0;
    trace_floor_point(&r->floor, c->points, c->n_points, &floor);
    return c->points[floor].share;
}

static account open_account(const sched_config *c, const trace *t)
{
    double x = 0, tokens = 0;
    for (size_t i = 0; i < t->n; i++) {
        const double decodes = t->requests[i].output_tokens - 1.0;
        if (decodes > 0) x -= decodes * log1p(-c->cost.shape.used * share_at(c, &t->requests[i]));
        tokens += decodes;
    }
    const double mean = tokens > 0 ? x / tokens : 0, slots = c->slots;
    return (account){.config = c, .together = -expm1(-slots * mean), .others = -expm1(-(slots - 1) * mean)};
}

/* One more token or chunk in a slot: its part of the step, and all of its own. */
static void add_part(const account *a, const cost_item *item, bool prompt, double features[COST_FEATURES])
{
    const double touched = features[COST_TOUCHED];
    features[COST_TOUCHED] = 0;
    cost_add(&a->config->cost.shape, item, features);
    const double left = prompt ? a->others + (1 - a->others) * features[COST_TOUCHED] - a->together : 0;
    features[COST_TOUCHED] = touched + a->together / a->config->slots + left;
    features[COST_STEP] += 1.0 / a->config->slots;
}

static double work_ns(const account *a, const trace_request *r)
{
    const sched_config *c = a->config;
    double features[COST_FEATURES] = {0};
    cost_item item = {.share = share_at(c, r)};
    while (item.context < r->prompt_tokens) {
        const uint32_t rest = r->prompt_tokens - item.context;
        item.n_tokens = rest < c->step_tokens ? rest : c->step_tokens;
        item.logits = item.n_tokens == rest;
        add_part(a, &item, true, features);
        item.context += item.n_tokens;
    }
    item.n_tokens = item.logits = 1;
    for (uint32_t i = 1; i < r->output_tokens; i++, item.context++) add_part(a, &item, false, features);
    return cost_predict_ns(&c->cost, features);
}

double work_end_ns(const sched_config *c, const trace *t)
{
    const account a = open_account(c, t);
    double end = 0;
    for (size_t i = 0; i < t->n; i++) end = fmax(end, (double)t->requests[i].arrival_ns) + work_ns(&a, &t->requests[i]);
    return end;
}
