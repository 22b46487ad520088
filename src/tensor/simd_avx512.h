/* simd_avx512.h: the float vector of AVX-512 under the names that simd_*.h write the kernels in; simd_avx2.h has the
 * same. _part variants touch only the first n < VL elements and read zeros for the rest. No function here multiplies
 * and adds in one expression: v_fma is the only fused operation, so a compiler's contraction cannot change results. */
#ifndef TENSOR_SIMD_AVX512_H
#define TENSOR_SIMD_AVX512_H

#include <immintrin.h>

#include "tensor/kernels_impl.h"

#define INLINE static inline __attribute__((always_inline, unused))

enum { VL = 16 };
typedef __m512 vf;
typedef struct vd {
    __m512d lo, hi;
} vd;

INLINE __mmask16 part(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

INLINE vf v_zero(void)
{
    return _mm512_setzero_ps();
}

INLINE vf v_set1(float f)
{
    return _mm512_set1_ps(f);
}

INLINE vf v_load(const void *p)
{
    return _mm512_loadu_ps(p);
}

INLINE vf v_load_part(const void *p, size_t n)
{
    return _mm512_maskz_loadu_ps(part(n), p);
}

INLINE void v_store(void *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

INLINE void v_store_part(void *p, vf v, size_t n)
{
    _mm512_mask_storeu_ps(p, part(n), v);
}

INLINE vf v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

INLINE vf v_load_f16_part(const void *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(part(n), p));
}

INLINE void v_store_f16(void *p, vf v)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

INLINE vf bf16_widen(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE vf v_load_bf16(const void *p)
{
    return bf16_widen(_mm256_loadu_si256(p));
}

INLINE vf v_load_bf16_part(const void *p, size_t n)
{
    return bf16_widen(_mm256_maskz_loadu_epi16(part(n), p));
}

INLINE vf v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

INLINE vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

INLINE vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

INLINE vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

INLINE vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* b where either is NaN */
INLINE vf v_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

INLINE vf v_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

INLINE vf v_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n, n whole */
INLINE vf v_scale2(vf a, vf n)
{
    return _mm512_scalef_ps(a, n);
}

INLINE __m256 upper(vf v)
{
    return _mm512_extractf32x8_ps(v, 1);
}

INLINE float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float v_sum(vf v)
{
    return sum8(_mm256_add_ps(_mm512_castps512_ps256(v), upper(v)));
}

INLINE float v_largest(vf v)
{
    return _mm512_reduce_max_ps(v);
}

INLINE vd vd_zero(void)
{
    return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

INLINE vd vd_add(vd sum, vf v)
{
    return (vd){_mm512_add_pd(sum.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(v))),
                _mm512_add_pd(sum.hi, _mm512_cvtps_pd(upper(v)))};
}

INLINE double vd_sum(vd sum)
{
    return _mm512_reduce_add_pd(_mm512_add_pd(sum.lo, sum.hi));
}

INLINE vf broadcast_f16(const uint8_t *p)
{
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p))));
}

#endif
