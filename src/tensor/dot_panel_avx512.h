/* dot_panel_avx512.h: rows_dot for many tokens. A chunk of 256 elements of 32 rows is unpacked once into 8 KB,
 * interleaved so that a vector holds four consecutive elements of each of 16 rows; then every token passes over it with
 * no shuffle at all, PANEL_TOKENS at a time: an activation that is loaded meets two vectors of weights, a vector of
 * weights as many activations. */
#ifndef TENSOR_DOT_PANEL_AVX512_H
#define TENSOR_DOT_PANEL_AVX512_H

#include "tensor/rows16_avx512.h"

enum { PANEL_GROUPS = 2, PANEL_ROWS = PANEL_GROUPS * LANES, PANEL_TOKENS = 4, PANEL_PASS = 128 };

/* 16 rows */
typedef struct panel_group {
    vi w[CHUNK / 4]; /* [element / 4]: [row][element % 4] */
    run_scales s;
} panel_group;

typedef float panel_sums[PANEL_GROUPS][LANES];

INLINE void panel_unpack(dtype type, const uint8_t *w, size_t stride, size_t runs, panel_group *p)
{
    raw_scales raw;
    raw_load(type, w, stride, runs, &raw);
    for (size_t i = 0; i < CHUNK_RUNS; i++) {
        if (i >= runs) break;
        vi quads[2][4];
#pragma GCC unroll 4
        for (size_t g = 0; g < 4; g++) {
            vi quad[2];
            quad_run(type, w + g * stride, 4 * stride, i, quad);
            quads[0][g] = quad[0];
            quads[1][g] = quad[1];
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            transpose_words(quads[h]);
#pragma GCC unroll 4
            for (size_t e = 0; e < 4; e++) p->w[i * 8 + h * 4 + e] = quads[h][e];
        }
    }
    decode_scales(type, &raw, &p->s);
}

/* The same from interleaved rows. */
INLINE void panel_unpack_r16(dtype type, const r16_chunk *c, size_t runs, panel_group *p)
{
    r16_scales(type, c, runs, &p->s);
#pragma GCC unroll 1
    for (size_t i = 0; i < runs; i += runs_together(type))
#pragma GCC unroll 4
        for (size_t k = 0; k < runs_together(type); k++)
#pragma GCC unroll 8
            for (size_t e = 0; e < 8; e++) p->w[(i + k) * 8 + e] = r16_word(type, c, i, k, e);
}

/* T tokens over a chunk of G groups. */
INLINE void panel_tokens(dtype type, size_t T, size_t G, const panel_group *p, size_t runs, const token *x,
                         const int32_t (*starts)[STARTS], panel_sums *sums)
{
    const size_t steps = type == DTYPE_Q6_K ? 4 : 8;
    vf sum[PANEL_TOKENS][PANEL_GROUPS];
#pragma GCC unroll 8
    for (size_t i = 0; i < T * G; i++) sum[i / G][i % G] = v_load(sums[i / G][i % G]);
    for (size_t i = 0; i < scaled_runs(type, runs); i++) {
        vi dot[PANEL_TOKENS][PANEL_GROUPS];
#pragma GCC unroll 8
        for (size_t k = 0; k < T * G; k++) dot[k / G][k % G] = _mm512_set1_epi32(starts[k / G][i]);
#pragma GCC unroll 8
        for (size_t e = 0; e < steps; e++) {
#pragma GCC unroll 8
            for (size_t t = 0; t < T; t++) {
                const vi q = _mm512_set1_epi32((int)load_u32(x[t].quants + (i * steps + e) * 4));
#pragma GCC unroll 2
                for (size_t g = 0; g < G; g++) dot[t][g] = _mm512_dpbusd_epi32(dot[t][g], p[g].w[i * steps + e], q);
            }
        }
#pragma GCC unroll 8
        for (size_t k = 0; k < T * G; k++)
            sum[k / G][k % G] = add_run(type, &p[k % G].s, i, &x[k / G], dot[k / G][k % G], sum[k / G][k % G]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < T * G; i++) v_store(sums[i / G][i % G], sum[i / G][i % G]);
}

/* Asks for a chunk of rows [from, to) that comes next: of interleaved ones, for as many bytes. */
INLINE void panel_ask(dtype type, bool r16, const uint8_t *w, size_t stride, size_t from, size_t to)
{
    for (size_t r = from; r < to; r++) {
        const uint8_t *row = w + (r16 ? r / LANES * LANES * stride + r % LANES * chunk_bytes(type) : r * stride);
#pragma GCC unroll 5
        for (size_t b = 0; b < chunk_bytes(type) + 63; b += 64) __builtin_prefetch(row + b, 0, 2);
    }
}

/* All tokens over a chunk; between them the next one, at `next`, is asked for: a few rows at a time, since there are
 * but so many requests under way. Only interleaved rows, which nearly all models in memory have, are worth code of
 * their own for two and three tokens. */
INLINE void panel_chunk(dtype type, bool r16, size_t G, const panel_group *p, size_t runs, const dot_args *a, size_t c,
                        size_t t0, size_t tokens, const uint8_t *next, panel_sums *sums)
{
    for (size_t t = 0, T; t < tokens; t += T) {
        T = r16 ? tokens_together(tokens - t) : t + PANEL_TOKENS <= tokens ? PANEL_TOKENS : 1;
        panel_ask(type, r16, next, a->w_stride, G * LANES * t / tokens, G * LANES * (t + T) / tokens);
        token x[PANEL_TOKENS];
        int32_t starts[PANEL_TOKENS][STARTS] __attribute__((aligned(64)));
        for (size_t i = 0; i < T; i++) {
            x[i] = token_at(a->x[t0 + t + i], a->n, c);
            chunk_starts(type, &x[i], runs, starts[i]);
        }
        if (T == PANEL_TOKENS)
            panel_tokens(type, PANEL_TOKENS, G, p, runs, x, starts, sums + t);
        else if (r16 && T == 3)
            panel_tokens(type, 3, G, p, runs, x, starts, sums + t);
        else if (r16 && T == 2)
            panel_tokens(type, 2, G, p, runs, x, starts, sums + t);
        else
            panel_tokens(type, 1, G, p, runs, x, starts, sums + t);
    }
}

/* G groups of 16 rows from r0 on, interleaved or not. */
INLINE void panel_rows(dtype type, bool r16, size_t G, const dot_args *a, size_t r0, size_t t0, size_t tokens)
{
    const uint8_t *w = a->w + r0 * a->w_stride,
                  *below = r0 + G * LANES < a->rows ? w + G * LANES * a->w_stride : a->next;
    panel_sums sums[PANEL_PASS] __attribute__((aligned(64)));
    panel_group p[PANEL_GROUPS];
    const size_t bytes = chunk_bytes(type) * (r16 ? LANES : 1); /* from chunk to chunk */
    memset(sums, 0, tokens * sizeof *sums);
    for (size_t c = 0; c < a->n; c += CHUNK) {
        const size_t left = a->n - c, runs = left < CHUNK ? left / RUN : CHUNK_RUNS;
        for (size_t g = 0; g < G; g++) {
            const uint8_t *rows = w + g * LANES * a->w_stride;
            const r16_chunk from = r16_at(type, rows, a->n, c);
            if (r16)
                panel_unpack_r16(type, &from, runs, &p[g]);
            else
                panel_unpack(type, rows + c / CHUNK * bytes, a->w_stride, runs, &p[g]);
        }
        const uint8_t *next = left > CHUNK ? w + (c / CHUNK + 1) * bytes : below;
        panel_chunk(type, r16, G, p, runs, a, c, t0, tokens, next, sums);
    }
    for (size_t t = 0; t < tokens; t++) memcpy(a->out[t0 + t] + r0, sums[t], G * sizeof *sums[t]);
}

/* At least 16 rows. Those that do not fill a panel end with one, or half of one, that overlaps those before, which come
 * out the same. Interleaved rows are whole halves. */
INLINE void panels(dtype type, bool r16, const dot_args *a, size_t t0, size_t tokens)
{
    size_t r = 0;
    for (; r + PANEL_ROWS <= a->rows; r += PANEL_ROWS) panel_rows(type, r16, PANEL_GROUPS, a, r, t0, tokens);
    if (r == a->rows) return;
    if (a->rows - r <= LANES)
        panel_rows(type, r16, 1, a, a->rows - LANES, t0, tokens);
    else
        panel_rows(type, r16, PANEL_GROUPS, a, a->rows - PANEL_ROWS, t0, tokens);
}

#endif
