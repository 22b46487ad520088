/* dot_few_avx2.h: rows_dot for one to a few tokens: weights go from memory to registers as pairs (pairs_avx2.h), eight
 * rows in four of them, and are unpacked once for all tokens; the sums of a run are folded into eight lanes
 * (lanes_avx2.h). What can be is added in 16 bits: four bits up to a run, five and six up to 8 elements; with
 * AVX-VNNI all is added in 32. */
#ifndef TENSOR_DOT_FEW_AVX2_H
#define TENSOR_DOT_FEW_AVX2_H

#include "tensor/lanes_avx2.h"

enum { FEW_TOKENS = 4, STARTS = 2 * CHUNK_RUNS };

/* What the integer sums of a chunk begin with, to take the centre off: one for each scaled run. Unsigned, since the
 * sums of quants that were no numbers may be anything. */
INLINE void chunk_starts(dtype type, const token *x, size_t runs, int32_t *out)
{
    const uint32_t off = 0u - (uint32_t)offset(type);
    if (off == 0) return;
    for (size_t i = 0; i < runs; i++) {
        uint32_t halves[2];
        memcpy(halves, x->half_sums + i * sizeof halves, sizeof halves);
        if (type == DTYPE_Q6_K)
            out[2 * i] = (int32_t)(off * halves[0]), out[2 * i + 1] = (int32_t)(off * halves[1]);
        else
            out[i] = (int32_t)(off * (halves[0] + halves[1]));
    }
}

INLINE vi broadcast_16(const uint8_t *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

/* 16 products of each of two rows in sums of two. Q8_0 moves its sign to the activation: 2 * 128 * 127 < 2^15. */
INLINE vi pair_products(dtype type, vi pair, vi x)
{
    if (type != DTYPE_Q8_0) return words_multiply(pair, x);
    return words_multiply(_mm256_abs_epi8(pair), _mm256_sign_epi8(x, pair));
}

/* Those of four pairs added up: a lane for every row. */
INLINE vi fold_pairs(dtype type, const vi *v)
{
    if (VNNI || type == DTYPE_Q8_0) return fold_four(fold_sum, v);
    if (type == DTYPE_Q4_0 || type == DTYPE_Q4_1 || type == DTYPE_Q4_K) return widen(fold_four(fold_words, v));
    const vi a = widen(fold_two(fold_words, v[0], v[1])), b = widen(fold_two(fold_words, v[2], v[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* Run `run` of eight rows, the chunk of the first of which begins at w. */
INLINE void load_pairs(dtype type, const uint8_t *w, size_t stride, size_t run, vi (*pairs)[2])
{
#pragma GCC unroll 4
    for (size_t p = 0; p < LANE_PAIRS; p++) pair_run(type, w + p * stride, LANE_PAIRS * stride, run, pairs[p]);
}

/* Products of pair p: of 32 elements in lo, or of 16 each in lo and hi. */
INLINE void multiply_pair(dtype type, const vi *pair, vi x0, vi x1, vi *lo, vi *hi)
{
    if (VNNI) {
        const vi zero = _mm256_setzero_si256();
        *lo = sums_multiply_add(zero, from_offset(type, pair[0]), x0);
        *hi = sums_multiply_add(type == DTYPE_Q6_K ? zero : *lo, from_offset(type, pair[1]), x1);
        if (type != DTYPE_Q6_K) *lo = *hi;
        return;
    }
    *lo = pair_products(type, pair[0], x0);
    *hi = pair_products(type, pair[1], x1);
    if (type == DTYPE_Q8_0)
        *lo = _mm256_add_epi32(widen(*lo), widen(*hi));
    else if (type != DTYPE_Q6_K)
        *lo = _mm256_add_epi16(*lo, *hi);
}

/* Asks for a chunk of row i of those that come later: the rows in turn, as they are multiplied, since there are but so
 * many requests under way. */
INLINE void ask_ahead(dtype type, size_t i, const uint8_t *next, size_t stride)
{
#pragma GCC unroll 8
    for (size_t b = 0; b < chunk_bytes(type); b += 64) __builtin_prefetch(next + i * stride + b);
}

/* Run i of eight rows for T tokens. One token's are multiplied as they are unpacked, or registers would not do. */
INLINE void few_run(dtype type, size_t T, size_t i, const uint8_t *w, size_t stride, const run_scales *s,
                    const token *x, const int32_t (*starts)[STARTS], const uint8_t *next, vf *sums)
{
    const size_t halves = type == DTYPE_Q6_K ? 2 : 1;
    vi pairs[LANE_PAIRS][2];
    ask_ahead(type, i, next, stride);
    if (T > 1) load_pairs(type, w, stride, i, pairs);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        const vi x0 = broadcast_16(x[t].quants + i * RUN), x1 = broadcast_16(x[t].quants + i * RUN + 16);
        vi products[2][LANE_PAIRS];
#pragma GCC unroll 4
        for (size_t p = 0; p < LANE_PAIRS; p++) {
            if (T == 1) pair_run(type, w + p * stride, LANE_PAIRS * stride, i, pairs[p]);
            multiply_pair(type, pairs[p], x0, x1, &products[0][p], &products[1][p]);
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < halves; h++) {
            const size_t run = halves * i + h;
            vi dot = fold_pairs(type, products[h]);
            if (offset(type)) dot = _mm256_add_epi32(dot, _mm256_set1_epi32(starts[t][run]));
            sums[t] = add_run(type, s, run, &x[t], dot, sums[t]);
        }
    }
}

/* Rows between those that are multiplied and those that are asked for: about as many bytes as half of the level-1
 * cache, into which they come. */
INLINE size_t rows_ahead(size_t stride)
{
    const size_t most = 20 * 1024;
    return stride > 0 && stride < most / LANES ? most / stride / LANES * LANES : LANES;
}

/* Eight rows for T tokens. */
INLINE void few_rows(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    const uint8_t *w = a->w + r0 * a->w_stride;
    const size_t ahead = r0 + rows_ahead(a->w_stride);
    const uint8_t *next = ahead < a->rows ? a->w + ahead * a->w_stride : a->next + (ahead - a->rows) * a->w_stride;
    raw_scales raw;
    run_scales s;
    vf sums[FEW_TOKENS];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) sums[t] = v_zero();
    size_t runs = a->n < CHUNK ? a->n / RUN : CHUNK_RUNS;
    if (!is_k(type)) raw_load(type, w, a->w_stride, runs, &raw);
    for (size_t c = 0; c < a->n; c += CHUNK, w += chunk_bytes(type), next += chunk_bytes(type)) {
        token x[FEW_TOKENS];
        int32_t starts[FEW_TOKENS][STARTS];
        const size_t here = runs, left = a->n - c - here * RUN;
        if (is_k(type))
            decode_heads(type, w + head_at(type), a->w_stride, &s);
        else
            decode_raw(type, &raw, &s);
        runs = left < CHUNK ? left / RUN : CHUNK_RUNS;
        if (runs && !is_k(type)) raw_load(type, w + chunk_bytes(type), a->w_stride, runs, &raw);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            x[t] = token_at(a->x[t0 + t], a->n, c);
            chunk_starts(type, &x[t], here, starts[t]);
        }
        if (is_k(type)) {
#pragma GCC unroll 8
            for (size_t i = 0; i < CHUNK_RUNS; i++)
                few_run(type, T, i, w, a->w_stride, &s, x, (const int32_t(*)[STARTS])starts, next, sums);
        } else {
            for (size_t i = 0; i < here; i++)
                few_run(type, T, i, w, a->w_stride, &s, x, (const int32_t(*)[STARTS])starts, next, sums);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) v_store(a->out[t0 + t] + r0, sums[t]);
}

/* Rows by eights, the last of which overlap those before. Fewer than eight are each eight times the same. */
INLINE void few_tokens(dtype type, size_t T, const dot_args *a, size_t t0)
{
    const bool alone = a->rows < LANES;
    for (size_t r = 0; r < a->rows; r += alone ? 1 : LANES) {
        float lanes[FEW_TOKENS][LANES], *out[FEW_TOKENS];
        dot_args same = *a;
        size_t first = r + LANES <= a->rows ? r : a->rows - LANES;
        if (alone) {
            for (size_t t = 0; t < T; t++) out[t] = lanes[t];
            same = (dot_args){a->n, a->w + r * a->w_stride, 0, LANES, a->x + t0, out, a->next};
            first = 0;
        }
        few_rows(type, T, &same, first, alone ? 0 : t0);
        for (size_t t = 0; alone && t < T; t++) a->out[t0 + t][r] = lanes[t][0];
    }
}

#endif
