/* compose.c: decodes first, then prompts in chunks.
 *
 * Whoever has begun to answer gets its next token in every step; what a step may hold beyond that goes to prompts in
 * their turn, so one prompt is done before the next one begins and the first token of each comes as early as it can.
 *
 * A chunk makes the step longer, and everybody who decodes waits for it. Where those have targets, the chunk is the
 * longest that lets every one of them keep its target in the mean: time that a stream gained earlier, or will gain as
 * it goes on, may be spent on somebody's prompt now (policy_spare_ns). Two bounds keep that from starving a prompt: a
 * target that the decodes alone cannot hold is out of reach and does not count, and a prompt that has held its slot for
 * longer than its patience runs unhindered. A shorter chunk is not always cheaper by much (it reads most of the
 * experts' weights all the same), so nothing shorter than CHUNK_MIN runs unless the prompt ends there. */
#include "sched/compose.h"

#include <math.h>

#define CHUNK_MIN 16

static void put(const policy_view *v, policy_step *step, task *t, cost_item cost, uint32_t point)
{
    bool prompt = task_in_prompt(t), samples = !prompt || t->done + cost.n_tokens == t->request.prompt_tokens;
    cost.share = v->config->points[point].share;
    cost.logits = prompt && t->request.scored ? cost.n_tokens : samples;
    step->tasks[step->n] = t;
    step->costs[step->n] = cost;
    step->items[step->n++] = (sched_item){.id = t->request.id,
                                          .slot = t->slot,
                                          .n_tokens = cost.n_tokens,
                                          .point = point,
                                          .prompt = prompt,
                                          .samples = samples,
                                          .starts = !t->ran};
}

/* When the step must be over for those who decode in it; INFINITY: whenever. */
static double time_left_ns(const policy_view *v, const policy_step *decodes, double decodes_ns)
{
    double left = INFINITY;
    for (size_t i = 0; i < decodes->n; i++) {
        const task *t = decodes->tasks[i];
        bool reachable = t->request.tpot_ns && decodes_ns <= (double)t->request.tpot_ns;
        if (reachable) left = fmin(left, decodes_ns + policy_spare_ns(v, t, decodes_ns));
    }
    return left;
}

static bool is_patient(const policy_view *v, const task *t)
{
    uint64_t patience = v->config->max_wait_ns;
    if (t->request.ttft_ns && t->request.ttft_ns / 2 < patience) patience = t->request.ttft_ns / 2;
    return v->now_ns - t->started_ns < patience;
}

static double with_chunk_ns(const policy_view *v, const double features[COST_FEATURES], cost_item chunk)
{
    double all[COST_FEATURES];
    for (size_t f = 0; f < COST_FEATURES; f++) all[f] = features[f];
    cost_add(&v->cost->shape, &chunk, all);
    return cost_predict_ns(v->cost, all);
}

/* The longest chunk of at most `most` tokens that keeps the step within `left_ns`, 0 where none does. */
static uint32_t chunk_within(const policy_view *v, const double features[COST_FEATURES], cost_item chunk, uint32_t most,
                             double left_ns)
{
    uint32_t fits = 0, over = most + 1;
    while (over - fits > 1) {
        chunk.n_tokens = over == most + 1 ? most : fits + (over - fits) / 2;
        if (with_chunk_ns(v, features, chunk) <= left_ns)
            fits = chunk.n_tokens;
        else
            over = chunk.n_tokens;
    }
    return fits == most || fits >= CHUNK_MIN ? fits : 0;
}

void compose_step(const policy_view *v, const uint32_t *points, policy_step *step)
{
    double features[COST_FEATURES];
    uint32_t room = v->config->step_tokens, scored = v->config->step_scored;
    step->n = 0;
    for (size_t i = 0; i < v->n_running; i++) {
        task *t = v->running[i];
        if (points[i] == POLICY_SITS_OUT || task_in_prompt(t) || task_is_over(t)) continue;
        put(v, step, t, task_decode_cost(t, v->config->points, points[i]), points[i]);
        room--;
    }
    cost_features(&v->cost->shape, step->costs, step->n, features);
    double left_ns = time_left_ns(v, step, cost_predict_ns(v->cost, features));
    for (size_t i = 0; i < v->n_running && room > 0; i++) {
        task *t = v->running[i];
        if (points[i] == POLICY_SITS_OUT || !task_in_prompt(t)) continue;
        uint32_t rest = t->request.prompt_tokens - t->done, most = rest < room ? rest : room;
        if (t->request.scored && most > scored) most = scored;
        if (most == 0) break;
        cost_item chunk = {.context = t->done, .share = v->config->points[points[i]].share};
        chunk.n_tokens = most;
        if (left_ns < INFINITY && is_patient(v, t)) chunk.n_tokens = chunk_within(v, features, chunk, most, left_ns);
        if (chunk.n_tokens == 0) break;
        put(v, step, t, chunk, points[i]);
        cost_add(&v->cost->shape, &chunk, features);
        room -= chunk.n_tokens;
        if (t->request.scored) scored -= chunk.n_tokens;
    }
}
