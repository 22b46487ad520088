/* simd_accumulate.h: rows_accumulate, written once over the names of simd_<isa>.h and the unpackers of
 * accumulate_<isa>.c.
 *
 * The columns are taken in strips of 256, a strip in units of 32 (a block, or a run or two of a larger one), the rows
 * in tiles of 16. For a tile the rows' scales are decoded first. Then one token:  up to ONE_UNITS units of sums stay in
 * registers; every vector of weights is unpacked and added at once; several:    the tile is unpacked once into 16 KiB
 * on the stack (level-1 cache), then passed over by groups of TILE_TOKENS tokens, whose sums for MANY_UNITS units stay
 * in registers. Either way an element gets one operation a row, rows ascending:
 *
 *     y[c] = fma(a_j * factor, q, y[c])      Q8_0, Q4_0, Q5_0, Q6_K: q small integers, the factor goes to the token
 *     y[c] = fma(a_j, w, y[c])               the others: w the weight itself
 *
 * so its bits depend on the rows and the token alone. Columns after the last whole unit (F32, F16, BF16 only) are done
 * one by one with the same operation.
 *
 * accumulate_<isa>.c provides: ONE_UNITS, MANY_UNITS, TILE_TOKENS, unit_load(), and the decoding of scales. */
#include <assert.h>
#include <math.h>

enum { UNIT_VECTORS = UNIT / VL };

/* Scales inside the factor of a token: one or two runs a unit, or none. */
INLINE size_t runs_of(dtype type)
{
    return type == DTYPE_Q6_K ? 2 : type == DTYPE_Q4_0 || type == DTYPE_Q5_0 || type == DTYPE_Q8_0 ? 1 : 0;
}

INLINE size_t block_columns(dtype type)
{
    if (type == DTYPE_Q4_K || type == DTYPE_Q5_K || type == DTYPE_Q6_K) return STRIP;
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16 ? 1 : UNIT;
}

INLINE size_t strip_bytes(dtype type)
{
    return STRIP / block_columns(type) * block_bytes(type);
}

/* A tile of rows in one strip. */
typedef struct tile {
    const uint8_t *w, *next; /* next: the rows after these, NULL where unknown */
    size_t stride, rows, units;
} tile;

INLINE void decode_tile(dtype type, const tile *in, float (*s)[16])
{
    if (block_columns(type) == UNIT) {
        for (size_t u = 0; u < in->units; u++) {
            const uint8_t *block = in->w + u * block_bytes(type);
            f16_column(block, in->stride, in->rows, s[u]);
            if (!runs_of(type)) f16_column(block + 2, in->stride, in->rows, s[STRIP_UNITS + u]);
        }
    } else if (type == DTYPE_Q4_K || type == DTYPE_Q5_K) {
        for (size_t j = 0; j < in->rows; j++) decode_q4_k(in->w + j * in->stride, s[j]);
    } else if (type == DTYPE_Q6_K) {
        for (size_t j = 0; j < in->rows; j++) decode_q6_k(in->w + j * in->stride, s[j]);
    }
}

/* What a token multiplies the rows of a tile with: one run of [0][row] where the type keeps its scales to itself; else
 * a times the decoded scales, in their order. */
typedef struct token_scales {
    float v[16][16];
} token_scales;

INLINE void scale_token(dtype type, const tile *in, const float (*s)[16], const float *a, token_scales *out)
{
    float padded[TILE_ROWS] = {0};
    memcpy(padded, a, in->rows * sizeof *a);
    if (!runs_of(type)) {
        memcpy(out->v[0], padded, sizeof padded);
        return;
    }
    for (size_t i = 0; i < (type == DTYPE_Q6_K ? in->rows : in->units); i++) {
#pragma GCC unroll 2
        for (size_t j = 0; j < 16; j += VL) {
            const vf factor = type == DTYPE_Q6_K ? v_set1(padded[i]) : v_load(padded + j);
            v_store(out->v[i] + j, v_mul(v_load(s[i] + j), factor));
        }
    }
}

/* The factor of row j for vector v of unit u. */
INLINE vf factor_at(size_t runs, const token_scales *a, size_t u, size_t v, size_t j)
{
    if (runs == 2) return v_set1(a->v[j][2 * u + 2 * v / UNIT_VECTORS]);
    return v_set1(a->v[runs * u][j]);
}

/* The same piece of the row a tile later. */
INLINE void ask_ahead(dtype type, const tile *in, size_t j)
{
    if (!in->next) return;
    const uint8_t *row = in->next + j * in->stride;
    const size_t bytes = in->units * strip_bytes(type) / STRIP_UNITS;
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
}

/* One token, units u0 .. u0 + U of the strip. */
INLINE void accumulate_one(dtype type, size_t U, size_t u0, const tile *in, const float (*s)[16], const token_scales *a,
                           float *y)
{
    vf sums[ONE_UNITS * UNIT_VECTORS];
    y += u0 * UNIT;
#pragma GCC unroll 16
    for (size_t v = 0; v < U * UNIT_VECTORS; v++) sums[v] = v_load(y + v * VL);
    for (size_t j = 0; j < in->rows; j++) {
        if (u0 == 0) ask_ahead(type, in, j);
#pragma GCC unroll 8
        for (size_t u = 0; u < U; u++) {
            vf w[UNIT_VECTORS];
            unit_load(type, in->w + j * in->stride, u0 + u, s, j, w);
#pragma GCC unroll 4
            for (size_t v = 0; v < UNIT_VECTORS; v++) {
                vf *sum = &sums[u * UNIT_VECTORS + v];
                *sum = v_fma(factor_at(runs_of(type), a, u0 + u, v, j), w[v], *sum);
            }
        }
    }
#pragma GCC unroll 16
    for (size_t v = 0; v < U * UNIT_VECTORS; v++) v_store(y + v * VL, sums[v]);
}

INLINE void tile_one(dtype type, const tile *in, const float (*s)[16], const float *a, float *y)
{
    token_scales scaled;
    scale_token(type, in, s, a, &scaled);
    size_t u = 0;
    if (in->units == STRIP_UNITS) { /* the common case, with constant unit numbers */
#pragma GCC unroll 4
        for (; u < STRIP_UNITS; u += ONE_UNITS) accumulate_one(type, ONE_UNITS, u, in, s, &scaled, y);
    }
    for (; ONE_UNITS >= 4 && u + 4 <= in->units; u += 4) accumulate_one(type, 4, u, in, s, &scaled, y);
    for (; u + 2 <= in->units; u += 2) accumulate_one(type, 2, u, in, s, &scaled, y);
    for (; u < in->units; u++) accumulate_one(type, 1, u, in, s, &scaled, y);
}

/* An unpacked tile: [row][column] */
typedef struct unpacked {
    float w[TILE_ROWS][STRIP];
} unpacked;

INLINE void unpack_unit(dtype type, size_t u, const tile *in, const float (*s)[16], size_t j, unpacked *out)
{
    vf w[UNIT_VECTORS];
    unit_load(type, in->w + j * in->stride, u, s, j, w);
#pragma GCC unroll 4
    for (size_t v = 0; v < UNIT_VECTORS; v++) v_store(out->w[j] + u * UNIT + v * VL, w[v]);
}

INLINE void unpack_tile(dtype type, const tile *in, const float (*s)[16], unpacked *out)
{
    for (size_t j = 0; j < in->rows; j++) {
        if (in->units == STRIP_UNITS) {
#pragma GCC unroll 8
            for (size_t u = 0; u < STRIP_UNITS; u++) unpack_unit(type, u, in, s, j, out);
        } else {
            for (size_t u = 0; u < in->units; u++) unpack_unit(type, u, in, s, j, out);
        }
    }
}

/* T tokens, U units from u0, of an unpacked tile. */
INLINE void accumulate_many(size_t runs, size_t T, size_t U, size_t u0, size_t rows, const unpacked *in,
                            const token_scales *a, float *const *y)
{
    vf sums[TILE_TOKENS][MANY_UNITS * UNIT_VECTORS];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < U * UNIT_VECTORS; v++) sums[t][v] = v_load(y[t] + u0 * UNIT + v * VL);
    }
    for (size_t j = 0; j < rows; j++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < U * UNIT_VECTORS; v++) {
            const vf w = v_load(in->w[j] + u0 * UNIT + v * VL);
            const size_t unit = u0 + v / UNIT_VECTORS;
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++)
                sums[t][v] = v_fma(factor_at(runs, &a[t], unit, v % UNIT_VECTORS, j), w, sums[t][v]);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < U * UNIT_VECTORS; v++) v_store(y[t] + u0 * UNIT + v * VL, sums[t][v]);
    }
}

INLINE void tokens_many(size_t runs, size_t T, size_t units, size_t rows, const unpacked *in, const token_scales *a,
                        float *const *y)
{
    size_t u = 0;
    for (; u + MANY_UNITS <= units; u += MANY_UNITS) accumulate_many(runs, T, MANY_UNITS, u, rows, in, a, y);
    for (; u < units; u++) accumulate_many(runs, T, 1, u, rows, in, a, y);
}

/* ---- all strips, tiles, tokens --------------------------------------------------------------------------------- */

INLINE void tile_many(dtype type, const accumulate_args *args, const tile *in, const float (*s)[16], size_t j0,
                      size_t c0)
{
    unpacked w;
    unpack_tile(type, in, s, &w);
    for (size_t t = 0; t < args->tokens; t += TILE_TOKENS) {
        token_scales scaled[TILE_TOKENS];
        float *y[TILE_TOKENS];
        const size_t left = args->tokens - t, count = left < TILE_TOKENS ? left : TILE_TOKENS;
        for (size_t i = 0; i < count; i++) {
            scale_token(type, in, s, args->a[t + i] + j0, &scaled[i]);
            y[i] = args->y[t + i] + c0;
        }
        if (count == TILE_TOKENS) {
            tokens_many(runs_of(type), TILE_TOKENS, in->units, in->rows, &w, scaled, y);
        } else {
            for (size_t i = 0; i < count; i++)
                tokens_many(runs_of(type), 1, in->units, in->rows, &w, &scaled[i], &y[i]);
        }
    }
}

/* The last columns, fewer than a unit, one at a time. */
static void ragged_columns(dtype type, const accumulate_args *args, size_t c0)
{
    for (size_t j = 0; j < args->rows; j++) {
        float w[UNIT];
        dtype_to_f32(type, args->r + j * args->stride + dtype_row_bytes(type, c0), w, args->width - c0);
        for (size_t t = 0; t < args->tokens; t++) {
            for (size_t c = c0; c < args->width; c++) args->y[t][c] = fmaf(args->a[t][j], w[c - c0], args->y[t][c]);
        }
    }
}

INLINE void float_run(dtype type, const accumulate_args *args)
{
    for (size_t c = 0; c + UNIT <= args->width; c += STRIP) {
        const size_t units = (args->width - c) / UNIT;
        for (size_t j = 0; j < args->rows; j += TILE_ROWS) {
            const size_t rows = args->rows - j;
            const uint8_t *w = args->r + j * args->stride + c / STRIP * strip_bytes(type);
            const tile in = {w, rows > TILE_ROWS ? w + TILE_ROWS * args->stride : args->next, args->stride,
                             rows < TILE_ROWS ? rows : TILE_ROWS, units < STRIP_UNITS ? units : STRIP_UNITS};
            tile_scales s;
            decode_tile(type, &in, s);
            if (args->tokens == 1) {
                tile_one(type, &in, (const float(*)[16])s, args->a[0] + j, args->y[0] + c);
            } else {
                tile_many(type, args, &in, (const float(*)[16])s, j, c);
            }
        }
    }
    const size_t whole = args->width / UNIT * UNIT;
    if (whole < args->width) ragged_columns(type, args, whole);
}

/* run() of accumulate_<isa>.c leads here, for all types or some. A function of its own for every type. */
INLINE void run(dtype type, const accumulate_args *args);

#define ACCUMULATE_DEFINE(type)                                                                                        \
    static __attribute__((noinline)) void run_##type(const accumulate_args *args)                                      \
    {                                                                                                                  \
        run(DTYPE_##type, args);                                                                                       \
    }

ACCUMULATE_DEFINE(F32)
ACCUMULATE_DEFINE(F16)
ACCUMULATE_DEFINE(BF16)
ACCUMULATE_DEFINE(Q8_0)
ACCUMULATE_DEFINE(Q4_0)
ACCUMULATE_DEFINE(Q4_1)
ACCUMULATE_DEFINE(Q5_0)
ACCUMULATE_DEFINE(Q5_1)
ACCUMULATE_DEFINE(Q4_K)
ACCUMULATE_DEFINE(Q5_K)
ACCUMULATE_DEFINE(Q6_K)

static void run_type(dtype type, const accumulate_args *args)
{
    if (args->tokens == 0) return;
    switch (type) {
    case DTYPE_F32:
        return run_F32(args);
    case DTYPE_F16:
        return run_F16(args);
    case DTYPE_BF16:
        return run_BF16(args);
    case DTYPE_Q8_0:
        return run_Q8_0(args);
    case DTYPE_Q4_0:
        return run_Q4_0(args);
    case DTYPE_Q4_1:
        return run_Q4_1(args);
    case DTYPE_Q5_0:
        return run_Q5_0(args);
    case DTYPE_Q5_1:
        return run_Q5_1(args);
    case DTYPE_Q4_K:
        return run_Q4_K(args);
    case DTYPE_Q5_K:
        return run_Q5_K(args);
    case DTYPE_Q6_K:
        return run_Q6_K(args);
    case DTYPE_NONE:
        break;
    }
    assert(!"a type without a kernel");
}
