/* simd_accumulate.h: rows_accumulate of F32, F16 and BF16, written once over the names of simd_<isa>.h and unit_load()
 * of accumulate_<isa>.c; and the way to a function of its own for every type.
 *
 * The columns are taken in strips of 256, a strip in units of 32, the rows in tiles of 16. One token: up to ONE_UNITS
 * units of sums stay in registers; every vector of weights is widened and added at once. Several: the tile is widened
 * once into 16 KiB on the stack (level-1 cache), then passed over by groups of TILE_TOKENS tokens, whose sums for
 * MANY_UNITS units stay in registers. Either way an element gets one operation a row, rows ascending,
 *
 *     y[c] = fma(a_j, w, y[c])
 *
 * so its bits depend on the rows and the token alone. Columns after the last whole unit are done one by one with the
 * same operation.
 *
 * accumulate_<isa>.c provides: ONE_UNITS, MANY_UNITS, TILE_TOKENS, unit_load(). */
#include <assert.h>
#include <math.h>

enum { UNIT_VECTORS = UNIT / VL };

/* A tile of rows in one strip. */
typedef struct tile {
    const uint8_t *w, *next; /* next: the rows after these, NULL where unknown */
    size_t stride, rows, units;
} tile;

/* The same piece of the row a tile later. */
INLINE void ask_ahead(dtype type, const tile *in, size_t j)
{
    if (!in->next) return;
    const uint8_t *row = in->next + j * in->stride;
    const size_t bytes = in->units * UNIT * block_bytes(type);
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
}

/* One token, units u0 .. u0 + U of the strip. */
INLINE void accumulate_one(dtype type, size_t U, size_t u0, const tile *in, const float *a, float *y)
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
            unit_load(type, in->w + j * in->stride, u0 + u, w);
#pragma GCC unroll 4
            for (size_t v = 0; v < UNIT_VECTORS; v++) {
                vf *sum = &sums[u * UNIT_VECTORS + v];
                *sum = v_fma(v_set1(a[j]), w[v], *sum);
            }
        }
    }
#pragma GCC unroll 16
    for (size_t v = 0; v < U * UNIT_VECTORS; v++) v_store(y + v * VL, sums[v]);
}

INLINE void tile_one(dtype type, const tile *in, const float *a, float *y)
{
    size_t u = 0;
    if (in->units == STRIP_UNITS) { /* the common case, with constant unit numbers */
#pragma GCC unroll 4
        for (; u < STRIP_UNITS; u += ONE_UNITS) accumulate_one(type, ONE_UNITS, u, in, a, y);
    }
    for (; ONE_UNITS >= 4 && u + 4 <= in->units; u += 4) accumulate_one(type, 4, u, in, a, y);
    for (; u + 2 <= in->units; u += 2) accumulate_one(type, 2, u, in, a, y);
    for (; u < in->units; u++) accumulate_one(type, 1, u, in, a, y);
}

/* An unpacked tile: [row][column] */
typedef struct unpacked {
    float w[TILE_ROWS][STRIP];
} unpacked;

INLINE void unpack_unit(dtype type, size_t u, const tile *in, size_t j, unpacked *out)
{
    vf w[UNIT_VECTORS];
    unit_load(type, in->w + j * in->stride, u, w);
#pragma GCC unroll 4
    for (size_t v = 0; v < UNIT_VECTORS; v++) v_store(out->w[j] + u * UNIT + v * VL, w[v]);
}

INLINE void unpack_tile(dtype type, const tile *in, unpacked *out)
{
    for (size_t j = 0; j < in->rows; j++) {
        if (in->units == STRIP_UNITS) {
#pragma GCC unroll 8
            for (size_t u = 0; u < STRIP_UNITS; u++) unpack_unit(type, u, in, j, out);
        } else {
            for (size_t u = 0; u < in->units; u++) unpack_unit(type, u, in, j, out);
        }
    }
}

/* T tokens, U units from u0, of an unpacked tile. */
INLINE void accumulate_many(size_t T, size_t U, size_t u0, size_t rows, const unpacked *in, const float *const *a,
                            float *const *y)
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
#pragma GCC unroll 4
            for (size_t t = 0; t < T; t++) sums[t][v] = v_fma(v_set1(a[t][j]), w, sums[t][v]);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < U * UNIT_VECTORS; v++) v_store(y[t] + u0 * UNIT + v * VL, sums[t][v]);
    }
}

INLINE void tokens_many(size_t T, size_t units, size_t rows, const unpacked *in, const float *const *a, float *const *y)
{
    size_t u = 0;
    for (; u + MANY_UNITS <= units; u += MANY_UNITS) accumulate_many(T, MANY_UNITS, u, rows, in, a, y);
    for (; u < units; u++) accumulate_many(T, 1, u, rows, in, a, y);
}

/* ---- all strips, tiles, tokens --------------------------------------------------------------------------------- */

INLINE void tile_many(dtype type, const accumulate_args *args, const tile *in, size_t j0, size_t c0)
{
    unpacked w;
    unpack_tile(type, in, &w);
    for (size_t t = 0; t < args->tokens; t += TILE_TOKENS) {
        const float *a[TILE_TOKENS];
        float *y[TILE_TOKENS];
        const size_t left = args->tokens - t, count = left < TILE_TOKENS ? left : TILE_TOKENS;
        for (size_t i = 0; i < count; i++) {
            a[i] = args->a[t + i] + j0;
            y[i] = args->y[t + i] + c0;
        }
        if (count == TILE_TOKENS) {
            tokens_many(TILE_TOKENS, in->units, in->rows, &w, a, y);
        } else {
            for (size_t i = 0; i < count; i++) tokens_many(1, in->units, in->rows, &w, &a[i], &y[i]);
        }
    }
}

/* The last columns of the tile that a strip ends, fewer than a unit, one at a time. */
static void ragged_columns(dtype type, const accumulate_args *args, size_t strip)
{
    const size_t first = args->width / UNIT * UNIT, count = args->width - first;
    for (size_t j = 0; j < args->rows; j++) {
        float w[UNIT];
        dtype_to_f32(type, strip_rows(args, strip) + j * args->stride + dtype_row_bytes(type, first), w, count);
        for (size_t t = 0; t < args->tokens; t++) {
            float *y = args->y[t] + strip_tile(args, strip) * args->width + first;
            for (size_t c = 0; c < count; c++) y[c] = fmaf(args->a[t][j], w[c], y[c]);
        }
    }
}

/* Whole units of a strip. */
INLINE void float_strip(dtype type, const accumulate_args *args, size_t strip)
{
    const size_t c = strip_in_tile(args, strip), units = (args->width - c) / UNIT, y = strip_column(args, strip);
    const uint8_t *next = strip + 1 < args->tiles * tile_strips(args) ? strip_rows(args, strip + 1) : args->next;
    for (size_t j = 0; j < args->rows; j += TILE_ROWS) {
        const size_t rows = args->rows - j;
        const uint8_t *w = strip_rows(args, strip) + j * args->stride + c * block_bytes(type);
        const tile in = {w, rows > TILE_ROWS ? w + TILE_ROWS * args->stride : next, args->stride,
                         rows < TILE_ROWS ? rows : TILE_ROWS, units < STRIP_UNITS ? units : STRIP_UNITS};
        if (args->tokens == 1)
            tile_one(type, &in, args->a[0] + j, args->y[0] + y);
        else
            tile_many(type, args, &in, j, y);
    }
}

INLINE void float_run(dtype type, const accumulate_args *args)
{
    for (size_t strip = 0; strip < args->tiles * tile_strips(args); strip++) {
        if (args->width - strip_in_tile(args, strip) >= UNIT) float_strip(type, args, strip);
        if (args->width % UNIT && (strip + 1) % tile_strips(args) == 0) ragged_columns(type, args, strip);
    }
}

/* run() of accumulate_<isa>.c leads here, for all types or some: a function of its own for every type. */
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
    default:
        break;
    }
    assert(!"a type without a kernel");
}
