/* Log probabilities of a row of logits, as the model itself gives them. */
#include <float.h>
#include <math.h>

#include "base/status.h"
#include "text/weight.h"

static float clean(float logit, bool flat)
{
    if (flat) return 0;
    if (isnan(logit)) return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* Keeps the k best of what has been put, best first; an earlier one stays before its equals. */
static uint32_t put(int32_t id, float logit, uint32_t n, uint32_t k, int32_t *top, float *values)
{
    if (n == k && (k == 0 || !(logit > values[k - 1]))) return n;
    uint32_t at = n < k ? n : k - 1;
    for (; at > 0 && logit > values[at - 1]; at--) {
        top[at] = top[at - 1];
        values[at] = values[at - 1];
    }
    top[at] = id;
    values[at] = logit;
    return n < k ? n + 1 : n;
}

float mp_logprobs(const float *logits, uint32_t n_vocab, int32_t token, uint32_t k, int32_t *top, float *top_logprobs)
{
    float largest = -INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
    const bool flat = largest == -INFINITY; /* all equal */
    largest = clean(largest, flat);
    double total = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        const float logit = clean(logits[i], flat);
        total += (double)weight_exp(logit - largest);
        n = put((int32_t)i, logit, n, k, top, top_logprobs);
    }
    const double log_total = (double)largest + log(total);
    for (uint32_t i = 0; i < k; i++) {
        if (i >= n) top[i] = -1; /* a vocabulary smaller than k */
        top_logprobs[i] = i < n ? (float)((double)top_logprobs[i] - log_total) : -INFINITY;
    }
    if (token < 0 || (uint32_t)token >= n_vocab) return -INFINITY;
    return (float)((double)clean(logits[token], flat) - log_total);
}
