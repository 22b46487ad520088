/* accumulate_avx512.c: rows_accumulate for AVX-512 with VNNI and VBMI.
 *
 * F32, F16 and BF16 go the way of simd_accumulate.h. Quantized rows are multiplied as integers: rows are taken 32 at a
 * time from the first, columns in strips of 256, and for a token and a run of columns with one scale (32, Q6_K 16)
 *
 *     f_j = a_j scale_j;  beta = max |f_j| / 127;  q_j = round(f_j / beta)
 *     y[c] = fma(beta, sum_j q_j w_jc, y[c]) + sum_j a_j min_j
 *
 * w being the stored integers less the middle of their range, which min_j makes up for: small errors of q_j then meet
 * small integers. It is what quantizing the activations is to rows_dot, over as many of them.
 * The integer sums are exact, so one token alone and many get the same bits, though for one the weights go from memory
 * to registers, and for several they are unpacked once, interleaved so that a vector holds four rows of 16 columns. */
#if defined(__x86_64__)

#include "tensor/quads_avx512.h"

#include "tensor/accumulate.h"

/* ---- rows of floats --------------------------------------------------------------------------------------------- */

enum { ONE_UNITS = 8, MANY_UNITS = 2, TILE_TOKENS = 4 };

/* Columns of unit `unit` of the strip at `row`. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, const float (*s)[16], size_t j, vf *w)
{
    (void)s, (void)j;
    row += block_bytes(type) * UNIT * unit;
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        if (type == DTYPE_F32)
            w[i] = v_load(row + 64 * i);
        else
            w[i] = type == DTYPE_F16 ? v_load_f16(row + 32 * i) : v_load_bf16(row + 32 * i);
    }
}

INLINE void decode_q4_k(const uint8_t *block, float *out)
{
    v_store(out, q4_k_factors(block));
}

INLINE void decode_q6_k(const uint8_t *block, float *out)
{
    v_store(out, v_mul(v_load_i8(block + Q6_K_SCALES), broadcast_f16(block + Q6_K_D)));
}

#include "tensor/simd_accumulate.h"

/* ---- a block of quantized rows ---------------------------------------------------------------------------------- */

enum { GROUP = 4, BLOCK_ROWS = 32, GROUPS = BLOCK_ROWS / GROUP, HALVES = STRIP / VL };

/* Runs with a scale of their own in a strip. */
INLINE size_t strip_runs(dtype type)
{
    return type == DTYPE_Q6_K ? 16 : 8;
}

INLINE size_t run_of(dtype type, size_t half)
{
    return type == DTYPE_Q6_K ? half : half / 2;
}

/* What is taken off the stored integers. */
INLINE int centre(dtype type)
{
    if (!has_min(type)) return run_offset(type);
    return type == DTYPE_Q4_1 || type == DTYPE_Q4_K ? 8 : 16;
}

/* Rows of a strip; what fills the last group up to four is zero. s, m: [row][run]. */
typedef struct row_block {
    const uint8_t *w, *next; /* next: the rows after these, or what is read after all of them, or NULL */
    size_t stride, rows, groups, units;
    float s[BLOCK_ROWS * 16], m[BLOCK_ROWS * 8];
    uint8_t last[GROUP][STRIP_UNITS * Q8_0_BYTES];
} __attribute__((aligned(64))) row_block;

INLINE void set_row_scales(dtype type, __m256 s, __m256 m, size_t j, row_block *b)
{
    _mm256_storeu_ps(b->s + j * 8, s);
    if (has_min(type)) _mm256_storeu_ps(b->m + j * 8, _mm256_fmadd_ps(s, _mm256_set1_ps((float)centre(type)), m));
}

INLINE __m256 eight_halves(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE void load_row_scales(dtype type, const uint8_t *row, size_t units, size_t j, row_block *b)
{
    if (type == DTYPE_Q6_K) {
        decode_q6_k(row, b->s + j * 16);
        return;
    }
    if (is_k(type)) {
        const vf both = q4_k_factors(row);
        set_row_scales(type, _mm512_castps512_ps256(both), upper(both), j, b);
        return;
    }
    if (type == DTYPE_Q4_0 && units == STRIP_UNITS) {
        set_row_scales(type, _mm256_cvtph_ps(q4_0_chunk_scales(row)), _mm256_setzero_ps(), j, b);
        return;
    }
    uint16_t d[8] = {0}, m[8] = {0};
    for (size_t u = 0; u < units; u++) {
        d[u] = load_u16(row + u * block_bytes(type));
        if (has_min(type)) m[u] = load_u16(row + u * block_bytes(type) + 2);
    }
    set_row_scales(type, eight_halves(d), eight_halves(m), j, b);
}

/* Rows j0 .. and columns c0 .. of the call. */
INLINE void block_begin(dtype type, const accumulate_args *args, size_t j0, size_t c0, row_block *b)
{
    const uint8_t *w = args->r + j0 * args->stride + c0 / STRIP * chunk_bytes(type);
    const size_t left = args->rows - j0, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS, stride = args->stride;
    const size_t columns = (args->width - c0) / UNIT, units = columns < STRIP_UNITS ? columns : STRIP_UNITS;
    const size_t whole = rows / GROUP * GROUP;
    b->w = w, b->stride = stride, b->rows = rows, b->units = units;
    b->next = left > BLOCK_ROWS ? w + BLOCK_ROWS * stride : args->next;
    b->groups = (rows + GROUP - 1) / GROUP;
    for (size_t j = 0; j < rows; j++) {
        if (units == STRIP_UNITS)
            load_row_scales(type, w + j * stride, STRIP_UNITS, j, b);
        else
            load_row_scales(type, w + j * stride, units, j, b);
    }
    if (whole == rows) return;
    memset(b->last, 0, sizeof b->last);
    for (size_t j = whole; j < rows; j++)
        memcpy(b->last[j - whole], w + j * stride, is_k(type) ? block_bytes(type) : units * block_bytes(type));
    for (size_t j = rows; j < b->groups * GROUP; j++) {
        memset(b->s + j * strip_runs(type), 0, strip_runs(type) * sizeof *b->s);
        if (has_min(type)) memset(b->m + j * 8, 0, 8 * sizeof *b->m);
    }
}

/* Columns of unit u of four rows: two vectors of [16 columns][4 rows]. */
INLINE void unit_weights(dtype type, const row_block *b, size_t g, size_t u, vi *out)
{
    const bool whole = (g + 1) * GROUP <= b->rows;
    const uint8_t *w = whole ? b->w + g * GROUP * b->stride : b->last[0];
    vi quad[2];
    quad_run(type, w, whole ? b->stride : sizeof b->last[0], u, quad);
    out[0] = interleave_bytes(quad[0]);
    out[1] = interleave_bytes(quad[1]);
}

/* ---- a token's factors ------------------------------------------------------------------------------------------ */

/* q: [group][run], four rows in a word; start: what makes up for unsigned weights; min: sum_j a_j min_j. */
typedef struct factors {
    uint32_t q[GROUPS * 16];
    int32_t start[16];
    float beta[16], min[16];
} __attribute__((aligned(64))) factors;

/* The factor of the rows in vector v of [row][run]. */
INLINE vf row_factors(size_t runs, const float *a, size_t v)
{
    if (runs == 16) return v_set1(a[v]);
    return _mm512_insertf32x8(v_set1(a[2 * v]), _mm256_set1_ps(a[2 * v + 1]), 1);
}

/* [8 rows][8 runs] bytes into [2 groups][8 runs][4 rows]. */
INLINE vi group_rows(vi bytes)
{
    const __m128i four = _mm_setr_epi8(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
    const vi step = _mm512_setr_epi64(0, 0, 0x0404040404040404, 0x0404040404040404, 0x2020202020202020,
                                      0x2020202020202020, 0x2424242424242424, 0x2424242424242424);
    return _mm512_permutexvar_epi8(_mm512_add_epi8(_mm512_broadcast_i32x4(four), step), bytes);
}

INLINE vi swap_halves(vi v)
{
    return _mm512_shuffle_i64x2(v, v, 0x4e);
}

/* Every lane the largest magnitude of its run, as integers: NaN is largest of all. */
INLINE vf largest_factors(size_t runs, const row_block *b, const float *a)
{
    const vi magnitude = _mm512_set1_epi32(0x7fffffff);
    vi most = _mm512_setzero_si512();
    for (size_t v = 0; v < b->groups * runs / GROUP; v++) {
        const vf f = v_mul(v_load(b->s + v * VL), row_factors(runs, a, v));
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(f), magnitude));
    }
    return _mm512_castsi512_ps(runs == 16 ? most : _mm512_max_epi32(most, swap_halves(most)));
}

INLINE __m128i factor_bytes(size_t runs, const row_block *b, const float *a, vf inverse, size_t v)
{
    const vf f = v_mul(v_load(b->s + v * VL), row_factors(runs, a, v));
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v_mul(f, inverse)));
}

INLINE void quantize_factors(size_t runs, const row_block *b, const float *a, vf inverse, factors *out)
{
    const size_t vectors = b->groups * runs / GROUP;
    for (size_t v = 0; v < vectors; v += 4) {
        vi in = _mm512_castsi128_si512(factor_bytes(runs, b, a, inverse, v));
        in = _mm512_inserti32x4(in, factor_bytes(runs, b, a, inverse, v + 1), 1);
        if (v + 2 < vectors) {
            in = _mm512_inserti32x4(in, factor_bytes(runs, b, a, inverse, v + 2), 2);
            in = _mm512_inserti32x4(in, factor_bytes(runs, b, a, inverse, v + 3), 3);
        } else {
            in = _mm512_zextsi256_si512(_mm512_castsi512_si256(in));
        }
        _mm512_store_si512(out->q + 4 * v, runs == 16 ? interleave_bytes(in) : group_rows(in));
    }
}

INLINE void token_factors(dtype type, const row_block *b, const float *token, factors *out)
{
    const size_t runs = strip_runs(type), vectors = b->groups * runs / GROUP;
    float a[BLOCK_ROWS] = {0};
    memcpy(a, token, b->rows * sizeof *a);
    const vf most = largest_factors(runs, b, a), tiny = v_set1(ACT_TINY);
    const __mmask16 zero = _mm512_cmp_ps_mask(most, tiny, _CMP_LE_OQ),
                    normal = _mm512_cmp_ps_mask(most, tiny, _CMP_GT_OQ);
    v_store(out->beta, _mm512_mask_mov_ps(v_mul(most, v_set1(1.0f / 127)), zero, v_zero()));
    quantize_factors(runs, b, a, _mm512_maskz_div_ps(normal, v_set1(127), most), out);
    vi sums = _mm512_setzero_si512();
    for (size_t z = 0; z < (vectors + 3) / 4; z++)
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_load_si512(out->q + 16 * z));
    if (runs == 8) sums = _mm512_add_epi32(sums, swap_halves(sums));
    _mm512_store_si512(out->start, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-centre(type))));
    if (!has_min(type)) return;
    vf mins = v_zero();
    for (size_t v = 0; v < vectors; v++) mins = v_fma(v_load(b->m + v * VL), row_factors(runs, a, v), mins);
    v_store(out->min, v_add(mins, _mm512_shuffle_f32x4(mins, mins, 0x4e)));
}

/* ---- products --------------------------------------------------------------------------------------------------- */

INLINE vi first_sum(dtype type, const factors *f, size_t half)
{
    return _mm512_set1_epi32(f->start[run_of(type, half)]);
}

INLINE void add_sum(dtype type, const factors *f, size_t half, vi sum, float *y)
{
    const size_t run = run_of(type, half);
    const vf out = v_fma(v_set1(f->beta[run]), _mm512_cvtepi32_ps(sum), v_load(y + half * VL));
    v_store(y + half * VL, has_min(type) ? v_add(out, v_set1(f->min[run])) : out);
}

INLINE vi add_rows(dtype type, const factors *f, size_t g, size_t half, vi w, vi sum)
{
    return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32((int)f->q[g * strip_runs(type) + run_of(type, half)]));
}

/* Asks for group g of what is read after this block. */
INLINE void ask_group(dtype type, const row_block *b, size_t g)
{
    if (!b->next) return;
    const size_t bytes = is_k(type) ? chunk_bytes(type) : b->units * block_bytes(type);
    for (size_t j = g * GROUP; j < (g + 1) * GROUP; j++)
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(b->next + j * b->stride + at, 0, 2);
}

/* One token over a whole strip: 16 vectors of sums stay in registers. */
INLINE void ints_one(dtype type, const row_block *b, const float *a, float *y)
{
    factors f;
    vi sums[HALVES];
    token_factors(type, b, a, &f);
#pragma GCC unroll 16
    for (size_t h = 0; h < HALVES; h++) sums[h] = first_sum(type, &f, h);
    for (size_t g = 0; g < b->groups; g++) {
        ask_group(type, b, g);
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) {
            vi w[2];
            unit_weights(type, b, g, u, w);
            sums[2 * u] = add_rows(type, &f, g, 2 * u, w[0], sums[2 * u]);
            sums[2 * u + 1] = add_rows(type, &f, g, 2 * u + 1, w[1], sums[2 * u + 1]);
        }
    }
#pragma GCC unroll 16
    for (size_t h = 0; h < HALVES; h++) add_sum(type, &f, h, sums[h], y);
}

/* An unpacked block: [16 columns][4 rows] bytes. */
typedef struct unpacked_ints {
    vi w[STRIP_UNITS][GROUPS][2];
} unpacked_ints;

INLINE void unpack_ints(dtype type, const row_block *b, unpacked_ints *out)
{
    for (size_t g = 0; g < b->groups; g++) {
        ask_group(type, b, g);
        if (b->units == STRIP_UNITS) {
#pragma GCC unroll 8
            for (size_t u = 0; u < STRIP_UNITS; u++) unit_weights(type, b, g, u, out->w[u][g]);
        } else {
            for (size_t u = 0; u < b->units; u++) unit_weights(type, b, g, u, out->w[u][g]);
        }
    }
}

INLINE void ints_tokens(dtype type, size_t T, const row_block *b, const unpacked_ints *in, const factors *f,
                        float *const *y)
{
    for (size_t u = 0; u < b->units; u++) {
        vi sums[TILE_TOKENS][2];
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) sums[i / 2][i % 2] = first_sum(type, &f[i / 2], 2 * u + i % 2);
        for (size_t g = 0; g < b->groups; g++) {
#pragma GCC unroll 8
            for (size_t i = 0; i < 2 * T; i++)
                sums[i / 2][i % 2] =
                    add_rows(type, &f[i / 2], g, 2 * u + i % 2, in->w[u][g][i % 2], sums[i / 2][i % 2]);
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) add_sum(type, &f[i / 2], 2 * u + i % 2, sums[i / 2][i % 2], y[i / 2]);
    }
}

INLINE void ints_many(dtype type, const accumulate_args *args, const row_block *b, size_t j0, size_t c0)
{
    unpacked_ints w;
    unpack_ints(type, b, &w);
    for (size_t t = 0; t < args->tokens; t += TILE_TOKENS) {
        factors f[TILE_TOKENS];
        float *y[TILE_TOKENS];
        const size_t left = args->tokens - t, count = left < TILE_TOKENS ? left : TILE_TOKENS;
        for (size_t i = 0; i < count; i++) {
            token_factors(type, b, args->a[t + i] + j0, &f[i]);
            y[i] = args->y[t + i] + c0;
        }
        if (count == TILE_TOKENS)
            ints_tokens(type, TILE_TOKENS, b, &w, f, y);
        else
            for (size_t i = 0; i < count; i++) ints_tokens(type, 1, b, &w, &f[i], &y[i]);
    }
}

INLINE void ints_run(dtype type, const accumulate_args *args)
{
    for (size_t c = 0; c < args->width; c += STRIP) {
        for (size_t j = 0; j < args->rows; j += BLOCK_ROWS) {
            row_block b;
            block_begin(type, args, j, c, &b);
            if (args->tokens == 1 && b.units == STRIP_UNITS)
                ints_one(type, &b, args->a[0] + j, args->y[0] + c);
            else
                ints_many(type, args, &b, j, c);
        }
    }
}

INLINE void run(dtype type, const accumulate_args *args)
{
    if (type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16)
        float_run(type, args);
    else
        ints_run(type, args);
}

void rows_accumulate_avx512(dtype type, size_t width, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens, const void *next)
{
    const accumulate_args args = {width, r_stride, rows, r, a, y, tokens, next};
    run_type(type, &args);
}

#endif
