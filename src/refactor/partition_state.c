/* The loss of a partition, its supergradient and the change a swap makes, all exactly and all as sweeps over tokens.
 *
 * Sorting. The loss of a token is a fixed linear function of its N sorted loads. One network of compare-exchanges
 * (Batcher's merge exchange, Knuth 5.2.2 algorithm M, any N) sorts 16 tokens at a time without a branch: for N = 32
 * that is 191 minima and maxima.
 *
 * Supergradient. A sum of the D smallest loads is concave in the loads, and "1 for the sets dropped, 0 for those
 * kept" is a supergradient of it. So the loss after any change of the assignment is at most what the rates promise.
 *
 * Swaps. A swap changes only the loads a and b of two sets, and not their sum. With p <= q the (D-1)-th and D-th
 * smallest of the N - 2 other loads, the sum of the D smallest of all is
 *     (sum of the D - 2 smallest others) + (sum of the two smallest of {a, b, p, q}),
 * where p and q depend on the pair of sets only: after they are found, a swap costs a few minima per token and keep,
 * whatever N is. Where there is no such other load p is 0 (below any load) and q infinite: rows 0 and N + 1 of
 * `sorted`. */
#include "refactor/partition_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { LANES = 4, BLOCK = 16 }; /* floats in a vector; tokens sorted together: one cache line */

typedef float vec __attribute__((vector_size(16)));
typedef int32_t mask __attribute__((vector_size(16)));

static inline vec vec_load(const float *p)
{
    return *(const vec *)p; /* rows and blocks are 64-byte aligned */
}

static inline void vec_store(float *p, vec v)
{
    *(vec *)p = v;
}

static inline vec vec_set(float x)
{
    return (vec){x, x, x, x};
}

static inline vec vec_select(mask m, vec yes, vec no)
{
    return (vec)((m & (mask)yes) | (~m & (mask)no));
}

static inline vec vec_min(vec a, vec b)
{
#ifdef __SSE2__
    return (vec)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vec_select(a < b, a, b);
#endif
}

static inline vec vec_max(vec a, vec b)
{
#ifdef __SSE2__
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vec_select(a > b, a, b);
#endif
}

static inline double vec_sum(vec v)
{
    return (double)v[0] + v[1] + v[2] + v[3];
}

/* ---- lifecycle ---- */

/* Comparators of the network for n wires: written to `out` unless it is NULL, counted either way. */
static size_t network_build(uint32_t n, uint16_t *out)
{
    size_t count = 0;
    uint32_t top = 1;
    while (top < n) top *= 2;
    for (uint32_t p = top / 2; p > 0; p /= 2) {
        uint32_t q = top / 2, r = 0, d = p;
        for (;;) {
            for (uint32_t i = 0; i + d < n; i++) {
                if ((i & p) != r) continue;
                if (out) out[2 * count] = (uint16_t)i, out[2 * count + 1] = (uint16_t)(i + d);
                count++;
            }
            if (q == p) break;
            d = q - p;
            q /= 2;
            r = p;
        }
    }
    return count;
}

static mp_status rows_new(size_t rows, size_t stride, float **out, mp_error *err)
{
    size_t n, bytes;
    if (!size_mul(rows, stride, &n) || !size_mul(n, sizeof(float), &bytes))
        return status_fail(err, MP_E_LIMIT, "partition: %zu rows of %zu tokens are too many", rows, stride);
    *out = aligned_alloc(64, bytes ? bytes : 64);
    if (!*out) return status_no_memory(err, bytes, "a partition");
    memset(*out, 0, bytes);
    return MP_OK;
}

/* An odd-looking step through the tokens: coprime to their number and near its golden section. */
static size_t spread_step(size_t n)
{
    for (size_t step = (size_t)(0.618 * (double)n) | 1;; step++) {
        size_t a = n, b = step;
        while (b) {
            size_t r = a % b;
            a = b;
            b = r;
        }
        if (a == 1) return step % n;
    }
}

/* Tokens change their order on the way, so that any run of them is spread over the whole text: races look at a run. */
static void transpose(partition_state *s, const float *w)
{
    enum { TILE = 32 };
    const size_t n = s->n_tokens, c = s->n_neurons, step = n > 1 ? spread_step(n) : 0;
    size_t next = 0, token[TILE];
    for (size_t b0 = 0; b0 < n; b0 += TILE) {
        const size_t count = n - b0 < TILE ? n - b0 : TILE;
        for (size_t b = 0; b < count; b++) {
            token[b] = next;
            next = next < n - step ? next + step : next - (n - step);
        }
        for (size_t j = 0; j < c; j++) {
            float *row = s->wt + j * s->stride + b0;
            for (size_t b = 0; b < count; b++) row[b] = (float)((double)w[token[b] * c + j] * s->scale);
        }
    }
}

static void merge_keeps(partition_state *s, const partition_problem *p)
{
    double sum = 0;
    if (p->n_parts == 1) return;
    for (uint32_t k = 0; k < p->n_keeps; k++) sum += (double)p->keep_weights[k];
    for (uint32_t k = 0; k < p->n_keeps; k++) {
        uint32_t i = 0, drop = p->n_parts - p->keeps[k];
        while (i < s->n_keeps && s->drop[i] != drop) i++;
        if (i == s->n_keeps) s->drop[s->n_keeps++] = drop;
        s->weight[i] += (float)((double)p->keep_weights[k] / sum);
    }
}

mp_status partition_state_init(partition_state *s, const partition_problem *p, mp_error *err)
{
    size_t n = p->n_parts, count = (size_t)p->n_neurons * p->n_tokens; /* checked by partition_check */
    mp_status status;
    *s = (partition_state){.n_tokens = p->n_tokens, .n_neurons = p->n_neurons, .n_parts = p->n_parts, .scale = 1};
    s->stride = (p->n_tokens + BLOCK - 1) / BLOCK * BLOCK;
    if (s->stride % 1024 == 0) s->stride += BLOCK;
    merge_keeps(s, p);
    for (size_t e = 0; e < count; e++) s->total += (double)p->w[e];
    if (s->total > 0) s->scale = (double)count / s->total;
    if ((status = rows_new(p->n_neurons, s->stride, &s->wt, err)) != MP_OK) goto out;
    if ((status = rows_new(n, s->stride, &s->load, err)) != MP_OK) goto out;
    if ((status = rows_new(n + 2, s->stride, &s->sorted, err)) != MP_OK) goto out;
    if ((status = rows_new(n, s->stride, &s->rate, err)) != MP_OK) goto out;
    if ((status = rows_new(2 * s->n_keeps + 3, s->stride, &s->pair, err)) != MP_OK) goto out;
    if ((status = rows_new(2, s->stride, &s->spare, err)) != MP_OK) goto out;
    if ((status = rows_new(n, BLOCK, &s->block, err)) != MP_OK) goto out;
    s->n_network = network_build(p->n_parts, NULL);
    s->network = malloc((s->n_network ? s->n_network : 1) * 2 * sizeof *s->network);
    if (!s->network) {
        status = status_no_memory(err, s->n_network * 2 * sizeof *s->network, "a sorting network");
        goto out;
    }
    network_build(p->n_parts, s->network);
    for (size_t b = 0; b < s->stride; b++) s->sorted[(n + 1) * s->stride + b] = INFINITY;
    transpose(s, p->w);
out:
    if (status != MP_OK) partition_state_clear(s);
    return status;
}

void partition_state_clear(partition_state *s)
{
    free(s->wt);
    free(s->load);
    free(s->sorted);
    free(s->rate);
    free(s->pair);
    free(s->spare);
    free(s->block);
    free(s->network);
    *s = (partition_state){0};
}

/* ---- loads and loss ---- */

/* In the order of the neurons, so that a load depends on the set alone and not on how it came about. */
static void sum_load(partition_state *s, const uint16_t *part, uint32_t n)
{
    float *load = s->load + n * s->stride;
    memset(load, 0, s->stride * sizeof *load);
    for (uint32_t j = 0; j < s->n_neurons; j++) {
        if (part[j] != n) continue;
        const float *w = s->wt + j * s->stride;
        for (size_t b = 0; b < s->stride; b += LANES) vec_store(load + b, vec_load(load + b) + vec_load(w + b));
    }
}

static void sort_loads(partition_state *s)
{
    for (size_t b = 0; b < s->stride; b += BLOCK) {
        for (size_t n = 0; n < s->n_parts; n++)
            memcpy(s->block + n * BLOCK, s->load + n * s->stride + b, BLOCK * sizeof(float));
        for (size_t e = 0; e < s->n_network; e++) {
            float *low = s->block + (size_t)s->network[2 * e] * BLOCK;
            float *high = s->block + (size_t)s->network[2 * e + 1] * BLOCK;
            for (size_t i = 0; i < BLOCK; i += LANES) {
                vec x = vec_load(low + i), y = vec_load(high + i);
                vec_store(low + i, vec_min(x, y));
                vec_store(high + i, vec_max(x, y));
            }
        }
        for (size_t n = 0; n < s->n_parts; n++)
            memcpy(s->sorted + (n + 1) * s->stride + b, s->block + n * BLOCK, BLOCK * sizeof(float));
    }
}

/* sum_b sum_k weight_k * (sum of the drop_k smallest loads), over the sum of all weights. */
double partition_state_objective(const partition_state *s)
{
    double sum = 0;
    if (s->total <= 0) return 0;
    for (uint32_t r = 0; r < s->n_parts; r++) {
        const float *row = s->sorted + (r + 1) * s->stride;
        double coefficient = 0, row_sum = 0;
        for (uint32_t k = 0; k < s->n_keeps; k++)
            if (r < s->drop[k]) coefficient += (double)s->weight[k];
        if (coefficient <= 0) continue;
        for (size_t b = 0; b < s->stride; b += LANES) row_sum += vec_sum(vec_load(row + b));
        sum += coefficient * row_sum;
    }
    return sum / (s->total * s->scale);
}

double partition_state_set(partition_state *s, const uint16_t *part)
{
    for (uint32_t n = 0; n < s->n_parts; n++) sum_load(s, part, n);
    sort_loads(s);
    return partition_state_objective(s);
}

static inline vec merge(vec below, vec x, vec here)
{
    return vec_min(vec_max(below, x), here);
}

/* In one vector's sorted loads, `gone` and `lost` make room for x and y: four passes in one, each of which looks at a
 * row and its neighbour. Taking out: a row not below the value takes its successor. Putting in: the middle one of the
 * row below, the value and the row. */
static void replace_sorted(partition_state *s, size_t b, vec gone, vec lost, vec x, vec y)
{
    const size_t stride = s->stride;
    const vec infinite = vec_set(INFINITY);
    float *row = s->sorted + stride + b;
    vec s0 = vec_load(row), s1 = vec_load(row + stride);
    vec a0 = vec_select(s0 < gone, s0, s1); /* without gone */
    vec b0 = vec_set(0), c0 = vec_set(0);   /* without both, one row below; with x, one row below */
    for (uint32_t r = 0; r < s->n_parts; r++, row += stride) {
        vec s2 = r + 2 < s->n_parts ? vec_load(row + 2 * stride) : infinite;
        vec a1 = vec_select(s1 < gone, s1, s2);
        vec b1 = vec_select(a0 < lost, a0, a1);
        vec c1 = merge(b0, x, b1);
        vec_store(row, merge(c0, y, c1));
        s1 = s2, a0 = a1, b0 = b1, c0 = c1;
    }
}

void partition_state_update(partition_state *s, const uint16_t *part, uint32_t n, uint32_t m)
{
    float *load_n = s->load + n * s->stride, *load_m = s->load + m * s->stride;
    memcpy(s->spare, load_n, s->stride * sizeof *load_n);
    memcpy(s->spare + s->stride, load_m, s->stride * sizeof *load_m);
    sum_load(s, part, n);
    sum_load(s, part, m);
    for (size_t b = 0; b < s->stride; b += LANES)
        replace_sorted(s, b, vec_load(s->spare + b), vec_load(s->spare + s->stride + b), vec_load(load_n + b),
                       vec_load(load_m + b));
}

/* One block of tokens, one keep: sets below the D-th smallest load are dropped, sets equal to it share the rest. */
static void add_rates(partition_state *s, size_t b, uint32_t k)
{
    const float drop = (float)s->drop[k], weight = s->weight[k];
    vec limit = vec_load(s->sorted + s->drop[k] * s->stride + b), below = vec_set(0), equal = vec_set(0);
    for (size_t n = 0; n < s->n_parts; n++) {
        vec load = vec_load(s->load + n * s->stride + b);
        below += vec_select(load < limit, vec_set(1), vec_set(0));
        equal += vec_select(load == limit, vec_set(1), vec_set(0));
    }
    vec share = (vec_set(drop) - below) / equal * vec_set(weight); /* the limit is one of the loads: equal > 0 */
    for (size_t n = 0; n < s->n_parts; n++) {
        vec load = vec_load(s->load + n * s->stride + b);
        float *rate = s->rate + n * s->stride + b;
        vec add = vec_select(load < limit, vec_set(weight), vec_select(load == limit, share, vec_set(0)));
        vec_store(rate, vec_load(rate) + add);
    }
}

void partition_state_rates(partition_state *s)
{
    memset(s->rate, 0, s->n_parts * s->stride * sizeof *s->rate);
    for (size_t b = 0; b < s->stride; b += LANES)
        for (uint32_t k = 0; k < s->n_keeps; k++) add_rates(s, b, k);
}

/* ---- swaps ---- */

/* Sum of the two smallest of {low, high, p, q}, low <= high, p <= q. */
static inline vec two_smallest(vec low, vec high, vec p, vec q)
{
    return vec_min(p, low) + vec_min(vec_max(p, low), vec_min(q, high));
}

/* One vector of tokens. Rows of `pair`: the two loads, the present sum over keeps, then p and q of each keep. Of the
 * four sorted loads around the D-th, those of the pair itself are stepped over; equal loads are interchangeable. */
static void prepare(partition_state *s, size_t b)
{
    const size_t stride = s->stride;
    vec x = vec_load(s->load + s->pair_n * stride + b), y = vec_load(s->load + s->pair_m * stride + b);
    vec low = vec_min(x, y), high = vec_max(x, y), sum = vec_set(0);
    float *out = s->pair + b;
    for (uint32_t k = 0; k < s->n_keeps; k++) {
        const float *at = s->sorted + (s->drop[k] - 1) * stride + b; /* row 0 stands before the smallest */
        vec s0 = vec_load(at), s1 = vec_load(at + stride);
        vec s2 = vec_load(at + 2 * stride), s3 = vec_load(at + 3 * stride);
        mask skip0 = low <= s0;
        if (s->drop[k] == 1) skip0 = (mask){0}; /* the row of 0 is nobody's load */
        vec p = vec_select(skip0, vec_select(high <= s1, s2, s1), s0);
        vec q = vec_select(low <= s1, vec_select(high <= s2, s3, s2), s1);
        vec_store(out + (3 + 2 * k) * stride, p);
        vec_store(out + (4 + 2 * k) * stride, q);
        sum += vec_set(s->weight[k]) * two_smallest(low, high, p, q);
    }
    vec_store(out, x);
    vec_store(out + stride, y);
    vec_store(out + 2 * stride, sum);
}

void partition_pair_begin(partition_state *s, uint32_t n, uint32_t m)
{
    s->pair_n = n;
    s->pair_m = m;
    s->pair_ready = 0;
}

/* The number of keeps known to the compiler: weights stay in registers. */
static inline __attribute__((always_inline)) void swap_add(const partition_state *s, partition_swap *swap, size_t begin,
                                                           size_t end, uint32_t n_keeps)
{
    const size_t stride = s->stride;
    const float *wj = s->wt + swap->j * stride, *wi = s->wt + swap->i * stride;
    const vec zero = vec_set(0);
    vec delta = zero, square = zero, weight[PARTITION_MAX_KEEPS];
    for (uint32_t k = 0; k < n_keeps; k++) weight[k] = vec_set(s->weight[k]);
    for (size_t b = begin; b < end; b += LANES) {
        const float *at = s->pair + b;
        vec shift = vec_load(wi + b) - vec_load(wj + b);
        vec x = vec_max(vec_load(at) + shift, zero), y = vec_max(vec_load(at + stride) - shift, zero);
        vec low = vec_min(x, y), high = vec_max(x, y), sum = zero;
        for (uint32_t k = 0; k < n_keeps; k++)
            sum += weight[k] *
                   two_smallest(low, high, vec_load(at + (3 + 2 * k) * stride), vec_load(at + (4 + 2 * k) * stride));
        sum -= vec_load(at + 2 * stride);
        delta += sum;
        square += sum * sum;
    }
    swap->delta += vec_sum(delta);
    swap->square += vec_sum(square);
}

void partition_swap_add(partition_state *s, partition_swap *swap, size_t begin, size_t end)
{
    for (; s->pair_ready < end; s->pair_ready += LANES) prepare(s, s->pair_ready);
    s->visited += end - begin;
    switch (s->n_keeps) {
    case 1:
        swap_add(s, swap, begin, end, 1);
        break;
    case 2:
        swap_add(s, swap, begin, end, 2);
        break;
    case 3:
        swap_add(s, swap, begin, end, 3);
        break;
    case 4:
        swap_add(s, swap, begin, end, 4);
        break;
    default:
        swap_add(s, swap, begin, end, s->n_keeps);
    }
}

double partition_swap_delta(partition_state *s, uint32_t j, uint32_t i)
{
    partition_swap swap = {.j = j, .i = i};
    partition_swap_add(s, &swap, 0, s->stride);
    return swap.delta;
}
