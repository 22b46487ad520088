/* accumulate_avx2.c: rows_accumulate for AVX2.
 *
 * F32, F16 and BF16 go the way of simd_accumulate.h. Quantized rows are multiplied as integers: rows are taken 32 at a
 * time from the first, columns in strips of 256, with a token's factors rounded to eight bits (factors_avx2.h). It is
 * what quantizing the activations is to rows_dot, over as many of them.
 *
 * The sums of a block are added up in words of 16 bits, two rows at a time. They wrap around, but the last one fits: 16
 * rows of up to 16 times 127, or (Q6_K, in two parts) 8 of 32; Q8_0 is two streams of four bits. So the integer sums
 * are exact, and one token alone and many get the same bits, though for one the weights go from memory to registers,
 * and for several they are unpacked once, interleaved so that a vector holds four rows of eight columns. There AVX-VNNI
 * adds up in 32 bits at once, Q8_0 as it is. For one token it does so of Q6_K and Q8_0; of other types bringing four
 * rows together costs what it would save. */
#if defined(__x86_64__)

#include "tensor/factors_avx2.h"

/* ---- rows of floats ---------------------------------------------------------------------------------------------- */

enum { ONE_UNITS = 2, MANY_UNITS = 1, TILE_TOKENS = 2 };

/* Columns of unit `unit` of the strip at `row`. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, vf *w)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < UNIT / VL; v++) {
        const size_t i = UNIT * unit + v * VL;
        w[v] = type == DTYPE_F32   ? v_load(row + 4 * i)
               : type == DTYPE_F16 ? v_load_f16(row + 2 * i)
                                   : v_load_bf16(row + 2 * i);
    }
}

#include "tensor/simd_accumulate.h"

/* ---- products ---------------------------------------------------------------------------------------------------- */

enum { STREAMS = 2, SEGMENTS = 2 };

/* The parts of a block's rows whose sums fit 16 bits. */
INLINE size_t word_segments(dtype type)
{
    return type == DTYPE_Q6_K ? SEGMENTS : 1;
}

INLINE size_t segment_end(const row_block *b, size_t segment, size_t segments)
{
    const size_t end = (segment + 1) * GROUPS / segments;
    return end < b->groups ? end : b->groups;
}

/* Eight columns from c on of a strip. */
INLINE void add_sums(dtype type, const factors *f, size_t c, vi sums, float *y)
{
    const size_t run = c * scaled_runs(type, 1) / UNIT;
    const vf out = v_fma(v_set1(f->beta[run]), _mm256_cvtepi32_ps(sums), v_load(y + c));
    v_store(y + c, has_min(type) ? v_add(out, v_set1(f->min[run])) : out);
}

/* ---- one token --------------------------------------------------------------------------------------------------- */

/* Rows 0 and 1 of a group for the lower half, 2 and 3 for the upper. */
INLINE vi spread(uint32_t four)
{
    const vi order = _mm256_setr_epi64x(0x0100010001000100, 0x0100010001000100, 0x0302030203020302, 0x0302030203020302);
    return _mm256_shuffle_epi8(_mm256_set1_epi32((int)four), order);
}

/* What the sums of the segments of a run begin with, to take the middle off: words as in a group's four factors. */
INLINE void run_starts(dtype type, const factors *f, size_t run, uint32_t *out)
{
    const vi q = _mm256_load_si256((const vi *)(const void *)f->q[run]);
    const vi words = words_multiply(_mm256_set1_epi8((char)middle(type)), q);
    const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    const __m128i pairs = _mm_add_epi16(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
    const __m128i halves = _mm_sub_epi16(_mm_setzero_si128(), _mm_add_epi16(pairs, _mm_srli_epi64(pairs, 32)));
    if (word_segments(type) == 1) {
        out[0] = (uint32_t)_mm_cvtsi128_si32(_mm_add_epi16(halves, _mm_unpackhi_epi64(halves, halves)));
    } else {
        out[0] = (uint32_t)_mm_cvtsi128_si32(halves);
        out[1] = (uint32_t)_mm_extract_epi32(halves, 2);
    }
}

/* Both halves of 16 words added up as eight integers. */
INLINE vi halves_sum(vi words)
{
    return _mm256_add_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(words)),
                            _mm256_cvtepi16_epi32(_mm256_extracti128_si256(words, 1)));
}

INLINE vi one_start(dtype type, size_t stream, uint32_t start)
{
    return stream == 0 && middle(type) ? spread(start) : _mm256_setzero_si256();
}

/* Unit u of a strip by twos of rows. */
INLINE void one_unit(dtype type, const row_block *b, const factors *f, size_t u, float *y)
{
    const size_t runs = scaled_runs(type, 1);
    vi sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    uint32_t starts[2][SEGMENTS] = {{0}};
    ask_piece(type, b, u);
    for (size_t r = 0; r < runs; r++) run_starts(type, f, runs * u + r, starts[r]);
#pragma GCC unroll 2
    for (size_t segment = 0, g = 0; segment < word_segments(type); segment++) {
        vi words[4][STREAMS];
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            for (size_t s = 0; s < word_streams(type); s++)
                words[k][s] = one_start(type, s, starts[runs == 2 ? k / 2 : 0][segment]);
        for (; g < segment_end(b, segment, word_segments(type)); g++) {
            const vi q0 = spread(f->q[runs * u][g]), q1 = runs == 2 ? spread(f->q[runs * u + 1][g]) : q0;
            vi w[4];
            group_unit(type, b, g, u, w);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++) {
                const vi q = k < 2 ? q0 : q1;
                if (type != DTYPE_Q8_0) {
                    words[k][0] = words_multiply_add(words[k][0], w[k], q);
                    continue;
                }
                const vi upwards = _mm256_xor_si256(w[k], _mm256_set1_epi8(-MIDDLE));
                words[k][0] = words_multiply_add(words[k][0], high_nibbles(upwards), q);
                words[k][1] = words_multiply_add(words[k][1], low_nibbles(upwards), q);
            }
        }
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            sums[k] = _mm256_add_epi32(sums[k], halves_sum(words[k][0]));
            if (type == DTYPE_Q8_0) sums[k] = _mm256_add_epi32(_mm256_slli_epi32(sums[k], 4), halves_sum(words[k][1]));
        }
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++) add_sums(type, f, u * UNIT + k * LANES, sums[k], y);
}

/* [8 columns][2 rows] in the lower half, of rows 2 and 3 in the upper: in order of columns and rows. */
INLINE vi four_rows(vi two_and_two)
{
    const vi columns = _mm256_permute4x64_epi64(two_and_two, _MM_SHUFFLE(3, 1, 2, 0));
    const __m128i rows = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    return _mm256_shuffle_epi8(columns, _mm256_broadcastsi128_si256(rows));
}

INLINE bool by_fours(dtype type)
{
    return VNNI && (type == DTYPE_Q6_K || type == DTYPE_Q8_0);
}

/* The same in every lane: what a run's sums begin with, to take off what made the weights unsigned. */
INLINE vi fours_start(dtype type, const factors *f, size_t run)
{
    const int off = type == DTYPE_Q8_0 ? MIDDLE : middle(type);
    const vi q = _mm256_load_si256((const vi *)(const void *)f->q[run]);
    const vi sums = sums_multiply_add(_mm256_setzero_si256(), _mm256_set1_epi8((char)off), q);
    const vi halves = _mm256_add_epi32(sums, _mm256_permute2x128_si256(sums, sums, 1));
    const vi pairs = _mm256_add_epi32(halves, _mm256_shuffle_epi32(halves, 0x4e));
    return sums_negative(_mm256_add_epi32(pairs, _mm256_shuffle_epi32(pairs, 0xb1)));
}

/* Unit u of a strip by fours of rows. */
INLINE void one_unit_fours(dtype type, const row_block *b, const factors *f, size_t u, float *y)
{
    const size_t run0 = scaled_runs(type, u), run1 = run0 + scaled_runs(type, 1) - 1;
    const vi start0 = fours_start(type, f, run0), start1 = fours_start(type, f, run1);
    vi sums[4] = {start0, start0, start1, start1};
    ask_piece(type, b, u);
    for (size_t g = 0; g < b->groups; g++) {
        const vi q0 = _mm256_set1_epi32((int)f->q[run0][g]), q1 = _mm256_set1_epi32((int)f->q[run1][g]);
        vi w[4];
        group_unit(type, b, g, u, w);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            sums[k] = sums_multiply_add(sums[k], from_offset(type, four_rows(w[k])), k < 2 ? q0 : q1);
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++) add_sums(type, f, u * UNIT + k * LANES, sums[k], y);
}

INLINE void one_token_unit(dtype type, const row_block *b, const factors *f, size_t u, float *y)
{
    if (by_fours(type))
        one_unit_fours(type, b, f, u, y);
    else
        one_unit(type, b, f, u, y);
}

INLINE void ints_one(dtype type, const row_block *b, const float *const *a, size_t j0, float *y)
{
    factors f;
    token_factors(type, 1, false, b, a, j0, &f);
    if (is_k(type)) { /* where in a block a unit's bits are must be known to the compiler */
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) one_token_unit(type, b, &f, u, y);
    } else {
        for (size_t u = 0; u < b->units; u++) one_token_unit(type, b, &f, u, y);
    }
}

/* ---- several tokens ---------------------------------------------------------------------------------------------- */

/* An unpacked block, signed. A piece is what meets a token's factors at a time: two vectors of [8 columns][4 rows], of
 * neighbouring columns, or both streams of the same. start: what makes up for factors from MIDDLE. */
typedef struct unpacked_ints {
    vi w[4 * STRIP_UNITS][GROUPS][2], start[4 * STRIP_UNITS][SEGMENTS][2];
} unpacked_ints;

INLINE size_t segments(dtype type)
{
    return VNNI ? 1 : word_segments(type);
}

INLINE int stream_middle(dtype type)
{
    return VNNI && type == DTYPE_Q8_0 ? 0 : middle(type);
}

INLINE size_t unit_pieces(dtype type)
{
    return 2 * streams(type);
}

INLINE void unpack_unit_ints(dtype type, const row_block *b, size_t u, unpacked_ints *out)
{
    const size_t pieces = unit_pieces(type);
    ask_piece(type, b, u);
#pragma GCC unroll 2
    for (size_t segment = 0, g = 0; segment < segments(type); segment++) {
        vi sums[4][STREAMS];
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            for (size_t s = 0; s < streams(type); s++) sums[k][s] = _mm256_setzero_si256();
        for (; g < segment_end(b, segment, segments(type)); g++) {
            vi w[4];
            group_unit(type, b, g, u, w);
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; k++) {
                const vi rows = four_rows(w[k]);
#pragma GCC unroll 2
                for (size_t s = 0; s < streams(type); s++) {
                    const size_t piece = pieces * u + k * pieces / 4, which = streams(type) == 2 ? s : k % 2;
                    const vi v = stream_of(type, s, rows, stream_middle(type));
                    out->w[piece][g][which] = v;
                    sums[k][s] = sums_multiply_add(sums[k][s], _mm256_set1_epi8(-MIDDLE), v); /* 128 as unsigned */
                }
            }
        }
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
#pragma GCC unroll 2
            for (size_t s = 0; s < streams(type); s++)
                out->start[pieces * u + k * pieces / 4][segment][streams(type) == 2 ? s : k % 2] =
                    sums_negative(sums[k][s]);
    }
}

INLINE void unpack_ints(dtype type, const row_block *b, unpacked_ints *out)
{
    if (is_k(type)) {
#pragma GCC unroll 8
        for (size_t u = 0; u < STRIP_UNITS; u++) unpack_unit_ints(type, b, u, out);
    } else {
        for (size_t u = 0; u < b->units; u++) unpack_unit_ints(type, b, u, out);
    }
}

/* A piece for T tokens: sums of 16 columns, or of eight. */
INLINE void piece_tokens(dtype type, size_t T, const row_block *b, const unpacked_ints *in, const factors *f,
                         size_t piece, float *const *y)
{
    const size_t columns = UNIT / unit_pieces(type), run = piece * columns * scaled_runs(type, 1) / UNIT;
    vi sums[FACTOR_TOKENS][2];
#pragma GCC unroll 2
    for (size_t segment = 0, g = 0; segment < segments(type); segment++) {
        vi words[FACTOR_TOKENS][2];
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) words[i / 2][i % 2] = in->start[piece][segment][i % 2];
        for (; g < segment_end(b, segment, segments(type)); g++) {
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++) {
                const vi q = _mm256_set1_epi32((int)f[t].q[run][g]);
                words[t][0] = sums_multiply_add(words[t][0], q, in->w[piece][g][0]);
                words[t][1] = sums_multiply_add(words[t][1], q, in->w[piece][g][1]);
            }
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < 2 * T; i++) {
            const vi sum = sums_ints(words[i / 2][i % 2]);
            sums[i / 2][i % 2] = segment ? _mm256_add_epi32(sums[i / 2][i % 2], sum) : sum;
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
        if (streams(type) == 2) {
            const vi both = _mm256_add_epi32(_mm256_slli_epi32(sums[t][0], 4), sums[t][1]);
            add_sums(type, &f[t], piece * columns, both, y[t]);
            continue;
        }
        add_sums(type, &f[t], piece * columns, sums[t][0], y[t]);
        add_sums(type, &f[t], piece * columns + LANES, sums[t][1], y[t]);
    }
}

/* T tokens from t on. */
INLINE void ints_few(dtype type, size_t T, const accumulate_args *args, const row_block *b, const unpacked_ints *w,
                     size_t t, size_t j0, size_t c0)
{
    factors f[FACTOR_TOKENS];
    float *y[FACTOR_TOKENS];
#pragma GCC unroll 4
    for (size_t i = 0; i < T; i++) y[i] = args->y[t + i] + c0;
    token_factors(type, T, true, b, args->a + t, j0, f);
    for (size_t piece = 0; piece < unit_pieces(type) * b->units; piece++) piece_tokens(type, T, b, w, f, piece, y);
}

INLINE void ints_many(dtype type, const accumulate_args *args, const row_block *b, size_t j0, size_t c0)
{
    unpacked_ints w;
    unpack_ints(type, b, &w);
    for (size_t t = 0, T; t < args->tokens; t += T) {
        T = tokens_together(args->tokens - t); /* of two or more */
        switch (T) {
        case FACTOR_TOKENS:
            ints_few(type, FACTOR_TOKENS, args, b, &w, t, j0, c0);
            break;
        case 3:
            ints_few(type, 3, args, b, &w, t, j0, c0);
            break;
        default:
            ints_few(type, 2, args, b, &w, t, j0, c0);
        }
    }
}

INLINE void ints_run(dtype type, const accumulate_args *args)
{
    for (size_t strip = 0; strip < args->tiles * tile_strips(args); strip++) {
        const size_t c = strip_column(args, strip);
        for (size_t j = 0; j < args->rows; j += BLOCK_ROWS) {
            row_block b;
            block_begin(type, args, j, strip, &b);
            if (args->tokens == 1)
                ints_one(type, &b, args->a, j, args->y[0] + c);
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

void OF_ISA(rows_accumulate)(dtype type, size_t width, size_t tiles, const void *r, size_t r_stride, size_t rows,
                             const float *const *a, float *const *y, size_t tokens, const void *next)
{
    const accumulate_args args = {width, tiles, r_stride, rows, r, a, y, tokens, next};
    run_type(type, &args);
}

#endif
