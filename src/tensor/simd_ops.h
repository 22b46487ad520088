/* simd_ops.h: the vector operations and attention over Q8_0, written once over the names of simd_avx2.h /
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

static float softmax_step(float *x, size_t n, float scale, float *largest, double *sum)
{
    const float before = *largest;
    const vf s = v_set1(scale);
    size_t i = 0;
    for (; i + VL <= n; i += VL) v_store(x + i, v_mul(v_load(x + i), s));
    for (; i < n; i++) x[i] *= scale;
    const float here = largest_of(x, n);
    if (here > *largest) *largest = here;
    const float fade = expf(before - *largest);
    *sum = *sum * (double)fade + sum_exp(x, n, *largest, x);
    return fade;
}

/* ---- attention over Q8_0 ---------------------------------------------------------------------------------------- */

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
