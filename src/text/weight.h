/* weight.h: e^x for rows of logits, x <= 0: plain C that compilers turn into vectors, with the same bits on every
 * machine, which the C library's exp() does not promise. Relative error below 3e-7; 0 where the result would not be a
 * normal float (x < -87.3), and for NaN. */
#ifndef TEXT_WEIGHT_H
#define TEXT_WEIGHT_H

#include <stdint.h>
#include <string.h>

static inline int32_t weight_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float weight_float(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* e^x = 2^n e^r, n whole and |r| <= ln(2) / 2. Comparisons are of bits, since those of floats may trap, which compilers
 * must not do for lanes that are not asked for: of numbers with a sign bit the lesser has the larger bits, and NaN has
 * larger ones still. */
static inline float weight_exp(float x)
{
    const float rounder = 12582912; /* 1.5 * 2^23: adding it rounds to a whole number, which the low bits hold */
    const int32_t least = weight_bits(-100), negative = weight_bits(x) | INT32_MIN, smallest_normal = 1 << 23;
    const float safe = weight_float(negative < least ? negative : least);
    const float shifted = safe * 1.44269504f + rounder, n = shifted - rounder;
    const float r = (safe - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts (Cody and Waite) */
    float p = 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    const int32_t bits = weight_bits(p) + (int32_t)((uint32_t)weight_bits(shifted) << 23); /* n to the exponent */
    return weight_float(bits >= smallest_normal ? bits : 0);
}

#endif
