/* Gate neurons (paper 4.3.1). With B the indicator of each token's most active neurons, a neuron's row sum of B^T B
 * inside its set is the sum, over the tokens it is active on, of how many of its set are: no C x C matrix is needed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refactor/gate_fit.h"

typedef struct proxy {
    uint16_t *set;        /* [C] */
    uint32_t *active;     /* [N] of the token at hand */
    uint64_t *centrality; /* [C] */
    float *scratch;       /* [C] */
    bool *top;            /* [C] */
} proxy;

static void proxy_clear(proxy *p)
{
    free(p->set);
    free(p->active);
    free(p->centrality);
    free(p->scratch);
    free(p->top);
}

static mp_status proxy_init(proxy *p, uint32_t n_neurons, uint32_t n_parts, mp_error *err)
{
    p->set = calloc(n_neurons, sizeof *p->set);
    p->active = calloc(n_parts, sizeof *p->active);
    p->centrality = calloc(n_neurons, sizeof *p->centrality);
    p->scratch = calloc(n_neurons, sizeof *p->scratch);
    p->top = calloc(n_neurons, sizeof *p->top);
    if (p->set && p->active && p->centrality && p->scratch && p->top) return MP_OK;
    proxy_clear(p);
    return status_no_memory(err, n_neurons * sizeof *p->centrality, "gate neurons");
}

static void swap(float *a, float *b)
{
    float x = *a;
    *a = *b;
    *b = x;
}

/* The k-th largest of v [n], 1 <= k <= n; reorders v. Partition by Hoare: equal values fall on both sides. */
static float kth_largest(float *v, size_t n, size_t k)
{
    size_t low = 0, high = n - 1, want = k - 1;
    while (low < high) {
        float pivot = v[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (v[i] > pivot) i++;
            while (v[j] < pivot) j--;
            if (i >= j) break;
            swap(&v[i++], &v[j--]);
        }
        if (want <= j)
            high = j;
        else
            low = j + 1;
    }
    return v[want];
}

/* top [C]: the k largest of a [C], the lower index among equals. */
static void mark_top(proxy *p, const float *a, uint32_t n_neurons, uint32_t k)
{
    memcpy(p->scratch, a, n_neurons * sizeof *a);
    float limit = kth_largest(p->scratch, n_neurons, k);
    uint32_t above = 0;
    for (uint32_t j = 0; j < n_neurons; j++) above += a[j] > limit;
    for (uint32_t j = 0, equal = k - above; j < n_neurons; j++) {
        p->top[j] = a[j] > limit || (a[j] == limit && equal > 0);
        if (a[j] == limit && equal > 0) equal--;
    }
}

static void add_token(proxy *p, const float *a, uint32_t n_neurons, uint32_t n_parts, uint32_t k)
{
    mark_top(p, a, n_neurons, k);
    memset(p->active, 0, n_parts * sizeof *p->active);
    for (uint32_t j = 0; j < n_neurons; j++) p->active[p->set[j]] += p->top[j];
    for (uint32_t j = 0; j < n_neurons; j++)
        if (p->top[j]) p->centrality[j] += p->active[p->set[j]];
}

/* Moves the r most central of order [size] to its front; the others keep their order. */
static void lead(const proxy *p, uint32_t *order, uint32_t size, uint32_t r)
{
    for (uint32_t at = 0; at < r; at++) {
        uint32_t best = at;
        for (uint32_t i = at + 1; i < size; i++)
            if (p->centrality[order[i]] > p->centrality[order[best]]) best = i;
        uint32_t j = order[best];
        memmove(order + at + 1, order + at, (best - at) * sizeof *order);
        order[at] = j;
    }
}

static mp_status check(const float *a, size_t n_tokens, uint32_t n_neurons, uint32_t n_parts, uint32_t r,
                       double keep_share, mp_error *err)
{
    size_t count;
    if (n_neurons == 0 || n_parts == 0 || n_parts > UINT16_MAX || n_neurons % n_parts)
        return status_fail(err, MP_E_INVALID, "proxy: %u neurons do not go into %u equal sets", n_neurons, n_parts);
    if (r < 1 || r > n_neurons / n_parts)
        return status_fail(err, MP_E_INVALID, "proxy: %u gate neurons per sub-expert; must be 1 to %u", r,
                           n_neurons / n_parts);
    if (!(keep_share > 0 && keep_share <= 1))
        return status_fail(err, MP_E_INVALID, "proxy: share of active neurons is %g; must be in (0, 1]", keep_share);
    if (!size_mul(n_tokens, n_neurons, &count) || (!a && count))
        return status_fail(err, MP_E_INVALID, "proxy: no activations, or too many");
    for (size_t e = 0; e < count; e++)
        if (!isfinite(a[e]))
            return status_fail(err, MP_E_INVALID, "proxy: activation of token %zu, neuron %zu is not finite",
                               e / n_neurons, e % n_neurons);
    return MP_OK;
}

static mp_status read_sets(proxy *p, const uint32_t *order, uint32_t n_neurons, uint32_t size, mp_error *err)
{
    for (uint32_t i = 0; i < n_neurons; i++) {
        if (order[i] >= n_neurons || p->top[order[i]])
            return status_fail(err, MP_E_INVALID, "proxy: the order names neuron %u of %u twice or not at all",
                               order[i], n_neurons);
        p->top[order[i]] = true;
        p->set[order[i]] = (uint16_t)(i / size);
    }
    return MP_OK;
}

mp_status proxy_order(const float *a, size_t n_tokens, uint32_t n_neurons, uint32_t n_parts, uint32_t r,
                      double keep_share, uint32_t *order, mp_error *err)
{
    proxy p;
    MP_TRY(check(a, n_tokens, n_neurons, n_parts, r, keep_share, err));
    MP_TRY(proxy_init(&p, n_neurons, n_parts, err));
    uint32_t size = n_neurons / n_parts, k = (uint32_t)lround(keep_share * n_neurons);
    mp_status status = read_sets(&p, order, n_neurons, size, err);
    if (status == MP_OK) {
        for (size_t b = 0; b < n_tokens; b++) add_token(&p, a + b * n_neurons, n_neurons, n_parts, k > 0 ? k : 1);
        for (uint32_t n = 0; n < n_parts; n++) lead(&p, order + n * size, size, r);
    }
    proxy_clear(&p);
    return status;
}
