/* dtype.c: the table of storage types and the conversions between F32, F16 and BF16.
 *
 * A new type is one row of CODEC_MAP and its two functions; nothing else in the module lists the types except the
 * kernels. */
#include "tensor/dtype.h"

#include <assert.h>
#include <strings.h>

#include "tensor/quant.h"

static uint32_t float_bits(float f)
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

float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13;
    if ((h & 0x7c00u) == 0x7c00u) { /* infinity; NaN becomes quiet, as in hardware */
        const uint32_t quiet = (h & 0x3ffu) ? 0x400000u : 0;
        return float_of(sign | 0x7f800000u | magnitude | quiet);
    }
    /* Read with F32's exponent bias of 127 instead of 15, the value is 2^112 too small, subnormals included. */
    return float_of(sign | float_bits(float_of(magnitude) * 0x1p112f));
}

uint16_t f32_to_f16(float f)
{
    const uint32_t u = float_bits(f);
    const uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= float_bits(65520.0f)) return sign | 0x7c00u; /* half way to 2^16 rounds up, to infinity */
    if (magnitude < float_bits(0x1p-14f)) {
        /* A subnormal counts units of 2^-24, which is the last place of 0.5: the addition does the rounding. */
        return (uint16_t)(sign | (float_bits(float_of(magnitude) + 0.5f) - float_bits(0.5f)));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1);
    return (uint16_t)(sign | ((magnitude - ((127u - 15u) << 23)) >> 13));
}

float bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f)
{
    const uint32_t u = float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static void f32_read(const uint8_t *row, float *out, size_t n)
{
    memcpy(out, row, n * sizeof *out);
}

static void f32_write(const float *row, uint8_t *out, size_t n)
{
    memcpy(out, row, n * sizeof *row);
}

static void f16_read(const uint8_t *row, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = f16_to_f32(load_u16(row + 2 * i));
}

static void f16_write(const float *row, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) store_u16(out + 2 * i, f32_to_f16(row[i]));
}

static void bf16_read(const uint8_t *row, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = bf16_to_f32(load_u16(row + 2 * i));
}

static void bf16_write(const float *row, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) store_u16(out + 2 * i, f32_to_bf16(row[i]));
}

typedef struct codec {
    dtype_traits traits;
    dequantize_fn *read;
    quantize_fn *write;
} codec;

/* name, elements and bytes of a block, quantized, bound of the relative error (dtype.h), read, write */
#define CODEC_MAP(X)                                                                                                   \
    X(F32, 1, 4, false, 0.0f, f32_read, f32_write)                                                                     \
    X(F16, 1, 2, false, 2.5e-4f, f16_read, f16_write)                                                                  \
    X(BF16, 1, 2, false, 2e-3f, bf16_read, bf16_write)                                                                 \
    X(Q8_0, 32, Q8_0_BYTES, true, 0.006f, q8_0_dequantize, q8_0_quantize)                                              \
    X(Q4_0, 32, Q4_0_BYTES, true, 0.092f, q4_0_dequantize, q4_0_quantize)                                              \
    X(Q4_1, 32, Q4_1_BYTES, true, 0.085f, q4_1_dequantize, q4_1_quantize)                                              \
    X(Q5_0, 32, Q5_0_BYTES, true, 0.046f, q5_0_dequantize, q5_0_quantize)                                              \
    X(Q5_1, 32, Q5_1_BYTES, true, 0.042f, q5_1_dequantize, q5_1_quantize)                                              \
    X(Q4_K, 256, Q4_K_BYTES, true, 0.074f, q4_k_dequantize, q4_k_quantize)                                             \
    X(Q5_K, 256, Q5_K_BYTES, true, 0.038f, q5_k_dequantize, q5_k_quantize)                                             \
    X(Q6_K, 256, Q6_K_BYTES, true, 0.0185f, q6_k_dequantize, q6_k_quantize)

static const codec CODECS[] = {
#define X(name, block, bytes, quantized, bound, read, write)                                                           \
    {{DTYPE_##name, #name, block, bytes, quantized, bound}, read, write},
    CODEC_MAP(X)
#undef X
};
enum { N_CODECS = sizeof CODECS / sizeof *CODECS };

static const codec *codec_get(int type)
{
    for (size_t i = 0; i < N_CODECS; i++) {
        if ((int)CODECS[i].traits.type == type) return &CODECS[i];
    }
    return NULL;
}

const dtype_traits *dtype_get(int type)
{
    const codec *c = codec_get(type);
    return c ? &c->traits : NULL;
}

dtype dtype_by_name(const char *name)
{
    for (size_t i = 0; i < N_CODECS; i++) {
        if (!strcasecmp(CODECS[i].traits.name, name)) return CODECS[i].traits.type;
    }
    return DTYPE_NONE;
}

const char *dtype_list(void)
{
#define X(name, ...) ", " #name
    return &(CODEC_MAP(X))[2]; /* past the first comma */
#undef X
}

size_t dtype_row_bytes(int type, uint64_t n)
{
    const dtype_traits *traits = dtype_get(type);
    size_t bytes;
    if (!traits || n % traits->block) return 0;
    return __builtin_mul_overflow(n / traits->block, traits->block_bytes, &bytes) ? 0 : bytes;
}

dtype dtype_fitting(dtype type, uint64_t n)
{
    static const dtype ABOVE[][2] = {{DTYPE_Q4_K, DTYPE_Q5_0}, {DTYPE_Q5_K, DTYPE_Q5_1}, {DTYPE_Q6_K, DTYPE_Q8_0}};
    if (dtype_row_bytes(type, n)) return type;
    for (size_t i = 0; i < sizeof ABOVE / sizeof *ABOVE; i++)
        if (type == ABOVE[i][0] && dtype_row_bytes(ABOVE[i][1], n)) return ABOVE[i][1];
    return DTYPE_F16;
}

void dtype_to_f32(dtype type, const void *row, float *out, size_t n)
{
    const codec *c = codec_get(type);
    assert(c && n % c->traits.block == 0);
    c->read(row, out, n / c->traits.block);
}

void dtype_from_f32(dtype type, const float *row, void *out, size_t n)
{
    const codec *c = codec_get(type);
    assert(c && n % c->traits.block == 0);
    c->write(row, out, n / c->traits.block);
}
