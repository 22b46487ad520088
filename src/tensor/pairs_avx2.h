/* pairs_avx2.h: quantized weights of two rows at a time, for the integer products of AVX2.
 *
 * A pair is a vector with 16 elements of two rows, a row in each 128-bit half, as bytes: four, five and six bits
 * unsigned as they are stored, Q8_0 signed. Every format of dtype.h comes in runs of 32 elements (two pairs) with one
 * scale, Q6_K in two halves of 16 (runs.h). Rows are given as the address of the first and the way to the second. */
#ifndef TENSOR_PAIRS_AVX2_H
#define TENSOR_PAIRS_AVX2_H

#include "tensor/simd_avx2.h"

#include "tensor/runs.h"

typedef __m256i vi;

/* 16 bytes of each row */
INLINE vi pair_load(const uint8_t *row, size_t apart)
{
    const __m128i first = _mm_loadu_si128((const __m128i *)row);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), _mm_loadu_si128((const __m128i *)(row + apart)), 1);
}

/* 32 bits of each */
INLINE vi pair_words(const uint8_t *row, size_t apart)
{
    const __m128i first = _mm_cvtsi32_si128((int)load_u32(row));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), _mm_cvtsi32_si128((int)load_u32(row + apart)), 1);
}

INLINE vi low_nibbles(vi bytes)
{
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}

INLINE vi high_nibbles(vi bytes)
{
    return low_nibbles(_mm256_srli_epi16(bytes, 4));
}

/* Bits [from, from + 2) of every byte moved to 4 and 5, or the one at `from` to 4, and nothing else. */
INLINE vi bits_to_4(vi bytes, size_t from, int mask)
{
    const vi moved = from < 4    ? _mm256_slli_epi16(bytes, 4 - (int)from)
                     : from == 4 ? bytes
                                 : _mm256_srli_epi16(bytes, (int)from - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8((char)mask));
}

/* 16 where one of the bits 16 half .. of a word is set. */
INLINE vi pair_fifths(vi words, size_t half)
{
    const long long first = half ? 0x0202020202020202 : 0, second = half ? 0x0303030303030303 : 0x0101010101010101;
    const vi bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    const vi bytes = _mm256_shuffle_epi8(words, _mm256_setr_epi64x(first, second, first, second));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16));
}

INLINE void pair_nibbles(const uint8_t *quants, size_t apart, vi *pair)
{
    const vi bytes = pair_load(quants, apart);
    pair[0] = low_nibbles(bytes);
    pair[1] = high_nibbles(bytes);
}

INLINE void pair_fives(const uint8_t *high, const uint8_t *quants, size_t apart, vi *pair)
{
    const vi words = pair_words(high, apart);
    pair_nibbles(quants, apart, pair);
    pair[0] = _mm256_or_si256(pair[0], pair_fifths(words, 0));
    pair[1] = _mm256_or_si256(pair[1], pair_fifths(words, 1));
}

/* Q4_K and Q5_K keep two runs in 32 bytes. */
INLINE vi pair_k_nibbles(const uint8_t *quants, size_t apart, size_t run, size_t half)
{
    const vi bytes = pair_load(quants + run / 2 * 32 + half * 16, apart);
    return run % 2 ? high_nibbles(bytes) : low_nibbles(bytes);
}

INLINE vi pair_q5_k(const uint8_t *block, size_t apart, size_t run, size_t half)
{
    const vi high = pair_load(block + Q5_K_HIGH + half * 16, apart);
    return _mm256_or_si256(pair_k_nibbles(block + Q5_K_QUANTS, apart, run, half), bits_to_4(high, run, 16));
}

INLINE vi pair_q6_k(const uint8_t *block, size_t apart, size_t run, size_t half)
{
    const size_t p = run % 4; /* in a half of the block: see quant.h */
    const vi low = pair_load(block + run / 4 * 64 + (p & 1) * 32 + half * 16, apart);
    const vi high = pair_load(block + Q6_K_HIGH + run / 4 * 32 + half * 16, apart);
    return _mm256_or_si256(p < 2 ? low_nibbles(low) : high_nibbles(low), bits_to_4(high, 2 * p, 0x30));
}

/* Run `run` of the chunk of 256 that begins at `w` in the first row. */
INLINE void pair_run(dtype type, const uint8_t *w, size_t apart, size_t run, vi *pair)
{
    const uint8_t *block = w + (is_k(type) ? 0 : run * block_bytes(type));
    switch (type) {
    case DTYPE_Q4_0:
        pair_nibbles(block + 2, apart, pair);
        break;
    case DTYPE_Q4_1:
        pair_nibbles(block + Q4_1_QUANTS, apart, pair);
        break;
    case DTYPE_Q5_0:
        pair_fives(block + Q5_0_HIGH, block + Q5_0_QUANTS, apart, pair);
        break;
    case DTYPE_Q5_1:
        pair_fives(block + Q5_1_HIGH, block + Q5_1_QUANTS, apart, pair);
        break;
    default:
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            if (type == DTYPE_Q4_K)
                pair[half] = pair_k_nibbles(block + Q4_K_QUANTS, apart, run, half);
            else if (type == DTYPE_Q5_K)
                pair[half] = pair_q5_k(block, apart, run, half);
            else if (type == DTYPE_Q6_K)
                pair[half] = pair_q6_k(block, apart, run, half);
            else
                pair[half] = pair_load(block + 2 + half * 16, apart);
        }
    }
}

enum { MIDDLE = 128 };

/* AVX-VNNI: sums of products are of 32 bits from the first. */
#ifdef __AVXVNNI__
enum { VNNI = true };
#else
enum { VNNI = false };
#endif

/* Where sums are of 16 bits Q8_0 is multiplied as two streams of four bits, w = 16 high + low, the high one signed;
 * other types have one stream, less a centre. Small enough to be added in 16 bits. */
INLINE size_t word_streams(dtype type)
{
    return type == DTYPE_Q8_0 ? 2 : 1;
}

INLINE size_t streams(dtype type)
{
    return VNNI ? 1 : word_streams(type);
}

INLINE vi stream_of(dtype type, size_t stream, vi bytes, int centre)
{
    if (streams(type) == 1) return centre ? _mm256_sub_epi8(bytes, _mm256_set1_epi8((char)centre)) : bytes;
    if (stream) return low_nibbles(bytes);
    const vi upwards = _mm256_xor_si256(bytes, _mm256_set1_epi8(-MIDDLE)); /* 0 .. 255 */
    return _mm256_sub_epi8(high_nibbles(upwards), _mm256_set1_epi8((char)centre));
}

/* ---- products and sums ------------------------------------------------------------------------------------------- */

/* vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, with saturation: 2 * 255 * 63 cannot reach
 * it. Further sums of 16 bits are taken modulo 2^16, which is right whenever the last one fits. */
INLINE vi words_multiply(vi unsigned_bytes, vi signed_bytes)
{
    return _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
}

/* sum + products. The compiler must not see through it: it would add up many products as a tree, and then keep them in
 * memory for want of registers. */
INLINE vi words_multiply_add(vi sum, vi unsigned_bytes, vi signed_bytes)
{
    vi products = words_multiply(unsigned_bytes, signed_bytes);
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

/* Sums of two neighbouring words */
INLINE vi widen(vi words)
{
    return _mm256_madd_epi16(words, _mm256_set1_epi16(1));
}

/* ---- sums of four products: two words or (AVX-VNNI) one integer ------------------------------------------------ */

INLINE vi sums_multiply_add(vi sums, vi unsigned_bytes, vi signed_bytes)
{
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sums, unsigned_bytes, signed_bytes);
#else
    return words_multiply_add(sums, unsigned_bytes, signed_bytes);
#endif
}

INLINE vi sums_negative(vi sums)
{
    const vi zero = _mm256_setzero_si256();
    return VNNI ? _mm256_sub_epi32(zero, sums) : _mm256_sub_epi16(zero, sums);
}

INLINE vi sums_ints(vi sums)
{
    return VNNI ? sums : widen(sums);
}

typedef vi (*fold)(vi a, vi b);

INLINE vi fold_words(vi a, vi b)
{
    return _mm256_add_epi16(a, b);
}

INLINE vi fold_sum(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

INLINE vi fold_sums(vi a, vi b)
{
    return VNNI ? fold_sum(a, b) : fold_words(a, b);
}

/* Of each half the 32-bit elements 0, 2 and 1, 3 of both vectors. */
INLINE vi fold_two(fold f, vi a, vi b)
{
    return f(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)); /* a b a b */
}

/* The four elements of every half of four vectors folded into one: half h of the result has half h of vector 0 .. 3. */
INLINE vi fold_four(fold f, const vi *v)
{
    const vi a = fold_two(f, v[0], v[1]), b = fold_two(f, v[2], v[3]);
    return f(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* In each half the 4 x 4 matrix of 32-bit elements, v[row] column, transposed. */
INLINE void transpose_words(vi *v)
{
    const vi lo01 = _mm256_unpacklo_epi32(v[0], v[1]), hi01 = _mm256_unpackhi_epi32(v[0], v[1]);
    const vi lo23 = _mm256_unpacklo_epi32(v[2], v[3]), hi23 = _mm256_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm256_unpacklo_epi64(lo01, lo23);
    v[1] = _mm256_unpackhi_epi64(lo01, lo23);
    v[2] = _mm256_unpacklo_epi64(hi01, hi23);
    v[3] = _mm256_unpackhi_epi64(hi01, hi23);
}

#endif
