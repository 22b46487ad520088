/* kernels.h: the numeric kernels of the engine, one table per instruction set, chosen once at start.
 *
 * Raw pointers and shapes only; no allocation, no threads, no globals: any thread may call any kernel. The portable
 * table ("ref") is always there and is the oracle of the tests.
 *
 * Two products carry the model (DESIGN: rows.x and the transposed accumulate). For both, within one table, the bits of
 * an output depend only on the weight row(s) and the token at hand, never on how many rows or tokens share the call or
 * where the call begins: so prompts, batches, threads and pieces all give the same result. */
#ifndef TENSOR_KERNELS_H
#define TENSOR_KERNELS_H

#include "tensor/dtype.h"

typedef struct kernels {
    const char *isa; /* "ref", "avx2", "avxvnni", "avx512" */
    bool rows16;     /* rows_dot is made for interleaved rows (rows16.h), too */
    bool blocks32;   /* rows_accumulate is made for tiles in blocks (blocks32.h), too */

    /* Activations for quantized weights: x [n] into `out` [kernels_act_bytes(n)], n a multiple of 32: per block of 32 a
     * signed 8-bit vector, its F32 scale and the F32 value scale * sum, of the block and of its halves. */
    void (*quantize_act)(const float *x, size_t n, void *out);

    /* out[t][r] = sum_i W[r][i] * x[t][i], r in [0, rows), t in [0, tokens).
     * W: `rows` rows of n elements of `type`, w_stride bytes apart, at any byte address. x[t]: F32 [n] (F32, F16, BF16
     * weights) or a quantized activation (the others). out[t]: F32, at least [rows]. Interleaved rows (DTYPE_*_R16;
     * tables with `rows16`, and "ref") come in whole sixteens and give the same bits as plain ones. next: the address
     * of what this thread will read after this call, brought nearer meanwhile; a hint, NULL where unknown. */
    void (*rows_dot)(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                     float *const *out, size_t tokens, const void *next);

    /* y[t][i * width + c] += sum_j a[t][j] * R[i][j][c], c in [0, width), i in [0, tiles), j in [0, rows), t in
     * [0, tokens); j in ascending order. Where a table multiplies quantized rows as integers it rounds a token's
     * factors to eight bits over 32 rows at a time, counted from the first: rows in several calls give the same bits
     * only if cut there. R: tile after tile `rows` rows of `width` elements (whole blocks), r_stride bytes apart. a[t]:
     * F32 [rows]; y[t]: F32 [tiles * width]. next: as for rows_dot. */
    void (*rows_accumulate)(dtype type, size_t width, size_t tiles, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens, const void *next);

    /* out[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps); out may be x. */
    void (*rms_norm)(const float *x, const float *weight, float eps, float *out, size_t n);
    /* out[i] = silu(gate[i]) * up[i]; out may be either. */
    void (*swiglu)(const float *gate, const float *up, float *out, size_t n);
    /* In place: exp(x - max) / sum. */
    void (*softmax)(float *x, size_t n);
    /* log(sum(exp(x))), for perplexity; accumulates in F64. */
    double (*log_sum_exp)(const float *x, size_t n);

    /* One step of a softmax over more values than come at once: m = max(*largest, scale x), x = e^(scale x - m),
     * *sum = *sum f + sum(x), *largest = m. Returns f = e^(old *largest - m), with which earlier results fade. Begins
     * with -INFINITY and 0; ends with division by *sum. */
    float (*softmax_step)(float *x, size_t n, float scale, float *largest, double *sum);

    /* Attention over `count` cached rows of Q8_0 blocks, `stride` bytes apart, n a multiple of 32, for a query that is
     * not quantized (other rows: rows_dot, rows_accumulate): out[i] = dot(q [n], row i), acc[n] += sum_i p[i] row i. */
    void (*dot_q8_0)(const float *q, const void *k, size_t stride, size_t count, float *out, size_t n);
    void (*mix_q8_0)(const float *p, const void *v, size_t stride, size_t count, float *acc, size_t n);
    void (*f32_to_f16_row)(const float *x, uint16_t *out, size_t n);
} kernels;

/* Bytes of a quantized activation of n elements. */
size_t kernels_act_bytes(size_t n);
/* isa NULL: the best this CPU has. NULL where the name is unknown or the CPU lacks it. */
const kernels *kernels_get(const char *isa);
/* What this CPU can run, best first, NULL-terminated. */
const char *const *kernels_available(void);

#endif
