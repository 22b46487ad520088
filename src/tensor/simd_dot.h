/* simd_dot.h: rows_dot of the quantized types in tiles, written once over the names of simd_<isa>.h and the integer
 * ones of dot_<isa>.c, for instruction sets with 16 registers.
 *
 * A tile is up to 4 rows by TILE_TOKENS tokens with a vector of sums each, all in registers; weights are unpacked once
 * for the tokens of a tile. One token keeps four rows in flight, since it is memory that must be kept busy, and asks
 * for the next tile of rows while it works on this one. Whatever the tile, an output sees the same operations in the
 * same order:
 *
 *     sum = 0; for every chunk of 256 elements, for every step of it: sum += (wscale * xscale) * int_dot(w, x)
 *
 * lane by lane, with one fused multiply-add, then (formats with an offset or min) sum += min * scale_sum; at the end
 * the lanes are added. So its bits depend on the row and the token alone.
 *
 * The types are resolved at compile time: everything here is inlined into one function per type and tile shape. A chunk
 * at the end of a row that is not whole is copied into a zeroed one: zero scales add nothing.
 *
 * dot_<isa>.c provides: STEPS of a chunk; vi, scales; weights(), activation(), base(), int_dot(), weight_scales(),
 * activation_scales(), scales_mul(), expand(), has_min(), weight_min(), load_sums(). */
#include "tensor/simd_dot_float.h"

enum { CHUNK = 256, CHUNK_BLOCKS = CHUNK / ACT_BLOCK };

/* Where the operands of a tile stand. */
typedef struct cursor {
    const uint8_t *w[TILE_ROWS];
    const int8_t *x[TILE_TOKENS];
    const uint8_t *scale[TILE_TOKENS], *sum[TILE_TOKENS];
} cursor;

/* Copies of the last blocks of a row, filled up with zeros. */
typedef struct padded {
    uint8_t w[TILE_ROWS][CHUNK_BLOCKS * Q8_0_BYTES];
    int8_t x[TILE_TOKENS][CHUNK];
    float scale[TILE_TOKENS][CHUNK_BLOCKS], sum[TILE_TOKENS][CHUNK_BLOCKS];
} padded;

INLINE size_t chunk_bytes(dtype type)
{
    switch (type) {
    case DTYPE_Q4_0:
        return CHUNK_BLOCKS * Q4_0_BYTES;
    case DTYPE_Q4_1:
        return CHUNK_BLOCKS * Q4_1_BYTES;
    case DTYPE_Q5_0:
        return CHUNK_BLOCKS * Q5_0_BYTES;
    case DTYPE_Q5_1:
        return CHUNK_BLOCKS * Q5_1_BYTES;
    case DTYPE_Q8_0:
        return CHUNK_BLOCKS * Q8_0_BYTES;
    case DTYPE_Q4_K:
        return Q4_K_BYTES;
    case DTYPE_Q5_K:
        return Q5_K_BYTES;
    default:
        return Q6_K_BYTES;
    }
}

/* Only formats of 32-element blocks can end inside a chunk. */
static void pad_chunk(cursor *at, size_t rows, size_t tokens, size_t bytes, size_t n, padded *pad)
{
    memset(pad, 0, sizeof *pad);
    for (size_t r = 0; r < rows; r++) at->w[r] = memcpy(pad->w[r], at->w[r], bytes / CHUNK_BLOCKS * (n / ACT_BLOCK));
    for (size_t t = 0; t < tokens; t++) {
        at->x[t] = memcpy(pad->x[t], at->x[t], n);
        at->scale[t] = memcpy(pad->scale[t], at->scale[t], n / ACT_BLOCK * sizeof(float));
        at->sum[t] = memcpy(pad->sum[t], at->sum[t], n / ACT_BLOCK * sizeof(float));
    }
}

/* One token: the scales of row and token are multiplied before they are spread over the lanes. */
INLINE void chunk_one(dtype type, size_t R, const cursor *at, vf *sums)
{
    const scales xs = activation_scales(type, at->scale[0]);
    scales s[TILE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) {
        const scales ws = weight_scales(type, at->w[r]);
        s[r] = scales_mul(ws, xs);
        if (has_min(type)) sums[r] = v_fma(weight_min(type, ws), load_sums(at->sum[0]), sums[r]);
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < STEPS; k++) {
        const vi x = activation(type, at->x[0], k), b = base(type, x);
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++) {
            sums[r] = v_fma(int_dot(type, b, weights(type, at->w[r], k), x), expand(type, s[r], k), sums[r]);
        }
    }
}

/* Several: the rows' are spread once for all tokens and the tokens' once for all rows. The same products, hence the
 * same bits. */
INLINE void chunk_many(dtype type, size_t R, size_t T, const cursor *at, vf *sums)
{
    scales ws[TILE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) {
        ws[r] = weight_scales(type, at->w[r]);
        if (!has_min(type)) continue;
        const vf min = weight_min(type, ws[r]);
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            sums[r * TILE_TOKENS + t] = v_fma(min, load_sums(at->sum[t]), sums[r * TILE_TOKENS + t]);
        }
    }
#pragma GCC unroll 8
    for (size_t k = 0; k < STEPS; k++) {
        vi w[TILE_ROWS];
        vf s[TILE_ROWS];
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++) {
            w[r] = weights(type, at->w[r], k);
            s[r] = expand(type, ws[r], k);
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            const vi x = activation(type, at->x[t], k), b = base(type, x);
            const vf xs = expand(type, activation_scales(type, at->scale[t]), k);
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++) {
                vf *sum = &sums[r * TILE_TOKENS + t];
                *sum = v_fma(int_dot(type, b, w[r], x), v_mul(s[r], xs), *sum);
            }
        }
    }
}

INLINE void tile(dtype type, size_t R, size_t T, size_t n, cursor at, const uint8_t *ahead, size_t stride,
                 float *const *out, size_t r0)
{
    vf sums[TILE_ROWS * TILE_TOKENS];
    padded pad;
    const size_t bytes = chunk_bytes(type);
#pragma GCC unroll 16
    for (size_t i = 0; i < TILE_ROWS * TILE_TOKENS; i++) sums[i] = v_zero();
    for (size_t i = 0; i < n; i += CHUNK) {
        if (n - i < CHUNK) pad_chunk(&at, R, T, bytes, n - i, &pad);
        if (T == 1) {
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++) {
#pragma GCC unroll 5
                for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(ahead + r * stride + b, 0, 2); /* level 2 */
            }
            chunk_one(type, R, &at, sums);
        } else {
            chunk_many(type, R, T, &at, sums);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++) at.w[r] += bytes;
        ahead += bytes;
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) {
            at.x[t] += CHUNK;
            at.scale[t] += CHUNK_BLOCKS * sizeof(float);
            at.sum[t] += CHUNK_BLOCKS * sizeof(float);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < T; t++) out[t][r0 + r] = v_sum(sums[T == 1 ? r : r * TILE_TOKENS + t]);
    }
}

/* ---- tiles over rows and tokens ------------------------------------------------------------------------------- */

INLINE void run_tile(dtype type, size_t R, size_t T, const dot_args *a, size_t r0, size_t t0)
{
    cursor at;
    const uint8_t *ahead = r0 + 2 * R > a->rows ? a->next : a->w + (r0 + R) * a->w_stride;
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++) at.w[r] = a->w + (r0 + r) * a->w_stride;
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        at.x[t] = a->x[t0 + t];
        at.scale[t] = act_scales(at.x[t], a->n);
        at.sum[t] = act_sums(at.x[t], a->n);
    }
    tile(type, R, T, a->n, at, ahead, a->w_stride, a->out + t0, r0);
}

/* All tokens over R rows. */
INLINE void run_rows(dtype type, size_t R, const dot_args *a, size_t r0, size_t tokens)
{
    size_t t = 0;
    for (; t + TILE_TOKENS <= tokens; t += TILE_TOKENS) run_tile(type, R, TILE_TOKENS, a, r0, t);
    for (; TILE_TOKENS > 2 && t + 2 <= tokens; t += 2) run_tile(type, R, 2, a, r0, t);
    for (; t < tokens; t++) run_tile(type, R, 1, a, r0, t);
}

INLINE void run(dtype type, const dot_args *a, size_t tokens)
{
    size_t r = 0;
    for (; r + TILE_ROWS <= a->rows; r += TILE_ROWS) run_rows(type, TILE_ROWS, a, r, tokens);
    for (; r < a->rows; r++) run_rows(type, 1, a, r, tokens);
}
