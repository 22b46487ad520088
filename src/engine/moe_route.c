/* The trained router: k0 experts per token and their mixing weights, as the original model computes them. */
#include <math.h>

#include "engine/moe_exec.h"

/* Least sum of chosen weights that is divided by: the smallest normal F16, as llama.cpp has it. */
#define LEAST_SUM 6.103515625e-5f
/* What is not a number scores this; two of them can be added. */
#define WORST (-1e30f)

typedef struct route_job {
    moe_exec *m;
    const moe_layer *layer;
} route_job;

/* ---- groups ---- */

/* How good a group of experts is: its best probability (DeepSeek-V2) or, where the choice is biased or gated by
 * sigmoids, the sum of its best two (DeepSeek-V3). */
static float group_score(const float *choice, uint32_t n, bool two)
{
    float first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return two && n > 1 ? first + second : first;
}

/* Experts outside the best groups cannot be chosen. scores [n_groups] is scratch. */
static void mask_groups(const moe_shape *s, bool two, float *choice, float *scores)
{
    const moe_routing *r = &s->routing;
    const uint32_t size = s->n_experts / r->n_groups;
    for (uint32_t g = 0; g < r->n_groups; g++) scores[g] = group_score(choice + g * size, size, two);
    for (uint32_t drop = r->n_groups - r->n_groups_used; drop > 0; drop--) {
        uint32_t worst = UINT32_MAX;
        for (uint32_t g = 0; g < r->n_groups; g++) /* of equal ones the last goes */
            if (!isnan(scores[g]) && (worst == UINT32_MAX || scores[g] <= scores[worst])) worst = g;
        scores[worst] = NAN; /* dropped */
        for (uint32_t e = 0; e < size; e++) choice[worst * size + e] = -INFINITY;
    }
}

/* ---- one token ---- */

static void probabilities(const moe_exec *m, float *p)
{
    const uint32_t n = m->shape.n_experts;
    if (m->shape.routing.gating == MOE_GATING_SIGMOID)
        for (uint32_t e = 0; e < n; e++) p[e] = 1 / (1 + expf(-p[e]));
    else
        m->x->k->softmax(p, n);
}

/* The first largest that is not taken (NaN). */
static uint32_t largest(const float *choice, uint32_t n)
{
    uint32_t best = 0;
    while (best + 1 < n && isnan(choice[best])) best++;
    for (uint32_t e = best + 1; e < n; e++)
        if (choice[e] > choice[best]) best = e;
    return best;
}

static void weigh(const moe_routing *r, float *mix, uint32_t n)
{
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += mix[i];
    if (r->renormalise)
        for (uint32_t i = 0; i < n; i++) mix[i] /= fmaxf(sum, LEAST_SUM);
    if (r->scale != 1)
        for (uint32_t i = 0; i < n; i++) mix[i] *= r->scale;
}

static void route_token(void *arg, size_t t, unsigned thread)
{
    const route_job *j = arg;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const float *bias = j->layer->w.router_bias;
    float *p = m->router + t * s->n_experts, *mix = m->mix + t * s->n_used;
    float *choice = m->choice + (size_t)thread * 2 * s->n_experts;
    uint32_t *experts = m->experts + t * s->n_used;
    probabilities(m, p);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        const float score = bias ? p[e] + bias[e] : p[e];
        choice[e] = isfinite(score) ? score : WORST; /* a damaged file still gives k0 different experts */
    }
    if (s->routing.n_groups > s->routing.n_groups_used)
        mask_groups(s, bias || s->routing.gating == MOE_GATING_SIGMOID, choice, choice + s->n_experts);
    for (uint32_t i = 0; i < s->n_used; i++) {
        const uint32_t best = largest(choice, s->n_experts);
        experts[i] = best;
        mix[i] = p[best];
        choice[best] = NAN; /* taken */
    }
    weigh(&s->routing, mix, s->n_used);
}

void moe_exec_route(moe_exec *m, const moe_layer *layer, const acts *in, size_t tokens)
{
    linear(m->x, &layer->w.router, in, tokens, m->router, m->shape.n_experts, m->ptrs);
    pool_for(m->x->pool, tokens, route_token, &(route_job){m, layer});
}
