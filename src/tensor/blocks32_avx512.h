/* blocks32_avx512.h: tiles arranged in blocks (blocks32.h) for AVX-512: a load brings what a vector of products wants,
 * and the scales of 16 rows stand side by side. */
#ifndef TENSOR_BLOCKS32_AVX512_H
#define TENSOR_BLOCKS32_AVX512_H

#include "tensor/blocks32.h"
#include "tensor/factors_avx512.h"
#include "tensor/rows16_avx512.h"

/* Bytes of a row's F16 scales, and of its levels. */
INLINE size_t blocks32_halves(dtype type)
{
    return is_k(type) ? type == DTYPE_Q6_K ? 2 : 4 : 2 * CHUNK_RUNS;
}

INLINE size_t blocks32_levels(dtype type)
{
    return is_k(type) ? type == DTYPE_Q6_K ? 16 : 12 : 0;
}

INLINE size_t blocks32_scale_bytes(dtype type)
{
    return blocks32_halves(type) + blocks32_levels(type);
}

/* The scales of fewer than 16 rows at `from`, spread out as those of 16, of which the rest are zero. */
INLINE void blocks32_spread(dtype type, const uint8_t *from, size_t rows, uint8_t *out)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < blocks32_halves(type) / 2; i++, from += 2 * rows, out += 2 * LANES)
        _mm256_storeu_si256((__m256i *)(void *)out, _mm256_maskz_loadu_epi16(part(rows), from));
#pragma GCC unroll 16
    for (size_t i = 0; i < blocks32_levels(type); i++, from += rows, out += LANES)
        _mm_storeu_si128((__m128i *)(void *)out, _mm_maskz_loadu_epi8(part(rows), from));
}

INLINE void blocks32_scales(dtype type, const uint8_t *from, size_t rows, run_scales *out)
{
    uint8_t spread[LANES * (2 + 16)]; /* most: Q6_K */
    if (rows < LANES) blocks32_spread(type, from, rows, spread);
    const uint8_t *d = rows < LANES ? spread : from;
    r16_scales(type, &(r16_chunk){.d = d, .levels = d + LANES * blocks32_halves(type)}, CHUNK_RUNS, out);
    add_centre(type, out);
}

INLINE void blocks32_begin(dtype type, const accumulate_args *args, size_t j0, size_t tile, row_block *b)
{
    const uint8_t *w = strip_rows(args, tile) + j0 * args->stride;
    const size_t left = args->rows - j0, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS,
                 low = rows < LANES ? rows : LANES, scales = blocks32_scale_bytes(type);
    b->w = w + rows * scales;
    b->stride = args->stride, b->rows = rows, b->units = STRIP_UNITS, b->groups = rows / GROUP;
    b->next = block_next(args, w, rows, left);
    blocks32_scales(type, w, low, &b->s[0]);
    blocks32_scales(type, w + low * scales, rows - low, &b->s[1]);
    block_shares(type, b);
}

INLINE vi load_piece(const uint8_t *w, size_t i)
{
    return _mm512_loadu_si512(w + i * sizeof(vi));
}

/* Columns of unit u of four rows: two vectors of [16 columns][4 rows], unsigned. */
INLINE void blocks32_weights(dtype type, const row_block *b, size_t g, size_t u, vi *out)
{
    const size_t pieces = (chunk_bytes(type) - blocks32_scale_bytes(type)) / 16;
    const uint8_t *w = b->w + g * pieces * sizeof(vi);
    if (type == DTYPE_Q4_0) {
        const vi bytes = load_piece(w, u);
        out[0] = low_nibbles(bytes);
        out[1] = high_nibbles(bytes);
        return;
    }
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++) {
        if (type == DTYPE_Q8_0) {
            out[half] = _mm512_xor_si512(load_piece(w, 2 * u + half), _mm512_set1_epi8(-128));
        } else if (type == DTYPE_Q6_K) {
            const vi low = load_piece(w, u / 4 * 4 + (u & 1) * 2 + half);
            out[half] = q6_k_values(low, load_piece(w, 8 + u / 4 * 2 + half), u % 4);
        } else {
            const vi bytes = load_piece(w, (type == DTYPE_Q5_K ? 2 : 0) + u / 2 * 2 + half);
            const vi four = u % 2 ? high_nibbles(bytes) : low_nibbles(bytes);
            out[half] = type == DTYPE_Q4_K ? four : q5_k_values(four, load_piece(w, half), u);
        }
    }
}

#endif
