/* rows16_avx2.h: rows interleaved by sixteen (rows16.h) for AVX2: a load brings four elements of each of eight rows,
 * half of a unit of 64 bytes, which is what a vector of products wants, so nothing is shuffled. */
#ifndef TENSOR_ROWS16_AVX2_H
#define TENSOR_ROWS16_AVX2_H

#include "tensor/lanes_avx2.h"

#include "tensor/rows16_read.h"

enum { R16_HALVES = ROWS16 / LANES };

INLINE vi r16_load(const uint8_t *words, size_t i, size_t half)
{
    return _mm256_loadu_si256((const vi *)(const void *)(words + (i * ROWS16 + half * LANES) * 4));
}

/* Elements 4 e .. 4 e + 3 of run i + p of rows 8 half .., as pairs have them; p < runs_together(), of which i is a
 * multiple. */
INLINE vi r16_word(dtype type, const r16_chunk *c, size_t i, size_t p, size_t e, size_t half)
{
    const uint8_t *quants = c->quants + i * (type == DTYPE_Q8_0 ? 8 : 4) * 4 * ROWS16;
    switch (type) {
    case DTYPE_Q4_0:
        return e < 4 ? low_nibbles(r16_load(quants, e, half)) : high_nibbles(r16_load(quants, e - 4, half));
    case DTYPE_Q8_0:
        return r16_load(quants, e, half);
    case DTYPE_Q6_K: {
        const vi low = r16_load(quants, (p & 1) * 8 + e, half);
        const vi high = r16_load(c->high + i * 2 * 4 * ROWS16, e, half);
        return _mm256_or_si256(p < 2 ? low_nibbles(low) : high_nibbles(low), bits_to_4(high, 2 * p, 0x30));
    }
    default: {
        const vi both = r16_load(quants, e, half), four = p ? high_nibbles(both) : low_nibbles(both);
        if (type == DTYPE_Q4_K) return four;
        const vi top = r16_load(c->high, e, half); /* the bit's place is known where the loop is unrolled */
        return _mm256_or_si256(four, bits_to_4(top, i + p, 16));
    }
    }
}

/* The levels of Q4_K and Q5_K, run by run for 16 rows: scales of runs 0 .. 7, then minima. */
INLINE void r16_levels_q4_k(const uint8_t *s, vi *out)
{
    const vi six = _mm256_set1_epi8(63), top = _mm256_set1_epi8(48);
#pragma GCC unroll 2
    for (size_t k = 0; k < 2; k++) {
        const vi *at = (const vi *)(const void *)s + k;
        const vi a = _mm256_loadu_si256(at), b = _mm256_loadu_si256(at + 2), c = _mm256_loadu_si256(at + 4);
        out[k] = _mm256_and_si256(a, six);
        out[2 + k] = _mm256_or_si256(low_nibbles(c), _mm256_and_si256(_mm256_srli_epi16(a, 2), top));
        out[4 + k] = _mm256_and_si256(b, six);
        out[6 + k] = _mm256_or_si256(high_nibbles(c), _mm256_and_si256(_mm256_srli_epi16(b, 2), top));
    }
}

/* Level i of eight rows */
INLINE vf r16_level(dtype type, const uint8_t *levels, size_t i, size_t half)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(levels + i * ROWS16 + half * LANES));
    return _mm256_cvtepi32_ps(type == DTYPE_Q6_K ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
}

/* The scales of a chunk of 16 rows. */
INLINE void r16_scales(dtype type, const r16_chunk *c, size_t runs, run_scales *out)
{
    vi unpacked[8];
    const uint8_t *levels = c->levels;
    if (type == DTYPE_Q4_K || type == DTYPE_Q5_K) {
        r16_levels_q4_k(levels, unpacked);
        levels = (const uint8_t *)unpacked;
    }
#pragma GCC unroll 2
    for (size_t h = 0; h < R16_HALVES; h++) {
        const uint8_t *d = c->d + h * 2 * LANES;
        if (!is_k(type)) {
            for (size_t i = 0; i < runs; i++) v_store(out[h].s[i], v_load_f16(d + 2 * ROWS16 * i));
            continue;
        }
        const vf scale = v_load_f16(d);
#pragma GCC unroll 16
        for (size_t i = 0; i < scaled_runs(type, CHUNK_RUNS); i++)
            v_store(out[h].s[i], v_mul(r16_level(type, levels, i, h), scale));
        if (!has_min(type)) continue;
        const vf minus = v_sub(v_zero(), v_load_f16(d + 2 * ROWS16));
#pragma GCC unroll 8
        for (size_t i = 0; i < CHUNK_RUNS; i++) {
            const vf min = v_mul(r16_level(type, levels, i + 8, h), minus);
            v_store(out[h].m[i], centred_min(type, v_load(out[h].s[i]), min));
        }
    }
}

/* What the words of a run's sums begin with, two to a lane, to take the centre off. */
INLINE void r16_starts(dtype type, const token *x, size_t runs, uint32_t *out)
{
    if (offset(type) == 0) return;
    for (size_t i = 0; i < runs; i += 4, out += scaled_runs(type, 4)) {
        vi v[4];
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            const vi *quants = (const vi *)(const void *)(x->quants + (i + k) * RUN);
            v[k] = _mm256_setzero_si256();
            if (i + k < runs)
                v[k] = sums_multiply_add(v[k], _mm256_set1_epi8((char)offset(type)), _mm256_loadu_si256(quants));
        }
        const vi sums = sums_negative(fold_four(fold_sums, v));
        const __m128i low = _mm256_castsi256_si128(sums), high = _mm256_extracti128_si256(sums, 1);
        __m128i *to = (__m128i *)(void *)out;
        if (type == DTYPE_Q6_K) { /* half by half of each run */
            _mm_storeu_si128(to, _mm_unpacklo_epi32(low, high));
            _mm_storeu_si128(to + 1, _mm_unpackhi_epi32(low, high));
        } else {
            _mm_storeu_si128(to, VNNI ? _mm_add_epi32(low, high) : _mm_add_epi16(low, high));
        }
    }
}

#endif
