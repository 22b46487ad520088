/* ints_avx512.h: how rows_accumulate of AVX-512 multiplies quantized rows: as integers. Rows are taken 32 at a time
 * from the first, columns in strips of 256, with a token's factors rounded to eight bits (factors_avx512.h). It is what
 * quantizing the activations is to rows_dot, over as many of them. The integer sums are exact, so one token alone and
 * many get the same bits, though for a few the weights go from memory to registers, and for many they are unpacked
 * once, interleaved so that a vector holds four rows of 16 columns. b32: the rows are arranged in blocks (blocks32.h).
 */
#ifndef TENSOR_INTS_AVX512_H
#define TENSOR_INTS_AVX512_H

#include "tensor/blocks32_avx512.h"

/* Scaled runs in a unit, whose two vectors share one or have one each. */
INLINE size_t unit_runs(dtype type)
{
    return type == DTYPE_Q6_K ? 2 : 1;
}

/* Group g of a token's factors for the two vectors of unit u. */
INLINE void unit_factors(dtype type, const factors *f, size_t u, size_t g, vi *q)
{
    q[0] = _mm512_set1_epi32((int)factor_of(f, unit_runs(type) * u, g));
    q[1] = unit_runs(type) == 1 ? q[0] : _mm512_set1_epi32((int)factor_of(f, 2 * u + 1, g));
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

/* ---- what is read next ------------------------------------------------------------------------------------------ */

/* Memory asked for a line at a time: many at once would make the products wait. */
typedef struct asking {
    const uint8_t *at, *until;
} asking;

INLINE void ask_line(asking *a)
{
    if (a->at >= a->until) return;
    ask_lines(a->at, 64, 0, 1);
    a->at += 64;
}

/* The lines that the next block has, from `from` to `to` of `all` parts of them; where rows do not stand one after the
 * other, all at once. */
INLINE asking ask_part(dtype type, const row_block *b, uint32_t from, uint32_t to, uint32_t all)
{
    if (!b->next) return (asking){NULL, NULL};
    if (b->stride != chunk_bytes(type)) {
        for (size_t i = 0; from == 0 && i < b->groups; i++) ask_piece(type, b, i);
        return (asking){NULL, NULL};
    }
    const uint32_t lines = ((uint32_t)b->rows * (uint32_t)chunk_bytes(type) + 63) / 64;
    return (asking){b->next + (size_t)(lines * from / all) * 64, b->next + (size_t)(lines * to / all) * 64};
}

/* Columns of unit u of four rows: two vectors of [16 columns][4 rows], unsigned. */
INLINE void weights(dtype type, bool b32, const row_block *b, size_t g, size_t u, vi *out)
{
    if (b32)
        blocks32_weights(type, b, g, u, out);
    else
        unit_weights(type, b, g, u, out);
}

/* ---- few tokens, straight from memory --------------------------------------------------------------------------- */

INLINE void sums_start(dtype type, const factors *f, size_t u, vi *sums)
{
    sums[0] = _mm512_set1_epi32(f->start[unit_runs(type) * u]);
    sums[1] = unit_runs(type) == 1 ? sums[0] : _mm512_set1_epi32(f->start[2 * u + 1]);
}

/* One token over a whole strip: 16 vectors of sums stay in registers. */
INLINE void direct_one(dtype type, bool b32, const row_block *b, const factors *f, asking *next, float *y)
{
    vi sums[STRIP_UNITS][2];
#pragma GCC unroll 8
    for (size_t u = 0; u < STRIP_UNITS; u++) sums_start(type, f, u, sums[u]);
    for (size_t g = 0; g < b->groups; g++) {
        ask_line(next);
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) {
            vi w[2], q[2];
            ask_line(next);
            weights(type, b32, b, g, u, w);
            unit_factors(type, f, u, g, q);
            sums[u][0] = _mm512_dpbusd_epi32(sums[u][0], w[0], q[0]);
            sums[u][1] = _mm512_dpbusd_epi32(sums[u][1], w[1], q[1]);
        }
    }
#pragma GCC unroll 8
    for (size_t u = 0; u < STRIP_UNITS; u++) add_sums(type, f, u, sums[u], y);
}

/* Unit u0 + k for T tokens. */
INLINE void direct_unit(dtype type, bool b32, size_t T, const row_block *b, const factors *f, size_t u0, size_t k,
                        asking *next, float *const *y)
{
    vi sums[FACTOR_TOKENS][2];
    const size_t u = u0 + k;
    ask_line(next);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) sums_start(type, &f[t], u, sums[t]);
#pragma GCC unroll 2
    for (size_t g = 0; g < b->groups; g++) {
        vi w[2];
        ask_line(next);
        weights(type, b32, b, g, u, w);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            vi q[2];
            unit_factors(type, &f[t], u, g, q);
            sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], w[0], q[0]);
            sums[t][1] = _mm512_dpbusd_epi32(sums[t][1], w[1], q[1]);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) add_sums(type, &f[t], u, sums[t], y[t]);
}

INLINE void direct_tokens(dtype type, bool b32, size_t T, const row_block *b, const factors *f, asking *next,
                          float *const *y)
{
#pragma GCC unroll 1
    for (size_t u = 0; u < b->units; u += runs_together(type))
#pragma GCC unroll 4
        for (size_t k = 0; k < runs_together(type); k++) direct_unit(type, b32, T, b, f, u, k, next, y);
}

/* ---- many ------------------------------------------------------------------------------------------------------- */

/* An unpacked block: [16 columns][4 rows] signed bytes, and what sums of them with factors from MIDDLE begin with. */
typedef struct unpacked_ints {
    vi w[STRIP_UNITS][GROUPS][2], start[STRIP_UNITS][2];
} unpacked_ints;

INLINE void unpack_unit_ints(dtype type, bool b32, const row_block *b, size_t u, unpacked_ints *out)
{
    const vi centres = _mm512_set1_epi8((char)centre(type)), middle = _mm512_set1_epi8(-MIDDLE); /* 128 as unsigned */
    vi sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t g = 0; g < b->groups; g++) {
        vi w[2];
        weights(type, b32, b, g, u, w);
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

INLINE void unpack_ints(dtype type, bool b32, const row_block *b, unpacked_ints *out)
{
#pragma GCC unroll 1
    for (size_t u = 0; u < b->units; u += runs_together(type))
#pragma GCC unroll 4
        for (size_t k = 0; k < runs_together(type); k++) unpack_unit_ints(type, b32, b, u + k, out);
}

/* The products of group g with unit u of T tokens. */
INLINE void add_group(dtype type, size_t T, const unpacked_ints *in, const factors *f, size_t u, size_t g, asking *next,
                      vi (*sums)[2])
{
    ask_line(next);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        vi q[2];
        unit_factors(type, &f[t], u, g, q);
        sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], q[0], in->w[u][g][0]);
        sums[t][1] = _mm512_dpbusd_epi32(sums[t][1], q[1], in->w[u][g][1]);
    }
}

/* Blocks of 32 rows and, for most tokens, of 24, which most models' sub-experts have, are worth code of their own. */
INLINE void add_groups(dtype type, size_t T, size_t groups, const unpacked_ints *in, const factors *f, size_t u,
                       asking *next, vi (*sums)[2])
{
    if (groups == GROUPS)
#pragma GCC unroll 8
        for (size_t g = 0; g < GROUPS; g++) add_group(type, T, in, f, u, g, next, sums);
    else if (T == FACTOR_TOKENS && groups == 24 / GROUP)
#pragma GCC unroll 6
        for (size_t g = 0; g < 24 / GROUP; g++) add_group(type, T, in, f, u, g, next, sums);
    else
        for (size_t g = 0; g < groups; g++) add_group(type, T, in, f, u, g, next, sums);
}

INLINE void ints_unpacked(dtype type, size_t T, const row_block *b, const unpacked_ints *in, const factors *f,
                          asking *next, float *const *y)
{
    for (size_t u = 0; u < b->units; u++) {
        vi sums[FACTOR_TOKENS][2];
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) sums[i / 2][i % 2] = in->start[u][i % 2];
        add_groups(type, T, b->groups, in, f, u, next, sums);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) add_sums(type, &f[t], u, sums[t], y[t]);
    }
}

/* ---- blocks and tokens ------------------------------------------------------------------------------------------ */

/* So many tokens pass over all strips together. */
enum { VALUES = 64 };

/* Some tokens of a call, and their values of its rows j0 .. j0 + 32. */
typedef struct passage {
    const accumulate_args *args;
    size_t j0, rows, t0, tokens;
    values v[VALUES];
} passage;

INLINE void passage_values(passage *p)
{
    const float *const *a = p->args->a + p->t0;
    size_t t = 0;
    for (; t + FACTOR_TOKENS <= p->tokens; t += FACTOR_TOKENS)
        token_values(FACTOR_TOKENS, a + t, p->j0, p->rows, p->v + t);
    for (; t < p->tokens; t++) token_values(1, a + t, p->j0, p->rows, p->v + t);
}

/* Asks for what stands VALUES tokens after the values of token t: those of the next passage, or of the next call where
 * the caller keeps them one after the other. */
INLINE void ask_values(const passage *p, size_t t)
{
    const uintptr_t here = (uintptr_t)(p->args->a[p->t0 + t] + p->j0);
    ask_lines((const uint8_t *)(here + VALUES * p->args->rows * sizeof(float)), p->rows * sizeof(float), 0, 1);
}

/* Tokens t .. t + T with a block. in: the unpacked block, NULL where it is not. */
INLINE void multiply_tokens(dtype type, bool b32, size_t T, const passage *p, const row_block *b,
                            const unpacked_ints *in, size_t t, size_t column, asking *next)
{
    factors f[FACTOR_TOKENS];
    float *y[FACTOR_TOKENS];
    for (size_t i = 0; i < T; i++) {
        token_factors(type, in, b, &p->v[t + i], p->args->a[p->t0 + t + i] + p->j0, &f[i]);
        y[i] = p->args->y[p->t0 + t + i] + column;
        if (in && column == 0) ask_values(p, t + i);
    }
    if (in)
        ints_unpacked(type, T, b, in, f, next, y);
    else if (T == 1 && b->units == STRIP_UNITS)
        direct_one(type, b32, b, f, next, y[0]);
    else
        direct_tokens(type, b32, T, b, f, next, y);
}

/* Of `left` tokens so many go together. Only tiles in blocks, which nearly all models in memory have, are worth code of
 * their own for three. */
INLINE size_t block_tokens(bool b32, size_t left)
{
    if (b32) return tokens_together(left);
    return left >= FACTOR_TOKENS ? FACTOR_TOKENS : left >= 2 ? 2 : 1;
}

/* All tokens with a block, which is unpacked at `in`, or not where that is NULL. */
INLINE void multiply_all(dtype type, bool b32, const passage *p, const row_block *b, const unpacked_ints *in,
                         size_t column)
{
    const uint32_t all = (uint32_t)p->tokens;
    for (size_t t = 0, T; t < p->tokens; t += T) {
        T = block_tokens(b32, p->tokens - t);
        asking next = ask_part(type, b, (uint32_t)t, (uint32_t)(t + T), all);
        if (T == FACTOR_TOKENS)
            multiply_tokens(type, b32, FACTOR_TOKENS, p, b, in, t, column, &next);
        else if (b32 && T == 3)
            multiply_tokens(type, b32, 3, p, b, in, t, column, &next);
        else if (T == 2)
            multiply_tokens(type, b32, 2, p, b, in, t, column, &next);
        else /* nothing is gained by what is unpacked */
            multiply_tokens(type, b32, 1, p, b, NULL, t, column, &next);
    }
}

INLINE void multiply_block(dtype type, bool b32, const passage *p, const row_block *b, size_t column)
{
    unpacked_ints w;
    if (p->tokens <= FACTOR_TOKENS) {
        multiply_all(type, b32, p, b, NULL, column);
        return;
    }
    unpack_ints(type, b32, b, &w);
    multiply_all(type, b32, p, b, &w, column);
}

INLINE void ints_run(dtype type, bool b32, const accumulate_args *args)
{
    const size_t strips = args->tiles * tile_strips(args);
    passage p;
    p.args = args;
    for (p.j0 = 0; p.j0 < args->rows; p.j0 += BLOCK_ROWS) {
        p.rows = args->rows - p.j0 < BLOCK_ROWS ? args->rows - p.j0 : BLOCK_ROWS;
        for (p.t0 = 0; p.t0 < args->tokens; p.t0 += VALUES) {
            p.tokens = args->tokens - p.t0 < VALUES ? args->tokens - p.t0 : VALUES;
            passage_values(&p);
            for (size_t strip = 0; strip < strips; strip++) {
                row_block b;
                if (b32)
                    blocks32_begin(type, args, p.j0, strip, &b);
                else
                    block_begin(type, args, p.j0, strip, &b);
                multiply_block(type, b32, &p, &b, strip_column(args, strip));
            }
        }
    }
}

#endif
