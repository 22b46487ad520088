/* accumulate_avx512.c: rows_accumulate for AVX-512 with VNNI and VBMI.
 *
 * F32, F16 and BF16 go the way of simd_accumulate.h. Quantized rows are multiplied as integers: rows are taken 32 at a
 * time from the first, columns in strips of 256, with a token's factors rounded to eight bits (factors_avx512.h). It is
 * what quantizing the activations is to rows_dot, over as many of them. The integer sums are exact, so one token alone
 * and many get the same bits, though for one the weights go from memory to registers, and for several they are unpacked
 * once, interleaved so that a vector holds four rows of 16 columns. */
#if defined(__x86_64__)

#include "tensor/accumulate.h"
#include "tensor/factors_avx512.h"

/* ---- rows of floats --------------------------------------------------------------------------------------------- */

enum { ONE_UNITS = 8, MANY_UNITS = 2, TILE_TOKENS = 4 };

/* Columns of unit `unit` of the strip at `row`. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, const float (*s)[16], size_t j, vf *w)
{
    (void)s, (void)j;
    row += block_bytes(type) * UNIT * unit;
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        if (type == DTYPE_F32)
            w[i] = v_load(row + 64 * i);
        else
            w[i] = type == DTYPE_F16 ? v_load_f16(row + 32 * i) : v_load_bf16(row + 32 * i);
    }
}

INLINE void decode_q4_k(const uint8_t *block, float *out)
{
    v_store(out, q4_k_factors(block));
}

INLINE void decode_q6_k(const uint8_t *block, float *out)
{
    v_store(out, v_mul(v_load_i8(block + Q6_K_SCALES), broadcast_f16(block + Q6_K_D)));
}

#include "tensor/simd_accumulate.h"

/* ---- products --------------------------------------------------------------------------------------------------- */

enum { HALVES = STRIP / VL };

INLINE size_t run_of(dtype type, size_t half)
{
    return type == DTYPE_Q6_K ? half : half / 2;
}

INLINE vi first_sum(dtype type, const factors *f, size_t half)
{
    return _mm512_set1_epi32(f->start[run_of(type, half)]);
}

INLINE void add_sum(dtype type, const factors *f, size_t half, vi sum, float *y)
{
    const size_t run = run_of(type, half);
    const vf out = v_fma(v_set1(f->beta[run]), _mm512_cvtepi32_ps(sum), v_load(y + half * VL));
    v_store(y + half * VL, has_min(type) ? v_add(out, v_set1(f->min[run])) : out);
}

/* The products of group g with the columns w of unit u: two runs, or halves of one that share their factors. */
INLINE void add_unit(dtype type, const factors *f, size_t g, size_t u, const vi *w, vi *sums)
{
    const bool halves = type == DTYPE_Q6_K;
    const vi q = _mm512_set1_epi32((int)f->q[halves ? 2 * u : u][g]);
    sums[0] = _mm512_dpbusd_epi32(sums[0], w[0], q);
    sums[1] = _mm512_dpbusd_epi32(sums[1], w[1], halves ? _mm512_set1_epi32((int)f->q[2 * u + 1][g]) : q);
}

/* Asks for the g-th piece of what is read after this block. */
INLINE void ask_group(dtype type, const row_block *b, size_t g)
{
    if (!b->next) return;
    const size_t bytes = is_k(type) ? chunk_bytes(type) : b->units * block_bytes(type);
    if (b->stride == bytes) {
        for (size_t at = 0; at < GROUP * bytes; at += 64) __builtin_prefetch(b->next + g * GROUP * bytes + at);
        return;
    }
    for (size_t j = g * GROUP; j < (g + 1) * GROUP; j++)
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(b->next + j * b->stride + at);
}

/* One token over a whole strip: 16 vectors of sums stay in registers. */
INLINE void ints_one(dtype type, const row_block *b, const float *a, float *y)
{
    factors f;
    vi sums[HALVES];
    token_ranges(type, b, a, &f);
    round_factors(type, b, a, &f);
#pragma GCC unroll 16
    for (size_t h = 0; h < HALVES; h++) sums[h] = first_sum(type, &f, h);
    for (size_t g = 0; g < b->groups; g++) {
        ask_group(type, b, g);
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) {
            vi w[2];
            unit_weights(type, b, g, u, w);
            add_unit(type, &f, g, u, w, sums + 2 * u);
        }
    }
#pragma GCC unroll 16
    for (size_t h = 0; h < HALVES; h++) add_sum(type, &f, h, sums[h], y);
}

/* An unpacked block: [16 columns][4 rows] bytes. */
typedef struct unpacked_ints {
    vi w[STRIP_UNITS][GROUPS][2];
} unpacked_ints;

INLINE void unpack_ints(dtype type, const row_block *b, unpacked_ints *out)
{
    for (size_t g = 0; g < b->groups; g++) {
        ask_group(type, b, g);
        if (b->units == STRIP_UNITS) {
#pragma GCC unroll 8
            for (size_t u = 0; u < STRIP_UNITS; u++) unit_weights(type, b, g, u, out->w[u][g]);
        } else {
            for (size_t u = 0; u < b->units; u++) unit_weights(type, b, g, u, out->w[u][g]);
        }
    }
}

INLINE void ints_tokens(dtype type, size_t T, const row_block *b, const unpacked_ints *in, const factors *f,
                        float *const *y)
{
    for (size_t u = 0; u < b->units; u++) {
        vi sums[TILE_TOKENS][2];
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) sums[i / 2][i % 2] = first_sum(type, &f[i / 2], 2 * u + i % 2);
        for (size_t g = 0; g < b->groups; g++) {
#pragma GCC unroll 4
            for (size_t i = 0; i < T; i++) add_unit(type, &f[i], g, u, in->w[u][g], sums[i]);
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) add_sum(type, &f[i / 2], 2 * u + i % 2, sums[i / 2][i % 2], y[i / 2]);
    }
}

INLINE void ints_many(dtype type, const accumulate_args *args, const row_block *b, size_t j0, size_t c0)
{
    unpacked_ints w;
    unpack_ints(type, b, &w);
    for (size_t t = 0; t < args->tokens; t += TILE_TOKENS) {
        factors f[TILE_TOKENS];
        float *y[TILE_TOKENS];
        const size_t left = args->tokens - t, count = left < TILE_TOKENS ? left : TILE_TOKENS;
        for (size_t i = 0; i < count; i++) token_ranges(type, b, args->a[t + i] + j0, &f[i]);
        for (size_t i = 0; i < count; i++) {
            round_factors(type, b, args->a[t + i] + j0, &f[i]);
            y[i] = args->y[t + i] + c0;
        }
        if (count == TILE_TOKENS)
            ints_tokens(type, TILE_TOKENS, b, &w, f, y);
        else
            for (size_t i = 0; i < count; i++) ints_tokens(type, 1, b, &w, &f[i], &y[i]);
    }
}

INLINE void ints_run(dtype type, const accumulate_args *args)
{
    for (size_t c = 0; c < args->width; c += STRIP) {
        for (size_t j = 0; j < args->rows; j += BLOCK_ROWS) {
            row_block b;
            block_begin(type, args, j, c, &b);
            if (args->tokens == 1 && b.units == STRIP_UNITS)
                ints_one(type, &b, args->a[0] + j, args->y[0] + c);
            else
                ints_many(type, args, &b, j, c);
        }
    }
}

INLINE void run(dtype type, const accumulate_args *args)
{
    if (type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16)
        float_run(type, args);
    else
        ints_run(type, args);
}

void rows_accumulate_avx512(dtype type, size_t width, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens, const void *next)
{
    const accumulate_args args = {width, r_stride, rows, r, a, y, tokens, next};
    run_type(type, &args);
}

#endif
