/* simd_ops.h: the vector operations and the attention helpers, written once over the names of simd_avx2.h /
 * simd_avx512.h and included by kernels_<isa>.c. */
#include <math.h>

/* e^x, within 2 units in the last place; 0 and infinity past the ends of the range, NaN stays.
 * x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts so that r keeps its low bits; e^r by a polynomial of degree 7.
 */
INLINE vf v_exp(vf x)
{
    x = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x));
    const vf n = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    vf r = v_fma(n, v_set1(-0x1.62e4p-1f), x);
    r = v_fma(n, v_set1(-0x1.7f7d1cp-20f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(v_mul(r, r), p, r);
    return v_scale2(v_add(p, v_set1(1.0f)), n);
}

static void rms_norm(const float *x, const float *weight, float eps, float *out, size_t n)
{
    vd squares = vd_zero();
    size_t i = 0;
    for (; i + VL <= n; i += VL) squares = vd_add(squares, v_mul(v_load(x + i), v_load(x + i)));
    if (i < n) squares = vd_add(squares, v_mul(v_load_part(x + i, n - i), v_load_part(x + i, n - i)));
    const vf scale = v_set1((float)(1 / sqrt(vd_sum(squares) / (double)n + (double)eps)));
    for (i = 0; i + VL <= n; i += VL) v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(weight + i)));
    if (i < n) {
        const vf scaled = v_mul(v_load_part(x + i, n - i), scale);
        v_store_part(out + i, v_mul(scaled, v_load_part(weight + i, n - i)), n - i);
    }
}

/* g / (1 + e^-g) * u */
INLINE vf v_swiglu(vf g, vf u)
{
    const vf e = v_exp(v_sub(v_zero(), g));
    return v_mul(v_div(g, v_add(e, v_set1(1.0f))), u);
}

static void swiglu(const float *gate, const float *up, float *out, size_t n)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store(out + i, v_swiglu(v_load(gate + i), v_load(up + i)));
    if (i < n) v_store_part(out + i, v_swiglu(v_load_part(gate + i, n - i), v_load_part(up + i, n - i)), n - i);
}

static float largest_of(const float *x, size_t n)
{
    vf m = v_set1(-INFINITY);
    size_t i = 0;
    for (; i + VL <= n; i += VL) m = v_max(v_load(x + i), m);
    float largest = v_largest(m);
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* Sum of e^(x - shift), stored into out where it is not NULL. */
INLINE double sum_exp(const float *x, size_t n, float shift, float *out)
{
    const vf s = v_set1(shift);
    vd sum = vd_zero();
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        const vf e = v_exp(v_sub(v_load(x + i), s));
        if (out) v_store(out + i, e);
        sum = vd_add(sum, e);
    }
    double total = vd_sum(sum);
    if (i < n) {
        float tail[VL];
        v_store(tail, v_exp(v_sub(v_load_part(x + i, n - i), s)));
        for (size_t k = 0; i + k < n; k++) total += (double)tail[k];
        if (out) memcpy(out + i, tail, (n - i) * sizeof *out);
    }
    return total;
}

static void softmax(float *x, size_t n)
{
    const double sum = sum_exp(x, n, largest_of(x, n), x);
    const vf scale = v_set1((float)(1 / sum));
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store(x + i, v_mul(v_load(x + i), scale));
    if (i < n) v_store_part(x + i, v_mul(v_load_part(x + i, n - i), scale), n - i);
}

static double log_sum_exp(const float *x, size_t n)
{
    const float largest = largest_of(x, n);
    return isinf(largest) ? (double)largest : (double)largest + log(sum_exp(x, n, largest, NULL));
}

/* ---- attention over cached rows, F16 or F32 ------------------------------------------------------------------- */

INLINE vf load_cached(bool half, const void *row, size_t i)
{
    return half ? v_load_f16((const uint16_t *)row + i) : v_load((const float *)row + i);
}

INLINE vf load_cached_part(bool half, const void *row, size_t i, size_t n)
{
    return half ? v_load_f16_part((const uint16_t *)row + i, n) : v_load_part((const float *)row + i, n);
}

/* Two sums a row, even and odd vectors, to hide the latency of the addition. */
INLINE float dot_cached(bool half, const float *q, const void *row, size_t n)
{
    vf even = v_zero(), odd = v_zero();
    size_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        even = v_fma(v_load(q + i), load_cached(half, row, i), even);
        odd = v_fma(v_load(q + i + VL), load_cached(half, row, i + VL), odd);
    }
    if (i + VL <= n) {
        even = v_fma(v_load(q + i), load_cached(half, row, i), even);
        i += VL;
    }
    if (i < n) odd = v_fma(v_load_part(q + i, n - i), load_cached_part(half, row, i, n - i), odd);
    return v_sum(v_add(even, odd));
}

static void dot_f16(const float *q, const uint16_t *k, size_t stride, size_t count, float *out, size_t n)
{
    for (size_t i = 0; i < count; i++) out[i] = dot_cached(true, q, k + i * stride, n);
}

static void dot_f32(const float *q, const float *k, size_t stride, size_t count, float *out, size_t n)
{
    for (size_t i = 0; i < count; i++) out[i] = dot_cached(false, q, k + i * stride, n);
}

/* Row i of a cache whose rows are `stride` elements apart. */
INLINE const void *cached_row(bool half, const void *v, size_t stride, size_t i)
{
    return (const uint8_t *)v + i * stride * (half ? sizeof(uint16_t) : sizeof(float));
}

/* Columns c .. c + 4 VL of acc stay in registers over all rows. */
INLINE void mix_wide(bool half, const float *p, const void *v, size_t stride, size_t count, float *acc, size_t c)
{
    vf s0 = v_load(acc + c), s1 = v_load(acc + c + VL), s2 = v_load(acc + c + 2 * VL), s3 = v_load(acc + c + 3 * VL);
    for (size_t i = 0; i < count; i++) {
        const void *row = cached_row(half, v, stride, i);
        const vf w = v_set1(p[i]);
        s0 = v_fma(w, load_cached(half, row, c), s0);
        s1 = v_fma(w, load_cached(half, row, c + VL), s1);
        s2 = v_fma(w, load_cached(half, row, c + 2 * VL), s2);
        s3 = v_fma(w, load_cached(half, row, c + 3 * VL), s3);
    }
    v_store(acc + c, s0);
    v_store(acc + c + VL, s1);
    v_store(acc + c + 2 * VL, s2);
    v_store(acc + c + 3 * VL, s3);
}

INLINE void mix(bool half, const float *p, const void *v, size_t stride, size_t count, float *acc, size_t n)
{
    size_t c = 0;
    for (; c + 4 * VL <= n; c += 4 * VL) mix_wide(half, p, v, stride, count, acc, c);
    for (; c + VL <= n; c += VL) {
        vf s = v_load(acc + c);
        for (size_t i = 0; i < count; i++) {
            s = v_fma(v_set1(p[i]), load_cached(half, cached_row(half, v, stride, i), c), s);
        }
        v_store(acc + c, s);
    }
    if (c < n) {
        vf s = v_load_part(acc + c, n - c);
        for (size_t i = 0; i < count; i++) {
            s = v_fma(v_set1(p[i]), load_cached_part(half, cached_row(half, v, stride, i), c, n - c), s);
        }
        v_store_part(acc + c, s, n - c);
    }
}

static void mix_f16(const float *p, const uint16_t *v, size_t stride, size_t count, float *acc, size_t n)
{
    mix(true, p, v, stride, count, acc, n);
}

static void mix_f32(const float *p, const float *v, size_t stride, size_t count, float *acc, size_t n)
{
    mix(false, p, v, stride, count, acc, n);
}

/* ---- the same over Q8_0 ----------------------------------------------------------------------------------------- */

enum { CACHED_VECTORS = ACT_BLOCK / VL };

static void dot_q8_0(const float *q, const void *k, size_t stride, size_t count, float *out, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *block = (const uint8_t *)k + i * stride;
        vf sum = v_zero();
        for (size_t c = 0; c < n; c += ACT_BLOCK, block += Q8_0_BYTES) {
            vf part = v_zero();
#pragma GCC unroll 4
            for (size_t v = 0; v < CACHED_VECTORS; v++)
                part = v_fma(v_load(q + c + v * VL), v_load_i8(block + 2 + v * VL), part);
            sum = v_fma(broadcast_f16(block), part, sum);
        }
        out[i] = v_sum(sum);
    }
}

static void mix_q8_0(const float *p, const void *v, size_t stride, size_t count, float *acc, size_t n)
{
    for (size_t c = 0; c < n; c += ACT_BLOCK) {
        const uint8_t *block = (const uint8_t *)v + c / ACT_BLOCK * Q8_0_BYTES;
        vf sums[CACHED_VECTORS];
#pragma GCC unroll 4
        for (size_t k = 0; k < CACHED_VECTORS; k++) sums[k] = v_load(acc + c + k * VL);
        for (size_t i = 0; i < count; i++, block += stride) {
            const vf factor = v_mul(v_set1(p[i]), broadcast_f16(block));
#pragma GCC unroll 4
            for (size_t k = 0; k < CACHED_VECTORS; k++) sums[k] = v_fma(factor, v_load_i8(block + 2 + k * VL), sums[k]);
        }
#pragma GCC unroll 4
        for (size_t k = 0; k < CACHED_VECTORS; k++) v_store(acc + c + k * VL, sums[k]);
    }
}

static void f32_to_f16_row(const float *x, uint16_t *out, size_t n)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store_f16(out + i, v_load(x + i));
    for (; i < n; i++) out[i] = f32_to_f16(x[i]);
}
