/* dot_avx512.c: rows_dot and the quantizer of its activations for AVX-512 with VNNI and VBMI.
 *
 * vpdpbusd multiplies unsigned bytes (weights) by signed ones (activations) and adds groups of four into 32 bits. The
 * lanes of a vector of sums are 16 rows, so that scales are one multiplication for 16 x 32 products:
 *
 *     sum = 0; for every run of 32 elements (Q6_K: 16), ascending:
 *         sum = fma(int_dot, wscale * xscale, sum);  sum = fma(wmin, xscale * (sum of the run's quants), sum)
 *
 * where wmin holds the format's min, or what makes up for unsigned weights. Integers are exact, so an output's bits
 * depend on its row and token alone, and there are two ways to the same ones:
 *
 *   direct   few tokens: weights go from memory to registers as quads (quads_avx512.h), four rows a vector; their
 *            partial sums are added up into the 16 lanes.
 *   panel    many: a chunk of 256 elements of 16 rows is unpacked once into 4 KB, interleaved so that a vector holds
 *            four consecutive elements of each row; then every token passes over it with no shuffle at all. */
#if defined(__x86_64__)

#include "tensor/quads_avx512.h"

enum { TILE_TOKENS = 4 };
#include "tensor/simd_dot_float.h"

enum { LANES = 16, DIRECT_TOKENS = 4, PANEL_TOKENS = 8, PANEL_PASS = 128 };

/* Where a quantized activation's planes are (kernels_impl.h). */
typedef struct token {
    const uint8_t *quants, *scales, *sums, *half_sums;
} token;

INLINE token token_at(const void *x, size_t n, size_t at)
{
    return (token){(const uint8_t *)act_quants(x) + at, act_scales(x, n) + at / 8, act_sums(x, n) + at / 8,
                   act_half_sums(x, n) + at / 4};
}

INLINE vf broadcast_f32(const uint8_t *p)
{
    return v_set1(load_f32(p));
}

/* ---- scales of 16 rows --------------------------------------------------------------------------------------- */

/* What stands in the blocks of a chunk, brought together by scalar loads: the vector units have enough to do. Filled a
 * chunk ahead, since vectors read what was written in pieces. */
typedef struct raw_scales {
    uint16_t d[CHUNK_RUNS][LANES], m[CHUNK_RUNS][LANES]; /* of K-quants only [0] */
    uint8_t levels[LANES][16];                           /* K-quants: scales, minima */
} __attribute__((aligned(64))) raw_scales;

/* One row for every lane: s[run][lane], Q6_K two runs of 16 for each of 32. */
typedef struct run_scales {
    float s[2 * CHUNK_RUNS][LANES], m[2 * CHUNK_RUNS][LANES];
} __attribute__((aligned(64))) run_scales;

INLINE void raw_load_lane(dtype type, const uint8_t *w, size_t runs, size_t lane, raw_scales *raw)
{
    if (type == DTYPE_Q6_K) {
        raw->d[0][lane] = load_u16(w + Q6_K_D);
        memcpy(raw->levels[lane], w + Q6_K_SCALES, 16);
    } else if (is_k(type)) {
        uint64_t levels[2];
        q4_k_scales(w + Q4_K_SCALES, &levels[0], &levels[1]);
        memcpy(raw->levels[lane], levels, sizeof levels);
        raw->d[0][lane] = load_u16(w);
        raw->m[0][lane] = load_u16(w + Q4_K_DMIN);
    } else {
#pragma GCC unroll 8
        for (size_t run = 0; run < runs; run++) {
            raw->d[run][lane] = load_u16(w + run * block_bytes(type));
            if (has_min(type)) raw->m[run][lane] = load_u16(w + run * block_bytes(type) + 2);
        }
    }
}

/* 16 rows, a lane each */
INLINE void raw_load(dtype type, const uint8_t *w, size_t stride, size_t runs, raw_scales *raw)
{
    for (size_t r = 0; r < LANES; r++) {
        if (runs == CHUNK_RUNS)
            raw_load_lane(type, w + r * stride, CHUNK_RUNS, r, raw);
        else
            raw_load_lane(type, w + r * stride, runs, r, raw);
    }
}

INLINE vf load_f16_lanes(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)p));
}

/* levels [16 lanes][16] into [16][16 lanes]. */
INLINE void transpose_levels(const raw_scales *raw, vi *out)
{
    vi v[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) v[i] = interleave_bytes(_mm512_load_si512(raw->levels[4 * i]));
    transpose_words(v); /* lane l of v[e]: level 4 l + e of all rows */
#pragma GCC unroll 4
    for (size_t e = 0; e < 4; e++) out[e] = v[e];
}

INLINE vf level_floats(dtype type, const vi *levels, size_t i)
{
    const __m128i bytes = _mm_load_si128((const __m128i *)(const void *)&levels[i % 4] + i / 4);
    return _mm512_cvtepi32_ps(type == DTYPE_Q6_K ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

INLINE void decode_k_scales(dtype type, const raw_scales *raw, run_scales *out)
{
    vi levels[4];
    transpose_levels(raw, levels);
    const vf d = load_f16_lanes(raw->d[0]);
    const vf offset = v_set1((float)-run_offset(type));
    const vf dmin = has_min(type) ? v_sub(v_zero(), load_f16_lanes(raw->m[0])) : v_zero();
    const size_t runs = type == DTYPE_Q6_K ? 2 * CHUNK_RUNS : CHUNK_RUNS;
#pragma GCC unroll 16
    for (size_t i = 0; i < runs; i++) {
        const vf s = v_mul(level_floats(type, levels, i), d);
        v_store(out->s[i], s);
        v_store(out->m[i], has_min(type) ? v_mul(level_floats(type, levels, i + 8), dmin) : v_mul(s, offset));
    }
}

INLINE void decode_scales(dtype type, const raw_scales *raw, size_t runs, run_scales *out)
{
    if (is_k(type)) {
        decode_k_scales(type, raw, out);
        return;
    }
    const vf offset = v_set1((float)-run_offset(type));
    for (size_t i = 0; i < runs; i++) {
        const vf s = load_f16_lanes(raw->d[i]);
        v_store(out->s[i], s);
        v_store(out->m[i], has_min(type) ? load_f16_lanes(raw->m[i]) : v_mul(s, offset));
    }
}

/* ---- sums of a run ---------------------------------------------------------------------------------------------- */

/* One run for one token: i counts runs of 32, or of 16 where `halves`. */
INLINE vf add_run(const run_scales *s, size_t i, bool halves, const token *x, vi dot, vf sum)
{
    const size_t run = halves ? i / 2 : i;
    const vf scale = v_mul(v_load(s->s[i]), broadcast_f32(x->scales + run * sizeof(float)));
    const vf x_sum = broadcast_f32((halves ? x->half_sums : x->sums) + i * sizeof(float));
    return v_fma(v_load(s->m[i]), x_sum, v_fma(_mm512_cvtepi32_ps(dot), scale, sum));
}

/* ---- several tokens ---------------------------------------------------------------------------------------------- */

/* Four words of each of four quads, in every lane: lane l of the result is quad 0 .. 3 of row l. */
INLINE vi add_up(const vi *quads)
{
    const vi a = _mm512_add_epi32(_mm512_unpacklo_epi32(quads[0], quads[1]),
                                  _mm512_unpackhi_epi32(quads[0], quads[1])); /* 0 1 0 1 */
    const vi b = _mm512_add_epi32(_mm512_unpacklo_epi32(quads[2], quads[3]), _mm512_unpackhi_epi32(quads[2], quads[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

INLINE vi broadcast_16(const uint8_t *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}

/* Sums of a run's products with the quants q: of 32 in dots[0], or of 16 each in dots[0] and dots[1]. */
INLINE void multiply(bool halves, const vi *quad, const uint8_t *q, vi *dots)
{
    const vi lo = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quad[0], broadcast_16(q));
    dots[0] = lo;
    dots[halves] = _mm512_dpbusd_epi32(halves ? _mm512_setzero_si512() : lo, quad[1], broadcast_16(q + 16));
}

/* Run i of 16 rows. */
INLINE void direct_run(dtype type, size_t T, size_t i, const uint8_t *w, size_t stride, const run_scales *s,
                       const token *x, const uint8_t *next, vf *sums)
{
    const bool halves = type == DTYPE_Q6_K;
    const size_t bytes = LANES * chunk_bytes(type) / CHUNK_RUNS;
    vi dots[DIRECT_TOKENS][2][4];
#pragma GCC unroll 16
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + i * bytes + b, 0, 2);
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        vi quad[2];
        quad_run(type, w + g * stride, 4 * stride, i, quad);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            vi both[2];
            multiply(halves, quad, x[t].quants + i * RUN, both);
            dots[t][0][g] = both[0];
            dots[t][halves][g] = both[halves];
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
#pragma GCC unroll 2
        for (size_t h = 0; h <= halves; h++)
            sums[t] = add_run(s, halves ? 2 * i + h : i, halves, &x[t], add_up(dots[t][h]), sums[t]);
    }
}

/* 16 rows for T tokens. */
INLINE void direct(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    const uint8_t *w = a->w + r0 * a->w_stride;
    const uint8_t *next = r0 + LANES < a->rows ? w + LANES * a->w_stride : a->next;
    raw_scales raw;
    run_scales s;
    vf sums[DIRECT_TOKENS];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) sums[t] = v_zero();
    size_t runs = a->n < CHUNK ? a->n / RUN : CHUNK_RUNS;
    raw_load(type, w, a->w_stride, runs, &raw);
    for (size_t c = 0; c < a->n; c += CHUNK, w += chunk_bytes(type), next += LANES * chunk_bytes(type)) {
        token x[DIRECT_TOKENS];
        const size_t here = runs, left = a->n - c - here * RUN;
        decode_scales(type, &raw, here, &s);
        runs = left < CHUNK ? left / RUN : CHUNK_RUNS;
        if (runs) raw_load(type, w + chunk_bytes(type), a->w_stride, runs, &raw);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) x[t] = token_at(a->x[t0 + t], a->n, c);
        if (here == CHUNK_RUNS) {
#pragma GCC unroll 8
            for (size_t i = 0; i < CHUNK_RUNS; i++) direct_run(type, T, i, w, a->w_stride, &s, x, next, sums);
        } else {
            for (size_t i = 0; i < here; i++) direct_run(type, T, i, w, a->w_stride, &s, x, next, sums);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) v_store(a->out[t0 + t] + r0, sums[t]);
}

/* ---- one token -------------------------------------------------------------------------------------------------- */

/* What up to 16 rows give for SEGMENT chunks before scales are applied. Rows are read four at a time, which is how
 * memory answers soonest, but scaled 16 at a time. Row 4 g + l belongs to lane 4 l + g. */
enum { SEGMENT = 8, AHEAD = 8 /* rows */ };

typedef struct products {
    vi dots[SEGMENT][2][2][4]; /* [chunk][run / 4][half][g]: lane l has four runs of row 4 g + l */
    raw_scales raw[SEGMENT];
} products;

/* Memory answers in time only if asked twice: for level 2, in order of address, AHEAD rows before they are wanted; for
 * level 1 two chunks before. A few lines at a time: there are but so many requests under way. */
INLINE void ask_ahead(dtype type, size_t half, const uint8_t *w, size_t stride, const uint8_t *next)
{
    const size_t bytes = 2 * chunk_bytes(type); /* half a chunk of four rows */
#pragma GCC unroll 16
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + half * bytes + b, 0, 2);
    const size_t near = (chunk_bytes(type) / 2 + 63) / 64 * 64; /* of two halves */
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; r++)
#pragma GCC unroll 2
        for (size_t b = 0; b < near; b += 64)
            __builtin_prefetch(w + r * stride + 2 * chunk_bytes(type) + (half ? near : 0) + b, 0, 3);
}

/* Half a chunk of four rows, or the first `count` of its four runs. */
INLINE void multiply_half(dtype type, const uint8_t *w, size_t stride, size_t half, size_t count, const uint8_t *quants,
                          vi *out)
{
    const bool halves = type == DTYPE_Q6_K;
    vi dots[8];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++) {
        vi quad[2], *both = dots + (halves ? 2 * k : k);
        if (k >= count) {
            both[0] = both[halves] = _mm512_setzero_si512();
            continue;
        }
        vi sums[2];
        quad_run(type, w, stride, 4 * half + k, quad);
        multiply(halves, quad, quants + (4 * half + k) * RUN, sums);
        both[0] = sums[0];
        both[halves] = sums[halves];
    }
    out[0] = add_up(dots);
    if (halves) out[4] = add_up(dots + 4);
}

/* Four rows over `chunks` chunks of at most `runs` runs. */
INLINE void multiply_rows(dtype type, size_t g, const uint8_t *w, size_t stride, size_t runs, const uint8_t *quants,
                          const uint8_t *next, products *p)
{
    for (size_t c = 0; c * CHUNK_RUNS < runs; c++, w += chunk_bytes(type), next += 4 * chunk_bytes(type)) {
        const size_t left = runs - c * CHUNK_RUNS;
        if (left >= CHUNK_RUNS) {
#pragma GCC unroll 4
            for (size_t l = 0; l < 4; l++) raw_load_lane(type, w + l * stride, CHUNK_RUNS, 4 * l + g, &p->raw[c]);
#pragma GCC unroll 2
            for (size_t half = 0; half < 2; half++) {
                ask_ahead(type, half, w, stride, next);
                multiply_half(type, w, stride, half, 4, quants + c * CHUNK, &p->dots[c][half][0][g]);
            }
        } else {
            for (size_t l = 0; l < 4; l++) raw_load_lane(type, w + l * stride, left, 4 * l + g, &p->raw[c]);
            for (size_t half = 0; 4 * half < left; half++)
                multiply_half(type, w, stride, half, left - 4 * half, quants + c * CHUNK, &p->dots[c][half][0][g]);
        }
    }
}

INLINE vf scale_products(dtype type, const products *p, size_t runs, const void *act, size_t n, size_t at, vf sum)
{
    const bool halves = type == DTYPE_Q6_K;
    run_scales s;
    for (size_t c = 0; c * CHUNK_RUNS < runs; c++) {
        const size_t left = runs - c * CHUNK_RUNS, here = left < CHUNK_RUNS ? left : CHUNK_RUNS;
        const token x = token_at(act, n, at + c * CHUNK);
        decode_scales(type, &p->raw[c], here, &s);
        for (size_t i = 0; i < here * (halves ? 2 : 1); i += 4) {
            vi dots[4];
            memcpy(dots, halves ? p->dots[c][i / 8][i / 4 % 2] : p->dots[c][i / 4][0], sizeof dots);
            transpose_words(dots);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++) {
                if (i + k < here * (halves ? 2 : 1)) sum = add_run(&s, i + k, halves, &x, dots[k], sum);
            }
        }
    }
    return sum;
}

/* 4, 8, 12 or 16 rows. */
INLINE void one_token(dtype type, const dot_args *a, size_t r0, size_t rows, size_t t)
{
    products p;
    vf sum = v_zero();
    if (rows < LANES) memset(&p, 0, sizeof p);
    for (size_t at = 0; at < a->n; at += SEGMENT * CHUNK) {
        const size_t left = (a->n - at) / RUN, runs = left < SEGMENT * CHUNK_RUNS ? left : SEGMENT * CHUNK_RUNS;
        for (size_t g = 0; g < rows / 4; g++) {
            const size_t row = r0 + 4 * g, ahead = row + AHEAD;
            const uint8_t *next =
                ahead < a->rows ? a->w + ahead * a->w_stride : a->next + (ahead - a->rows) * a->w_stride;
            multiply_rows(type, g, a->w + row * a->w_stride + at / CHUNK * chunk_bytes(type), a->w_stride, runs,
                          (const uint8_t *)act_quants(a->x[t]) + at, next + 4 * at / CHUNK * chunk_bytes(type), &p);
        }
        sum = scale_products(type, &p, runs, a->x[t], a->n, at, sum);
    }
    float lanes[LANES];
    v_store(lanes, sum);
    for (size_t r = 0; r < rows; r++) a->out[t][r0 + r] = lanes[r % 4 * 4 + r / 4];
}

/* 16 rows */
INLINE void direct_tokens(dtype type, const dot_args *a, size_t r0, size_t t0, size_t tokens)
{
    const size_t end = t0 + tokens;
    size_t t = t0;
    for (; t + 4 <= end; t += 4) direct(type, 4, a, r0, t);
    for (; t + 2 <= end; t += 2) direct(type, 2, a, r0, t);
    if (t < end) one_token(type, a, r0, LANES, t);
}

/* ---- panel ------------------------------------------------------------------------------------------------------ */

typedef struct panel {
    uint8_t w[CHUNK / 4][LANES][4]; /* [element / 4][row][element % 4] */
    run_scales s;
    size_t runs;
} __attribute__((aligned(64))) panel;

INLINE void panel_pack(dtype type, const uint8_t *w, size_t stride, size_t runs, panel *p)
{
    raw_scales raw;
    raw_load(type, w, stride, runs, &raw);
    p->runs = runs;
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
            for (size_t e = 0; e < 4; e++) _mm512_store_si512(p->w[i * 8 + h * 4 + e], quads[h][e]);
        }
    }
    decode_scales(type, &raw, runs, &p->s);
}

/* T tokens over a chunk. */
INLINE void panel_tokens(dtype type, size_t T, const panel *p, const token *x, float (*sums)[LANES])
{
    const bool halves = type == DTYPE_Q6_K;
    const size_t steps = halves ? 4 : 8;
    vf sum[PANEL_TOKENS];
#pragma GCC unroll 8
    for (size_t t = 0; t < T; t++) sum[t] = v_load(sums[t]);
    for (size_t i = 0; i < p->runs * (halves ? 2 : 1); i++) {
        vi dot[PANEL_TOKENS];
#pragma GCC unroll 8
        for (size_t t = 0; t < T; t++) dot[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (size_t e = 0; e < steps; e++) {
            const vi w = _mm512_load_si512(p->w[i * steps + e]);
#pragma GCC unroll 8
            for (size_t t = 0; t < T; t++) {
                const vi q = _mm512_set1_epi32((int)load_u32(x[t].quants + (i * steps + e) * 4));
                dot[t] = _mm512_dpbusd_epi32(dot[t], w, q);
            }
        }
#pragma GCC unroll 8
        for (size_t t = 0; t < T; t++) sum[t] = add_run(&p->s, i, halves, &x[t], dot[t], sum[t]);
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < T; t++) v_store(sums[t], sum[t]);
}

INLINE void panel_chunk(dtype type, const panel *p, const dot_args *a, size_t c, size_t t0, size_t tokens,
                        float (*sums)[LANES])
{
    for (size_t t = 0; t < tokens;) {
        const size_t T = t + PANEL_TOKENS <= tokens ? PANEL_TOKENS : t + 4 <= tokens ? 4 : 1;
        token x[PANEL_TOKENS];
        for (size_t i = 0; i < T; i++) x[i] = token_at(a->x[t0 + t + i], a->n, c);
        if (T == PANEL_TOKENS)
            panel_tokens(type, PANEL_TOKENS, p, x, sums + t);
        else if (T == 4)
            panel_tokens(type, 4, p, x, sums + t);
        else
            panel_tokens(type, 1, p, x, sums + t);
        t += T;
    }
}

/* Asks for 16 rows of a chunk while tokens pass over the panel of the one before. */
INLINE void panel_ask(dtype type, const uint8_t *w, size_t stride)
{
    for (size_t r = 0; r < LANES; r++)
#pragma GCC unroll 5
        for (size_t b = 0; b < chunk_bytes(type) + 63; b += 64) __builtin_prefetch(w + r * stride + b, 0, 2);
}

INLINE void panel_rows(dtype type, const dot_args *a, size_t r0, size_t t0, size_t tokens)
{
    const uint8_t *w = a->w + r0 * a->w_stride, *below = r0 + LANES < a->rows ? w + LANES * a->w_stride : a->next;
    float sums[PANEL_PASS][LANES] __attribute__((aligned(64)));
    panel p;
    memset(sums, 0, tokens * sizeof *sums);
    for (size_t c = 0; c < a->n; c += CHUNK) {
        const size_t left = a->n - c;
        panel_pack(type, w + c / CHUNK * chunk_bytes(type), a->w_stride, left < CHUNK ? left / RUN : CHUNK_RUNS, &p);
        panel_ask(type, left > CHUNK ? w + (c / CHUNK + 1) * chunk_bytes(type) : below, a->w_stride);
        panel_chunk(type, &p, a, c, t0, tokens, sums);
    }
    for (size_t t = 0; t < tokens; t++) memcpy(a->out[t0 + t] + r0, sums[t], sizeof *sums);
}

/* ---- all rows and tokens ---------------------------------------------------------------------------------------- */

/* From this many tokens on a panel pays. */
enum { PANEL_FROM = 6 };

INLINE void sixteen_rows(dtype type, const dot_args *a, size_t r0, size_t tokens)
{
    for (size_t t = 0; t < tokens; t += PANEL_PASS) {
        const size_t left = tokens - t, count = left < PANEL_PASS ? left : PANEL_PASS;
        if (count >= PANEL_FROM)
            panel_rows(type, a, r0, t, count);
        else
            direct_tokens(type, a, r0, t, count);
    }
}

/* Rows that do not fill a tile end with one that overlaps those before, which come out the same. */
INLINE void run(dtype type, const dot_args *a, size_t tokens)
{
    size_t r = 0;
    for (; r + 16 <= a->rows; r += 16) sixteen_rows(type, a, r, tokens);
    if (r < a->rows && r > 0 && tokens >= PANEL_FROM) {
        sixteen_rows(type, a, a->rows - 16, tokens);
        return;
    }
    const size_t rows = (a->rows - r) / 4 * 4;
    for (size_t t = 0; rows && t < tokens; t++) one_token(type, a, r, rows, t);
    r += rows;
    if (r == a->rows) return;
    for (size_t t = 0; t < tokens; t++) {
        if (a->rows > 4) {
            one_token(type, a, a->rows - 4, 4, t);
            continue;
        }
        for (size_t i = r; i < a->rows; i++) { /* fewer than four in all: four times the same */
            float lanes[4], *out = lanes;
            const dot_args one = {a->n, a->w + i * a->w_stride, 0, 4, a->x + t, &out, a->next};
            one_token(type, &one, 0, 4, 0);
            a->out[t][i] = lanes[0];
        }
    }
}

void rows_dot_avx512(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                     float *const *out, size_t tokens, const void *next)
{
    const dot_args a = {n, w, w_stride, rows, x, out, next ? next : w};
    run_type(type, &a, tokens);
}

void quantize_act_avx512(const float *x, size_t n, void *out)
{
    uint8_t *quants = out, *scales = quants + n, *sums = scales + n / 8, *half_sums = sums + n / 8;
    const vi magnitude = _mm512_set1_epi32(0x7fffffff);
    for (size_t i = 0; i < n; i += ACT_BLOCK, scales += 4, sums += 4, half_sums += 8) {
        const vf lo = v_load(x + i), hi = v_load(x + i + VL);
        const vi bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(lo), magnitude),
                                         _mm512_and_si512(_mm512_castps_si512(hi), magnitude));
        const int top = _mm512_reduce_max_epi32(bits); /* as integers NaN is largest of all */
        float largest;
        memcpy(&largest, &top, sizeof largest);
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        const vf inverse = v_set1(largest > ACT_TINY ? 127.0f / largest : 0.0f);
        const vi q0 = _mm512_cvtps_epi32(v_mul(lo, inverse)), q1 = _mm512_cvtps_epi32(v_mul(hi, inverse));
        const int sum0 = _mm512_reduce_add_epi32(q0), sum1 = _mm512_reduce_add_epi32(q1);
        const float sum = scale * (float)(sum0 + sum1), halves[2] = {scale * (float)sum0, scale * (float)sum1};
        _mm_storeu_si128((__m128i *)(quants + i), _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(quants + i + VL), _mm512_cvtepi32_epi8(q1));
        memcpy(scales, &scale, sizeof scale);
        memcpy(sums, &sum, sizeof sum);
        memcpy(half_sums, halves, sizeof halves);
    }
}

#endif
