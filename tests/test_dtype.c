/* Storage types: block bytes, conversions against plain references, error bounds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/dtype.h"

static const dtype TYPES[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1,
                              DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void test_table(void **state)
{
    (void)state;
    char list[256] = "";
    for (size_t i = 0; i < N_TYPES; i++) {
        const dtype_traits *traits = dtype_get(TYPES[i]);
        assert_non_null(traits);
        assert_int_equal(traits->type, TYPES[i]);
        assert_int_equal(dtype_by_name(traits->name), TYPES[i]);
        if (i) strcat(list, ", ");
        strcat(list, traits->name);
    }
    assert_string_equal(dtype_list(), list);
    assert_int_equal(dtype_by_name("q4_k"), DTYPE_Q4_K);
    assert_int_equal(dtype_by_name("Q4"), DTYPE_NONE);
    assert_null(dtype_get(-1));
    assert_null(dtype_get(4)); /* a number that GGUF has withdrawn */
}

static void test_row_bytes(void **state)
{
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_F32, 7), 28);
    assert_int_equal(dtype_row_bytes(DTYPE_BF16, 7), 14);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 64), 68);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_0, 2048), 1152);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_K, 512), 288);
    assert_int_equal(dtype_row_bytes(DTYPE_Q6_K, 256), 210);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 33), 0);
    assert_int_equal(dtype_fitting(DTYPE_Q4_K, 512), DTYPE_Q4_K);
    assert_int_equal(dtype_fitting(DTYPE_Q4_K, 1408), DTYPE_Q5_0);
    assert_int_equal(dtype_fitting(DTYPE_Q5_K, 32), DTYPE_Q5_1);
    assert_int_equal(dtype_fitting(DTYPE_Q6_K, 96), DTYPE_Q8_0);
    assert_int_equal(dtype_fitting(DTYPE_Q8_0, 40), DTYPE_F16);
    assert_int_equal(dtype_row_bytes(DTYPE_Q4_K, 128), 0);
    assert_int_equal(dtype_row_bytes(99, 32), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_F32, UINT64_MAX / 4 + 1), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_F32, UINT64_MAX / 4), UINT64_MAX / 4 * 4);
}

/* The value an F16 stands for, by definition. */
static double f16_value(unsigned h)
{
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa ? (double)NAN : sign * (double)INFINITY;
    return exponent ? sign * ldexp(1024 + mantissa, exponent - 25) : sign * ldexp(mantissa, -24);
}

static void test_f16_read(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        const float f = f16_to_f32((uint16_t)h);
        const double expected = f16_value(h);
        if (isnan(expected)) {
            assert_true(isnan(f));
        } else {
            assert_int_equal(bits_of(f), bits_of((float)expected));
            assert_int_equal(f32_to_f16(f), h);
        }
    }
}

/* Rounding: at, just below and just above the middle between every two neighbours. */
static void test_f16_write(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        const double next = h == 0x7bff ? 65536 : f16_value(h + 1); /* as if the exponent went on */
        const float middle = (float)((f16_value(h) + next) / 2);
        const unsigned even = h % 2 ? h + 1 : h;
        assert_int_equal(f32_to_f16(middle), even);
        assert_int_equal(f32_to_f16(float_of(bits_of(middle) - 1)), h);
        assert_int_equal(f32_to_f16(float_of(bits_of(middle) + 1)), h + 1);
        assert_int_equal(f32_to_f16(-middle), even | 0x8000);
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_true(isnan(f16_to_f32(f32_to_f16(float_of(0x7f800001)))));
}

static void test_bf16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        const float f = bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), h << 16);
        if (isnan(f)) {
            assert_true(isnan(bf16_to_f32(f32_to_bf16(f))));
            continue;
        }
        assert_int_equal(f32_to_bf16(f), h);
        if ((h & 0x7fff) == 0x7f80) continue;
        assert_int_equal(f32_to_bf16(float_of(h << 16 | 0x7fff)), h);
        assert_int_equal(f32_to_bf16(float_of(h << 16 | 0x8000)), h + (h & 1));
        assert_int_equal(f32_to_bf16(float_of(h << 16 | 0x8001)), h + 1);
    }
    assert_true(isnan(bf16_to_f32(f32_to_bf16(float_of(0x7f800001)))));
}

static void test_q8_0_bytes(void **state)
{
    (void)state;
    float x[32] = {127, -127, 63.5f, -63.5f, 0.49f, 1.5f};
    uint8_t block[34];
    float back[32];
    dtype_from_f32(DTYPE_Q8_0, x, block, 32);
    const uint8_t expected[] = {0x00, 0x3c, 127, (uint8_t)-127, 64, (uint8_t)-64,
                                0,    2,    0}; /* d = 1; halves away from 0 */
    assert_memory_equal(block, expected, sizeof expected);
    dtype_to_f32(DTYPE_Q8_0, block, back, 32);
    assert_true(back[0] == 127 && back[1] == -127 && back[2] == 64 && back[3] == -64 && back[5] == 2);
}

static void test_q4_0_bytes(void **state)
{
    (void)state;
    float x[32] = {0}, back[32];
    for (int i = 0; i < 16; i++) x[i] = (float)(i - 8);
    x[16] = -8, x[17] = 7, x[18] = 0.5f, x[19] = -0.5f, x[20] = 7.9f;
    uint8_t block[18];
    dtype_from_f32(DTYPE_Q4_0, x, block, 32);
    const uint8_t expected[] = {0x00, 0x3c, 0x00, 0xf1, 0x92, 0x83, 0xf4, 0x85}; /* d = 1, the -8 exact */
    assert_memory_equal(block, expected, sizeof expected);
    dtype_to_f32(DTYPE_Q4_0, block, back, 32);
    for (int i = 0; i < 18; i++) assert_true(back[i] == x[i]);
    for (int i = 0; i < 32; i++) x[i] = i == 3 ? 4.0f : 0.0f; /* the largest may be positive: d < 0 */
    dtype_from_f32(DTYPE_Q4_0, x, block, 32);
    assert_int_equal(block[1] << 8 | block[0], 0xb800);
    dtype_to_f32(DTYPE_Q4_0, block, back, 32);
    for (int i = 0; i < 32; i++) assert_true(back[i] == x[i]);
}

/* Element i of a Q4_K block, straight from the format's definition: run r of 32, 6-bit scale and min. */
static double q4_k_element(const uint8_t *b, unsigned i)
{
    const unsigned r = i / 32, q = b[16 + r / 2 * 32 + i % 32] >> 4 * (r % 2) & 15;
    const uint8_t *s = b + 4;
    const unsigned scale = r < 4 ? s[r] & 63u : (s[r + 4] & 15u) | (s[r - 4] >> 6) << 4;
    const unsigned min = r < 4 ? s[r + 4] & 63u : (s[r + 4] >> 4) | (s[r] >> 6 & 3u) << 4;
    return f16_value(b[0] | b[1] << 8) * scale * q - f16_value(b[2] | b[3] << 8) * min;
}

/* Element i of a block of 32: offsets of the fifth bits (0: none) and the nibbles, and the level of zero. */
static double small_element(const uint8_t *b, unsigned i, unsigned high, unsigned quants, int zero)
{
    const unsigned nibble = i < 16 ? b[quants + i] & 15u : b[quants + i - 16] >> 4;
    const unsigned fifth = high ? b[high + i / 8] >> i % 8 & 1u : 0;
    const double min = zero ? 0 : f16_value(b[2] | b[3] << 8);
    return f16_value(b[0] | b[1] << 8) * ((int)(nibble + 16 * fifth) - zero) + min;
}

/* Element i of a Q5_K block: as Q4_K, bit r of byte i of the fifth bits is run r's. */
static double q5_k_element(const uint8_t *b, unsigned i)
{
    const unsigned r = i / 32, fifth = b[16 + i % 32] >> r & 1u;
    uint8_t as_q4[144];
    memcpy(as_q4, b, 16);
    memcpy(as_q4 + 16, b + 48, 128);
    const uint8_t *s = b + 4;
    const unsigned scale = r < 4 ? s[r] & 63u : (s[r + 4] & 15u) | (s[r - 4] >> 6) << 4;
    return q4_k_element(as_q4, i) + f16_value(b[0] | b[1] << 8) * scale * 16 * fifth;
}

/* Element i of a Q6_K block, likewise: halves of 128, quarters of 32 inside, low and high bits apart. */
static double q6_k_element(const uint8_t *b, unsigned i)
{
    const unsigned half = i / 128, l = i % 32;
    const uint8_t *low = b + 64 * half, *high = b + 128 + 32 * half;
    const int8_t scale = (int8_t)b[192 + i / 16];
    unsigned q;
    switch (i % 128 / 32) {
    case 0:
        q = (low[l] & 15u) | (high[l] & 3u) << 4;
        break;
    case 1:
        q = (low[l + 32] & 15u) | (high[l] >> 2 & 3u) << 4;
        break;
    case 2:
        q = low[l] >> 4 | (high[l] >> 4 & 3u) << 4;
        break;
    default:
        q = low[l + 32] >> 4 | (high[l] >> 6 & 3u) << 4;
    }
    return f16_value(b[208] | b[209] << 8) * scale * ((int)q - 32);
}

/* Random block bytes decode to what the definition says. */
static void test_random_blocks(void **state)
{
    (void)state;
    rng r;
    rng_init(&r, 1);
    for (int round = 0; round < 200; round++) {
        uint8_t block[210];
        float out[256];
        for (size_t i = 0; i < sizeof block; i++) block[i] = (uint8_t)rng_u64(&r);
        block[1] = (uint8_t)(0x20 | (block[1] & 0x87)); /* finite factors */
        block[3] = (uint8_t)(0x20 | (block[3] & 0x87));
        block[209] = (uint8_t)(0x20 | (block[209] & 0x87));
        dtype_to_f32(DTYPE_Q4_K, block, out, 256);
        for (unsigned i = 0; i < 256; i++) assert_float_equal(out[i], q4_k_element(block, i), 1e-4);
        dtype_to_f32(DTYPE_Q5_K, block, out, 256);
        for (unsigned i = 0; i < 256; i++) assert_float_equal(out[i], q5_k_element(block, i), 1e-4);
        dtype_to_f32(DTYPE_Q6_K, block, out, 256);
        for (unsigned i = 0; i < 256; i++) assert_float_equal(out[i], q6_k_element(block, i), 1e-4);
        dtype_to_f32(DTYPE_Q4_1, block, out, 32);
        for (unsigned i = 0; i < 32; i++) assert_float_equal(out[i], small_element(block, i, 0, 4, 0), 1e-4);
        dtype_to_f32(DTYPE_Q5_0, block, out, 32);
        for (unsigned i = 0; i < 32; i++) assert_float_equal(out[i], small_element(block, i, 2, 6, 16), 1e-4);
        dtype_to_f32(DTYPE_Q5_1, block, out, 32);
        for (unsigned i = 0; i < 32; i++) assert_float_equal(out[i], small_element(block, i, 4, 8, 0), 1e-4);
    }
}

/* relative root mean square error of a round trip; rows at an odd address */
static double round_trip(dtype type, const float *x, size_t n)
{
    const size_t bytes = dtype_row_bytes(type, n);
    uint8_t *row = malloc(bytes + 1);
    float *back = malloc(n * sizeof *back);
    double error = 0, power = 0;
    dtype_from_f32(type, x, row + 1, n);
    dtype_to_f32(type, row + 1, back, n);
    for (size_t i = 0; i < n; i++) {
        error += pow((double)back[i] - (double)x[i], 2);
        power += pow((double)x[i], 2);
    }
    free(row);
    free(back);
    return sqrt(error / power);
}

static void test_error_bounds(void **state)
{
    (void)state;
    enum { N = 65536 };
    float *x = malloc(N * sizeof *x);
    rng r;
    rng_init(&r, 2);
    for (size_t i = 0; i < N; i++) x[i] = rng_normal(&r);
    for (size_t k = 0; k < N_TYPES; k++) {
        const dtype_traits *traits = dtype_get(TYPES[k]);
        const double error = round_trip(TYPES[k], x, N);
        assert_true(error <= (double)traits->max_rel_rmse);
        assert_true(error >= 0.8 * (double)traits->max_rel_rmse); /* the bound says something */
    }
    /* Scale invariance, and the min of Q4_K: a shifted vector is still within the bound of its own spread. */
    for (size_t i = 0; i < N; i++) x[i] = x[i] * 1e-3f - 0.004f;
    assert_true(round_trip(DTYPE_Q4_K, x, N) <= 0.074 / 4);
    free(x);
}

/* What a format can hold exactly, its quantizer must find: the search is exact where an exact answer exists. */
static void test_k_exact(void **state)
{
    (void)state;
    float x[256], back[256];
    uint8_t row[210];
    for (int i = 0; i < 256; i++)
        x[i] = (float)(i % 32 < 16 ? i % 16 : 15 - i % 16) * (float)(63 - i / 32) - 63 * (i < 128);
    dtype_from_f32(DTYPE_Q4_K, x, row, 256);
    dtype_to_f32(DTYPE_Q4_K, row, back, 256);
    for (int i = 0; i < 256; i++) assert_float_equal(back[i], x[i], 0.02);
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 16 * 4 - 32) * (float)(128 - i / 16);
    dtype_from_f32(DTYPE_Q6_K, x, row, 256);
    dtype_to_f32(DTYPE_Q6_K, row, back, 256);
    for (int i = 0; i < 256; i++) assert_float_equal(back[i], x[i], 0.02);
}

/* Zeros, constants, tiny and broken numbers: no undefined conversion, finite input stays finite. */
static void test_odd_values(void **state)
{
    (void)state;
    static const float VALUES[] = {0, -0.0f, 1, -1, 1e-45f, 1e-38f, 3e-8f, -60000, 65504};
    for (size_t k = 0; k < N_TYPES; k++) {
        float x[256], back[256];
        uint8_t row[1024];
        for (size_t v = 0; v < sizeof VALUES / sizeof *VALUES; v++) {
            for (size_t i = 0; i < 256; i++) x[i] = VALUES[v];
            dtype_from_f32(TYPES[k], x, row, 256);
            dtype_to_f32(TYPES[k], row, back, 256);
            for (size_t i = 0; i < 256; i++) {
                assert_true(isfinite(back[i]));
                assert_true(fabsf(back[i] - x[i]) <= fabsf(x[i]) * 0.05f + 1e-6f);
            }
        }
        x[0] = NAN, x[1] = INFINITY, x[2] = -INFINITY, x[200] = NAN;
        dtype_from_f32(TYPES[k], x, row, 256);
        dtype_to_f32(TYPES[k], row, back, 256);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_row_bytes),     cmocka_unit_test(test_f16_read),
        cmocka_unit_test(test_f16_write),  cmocka_unit_test(test_bf16),          cmocka_unit_test(test_q8_0_bytes),
        cmocka_unit_test(test_q4_0_bytes), cmocka_unit_test(test_random_blocks), cmocka_unit_test(test_error_bounds),
        cmocka_unit_test(test_k_exact),    cmocka_unit_test(test_odd_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
