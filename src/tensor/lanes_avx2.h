/* lanes_avx2.h: eight rows in the eight lanes of a vector, for the integer products of rows_dot (lanes.h): their
 * scales. Integers are less by their centre, and of five bits with a min the minima make up for it. */
#ifndef TENSOR_LANES_AVX2_H
#define TENSOR_LANES_AVX2_H

#include "tensor/pairs_avx2.h"

enum { LANES = 8, LANE_PAIRS = LANES / 2 };

/* What is taken off the stored integers: it makes their products small enough to be added in 16 bits, where they are
 * not yet. */
INLINE int centre(dtype type)
{
    switch (type) {
    case DTYPE_Q4_0:
        return 8;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
        return 16;
    case DTYPE_Q6_K:
        return 32;
    default:
        return 0;
    }
}

/* Weights as unsigned bytes, Q8_0 where a product of sums can take them so, and what is to be taken off for it. */
INLINE int offset(dtype type)
{
    return VNNI && type == DTYPE_Q8_0 ? MIDDLE : centre(type);
}

INLINE vi from_offset(dtype type, vi bytes)
{
    return VNNI && type == DTYPE_Q8_0 ? _mm256_xor_si256(bytes, _mm256_set1_epi8(-MIDDLE)) : bytes;
}

/* ---- scales ------------------------------------------------------------------------------------------------------ */

/* The F16 of blocks of 32 in a chunk, a row for every lane. Vectors read it whole what was written in pieces, so it is
 * filled well before it is decoded. */
typedef struct raw_scales {
    uint16_t d[CHUNK_RUNS][LANES], m[CHUNK_RUNS][LANES];
} __attribute__((aligned(32))) raw_scales;

INLINE void raw_load_lane(dtype type, const uint8_t *w, size_t runs, size_t lane, raw_scales *raw)
{
#pragma GCC unroll 8
    for (size_t run = 0; run < runs; run++) {
        raw->d[run][lane] = load_u16(w + run * block_bytes(type));
        if (has_min(type)) raw->m[run][lane] = load_u16(w + run * block_bytes(type) + 2);
    }
}

INLINE vf v_ints(vi v)
{
    return _mm256_cvtepi32_ps(v);
}

#include "tensor/lanes.h"

/* What is added for a run whose integers are less by the centre. */
INLINE vf centred_min(dtype type, vf scale, vf min)
{
    return centre(type) ? v_fma(scale, v_set1((float)centre(type)), min) : min;
}

INLINE void decode_raw(dtype type, const raw_scales *raw, run_scales *out)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < CHUNK_RUNS; i++) {
        const vf scale = v_load_f16(raw->d[i]);
        v_store(out->s[i], scale);
        if (has_min(type)) v_store(out->m[i], centred_min(type, scale, v_load_f16(raw->m[i])));
    }
}

/* The part of a block of 256 with its scales. */
enum { HEAD_BYTES = 18 };

INLINE size_t head_at(dtype type)
{
    return type == DTYPE_Q6_K ? Q6_K_SCALES : 0;
}

/* Byte i of every lane's four as a float. */
INLINE vf byte_floats(bool is_signed, vi bytes, size_t i)
{
    const vi top = _mm256_slli_epi32(bytes, 24 - 8 * (int)i);
    return _mm256_cvtepi32_ps(is_signed ? _mm256_srai_epi32(top, 24) : _mm256_srli_epi32(top, 24));
}

INLINE void decode_q6_k_heads(const uint8_t *heads, size_t stride, const vi *levels, run_scales *out)
{
    uint16_t halves[LANES];
    for (size_t r = 0; r < LANES; r++) halves[r] = load_u16(heads + r * stride + Q6_K_D - Q6_K_SCALES);
    const vf d = v_load_f16(halves);
#pragma GCC unroll 16
    for (size_t i = 0; i < 2 * CHUNK_RUNS; i++) v_store(out->s[i], v_mul(byte_floats(true, levels[i / 4], i % 4), d));
}

/* Two F16 in every lane, the lower ones: shift 0, the upper ones: shift 16. */
INLINE vf lane_halves(vi both, int shift)
{
    const vi words = _mm256_and_si256(_mm256_srli_epi32(both, shift), _mm256_set1_epi32(0xffff));
    const vi packed = _mm256_packus_epi32(words, words);
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1)));
}

/* The heads of eight blocks of 256, `stride` bytes apart. What is packed into the 12 bytes of Q4_K's and Q5_K's scales
 * is what q4_k_scales() says; here a word of them stands in every lane. */
INLINE void decode_heads(dtype type, const uint8_t *heads, size_t stride, run_scales *out)
{
    vi v[4];
#pragma GCC unroll 4
    for (size_t p = 0; p < LANE_PAIRS; p++) v[p] = pair_load(heads + p * stride, LANE_PAIRS * stride);
    transpose_words(v);
    if (type == DTYPE_Q6_K) {
        decode_q6_k_heads(heads, stride, v, out);
        return;
    }
    const vi six = _mm256_set1_epi8(0x3f), high = _mm256_set1_epi8(0x30);
    const vi scales[2] = {_mm256_and_si256(v[1], six),
                          _mm256_or_si256(low_nibbles(v[3]), _mm256_and_si256(_mm256_srli_epi32(v[1], 2), high))};
    const vi mins[2] = {_mm256_and_si256(v[2], six),
                        _mm256_or_si256(high_nibbles(v[3]), _mm256_and_si256(_mm256_srli_epi32(v[2], 2), high))};
    const vf d = lane_halves(v[0], 0), minus = v_sub(v_zero(), lane_halves(v[0], 16));
#pragma GCC unroll 8
    for (size_t i = 0; i < CHUNK_RUNS; i++) {
        const vf scale = v_mul(byte_floats(false, scales[i / 4], i % 4), d);
        v_store(out->s[i], scale);
        v_store(out->m[i], centred_min(type, scale, v_mul(byte_floats(false, mins[i / 4], i % 4), minus)));
    }
}

#endif
