/* Log probabilities of a row of logits, as the model itself gives them. */
#include <float.h>
#include <math.h>

#include "base/status.h"
#include "text/row.h"
#include "text/weight.h"

enum { CHUNK_BLOCKS = 64, CHUNK = CHUNK_BLOCKS * ROW_BLOCK }; /* at a time, for lack of memory of its own */

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

/* A row whose largest logit is finite: blocks at a time. */
static double total_of_blocks(const float *logits, uint32_t n_vocab, float largest, uint32_t k, uint32_t *n,
                              int32_t *top, float *values)
{
    float blocks[CHUNK_BLOCKS];
    double sums[CHUNK_BLOCKS], total = 0;
    for (uint32_t at = 0; at < n_vocab; at += CHUNK) {
        const uint32_t len = n_vocab - at < CHUNK ? n_vocab - at : CHUNK;
        row_largest(logits + at, len, blocks);
        total += row_sums(logits + at, len, blocks, largest, 1, (row_cut){-INFINITY, INT32_MAX}, sums);
        for (uint32_t i = 0; i < len; i++) {
            const bool low = *n == k && (k == 0 || !(blocks[i / ROW_BLOCK] > values[k - 1]));
            if (low && i % ROW_BLOCK == 0)
                i += ROW_BLOCK - 1;
            else
                *n = put((int32_t)(at + i), clean(logits[at + i], false), *n, k, top, values);
        }
    }
    return total;
}

static double total_of_all(const float *logits, uint32_t n_vocab, float largest, bool flat, uint32_t k, uint32_t *n,
                           int32_t *top, float *values)
{
    double total = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        const float logit = clean(logits[i], flat);
        total += (double)weight_exp(logit - largest);
        *n = put((int32_t)i, logit, *n, k, top, values);
    }
    return total;
}

static float largest_of(const float *logits, uint32_t n_vocab)
{
    float blocks[CHUNK_BLOCKS], largest = -INFINITY;
    for (uint32_t at = 0; at < n_vocab; at += CHUNK)
        largest = fmaxf(largest, row_largest(logits + at, n_vocab - at < CHUNK ? n_vocab - at : CHUNK, blocks));
    return largest;
}

float mp_logprobs(const float *logits, uint32_t n_vocab, int32_t token, uint32_t k, int32_t *top, float *top_logprobs)
{
    const float found = largest_of(logits, n_vocab);
    const bool flat = found == -INFINITY; /* all equal */
    const float largest = clean(found, flat);
    uint32_t n = 0;
    const double total = isfinite(found) ? total_of_blocks(logits, n_vocab, largest, k, &n, top, top_logprobs)
                                         : total_of_all(logits, n_vocab, largest, flat, k, &n, top, top_logprobs);
    const double log_total = (double)largest + log(total);
    for (uint32_t i = 0; i < k; i++) {
        if (i >= n) top[i] = -1; /* a vocabulary smaller than k */
        top_logprobs[i] = i < n ? (float)((double)top_logprobs[i] - log_total) : -INFINITY;
    }
    if (token < 0 || (uint32_t)token >= n_vocab) return -INFINITY;
    return (float)((double)clean(logits[token], flat) - log_total);
}
