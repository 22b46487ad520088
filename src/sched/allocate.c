/* allocate.c: the least loss within a given time, by one multiplier.
 *
 * Minimise sum_i n_i * loss(p_i) subject to time(p) <= limit. For a price `lambda` of time the items part: each takes
 * the point of least n_i * loss + lambda * time_i, from its own best (price 0) to its floor (any price). A higher price
 * never makes an item dearer, so the step's time falls with the price and the price that just fits is found by
 * bisection.
 *
 * An item's time is what it adds to the others at their floors: its multiply-adds, and those sub-experts that nobody
 * else is expected to read. Whether a choice fits is always judged by the whole model, so this only decides who gets
 * how much. Equal items change at the same price, all at once; what the bisection leaves between "all" and "none" is
 * handed out item by item at the end, in turn. */
#include "sched/allocate.h"

#include <math.h>

#define BISECTIONS  24
#define PRICE_RANGE 1e6 /* prices tried: the mean one (all loss over all time) times and over this */

typedef struct allocation {
    const policy_view *v;
    policy_step *step;
    size_t n_points;
    double fixed_ns;   /* of what no point changes */
    double *time_ns;   /* [n, n_points] what the item adds */
    double *untouched; /* [n, n_points] (1 - used * share)^tokens */
} allocation;

static double others_untouched(const allocation *a, size_t item)
{
    double product = 1;
    for (size_t i = 0; i < a->step->n; i++)
        if (i != item) product *= a->untouched[i * a->n_points + a->step->tasks[i]->request.floor];
    return product;
}

static void tabulate(allocation *a)
{
    const sched_config *config = a->v->config;
    const cost_model *m = a->v->cost;
    double features[COST_FEATURES];
    cost_features(&m->shape, a->step->costs, a->step->n, features);
    features[COST_EXPERTS] = features[COST_TOUCHED] = 0;
    a->fixed_ns = cost_predict_ns(m, features);
    for (size_t i = 0; i < a->step->n; i++)
        for (size_t p = 0; p < a->n_points; p++)
            a->untouched[i * a->n_points + p] =
                pow(1 - m->shape.used * config->points[p].share, a->step->costs[i].n_tokens);
    for (size_t i = 0; i < a->step->n; i++) {
        double others = others_untouched(a, i);
        for (size_t p = 0; p < a->n_points; p++)
            a->time_ns[i * a->n_points + p] =
                m->correction * (m->ns[COST_EXPERTS] * a->step->costs[i].n_tokens * config->points[p].share +
                                 m->ns[COST_TOUCHED] * others * (1 - a->untouched[i * a->n_points + p]));
    }
}

/* Of the step as it stands: policy_step_ns() from the tables. */
static double step_ns(const allocation *a)
{
    const cost_model *m = a->v->cost;
    double experts = 0, untouched = 1;
    for (size_t i = 0; i < a->step->n; i++) {
        experts += a->step->costs[i].n_tokens * a->step->costs[i].share;
        untouched *= a->untouched[i * a->n_points + a->step->items[i].point];
    }
    return a->fixed_ns + m->correction * (m->ns[COST_EXPERTS] * experts + m->ns[COST_TOUCHED] * (1 - untouched));
}

static uint32_t choose(const allocation *a, size_t item, double price)
{
    const sched_request *r = &a->step->tasks[item]->request;
    uint32_t at = r->best;
    double least = INFINITY;
    for (uint32_t p = r->best; p <= r->floor; p++) {
        double total =
            a->step->costs[item].n_tokens * a->v->config->points[p].loss + price * a->time_ns[item * a->n_points + p];
        if (total < least) {
            least = total;
            at = p;
        }
    }
    return at;
}

static void choose_all(allocation *a, double price)
{
    for (size_t i = 0; i < a->step->n; i++) policy_set_point(a->v, a->step, i, choose(a, i, price));
}

/* All of the loss over all of the time that points can change: what one nanosecond is worth on average. */
static double mean_price(const allocation *a)
{
    double loss = 0, time = 0;
    for (size_t i = 0; i < a->step->n; i++) {
        const sched_request *r = &a->step->tasks[i]->request;
        const sched_point *points = a->v->config->points;
        const double *t = &a->time_ns[i * a->n_points];
        loss += a->step->costs[i].n_tokens * (points[r->floor].loss - points[r->best].loss);
        time += t[r->best] - t[r->floor];
    }
    return loss > 0 && time > 0 ? loss / time : 0;
}

/* Items that would take a better point at the slightly lower price that does not fit for all. */
static void hand_out_rest(allocation *a, double price, double limit_ns)
{
    for (size_t i = 0; i < a->step->n; i++) {
        uint32_t sure = a->step->items[i].point;
        for (uint32_t p = choose(a, i, price); p < sure; p++) {
            policy_set_point(a->v, a->step, i, p);
            if (step_ns(a) <= limit_ns) break;
            policy_set_point(a->v, a->step, i, sure);
        }
    }
}

static void to_floors(allocation *a)
{
    for (size_t i = 0; i < a->step->n; i++) policy_set_point(a->v, a->step, i, a->step->tasks[i]->request.floor);
}

void allocate_points(const policy_view *v, policy_step *step, double limit_ns)
{
    size_t n_points = v->config->n_points;
    allocation a = {.v = v, .step = step, .n_points = n_points, .time_ns = v->scratch};
    a.untouched = v->scratch + step->n * n_points;
    tabulate(&a);
    choose_all(&a, 0);
    if (step_ns(&a) <= limit_ns) return;
    double mean = mean_price(&a), low = log(mean / PRICE_RANGE), high = log(mean * PRICE_RANGE);
    to_floors(&a);
    if (mean <= 0) return;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = (low + high) / 2;
        choose_all(&a, exp(middle));
        if (step_ns(&a) <= limit_ns)
            high = middle;
        else
            low = middle;
    }
    choose_all(&a, exp(high));
    if (step_ns(&a) > limit_ns) to_floors(&a);
    hand_out_rest(&a, exp(low), limit_ns);
}
