/* dot_rows16_avx512.c: rows_dot of rows that are interleaved by sixteen. Few tokens multiply weights straight from
 * registers; many go over panels. The operations on an output are those of lanes_avx512.h, so its bits are those of
 * the plain rows. */
#if defined(__x86_64__)

#include "tensor/dot_panel_avx512.h"

#include "tensor/rows16_run.h"

enum { FEW_TOKENS = 4 };

/* dots[p][t] += elements 4 e .. of runs i + p, p < runs_together(). Of the lines at `next` of all 8 words of these runs
 * those are asked for that fall to words `step` and on. */
INLINE void multiply_words(dtype type, size_t T, size_t i, size_t e, size_t step, const r16_chunk *c, const token *x,
                           const uint8_t *next, vi (*dots)[FEW_TOKENS])
{
    const size_t words = 8 * runs_together(type), bytes = words * LANES * chunk_bytes(type) / (CHUNK / 4);
#pragma GCC unroll 4
    for (size_t p = 0; p < runs_together(type); p++) {
        ask_lines(next, bytes, step + p, words);
        const vi w = r16_word(type, c, i, p, e);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            const vi q = _mm512_set1_epi32((int)load_u32(x[t].quants + (i + p) * RUN + e * 4));
            dots[p][t] = _mm512_dpbusd_epi32(dots[p][t], w, q);
        }
    }
}

/* Runs i .. i + runs_together() of 16 rows for T tokens; `next` for them. */
INLINE void r16_runs(dtype type, size_t T, size_t i, const r16_chunk *c, const run_scales *s, const token *x,
                     const int32_t (*starts)[STARTS], const uint8_t *next, vf *sums)
{
    const size_t together = runs_together(type), halves = type == DTYPE_Q6_K ? 2 : 1;
    vi dots[2][4][FEW_TOKENS];
#pragma GCC unroll 2
    for (size_t h = 0; h < halves; h++) {
#pragma GCC unroll 4
        for (size_t p = 0; p < together; p++)
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++) dots[h][p][t] = _mm512_set1_epi32(starts[t][(i + p) * halves + h]);
#pragma GCC unroll 8
        for (size_t j = h * 8 / halves; j < (h + 1) * 8 / halves; j++) {
            const size_t e = type == DTYPE_Q4_0 ? j / 2 + j % 2 * 4 : j; /* its byte has elements i and i + 16 */
            multiply_words(type, T, i, e, j * together, c, x, next, dots[h]);
        }
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < together * halves; k++)
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++)
            sums[t] = add_run(type, s, i * halves + k, &x[t], dots[k % halves][k / halves][t], sums[t]);
}

/* 16 rows for T tokens. */
INLINE void r16_few(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    const size_t bytes = LANES * chunk_bytes(type), total = a->rows * a->w_stride;
    size_t at = r0 * a->w_stride;
    vf sums[FEW_TOKENS];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) sums[t] = v_zero();
    for (size_t k = 0; k < a->n; k += CHUNK, at += bytes) {
        const size_t left = a->n - k, runs = left < CHUNK ? left / RUN : CHUNK_RUNS, ahead = at + r16_ahead(type);
        const uint8_t *next = ahead < total ? a->w + ahead : a->next + (ahead - total);
        const r16_chunk c = r16_at(type, a->w + r0 * a->w_stride, a->n, k);
        token x[FEW_TOKENS];
        int32_t starts[FEW_TOKENS][STARTS] __attribute__((aligned(64)));
        run_scales s;
        r16_scales(type, &c, runs, &s);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            x[t] = token_at(a->x[t0 + t], a->n, k);
            chunk_starts(type, &x[t], runs, starts[t]);
        }
#pragma GCC unroll 1
        for (size_t i = 0; i < runs; i += runs_together(type))
            r16_runs(type, T, i, &c, &s, x, starts, next + i * bytes / CHUNK_RUNS, sums);
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) v_store(a->out[t0 + t] + r0, sums[t]);
}

/* From this many tokens on a panel pays. */
enum { R16_PANEL_FROM = 12 };

INLINE void r16_all(dtype type, const dot_args *a, size_t tokens)
{
    if (tokens >= R16_PANEL_FROM) {
        for (size_t t = 0; t < tokens; t += PANEL_PASS)
            panels(type, true, a, t, tokens - t < PANEL_PASS ? tokens - t : PANEL_PASS);
        return;
    }
    r16_by_few(type, a, tokens);
}

void rows16_dot_avx512(dtype type, const dot_args *a, size_t tokens)
{
    rows16_run(type, a, tokens);
}

#endif
