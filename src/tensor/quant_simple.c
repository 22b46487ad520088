/* quant_simple.c: Q8_0 and the formats of nibbles in blocks of 32, no search: the rounding rules are ggml's, so that a
 * file made here has the bytes that other tools would have written.
 *
 * The formats of nibbles are one: levels 0..top, of which a fifth bit may stand apart, and either an offset (Q4_0,
 * Q5_0) or a stored minimum (Q4_1, Q5_1). */
#include <math.h>

#include "tensor/quant.h"

enum { BLOCK = 32 };

/* 1 / d, or 0 where d is 0 or so small that its inverse overflows: d rounds to 0 in F16 long before. */
static float inverse(float d)
{
    const float id = 1.0f / d;
    return isfinite(id) ? id : 0.0f;
}

/* v truncated into lo..hi; NaN gives lo. */
static int clamp_int(float v, int lo, int hi)
{
    if (!(v > (float)lo)) return lo;
    return v < (float)hi ? (int)v : hi;
}

void q8_0_dequantize(const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += Q8_0_BYTES, out += BLOCK) {
        const float d = f16_to_f32(load_u16(row));
        for (size_t i = 0; i < BLOCK; i++) out[i] = d * (float)(int8_t)row[2 + i];
    }
}

void q8_0_quantize(const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += BLOCK, out += Q8_0_BYTES) {
        float largest = 0;
        for (size_t i = 0; i < BLOCK; i++) largest = fmaxf(largest, fabsf(row[i]));
        const float d = largest / 127, id = inverse(d);
        store_u16(out, f32_to_f16(d));
        for (size_t i = 0; i < BLOCK; i++) out[2 + i] = (uint8_t)clamp_int(roundf(row[i] * id), -127, 127);
    }
}

/* Where a format keeps its parts. */
typedef struct nibbles {
    size_t bytes, high, quants; /* offsets; high 0: no fifth bit */
    int top;                    /* largest level */
    bool has_min;               /* else the levels count from -(top + 1) / 2 */
} nibbles;

static const nibbles Q4_0 = {Q4_0_BYTES, 0, 2, 15, false}, Q4_1 = {Q4_1_BYTES, 0, Q4_1_QUANTS, 15, true},
                     Q5_0 = {Q5_0_BYTES, Q5_0_HIGH, Q5_0_QUANTS, 31, false},
                     Q5_1 = {Q5_1_BYTES, Q5_1_HIGH, Q5_1_QUANTS, 31, true};

static void dequantize(const nibbles *f, const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += f->bytes, out += BLOCK) {
        const float d = f16_to_f32(load_u16(row)), m = f->has_min ? f16_to_f32(load_u16(row + 2)) : 0;
        const uint32_t high = f->high ? load_u32(row + f->high) : 0;
        const int zero = f->has_min ? 0 : (f->top + 1) / 2;
        for (size_t i = 0; i < BLOCK; i++) {
            const int nibble = row[f->quants + i % 16] >> 4 * (i / 16) & 15;
            out[i] = d * (float)((nibble | (int)(high >> i & 1) << 4) - zero) + m;
        }
    }
}

static void pack(const nibbles *f, const int *q, uint8_t *out)
{
    uint32_t high = 0;
    for (size_t i = 0; i < BLOCK; i++) high |= (uint32_t)(q[i] >> 4) << i;
    if (f->high) memcpy(out + f->high, &high, sizeof high);
    for (size_t i = 0; i < BLOCK / 2; i++) out[f->quants + i] = (uint8_t)((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
}

/* The largest by magnitude becomes the lowest level exactly. */
static void quantize_offset(const nibbles *f, const float *x, uint8_t *out)
{
    float largest = 0;
    int q[BLOCK];
    const int zero = (f->top + 1) / 2;
    const float round_up = (float)zero + 0.5f;
    for (size_t i = 0; i < BLOCK; i++) {
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    }
    const float d = largest / (float)-zero, id = inverse(d);
    store_u16(out, f32_to_f16(d));
    for (size_t i = 0; i < BLOCK; i++) q[i] = clamp_int(x[i] * id + round_up, 0, f->top);
    pack(f, q, out);
}

static void quantize_min(const nibbles *f, const float *x, uint8_t *out)
{
    float lo = x[0], hi = x[0];
    int q[BLOCK];
    for (size_t i = 0; i < BLOCK; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    const float d = (hi - lo) / (float)f->top, id = inverse(d);
    store_u16(out, f32_to_f16(d));
    store_u16(out + 2, f32_to_f16(lo));
    for (size_t i = 0; i < BLOCK; i++) q[i] = clamp_int((x[i] - lo) * id + 0.5f, 0, f->top);
    pack(f, q, out);
}

static void quantize(const nibbles *f, const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += BLOCK, out += f->bytes) {
        if (f->has_min)
            quantize_min(f, row, out);
        else
            quantize_offset(f, row, out);
    }
}

#define NIBBLES_DEFINE(name, format)                                                                                   \
    void name##_dequantize(const uint8_t *row, float *out, size_t blocks)                                              \
    {                                                                                                                  \
        dequantize(&(format), row, out, blocks);                                                                       \
    }                                                                                                                  \
    void name##_quantize(const float *row, uint8_t *out, size_t blocks)                                                \
    {                                                                                                                  \
        quantize(&(format), row, out, blocks);                                                                         \
    }

NIBBLES_DEFINE(q4_0, Q4_0)
NIBBLES_DEFINE(q4_1, Q4_1)
NIBBLES_DEFINE(q5_0, Q5_0)
NIBBLES_DEFINE(q5_1, Q5_1)
