#include "sched/policy.h"

double policy_reply_tokens(const policy_view *v, const task *t)
{
    const double most = t->request.max_tokens;
    if (!t->request.open_ended) return v->reply_share * most;
    return v->open_reply_tokens < most ? v->open_reply_tokens : most;
}

cost_item task_decode_cost(const task *t, const sched_point *points, uint32_t point)
{
    uint32_t drawn = t->replied ? t->replied : 1;
    return (cost_item){
        .n_tokens = 1, .context = t->request.prompt_tokens + drawn - 1, .logits = 1, .share = points[point].share};
}

double policy_tokens_left(const policy_view *v, const task *t)
{
    double expected = policy_reply_tokens(v, t) - t->replied;
    return expected > 2 ? expected / 2 : 1;
}

double policy_spare_ns(const policy_view *v, const task *t, double decode_ns)
{
    double left = policy_tokens_left(v, t), target = (double)t->request.tpot_ns;
    double due = (double)t->first_ns + target * (t->replied - 1 + left);
    return due - (double)v->now_ns - decode_ns * left;
}

void policy_set_point(const policy_view *v, policy_step *step, size_t item, uint32_t point)
{
    step->items[item].point = point;
    step->costs[item].share = v->config->points[point].share;
}

size_t policy_take_in_order(const policy_view *v, policy_pick *picks)
{
    uint32_t pages = v->free_pages;
    size_t n = 0;
    while (n < v->free_slots && n < v->n_waiting && v->waiting[n]->pages <= pages) {
        pages -= v->waiting[n]->pages;
        picks[n] = (policy_pick){.waiting = n, .point = v->waiting[n]->request.floor};
        n++;
    }
    return n;
}

void policy_run_at_dearest_floor(const policy_view *v, uint32_t *points)
{
    uint32_t dearest = UINT32_MAX;
    for (size_t i = 0; i < v->n_running; i++) {
        uint32_t floor = v->running[i]->request.floor;
        if (points[i] != POLICY_SITS_OUT && floor < dearest) dearest = floor;
    }
    for (size_t i = 0; i < v->n_running; i++) {
        uint32_t best = v->running[i]->request.best;
        if (points[i] != POLICY_SITS_OUT) points[i] = best > dearest ? best : dearest;
    }
}

void policy_dearest_floor(const policy_view *v, uint32_t *points, policy_memory *after)
{
    (void)after;
    for (size_t i = 0; i < v->n_running; i++) points[i] = 0;
    policy_run_at_dearest_floor(v, points);
}

double policy_step_ns(const policy_view *v, const policy_step *step)
{
    double features[COST_FEATURES];
    cost_features(&v->cost->shape, step->costs, step->n, features);
    return cost_predict_ns(v->cost, features);
}
