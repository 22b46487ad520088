/* lanes_avx512.h: 16 rows in the 16 lanes of a vector, for the integer products of rows_dot (lanes.h): their scales,
 * and what makes up for unsigned weights: integer sums begin with -offset times the sum of the quants. */
#ifndef TENSOR_LANES_AVX512_H
#define TENSOR_LANES_AVX512_H

#include "tensor/quads_avx512.h"

enum { LANES = 16, STARTS = 2 * CHUNK_RUNS };

/* ---- scales ------------------------------------------------------------------------------------------------------ */

/* What stands in the blocks of a chunk, row by row. Vectors read it whole what was written in pieces, so it is filled
 * well before it is decoded. */
typedef struct raw_scales {
    uint16_t d[LANES][CHUNK_RUNS], m[LANES][CHUNK_RUNS]; /* of blocks of 32 */
    uint16_t k_d[LANES], k_m[LANES];                     /* K-quants, with their levels: scales, minima */
    uint8_t levels[LANES][16];
} __attribute__((aligned(64))) raw_scales;

INLINE void raw_load_lane(dtype type, const uint8_t *w, size_t runs, size_t lane, raw_scales *raw)
{
    if (type == DTYPE_Q6_K) {
        raw->k_d[lane] = load_u16(w + Q6_K_D);
        memcpy(raw->levels[lane], w + Q6_K_SCALES, 16);
    } else if (is_k(type)) {
        uint64_t levels[2];
        q4_k_scales(w + Q4_K_SCALES, &levels[0], &levels[1]);
        memcpy(raw->levels[lane], levels, sizeof levels);
        raw->k_d[lane] = load_u16(w);
        raw->k_m[lane] = load_u16(w + Q4_K_DMIN);
    } else if (type == DTYPE_Q4_0 && runs == CHUNK_RUNS) {
        _mm_store_si128((__m128i *)(void *)raw->d[lane], q4_0_chunk_scales(w));
    } else {
#pragma GCC unroll 8
        for (size_t run = 0; run < runs; run++) {
            raw->d[lane][run] = load_u16(w + run * block_bytes(type));
            if (has_min(type)) raw->m[lane][run] = load_u16(w + run * block_bytes(type) + 2);
        }
    }
}

INLINE vf v_ints(vi v)
{
    return _mm512_cvtepi32_ps(v);
}

#include "tensor/lanes.h"

INLINE vf load_f16_lanes(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)p));
}

/* Four rows of 16 bytes */
INLINE vi four_rows(__m128i a, __m128i b, __m128i c, __m128i d)
{
    const vi v = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(v, c, 2), d, 3);
}

/* 16 rows of eight F16, four in a vector, into out[run][lane] F32. */
INLINE void transpose_halves(const vi *rows, float (*out)[LANES])
{
    /* Run r of four rows becomes a quarter of 64 bits, in the order that unpacking and pairing turn into 0 .. 7. */
    const vi quarters = _mm512_set_epi16(31, 23, 15, 7, 27, 19, 11, 3, 30, 22, 14, 6, 26, 18, 10, 2, 29, 21, 13, 5, 25,
                                         17, 9, 1, 28, 20, 12, 4, 24, 16, 8, 0);
    const vi low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    vi v[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) v[i] = _mm512_permutexvar_epi16(quarters, rows[i]);
    const vi a = _mm512_unpacklo_epi64(v[0], v[1]), b = _mm512_unpacklo_epi64(v[2], v[3]);
    const vi c = _mm512_unpackhi_epi64(v[0], v[1]), d = _mm512_unpackhi_epi64(v[2], v[3]);
    const vi pairs[4] = {_mm512_permutex2var_epi64(a, low, b), _mm512_permutex2var_epi64(a, high, b),
                         _mm512_permutex2var_epi64(c, low, d), _mm512_permutex2var_epi64(c, high, d)};
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        v_store(out[2 * i], _mm512_cvtph_ps(_mm512_castsi512_si256(pairs[i])));
        v_store(out[2 * i + 1], _mm512_cvtph_ps(_mm512_extracti64x4_epi64(pairs[i], 1)));
    }
}

/* 16 rows of 16 levels, four in a vector, into [16 levels][16 lanes]: lane l of v[e] has level 4 l + e of all rows. */
INLINE void transpose_levels(vi *v)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) v[i] = interleave_bytes(v[i]);
    transpose_words(v);
}

INLINE vf level_floats(dtype type, const vi *levels, size_t i)
{
    const __m128i bytes = _mm_load_si128((const __m128i *)(const void *)&levels[i % 4] + i / 4);
    return _mm512_cvtepi32_ps(type == DTYPE_Q6_K ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

/* rows: the levels as transpose_levels() takes them. */
INLINE void decode_k_scales(dtype type, const vi *rows, vf d, vf dmin, run_scales *out)
{
    vi levels[4] = {rows[0], rows[1], rows[2], rows[3]};
    transpose_levels(levels);
#pragma GCC unroll 16
    for (size_t i = 0; i < scaled_runs(type, CHUNK_RUNS); i++)
        v_store(out->s[i], v_mul(level_floats(type, levels, i), d));
    if (!has_min(type)) return;
    const vf minus = v_sub(v_zero(), dmin);
#pragma GCC unroll 8
    for (size_t i = 0; i < CHUNK_RUNS; i++) v_store(out->m[i], v_mul(level_floats(type, levels, i + 8), minus));
}

INLINE void load_rows(const void *at, vi *out)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) out[i] = _mm512_load_si512((const uint8_t *)at + 64 * i);
}

INLINE void decode_scales(dtype type, const raw_scales *raw, run_scales *out)
{
    vi rows[4];
    load_rows(is_k(type) ? (const void *)raw->levels : raw->d, rows);
    if (is_k(type)) {
        decode_k_scales(type, rows, load_f16_lanes(raw->k_d), load_f16_lanes(raw->k_m), out);
        return;
    }
    transpose_halves(rows, out->s);
    if (!has_min(type)) return;
    load_rows(raw->m, rows);
    transpose_halves(rows, out->m);
}

/* Level bytes of a row of K-quants. */
INLINE __m128i row_levels(dtype type, const uint8_t *w)
{
    if (type == DTYPE_Q6_K) return _mm_loadu_si128((const __m128i *)(w + Q6_K_SCALES));
    uint64_t scale, min;
    q4_k_scales(w + Q4_K_SCALES, &scale, &min);
    return _mm_set_epi64x((long long)min, (long long)scale);
}

/* The same scales at once, of a whole chunk of 16 rows: nothing goes through memory in pieces, so what comes before
 * need not be finished. */
INLINE void decode_rows(dtype type, const uint8_t *w, size_t stride, run_scales *out)
{
    vi rows[4], both = _mm512_setzero_si512();
    if (!is_k(type) && type != DTYPE_Q4_0) {
        raw_scales raw;
        raw_load(type, w, stride, CHUNK_RUNS, &raw);
        decode_scales(type, &raw, out);
        return;
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *p = w + 4 * i * stride;
        rows[i] = is_k(type) ? four_rows(row_levels(type, p), row_levels(type, p + stride),
                                         row_levels(type, p + 2 * stride), row_levels(type, p + 3 * stride))
                             : four_rows(q4_0_chunk_scales(p), q4_0_chunk_scales(p + stride),
                                         q4_0_chunk_scales(p + 2 * stride), q4_0_chunk_scales(p + 3 * stride));
    }
    if (!is_k(type)) {
        transpose_halves(rows, out->s);
        return;
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < LANES; r++) {
        const uint8_t *d = w + r * stride;
        const uint32_t word = type == DTYPE_Q6_K ? load_u16(d + Q6_K_D) : load_u32(d); /* d; below it dmin */
        both = _mm512_mask_set1_epi32(both, (__mmask16)(1u << r), (int)word);
    }
    decode_k_scales(type, rows, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both)),
                    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16))), out);
}

/* ---- sums of a run ---------------------------------------------------------------------------------------------- */

/* What the integer sums of a chunk's runs begin with, one for each scaled run. */
INLINE void chunk_starts(dtype type, const token *x, size_t runs, int32_t *out)
{
    const vi offset = _mm512_set1_epi32(-run_offset(type));
    const __mmask16 there = runs == CHUNK_RUNS ? (__mmask16)-1 : part(2 * runs);
    const vi halves = _mm512_maskz_loadu_epi32(there, x->half_sums);
    if (type == DTYPE_Q6_K) {
        _mm512_store_si512(out, _mm512_mullo_epi32(halves, offset));
        return;
    }
    const vi sums = _mm512_mullo_epi32(_mm512_add_epi32(halves, _mm512_srli_epi64(halves, 32)), offset);
    _mm256_store_si256((__m256i *)(void *)out, _mm512_cvtepi64_epi32(sums));
}

#endif
