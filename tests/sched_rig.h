/* sched_rig.h: a scheduler under a fake clock, with a plant that takes exactly as long as the cost model predicts. The
 * rig plays the server: it submits, runs plans, finishes what is done, and checks in every step what every policy
 * promises. */
#ifndef SCHED_RIG_H
#define SCHED_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sched/sched.h"

#define RIG_MAX 4096
#define MS      1000000ull
#define SECOND  (1000 * MS)

static const sched_point rig_points[] = {{1, 0}, {0.75, 0.01}, {0.5, 0.03}, {0.25, 0.08}, {0.125, 0.2}};
enum { RIG_POINTS = sizeof rig_points / sizeof *rig_points };

typedef struct rig_request {
    sched_request request;
    uint32_t reply; /* tokens it will really want */
    uint32_t done, replied;
    uint64_t started_ns, first_ns, finished_ns;
    uint32_t point; /* of the last step */
    bool accepted, running, finished;
} rig_request;

typedef struct rig {
    sched_config config;
    sched *s;
    uint64_t now_ns;
    sched_plan plan;
    rig_request requests[RIG_MAX]; /* by id */
    size_t n, n_finished;
    double mean_point; /* over the last step's items */
} rig;

static inline sched_config rig_config(sched_policy which)
{
    return (sched_config){.policy = which,
                          .slots = 8,
                          .queue = 64,
                          .step_tokens = 64,
                          .kv_pages = 1000,
                          .page_tokens = 16,
                          .points = rig_points,
                          .n_points = RIG_POINTS,
                          .cost = {.shape = {.used = 0.125},
                                   .ns = {[COST_STEP] = 1e6,
                                          [COST_TOKENS] = 2e5,
                                          [COST_EXPERTS] = 4e5,
                                          [COST_TOUCHED] = 2e7,
                                          [COST_CONTEXT] = 100,
                                          [COST_LOGITS] = 5e4},
                                   .correction = 1}};
}

static inline rig *rig_open(const sched_config *config)
{
    mp_error err;
    rig *r = calloc(1, sizeof *r);
    if (!r) abort();
    r->config = *config;
    if (sched_new(config, &r->s, &err) != MP_OK) fail_msg("%s", err.message);
    return r;
}

static inline void rig_close(rig *r)
{
    sched_free(r->s);
    free(r);
}

/* Its id. The reply uses all of max_tokens. */
static inline uint64_t rig_submit(rig *r, sched_request request)
{
    uint64_t retry = 0;
    assert_true(r->n < RIG_MAX);
    request.id = r->n;
    request.arrival_ns = r->now_ns;
    rig_request *q = &r->requests[r->n++];
    *q = (rig_request){.request = request, .reply = request.max_tokens};
    q->accepted = sched_submit(r->s, &request, r->now_ns, &retry) == SCHED_ACCEPTED;
    return request.id;
}

/* The same for a reply of `reply` tokens whose length nobody asked for: of `most` tokens there is room for. */
static inline uint64_t rig_open_ended(rig *r, uint32_t reply, uint32_t most, sched_request request)
{
    request.max_tokens = most;
    request.open_ended = true;
    uint64_t id = rig_submit(r, request);
    r->requests[id].reply = reply;
    return id;
}

static inline uint64_t rig_simple(rig *r, uint32_t prompt, uint32_t reply, uint32_t floor)
{
    return rig_submit(r, (sched_request){.prompt_tokens = prompt, .max_tokens = reply, .floor = floor});
}

static inline void rig_finish(rig *r, uint64_t id)
{
    rig_request *q = &r->requests[id];
    sched_finish(r->s, id, r->now_ns);
    r->n_finished += !q->finished;
    q->finished = true;
    q->running = false;
    q->finished_ns = r->now_ns;
}

/* What every policy promises of every plan. */
static inline void rig_check(rig *r)
{
    uint32_t tokens = 0, pages = 0;
    bool taken[256] = {0};
    r->mean_point = 0;
    for (size_t i = 0; i < r->plan.n; i++) {
        const sched_item *it = &r->plan.items[i];
        rig_request *q = &r->requests[it->id];
        assert_true(it->id < r->n && q->accepted && !q->finished);
        assert_true(it->slot < r->config.slots && !taken[it->slot]);
        assert_in_range(it->point, q->request.best, q->request.floor);
        assert_int_equal(it->prompt, q->done < q->request.prompt_tokens);
        assert_in_range(it->n_tokens, 1, it->prompt ? q->request.prompt_tokens - q->done : 1);
        assert_int_equal(it->samples, !it->prompt || q->done + it->n_tokens == q->request.prompt_tokens);
        assert_int_equal(it->starts, q->done + q->replied == 0);
        taken[it->slot] = true;
        tokens += it->n_tokens;
        r->mean_point += (double)it->point / (double)r->plan.n;
        q->point = it->point;
        if (it->starts) q->started_ns = r->now_ns;
        q->running = true;
    }
    for (size_t i = 0; i < r->n; i++)
        if (r->requests[i].running)
            pages += sched_pages(r->s, r->requests[i].request.prompt_tokens, r->requests[i].request.max_tokens);
    assert_true(tokens <= r->config.step_tokens);
    assert_true(pages <= sched_get_counts(r->s).pages_reserved);
    assert_true(sched_get_counts(r->s).pages_reserved <= r->config.kv_pages);
}

/* The plan that rig_plan() made takes as long as was predicted. */
static inline void rig_run(rig *r)
{
    r->now_ns += r->plan.predicted_ns;
    sched_ran(r->s, &r->plan, r->now_ns, r->plan.predicted_ns);
    for (size_t i = 0; i < r->plan.n; i++) {
        const sched_item *it = &r->plan.items[i];
        rig_request *q = &r->requests[it->id];
        if (it->prompt) q->done += it->n_tokens;
        if (!it->samples) continue;
        if (q->replied++ == 0) q->first_ns = r->now_ns;
        if (q->replied == q->reply) rig_finish(r, it->id);
    }
}

static inline size_t rig_plan(rig *r)
{
    sched_next(r->s, r->now_ns, &r->plan);
    rig_check(r);
    return r->plan.n;
}

/* One step, or on to the time at which the scheduler wants to be asked again. False: nothing to do. */
static inline bool rig_step(rig *r)
{
    if (rig_plan(r)) {
        rig_run(r);
        return true;
    }
    if (r->plan.wake_ns <= r->now_ns) return false;
    r->now_ns = r->plan.wake_ns;
    return true;
}

static inline void rig_drain(rig *r)
{
    size_t accepted = 0;
    while (rig_step(r)) {
    }
    for (size_t i = 0; i < r->n; i++) accepted += r->requests[i].accepted;
    assert_int_equal(r->n_finished, accepted);
    assert_int_equal(sched_get_counts(r->s).waiting + sched_get_counts(r->s).running, 0);
    assert_int_equal(sched_get_counts(r->s).pages_reserved, 0);
}

#endif
