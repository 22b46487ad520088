/* dot_avx512.c: rows_dot and the quantizer of its activations for AVX-512 with VNNI.
 *
 * vpdpbusd multiplies unsigned weights by signed activations and adds groups of four, so a vector of 64 weights gives
 * 16 sums that each belong to one run of equal scale. The weights are made unsigned: four and five bits as they are,
 * Q8_0 plus 128, Q6_K with its stored 32. For the last two the surplus is taken off exactly, in integers (`base`, once
 * per token for all rows of a tile); offsets and minima of the others go through the activation's scale_sum, one
 * operation for a chunk. */
#if defined(__x86_64__)

#include "tensor/simd_avx512.h"

enum { STEPS = 4, TILE_TOKENS = 4 };
typedef __m512i vi;
typedef __m512 scales; /* of the runs of a chunk: 8 in the low half, with their minima above, or 16 (Q6_K) */

/* Runs of 32 with a scale and a min each, in the nibble order of Q4_K. */
INLINE bool is_k_min(dtype type)
{
    return type == DTYPE_Q4_K || type == DTYPE_Q5_K;
}

/* The two Q4_K runs, or 32-element blocks, whose quants make up step k. */
INLINE size_t low_block(dtype type, size_t k)
{
    return is_k_min(type) ? k / 2 * 4 + k % 2 : 2 * k;
}

INLINE size_t high_block(dtype type, size_t k)
{
    return is_k_min(type) ? low_block(type, k) + 2 : 2 * k + 1;
}

INLINE vi two_halves(const void *lo, const void *hi)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(lo)), _mm256_loadu_si256(hi), 1);
}

/* 16-bit shift counts, one per quarter of the vector */
INLINE vi quarters(int q0, int q1, int q2, int q3)
{
    return _mm512_setr_epi32(q0, q0, q0, q0, q1, q1, q1, q1, q2, q2, q2, q2, q3, q3, q3, q3);
}

/* Nibbles of two blocks of 32, `stride` bytes apart, in order. */
INLINE vi two_blocks(const uint8_t *quants, size_t stride)
{
    const __m128i lo = _mm_loadu_si128((const __m128i *)quants);
    const __m128i hi = _mm_loadu_si128((const __m128i *)(quants + stride));
    const vi bytes = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(lo), 0xff00, hi);
    const vi shifted = _mm512_srlv_epi16(bytes, quarters(0, 0x40004, 0, 0x40004));
    return _mm512_and_si512(shifted, _mm512_set1_epi8(15));
}

/* With their fifth bits, one of 32 at each of `high`. */
INLINE vi two_blocks_of_five(const uint8_t *high, const uint8_t *quants, size_t stride)
{
    const __mmask64 fifth = load_u32(high) | (uint64_t)load_u32(high + stride) << 32;
    return _mm512_or_si512(two_blocks(quants, stride), _mm512_maskz_set1_epi8(fifth, 16));
}

INLINE vi k_nibbles(const uint8_t *quants, size_t k)
{
    const vi bytes = _mm512_loadu_si512(quants + k / 2 * 64);
    return _mm512_and_si512(k % 2 ? _mm512_srli_epi16(bytes, 4) : bytes, _mm512_set1_epi8(15));
}

INLINE vi weights_q5_k(const uint8_t *w, size_t k)
{
    const vi high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(w + Q5_K_HIGH)));
    const vi lo_bit = _mm512_set1_epi8((char)(1 << low_block(DTYPE_Q5_K, k)));
    const vi bits = _mm512_mask_set1_epi8(lo_bit, 0xffffffff00000000, (char)(1 << high_block(DTYPE_Q5_K, k)));
    const __mmask64 fifth = _mm512_test_epi8_mask(high, bits);
    return _mm512_or_si512(k_nibbles(w + Q5_K_QUANTS, k), _mm512_maskz_set1_epi8(fifth, 16));
}

INLINE vi weights_q6_k(const uint8_t *w, size_t k)
{
    vi low = _mm512_loadu_si512(w + k / 2 * 64);
    vi high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(w + Q6_K_HIGH + k / 2 * 32)));
    if (k % 2) {
        low = _mm512_srli_epi16(low, 4);
        high = _mm512_srlv_epi16(high, quarters(0, 0, 0x20002, 0x20002));
    } else {
        high = _mm512_sllv_epi16(high, quarters(0x40004, 0x40004, 0x20002, 0x20002));
    }
    const vi both = _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, high, 0xca); /* 15 ? low : high */
    return _mm512_and_si512(both, _mm512_set1_epi8(63));
}

INLINE vi weights(dtype type, const uint8_t *w, size_t k)
{
    switch (type) {
    case DTYPE_Q4_0:
        return two_blocks(w + 2 * k * Q4_0_BYTES + 2, Q4_0_BYTES);
    case DTYPE_Q4_1:
        return two_blocks(w + 2 * k * Q4_1_BYTES + Q4_1_QUANTS, Q4_1_BYTES);
    case DTYPE_Q5_0:
        w += 2 * k * Q5_0_BYTES;
        return two_blocks_of_five(w + Q5_0_HIGH, w + Q5_0_QUANTS, Q5_0_BYTES);
    case DTYPE_Q5_1:
        w += 2 * k * Q5_1_BYTES;
        return two_blocks_of_five(w + Q5_1_HIGH, w + Q5_1_QUANTS, Q5_1_BYTES);
    case DTYPE_Q4_K:
        return k_nibbles(w + Q4_K_QUANTS, k);
    case DTYPE_Q5_K:
        return weights_q5_k(w, k);
    case DTYPE_Q6_K:
        return weights_q6_k(w, k);
    default:
        w += 2 * k * Q8_0_BYTES + 2;
        return _mm512_xor_si512(two_halves(w, w + Q8_0_BYTES), _mm512_set1_epi8(-128));
    }
}

INLINE vi activation(dtype type, const int8_t *x, size_t k)
{
    if (!is_k_min(type)) return _mm512_loadu_si512(x + 64 * k);
    return two_halves(x + low_block(type, k) * ACT_BLOCK, x + high_block(type, k) * ACT_BLOCK);
}

INLINE vi base(dtype type, vi x)
{
    const vi zero = _mm512_setzero_si512();
    if (type != DTYPE_Q8_0 && type != DTYPE_Q6_K) return zero;
    const vi surplus = _mm512_set1_epi8(type == DTYPE_Q8_0 ? -128 : 32); /* -128: 128 unsigned */
    return _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, surplus, x));
}

INLINE vf int_dot(dtype type, vi b, vi w, vi x)
{
    (void)type;
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(b, w, x));
}

/* The F16 factors of the 8 blocks of a chunk. Q4_0's are all among the first 64 words, nine apart. */
INLINE scales factors_q4_0(const uint8_t *w)
{
    const vi at = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
    const vi words = _mm512_permutex2var_epi16(_mm512_loadu_si512(w), at, _mm512_loadu_si512(w + 64));
    return _mm512_castps256_ps512(_mm256_cvtph_ps(_mm512_castsi512_si128(words)));
}

/* The first four bytes of 8 blocks. */
INLINE __m256i block_heads(const uint8_t *w, int bytes)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i at = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(bytes));
    return _mm256_i32gather_epi32((const int *)(const void *)w, at, 1);
}

INLINE __m256 low_halves(__m256i words)
{
    return _mm256_cvtph_ps(_mm256_cvtepi32_epi16(words));
}

INLINE scales factors_of(const uint8_t *w, int bytes)
{
    return _mm512_castps256_ps512(low_halves(block_heads(w, bytes)));
}

/* d in the low half, m in the high one. */
INLINE scales factors_and_minima(const uint8_t *w, int bytes)
{
    const __m256i heads = block_heads(w, bytes);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low_halves(heads)), low_halves(_mm256_srli_epi32(heads, 16)), 1);
}

INLINE scales factors_q6_k(const uint8_t *w)
{
    return v_mul(v_load_i8(w + Q6_K_SCALES), broadcast_f16(w + Q6_K_D));
}

INLINE scales weight_scales(dtype type, const uint8_t *w)
{
    switch (type) {
    case DTYPE_Q4_0:
        return factors_q4_0(w);
    case DTYPE_Q8_0:
        return factors_of(w, Q8_0_BYTES);
    case DTYPE_Q5_0:
        return factors_of(w, Q5_0_BYTES);
    case DTYPE_Q4_1:
        return factors_and_minima(w, Q4_1_BYTES); /* minima in the high half: see weight_min */
    case DTYPE_Q5_1:
        return factors_and_minima(w, Q5_1_BYTES);
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        return q4_k_factors(w);
    default:
        return factors_q6_k(w);
    }
}

INLINE bool has_min(dtype type)
{
    return type != DTYPE_Q8_0 && type != DTYPE_Q6_K;
}

/* What scale_sum is multiplied with, in the low half; zeros above. */
INLINE vf weight_min(dtype type, scales ws)
{
    if (type == DTYPE_Q4_0) return _mm512_maskz_mul_ps(0x00ff, ws, v_set1(-8));
    if (type == DTYPE_Q5_0) return _mm512_maskz_mul_ps(0x00ff, ws, v_set1(-16));
    return _mm512_zextps256_ps512(upper(ws));
}

INLINE vf load_sums(const uint8_t *p)
{
    return _mm512_zextps256_ps512(_mm256_loadu_ps((const float *)(const void *)p));
}

INLINE scales activation_scales(dtype type, const uint8_t *p)
{
    const scales s = _mm512_castps256_ps512(_mm256_loadu_ps((const float *)(const void *)p));
    if (type != DTYPE_Q6_K) return s;
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), s);
}

INLINE scales scales_mul(scales a, scales b)
{
    return _mm512_mul_ps(a, b);
}

/* The scale of each of the 16 sums of step k. */
INLINE vf expand(dtype type, scales s, size_t k)
{
    const int q = 4 * (int)k, lo = (int)low_block(type, k), hi = (int)high_block(type, k);
    const vi at = type == DTYPE_Q6_K ? quarters(q, q + 1, q + 2, q + 3) : quarters(lo, lo, hi, hi);
    return _mm512_permutexvar_ps(at, s);
}

#include "tensor/simd_dot.h"

void rows_dot_avx512(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                     float *const *out, size_t tokens)
{
    const dot_args a = {n, w, w_stride, rows, x, out};
    run_type(type, &a, tokens);
}

void quantize_act_avx512(const float *x, size_t n, void *out)
{
    uint8_t *quants = out, *scales_out = quants + n, *sums = scales_out + n / ACT_BLOCK * sizeof(float);
    const vi magnitude = _mm512_set1_epi32(0x7fffffff);
    for (size_t i = 0; i < n; i += ACT_BLOCK, scales_out += sizeof(float), sums += sizeof(float)) {
        const vf lo = v_load(x + i), hi = v_load(x + i + VL);
        const vi bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(lo), magnitude),
                                         _mm512_and_si512(_mm512_castps_si512(hi), magnitude));
        const int top = _mm512_reduce_max_epi32(bits); /* as integers NaN is largest of all */
        float largest;
        memcpy(&largest, &top, sizeof largest);
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        const vf inverse = v_set1(largest > ACT_TINY ? 127.0f / largest : 0.0f);
        const vi q0 = _mm512_cvtps_epi32(v_mul(lo, inverse)), q1 = _mm512_cvtps_epi32(v_mul(hi, inverse));
        const float scale_sum = scale * (float)_mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
        _mm_storeu_si128((__m128i *)(quants + i), _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(quants + i + VL), _mm512_cvtepi32_epi8(q1));
        memcpy(scales_out, &scale, sizeof scale);
        memcpy(sums, &scale_sum, sizeof scale_sum);
    }
}

#endif
