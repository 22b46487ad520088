/* dot_avx512.c: rows_dot and the quantizer of its activations for AVX-512 with VNNI and VBMI.
 *
 * vpdpbusd multiplies unsigned bytes (weights) by signed ones (activations) and adds groups of four into 32 bits. The
 * lanes of a vector of sums are 16 rows (lanes_avx512.h), so that scales are one multiplication for 16 x 32 products.
 * There are two ways to the same bits: quads for few tokens (dot_few_avx512.h), panels for many (dot_panel_avx512.h).
 */
#if defined(__x86_64__)

#include "tensor/quads_avx512.h"

enum { TILE_TOKENS = 4 };
#include "tensor/simd_dot_float.h"

#include "tensor/dot_few_avx512.h"
#include "tensor/dot_panel_avx512.h"

/* From this many tokens on a panel pays: of Q4_0, which unpacks fastest, later than of the others. */
INLINE size_t panel_from(dtype type)
{
    return type == DTYPE_Q4_0 ? 6 : 5;
}

/* Rows r and on for one token: 16 at a time, then fours, the last of which overlaps those before. Fewer than four in
 * all are each four times the same. */
INLINE void remaining_rows(dtype type, const dot_args *a, size_t r, size_t t)
{
    while (r < a->rows) {
        const size_t left = a->rows - r, whole = left < LANES ? left / 4 * 4 : LANES;
        const size_t first = whole == 0 && a->rows > 4 ? a->rows - 4 : r;
        float lanes[4], *same = lanes;
        const dot_args alone = {a->n, a->w + r * a->w_stride, 0, 4, a->x + t, &same, a->next};
        const bool few = a->rows < 4;
        one_token(type, few ? &alone : a, few ? 0 : first, whole == 0 ? 4 : whole, few ? 0 : t);
        if (few) a->out[t][r] = lanes[0];
        r = few ? r + 1 : first + (whole == 0 ? 4 : whole);
    }
}

INLINE void run(dtype type, const dot_args *a, size_t tokens)
{
    const size_t whole = a->rows / LANES * LANES;
    if (tokens >= panel_from(type) && a->rows >= PANEL_ROWS) {
        for (size_t t = 0; t < tokens; t += PANEL_PASS)
            panels(type, false, a, t, tokens - t < PANEL_PASS ? tokens - t : PANEL_PASS);
        return;
    }
    size_t together = 0; /* tokens that share the unpacking of whole groups of rows */
    for (; together + 4 <= tokens; together += 4)
        for (size_t r = 0; r < whole; r += LANES) direct(type, 4, a, r, together);
    for (; together + 2 <= tokens; together += 2)
        for (size_t r = 0; r < whole; r += LANES) direct(type, 2, a, r, together);
    for (size_t t = 0; t < tokens; t++) remaining_rows(type, a, t < together ? whole : 0, t);
}

void rows_dot_avx512(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                     float *const *out, size_t tokens, const void *next)
{
    const dot_args a = {n, w, w_stride, rows, x, out, next ? next : w};
    if (dtype_is_r16(type))
        rows16_dot_avx512(type, &a, tokens);
    else
        run_type(type, &a, tokens);
}

void quantize_act_avx512(const float *x, size_t n, void *out)
{
    uint8_t *quants = out, *scales = quants + n, *sums = scales + n / 8, *half_sums = sums + n / 8;
    for (size_t i = 0; i < n; i += ACT_BLOCK, scales += 4, sums += 4, half_sums += 8) {
        const vf lo = v_load(x + i), hi = v_load(x + i + VL);
        const vi bits = _mm512_max_epi32(magnitude(lo), magnitude(hi));
        const int top = _mm512_reduce_max_epi32(bits); /* as integers NaN is largest of all */
        float largest;
        memcpy(&largest, &top, sizeof largest);
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        const vf inverse = v_set1(largest > ACT_TINY ? 127.0f / largest : 0.0f);
        const vi q0 = _mm512_cvtps_epi32(v_mul(lo, inverse)), q1 = _mm512_cvtps_epi32(v_mul(hi, inverse));
        const int sum0 = _mm512_reduce_add_epi32(q0), sum1 = _mm512_reduce_add_epi32(q1);
        const float sum = scale * (float)(sum0 + sum1);
        const int32_t halves[2] = {sum0, sum1};
        _mm_storeu_si128((__m128i *)(quants + i), _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(quants + i + VL), _mm512_cvtepi32_epi8(q1));
        memcpy(scales, &scale, sizeof scale);
        memcpy(sums, &sum, sizeof sum);
        memcpy(half_sums, halves, sizeof halves);
    }
}

#endif
