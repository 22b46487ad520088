/* Reading ahead: what the next expert layer will most likely want is read while this one computes.
 *
 * A disk has nothing to do from the moment a layer's weights are there until the next layer knows what it misses. But
 * a layer changes the residual stream little: the next layer's router and gate, applied to the stream as it is before
 * this layer's experts, choose much the same sub-experts (of OLMoE's first two experts a token 96 in 100, of its last
 * two every second). The choice is made while the disk is busy anyway, and read, best score first, once it is not; how
 * much of it the store decides. A wrong guess costs a read; what is computed does not depend on guesses. */
#include <math.h>
#include <string.h>

#include "engine/moe_exec.h"

/* Steps of more tokens want most of a layer, and keep the disk busy themselves. */
#define MOST_TOKENS 16

void moe_ahead_layout(arena *memory, moe_exec *m)
{
    const moe_shape *s = &m->shape;
    const size_t cap = MOST_TOKENS < m->cap ? MOST_TOKENS : m->cap, full = moe_full_budget(s),
                 subs = (size_t)s->n_parts * s->n_experts;
    moe_ahead *a = &m->disk.ahead;
    a->x = arena_take(memory, cap, s->d * sizeof *a->x);
    acts_layout(memory, &a->in, s->d, cap);
    a->experts = arena_take(memory, cap * s->n_used, sizeof *a->experts);
    a->mix = arena_take(memory, cap * s->n_used, sizeof *a->mix);
    a->scores = arena_take(memory, cap * full, sizeof *a->scores);
    a->n_run = arena_take(memory, cap, sizeof *a->n_run);
    a->run = arena_take(memory, cap * full, sizeof *a->run);
    a->best = arena_take(memory, subs, sizeof *a->best);
    a->keys = arena_take(memory, subs, sizeof *a->keys);
    a->units = arena_take(memory, subs, sizeof *a->units);
}

/* A proxy gate scores with neurons of the sub-experts themselves, and what it finds is used later on. Residency-aware
 * selection would depend on when a guess arrives. */
static bool can_guess(const moe_exec *m, const moe_pass *pass)
{
    const moe_ahead *a = &m->disk.ahead;
    return !a->off && a->layer && a->layer->gate != MP_GATE_PROXY && pass->tokens <= MOST_TOKENS &&
           m->disk.resident_margin == 0;
}

/* The layer that comes next as if it were at hand, with a choice of its own and everything else shared. */
static moe_exec choose(moe_exec *m, const moe_pass *pass)
{
    moe_ahead *a = &m->disk.ahead;
    const size_t d = m->shape.d;
    moe_exec next = *m;
    next.experts = a->experts;
    next.mix = a->mix;
    next.scores = a->scores;
    next.n_run = a->n_run;
    next.run = a->run;
    for (size_t t = 0; t < pass->tokens; t++) m->x->k->rms_norm(a->h + t * d, a->norm, a->eps, a->x + t * d, d);
    acts_set(m->x, &a->in, a->x, pass->tokens, moe_wants_quantized(a->layer));
    moe_exec_route(&next, a->layer, &a->in, pass->tokens);
    moe_exec_score(&next, a->layer, &a->in, pass->points, pass->tokens);
    moe_exec_select(&next, a->layer, pass->points, pass->tokens);
    return next;
}

void moe_ahead_guess(moe_exec *m, const moe_pass *pass)
{
    moe_ahead *a = &m->disk.ahead;
    const moe_shape *s = &m->shape;
    const uint32_t subs = s->n_parts * s->n_experts, full = moe_full_budget(s);
    a->n = 0;
    if (!can_guess(m, pass)) return;
    const moe_exec next = choose(m, pass);
    for (uint32_t i = 0; i < subs; i++) a->best[i] = -INFINITY;
    for (size_t t = 0; t < pass->tokens; t++)
        for (uint32_t i = 0; i < next.n_run[t]; i++) {
            const uint32_t run = next.run[t * full + i], expert = next.experts[t * s->n_used + run / s->n_parts];
            float *best = &a->best[expert * s->n_parts + run % s->n_parts];
            *best = fmaxf(*best, moe_exec_run_score(&next, pass->points, t, run));
        }
    for (uint32_t i = 0; i < subs; i++)
        if (a->best[i] > -INFINITY) a->keys[a->n++] = moe_score_key(a->best[i], i);
    moe_sort_keys(a->keys, a->n);
    for (uint32_t i = 0; i < a->n; i++) a->units[i] = a->layer->number * subs + (uint32_t)a->keys[i];
}

void moe_ahead_start(moe_exec *m)
{
    moe_ahead *a = &m->disk.ahead;
    if (a->n) store_read_ahead(m->disk.store, a->units, a->n);
    a->n = 0;
}
