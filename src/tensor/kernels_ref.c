/* kernels_ref.c: the portable kernels, written to be read: every format is turned into F32 by dtype.h, sums are F64.
 * They know no block layout, so they are right for a new type as soon as its conversion is. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "tensor/blocks32.h"
#include "tensor/kernels_impl.h"
#include "tensor/rows16.h"

enum { PIECE = 256 }; /* elements in hand at a time: a whole number of blocks of any type */

static size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static uint32_t magnitude_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u & 0x7fffffffu;
}

/* Magnitudes compare as integers, so that a NaN counts as the largest of all and makes the whole block NaN. */
static float largest_magnitude(const float *x, size_t n)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < n; i++) largest = magnitude_bits(x[i]) > largest ? magnitude_bits(x[i]) : largest;
    float f;
    memcpy(&f, &largest, sizeof f);
    return f;
}

static void quantize_act(const float *x, size_t n, void *out)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < n; i += ACT_BLOCK) {
        const float largest = largest_magnitude(x + i, ACT_BLOCK);
        const float inverse = largest > ACT_TINY ? 127.0f / largest : 0.0f;
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        int32_t sums[2] = {0};
        for (size_t k = 0; k < ACT_BLOCK; k++) {
            const int q = isfinite(largest) ? (int)lrintf(x[i + k] * inverse) : 0;
            bytes[i + k] = (uint8_t)(int8_t)q;
            sums[k / 16] += q;
        }
        const float sum = scale * (float)(sums[0] + sums[1]);
        memcpy(bytes + n + i / 8, &scale, 4);
        memcpy(bytes + n + n / 8 + i / 8, &sum, 4);
        memcpy(bytes + n + n / 4 + i / 4, sums, 8);
    }
}

/* Elements i .. i + count of a token as F32. */
static const float *activation(const dtype_traits *traits, const void *x, size_t n, size_t i, size_t count, float *buf)
{
    if (!traits->quantized) return (const float *)x + i;
    for (size_t k = 0; k < count; k++) {
        const float scale = load_f32(act_scales(x, n) + (i + k) / ACT_BLOCK * sizeof(float));
        buf[k] = scale * (float)act_quants(x)[i + k];
    }
    return buf;
}

static void rows_dot(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                     float *const *out, size_t tokens, const void *next)
{
    (void)next;
    const dtype_traits *traits = dtype_get(dtype_plain(type));
    assert(traits && n % traits->block == 0);
    enum { TOKENS = 16 };
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)w + r * w_stride;
        for (size_t t0 = 0; t0 < tokens; t0 += TOKENS) {
            const size_t count = at_most(tokens - t0, TOKENS);
            double sum[TOKENS] = {0};
            for (size_t i = 0; i < n; i += PIECE) {
                float weights[PIECE], buf[PIECE];
                const size_t len = at_most(n - i, PIECE);
                if (dtype_is_r16(type))
                    rows16_to_f32(type, n, row - r % ROWS16 * w_stride, r % ROWS16, i, weights, len);
                else
                    dtype_to_f32(type, row + dtype_row_bytes(type, i), weights, len);
                for (size_t t = 0; t < count; t++) {
                    sum[t] += dot(weights, activation(traits, x[t0 + t], n, i, len, buf), len);
                }
            }
            for (size_t t = 0; t < count; t++) out[t0 + t][r] = (float)sum[t];
        }
    }
}

static void rows_accumulate(dtype type, size_t width, size_t tiles, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens, const void *next)
{
    (void)next;
    for (size_t i = 0; i < tiles * rows; i++) {
        const uint8_t *row = (const uint8_t *)r + i * r_stride;
        const size_t first = i / rows * width, j = i % rows, in_block = j % BLOCK32_ROWS;
        for (size_t c = 0; c < width; c += PIECE) {
            float piece[PIECE];
            const size_t len = at_most(width - c, PIECE);
            if (dtype_is_b32(type))
                blocks32_to_f32(type, at_most(rows - (j - in_block), BLOCK32_ROWS), row - in_block * r_stride, in_block,
                                piece);
            else
                dtype_to_f32(type, row + dtype_row_bytes(type, c), piece, len);
            for (size_t t = 0; t < tokens; t++) {
                for (size_t k = 0; k < len; k++) y[t][first + c + k] += a[t][j] * piece[k];
            }
        }
    }
}

static void rms_norm(const float *x, const float *weight, float eps, float *out, size_t n)
{
    const float scale = (float)(1 / sqrt(dot(x, x, n) / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

static void swiglu(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static float largest_of(const float *x, size_t n)
{
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static void softmax(float *x, size_t n)
{
    const float largest = largest_of(x, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)(x[i] = expf(x[i] - largest));
    const float scale = (float)(1 / sum);
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

static double log_sum_exp(const float *x, size_t n)
{
    const double largest = (double)largest_of(x, n);
    if (isinf(largest)) return largest;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

static float softmax_step(float *x, size_t n, float scale, float *largest, double *sum)
{
    const float before = *largest;
    for (size_t i = 0; i < n; i++) x[i] *= scale;
    const float here = largest_of(x, n);
    if (here > *largest) *largest = here;
    const float fade = expf(before - *largest);
    *sum *= (double)fade;
    for (size_t i = 0; i < n; i++) *sum += (double)(x[i] = expf(x[i] - *largest));
    return fade;
}

static void dot_q8_0(const float *q, const void *k, size_t stride, size_t count, float *out, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        float piece[ACT_BLOCK];
        for (size_t c = 0; c < n; c += ACT_BLOCK) {
            q8_0_dequantize((const uint8_t *)k + i * stride + c / ACT_BLOCK * Q8_0_BYTES, piece, 1);
            sum += dot(q + c, piece, ACT_BLOCK);
        }
        out[i] = (float)sum;
    }
}

static void mix_q8_0(const float *p, const void *v, size_t stride, size_t count, float *acc, size_t n)
{
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < n; c += ACT_BLOCK) {
            float piece[ACT_BLOCK];
            q8_0_dequantize((const uint8_t *)v + i * stride + c / ACT_BLOCK * Q8_0_BYTES, piece, 1);
            for (size_t k = 0; k < ACT_BLOCK; k++) acc[c + k] += p[i] * piece[k];
        }
}

static void f32_to_f16_row(const float *x, uint16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = f32_to_f16(x[i]);
}

const kernels KERNELS_REF = {
    .isa = "ref",
    .quantize_act = quantize_act,
    .rows_dot = rows_dot,
    .rows_accumulate = rows_accumulate,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .softmax = softmax,
    .log_sum_exp = log_sum_exp,
    .softmax_step = softmax_step,
    .dot_q8_0 = dot_q8_0,
    .mix_q8_0 = mix_q8_0,
    .f32_to_f16_row = f32_to_f16_row,
};
