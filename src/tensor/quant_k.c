/* quant_k.c: Q4_K, Q5_K and Q6_K, runs with small integer scales inside a block of 256.
 *
 * Quantizing is a search in three steps. (1) For every run alone, try a fan of starting scales; each fixes the integers
 * q, and given q the best real scale (and min) is a linear regression of x on q; keep the scale with the least squared
 * error. (2) The block's F16 factor is set so that the largest scale takes the largest integer, and the other scales
 * are rounded to it. (3) As rounding moved them, the neighbours of each integer scale (and min) are tried with the q
 * that suit them best. Errors of a regression come from its sums, so that a trial is one pass over the run. */
#include <math.h>

#include "tensor/quant.h"

enum { BLOCK = 256, LANES = 4 };

/* Sums over a run for the regression of x on q. */
typedef struct moments {
    float q, qq, x, xx, xq;
} moments;

/* Nearest integer of v in 0..hi, as a float; NaN gives 0. */
static inline float nearest_in(float v, float hi)
{
    v += 0.5f;
    v = v > 0 ? v : 0;
    v = v < hi ? v : hi;
    return (float)(int)v;
}

/* q_i = nearest((x_i - base) * inverse) in 0..top, less `offset`; partial sums in lanes, for the compiler to vectorise.
 */
static moments run_moments(const float *x, size_t n, float base, float inverse, float top, float offset)
{
    float q[LANES] = {0}, qq[LANES] = {0}, sx[LANES] = {0}, xx[LANES] = {0}, xq[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            const float v = x[i + k], level = nearest_in((v - base) * inverse, top) - offset;
            q[k] += level;
            qq[k] += level * level;
            sx[k] += v;
            xx[k] += v * v;
            xq[k] += v * level;
        }
    }
    return (moments){q[0] + q[1] + q[2] + q[3], qq[0] + qq[1] + qq[2] + qq[3], sx[0] + sx[1] + sx[2] + sx[3],
                     xx[0] + xx[1] + xx[2] + xx[3], xq[0] + xq[1] + xq[2] + xq[3]};
}

/* Sum of (s q + b - x)^2 over the run. */
static double moments_error(const moments *m, size_t n, double s, double b)
{
    return m->xx + s * s * m->qq + b * b * (double)n - 2 * s * m->xq - 2 * b * m->x + 2 * s * b * m->q;
}

/* ---- Q4_K, Q5_K ---------------------------------------------------------------------------------------------- */

/* They differ in the largest level, 15 or 31. */
enum { Q4_RUN = 32, Q4_RUNS = 8, Q4_TOP = 15, Q5_TOP = 31, Q4_SCALE_TOP = 63, Q4_TRIALS = 20 };

/* Least squares of x on s q - min with s, min >= 0, q given by its moments. False where there is none. */
static bool q4_regress(const moments *m, float *s, float *min)
{
    const double det = (double)Q4_RUN * m->qq - (double)m->q * m->q;
    double slope = 0, offset = 1;
    if (det > 0) {
        slope = ((double)Q4_RUN * m->xq - (double)m->x * m->q) / det;
        offset = (m->x - slope * m->q) / Q4_RUN;
    }
    if (offset > 0) { /* a negative min, or any with constant q: without it */
        offset = 0;
        slope = (double)m->xq / m->qq;
    }
    *s = (float)slope;
    *min = (float)-offset;
    return slope > 0;
}

/* Real scale and min of one run. */
static void q4_fit_run(const float *x, float top, float *scale, float *min)
{
    float lo = 0, hi = 0;
    for (size_t i = 0; i < Q4_RUN; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = i == 0 || x[i] > hi ? x[i] : hi;
    }
    *scale = 0;
    *min = -lo;
    if (!(hi > lo)) return;
    double best = INFINITY;
    for (int trial = 0; trial <= Q4_TRIALS; trial++) {
        const float levels = top - 1.0f + 0.1f * (float)trial; /* above `top` the largest x is clipped */
        const moments m = run_moments(x, Q4_RUN, lo, levels / (hi - lo), top, 0);
        float s, b;
        if (!q4_regress(&m, &s, &b)) continue;
        const double error = moments_error(&m, Q4_RUN, s, -b);
        if (error < best) {
            best = error;
            *scale = s;
            *min = b;
        }
    }
}

/* Moves the integers of one run to the neighbours with the least error. */
static void q4_refine_run(const float *x, float top, float d, float dmin, int *scale, int *min)
{
    const int scale0 = *scale, min0 = *min;
    double best = INFINITY;
    for (int s = scale0 - 1; s <= scale0 + 1; s++) {
        for (int b = min0 - 1; b <= min0 + 1; b++) {
            if (s < 0 || s > Q4_SCALE_TOP || b < 0 || b > Q4_SCALE_TOP) continue;
            const float step = d * (float)s, base = -dmin * (float)b;
            const moments m = run_moments(x, Q4_RUN, base, step > 0 ? 1 / step : 0, top, 0);
            const double error = moments_error(&m, Q4_RUN, step, base);
            if (error < best) {
                best = error;
                *scale = s;
                *min = b;
            }
        }
    }
}

/* The inverse of q4_k_scales(). */
static void q4_pack_scales(const int *scale, const int *min, uint8_t *s)
{
    for (size_t r = 0; r < 4; r++) {
        s[r] = (uint8_t)(scale[r] | scale[r + 4] >> 4 << 6);
        s[r + 4] = (uint8_t)(min[r] | min[r + 4] >> 4 << 6);
        s[r + 8] = (uint8_t)((scale[r + 4] & 15) | (min[r + 4] & 15) << 4);
    }
}

/* The F16 factor that takes the largest of v to `top`. */
static float block_factor(const float *v, size_t n, float top, uint8_t *out)
{
    float largest = 0; /* by magnitude, with its sign */
    for (size_t i = 0; i < n; i++) largest = fabsf(v[i]) > fabsf(largest) ? v[i] : largest;
    const uint16_t h = f32_to_f16(largest / top);
    store_u16(out, h);
    return f16_to_f32(h);
}

/* The block up to its scales into out, the levels 0..top into q. */
static void q4_fit_block(const float *x, float top, uint8_t *out, uint8_t *q)
{
    float real_scale[Q4_RUNS], real_min[Q4_RUNS];
    int scale[Q4_RUNS], min[Q4_RUNS];
    for (size_t r = 0; r < Q4_RUNS; r++) q4_fit_run(x + r * Q4_RUN, top, &real_scale[r], &real_min[r]);
    const float d = block_factor(real_scale, Q4_RUNS, Q4_SCALE_TOP, out);
    const float dmin = block_factor(real_min, Q4_RUNS, Q4_SCALE_TOP, out + Q4_K_DMIN);
    for (size_t r = 0; r < Q4_RUNS; r++) {
        scale[r] = d > 0 ? (int)nearest_in(real_scale[r] / d, Q4_SCALE_TOP) : 0;
        min[r] = dmin > 0 ? (int)nearest_in(real_min[r] / dmin, Q4_SCALE_TOP) : 0;
        q4_refine_run(x + r * Q4_RUN, top, d, dmin, &scale[r], &min[r]);
        const float step = d * (float)scale[r], base = -dmin * (float)min[r], inverse = step > 0 ? 1 / step : 0;
        for (size_t i = r * Q4_RUN; i < (r + 1) * Q4_RUN; i++) q[i] = (uint8_t)nearest_in((x[i] - base) * inverse, top);
    }
    q4_pack_scales(scale, min, out + Q4_K_SCALES);
}

/* Nibbles of runs 2k and 2k + 1 share bytes. */
static void q4_pack_nibbles(const uint8_t *q, uint8_t *out)
{
    for (size_t i = 0; i < BLOCK / 2; i++) {
        const size_t at = i / Q4_RUN * 2 * Q4_RUN + i % Q4_RUN;
        out[i] = (uint8_t)((q[at] & 15) | (q[at + Q4_RUN] & 15) << 4);
    }
}

void q4_k_quantize(const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += BLOCK, out += Q4_K_BYTES) {
        uint8_t q[BLOCK];
        q4_fit_block(row, Q4_TOP, out, q);
        q4_pack_nibbles(q, out + Q4_K_QUANTS);
    }
}

void q5_k_quantize(const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += BLOCK, out += Q5_K_BYTES) {
        uint8_t q[BLOCK];
        q4_fit_block(row, Q5_TOP, out, q);
        q4_pack_nibbles(q, out + Q5_K_QUANTS);
        memset(out + Q5_K_HIGH, 0, Q4_RUN);
        for (size_t i = 0; i < BLOCK; i++) out[Q5_K_HIGH + i % Q4_RUN] |= (uint8_t)(q[i] >> 4 << i / Q4_RUN);
    }
}

/* high: fifth bits [32], or NULL. */
static void q4_dequantize_block(const uint8_t *block, const uint8_t *quants, const uint8_t *high, float *out)
{
    const float d = f16_to_f32(load_u16(block)), dmin = f16_to_f32(load_u16(block + Q4_K_DMIN));
    uint64_t scale, min;
    q4_k_scales(block + Q4_K_SCALES, &scale, &min);
    for (size_t r = 0; r < Q4_RUNS; r++, out += Q4_RUN) {
        const float step = d * (float)(scale >> 8 * r & 0xff), base = dmin * (float)(min >> 8 * r & 0xff);
        const uint8_t *q = quants + r / 2 * Q4_RUN;
        for (size_t i = 0; i < Q4_RUN; i++) {
            const int fifth = high ? (high[i] >> r & 1) << 4 : 0;
            out[i] = step * (float)((q[i] >> 4 * (r & 1) & 15) | fifth) - base;
        }
    }
}

void q4_k_dequantize(const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += Q4_K_BYTES, out += BLOCK)
        q4_dequantize_block(row, row + Q4_K_QUANTS, NULL, out);
}

void q5_k_dequantize(const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += Q5_K_BYTES, out += BLOCK)
        q4_dequantize_block(row, row + Q5_K_QUANTS, row + Q5_K_HIGH, out);
}

/* ---- Q6_K ---------------------------------------------------------------------------------------------------- */

enum { Q6_RUN = 16, Q6_RUNS = 16, Q6_ZERO = 32, Q6_TOP = 63, Q6_TRIALS = 18 };

/* Moments of q in -32..31 for x at the scale 1 / inverse. */
static moments q6_moments(const float *x, float inverse)
{
    return run_moments(x, Q6_RUN, inverse != 0 ? -Q6_ZERO / inverse : 0, inverse, Q6_TOP, Q6_ZERO);
}

/* Real scale of one run, of either sign: the largest x may take -32, the one level without a mirror image. */
static float q6_fit_run(const float *x)
{
    float largest = 0, scale = 0;
    for (size_t i = 0; i < Q6_RUN; i++) largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
    if (!(fabsf(largest) > 0)) return 0;
    double best = 0;
    for (int trial = 0; trial <= Q6_TRIALS; trial++) {
        const float levels = -Q6_ZERO + 0.1f * (float)(trial - Q6_TRIALS / 2);
        const moments m = q6_moments(x, levels / largest);
        const double explained = (double)m.xq * m.xq / m.qq; /* of sum x^2, by the best scale xq / qq */
        if (explained > best) {
            best = explained;
            scale = m.xq / m.qq;
        }
    }
    return scale;
}

static int q6_refine_run(const float *x, float d, int scale0)
{
    int scale = scale0;
    double best = INFINITY;
    for (int s = scale0 - 1; s <= scale0 + 1; s++) {
        if (s < -128 || s > 127) continue;
        const float step = d * (float)s;
        const moments m = q6_moments(x, step != 0 ? 1 / step : 0);
        const double error = step != 0 ? moments_error(&m, Q6_RUN, step, 0) : m.xx;
        if (error < best) {
            best = error;
            scale = s;
        }
    }
    return scale;
}

static void q6_quantize_block(const float *x, uint8_t *out)
{
    float real[Q6_RUNS];
    memset(out, 0, Q6_K_BYTES);
    for (size_t r = 0; r < Q6_RUNS; r++) real[r] = q6_fit_run(x + r * Q6_RUN);
    const float d = block_factor(real, Q6_RUNS, -128, out + Q6_K_D);
    for (size_t r = 0; r < Q6_RUNS; r++) {
        const int start = d != 0 ? (int)nearest_in(real[r] / d + 128, 255) - 128 : 0;
        const int scale = q6_refine_run(x + r * Q6_RUN, d, start);
        const float step = d * (float)scale, inverse = step != 0 ? 1 / step : 0;
        out[Q6_K_SCALES + r] = (uint8_t)(int8_t)scale;
        for (size_t i = r * Q6_RUN; i < (r + 1) * Q6_RUN; i++) {
            const unsigned q = (unsigned)nearest_in(x[i] * inverse + Q6_ZERO, Q6_TOP);
            const size_t half = i / 128, p = i / 32 % 4;
            out[64 * half + 32 * (p & 1) + i % 32] |= (uint8_t)((q & 15) << 4 * (p >> 1));
            out[Q6_K_HIGH + 32 * half + i % 32] |= (uint8_t)(q >> 4 << 2 * p);
        }
    }
}

void q6_k_quantize(const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) q6_quantize_block(row + b * BLOCK, out + b * Q6_K_BYTES);
}

void q6_k_dequantize(const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += Q6_K_BYTES, out += BLOCK) {
        const float d = f16_to_f32(load_u16(row + Q6_K_D));
        for (size_t i = 0; i < BLOCK; i++) {
            const size_t half = i / 128, p = i / 32 % 4;
            const int low = row[64 * half + 32 * (p & 1) + i % 32] >> 4 * (p >> 1) & 15;
            const int high = row[Q6_K_HIGH + 32 * half + i % 32] >> 2 * p & 3;
            const float step = d * (float)(int8_t)row[Q6_K_SCALES + i / Q6_RUN];
            out[i] = step * (float)((low | high << 4) - Q6_ZERO);
        }
    }
}
