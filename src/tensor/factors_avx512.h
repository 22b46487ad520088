/* factors_avx512.h: what rows_accumulate of AVX-512 multiplies quantized rows with: the scales of a block (row_block.h)
 * and a token's factors. */
#ifndef TENSOR_FACTORS_AVX512_H
#define TENSOR_FACTORS_AVX512_H

#include "tensor/lanes_avx512.h"
#include "tensor/row_block.h"

enum { MIDDLE = 128 };

/* ---- sums, maxima and ranges over lanes -------------------------------------------------------------------------- */

INLINE vi fold_most(vi a, vi b)
{
    return _mm512_max_epu32(a, b);
}

INLINE vi fold_float_sum(vi a, vi b)
{
    return _mm512_castps_si512(v_add(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

INLINE vi swap_neighbours(vi v)
{
    return _mm512_shuffle_i64x2(v, v, _MM_SHUFFLE(2, 3, 0, 1));
}

/* All lanes of each of eight vectors: words 0 .. 7 of the result, and again in 8 .. 15. */
INLINE vi fold_eight(fold f, const vi *v)
{
    const vi a = fold_four(f, v), b = fold_four(f, v + 4);
    const vi both =
        f(_mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(1, 0, 1, 0)), _mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
    const vi all = f(both, swap_neighbours(both)); /* a a b b */
    return _mm512_shuffle_i64x2(all, all, _MM_SHUFFLE(2, 0, 2, 0));
}

/* The same of 8 or 16 vectors, a word each. */
INLINE vi fold_runs(fold f, size_t runs, const vi *v)
{
    const vi low = fold_eight(f, v);
    return runs == 8 ? low : _mm512_mask_mov_epi32(low, 0xff00, fold_eight(f, v + 8));
}

/* to / most, and most / by, of magnitudes; zero where they are nearly zero. */
INLINE void range_of(vi most, float to, float by, vf *inverse, vf *unit)
{
    const __mmask16 normal = _mm512_cmp_ps_mask(_mm512_castsi512_ps(most), v_set1(ACT_TINY), _CMP_NLE_UQ);
    *inverse = _mm512_maskz_div_ps(normal, v_set1(to), _mm512_castsi512_ps(most));
    *unit = _mm512_maskz_mul_ps(normal, _mm512_castsi512_ps(most), v_set1(1 / by));
}

/* Two times 16 numbers as 16-bit integers. */
INLINE vi to_words(const vf *v, vf factor)
{
    return _mm512_packs_epi32(_mm512_cvtps_epi32(v_mul(v[0], factor)), _mm512_cvtps_epi32(v_mul(v[1], factor)));
}

/* ---- a block of rows --------------------------------------------------------------------------------------------- */

/* What is taken off the stored integers: the middle of their range, so that small errors of q_j meet small integers. */
INLINE int centre(dtype type)
{
    if (!has_min(type)) return run_offset(type);
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K ? 8 : 16;
}

/* The minima make up for what is taken off. */
INLINE void add_centre(dtype type, run_scales *s)
{
    if (!has_min(type)) return;
#pragma GCC unroll 8
    for (size_t i = 0; i < STRIP_UNITS; i++)
        v_store(s->m[i], v_fma(v_load(s->s[i]), v_set1((float)centre(type)), v_load(s->m[i])));
}

/* The scales of 16 rows, 0 for those that are not there. */
INLINE void sixteen_scales(dtype type, const uint8_t *w, size_t stride, size_t rows, size_t units, run_scales *out)
{
    if (rows >= LANES && units == STRIP_UNITS) {
        decode_rows(type, w, stride, out);
    } else {
        raw_scales raw;
        memset(&raw, 0, sizeof raw);
        for (size_t r = 0; r < rows && r < LANES; r++) raw_load_lane(type, w + r * stride, units, r, &raw);
        decode_scales(type, &raw, out);
    }
    add_centre(type, out);
}

INLINE void block_scales(dtype type, row_block *b)
{
    for (size_t h = 0; h < BLOCK_ROWS / LANES; h++) {
        const size_t before = h * LANES, there = b->rows > before ? b->rows - before : 0;
        sixteen_scales(type, b->w + before * b->stride, b->stride, there, b->units, &b->s[h]);
    }
}

INLINE void block_shares(dtype type, row_block *b)
{
    const size_t runs = scaled_runs(type, STRIP_UNITS);
    vi across[2 * STRIP_UNITS];
    float inverses[2 * STRIP_UNITS];
    vf inverse, unit;
#pragma GCC unroll 16
    for (size_t r = 0; r < runs; r++)
        across[r] = fold_most(magnitude(v_load(b->s[0].s[r])), magnitude(v_load(b->s[1].s[r])));
    range_of(fold_runs(fold_most, runs, across), SHARE_ONE, 127, &inverse, &unit);
    v_store(inverses, inverse);
    v_store(b->unit, unit);
#pragma GCC unroll 16
    for (size_t r = 0; r < runs; r++) {
        const vf scales[2] = {v_load(b->s[0].s[r]), v_load(b->s[1].s[r])};
        _mm512_store_si512(b->share[r], to_words(scales, v_set1(inverses[r])));
    }
}

/* Columns of unit u of four rows: two vectors of [16 columns][4 rows]. */
INLINE void unit_weights(dtype type, const row_block *b, size_t g, size_t u, vi *out)
{
    const bool whole = (g + 1) * GROUP <= b->rows;
    const uint8_t *w = whole ? b->w + g * GROUP * b->stride : b->last[0];
    vi quad[2];
    quad_run(type, w, whole ? b->stride : sizeof b->last[0], u, quad);
    out[0] = interleave_bytes(quad[0]);
    out[1] = interleave_bytes(quad[1]);
}

/* ---- a token's factors ------------------------------------------------------------------------------------------ */

/* q: four rows in a word, of two runs as packing leaves them (factor_of()); signed and of one token, with the start
 * that makes up for unsigned weights, or unsigned from MIDDLE; min: sum_j a_j min_j. */
typedef struct factors {
    uint32_t q[STRIP_UNITS][2 * GROUPS];
    int32_t start[2 * STRIP_UNITS];
    float beta[2 * STRIP_UNITS], min[2 * STRIP_UNITS];
} __attribute__((aligned(64))) factors;

/* Where packing 16-bit factors of two runs, in the order of share, leaves the four of group g of run r. */
INLINE uint32_t factor_of(const factors *f, size_t r, size_t g)
{
    return f->q[r / 2][g % 4 * 4 + r % 2 * 2 + g / 4];
}

/* Words t of every lane: all lanes of vector t. */
INLINE vi fold_across(fold f, const vi *v)
{
    const vi a = fold_four(f, v), b = f(a, _mm512_shuffle_i64x2(a, a, _MM_SHUFFLE(1, 0, 3, 2)));
    return f(b, swap_neighbours(b));
}

/* What a token's values of up to 32 rows are for every strip of columns: words a' (row_block.h) and max |a|. */
typedef struct values {
    vi words;
    float unit;
} values;

/* Of T tokens, whose waits go side by side; a[t] + j0: F32 [rows]. */
INLINE void token_values(size_t T, const float *const *a, size_t j0, size_t rows, values *out)
{
    const size_t low = rows < LANES ? rows : LANES;
    const vi none = _mm512_setzero_si512();
    vf v[FACTOR_TOKENS][2], inverse, unit;
    vi largest[FACTOR_TOKENS] = {none, none, none, none};
    float units[LANES];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        v[t][0] = v_load_part(a[t] + j0, low);
        v[t][1] = v_load_part(a[t] + j0 + LANES, rows - low);
        largest[t] = fold_most(magnitude(v[t][0]), magnitude(v[t][1]));
    }
    range_of(fold_across(fold_most, largest), VALUE_ONE, 1, &inverse, &unit);
    v_store(units, unit);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        out[t].words = to_words(v[t], _mm512_permutexvar_ps(_mm512_set1_epi32((int)t), inverse));
        out[t].unit = units[t];
    }
}

INLINE void token_mins(const row_block *b, const float *a, factors *out)
{
    const size_t low = b->rows < LANES ? b->rows : LANES;
    const vf first = v_load_part(a, low), second = v_load_part(a + LANES, b->rows - low);
    vi across[STRIP_UNITS];
#pragma GCC unroll 8
    for (size_t r = 0; r < STRIP_UNITS; r++) {
        const vf min = v_fma(v_load(b->s[1].m[r]), second, v_mul(v_load(b->s[0].m[r]), first));
        across[r] = _mm512_castps_si512(min);
    }
    v_store(out->min, _mm512_castsi512_ps(fold_runs(fold_float_sum, STRIP_UNITS, across)));
}

/* A token's factors for a block: with a start, or counted from MIDDLE. a: the values themselves. */
INLINE void token_factors(dtype type, bool from_middle, const row_block *b, const values *v, const float *a,
                          factors *out)
{
    const size_t runs = scaled_runs(type, STRIP_UNITS);
    const vi middle = _mm512_set1_epi8(-MIDDLE);
    vi across[2 * STRIP_UNITS];
    v_store(out->beta, v_mul(v_load(b->unit), v_set1(v->unit)));
    if (has_min(type)) token_mins(b, a, out);
#pragma GCC unroll 16
    for (size_t r = 0; r < runs; r += 2) {
        const vi q0 = _mm512_mulhrs_epi16(v->words, _mm512_load_si512(b->share[r]));
        const vi q1 = _mm512_mulhrs_epi16(v->words, _mm512_load_si512(b->share[r + 1]));
        const vi bytes = _mm512_packs_epi16(q0, q1);
        _mm512_store_si512(out->q[r / 2], from_middle ? _mm512_xor_si512(bytes, middle) : bytes);
        if (from_middle) continue;
        across[r] = _mm512_madd_epi16(q0, _mm512_set1_epi16(1));
        across[r + 1] = _mm512_madd_epi16(q1, _mm512_set1_epi16(1));
    }
    if (from_middle) return;
    const vi sums = fold_runs(fold_sum, runs, across);
    _mm512_store_si512(out->start, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-centre(type))));
}

#endif
