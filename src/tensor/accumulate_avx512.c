/* accumulate_avx512.c: rows_accumulate for AVX-512 with VNNI and VBMI.
 *
 * F32, F16 and BF16 go the way of simd_accumulate.h. Quantized rows are multiplied as integers: rows are taken 32 at a
 * time from the first, columns in strips of 256, with a token's factors rounded to eight bits (factors_avx512.h). It is
 * what quantizing the activations is to rows_dot, over as many of them. The integer sums are exact, so one token alone
 * and many get the same bits, though for one the weights go from memory to registers, and for several they are unpacked
 * once, interleaved so that a vector holds four rows of 16 columns. */
#if defined(__x86_64__)

#include "tensor/factors_avx512.h"

/* ---- rows of floats --------------------------------------------------------------------------------------------- */

enum { ONE_UNITS = 8, MANY_UNITS = 2, TILE_TOKENS = FACTOR_TOKENS };

/* Columns of unit `unit` of the strip at `row`. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, vf *w)
{
    row += block_bytes(type) * UNIT * unit;
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        if (type == DTYPE_F32)
            w[i] = v_load(row + 64 * i);
        else
            w[i] = type == DTYPE_F16 ? v_load_f16(row + 32 * i) : v_load_bf16(row + 32 * i);
    }
}

#include "tensor/simd_accumulate.h"

/* ---- products --------------------------------------------------------------------------------------------------- */

enum { HALVES = STRIP / VL };

/* Scaled runs in a unit, whose two vectors share one or have one each. */
INLINE size_t unit_runs(dtype type)
{
    return type == DTYPE_Q6_K ? 2 : 1;
}

/* Group g of a token's factors for the two vectors of unit u. */
INLINE void unit_factors(dtype type, const factors *f, size_t u, size_t g, vi *q)
{
    q[0] = _mm512_set1_epi32((int)f->q[unit_runs(type) * u][g]);
    q[1] = unit_runs(type) == 1 ? q[0] : _mm512_set1_epi32((int)f->q[2 * u + 1][g]);
}

INLINE void add_sums(dtype type, const factors *f, size_t u, const vi *sums, float *y)
{
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const size_t run = unit_runs(type) * u + (unit_runs(type) == 1 ? 0 : i);
        const vf out = v_fma(v_set1(f->beta[run]), _mm512_cvtepi32_ps(sums[i]), v_load(y + u * UNIT + i * VL));
        v_store(y + u * UNIT + i * VL, has_min(type) ? v_add(out, v_set1(f->min[run])) : out);
    }
}

/* One token over a whole strip: 16 vectors of sums stay in registers. */
INLINE void ints_one(dtype type, const row_block *b, const float *const *a, size_t j0, float *y)
{
    factors f;
    vi sums[HALVES];
    token_factors(type, 1, false, b, a, j0, &f);
#pragma GCC unroll 16
    for (size_t h = 0; h < HALVES; h++) sums[h] = _mm512_set1_epi32(f.start[unit_runs(type) == 1 ? h / 2 : h]);
    for (size_t g = 0; g < b->groups; g++) {
        ask_piece(type, b, g);
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) {
            vi w[2], q[2];
            unit_weights(type, b, g, u, w);
            unit_factors(type, &f, u, g, q);
            sums[2 * u] = _mm512_dpbusd_epi32(sums[2 * u], w[0], q[0]);
            sums[2 * u + 1] = _mm512_dpbusd_epi32(sums[2 * u + 1], w[1], q[1]);
        }
    }
#pragma GCC unroll 8
    for (size_t u = 0; u < STRIP_UNITS; u++) add_sums(type, &f, u, sums + 2 * u, y);
}

/* An unpacked block: [16 columns][4 rows] signed bytes, and what sums of them with factors from MIDDLE begin with. */
typedef struct unpacked_ints {
    vi w[STRIP_UNITS][GROUPS][2], start[STRIP_UNITS][2];
} unpacked_ints;

INLINE void unpack_unit_ints(dtype type, const row_block *b, size_t u, unpacked_ints *out)
{
    const vi centres = _mm512_set1_epi8((char)centre(type)), middle = _mm512_set1_epi8(-MIDDLE); /* 128 as unsigned */
    vi sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t g = 0; g < b->groups; g++) {
        vi w[2];
        unit_weights(type, b, g, u, w);
#pragma GCC unroll 2
        for (size_t i = 0; i < 2; i++) {
            const vi signed_w = _mm512_sub_epi8(w[i], centres);
            out->w[u][g][i] = signed_w;
            sums[i] = _mm512_dpbusd_epi32(sums[i], middle, signed_w);
        }
    }
    out->start[u][0] = _mm512_sub_epi32(_mm512_setzero_si512(), sums[0]);
    out->start[u][1] = _mm512_sub_epi32(_mm512_setzero_si512(), sums[1]);
}

INLINE void unpack_ints(dtype type, const row_block *b, unpacked_ints *out)
{
    if (b->units == STRIP_UNITS) {
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) {
            if (u < b->groups) ask_piece(type, b, u);
            unpack_unit_ints(type, b, u, out);
        }
        return;
    }
    for (size_t g = 0; g < b->groups; g++) ask_piece(type, b, g);
    for (size_t u = 0; u < b->units; u++) unpack_unit_ints(type, b, u, out);
}

/* The products of group g with unit u of T tokens. */
INLINE void add_group(dtype type, size_t T, const unpacked_ints *in, const factors *f, size_t u, size_t g,
                      vi (*sums)[2])
{
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        vi q[2];
        unit_factors(type, &f[t], u, g, q);
        sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], q[0], in->w[u][g][0]);
        sums[t][1] = _mm512_dpbusd_epi32(sums[t][1], q[1], in->w[u][g][1]);
    }
}

INLINE void ints_tokens(dtype type, size_t T, const row_block *b, const unpacked_ints *in, const factors *f,
                        float *const *y)
{
    for (size_t u = 0; u < b->units; u++) {
        vi sums[TILE_TOKENS][2];
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) sums[i / 2][i % 2] = in->start[u][i % 2];
        if (b->groups == GROUPS) {
#pragma GCC unroll 8
            for (size_t g = 0; g < GROUPS; g++) add_group(type, T, in, f, u, g, sums);
        } else {
            for (size_t g = 0; g < b->groups; g++) add_group(type, T, in, f, u, g, sums);
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) add_sums(type, &f[t], u, sums[t], y[t]);
    }
}

/* T tokens from t on. */
INLINE void ints_few(dtype type, size_t T, const accumulate_args *args, const row_block *b, const unpacked_ints *w,
                     size_t t, size_t j0, size_t c0)
{
    factors f[TILE_TOKENS];
    float *y[TILE_TOKENS];
#pragma GCC unroll 4
    for (size_t i = 0; i < T; i++) y[i] = args->y[t + i] + c0;
    token_factors(type, T, true, b, args->a + t, j0, f);
    ints_tokens(type, T, b, w, f, y);
}

INLINE void ints_many(dtype type, const accumulate_args *args, const row_block *b, size_t j0, size_t c0)
{
    unpacked_ints w;
    unpack_ints(type, b, &w);
    for (size_t t = 0; t < args->tokens; t += TILE_TOKENS) {
        switch (args->tokens - t) {
        case 1:
            ints_few(type, 1, args, b, &w, t, j0, c0);
            break;
        case 2:
            ints_few(type, 2, args, b, &w, t, j0, c0);
            break;
        case 3:
            ints_few(type, 3, args, b, &w, t, j0, c0);
            break;
        default:
            ints_few(type, TILE_TOKENS, args, b, &w, t, j0, c0);
        }
    }
}

INLINE void ints_run(dtype type, const accumulate_args *args)
{
    for (size_t c = 0; c < args->width; c += STRIP) {
        for (size_t j = 0; j < args->rows; j += BLOCK_ROWS) {
            row_block b;
            block_begin(type, args, j, c, &b);
            if (args->tokens == 1 && b.units == STRIP_UNITS)
                ints_one(type, &b, args->a, j, args->y[0] + c);
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
