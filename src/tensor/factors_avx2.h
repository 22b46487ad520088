/* factors_avx2.h: what rows_accumulate of AVX2 multiplies quantized rows with: the scales of a block (row_block.h) and
 * a token's factors. */
#ifndef TENSOR_FACTORS_AVX2_H
#define TENSOR_FACTORS_AVX2_H

#include "tensor/lanes_avx2.h"
#include "tensor/row_block.h"

enum { QUARTERS = BLOCK_ROWS / LANES };

/* ---- sums, maxima and ranges over lanes -------------------------------------------------------------------------- */

/* The bits of a magnitude, which order as it does; NaN is largest. */
INLINE vi magnitude(vf v)
{
    return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}

INLINE vi fold_most(vi a, vi b)
{
    return _mm256_max_epu32(a, b);
}

INLINE vi fold_float_sum(vi a, vi b)
{
    return _mm256_castps_si256(v_add(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

/* All lanes of each of eight vectors, a lane each. */
INLINE vi fold_eight(fold f, const vi *v)
{
    const vi a = fold_four(f, v), b = fold_four(f, v + 4);
    return f(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

/* to / most, and most / by, of magnitudes; zero where they are nearly zero. */
INLINE void range_of(vi most, float to, float by, vf *inverse, vf *unit)
{
    const vf value = _mm256_castsi256_ps(most), normal = _mm256_cmp_ps(value, v_set1(ACT_TINY), _CMP_NLE_UQ);
    *inverse = _mm256_and_ps(normal, v_div(v_set1(to), value));
    *unit = _mm256_and_ps(normal, v_mul(value, v_set1(1 / by)));
}

/* Two times eight numbers as 16-bit integers: of each half those of the first before those of the second. */
INLINE vi to_words(vf a, vf b, vf factor)
{
    return _mm256_packs_epi32(_mm256_cvtps_epi32(v_mul(a, factor)), _mm256_cvtps_epi32(v_mul(b, factor)));
}

/* ---- a block of rows --------------------------------------------------------------------------------------------- */

/* What is taken off the stored integers: the middle of their range, so that small errors of q_j meet small integers.
 * Of Q8_0's high half. */
INLINE int middle(dtype type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K || type == DTYPE_Q8_0 ? 8 : centre(type);
}

INLINE void raw_block_scales(dtype type, row_block *b)
{
    raw_scales raw[QUARTERS];
    if (b->rows < BLOCK_ROWS) memset(raw, 0, sizeof raw);
    for (size_t h = 0; h < QUARTERS; h++) {
        const uint8_t *w = b->w + h * LANES * b->stride;
        if ((h + 1) * LANES <= b->rows && b->units == STRIP_UNITS)
            raw_load(type, w, b->stride, CHUNK_RUNS, &raw[h]);
        else
            for (size_t r = 0; r < LANES && h * LANES + r < b->rows; r++)
                raw_load_lane(type, w + r * b->stride, b->units, r, &raw[h]);
    }
    for (size_t h = 0; h < QUARTERS; h++) decode_raw(type, &raw[h], &b->s[h]);
}

INLINE void head_block_scales(dtype type, row_block *b)
{
    for (size_t h = 0; h < QUARTERS; h++) {
        const uint8_t *heads = b->w + h * LANES * b->stride + head_at(type);
        if ((h + 1) * LANES <= b->rows) {
            decode_heads(type, heads, b->stride, &b->s[h]);
            continue;
        }
        uint8_t some[LANES][HEAD_BYTES] = {{0}};
        for (size_t r = 0; r < LANES && h * LANES + r < b->rows; r++)
            memcpy(some[r], heads + r * b->stride, HEAD_BYTES);
        decode_heads(type, some[0], HEAD_BYTES, &b->s[h]);
    }
}

INLINE void block_scales(dtype type, row_block *b)
{
    if (is_k(type))
        head_block_scales(type, b);
    else
        raw_block_scales(type, b);
    if (!has_min(type) || middle(type) == centre(type)) return;
    const vf more = v_set1((float)(middle(type) - centre(type)));
    for (size_t h = 0; h < QUARTERS; h++)
        for (size_t i = 0; i < STRIP_UNITS; i++)
            v_store(b->s[h].m[i], v_fma(v_load(b->s[h].s[i]), more, v_load(b->s[h].m[i])));
}

INLINE void block_shares(dtype type, row_block *b)
{
    const size_t runs = scaled_runs(type, STRIP_UNITS);
    float inverses[2 * STRIP_UNITS];
    for (size_t r = 0; r < runs; r += LANES) {
        vi across[LANES];
        vf inverse, unit;
#pragma GCC unroll 8
        for (size_t i = 0; i < LANES; i++) {
            across[i] = magnitude(v_load(b->s[0].s[r + i]));
#pragma GCC unroll 4
            for (size_t h = 1; h < QUARTERS; h++) across[i] = fold_most(across[i], magnitude(v_load(b->s[h].s[r + i])));
        }
        range_of(fold_eight(fold_most, across), SHARE_ONE, 127, &inverse, &unit);
        v_store(inverses + r, inverse);
        v_store(b->unit + r, unit);
    }
    for (size_t r = 0; r < runs; r++) {
        const vf inverse = v_set1(inverses[r]);
        vi *const share = (vi *)(void *)b->share[r];
        _mm256_store_si256(share, to_words(v_load(b->s[0].s[r]), v_load(b->s[1].s[r]), inverse));
        _mm256_store_si256(share + 1, to_words(v_load(b->s[2].s[r]), v_load(b->s[3].s[r]), inverse));
    }
}

/* Columns of unit u of the four rows of group g: [16 columns][2 rows], rows 0 and 1 in the lower half, 2 and 3 in the
 * upper, as they are stored. */
INLINE void group_unit(dtype type, const row_block *b, size_t g, size_t u, vi *out)
{
    const bool whole = (g + 1) * GROUP <= b->rows;
    const uint8_t *w = whole ? b->w + g * GROUP * b->stride : b->last[0];
    const size_t stride = whole ? b->stride : sizeof b->last[0];
    vi even[2], odd[2];
    pair_run(type, w, 2 * stride, u, even);
    pair_run(type, w + stride, 2 * stride, u, odd);
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; h++) {
        out[2 * h] = _mm256_unpacklo_epi8(even[h], odd[h]);
        out[2 * h + 1] = _mm256_unpackhi_epi8(even[h], odd[h]);
    }
}

/* ---- a token's factors ------------------------------------------------------------------------------------------- */

/* q: [run][group], four rows in a word; signed, or unsigned from MIDDLE; min: sum_j a_j min_j. */
typedef struct factors {
    uint32_t q[2 * STRIP_UNITS][GROUPS];
    float beta[2 * STRIP_UNITS], min[STRIP_UNITS];
} __attribute__((aligned(32))) factors;

/* 16-bit factors in the order of to_words() as bytes in the order of the rows. */
INLINE vi pack_factors(vi q0, vi q1)
{
    const vi order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(q0, q1), order);
}

INLINE void token_mins(const row_block *b, const vf *a, factors *out)
{
    vi across[STRIP_UNITS];
#pragma GCC unroll 8
    for (size_t r = 0; r < STRIP_UNITS; r++) {
        vf sum = v_mul(v_load(b->s[0].m[r]), a[0]);
#pragma GCC unroll 4
        for (size_t h = 1; h < QUARTERS; h++) sum = v_fma(v_load(b->s[h].m[r]), a[h], sum);
        across[r] = _mm256_castps_si256(sum);
    }
    v_store(out->min, _mm256_castsi256_ps(fold_eight(fold_float_sum, across)));
}

/* Eight values of the rows of a block from `row` on; zeros after its last. */
INLINE vf values_at(const float *values, size_t row, size_t rows)
{
    if (row + LANES <= rows) return v_load(values + row);
    return row < rows ? v_load_part(values + row, rows - row) : v_zero();
}

/* The factors of T tokens, whose waits go side by side. values[t] + j0: of the rows of the block. */
INLINE void token_factors(dtype type, size_t T, bool from_middle, const row_block *b, const float *const *values,
                          size_t j0, factors *out)
{
    const size_t runs = scaled_runs(type, STRIP_UNITS);
    vi largest[FACTOR_TOKENS], words[FACTOR_TOKENS][2];
    vf a[FACTOR_TOKENS][QUARTERS], inverse, unit;
#pragma GCC unroll 4
    for (size_t t = 0; t < FACTOR_TOKENS; t++) {
        largest[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (size_t h = 0; t < T && h < QUARTERS; h++) {
            a[t][h] = values_at(values[t] + j0, h * LANES, b->rows);
            largest[t] = fold_most(largest[t], magnitude(a[t][h]));
        }
    }
    const vi halves = fold_four(fold_most, largest);
    range_of(fold_most(halves, _mm256_permute2x128_si256(halves, halves, 1)), VALUE_ONE, 1, &inverse, &unit);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        const vi lane = _mm256_set1_epi32((int)t);
        const vf factor = _mm256_permutevar8x32_ps(inverse, lane), by = _mm256_permutevar8x32_ps(unit, lane);
        words[t][0] = to_words(a[t][0], a[t][1], factor);
        words[t][1] = to_words(a[t][2], a[t][3], factor);
        for (size_t r = 0; r < runs; r += LANES) v_store(out[t].beta + r, v_mul(v_load(b->unit + r), by));
        if (has_min(type)) token_mins(b, a[t], &out[t]);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < runs; r++) {
        const vi *share = (const vi *)(const void *)b->share[r];
        const vi s0 = _mm256_load_si256(share), s1 = _mm256_load_si256(share + 1);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            const vi bytes = pack_factors(_mm256_mulhrs_epi16(words[t][0], s0), _mm256_mulhrs_epi16(words[t][1], s1));
            const vi q = from_middle ? _mm256_xor_si256(bytes, _mm256_set1_epi8(-MIDDLE)) : bytes;
            _mm256_store_si256((vi *)(void *)out[t].q[r], q);
        }
    }
}

#endif
