/* dot_avx2.c: rows_dot and the quantizer of its activations for AVX2.
 *
 * The lanes of a vector of sums are eight rows (lanes_avx2.h), so that scales are one multiplication for 8 x 32
 * products. There are two ways to the same bits: pairs for few tokens (dot_few_avx2.h), panels for many
 * (dot_panel_avx2.h). */
#if defined(__x86_64__)

#include "tensor/simd_avx2.h"

enum { TILE_TOKENS = 2 };
#include "tensor/simd_dot_float.h"

#include "tensor/dot_few_avx2.h"
#include "tensor/dot_panel_avx2.h"

/* From this many tokens on a panel pays: the sooner the dearer unpacking is, of Q8_0 late, whose panels cost twice. */
INLINE size_t panel_from(dtype type)
{
    return type == DTYPE_Q6_K ? 4 : streams(type) == 2 ? 12 : 5;
}

INLINE void run(dtype type, const dot_args *a, size_t tokens)
{
    size_t t = 0;
    if (tokens >= panel_from(type) && a->rows >= part_groups(type) * LANES) {
        for (; t < tokens; t += PANEL_PASS)
            panels(type, false, a, t, tokens - t < PANEL_PASS ? tokens - t : PANEL_PASS);
        return;
    }
    for (; t + 4 <= tokens; t += 4) few_tokens(type, 4, a, t);
    for (; t + 2 <= tokens; t += 2) few_tokens(type, 2, a, t);
    if (t < tokens) few_tokens(type, 1, a, t);
}

void OF_ISA(rows_dot)(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                      float *const *out, size_t tokens, const void *next)
{
    const dot_args a = {n, w, w_stride, rows, x, out, next ? next : w};
    if (dtype_is_r16(type))
        OF_ISA(rows16_dot)(type, &a, tokens);
    else
        run_type(type, &a, tokens);
}

/* Largest of eight, smallest first thing to add: horizontal helpers of the quantizer. */
INLINE int largest_of_eight(vi v)
{
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

INLINE int sum_of_eight(vi v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Four vectors of 32-bit integers that fit 8 bits, in order. */
INLINE vi pack_bytes(const vi *q)
{
    const vi words0 = _mm256_packs_epi32(q[0], q[1]), words1 = _mm256_packs_epi32(q[2], q[3]);
    const vi order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* the packs work within halves */
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words0, words1), order);
}

void OF_ISA(quantize_act)(const float *x, size_t n, void *out)
{
    uint8_t *quants = out, *scales_out = quants + n, *sums = scales_out + n / 8, *half_sums = sums + n / 8;
    const vi magnitude = _mm256_set1_epi32(0x7fffffff);
    for (size_t i = 0; i < n; i += ACT_BLOCK, scales_out += 4, sums += 4, half_sums += 8) {
        vi top = _mm256_setzero_si256(), q[4];
        for (size_t k = 0; k < 4; k++) {
            const vi bits = _mm256_and_si256(_mm256_castps_si256(v_load(x + i + k * VL)), magnitude);
            top = _mm256_max_epi32(top, bits); /* as integers NaN is largest of all */
        }
        const int largest_bits = largest_of_eight(top);
        float largest;
        memcpy(&largest, &largest_bits, sizeof largest);
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        const vf inverse = v_set1(largest > ACT_TINY ? 127.0f / largest : 0.0f);
        for (size_t k = 0; k < 4; k++) q[k] = _mm256_cvtps_epi32(v_mul(v_load(x + i + k * VL), inverse));
        const int sum0 = sum_of_eight(_mm256_add_epi32(q[0], q[1])), sum1 = sum_of_eight(_mm256_add_epi32(q[2], q[3]));
        const float sum = scale * (float)(sum0 + sum1);
        const int32_t halves[2] = {sum0, sum1};
        _mm256_storeu_si256((__m256i *)(quants + i), pack_bytes(q));
        memcpy(scales_out, &scale, sizeof scale);
        memcpy(sums, &sum, sizeof sum);
        memcpy(half_sums, halves, sizeof halves);
    }
}

#endif
