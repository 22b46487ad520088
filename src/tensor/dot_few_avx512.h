/* dot_few_avx512.h: rows_dot for one to a few tokens: weights go from memory to registers as quads (quads_avx512.h),
 * four rows a vector; their partial sums are added up into 16 lanes (lanes_avx512.h). */
#ifndef TENSOR_DOT_FEW_AVX512_H
#define TENSOR_DOT_FEW_AVX512_H

#include "tensor/lanes_avx512.h"

enum { DIRECT_TOKENS = 4 };

/* ---- several tokens ---------------------------------------------------------------------------------------------- */

INLINE vi broadcast_16(const uint8_t *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}

/* Sums of a run's products with the quants q: of 32 in dots[0], or of 16 each in dots[0] and dots[1]. */
INLINE void multiply(bool halves, const vi *quad, const uint8_t *q, vi *dots)
{
    const vi lo = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quad[0], broadcast_16(q));
    dots[0] = lo;
    dots[halves] = _mm512_dpbusd_epi32(halves ? _mm512_setzero_si512() : lo, quad[1], broadcast_16(q + 16));
}

/* Run i of 16 rows. */
INLINE void direct_run(dtype type, size_t T, size_t i, const uint8_t *w, size_t stride, const run_scales *s,
                       const token *x, const int32_t (*starts)[STARTS], const uint8_t *next, vf *sums)
{
    const bool halves = type == DTYPE_Q6_K;
    const size_t bytes = LANES * chunk_bytes(type) / CHUNK_RUNS;
    vi dots[DIRECT_TOKENS][2][4];
#pragma GCC unroll 16
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + i * bytes + b, 0, 2);
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        vi quad[2];
        quad_run(type, w + g * stride, 4 * stride, i, quad);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            vi both[2];
            multiply(halves, quad, x[t].quants + i * RUN, both);
            dots[t][0][g] = both[0];
            dots[t][halves][g] = both[halves];
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
#pragma GCC unroll 2
        for (size_t h = 0; h <= halves; h++) {
            const size_t run = halves ? 2 * i + h : i;
            const vi dot = _mm512_add_epi32(fold_four(fold_sum, dots[t][h]), _mm512_set1_epi32(starts[t][run]));
            sums[t] = add_run(type, s, run, &x[t], dot, sums[t]);
        }
    }
}

/* 16 rows for T tokens. */
INLINE void direct(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    const uint8_t *w = a->w + r0 * a->w_stride;
    const uint8_t *next = r0 + LANES < a->rows ? w + LANES * a->w_stride : a->next;
    raw_scales raw;
    run_scales s;
    vf sums[DIRECT_TOKENS];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) sums[t] = v_zero();
    size_t runs = a->n < CHUNK ? a->n / RUN : CHUNK_RUNS;
    raw_load(type, w, a->w_stride, runs, &raw);
    for (size_t c = 0; c < a->n; c += CHUNK, w += chunk_bytes(type), next += LANES * chunk_bytes(type)) {
        token x[DIRECT_TOKENS];
        int32_t starts[DIRECT_TOKENS][STARTS] __attribute__((aligned(64)));
        const size_t here = runs, left = a->n - c - here * RUN;
        decode_scales(type, &raw, &s);
        runs = left < CHUNK ? left / RUN : CHUNK_RUNS;
        if (runs) raw_load(type, w + chunk_bytes(type), a->w_stride, runs, &raw);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            x[t] = token_at(a->x[t0 + t], a->n, c);
            chunk_starts(type, &x[t], here, starts[t]);
        }
        if (here == CHUNK_RUNS) {
#pragma GCC unroll 8
            for (size_t i = 0; i < CHUNK_RUNS; i++) direct_run(type, T, i, w, a->w_stride, &s, x, starts, next, sums);
        } else {
            for (size_t i = 0; i < here; i++) direct_run(type, T, i, w, a->w_stride, &s, x, starts, next, sums);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) v_store(a->out[t0 + t] + r0, sums[t]);
}

/* ---- one token -------------------------------------------------------------------------------------------------- */

/* What up to 16 rows give for SEGMENT chunks before scales are applied. Rows are read four at a time, which is how
 * memory answers soonest, but scaled 16 at a time. Row 4 g + l belongs to lane 4 l + g. */
enum { SEGMENT = 8 };

typedef struct products {
    vi dots[SEGMENT][2][2][4]; /* [chunk][run / 4][half][g]: lane l has four runs of row 4 g + l */
    raw_scales raw[SEGMENT];
} products;

/* Rows between those that are multiplied and those that are asked for: about as many bytes as a third of the level-1
 * cache, into which they come. */
INLINE size_t rows_ahead(size_t stride)
{
    const size_t most = 14 * 1024;
    return stride > 0 && stride < most / 4 ? most / stride / 4 * 4 : 4;
}

/* Half a chunk of four rows, or the first `count` of its four runs. `next`: asked for between them, NULL: nothing. */
INLINE void multiply_half(dtype type, const uint8_t *w, size_t stride, size_t half, size_t count, const uint8_t *quants,
                          const uint8_t *next, vi *out)
{
    const bool halves = type == DTYPE_Q6_K;
    vi dots[8];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++) {
        vi quad[2], *both = dots + (halves ? 2 * k : k);
        if (k >= count) {
            both[0] = both[halves] = _mm512_setzero_si512();
            continue;
        }
        vi sums[2];
        if (next) ask_lines(next, 2 * chunk_bytes(type), k, 4);
        quad_run(type, w, stride, 4 * half + k, quad);
        multiply(halves, quad, quants + (4 * half + k) * RUN, sums);
        both[0] = sums[0];
        both[halves] = sums[halves];
    }
    out[0] = fold_four(fold_sum, dots);
    if (halves) out[4] = fold_four(fold_sum, dots + 4);
}

/* Four rows over `chunks` chunks of at most `runs` runs. */
INLINE void multiply_rows(dtype type, size_t g, const uint8_t *w, size_t stride, size_t runs, const uint8_t *quants,
                          const uint8_t *next, products *p)
{
    for (size_t c = 0; c * CHUNK_RUNS < runs; c++, w += chunk_bytes(type), next += 4 * chunk_bytes(type)) {
        const size_t left = runs - c * CHUNK_RUNS;
        if (left >= CHUNK_RUNS) {
#pragma GCC unroll 4
            for (size_t l = 0; l < 4; l++) raw_load_lane(type, w + l * stride, CHUNK_RUNS, 4 * l + g, &p->raw[c]);
#pragma GCC unroll 2
            for (size_t half = 0; half < 2; half++)
                multiply_half(type, w, stride, half, 4, quants + c * CHUNK, next + half * 2 * chunk_bytes(type),
                              &p->dots[c][half][0][g]);
        } else {
            for (size_t l = 0; l < 4; l++) raw_load_lane(type, w + l * stride, left, 4 * l + g, &p->raw[c]);
            for (size_t half = 0; 4 * half < left; half++)
                multiply_half(type, w, stride, half, left - 4 * half, quants + c * CHUNK, NULL,
                              &p->dots[c][half][0][g]);
        }
    }
}

INLINE vf scale_products(dtype type, const products *p, size_t runs, const void *act, size_t n, size_t at, vf sum)
{
    const bool halves = type == DTYPE_Q6_K;
    run_scales s;
    int32_t starts[STARTS] __attribute__((aligned(64)));
    for (size_t c = 0; c * CHUNK_RUNS < runs; c++) {
        const size_t left = runs - c * CHUNK_RUNS, here = left < CHUNK_RUNS ? left : CHUNK_RUNS;
        const size_t scaled = scaled_runs(type, here);
        const token x = token_at(act, n, at + c * CHUNK);
        chunk_starts(type, &x, here, starts);
        decode_scales(type, &p->raw[c], &s);
        for (size_t i = 0; i < scaled; i += 4) {
            vi dots[4];
            memcpy(dots, halves ? p->dots[c][i / 8][i / 4 % 2] : p->dots[c][i / 4][0], sizeof dots);
            transpose_words(dots);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++) {
                if (i + k >= scaled) break;
                const vi dot = _mm512_add_epi32(dots[k], _mm512_set1_epi32(starts[i + k]));
                sum = add_run(type, &s, i + k, &x, dot, sum);
            }
        }
    }
    return sum;
}

/* 4, 8, 12 or 16 rows. */
INLINE void one_token(dtype type, const dot_args *a, size_t r0, size_t rows, size_t t)
{
    const size_t rows_between = rows_ahead(a->w_stride);
    products p;
    vf sum = v_zero();
    if (rows < LANES) memset(&p, 0, sizeof p);
    for (size_t at = 0; at < a->n; at += SEGMENT * CHUNK) {
        const size_t left = (a->n - at) / RUN, runs = left < SEGMENT * CHUNK_RUNS ? left : SEGMENT * CHUNK_RUNS;
        for (size_t g = 0; g < rows / 4; g++) {
            const size_t row = r0 + 4 * g, ahead = row + rows_between;
            const uint8_t *next =
                ahead < a->rows ? a->w + ahead * a->w_stride : a->next + (ahead - a->rows) * a->w_stride;
            multiply_rows(type, g, a->w + row * a->w_stride + at / CHUNK * chunk_bytes(type), a->w_stride, runs,
                          (const uint8_t *)act_quants(a->x[t]) + at, next + 4 * at / CHUNK * chunk_bytes(type), &p);
        }
        sum = scale_products(type, &p, runs, a->x[t], a->n, at, sum);
    }
    float lanes[LANES];
    v_store(lanes, sum);
    for (size_t r = 0; r < rows; r++) a->out[t][r0 + r] = lanes[r % 4 * 4 + r / 4];
}

#endif
