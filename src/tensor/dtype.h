/* dtype.h: storage types of weights, by the numbers GGUF gives them, and their conversion to and from F32.
 *
 * A row is a whole number of blocks; blocks are laid out bit for bit as in ggml (block_q8_0, block_q4_K, ...),
 * little-endian. Rows may begin at any byte address. */
#ifndef TENSOR_DTYPE_H
#define TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dtype {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2,
    DTYPE_Q4_1 = 3,
    DTYPE_Q5_0 = 6,
    DTYPE_Q5_1 = 7,
    DTYPE_Q8_0 = 8,
    DTYPE_Q4_K = 12,
    DTYPE_Q5_K = 13,
    DTYPE_Q6_K = 14,
    DTYPE_BF16 = 30,
    DTYPE_NONE = -1,
    /* rows interleaved by sixteen (rows16.h): in memory only, never in a file */
    DTYPE_R16 = 256,
    DTYPE_Q4_0_R16 = DTYPE_R16 + DTYPE_Q4_0,
    DTYPE_Q8_0_R16 = DTYPE_R16 + DTYPE_Q8_0,
    DTYPE_Q4_K_R16 = DTYPE_R16 + DTYPE_Q4_K,
    DTYPE_Q5_K_R16 = DTYPE_R16 + DTYPE_Q5_K,
    DTYPE_Q6_K_R16 = DTYPE_R16 + DTYPE_Q6_K,
    /* blocks of up to 32 rows of 256 elements (blocks32.h): likewise */
    DTYPE_B32 = 512,
    DTYPE_Q4_0_B32 = DTYPE_B32 + DTYPE_Q4_0,
    DTYPE_Q8_0_B32 = DTYPE_B32 + DTYPE_Q8_0,
    DTYPE_Q4_K_B32 = DTYPE_B32 + DTYPE_Q4_K,
    DTYPE_Q5_K_B32 = DTYPE_B32 + DTYPE_Q5_K,
    DTYPE_Q6_K_B32 = DTYPE_B32 + DTYPE_Q6_K,
} dtype;

static inline bool dtype_is_b32(dtype type)
{
    return type >= DTYPE_B32;
}

static inline bool dtype_is_r16(dtype type)
{
    return type >= DTYPE_R16 && type < DTYPE_B32;
}

/* The type of the same rows one after the other; everything below takes this one. */
static inline dtype dtype_plain(dtype type)
{
    return dtype_is_b32(type) ? (dtype)(type - DTYPE_B32) : dtype_is_r16(type) ? (dtype)(type - DTYPE_R16) : type;
}

typedef struct dtype_traits {
    dtype type;
    const char *name; /* "Q8_0" */
    uint32_t block;   /* elements of a block */
    uint32_t block_bytes;
    bool quantized;     /* products take activations quantized by kernels.h; else F32 */
    float max_rel_rmse; /* of a quantized normal vector: the one error bound of this format, used by the tests */
} dtype_traits;

/* NULL for a type that is not supported. */
const dtype_traits *dtype_get(int type);
dtype dtype_by_name(const char *name); /* any case; DTYPE_NONE */
const char *dtype_list(void);          /* "F32, F16, ...", for messages */
/* 0 where the type is unknown, n is not whole blocks, or the product overflows. */
size_t dtype_row_bytes(int type, uint64_t n);

/* The type for rows of n elements that comes nearest: itself where n is whole blocks, else the type of 32s next above,
 * as llama.cpp has it, else F16. */
dtype dtype_fitting(dtype type, uint64_t n);

void dtype_to_f32(dtype type, const void *row, float *out, size_t n);
/* Round to nearest; the K types search scales and minima for the least squared error. n: whole blocks. */
void dtype_from_f32(dtype type, const float *row, void *out, size_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

#endif
