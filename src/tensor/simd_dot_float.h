/* simd_dot_float.h: rows_dot of F32, F16 and BF16, written once over the names of simd_<isa>.h.
 *
 * A tile is up to 4 rows by TILE_TOKENS tokens with a vector of sums each, all in registers; weights are widened once
 * for the tokens of a tile. One token keeps four rows in flight and asks for the next tile of rows. Whatever the tile,
 * an output sees the same operations in the same order: lane by lane one fused multiply-add a vector of the row, at the
 * end the lanes are added. So its bits depend on the row and the token alone.
 *
 * The types are resolved at compile time. dot_<isa>.c provides TILE_TOKENS. */
#ifndef TENSOR_SIMD_DOT_FLOAT_H
#define TENSOR_SIMD_DOT_FLOAT_H

#include <assert.h>

enum { TILE_ROWS = 4 };

INLINE bool is_float(dtype type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

INLINE size_t float_bytes(dtype type)
{
    return type == DTYPE_F32 ? 4 : 2;
}

INLINE vf load_weights(dtype type, const uint8_t *p)
{
    return type == DTYPE_F32 ? v_load(p) : type == DTYPE_F16 ? v_load_f16(p) : v_load_bf16(p);
}

INLINE vf load_weights_part(dtype type, const uint8_t *p, size_t n)
{
    return type == DTYPE_F32 ? v_load_part(p, n) : type == DTYPE_F16 ? v_load_f16_part(p, n) : v_load_bf16_part(p, n);
}

/* Elements i .. i + count of R rows from w and T tokens, count = VL or the rest. */
INLINE void float_step(dtype type, size_t R, size_t T, size_t i, size_t count, const uint8_t *const *w,
                       const float *const *x, vf *sums)
{
    vf weights[TILE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) {
        const uint8_t *p = w[r] + i * float_bytes(type);
        weights[r] = count == VL ? load_weights(type, p) : load_weights_part(type, p, count);
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        const vf v = count == VL ? v_load(x[t] + i) : v_load_part(x[t] + i, count);
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++) sums[r * TILE_TOKENS + t] = v_fma(weights[r], v, sums[r * TILE_TOKENS + t]);
    }
}

INLINE void float_tile(dtype type, size_t R, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    vf sums[TILE_ROWS * TILE_TOKENS];
    const uint8_t *w[TILE_ROWS];
    const float *x[TILE_TOKENS];
    const uint8_t *ahead = r0 + 2 * R > a->rows ? a->next : a->w + (r0 + R) * a->w_stride;
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) w[r] = a->w + (r0 + r) * a->w_stride;
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) x[t] = a->x[t0 + t];
#pragma GCC unroll 16
    for (size_t i = 0; i < TILE_ROWS * TILE_TOKENS; i++) sums[i] = v_zero();
    size_t i = 0;
    for (; i + VL <= a->n; i += VL) {
        if (T == 1) {
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++) __builtin_prefetch(ahead + r * a->w_stride + i * float_bytes(type), 0, 2);
        }
        float_step(type, R, T, i, VL, w, x, sums);
    }
    if (i < a->n) float_step(type, R, T, i, a->n - i, w, x, sums);
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) a->out[t0 + t][r0 + r] = v_sum(sums[r * TILE_TOKENS + t]);
    }
}

/* All tokens over R rows. */
INLINE void float_rows(dtype type, size_t R, const dot_args *a, size_t r0, size_t tokens)
{
    size_t t = 0;
    for (; t + TILE_TOKENS <= tokens; t += TILE_TOKENS) float_tile(type, R, TILE_TOKENS, a, r0, t);
    for (; TILE_TOKENS > 2 && t + 2 <= tokens; t += 2) float_tile(type, R, 2, a, r0, t);
    for (; t < tokens; t++) float_tile(type, R, 1, a, r0, t);
}

INLINE void float_run(dtype type, const dot_args *a, size_t tokens)
{
    size_t r = 0;
    for (; r + TILE_ROWS <= a->rows; r += TILE_ROWS) float_rows(type, TILE_ROWS, a, r, tokens);
    for (; r < a->rows; r++) float_rows(type, 1, a, r, tokens);
}

/* run() of dot_<isa>.c takes the quantized types. A function of its own for every type. */
INLINE void run(dtype type, const dot_args *a, size_t tokens);

#define DOT_DEFINE(type)                                                                                               \
    static __attribute__((noinline)) void run_##type(const dot_args *a, size_t tokens)                                 \
    {                                                                                                                  \
        if (is_float(DTYPE_##type))                                                                                    \
            float_run(DTYPE_##type, a, tokens);                                                                        \
        else                                                                                                           \
            run(DTYPE_##type, a, tokens);                                                                              \
    }

DOT_DEFINE(F32)
DOT_DEFINE(F16)
DOT_DEFINE(BF16)
DOT_DEFINE(Q8_0)
DOT_DEFINE(Q4_0)
DOT_DEFINE(Q4_1)
DOT_DEFINE(Q5_0)
DOT_DEFINE(Q5_1)
DOT_DEFINE(Q4_K)
DOT_DEFINE(Q5_K)
DOT_DEFINE(Q6_K)

static void run_type(dtype type, const dot_args *a, size_t tokens)
{
    switch (type) {
    case DTYPE_F32:
        return run_F32(a, tokens);
    case DTYPE_F16:
        return run_F16(a, tokens);
    case DTYPE_BF16:
        return run_BF16(a, tokens);
    case DTYPE_Q8_0:
        return run_Q8_0(a, tokens);
    case DTYPE_Q4_0:
        return run_Q4_0(a, tokens);
    case DTYPE_Q4_1:
        return run_Q4_1(a, tokens);
    case DTYPE_Q5_0:
        return run_Q5_0(a, tokens);
    case DTYPE_Q5_1:
        return run_Q5_1(a, tokens);
    case DTYPE_Q4_K:
        return run_Q4_K(a, tokens);
    case DTYPE_Q5_K:
        return run_Q5_K(a, tokens);
    case DTYPE_Q6_K:
        return run_Q6_K(a, tokens);
    default:
        break;
    }
    assert(!"a type without a kernel");
}

#endif
