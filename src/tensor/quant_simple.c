/* quant_simple.c: Q8_0 and Q4_0, one scale for a block of 32, no search: the rounding rules are ggml's, so that a file
 * made here has the bytes that other tools would have written. */
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

void q4_0_dequantize(const uint8_t *row, float *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += Q4_0_BYTES, out += BLOCK) {
        const float d = f16_to_f32(load_u16(row));
        for (size_t i = 0; i < BLOCK / 2; i++) {
            out[i] = d * (float)((row[2 + i] & 15) - 8);
            out[i + BLOCK / 2] = d * (float)((row[2 + i] >> 4) - 8);
        }
    }
}

void q4_0_quantize(const float *row, uint8_t *out, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, row += BLOCK, out += Q4_0_BYTES) {
        float largest = 0; /* by magnitude, with its sign: it becomes -8 exactly */
        for (size_t i = 0; i < BLOCK; i++) {
            if (fabsf(row[i]) > fabsf(largest)) largest = row[i];
        }
        const float d = largest / -8, id = inverse(d);
        store_u16(out, f32_to_f16(d));
        for (size_t i = 0; i < BLOCK / 2; i++) {
            const int lo = clamp_int(row[i] * id + 8.5f, 0, 15);
            const int hi = clamp_int(row[i + BLOCK / 2] * id + 8.5f, 0, 15);
            out[2 + i] = (uint8_t)(lo | hi << 4);
        }
    }
}
