/* quads_avx512.h: quantized weights of four rows at a time, for the integer products of AVX-512.
 *
 * A quad is a vector with 16 elements of four rows, a row in each 128-bit lane, as unsigned bytes: four and five bits
 * as they are, Q6_K with its stored 32, Q8_0 plus 128. Every format of dtype.h comes in runs of 32 elements (two quads)
 * with one scale, Q6_K in two halves of 16, so the kernels above know formats only through
 *
 *     quad_run()          the two quads of a run
 *     run_offset()        what was added to make it unsigned; the products take it off
 *     has_min()           whether a float per run is to be added, too
 *
 * Rows are given as the address of the first and two strides, so that four of them cost two registers. */
#ifndef TENSOR_QUADS_AVX512_H
#define TENSOR_QUADS_AVX512_H

#include "tensor/simd_avx512.h"

#include "tensor/runs.h"

typedef __m512i vi;

INLINE int run_offset(dtype type)
{
    switch (type) {
    case DTYPE_Q4_0:
        return 8;
    case DTYPE_Q5_0:
        return 16;
    case DTYPE_Q6_K:
        return 32;
    case DTYPE_Q8_0:
        return 128;
    default:
        return 0;
    }
}

/* 16 bytes of each of four rows, `stride` bytes apart. */
INLINE vi quad_load(const uint8_t *row, size_t stride)
{
    vi v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)row));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + 2 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(row + 3 * stride)), 3);
}

/* 16 bits of each, the first row's lowest. */
INLINE __mmask64 quad_bits(const uint8_t *row, size_t stride)
{
    const uint64_t lo = load_u16(row) | (uint32_t)load_u16(row + stride) << 16;
    const uint64_t hi = load_u16(row + 2 * stride) | (uint32_t)load_u16(row + 3 * stride) << 16;
    return lo | hi << 32;
}

INLINE vi low_nibbles(vi bytes)
{
    return _mm512_and_si512(bytes, _mm512_set1_epi8(15));
}

INLINE vi high_nibbles(vi bytes)
{
    return low_nibbles(_mm512_srli_epi16(bytes, 4));
}

INLINE vi with_fifth(vi nibbles, __mmask64 fifth)
{
    return _mm512_or_si512(nibbles, _mm512_maskz_set1_epi8(fifth, 16));
}

INLINE void quad_nibbles(const uint8_t *quants, size_t stride, vi *quad)
{
    const vi bytes = quad_load(quants, stride);
    quad[0] = low_nibbles(bytes);
    quad[1] = high_nibbles(bytes);
}

INLINE void quad_fives(const uint8_t *high, const uint8_t *quants, size_t stride, vi *quad)
{
    quad_nibbles(quants, stride, quad);
    quad[0] = with_fifth(quad[0], quad_bits(high, stride));
    quad[1] = with_fifth(quad[1], quad_bits(high + 2, stride));
}

/* Q4_K and Q5_K keep two runs in 32 bytes. */
INLINE vi k_nibbles(const uint8_t *quants, size_t stride, size_t run, size_t half)
{
    const vi bytes = quad_load(quants + run / 2 * 32 + half * 16, stride);
    return run % 2 ? high_nibbles(bytes) : low_nibbles(bytes);
}

/* Five bits; the fifth is bit `run` of `high`. */
INLINE vi q5_k_values(vi nibbles, vi high, size_t run)
{
    return with_fifth(nibbles, _mm512_test_epi8_mask(high, _mm512_set1_epi8((char)(1 << run))));
}

INLINE vi quad_q5_k(const uint8_t *block, size_t stride, size_t run, size_t half)
{
    const vi high = quad_load(block + Q5_K_HIGH + half * 16, stride);
    return q5_k_values(k_nibbles(block + Q5_K_QUANTS, stride, run, half), high, run);
}

/* Six bits from bytes that have the low four and the high two of run p of a half block: see quant.h. */
INLINE vi q6_k_values(vi low, vi high, size_t p)
{
    if (p >= 2) low = _mm512_srli_epi16(low, 4);
    high = p < 2 ? _mm512_slli_epi16(high, p == 0 ? 4 : 2) : p == 3 ? _mm512_srli_epi16(high, 2) : high;
    const vi both = _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, high, 0xca); /* 15 ? low : high */
    return _mm512_and_si512(both, _mm512_set1_epi8(63));
}

INLINE vi quad_q6_k(const uint8_t *block, size_t stride, size_t run, size_t half)
{
    const size_t p = run % 4;
    const vi low = quad_load(block + run / 4 * 64 + (p & 1) * 32 + half * 16, stride);
    return q6_k_values(low, quad_load(block + Q6_K_HIGH + run / 4 * 32 + half * 16, stride), p);
}

/* Run `run` of the chunk of 256 that begins at `w` in the first of four rows. */
INLINE void quad_run(dtype type, const uint8_t *w, size_t stride, size_t run, vi *quad)
{
    const uint8_t *block = w + (is_k(type) ? 0 : run * block_bytes(type));
    switch (type) {
    case DTYPE_Q4_0:
        quad_nibbles(block + 2, stride, quad);
        break;
    case DTYPE_Q4_1:
        quad_nibbles(block + Q4_1_QUANTS, stride, quad);
        break;
    case DTYPE_Q5_0:
        quad_fives(block + Q5_0_HIGH, block + Q5_0_QUANTS, stride, quad);
        break;
    case DTYPE_Q5_1:
        quad_fives(block + Q5_1_HIGH, block + Q5_1_QUANTS, stride, quad);
        break;
    default:
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            if (type == DTYPE_Q4_K)
                quad[half] = k_nibbles(block + Q4_K_QUANTS, stride, run, half);
            else if (type == DTYPE_Q5_K)
                quad[half] = quad_q5_k(block, stride, run, half);
            else if (type == DTYPE_Q6_K)
                quad[half] = quad_q6_k(block, stride, run, half);
            else
                quad[half] = _mm512_xor_si512(quad_load(block + 2 + half * 16, stride), _mm512_set1_epi8(-128));
        }
    }
}

/* The scales of eight blocks of Q4_0, all within two vectors. */
INLINE __m128i q4_0_chunk_scales(const uint8_t *blocks)
{
    const __m128i at = _mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63);
    const vi v = _mm512_permutex2var_epi16(_mm512_loadu_si512(blocks), _mm512_castsi128_si512(at),
                                           _mm512_loadu_si512(blocks + 64));
    return _mm512_castsi512_si128(v);
}

/* In each lane the 4 x 4 matrix of 32-bit words, v[row] word column, transposed. */
INLINE void transpose_words(vi *v)
{
    const vi lo01 = _mm512_unpacklo_epi32(v[0], v[1]), hi01 = _mm512_unpackhi_epi32(v[0], v[1]);
    const vi lo23 = _mm512_unpacklo_epi32(v[2], v[3]), hi23 = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(lo01, lo23);
    v[1] = _mm512_unpackhi_epi64(lo01, lo23);
    v[2] = _mm512_unpacklo_epi64(hi01, hi23);
    v[3] = _mm512_unpackhi_epi64(hi01, hi23);
}

/* Byte i of lane l goes to 4 i + l: four rows of 16 become 16 columns of four. */
INLINE vi interleave_bytes(vi quad)
{
    const __m128i column = _mm_setr_epi8(0, 16, 32, 48, 1, 17, 33, 49, 2, 18, 34, 50, 3, 19, 35, 51);
    const vi step =
        _mm512_setr_epi32(0, 0, 0, 0, 0x04040404, 0x04040404, 0x04040404, 0x04040404, 0x08080808, 0x08080808,
                          0x08080808, 0x08080808, 0x0c0c0c0c, 0x0c0c0c0c, 0x0c0c0c0c, 0x0c0c0c0c);
    return _mm512_permutexvar_epi8(_mm512_add_epi8(_mm512_broadcast_i32x4(column), step), quad);
}

/* ---- sums over lanes --------------------------------------------------------------------------------------------- */

/* The bits of a magnitude, which order as it does; NaN is largest. */
INLINE vi magnitude(vf v)
{
    return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
}

typedef vi (*fold)(vi a, vi b);

INLINE vi fold_sum(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

/* The four words of every lane of four vectors folded into one: lane l of the result has lane l of vector 0 .. 3. */
INLINE vi fold_four(fold f, const vi *v)
{
    const vi a = f(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1])); /* 0 1 0 1 */
    const vi b = f(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return f(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

#endif
