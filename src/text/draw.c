#include "text/draw.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/weight.h"

mp_status draw_init(draw *d, uint32_t n, mp_error *err)
{
    *d = (draw){.n = n, .n_blocks = (n + DRAW_BLOCK - 1) / DRAW_BLOCK};
    d->row = calloc(n, sizeof *d->row);
    d->largest = calloc(d->n_blocks, sizeof *d->largest);
    d->sums = calloc(d->n_blocks, sizeof *d->sums);
    d->candidates = calloc(n, sizeof *d->candidates);
    if (d->row && d->largest && d->sums && d->candidates) return MP_OK;
    draw_clear(d);
    return status_no_memory(err, n * (sizeof *d->row + sizeof *d->candidates), "a sampler");
}

void draw_clear(draw *d)
{
    free(d->row);
    free(d->largest);
    free(d->sums);
    free(d->candidates);
    *d = (draw){0};
}

static uint32_t block_end(const draw *d, uint32_t block)
{
    const uint32_t end = (block + 1) * DRAW_BLOCK;
    return end < d->n ? end : d->n;
}

/* ---- passes over a row ---- */

static float larger(float a, float b)
{
    return b > a ? b : a; /* a where b is NaN */
}

/* Several at a time, since a maximum waits for the one before it. */
static float largest_of_block(const float *x)
{
    enum { LANES = 16 };
    float lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = larger(-INFINITY, x[i]);
    for (int at = LANES; at < DRAW_BLOCK; at += LANES)
        for (int i = 0; i < LANES; i++) lanes[i] = larger(lanes[i], x[at + i]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = larger(lanes[i], lanes[i + half]);
    return lanes[0];
}

static float find_largest(draw *d, const float *logits)
{
    float largest = -INFINITY;
    for (uint32_t b = 0; b < d->n_blocks; b++) {
        const uint32_t begin = b * DRAW_BLOCK, end = block_end(d, b);
        float here = -INFINITY;
        if (end - begin == DRAW_BLOCK)
            here = largest_of_block(logits + begin);
        else
            for (uint32_t i = begin; i < end; i++) here = larger(here, logits[i]);
        d->largest[b] = here;
        largest = larger(largest, here);
    }
    return largest;
}

/* A row without a finite largest logit is replaced by one that has one and draws the same. */
static float prepare(draw *d, const float **logits)
{
    const float largest = find_largest(d, *logits);
    if (isfinite(largest)) return largest;
    for (uint32_t i = 0; i < d->n; i++) {
        const float x = (*logits)[i];
        d->row[i] = largest < 0 ? 0 : x > FLT_MAX ? FLT_MAX : x;
    }
    *logits = d->row;
    return find_largest(d, d->row);
}

static float weight(float logit, float largest, float temperature)
{
    return weight_exp((logit - largest) / temperature);
}

/* Sums of weights per block; returns all of them. */
static double find_sums(draw *d, const float *logits, float largest, float temperature)
{
    double total = 0;
    for (uint32_t b = 0; b < d->n_blocks; b++) {
        const uint32_t begin = b * DRAW_BLOCK, n = block_end(d, b) - begin;
        float x[DRAW_BLOCK], weights[DRAW_BLOCK];
        for (uint32_t i = n; i < DRAW_BLOCK; i++) x[i] = -INFINITY;
        memcpy(x, logits + begin, n * sizeof *x);
        for (uint32_t i = 0; i < DRAW_BLOCK; i++) weights[i] = weight(x[i], largest, temperature);
        for (int half = DRAW_BLOCK / 2; half >= 8; half /= 2)
            for (int i = 0; i < half; i++) weights[i] += weights[i + half];
        double sum = 0;
        for (int i = 0; i < 8; i++) sum += (double)weights[i];
        d->sums[b] = sum;
        total += sum;
    }
    return total;
}

/* ---- the best candidates ---- */

static bool ranks_before(candidate a, candidate b)
{
    return (a.logit > b.logit) | ((a.logit == b.logit) & (a.id < b.id)); /* no branches: none could be predicted */
}

static double one(candidate c, float largest)
{
    (void)c;
    (void)largest;
    return 1;
}

static double mass(candidate c, float largest)
{
    return (double)weight(c.logit, largest, 1);
}

/* Moves to the front what ranks before a pivot, then the pivot; returns how many those are. n > 0. */
static size_t split(candidate *c, size_t n)
{
    const candidate pivot = c[n / 2];
    c[n / 2] = c[n - 1];
    size_t front = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        const candidate at = c[i];
        c[i] = c[front];
        c[front] = at;
        front += ranks_before(at, pivot);
    }
    c[n - 1] = c[front];
    c[front] = pivot;
    return front + 1;
}

/* Moves the best to the front: as few as measure `target` together, at least one; returns how many (Hoare's
 * selection). n > 0. */
static size_t keep_best(candidate *c, size_t n, double target, double (*measure)(candidate, float), float largest)
{
    size_t kept = 0; /* surely among them */
    double before = 0;
    while (n - kept > 1) {
        const size_t front = split(c + kept, n - kept);
        double sum = 0; /* without the pivot, the last of them */
        for (size_t i = 0; i + 1 < front; i++) sum += measure(c[kept + i], largest);
        if (front > 1 && before + sum >= target) {
            n = kept + front - 1;
            continue;
        }
        before += sum + measure(c[kept + front - 1], largest);
        kept += front;
        if (before >= target) return kept;
    }
    return n;
}

/* A logit that all of the k best reach: so many blocks have one that does. */
static float bound_of_best(draw *d, uint32_t k)
{
    if (k > d->n_blocks) return -INFINITY;
    for (uint32_t b = 0; b < d->n_blocks; b++) d->candidates[b] = (candidate){d->largest[b], (int32_t)b};
    keep_best(d->candidates, d->n_blocks, k, one, 0);
    float bound = INFINITY;
    for (uint32_t i = 0; i < k; i++) bound = fminf(bound, d->candidates[i].logit);
    return bound;
}

/* A logit that everything of at least this weight reaches. */
static float bound_of_weight(double w, float largest)
{
    return nextafterf((float)((double)largest + log(w)), -INFINITY);
}

static size_t collect(draw *d, const float *logits, float bound)
{
    size_t n = 0;
    for (uint32_t b = 0; b < d->n_blocks; b++) {
        if (d->largest[b] < bound) continue;
        for (uint32_t i = b * DRAW_BLOCK; i < block_end(d, b); i++) {
            d->candidates[n] = (candidate){logits[i], (int32_t)i};
            n += logits[i] >= bound;
        }
    }
    return n;
}

/* What the cuts leave of the candidates [n], at the front. `total`: mass of the whole row, where top_p cuts it. */
static size_t cut(candidate *c, size_t n, const draw_cuts *cuts, float largest, double total)
{
    if (cuts->top_k > 0) n = keep_best(c, n, cuts->top_k, one, largest);
    if (cuts->top_p < 1) {
        if (cuts->top_k > 0) { /* mass of what top_k left */
            total = 0;
            for (size_t i = 0; i < n; i++) total += mass(c[i], largest);
        }
        n = keep_best(c, n, (double)cuts->top_p * total, mass, largest);
    }
    const double floor = log((double)cuts->min_p); /* -inf where it is off */
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)c[i].logit - (double)largest >= floor) c[kept++] = c[i];
    return kept;
}

/* ---- drawing ---- */

int32_t draw_best(draw *d, const float *logits)
{
    const float largest = prepare(d, &logits);
    uint32_t b = 0;
    while (d->largest[b] != largest) b++;
    uint32_t i = b * DRAW_BLOCK;
    while (logits[i] != largest) i++;
    return (int32_t)i;
}

static int32_t draw_of_all(draw *d, const float *logits, float largest, float temperature, rng *r)
{
    double left = rng_uniform(r) * find_sums(d, logits, largest, temperature);
    uint32_t b = 0, last = 0;
    for (; b < d->n_blocks && left >= d->sums[b]; b++) {
        if (d->sums[b] > 0) last = b;
        left -= d->sums[b];
    }
    if (b == d->n_blocks) b = last; /* rounding: the end of what has any weight */
    uint32_t drawn = b * DRAW_BLOCK;
    for (uint32_t i = drawn; i < block_end(d, b); i++) {
        const double w = (double)weight(logits[i], largest, temperature);
        if (w == 0) continue;
        drawn = i;
        left -= w;
        if (left < 0) break;
    }
    return (int32_t)drawn;
}

/* The candidates' logits become their weights. */
static int32_t draw_of(candidate *kept, size_t n, float largest, float temperature, rng *r)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        kept[i].logit = weight(kept[i].logit, largest, temperature);
        total += (double)kept[i].logit;
    }
    double left = rng_uniform(r) * total;
    int32_t drawn = kept[0].id;
    for (size_t i = 0; i < n; i++) {
        if (kept[i].logit == 0) continue;
        drawn = kept[i].id;
        left -= (double)kept[i].logit;
        if (left < 0) break;
    }
    return drawn;
}

int32_t draw_random(draw *d, const float *logits, const draw_cuts *asked, rng *r)
{
    const float largest = prepare(d, &logits);
    draw_cuts c = *asked;
    if (c.top_k >= d->n) c.top_k = 0;
    if (c.top_p == 0) c.top_p = 1;
    if (c.top_k == 0 && c.top_p == 1 && c.min_p == 0) return draw_of_all(d, logits, largest, c.temperature, r);

    float bound = -INFINITY;
    double total = 0;
    if (c.top_k > 0) {
        bound = bound_of_best(d, c.top_k);
    } else if (c.top_p < 1) { /* what is lighter than this weighs, all together, no more than top_p cuts off */
        total = find_sums(d, logits, largest, 1);
        bound = bound_of_weight((1 - (double)c.top_p) * total / d->n, largest);
    } else {
        bound = bound_of_weight((double)c.min_p, largest);
    }
    size_t n = collect(d, logits, bound);
    n = cut(d->candidates, n, &c, largest, total);
    return draw_of(d->candidates, n, largest, c.temperature, r);
}
