/* Draws a token from a row of logits.
 *
 * The order is that of llama.cpp: repeat penalty, top-k, top-p, min-p, temperature last. All three cuts keep a prefix
 * of the candidates in descending order, so nothing has to be sorted as a whole: the candidates are made a heap in O(n)
 * and popped, best first, until the first cut says stop. Without cuts there is no heap and the draw walks the
 * candidates in order of id. Equal logits rank by id, so that the same seed gives the same text everywhere.
 *
 * Logits from outside a well-behaved model: NaN counts as -inf, +inf as the largest float; where every logit is -inf
 * all are equal. All memory is taken in mp_sampler_new(). */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/status.h"

#define REPEAT_LAST_DEFAULT 64
#define REPEAT_LAST_MAX     (1u << 20)

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct mp_sampler {
    mp_sampler_params params;
    uint32_t n_vocab;
    rng rng;
    candidate *candidates; /* [n_vocab] */
    double *weights;       /* [n_vocab] */
    int32_t *ring;         /* [repeat_last], the last accepted tokens; NULL without a penalty */
    uint32_t *counts;      /* [n_vocab], how often each token is in the ring */
    uint32_t ring_len, ring_next;
};

static mp_status check_range(const char *name, float value, float max, mp_error *err)
{
    if (value >= 0 && value <= max) return MP_OK; /* false for NaN */
    if (max == FLT_MAX)
        return status_fail(err, MP_E_INVALID, "%s = %g: must be finite and at least 0", name, (double)value);
    return status_fail(err, MP_E_INVALID, "%s = %g: must be between 0 and %g", name, (double)value, (double)max);
}

static mp_status check_params(const mp_sampler_params *params, uint32_t n_vocab, mp_error *err)
{
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return status_fail(err, MP_E_INVALID, "n_vocab = %u: must be between 1 and %d", n_vocab, INT32_MAX);
    MP_TRY(check_range("temperature", params->temperature, FLT_MAX, err));
    MP_TRY(check_range("top_p", params->top_p, 1, err));
    MP_TRY(check_range("min_p", params->min_p, 1, err));
    MP_TRY(check_range("repeat_penalty", params->repeat_penalty, FLT_MAX, err));
    if (params->repeat_last > REPEAT_LAST_MAX)
        return status_fail(err, MP_E_INVALID, "repeat_last = %u: must be at most %u", params->repeat_last,
                           REPEAT_LAST_MAX);
    return MP_OK;
}

static bool penalises(const mp_sampler_params *params)
{
    return params->repeat_penalty != 0 && params->repeat_penalty != 1;
}

mp_status mp_sampler_new(const mp_sampler_params *params, uint32_t n_vocab, mp_sampler **out, mp_error *err)
{
    *out = NULL;
    MP_TRY(check_params(params, n_vocab, err));
    mp_sampler *s = calloc(1, sizeof *s);
    if (!s) return status_no_memory(err, sizeof *s, "a sampler");
    s->params = *params;
    s->n_vocab = n_vocab;
    if (s->params.repeat_last == 0) s->params.repeat_last = REPEAT_LAST_DEFAULT;
    rng_init(&s->rng, params->seed);
    s->candidates = calloc(n_vocab, sizeof *s->candidates);
    s->weights = calloc(n_vocab, sizeof *s->weights);
    bool complete = s->candidates && s->weights;
    if (penalises(params)) {
        s->ring = calloc(s->params.repeat_last, sizeof *s->ring);
        s->counts = calloc(n_vocab, sizeof *s->counts);
        complete = complete && s->ring && s->counts;
    }
    if (!complete) {
        mp_sampler_free(s);
        return status_no_memory(err, n_vocab * (sizeof(candidate) + sizeof(double)), "a sampler");
    }
    *out = s;
    return MP_OK;
}

void mp_sampler_free(mp_sampler *sampler)
{
    if (!sampler) return;
    free(sampler->candidates);
    free(sampler->weights);
    free(sampler->ring);
    free(sampler->counts);
    free(sampler);
}

void mp_sampler_accept(mp_sampler *sampler, int32_t token)
{
    if (!sampler->ring || token < 0 || (uint32_t)token >= sampler->n_vocab) return;
    int32_t *slot = &sampler->ring[sampler->ring_next];
    if (sampler->ring_len == sampler->params.repeat_last)
        sampler->counts[*slot]--;
    else
        sampler->ring_len++;
    *slot = token;
    sampler->counts[token]++;
    sampler->ring_next = (sampler->ring_next + 1) % sampler->params.repeat_last;
}

static float clean(float logit)
{
    if (isnan(logit)) return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* Fills the candidates; a penalty pulls the logit down whatever its sign. */
static void fill(mp_sampler *s, const float *logits)
{
    float penalty = s->params.repeat_penalty;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        float logit = clean(logits[i]);
        if (s->counts && s->counts[i]) logit = clean(logit > 0 ? logit / penalty : logit * penalty);
        s->candidates[i] = (candidate){logit, (int32_t)i};
    }
}

static bool ranks_before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static candidate best(const mp_sampler *s)
{
    candidate top = s->candidates[0];
    for (uint32_t i = 1; i < s->n_vocab; i++)
        if (ranks_before(s->candidates[i], top)) top = s->candidates[i];
    return top;
}

static void sift_down(candidate *heap, size_t n, size_t i)
{
    candidate moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && ranks_before(heap[child + 1], heap[child])) child++;
        if (!ranks_before(heap[child], moving)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

/* ln of the unnormalised probability against the best one; 0 where both are -inf. */
static double relative(float logit, float max)
{
    return logit == max ? 0 : (double)logit - (double)max;
}

/* Moves the root of heap [n] behind the heap, which shrinks by one. */
static void pop(candidate *heap, size_t n)
{
    candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, n - 1, 0);
}

/* Moves the best candidates to the end of the array: the j-th best stands at n_vocab - 1 - j. Returns how many the
 * three cuts leave, at least 1. */
static size_t cut(mp_sampler *s, float max)
{
    const mp_sampler_params *p = &s->params;
    candidate *heap = s->candidates;
    size_t n = s->n_vocab, limit = p->top_k && p->top_k < n ? p->top_k : n, popped = 0, kept = 0;
    bool by_mass = p->top_p > 0 && p->top_p < 1;
    double floor = p->min_p > 0 ? log((double)p->min_p) : -INFINITY, total = 0, mass = 0;

    for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i);
    if (limit < n)
        while (popped < limit) pop(heap, n - popped++);
    if (by_mass) /* of what top-k left, be it still a heap or popped */
        for (size_t i = n - limit; i < n; i++) total += exp(relative(heap[i].logit, max));
    for (; kept < limit; kept++) {
        if (kept == popped) pop(heap, n - popped++);
        double log_weight = relative(heap[n - 1 - kept].logit, max);
        if (log_weight < floor || (by_mass && mass >= (double)p->top_p * total)) break;
        mass += exp(log_weight);
    }
    return kept;
}

int32_t mp_sampler_draw(mp_sampler *sampler, const float *logits)
{
    const mp_sampler_params *p = &sampler->params;
    fill(sampler, logits);
    candidate top = best(sampler);
    if (p->temperature == 0 || p->top_k == 1) return top.id;

    bool cuts = p->top_k || (p->top_p > 0 && p->top_p < 1) || p->min_p > 0;
    size_t kept = cuts ? cut(sampler, top.logit) : sampler->n_vocab;
    const candidate *from = sampler->candidates + sampler->n_vocab - kept;
    double total = 0;
    for (size_t i = 0; i < kept; i++) {
        sampler->weights[i] = exp(relative(from[i].logit, top.logit) / (double)p->temperature);
        total += sampler->weights[i];
    }
    double left = rng_uniform(&sampler->rng) * total;
    int32_t drawn = top.id;
    for (size_t i = 0; i < kept; i++) {
        if (sampler->weights[i] == 0) continue;
        drawn = from[i].id;
        left -= sampler->weights[i];
        if (left < 0) break;
    }
    return drawn;
}
