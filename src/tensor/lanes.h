/* lanes.h: rows in the lanes of a vector, for the integer products of rows_dot, written once over the names of
 * lanes_<isa>.h: tokens, and how a run's integers are added to an output.
 *
 *     sum = 0; for every run of 32 elements (Q6_K: 16), ascending:
 *         sum = fma(int_dot, wscale * xscale, sum)
 *         with a min: sum = fma(wmin, xscale * (sum of the run's quants), sum)
 *
 * int_dot is exact. So an output's bits depend on its row and token alone, whatever way its integers were found.
 *
 * lanes_<isa>.h provides: LANES, vi, v_ints(), raw_scales and raw_load_lane(). */
#include "tensor/runs.h"

/* Where a quantized activation's planes are (kernels_impl.h). */
typedef struct token {
    const uint8_t *quants, *scales, *sums, *half_sums;
} token;

INLINE token token_at(const void *x, size_t n, size_t at)
{
    return (token){(const uint8_t *)act_quants(x) + at, act_scales(x, n) + at / 8, act_sums(x, n) + at / 8,
                   act_half_sums(x, n) + at / 4};
}

/* Of `left` tokens so many go together, four at most. None is left alone beside others: it would take as long as two.
 */
INLINE size_t tokens_together(size_t left)
{
    return left == 5 ? 3 : left < 4 ? left : 4;
}

INLINE vf broadcast_f32(const uint8_t *p)
{
    return v_set1(load_f32(p));
}

/* One row for every lane: s[run][lane], Q6_K two runs of 16 for each of 32. */
typedef struct run_scales {
    float s[2 * CHUNK_RUNS][LANES], m[CHUNK_RUNS][LANES];
} __attribute__((aligned(LANES * sizeof(float)))) run_scales;

/* As many rows as there are lanes. */
INLINE void raw_load(dtype type, const uint8_t *w, size_t stride, size_t runs, raw_scales *raw)
{
    for (size_t r = 0; r < LANES; r++) {
        if (runs == CHUNK_RUNS)
            raw_load_lane(type, w + r * stride, CHUNK_RUNS, r, raw);
        else
            raw_load_lane(type, w + r * stride, runs, r, raw);
    }
}

/* Scaled run i of one token, whose products are `dot`. */
INLINE vf add_run(dtype type, const run_scales *s, size_t i, const token *x, vi dot, vf sum)
{
    const size_t run = type == DTYPE_Q6_K ? i / 2 : i;
    const vf scale = v_mul(v_load(s->s[i]), broadcast_f32(x->scales + run * sizeof(float)));
    sum = v_fma(v_ints(dot), scale, sum);
    return has_min(type) ? v_fma(v_load(s->m[i]), broadcast_f32(x->sums + i * sizeof(float)), sum) : sum;
}
