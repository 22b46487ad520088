/* rows16_avx512.h: rows interleaved by sixteen (rows16.h) for AVX-512: a load brings four elements of each of 16 rows,
 * which is what a vector of products wants, so nothing is shuffled. */
#ifndef TENSOR_ROWS16_AVX512_H
#define TENSOR_ROWS16_AVX512_H

#include "tensor/lanes_avx512.h"
#include "tensor/rows16_read.h"

INLINE vi r16_load(const uint8_t *words, size_t i)
{
    return _mm512_loadu_si512(words + i * 4 * LANES);
}

/* Elements 4 e .. 4 e + 3 of run i + p, unsigned, of 16 rows; p < runs_together(), of which
 * i is a multiple. */
INLINE vi r16_word(dtype type, const r16_chunk *c, size_t i, size_t p, size_t e)
{
    const uint8_t *quants = c->quants + i * (type == DTYPE_Q8_0 ? 8 : 4) * 4 * LANES;
    switch (type) {
    case DTYPE_Q4_0:
        return e < 4 ? low_nibbles(r16_load(quants, p * 4 + e)) : high_nibbles(r16_load(quants, p * 4 + e - 4));
    case DTYPE_Q8_0:
        return _mm512_xor_si512(r16_load(quants, p * 8 + e), _mm512_set1_epi8(-128));
    case DTYPE_Q6_K:
        return q6_k_values(r16_load(quants, (p & 1) * 8 + e), r16_load(c->high + i * 2 * 4 * LANES, e), p);
    default: {
        const vi four = p ? high_nibbles(r16_load(quants, e)) : low_nibbles(r16_load(quants, e));
        return type == DTYPE_Q4_K ? four : q5_k_values(four, r16_load(c->high, e), i + p);
    }
    }
}

/* The levels of Q4_K and Q5_K, run by run for 16 rows: scales of runs 0 .. 7, then minima. */
INLINE void r16_levels_q4_k(const uint8_t *s, vi *out)
{
    const vi six = _mm512_set1_epi8(63), four = _mm512_set1_epi8(15), top = _mm512_set1_epi8(48);
    const vi a = _mm512_loadu_si512(s), b = _mm512_loadu_si512(s + 64), c = _mm512_loadu_si512(s + 128);
    out[0] = _mm512_and_si512(a, six);
    out[1] = _mm512_or_si512(_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi16(a, 2), top));
    out[2] = _mm512_and_si512(b, six);
    out[3] = _mm512_or_si512(high_nibbles(c), _mm512_and_si512(_mm512_srli_epi16(b, 2), top));
}

INLINE vf r16_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Level i of 16 rows */
INLINE vf r16_level(dtype type, const uint8_t *levels, size_t i)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(levels + i * LANES));
    return _mm512_cvtepi32_ps(type == DTYPE_Q6_K ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

INLINE void r16_scales(dtype type, const r16_chunk *c, size_t runs, run_scales *out)
{
    if (!is_k(type)) {
        for (size_t i = 0; i < runs; i++) v_store(out->s[i], r16_halves(c->d + 2 * LANES * i));
        return;
    }
    vi unpacked[4];
    const uint8_t *levels = c->levels;
    if (type != DTYPE_Q6_K) {
        r16_levels_q4_k(levels, unpacked);
        levels = (const uint8_t *)unpacked;
    }
    const vf d = r16_halves(c->d);
#pragma GCC unroll 16
    for (size_t i = 0; i < scaled_runs(type, CHUNK_RUNS); i++) v_store(out->s[i], v_mul(r16_level(type, levels, i), d));
    if (!has_min(type)) return;
    const vf minus = v_sub(v_zero(), r16_halves(c->d + 2 * LANES));
#pragma GCC unroll 8
    for (size_t i = 0; i < CHUNK_RUNS; i++) v_store(out->m[i], v_mul(r16_level(type, levels, i + 8), minus));
}

#endif
