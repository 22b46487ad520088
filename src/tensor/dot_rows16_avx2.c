/* dot_rows16_avx2.c: rows_dot of rows that are interleaved by sixteen. Few tokens multiply weights straight from
 * registers; many go over panels. The operations on an output are those of lanes.h, so its bits are those of the plain
 * rows. */
#if defined(__x86_64__)

#include "tensor/dot_panel_avx2.h"

#include "tensor/rows16_run.h"

/* Tokens at a chunk of 16 rows: what the words of its runs begin with (r16_starts()), and the sums so far. */
typedef struct r16_tokens {
    token at[FEW_TOKENS];
    uint32_t starts[FEW_TOKENS][STARTS];
    vf sums[FEW_TOKENS][R16_HALVES];
} r16_tokens;

/* sum += the products of four elements of eight rows. Of Q8_0 the sign moves to the activation, and sums are of 32
 * bits: 2 * 128 * 127 < 2^15. */
INLINE vi r16_multiply_add(dtype type, vi sum, vi w, vi x)
{
    if (VNNI || type != DTYPE_Q8_0) return sums_multiply_add(sum, w, x);
    return _mm256_add_epi32(sum, widen(words_multiply(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))));
}

/* Run i + p of 16 rows for T tokens; of `bytes` bytes at `next` the lines that fall to it are asked for. */
INLINE void r16_run(dtype type, size_t T, size_t i, size_t p, const r16_chunk *c, const run_scales *s,
                    const uint8_t *next, r16_tokens *x)
{
    const size_t scaled = scaled_runs(type, 1), steps = 8 / scaled, together = runs_together(type);
    const size_t bytes = together * ROWS16 * chunk_bytes(type) / CHUNK_RUNS;
#pragma GCC unroll 2
    for (size_t k = 0; k < scaled; k++) {
        const size_t run = (i + p) * scaled + k;
        vi dots[FEW_TOKENS][R16_HALVES];
#pragma GCC unroll 8
        for (size_t t = 0; t < R16_HALVES * T; t++)
            dots[t / 2][t % 2] = offset(type) ? _mm256_set1_epi32((int)x->starts[t / 2][run]) : _mm256_setzero_si256();
#pragma GCC unroll 8
        for (size_t j = 0; j < steps; j++) {
            /* a byte of Q4_0 has elements i and i + 16 */
            const size_t e = type == DTYPE_Q4_0 ? j / 2 + j % 2 * 4 : k * steps + j;
            ask_lines(next, bytes, p * 8 + k * steps + j, together * 8);
            const vi w[R16_HALVES] = {from_offset(type, r16_word(type, c, i, p, e, 0)),
                                      from_offset(type, r16_word(type, c, i, p, e, 1))};
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++) {
                const vi q = _mm256_set1_epi32((int)load_u32(x->at[t].quants + (i + p) * RUN + e * 4));
#pragma GCC unroll 2
                for (size_t h = 0; h < R16_HALVES; h++) dots[t][h] = r16_multiply_add(type, dots[t][h], w[h], q);
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++)
#pragma GCC unroll 2
            for (size_t h = 0; h < R16_HALVES; h++) {
                const vi dot = type == DTYPE_Q8_0 ? dots[t][h] : sums_ints(dots[t][h]);
                x->sums[t][h] = add_run(type, &s[h], run, &x->at[t], dot, x->sums[t][h]);
            }
    }
}

/* A chunk of 16 rows for T tokens. */
INLINE void r16_runs(dtype type, size_t T, size_t runs, const r16_chunk *c, const uint8_t *next, r16_tokens *x)
{
    const size_t together = runs_together(type), bytes = ROWS16 * chunk_bytes(type) / CHUNK_RUNS;
    run_scales s[R16_HALVES];
    r16_scales(type, c, runs, s);
    if (type == DTYPE_Q5_K) { /* where in a byte a run's bits are must be known to the compiler */
#pragma GCC unroll 8
        for (size_t i = 0; i < CHUNK_RUNS; i++) r16_run(type, T, i / 2 * 2, i % 2, c, s, next + i / 2 * 2 * bytes, x);
        return;
    }
#pragma GCC unroll 1
    for (size_t i = 0; i < runs; i += together)
#pragma GCC unroll 4
        for (size_t p = 0; p < together; p++) r16_run(type, T, i, p, c, s, next + i * bytes, x);
}

/* 16 rows for T tokens. */
INLINE void r16_few(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    const size_t bytes = ROWS16 * chunk_bytes(type), total = a->rows * a->w_stride;
    size_t at = r0 * a->w_stride;
    r16_tokens x;
#pragma GCC unroll 8
    for (size_t t = 0; t < R16_HALVES * T; t++) x.sums[t / 2][t % 2] = v_zero();
    for (size_t k = 0; k < a->n; k += CHUNK, at += bytes) {
        const size_t left = a->n - k, runs = left < CHUNK ? left / RUN : CHUNK_RUNS, ahead = at + r16_ahead(type);
        const uint8_t *next = ahead < total ? a->w + ahead : a->next + (ahead - total);
        const r16_chunk c = r16_at(type, a->w + r0 * a->w_stride, a->n, k);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            x.at[t] = token_at(a->x[t0 + t], a->n, k);
            r16_starts(type, &x.at[t], runs, x.starts[t]);
        }
        r16_runs(type, T, runs, &c, next, &x);
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < R16_HALVES * T; t++) v_store(a->out[t0 + t / 2] + r0 + t % 2 * LANES, x.sums[t / 2][t % 2]);
}

/* From this many tokens on a panel pays: the sooner the dearer unpacking is beside multiplying. */
INLINE size_t r16_panel_from(dtype type)
{
    if (type == DTYPE_Q8_0) return 20;
    return type == DTYPE_Q5_K || (type == DTYPE_Q6_K && !VNNI) ? 5 : 12;
}

INLINE void r16_all(dtype type, const dot_args *a, size_t tokens)
{
    const bool pays = streams(type) == 1; /* panels of two planes are no better than what goes straight */
    if (pays && tokens >= r16_panel_from(type)) {
        for (size_t t = 0; t < tokens; t += PANEL_PASS)
            panels(type, true, a, t, tokens - t < PANEL_PASS ? tokens - t : PANEL_PASS);
        return;
    }
    r16_by_few(type, a, tokens);
}

void OF_ISA(rows16_dot)(dtype type, const dot_args *a, size_t tokens)
{
    rows16_run(type, a, tokens);
}

#endif
