/* quant.h: the block formats inside the tensor module; everyone else uses dtype.h. Nothing here owns memory.
 *
 * All numbers little-endian, blocks packed without padding, so every field is read through memcpy. x is element i:
 *
 *   Q8_0   32 elements   34 bytes   f16 d, i8 q[32]                         x_i = d q_i
 *   Q4_0   32 elements   18 bytes   f16 d, u8 q[16]                         x_i = d (nibble_i - 8)
 *   Q4_1   32 elements   20 bytes   f16 d, f16 m, u8 q[16]                  x_i = d nibble_i + m
 *   Q5_0   32 elements   22 bytes   f16 d, u32 high, u8 q[16]               x_i = d (five_i - 16)
 *   Q5_1   32 elements   24 bytes   f16 d, f16 m, u32 high, u8 q[16]        x_i = d five_i + m
 *
 * nibble i is the low half of q[i] for i < 16, the high half of q[i - 16] after that; five_i has bit i of `high` above
 * nibble i.
 *
 *   Q4_K  256 elements  144 bytes   f16 d, f16 dmin, u8 s[12], u8 q[128]
 *   Q5_K  256 elements  176 bytes   f16 d, f16 dmin, u8 s[12], u8 high[32], u8 q[128]
 *
 * Eight runs of 32, x_i = d scale_r q_i - dmin min_r. Nibbles of runs 2k and 2k + 1 are the low and the high halves of
 * q[32 k ..]; in Q5_K the fifth bit of element i of run r is bit r of high[i]. Scale and min have 6 bits each, packed
 * as q4_k_scales() says.
 *
 *   Q6_K  256 elements  210 bytes   u8 low[128], u8 high[64], i8 s[16], f16 d
 *
 * Sixteen runs of 16, x_i = d s_r (q_i - 32); within each half of 128 the runs of 32 number p = 0..3 take their low
 * four bits from low[32 (p & 1) ..] >> 4 (p >> 1) and their high two from high[0 ..] >> 2 p. */
#ifndef TENSOR_QUANT_H
#define TENSOR_QUANT_H

#include <string.h>

#include "tensor/dtype.h"

enum {
    Q8_0_BYTES = 34,
    Q4_0_BYTES = 18,
    Q4_1_BYTES = 20,
    Q4_1_QUANTS = 4,
    Q5_0_BYTES = 22,
    Q5_0_HIGH = 2,
    Q5_0_QUANTS = 6,
    Q5_1_BYTES = 24,
    Q5_1_HIGH = 4,
    Q5_1_QUANTS = 8,
    Q4_K_BYTES = 144,
    Q4_K_DMIN = 2, /* also Q5_K's, up to the scales */
    Q4_K_SCALES = 4,
    Q4_K_QUANTS = 16,
    Q5_K_BYTES = 176,
    Q5_K_HIGH = 16,
    Q5_K_QUANTS = 48,
    Q6_K_BYTES = 210,
    Q6_K_HIGH = 128,
    Q6_K_SCALES = 192,
    Q6_K_D = 208,
};

static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float load_f32(const void *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

/* The eight scales and minima of a Q4_K block, a byte each, run 0 lowest. Of the 12 bytes s: run r < 4 has its scale in
 * the low six bits of s[r] and its min in those of s[r + 4]; run r >= 4 has the low four bits of both in s[r + 4] and
 * the high two in the tops of s[r - 4] and s[r]. */
static inline void q4_k_scales(const void *s, uint64_t *scale, uint64_t *min)
{
    const uint32_t a = load_u32(s), b = load_u32((const uint8_t *)s + 4), c = load_u32((const uint8_t *)s + 8);
    const uint32_t scale_high = (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u);
    const uint32_t min_high = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u);
    *scale = (a & 0x3f3f3f3fu) | (uint64_t)scale_high << 32;
    *min = (b & 0x3f3f3f3fu) | (uint64_t)min_high << 32;
}

typedef void dequantize_fn(const uint8_t *row, float *out, size_t blocks);
typedef void quantize_fn(const float *row, uint8_t *out, size_t blocks);

dequantize_fn q8_0_dequantize, q4_0_dequantize, q4_1_dequantize, q5_0_dequantize, q5_1_dequantize;
dequantize_fn q4_k_dequantize, q5_k_dequantize, q6_k_dequantize;
quantize_fn q8_0_quantize, q4_0_quantize, q4_1_quantize, q5_0_quantize, q5_1_quantize;
quantize_fn q4_k_quantize, q5_k_quantize, q6_k_quantize;

#endif
