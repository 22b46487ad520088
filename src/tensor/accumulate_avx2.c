/* accumulate_avx2.c: rows_accumulate for AVX2. Quants become 8-bit integers, then floats; the level of a format with an
 * offset is taken off while they are integers. */
#if defined(__x86_64__)

#include "tensor/simd_avx2.h"

#include "tensor/accumulate.h"

enum { ONE_UNITS = 2, MANY_UNITS = 1, TILE_TOKENS = 2 };

/* 16 signed bytes as two vectors */
INLINE void floats_of(__m128i bytes, vf *w)
{
    w[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    w[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)));
}

INLINE __m128i load_16_bytes(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

INLINE __m128i nibbles(__m128i bytes, unsigned shift)
{
    return _mm_and_si128(_mm_srl_epi16(bytes, _mm_cvtsi32_si128((int)shift)), _mm_set1_epi8(15));
}

/* The 32 nibbles of a block, less `zero`. */
INLINE void unit_nibbles(const uint8_t *quants, char zero, vf *w)
{
    const __m128i bytes = load_16_bytes(quants), level = _mm_set1_epi8(zero);
    floats_of(_mm_sub_epi8(nibbles(bytes, 0), level), w);
    floats_of(_mm_sub_epi8(nibbles(bytes, 4), level), w + 2);
}

/* 16 where a byte has all of the bits `bit`. */
INLINE __m128i fifth_where(__m128i bytes, __m128i bit)
{
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit), _mm_set1_epi8(16));
}

/* The same from 16 bits, one a byte. */
INLINE __m128i fifth_bits(const uint8_t *high)
{
    const __m128i which = _mm_set_epi64x(0x0101010101010101, 0);
    const __m128i bytes = _mm_shuffle_epi8(_mm_set1_epi16((short)load_u16(high)), which);
    return fifth_where(bytes, _mm_set1_epi64x((long long)0x8040201008040201));
}

INLINE void unit_fives(const uint8_t *high, const uint8_t *quants, char zero, vf *w)
{
    const __m128i bytes = load_16_bytes(quants), level = _mm_set1_epi8(zero);
    floats_of(_mm_sub_epi8(_mm_or_si128(nibbles(bytes, 0), fifth_bits(high)), level), w);
    floats_of(_mm_sub_epi8(_mm_or_si128(nibbles(bytes, 4), fifth_bits(high + 2)), level), w + 2);
}

/* x = step q + base */
INLINE void place(float step, float base, vf *w)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) w[v] = v_fma(w[v], v_set1(step), v_set1(base));
}

INLINE void unit_q5_k(const uint8_t *block, size_t unit, vf *w)
{
    const uint8_t *q = block + Q5_K_QUANTS + unit / 2 * 32, *high = block + Q5_K_HIGH;
    const __m128i bit = _mm_set1_epi8((char)(1 << unit));
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const __m128i fifth = fifth_where(load_16_bytes(high + 16 * i), bit);
        floats_of(_mm_or_si128(nibbles(load_16_bytes(q + 16 * i), 4 * (unit & 1)), fifth), w + 2 * i);
    }
}

INLINE void unit_q4_k(const uint8_t *block, size_t unit, float step, float base, vf *w)
{
    const uint8_t *q = block + Q4_K_QUANTS + unit / 2 * 32;
    floats_of(nibbles(load_16_bytes(q), 4 * (unit & 1)), w);
    floats_of(nibbles(load_16_bytes(q + 16), 4 * (unit & 1)), w + 2);
    place(step, base, w);
}

INLINE void unit_q6_k(const uint8_t *block, size_t unit, vf *w)
{
    const unsigned p = unit % 4;
    const uint8_t *low = block + unit / 4 * 64 + unit % 2 * 32, *high = block + Q6_K_HIGH + unit / 4 * 32;
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const __m128i bits = _mm_srl_epi16(load_16_bytes(high + 16 * i), _mm_cvtsi32_si128((int)(2 * p)));
        const __m128i high2 = _mm_slli_epi16(_mm_and_si128(bits, _mm_set1_epi8(3)), 4);
        const __m128i q = _mm_or_si128(nibbles(load_16_bytes(low + 16 * i), 4 * (p >> 1)), high2);
        floats_of(_mm_sub_epi8(q, _mm_set1_epi8(32)), w + 2 * i);
    }
}

/* Columns of unit `unit` of the strip at `row`; j: the row within its tile. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, const float (*s)[16], size_t j, vf *w)
{
    switch (type) {
    case DTYPE_Q8_0:
        floats_of(load_16_bytes(row + Q8_0_BYTES * unit + 2), w);
        floats_of(load_16_bytes(row + Q8_0_BYTES * unit + 18), w + 2);
        return;
    case DTYPE_Q4_0:
        unit_nibbles(row + Q4_0_BYTES * unit + 2, 8, w);
        return;
    case DTYPE_Q4_1:
        unit_nibbles(row + Q4_1_BYTES * unit + Q4_1_QUANTS, 0, w);
        place(s[unit][j], s[STRIP_UNITS + unit][j], w);
        return;
    case DTYPE_Q5_0:
        row += Q5_0_BYTES * unit;
        unit_fives(row + Q5_0_HIGH, row + Q5_0_QUANTS, 16, w);
        return;
    case DTYPE_Q5_1:
        row += Q5_1_BYTES * unit;
        unit_fives(row + Q5_1_HIGH, row + Q5_1_QUANTS, 0, w);
        place(s[unit][j], s[STRIP_UNITS + unit][j], w);
        return;
    case DTYPE_Q5_K:
        unit_q5_k(row, unit, w);
        place(s[j][unit], s[j][STRIP_UNITS + unit], w);
        return;
    case DTYPE_Q4_K:
        unit_q4_k(row, unit, s[j][unit], s[j][STRIP_UNITS + unit], w);
        return;
    case DTYPE_Q6_K:
        unit_q6_k(row, unit, w);
        return;
    default:
        break;
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < UNIT / VL; v++) {
        const size_t i = UNIT * unit + v * VL;
        w[v] = type == DTYPE_F32   ? v_load(row + 4 * i)
               : type == DTYPE_F16 ? v_load_f16(row + 2 * i)
                                   : v_load_bf16(row + 2 * i);
    }
}

INLINE void decode_q4_k(const uint8_t *block, float *out)
{
    vf step, base;
    q4_k_factors(block, &step, &base);
    v_store(out, step);
    v_store(out + VL, base);
}

INLINE void decode_q6_k(const uint8_t *block, float *out)
{
    const vf d = broadcast_f16(block + Q6_K_D);
    v_store(out, v_mul(v_load_i8(block + Q6_K_SCALES), d));
    v_store(out + VL, v_mul(v_load_i8(block + Q6_K_SCALES + VL), d));
}

#include "tensor/simd_accumulate.h"

INLINE void run(dtype type, const accumulate_args *args)
{
    float_run(type, args);
}

void rows_accumulate_avx2(dtype type, size_t width, const void *r, size_t r_stride, size_t rows, const float *const *a,
                          float *const *y, size_t tokens, const void *next)
{
    const accumulate_args args = {width, r_stride, rows, r, a, y, tokens, next};
    run_type(type, &args);
}

#endif
