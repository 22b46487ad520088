/* dot_panel_avx2.h: rows_dot for many tokens. A chunk of 256 elements of up to 32 rows is unpacked once, interleaved so
 * that a vector holds four consecutive elements of each of eight rows, signed; then every token passes over it with no
 * shuffle at all, PANEL_TOKENS at a time, its bytes made unsigned by 128. What that adds to a run's sum depends on the
 * rows alone: sums begin with as much less.
 *
 * A run is added up in 16 bits, two words a row. They wrap around, but the last sum fits, since weights are small:
 * 16 elements of up to 16 times 127, or (Q6_K) 8 of 32. Q8_0 is two planes of four bits, w = 16 high + low.
 * AVX-VNNI adds up in 32 bits at once, Q8_0 as it is. */
#ifndef TENSOR_DOT_PANEL_AVX2_H
#define TENSOR_DOT_PANEL_AVX2_H

#include "tensor/dot_few_avx2.h"
#include "tensor/rows16_avx2.h"

enum { PANEL_TOKENS = 4, PANEL_PASS = 64, PANEL_STREAMS = 2, PANEL_PARTS = 2 };

/* What a token meets at a time: two vectors of weights, of two groups of eight rows, or (Q8_0) both planes of one. */
typedef struct panel_part {
    vi w[CHUNK / 4][PANEL_STREAMS];          /* [element / 4]: [row][element % 4] */
    vi start[2 * CHUNK_RUNS][PANEL_STREAMS]; /* words */
    run_scales s[PANEL_STREAMS];
} panel_part;

typedef float panel_sums[PANEL_PARTS * PANEL_STREAMS][LANES];

INLINE size_t part_groups(dtype type)
{
    return PANEL_STREAMS / streams(type);
}

/* Run i of eight rows, one stream of it; words: [element / 4] as they are stored. */
INLINE void pack_stream(dtype type, const vi *words, size_t i, size_t stream, size_t which, panel_part *p)
{
    const size_t scaled = scaled_runs(type, 1), steps = 8 / scaled;
    const int taken = streams(type) == 2 ? 8 : centre(type);
#pragma GCC unroll 2
    for (size_t h = 0; h < scaled; h++) {
        vi sum = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (size_t e = h * steps; e < (h + 1) * steps; e++) {
            const vi w = stream_of(type, stream, words[e], taken);
            p->w[i * 8 + e][which] = w;
            sum = sums_multiply_add(sum, _mm256_set1_epi8(-MIDDLE), w); /* 128 as unsigned */
        }
        p->start[scaled * i + h][which] = sums_negative(sum);
    }
}

INLINE void pack_words(dtype type, const vi *words, size_t i, size_t group, panel_part *p)
{
    pack_stream(type, words, i, 0, group, p);
    if (streams(type) == 2) pack_stream(type, words, i, 1, 1, p);
}

INLINE void pack_run(dtype type, const uint8_t *w, size_t stride, size_t i, size_t group, panel_part *p)
{
    vi pairs[LANE_PAIRS][2], words[2 * LANE_PAIRS];
    load_pairs(type, w, stride, i, pairs);
#pragma GCC unroll 8
    for (size_t k = 0; k < 2 * LANE_PAIRS; k++) words[k] = pairs[k % LANE_PAIRS][k / LANE_PAIRS];
    transpose_words(words);
    transpose_words(words + LANE_PAIRS);
    pack_words(type, words, i, group, p);
}

INLINE void panel_pack(dtype type, const uint8_t *w, size_t stride, size_t runs, panel_part *p)
{
    for (size_t g = 0; g < part_groups(type); g++, w += LANES * stride) {
        if (is_k(type)) {
            decode_heads(type, w + head_at(type), stride, &p->s[g]);
#pragma GCC unroll 8
            for (size_t i = 0; i < CHUNK_RUNS; i++) pack_run(type, w, stride, i, g, p);
        } else {
            raw_scales raw;
            raw_load(type, w, stride, runs, &raw);
            for (size_t i = 0; i < runs; i++) pack_run(type, w, stride, i, g, p);
            decode_raw(type, &raw, &p->s[g]);
        }
    }
}

/* The same from interleaved rows, of types that come in parts of 16. */
INLINE void panel_pack_r16(dtype type, const r16_chunk *c, size_t runs, panel_part *p)
{
    r16_scales(type, c, runs, p->s);
    const size_t together = type == DTYPE_Q5_K ? CHUNK_RUNS : runs_together(type); /* as in r16_runs() */
#pragma GCC unroll 1
    for (size_t i = 0; i < runs; i += together)
#pragma GCC unroll 8
        for (size_t k = 0; k < together; k++)
#pragma GCC unroll 2
            for (size_t h = 0; h < R16_HALVES; h++) {
                const size_t first = k / runs_together(type) * runs_together(type);
                vi words[8];
#pragma GCC unroll 8
                for (size_t e = 0; e < 8; e++) words[e] = r16_word(type, c, i + first, k - first, e, h);
                pack_words(type, words, i + k, h, p);
            }
}

/* Tokens at a chunk, their bytes unsigned. */
typedef struct panel_tokens {
    token at[PANEL_TOKENS];
    uint8_t quants[PANEL_TOKENS][CHUNK];
} __attribute__((aligned(32))) panel_tokens;

INLINE void tokens_begin(const dot_args *a, size_t T, size_t t0, size_t c, size_t runs, panel_tokens *x)
{
    for (size_t t = 0; t < T; t++) {
        x->at[t] = token_at(a->x[t0 + t], a->n, c);
        for (size_t i = 0; i < runs; i++) {
            const vi quants = _mm256_loadu_si256((const vi *)(const void *)(x->at[t].quants + i * RUN));
            vi *out = (vi *)(void *)(x->quants[t] + i * RUN);
            _mm256_store_si256(out, _mm256_xor_si256(quants, _mm256_set1_epi8(-MIDDLE)));
        }
    }
}

/* T tokens over a chunk of a part. */
INLINE void part_tokens(dtype type, size_t T, const panel_part *p, size_t runs, const panel_tokens *x,
                        float (*const *sums)[LANES])
{
    const size_t steps = type == DTYPE_Q6_K ? 4 : 8;
    for (size_t i = 0; i < scaled_runs(type, runs); i++) {
        vi dot[PANEL_TOKENS][PANEL_STREAMS];
#pragma GCC unroll 8
        for (size_t k = 0; k < 2 * T; k++) dot[k / 2][k % 2] = p->start[i][k % 2];
#pragma GCC unroll 8
        for (size_t e = 0; e < steps; e++) {
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++) {
                const vi q = _mm256_set1_epi32((int)load_u32(x->quants[t] + (i * steps + e) * 4));
#pragma GCC unroll 2
                for (size_t g = 0; g < PANEL_STREAMS; g++)
                    dot[t][g] = sums_multiply_add(dot[t][g], q, p->w[i * steps + e][g]);
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            if (streams(type) == 2) {
                const vi high = _mm256_madd_epi16(dot[t][0], _mm256_set1_epi16(16));
                const vi both = _mm256_add_epi32(high, widen(dot[t][1]));
                v_store(sums[t][0], add_run(type, &p->s[0], i, &x->at[t], both, v_load(sums[t][0])));
                continue;
            }
#pragma GCC unroll 2
            for (size_t g = 0; g < PANEL_STREAMS; g++)
                v_store(sums[t][g], add_run(type, &p->s[g], i, &x->at[t], sums_ints(dot[t][g]), v_load(sums[t][g])));
        }
    }
}

/* Asks for a chunk of rows [from, to) that comes next: of interleaved ones, for as many bytes. */
INLINE void panel_ask(dtype type, bool r16, const uint8_t *w, size_t stride, size_t from, size_t to)
{
    for (size_t r = from; r < to; r++) {
        const uint8_t *row = w + (r16 ? r / ROWS16 * ROWS16 * stride + r % ROWS16 * chunk_bytes(type) : r * stride);
#pragma GCC unroll 5
        for (size_t b = 0; b < chunk_bytes(type) + 63; b += 64) __builtin_prefetch(row + b, 0, 2);
    }
}

/* T tokens over a chunk of all parts. */
INLINE void panel_few(dtype type, size_t T, size_t parts, const panel_part *p, size_t runs, const dot_args *a, size_t c,
                      size_t t0, panel_sums *sums)
{
    panel_tokens x;
    tokens_begin(a, T, t0, c, runs, &x);
    for (size_t k = 0; k < parts; k++) {
        float(*at[PANEL_TOKENS])[LANES];
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) at[t] = sums[t] + k * part_groups(type);
        part_tokens(type, T, &p[k], runs, &x, at);
    }
}

/* All tokens over a chunk; between them the next one, at `next`, is asked for: a few rows at a time, since there are
 * but so many requests under way. */
INLINE void panel_chunk(dtype type, bool r16, size_t parts, const panel_part *p, size_t runs, const dot_args *a,
                        size_t c, size_t t0, size_t tokens, const uint8_t *next, panel_sums *sums)
{
    const size_t rows = parts * part_groups(type) * LANES;
    for (size_t t = 0, T; t < tokens; t += T) {
        T = tokens_together(tokens - t);
        panel_ask(type, r16, next, a->w_stride, rows * t / tokens, rows * (t + T) / tokens);
        switch (T) {
        case PANEL_TOKENS:
            panel_few(type, PANEL_TOKENS, parts, p, runs, a, c, t0 + t, sums + t);
            break;
        case 3:
            panel_few(type, 3, parts, p, runs, a, c, t0 + t, sums + t);
            break;
        case 2:
            panel_few(type, 2, parts, p, runs, a, c, t0 + t, sums + t);
            break;
        default:
            panel_few(type, 1, parts, p, runs, a, c, t0 + t, sums + t);
        }
    }
}

/* The rows of so many parts from r0 on, interleaved or not. */
INLINE void panel_rows(dtype type, bool r16, size_t parts, const dot_args *a, size_t r0, size_t t0, size_t tokens)
{
    const size_t part_rows = part_groups(type) * LANES, rows = parts * part_rows;
    const size_t bytes = chunk_bytes(type) * (r16 ? ROWS16 : 1); /* from chunk to chunk */
    const uint8_t *w = a->w + r0 * a->w_stride, *below = r0 + rows < a->rows ? w + rows * a->w_stride : a->next;
    panel_sums sums[PANEL_PASS] __attribute__((aligned(32)));
    panel_part p[PANEL_PARTS];
    memset(sums, 0, tokens * sizeof *sums);
    for (size_t c = 0; c < a->n; c += CHUNK) {
        const size_t left = a->n - c, runs = left < CHUNK ? left / RUN : CHUNK_RUNS;
        for (size_t k = 0; k < parts; k++) {
            const uint8_t *from = w + k * part_rows * a->w_stride;
            const r16_chunk chunk = r16_at(type, from, a->n, c);
            if (r16)
                panel_pack_r16(type, &chunk, runs, &p[k]);
            else
                panel_pack(type, from + c / CHUNK * bytes, a->w_stride, runs, &p[k]);
        }
        const uint8_t *next = left > CHUNK ? w + (c / CHUNK + 1) * bytes : below;
        panel_chunk(type, r16, parts, p, runs, a, c, t0, tokens, next, sums);
    }
    for (size_t t = 0; t < tokens; t++) memcpy(a->out[t0 + t] + r0, sums[t], rows * sizeof(float));
}

/* Rows that do not fill a panel end with single parts, the last of which overlaps those before, which come out the
 * same. Interleaved rows are whole parts. */
INLINE void panels(dtype type, bool r16, const dot_args *a, size_t t0, size_t tokens)
{
    const size_t part_rows = part_groups(type) * LANES;
    for (size_t r = 0; r < a->rows;) {
        const size_t left = a->rows - r, parts = left >= PANEL_PARTS * part_rows ? PANEL_PARTS : 1;
        if (left < part_rows) r = a->rows - part_rows;
        panel_rows(type, r16, parts, a, r, t0, tokens);
        r += parts * part_rows;
    }
}

#endif
