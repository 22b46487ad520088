/* accumulate_avx512.c: rows_accumulate for AVX-512.
 *
 * A nibble becomes its float by one vpermps on a table of 16, which reads only the low four bits of an index: low
 * nibbles need no mask and high ones a shift. Q4_K's table is made for every run, with scale and min in it. */
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
    const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(block + Q6_K_D)));
    v_store(out, v_mul(v_load_i8(block + Q6_K_SCALES), _mm512_broadcastss_ps(d)));
}

#include "tensor/simd_accumulate.h"

void rows_accumulate_avx512(dtype type, size_t width, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens)
{
    const accumulate_args args = {width, r_stride, rows, r, a, y, tokens};
    run_type(type, &args);
}

#endif
