/* accumulate_avx512.c: rows_accumulate for AVX-512.
 *
 * A nibble becomes its float by one vpermps on a table of 16, which reads only the low four bits of an index: low
 * nibbles need no mask and high ones a shift. Where a run has a min, its table is made with scale and min in it. */
#if defined(__x86_64__)

#include "tensor/simd_avx512.h"

#include "tensor/accumulate.h"

enum { ONE_UNITS = 8, MANY_UNITS = 2, TILE_TOKENS = 4 };

INLINE __m512i load_16_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

INLINE void unit_q4_0(const uint8_t *block, vf *w)
{
    const vf table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i bytes = load_16_bytes(block + 2);
    w[0] = _mm512_permutexvar_ps(bytes, table);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table);
}

INLINE void unit_q4_1(const uint8_t *block, float step, float base, vf *w)
{
    const vf levels = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vf table = v_fma(levels, v_set1(step), v_set1(base));
    const __m512i bytes = load_16_bytes(block + Q4_1_QUANTS);
    w[0] = _mm512_permutexvar_ps(bytes, table);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table);
}

/* The low nibble of each byte, and 16 where its bit of `fifth` is set, less `zero`. */
INLINE vf fives(__m512i bytes, __mmask16 fifth, int zero)
{
    const __m512i nibbles = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
    const __m512i q = _mm512_mask_or_epi32(nibbles, fifth, nibbles, _mm512_set1_epi32(16));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(zero)));
}

INLINE void unit_fives(const uint8_t *high, const uint8_t *quants, int zero, vf *w)
{
    const __m512i bytes = load_16_bytes(quants);
    w[0] = fives(bytes, load_u16(high), zero);
    w[1] = fives(_mm512_srli_epi32(bytes, 4), load_u16(high + 2), zero);
}

INLINE void unit_q5_k(const uint8_t *block, size_t unit, vf *w)
{
    const uint8_t *q = block + Q5_K_QUANTS + unit / 2 * 32, *high = block + Q5_K_HIGH;
    const __m512i bit = _mm512_set1_epi32(1 << unit);
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const __mmask16 fifth = _mm512_test_epi32_mask(load_16_bytes(high + 16 * i), bit);
        w[i] = fives(_mm512_srli_epi32(load_16_bytes(q + 16 * i), 4 * (unit & 1)), fifth, 0);
    }
}

/* x = step q + base */
INLINE void place(float step, float base, vf *w)
{
    w[0] = v_fma(w[0], v_set1(step), v_set1(base));
    w[1] = v_fma(w[1], v_set1(step), v_set1(base));
}

INLINE void unit_q4_k(const uint8_t *block, size_t unit, float step, float base, vf *w)
{
    const vf levels = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vf table = v_fma(levels, v_set1(step), v_set1(base));
    const uint8_t *q = block + Q4_K_QUANTS + unit / 2 * 32;
    const unsigned shift = 4 * (unit & 1);
    w[0] = _mm512_permutexvar_ps(_mm512_srli_epi32(load_16_bytes(q), shift), table);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(load_16_bytes(q + 16), shift), table);
}

INLINE void unit_q6_k(const uint8_t *block, size_t unit, vf *w)
{
    const unsigned p = unit % 4;
    const __m256i low = _mm256_loadu_si256((const __m256i *)(block + unit / 4 * 64 + unit % 2 * 32));
    const __m256i high = _mm256_loadu_si256((const __m256i *)(block + Q6_K_HIGH + unit / 4 * 32));
    const __m256i low4 = p < 2 ? low : _mm256_srli_epi16(low, 4);
    const __m256i high2 = p == 3 ? _mm256_srli_epi16(high, 2) : _mm256_slli_epi16(high, 4 - 2 * p); /* in bits 4, 5 */
    const __m256i both = _mm256_ternarylogic_epi32(_mm256_set1_epi8(15), low4, high2, 0xca); /* 15 ? low : high */
    const __m256i q = _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(63)), _mm256_set1_epi8(32));
    w[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(q)));
    w[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1)));
}

/* Columns of unit `unit` of the strip at `row`; j: the row within its tile. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, const float (*s)[16], size_t j, vf *w)
{
    switch (type) {
    case DTYPE_F32:
        w[0] = v_load(row + 4 * UNIT * unit);
        w[1] = v_load(row + 4 * UNIT * unit + 64);
        break;
    case DTYPE_F16:
        w[0] = v_load_f16(row + 2 * UNIT * unit);
        w[1] = v_load_f16(row + 2 * UNIT * unit + 32);
        break;
    case DTYPE_BF16:
        w[0] = v_load_bf16(row + 2 * UNIT * unit);
        w[1] = v_load_bf16(row + 2 * UNIT * unit + 32);
        break;
    case DTYPE_Q8_0:
        w[0] = v_load_i8(row + Q8_0_BYTES * unit + 2);
        w[1] = v_load_i8(row + Q8_0_BYTES * unit + 18);
        break;
    case DTYPE_Q4_0:
        unit_q4_0(row + Q4_0_BYTES * unit, w);
        break;
    case DTYPE_Q4_1:
        unit_q4_1(row + Q4_1_BYTES * unit, s[unit][j], s[STRIP_UNITS + unit][j], w);
        break;
    case DTYPE_Q5_0:
        row += Q5_0_BYTES * unit;
        unit_fives(row + Q5_0_HIGH, row + Q5_0_QUANTS, 16, w);
        break;
    case DTYPE_Q5_1:
        row += Q5_1_BYTES * unit;
        unit_fives(row + Q5_1_HIGH, row + Q5_1_QUANTS, 0, w);
        place(s[unit][j], s[STRIP_UNITS + unit][j], w);
        break;
    case DTYPE_Q5_K:
        unit_q5_k(row, unit, w);
        place(s[j][unit], s[j][STRIP_UNITS + unit], w);
        break;
    case DTYPE_Q4_K:
        unit_q4_k(row, unit, s[j][unit], s[j][STRIP_UNITS + unit], w);
        break;
    default:
        unit_q6_k(row, unit, w);
    }
}

INLINE void decode_q4_k(const uint8_t *block, float *out)
{
    v_store(out, q4_k_factors(block));
}

INLINE void decode_q6_k(const uint8_t *block, float *out)
{
    v_store(out, v_mul(v_load_i8(block + Q6_K_SCALES), broadcast_f16(block + Q6_K_D)));
}

#include "tensor/simd_accumulate.h"

void rows_accumulate_avx512(dtype type, size_t width, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens)
{
    const accumulate_args args = {width, r_stride, rows, r, a, y, tokens};
    run_type(type, &args);
}

#endif
