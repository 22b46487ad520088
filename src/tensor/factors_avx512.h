/* factors_avx512.h: what rows_accumulate multiplies quantized rows with: a block of up to 32 rows in a strip of 256
 * columns, its scales, and a token's factors rounded to eight bits.
 *
 * For a token and a run of columns with one scale a row (32 columns, Q6_K 16):
 *
 *     f_j = a_j scale_j;  beta = max |f_j| / 127;  q_j = round(f_j / beta)
 *     y[c] = fma(beta, sum_j q_j w_jc, y[c]) + sum_j a_j min_j
 *
 * The rows are the lanes of two vectors (lanes_avx512.h), so a run's 32 factors are two multiplications; runs meet only
 * where something is summed up over the rows, eight runs at a time. */
#ifndef TENSOR_FACTORS_AVX512_H
#define TENSOR_FACTORS_AVX512_H

#include "tensor/accumulate.h"
#include "tensor/lanes_avx512.h"

enum { GROUP = 4, BLOCK_ROWS = 2 * LANES, GROUPS = BLOCK_ROWS / GROUP };

/* ---- a block of rows ----------------------------------------------------------------------------------------------
 */

/* Runs with a scale of their own in a strip. */
INLINE size_t strip_runs(dtype type)
{
    return scaled_runs(type, STRIP_UNITS);
}

/* What is taken off the stored integers: the middle of their range, so that small errors of q_j meet small integers. */
INLINE int centre(dtype type)
{
    if (!has_min(type)) return run_offset(type);
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K ? 8 : 16;
}

/* Rows of a strip; what fills the last group up to four is zero. next: the rows after these, or what is read soon after
 * all of them, or NULL. */
typedef struct row_block {
    const uint8_t *w, *next;
    size_t stride, rows, groups, units;
    run_scales s[2]; /* of 16 rows each; the minima make up for the centre, too */
    uint8_t last[GROUP][STRIP_UNITS * Q8_0_BYTES];
} __attribute__((aligned(64))) row_block;

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
    if (!has_min(type)) return;
#pragma GCC unroll 8
    for (size_t i = 0; i < STRIP_UNITS; i++)
        v_store(out->m[i], v_fma(v_load(out->s[i]), v_set1((float)centre(type)), v_load(out->m[i])));
}

/* Rows j0 .. and columns c0 .. of the call. */
INLINE void block_begin(dtype type, const accumulate_args *args, size_t j0, size_t c0, row_block *b)
{
    const uint8_t *w = args->r + j0 * args->stride + c0 / STRIP * chunk_bytes(type);
    const size_t left = args->rows - j0, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS, stride = args->stride;
    const size_t columns = (args->width - c0) / UNIT, units = columns < STRIP_UNITS ? columns : STRIP_UNITS;
    const size_t whole = rows / GROUP * GROUP;
    b->w = w, b->stride = stride, b->rows = rows, b->units = units;
    b->next = left > BLOCK_ROWS ? w + BLOCK_ROWS * stride : args->next;
    b->groups = (rows + GROUP - 1) / GROUP;
    for (size_t h = 0; h < 2; h++) {
        const size_t before = h * LANES, there = rows > before ? rows - before : 0;
        sixteen_scales(type, w + before * stride, stride, there, units, &b->s[h]);
    }
    if (whole == rows) return;
    memset(b->last, 0, sizeof b->last);
    for (size_t j = whole; j < rows; j++)
        memcpy(b->last[j - whole], w + j * stride, is_k(type) ? block_bytes(type) : units * block_bytes(type));
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

/* q: [run][group], four rows in a word; start: what makes up for unsigned weights; min: sum_j a_j min_j. */
typedef struct factors {
    uint32_t q[2 * STRIP_UNITS][GROUPS];
    int32_t start[2 * STRIP_UNITS];
    float beta[2 * STRIP_UNITS], inverse[2 * STRIP_UNITS], min[2 * STRIP_UNITS];
} __attribute__((aligned(64))) factors;

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

/* Rounded factors of runs r and r + 1, ints [run][half of the rows], as [run][group][4 rows]. */
INLINE vi pack_factors(const vi (*ints)[2])
{
    const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const vi bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(ints[0][0], ints[0][1]), _mm512_packs_epi32(ints[1][0], ints[1][1]));
    return _mm512_permutexvar_epi32(order, bytes);
}

/* The factors of run r before they are rounded, of two times 16 rows. */
INLINE void run_factors(const row_block *b, size_t r, const vf *a, vf *f)
{
    f[0] = v_mul(v_load(b->s[0].s[r]), a[0]);
    f[1] = v_mul(v_load(b->s[1].s[r]), a[1]);
}

INLINE void row_values(const row_block *b, const float *values, vf *a)
{
    const size_t low = b->rows < LANES ? b->rows : LANES;
    a[0] = v_load_part(values, low);
    a[1] = v_load_part(values + LANES, b->rows - low);
}

/* beta, and what the factors are multiplied with. Apart from the rest, since it ends with a long wait: several tokens'
 * go side by side. */
INLINE void token_ranges(dtype type, const row_block *b, const float *values, factors *out)
{
    const size_t runs = strip_runs(type);
    const vi magnitude = _mm512_set1_epi32(0x7fffffff);
    vf a[2], f[2];
    vi across[2 * STRIP_UNITS];
    row_values(b, values, a);
#pragma GCC unroll 16
    for (size_t r = 0; r < runs; r++) {
        run_factors(b, r, a, f);
        across[r] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(f[0]), magnitude),
                                     _mm512_and_si512(_mm512_castps_si512(f[1]), magnitude));
    }
    const vf most = _mm512_castsi512_ps(fold_runs(fold_most, runs, across)), tiny = v_set1(ACT_TINY); /* NaN is most */
    const __mmask16 zero = _mm512_cmp_ps_mask(most, tiny, _CMP_LE_OQ),
                    normal = _mm512_cmp_ps_mask(most, tiny, _CMP_GT_OQ);
    v_store(out->beta, _mm512_mask_mov_ps(v_mul(most, v_set1(1.0f / 127)), zero, v_zero()));
    v_store(out->inverse, _mm512_maskz_div_ps(normal, v_set1(127), most));
}

INLINE void round_factors(dtype type, const row_block *b, const float *values, factors *out)
{
    const size_t runs = strip_runs(type);
    vf a[2], f[2];
    vi across[2 * STRIP_UNITS], ints[2][2];
    row_values(b, values, a);
#pragma GCC unroll 16
    for (size_t r = 0; r < runs; r++) {
        const vf scale = v_set1(out->inverse[r]);
        run_factors(b, r, a, f);
        ints[r % 2][0] = _mm512_cvtps_epi32(v_mul(f[0], scale));
        ints[r % 2][1] = _mm512_cvtps_epi32(v_mul(f[1], scale));
        across[r] = _mm512_add_epi32(ints[r % 2][0], ints[r % 2][1]);
        if (r % 2) _mm512_store_si512(out->q[r - 1], pack_factors((const vi(*)[2])ints));
    }
    const vi sums = fold_runs(fold_sum, runs, across);
    _mm512_store_si512(out->start, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-centre(type))));
    if (!has_min(type)) return;
#pragma GCC unroll 8
    for (size_t r = 0; r < STRIP_UNITS; r++) {
        const vf min = v_fma(v_load(b->s[1].m[r]), a[1], v_mul(v_load(b->s[0].m[r]), a[0]));
        across[r] = _mm512_castps_si512(min);
    }
    v_store(out->min, _mm512_castsi512_ps(fold_runs(fold_float_sum, STRIP_UNITS, across)));
}

#endif
