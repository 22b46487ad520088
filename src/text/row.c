#include "text/row.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "text/weight.h"

#define BODY static inline __attribute__((always_inline))

/* ---- one block ---- */

/* A whole block: the last one is filled up with what weighs nothing. */
BODY const float *whole_block(const float *x, uint32_t n, uint32_t begin, float spare[ROW_BLOCK])
{
    if (n - begin >= ROW_BLOCK) return x + begin;
    for (uint32_t i = n - begin; i < ROW_BLOCK; i++) spare[i] = -INFINITY;
    return memcpy(spare, x + begin, (n - begin) * sizeof *x);
}

BODY float larger(float a, float b)
{
    return b > a ? b : a; /* a where b is NaN */
}

/* Several at a time, since a maximum waits for the one before it. */
BODY float largest_of_block(const float *x)
{
    enum { LANES = 16 };
    float lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = larger(-INFINITY, x[i]);
    for (int at = LANES; at < ROW_BLOCK; at += LANES)
        for (int i = 0; i < LANES; i++) lanes[i] = larger(lanes[i], x[at + i]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = larger(lanes[i], lanes[i + half]);
    return lanes[0];
}

/* Pairs that stand half a block apart, then those, down to 8; these one after the other. */
BODY double sum_of_block(float weights[ROW_BLOCK])
{
    for (int half = ROW_BLOCK / 2; half >= 8; half /= 2)
        for (int i = 0; i < half; i++) weights[i] += weights[i + half];
    double sum = 0;
    for (int i = 0; i < 8; i++) sum += (double)weights[i];
    return sum;
}

BODY int32_t bin_of(float x, float top, float scale)
{
    return (int32_t)((top - x) * scale);
}

BODY float bin_scale(float top, float low)
{
    return top > low ? (ROW_BINS - 1) / (top - low) : 0;
}

/* ---- whole rows ---- */

BODY float largest_body(const float *x, uint32_t n, float *largest)
{
    float top = -INFINITY, spare[ROW_BLOCK];
    for (uint32_t b = 0; b < row_blocks(n); b++) {
        largest[b] = largest_of_block(whole_block(x, n, b * ROW_BLOCK, spare));
        top = larger(top, largest[b]);
    }
    return top;
}

BODY double sums_body(const float *x, uint32_t n, const float *largest, float top, float temperature, row_cut cut,
                      double *sums)
{
    double total = 0;
    float spare[ROW_BLOCK], weights[ROW_BLOCK];
    for (uint32_t b = 0; b < row_blocks(n); b++) {
        sums[b] = 0;
        if (largest[b] < cut.logit) continue;
        const float *block = whole_block(x, n, b * ROW_BLOCK, spare);
        const int32_t ties = cut.id - (int32_t)(b * ROW_BLOCK); /* equal ones take part up to here */
        for (int32_t i = 0; i < ROW_BLOCK; i++) {
            const float w = weight_exp((block[i] - top) / temperature);
            weights[i] = (block[i] > cut.logit) | ((block[i] == cut.logit) & (i <= ties)) ? w : 0;
        }
        sums[b] = sum_of_block(weights);
        total += sums[b];
    }
    return total;
}

BODY void masses_body(const float *x, uint32_t n, const float *largest, float top, float low, double *bins)
{
    const float scale = bin_scale(top, low);
    float spare[ROW_BLOCK], weights[ROW_BLOCK];
    int32_t at[ROW_BLOCK];
    for (int i = 0; i < ROW_BINS_ROOM; i++) bins[i] = 0;
    for (uint32_t b = 0; b < row_blocks(n); b++) {
        if (largest[b] < low) continue;
        const float *block = whole_block(x, n, b * ROW_BLOCK, spare);
        for (int i = 0; i < ROW_BLOCK; i++) {
            const bool in = block[i] >= low;
            weights[i] = in ? weight_exp(block[i] - top) : 0;
            at[i] = in ? bin_of(block[i], top, scale) : ROW_BINS + i; /* each lane its own: none waits */
        }
        for (int i = 0; i < ROW_BLOCK; i++) bins[at[i]] += (double)weights[i];
    }
}

void row_bin_range(int32_t bin, float top, float low, float *least, float *most)
{
    const double width = ((double)top - (double)low) / (ROW_BINS - 1), margin = width / 64;
    *most = nextafterf((float)((double)top - bin * width + margin), INFINITY);
    *least = nextafterf((float)((double)top - (bin + 1) * width - margin), -INFINITY);
}

int32_t row_bin(float x, float top, float low)
{
    return bin_of(x, top, bin_scale(top, low));
}

/* Few of many: most blocks are passed over by one look at all of them. */
BODY size_t collect_body(const float *x, uint32_t n, const float *largest, float least, float most, candidate *out)
{
    size_t found = 0;
    float spare[ROW_BLOCK];
    for (uint32_t b = 0; b < row_blocks(n); b++) {
        if (largest[b] < least) continue;
        const uint32_t begin = b * ROW_BLOCK, len = n - begin < ROW_BLOCK ? n - begin : ROW_BLOCK;
        const float *block = whole_block(x, n, begin, spare);
        int any = 0;
        for (int i = 0; i < ROW_BLOCK; i++) any |= (block[i] >= least) & (block[i] <= most);
        if (!any) continue;
        for (uint32_t i = 0; i < len; i++) {
            out[found] = (candidate){block[i], (int32_t)(begin + i)};
            found += (block[i] >= least) & (block[i] <= most);
        }
    }
    return found;
}

/* ---- one of each for every instruction set ---- */

typedef struct passes {
    float (*largest)(const float *, uint32_t, float *);
    double (*sums)(const float *, uint32_t, const float *, float, float, row_cut, double *);
    void (*masses)(const float *, uint32_t, const float *, float, float, double *);
    size_t (*collect)(const float *, uint32_t, const float *, float, float, candidate *);
} passes;

#ifdef __x86_64__
#define FOR(isa) __attribute__((target(isa)))
#else
#define FOR(isa)
#endif

#define PASSES(name, isa)                                                                                              \
    FOR(isa) static float largest_##name(const float *x, uint32_t n, float *largest)                                   \
    {                                                                                                                  \
        return largest_body(x, n, largest);                                                                            \
    }                                                                                                                  \
    FOR(isa)                                                                                                           \
    static double sums_##name(const float *x, uint32_t n, const float *largest, float top, float temperature,          \
                              row_cut cut, double *sums)                                                               \
    {                                                                                                                  \
        return sums_body(x, n, largest, top, temperature, cut, sums);                                                  \
    }                                                                                                                  \
    FOR(isa)                                                                                                           \
    static void masses_##name(const float *x, uint32_t n, const float *largest, float top, float low, double *bins)    \
    {                                                                                                                  \
        masses_body(x, n, largest, top, low, bins);                                                                    \
    }                                                                                                                  \
    FOR(isa)                                                                                                           \
    static size_t collect_##name(const float *x, uint32_t n, const float *largest, float least, float most,            \
                                 candidate *out)                                                                       \
    {                                                                                                                  \
        return collect_body(x, n, largest, least, most, out);                                                          \
    }                                                                                                                  \
    static const passes passes_##name = {largest_##name, sums_##name, masses_##name, collect_##name};

PASSES(any, "sse2")
#ifdef __x86_64__
PASSES(avx2, "avx2")
PASSES(avx512, "avx512f,avx512bw,avx512dq,avx512vl")
#endif

static const passes *chosen(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &passes_avx512;
    if (__builtin_cpu_supports("avx2")) return &passes_avx2;
#endif
    return &passes_any;
}

float row_largest(const float *x, uint32_t n, float *largest)
{
    return chosen()->largest(x, n, largest);
}

double row_sums(const float *x, uint32_t n, const float *largest, float top, float temperature, row_cut cut,
                double *sums)
{
    return chosen()->sums(x, n, largest, top, temperature, cut, sums);
}

void row_masses(const float *x, uint32_t n, const float *largest, float top, float low, double *bins)
{
    chosen()->masses(x, n, largest, top, low, bins);
}

size_t row_collect(const float *x, uint32_t n, const float *largest, float least, float most, candidate *out)
{
    return chosen()->collect(x, n, largest, least, most, out);
}
