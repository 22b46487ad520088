#include "text/draw.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "text/weight.h"

mp_status draw_init(draw *d, uint32_t n, mp_error *err)
{
    *d = (draw){.n = n, .n_blocks = row_blocks(n)};
    d->row = calloc(n, sizeof *d->row);
    d->largest = calloc(d->n_blocks, sizeof *d->largest);
    d->sums = calloc(d->n_blocks, sizeof *d->sums);
    d->bins = calloc(ROW_BINS_ROOM, sizeof *d->bins);
    d->candidates = calloc(n, sizeof *d->candidates);
    if (d->row && d->largest && d->sums && d->bins && d->candidates) return MP_OK;
    draw_clear(d);
    return status_no_memory(err, n * (sizeof *d->row + sizeof *d->candidates), "a sampler");
}

void draw_clear(draw *d)
{
    free(d->row);
    free(d->largest);
    free(d->sums);
    free(d->bins);
    free(d->candidates);
    *d = (draw){0};
}

static uint32_t block_end(const draw *d, uint32_t block)
{
    const uint32_t end = (block + 1) * ROW_BLOCK;
    return end < d->n ? end : d->n;
}

/* A row without a finite largest logit is replaced by one that has one and draws the same. */
static float prepare(draw *d, const float **logits)
{
    const float top = row_largest(*logits, d->n, d->largest);
    if (isfinite(top)) return top;
    for (uint32_t i = 0; i < d->n; i++) {
        const float x = (*logits)[i];
        d->row[i] = top < 0 ? 0 : x > FLT_MAX ? FLT_MAX : x;
    }
    *logits = d->row;
    return row_largest(d->row, d->n, d->largest);
}

static float weight(float logit, float largest, float temperature)
{
    return weight_exp((logit - largest) / temperature);
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

/* ---- cuts ---- */

static const row_cut everything = {-INFINITY, INT32_MAX};

/* The least logit of weight min_p beside the largest. */
static float least_of_weight(float min_p, float largest)
{
    const double floor = log((double)min_p);
    float least = bound_of_weight((double)min_p, largest);
    while ((double)least - (double)largest < floor) least = nextafterf(least, INFINITY);
    return least;
}

/* The worst of as few as weigh top_p of the row: by bins of neighbouring logits down to the one that it lies in, then
 * among those in there. */
static row_cut cut_of_mass(draw *d, const float *logits, float largest, float top_p)
{
    const double total = row_sums(logits, d->n, d->largest, largest, 1, everything, d->sums);
    /* what is lighter than `low` weighs, all together, no more than top_p cuts off */
    const float low = bound_of_weight((1 - (double)top_p) * total / d->n, largest);
    const double target = (double)top_p * total;
    double before = 0;
    int32_t bin = 0;
    row_masses(logits, d->n, d->largest, largest, low, d->bins);
    for (; bin < ROW_BINS && before + d->bins[bin] < target; bin++) before += d->bins[bin];
    if (bin == ROW_BINS) return (row_cut){low, INT32_MAX}; /* rounding */
    float least, most;
    row_bin_range(bin, largest, low, &least, &most);
    const size_t near = row_collect(logits, d->n, d->largest, fmaxf(least, low), most, d->candidates);
    size_t n = 0;
    for (size_t i = 0; i < near; i++)
        if (row_bin(d->candidates[i].logit, largest, low) == bin) d->candidates[n++] = d->candidates[i];
    n = keep_best(d->candidates, n, target - before, mass, largest);
    candidate worst = d->candidates[0];
    for (size_t i = 1; i < n; i++)
        if (ranks_before(worst, d->candidates[i])) worst = d->candidates[i];
    return (row_cut){worst.logit, worst.id};
}

/* What top_p and min_p leave of the k best [n], at the front. */
static size_t cut_best(candidate *c, size_t n, const draw_cuts *cuts, float largest)
{
    if (cuts->top_p < 1) {
        double total = 0;
        for (size_t i = 0; i < n; i++) total += mass(c[i], largest);
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
    uint32_t i = b * ROW_BLOCK;
    while (logits[i] != largest) i++;
    return (int32_t)i;
}

static int32_t draw_of_row(draw *d, const float *logits, float largest, float temperature, row_cut cut, rng *r)
{
    double left = rng_uniform(r) * row_sums(logits, d->n, d->largest, largest, temperature, cut, d->sums);
    uint32_t b = 0, last = 0;
    for (; b < d->n_blocks && left >= d->sums[b]; b++) {
        if (d->sums[b] > 0) last = b;
        left -= d->sums[b];
    }
    if (b == d->n_blocks) b = last; /* rounding: the end of what has any weight */
    uint32_t drawn = b * ROW_BLOCK;
    for (uint32_t i = drawn; i < block_end(d, b); i++) {
        if (logits[i] < cut.logit || (logits[i] == cut.logit && (int32_t)i > cut.id)) continue;
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
    if (c.top_k > 0) {
        const float bound = bound_of_best(d, c.top_k); /* uses the candidates */
        size_t n = row_collect(logits, d->n, d->largest, bound, INFINITY, d->candidates);
        n = keep_best(d->candidates, n, c.top_k, one, largest);
        n = cut_best(d->candidates, n, &c, largest);
        return draw_of(d->candidates, n, largest, c.temperature, r);
    }
    row_cut cut = everything;
    if (c.top_p < 1) cut = cut_of_mass(d, logits, largest, c.top_p);
    if (c.min_p > 0) {
        const float least = least_of_weight(c.min_p, largest);
        if (least > cut.logit) cut = (row_cut){least, INT32_MAX};
    }
    return draw_of_row(d, logits, largest, c.temperature, cut, r);
}
