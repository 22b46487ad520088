/* simd_avx2.h: the float vector of AVX2, FMA and F16C under the names that simd_*.h write the kernels in; see
 * simd_avx512.h. */
#ifndef TENSOR_SIMD_AVX2_H
#define TENSOR_SIMD_AVX2_H

#include <immintrin.h>

#include "tensor/kernels_impl.h"

#define INLINE static inline __attribute__((always_inline, unused))

/* What is compiled a second time for AVX-VNNI has that name. */
#ifdef __AVXVNNI__
#define OF_ISA(name) name##_avxvnni
#else
#define OF_ISA(name) name##_avx2
#endif

enum { VL = 8 };
typedef __m256 vf;
typedef struct vd {
    __m256d lo, hi;
} vd;

INLINE __m256i part(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vf v_zero(void)
{
    return _mm256_setzero_ps();
}

INLINE vf v_set1(float f)
{
    return _mm256_set1_ps(f);
}

INLINE vf v_load(const void *p)
{
    return _mm256_loadu_ps(p);
}

INLINE vf v_load_part(const void *p, size_t n)
{
    return _mm256_maskload_ps(p, part(n));
}

INLINE void v_store(void *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

INLINE void v_store_part(void *p, vf v, size_t n)
{
    _mm256_maskstore_ps(p, part(n), v);
}

INLINE vf v_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

INLINE __m128i load_halves(const void *p, size_t n)
{
    uint16_t halves[VL] = {0};
    memcpy(halves, p, n * sizeof *halves);
    return _mm_loadu_si128((const __m128i *)halves);
}

INLINE vf v_load_f16_part(const void *p, size_t n)
{
    return _mm256_cvtph_ps(load_halves(p, n));
}

INLINE void v_store_f16(void *p, vf v)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

INLINE vf bf16_widen(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE vf v_load_bf16(const void *p)
{
    return bf16_widen(_mm_loadu_si128(p));
}

INLINE vf v_load_bf16_part(const void *p, size_t n)
{
    return bf16_widen(load_halves(p, n));
}

INLINE vf v_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

INLINE vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

INLINE vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

INLINE vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

INLINE vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

INLINE vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* b where either is NaN */
INLINE vf v_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

INLINE vf v_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

INLINE vf v_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE vf power2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* a * 2^n, n whole, |n| <= 252: in two factors, since 2^n itself may be out of range. */
INLINE vf v_scale2(vf a, vf n)
{
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, power2(half)), power2(_mm256_sub_epi32(whole, half)));
}

INLINE float v_sum(vf v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float v_largest(vf v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

INLINE vd vd_zero(void)
{
    return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()};
}

INLINE vd vd_add(vd sum, vf v)
{
    return (vd){_mm256_add_pd(sum.lo, _mm256_cvtps_pd(_mm256_castps256_ps128(v))),
                _mm256_add_pd(sum.hi, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)))};
}

INLINE double vd_sum(vd sum)
{
    const __m256d v = _mm256_add_pd(sum.lo, sum.hi);
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

INLINE vf broadcast_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)load_u16(p)));
}

#endif
