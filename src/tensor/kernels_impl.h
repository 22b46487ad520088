/* kernels_impl.h: what the kernel files share and nobody else sees: the tables and the layout of a quantized
 * activation.
 *
 * The activation of n elements is planar, so that the scales of several blocks are one load:
 *     i8 quants[n], f32 scale[n / 32], f32 sum[n / 32], i32 half_sum[n / 16]
 * with x_i = scale quants_i, sum = scale * (sum of 32 quants), which a weight format with a min per run multiplies that
 * with, and half_sum the sum of 16 quants, for formats whose weights are unsigned with an offset. It has no
 * alignment. */
#ifndef TENSOR_KERNELS_IMPL_H
#define TENSOR_KERNELS_IMPL_H

#include "tensor/kernels.h"
#include "tensor/quant.h"

enum { ACT_BLOCK = 32 };

/* Largest magnitude below which a block counts as zero: 127 over it would near the end of F32's range. */
#define ACT_TINY 1e-30f

static inline const int8_t *act_quants(const void *act)
{
    return act;
}

static inline const uint8_t *act_scales(const void *act, size_t n)
{
    return (const uint8_t *)act + n;
}

static inline const uint8_t *act_sums(const void *act, size_t n)
{
    return act_scales(act, n) + n / ACT_BLOCK * sizeof(float);
}

static inline const uint8_t *act_half_sums(const void *act, size_t n)
{
    return act_sums(act, n) + n / ACT_BLOCK * sizeof(float);
}

/* Bytes of one block; types without blocks: of one element. */
static inline size_t block_bytes(dtype type)
{
    switch (type) {
    case DTYPE_Q8_0:
        return Q8_0_BYTES;
    case DTYPE_Q4_0:
        return Q4_0_BYTES;
    case DTYPE_Q4_1:
        return Q4_1_BYTES;
    case DTYPE_Q5_0:
        return Q5_0_BYTES;
    case DTYPE_Q5_1:
        return Q5_1_BYTES;
    case DTYPE_Q4_K:
        return Q4_K_BYTES;
    case DTYPE_Q5_K:
        return Q5_K_BYTES;
    case DTYPE_Q6_K:
        return Q6_K_BYTES;
    default:
        return type == DTYPE_F32 ? 4 : 2;
    }
}

/* What rows_dot is asked for. */
typedef struct dot_args {
    size_t n;
    const uint8_t *w;
    size_t w_stride, rows;
    const void *const *x;
    float *const *out;
    const uint8_t *next; /* what to ask for when nothing of this call is left */
} dot_args;

extern const kernels KERNELS_REF;
#if defined(__x86_64__)
/* Asks for those lines of `bytes` from `next` on that fall to step `step` of `steps`. Unlike __builtin_prefetch() it
 * stays where it is: a line or two asked for between those that are read keeps memory and arithmetic busy at once, many
 * in a row do not. */
static inline __attribute__((always_inline)) void ask_lines(const uint8_t *next, size_t bytes, size_t step,
                                                            size_t steps)
{
    const size_t lines = (bytes + 63) / 64;
#pragma GCC unroll 4
    for (size_t l = step * lines / steps; l < (step + 1) * lines / steps; l++)
        __asm__ volatile("prefetcht0 %0" : : "m"(next[l * 64]) : "memory");
}

extern const kernels KERNELS_AVX2, KERNELS_AVXVNNI, KERNELS_AVX512;

/* The parts of the tables; the products and the vector operations are files of their own. */
#define KERNELS_DECLARE(isa)                                                                                           \
    void quantize_act_##isa(const float *x, size_t n, void *out);                                                      \
    void rows_dot_##isa(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,       \
                        float *const *out, size_t tokens, const void *next);                                           \
    void rows_accumulate_##isa(dtype type, size_t width, size_t tiles, const void *r, size_t r_stride, size_t rows,    \
                               const float *const *a, float *const *y, size_t tokens, const void *next);
KERNELS_DECLARE(avx2)
KERNELS_DECLARE(avxvnni)
KERNELS_DECLARE(avx512)
void rows16_dot_avx2(dtype type, const dot_args *a, size_t tokens); /* of interleaved rows */
void rows16_dot_avxvnni(dtype type, const dot_args *a, size_t tokens);
void rows16_dot_avx512(dtype type, const dot_args *a, size_t tokens);
#endif

#endif
