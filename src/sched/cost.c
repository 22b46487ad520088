/* cost.c: features of a step, the time they predict, and the factor that keeps the prediction honest while it serves.
 *
 * The features follow the engine's own account. Multiply-adds of experts are linear in the tokens' shares, so they add
 * up. Bytes are not: a sub-expert that two tokens need is read once. A token at `share` needs each sub-expert with
 * probability used * share, tokens apart from one another, so 1 - prod(1 - used * share) of the weights are read:
 * linear for a few tokens, everything for many. That is why a large batch amortises expert weights, and why a cheap
 * token beside a dear one saves arithmetic more than bytes. Attention counts the positions that each token looks at,
 * which is arithmetic, and the positions of each sequence, which are read from memory once for all tokens of a chunk: a
 * token that decodes pays for all of its own.
 *
 * The correction is a factor on the whole prediction: what changes while a server runs (clock frequency, neighbours on
 * the machine, another thread count) slows everything alike. It moves by a fraction of the logarithmic error, and the
 * error is cut first, so a step that a page fault or a stopped process made a hundred times longer counts as a step
 * that was a little too long. */
#include "sched/cost.h"

#include <math.h>

#define OBSERVE_RATE   0.02 /* of the error a step: a time constant of 50 steps */
#define OBSERVE_CUT    0.5  /* of the logarithmic error */
#define CORRECTION_MAX 16.0

void cost_add(const cost_shape *shape, const cost_item *item, double features[COST_FEATURES])
{
    double tokens = item->n_tokens;
    features[COST_TOKENS] += tokens;
    features[COST_EXPERTS] += tokens * item->share;
    features[COST_TOUCHED] = 1 - (1 - features[COST_TOUCHED]) * pow(1 - shape->used * item->share, tokens);
    features[COST_CONTEXT] += tokens * item->context + tokens * (tokens + 1) / 2;
    features[COST_LOGITS] += item->logits;
    features[COST_CACHE] += tokens + item->context;
}

void cost_features(const cost_shape *shape, const cost_item *items, size_t n, double out[COST_FEATURES])
{
    for (size_t f = 0; f < COST_FEATURES; f++) out[f] = 0;
    out[COST_STEP] = 1;
    for (size_t i = 0; i < n; i++) cost_add(shape, &items[i], out);
}

double cost_predict_ns(const cost_model *m, const double features[COST_FEATURES])
{
    double ns = 0;
    for (size_t f = 0; f < COST_FEATURES; f++) ns += m->ns[f] * features[f];
    return ns * m->correction;
}

void cost_observe(cost_model *m, double predicted_ns, double took_ns)
{
    if (!(predicted_ns > 0) || !(took_ns > 0)) return;
    double error = fmin(fmax(log(took_ns / predicted_ns), -OBSERVE_CUT), OBSERVE_CUT);
    double moved = m->correction * exp(OBSERVE_RATE * error);
    m->correction = fmin(fmax(moved, 1 / CORRECTION_MAX), CORRECTION_MAX);
}
