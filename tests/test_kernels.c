/* Every kernel of every instruction set this CPU has, against the portable one; and the promise of kernels.h that the
 * bits of an output depend on its own rows and token alone. Buffers are allocated to the byte and weights start at odd
 * addresses, so that the sanitizers see any access beside them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/blocks32.h"
#include "tensor/kernels.h"
#include "tensor/rows16.h"

enum { MAX_ROWS = 35, MAX_TOKENS = 21 };
#define SENTINEL 12345.0f

static const dtype TYPES[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1,
                              DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

/* Lengths in blocks: odd ones, and the edges of chunks and vectors. */
static const size_t FLOAT_LENGTHS[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 257, 290, 0};
static const size_t SMALL_BLOCK_LENGTHS[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 23, 0};
static const size_t LARGE_BLOCK_LENGTHS[] = {1, 2, 3, 0};

static const size_t *lengths_of(const dtype_traits *traits)
{
    return traits->block == 1 ? FLOAT_LENGTHS : traits->block == 32 ? SMALL_BLOCK_LENGTHS : LARGE_BLOCK_LENGTHS;
}

static float *random_floats(rng *r, size_t n)
{
    float *x = malloc(n * sizeof *x + 1);
    for (size_t i = 0; i < n; i++) x[i] = rng_normal(r);
    return x;
}

static double norm(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* A matrix of `rows` rows at an odd address with a gap between rows, and the norms of its rows and columns. */
typedef struct matrix {
    dtype type;
    size_t n, rows, stride;
    uint8_t *memory, *w;
    double row_norm[MAX_ROWS], largest; /* largest: magnitude of an element */
} matrix;

static matrix matrix_new(rng *r, dtype type, size_t n, size_t rows)
{
    const size_t bytes = dtype_row_bytes(type, n);
    matrix m = {.type = type, .n = n, .rows = rows, .stride = bytes + 5};
    m.memory = malloc(1 + (rows - 1) * m.stride + bytes);
    m.w = m.memory + 1;
    memset(m.memory, 0xa5, 1 + (rows - 1) * m.stride + bytes);
    float *row = malloc(n * sizeof *row);
    for (size_t j = 0; j < rows; j++) {
        for (size_t i = 0; i < n; i++) row[i] = rng_normal(r) * (j == 1 ? 1e-3f : 1);
        dtype_from_f32(type, row, m.w + j * m.stride, n);
        dtype_to_f32(type, m.w + j * m.stride, row, n);
        m.row_norm[j] = norm(row, n);
        for (size_t i = 0; i < n; i++) m.largest = fmax(m.largest, fabs((double)row[i]));
    }
    free(row);
    return m;
}

/* Tokens as rows_dot takes them for this type; quantized ones at an odd address. */
typedef struct tokens {
    void *memory[MAX_TOKENS];
    const void *x[MAX_TOKENS];
    double norm[MAX_TOKENS];
} tokens;

static tokens tokens_new(rng *r, const kernels *k, const dtype_traits *traits, size_t n)
{
    tokens out;
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        float *x = random_floats(r, n);
        out.norm[t] = norm(x, n);
        out.memory[t] = x;
        out.x[t] = x;
        if (!traits->quantized) continue;
        uint8_t *act = malloc(1 + kernels_act_bytes(n));
        k->quantize_act(x, n, act + 1);
        free(x);
        out.memory[t] = act;
        out.x[t] = act + 1;
    }
    return out;
}

static void tokens_free(tokens *t)
{
    for (size_t i = 0; i < MAX_TOKENS; i++) free(t->memory[i]);
}

typedef struct outputs {
    float *row[MAX_TOKENS];
} outputs;

static outputs outputs_new(size_t n, const float *start)
{
    outputs out;
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        out.row[t] = malloc((n + 1) * sizeof(float));
        for (size_t i = 0; i <= n; i++) out.row[t][i] = start && i < n ? start[i] : SENTINEL;
    }
    return out;
}

static void outputs_free(outputs *out)
{
    for (size_t t = 0; t < MAX_TOKENS; t++) free(out->row[t]);
}

typedef void kernel_test(const kernels *k);

static void for_each_isa(kernel_test *test)
{
    for (const char *const *isa = kernels_available(); *isa; isa++) {
        print_message("           %s\n", *isa);
        test(kernels_get(*isa));
    }
}

/* ---- rows_dot ------------------------------------------------------------------------------------------------ */

static void dot_against_ref(const kernels *k, const matrix *m, const tokens *x, size_t rows, size_t n_tokens)
{
    outputs got = outputs_new(MAX_ROWS, NULL), expected = outputs_new(MAX_ROWS, NULL);
    k->rows_dot(m->type, m->n, m->w, m->stride, rows, x->x, got.row, n_tokens, NULL);
    kernels_get("ref")->rows_dot(m->type, m->n, m->w, m->stride, rows, x->x, expected.row, n_tokens, NULL);
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        for (size_t r = 0; r < MAX_ROWS; r++) {
            if (t < n_tokens && r < rows) {
                const double error = fabs((double)got.row[t][r] - (double)expected.row[t][r]);
                if (!(error <= 1e-6 * m->row_norm[r] * x->norm[t])) {
                    fail_msg("%s %s n %zu row %zu token %zu: %g, not %g", k->isa, dtype_get(m->type)->name, m->n, r, t,
                             (double)got.row[t][r], (double)expected.row[t][r]);
                }
            } else {
                assert_true(got.row[t][r] == SENTINEL);
            }
        }
    }
    outputs_free(&got);
    outputs_free(&expected);
}

static void dot_of_type(const kernels *k, dtype type)
{
    const dtype_traits *traits = dtype_get(type);
    static const size_t ROWS[] = {0, 1, 3, 4, 5, 9, 16, 20, 35};
    rng r;
    rng_init(&r, 3);
    for (const size_t *length = lengths_of(traits); *length; length++) {
        const size_t n = *length * traits->block;
        matrix m = matrix_new(&r, type, n, MAX_ROWS);
        tokens x = tokens_new(&r, k, traits, n);
        for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) dot_against_ref(k, &m, &x, ROWS[i], 1 + i);
        for (size_t t = 0; t <= MAX_TOKENS; t++) dot_against_ref(k, &m, &x, t % 2 ? 6 : 18, t);
        free(m.memory);
        tokens_free(&x);
    }
}

static void dot_isa(const kernels *k)
{
    for (size_t i = 0; i < N_TYPES; i++) dot_of_type(k, TYPES[i]);
}

static void test_rows_dot(void **state)
{
    (void)state;
    for_each_isa(dot_isa);
}

/* The oracle itself, against the definition: the weights' values times the quantized activation's. */
static void test_rows_dot_ref(void **state)
{
    (void)state;
    enum { N = 512 };
    const kernels *ref = kernels_get("ref");
    rng r;
    rng_init(&r, 4);
    for (size_t i = 0; i < N_TYPES; i++) {
        matrix m = matrix_new(&r, TYPES[i], N, 1);
        float *x = random_floats(&r, N), w[N], *out[1] = {&(float){0}};
        uint8_t *act = malloc(kernels_act_bytes(N));
        const bool quantized = dtype_get(TYPES[i])->quantized;
        const void *operand = x;
        if (quantized) {
            ref->quantize_act(x, N, act);
            operand = act;
        }
        ref->rows_dot(TYPES[i], N, m.w, m.stride, 1, &operand, out, 1, NULL);
        dtype_to_f32(TYPES[i], m.w, w, N);
        double sum = 0;
        for (size_t c = 0; c < N; c++) sum += (double)w[c] * (double)x[c];
        /* An activation is off by at most half a step, 1/254 of its block's largest. */
        const double bound = quantized ? 0.02 * norm(w, N) * norm(x, N) / sqrt(N) * 3 : 1e-6 * norm(w, N) * norm(x, N);
        assert_true(fabs(sum - (double)out[0][0]) <= bound);
        free(m.memory);
        free(x);
        free(act);
    }
}

static void dot_bits_of_type(const kernels *k, dtype type)
{
    const dtype_traits *traits = dtype_get(type);
    rng r;
    rng_init(&r, 5);
    for (const size_t *length = lengths_of(traits); *length; length++) {
        const size_t n = *length * traits->block;
        matrix m = matrix_new(&r, type, n, MAX_ROWS);
        tokens x = tokens_new(&r, k, traits, n);
        outputs all = outputs_new(MAX_ROWS, NULL);
        k->rows_dot(type, n, m.w, m.stride, m.rows, x.x, all.row, MAX_TOKENS, NULL);
        for (size_t t = 0; t < MAX_TOKENS; t++) {
            float some[MAX_ROWS], *out = some;
            for (size_t row = 0; row < m.rows; row++) {
                k->rows_dot(type, n, m.w + row * m.stride, m.stride, 1, &x.x[t], &out, 1, NULL);
                assert_memory_equal(&some[0], &all.row[t][row], sizeof(float));
            }
            k->rows_dot(type, n, m.w + 2 * m.stride, m.stride, 7, &x.x[t], &out, 1, NULL);
            assert_memory_equal(some, all.row[t] + 2, 7 * sizeof(float));
        }
        outputs pair = outputs_new(MAX_ROWS, NULL);
        k->rows_dot(type, n, m.w, m.stride, m.rows, x.x + 3, pair.row, 3, NULL);
        for (size_t t = 0; t < 3; t++) assert_memory_equal(pair.row[t], all.row[t + 3], m.rows * sizeof(float));
        outputs_free(&pair);
        outputs_free(&all);
        free(m.memory);
        tokens_free(&x);
    }
}

static void dot_bits_isa(const kernels *k)
{
    for (size_t i = 0; i < N_TYPES; i++) dot_bits_of_type(k, TYPES[i]);
}

static void test_rows_dot_bits(void **state)
{
    (void)state;
    for_each_isa(dot_bits_isa);
}

/* A row of the extremes of an integer format, with factors of 1. */
static void extreme_row(const dtype_traits *traits, uint8_t fill, size_t n, uint8_t *row)
{
    memset(row, fill, n / traits->block * traits->block_bytes);
    for (size_t b = 0; b < n / traits->block; b++) {
        const size_t at = b * traits->block_bytes + (traits->type == DTYPE_Q6_K ? 208 : 0);
        memcpy(row + at, "\x00\x3c", 2);
        if (traits->type == DTYPE_Q4_K) memcpy(row + at + 2, "\x00\x3c", 2);
    }
}

/* The extremes of every integer format times the extremes of the activation, for one token and for many: nothing
 * saturates. */
static void dot_extremes_isa(const kernels *k)
{
    enum { N = 256, ROWS = 32, TOKENS = 13 };
    float x[N], out[TOKENS][ROWS], *outs[TOKENS], expected[ROWS], *expecteds = expected;
    uint8_t act[N + N / 2], row[512];
    const void *operands[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) outs[t] = out[t], operands[t] = act;
    for (unsigned fill = 0; fill < 4; fill++) {
        for (size_t i = 0; i < N; i++) x[i] = fill & 1 ? -1.0f : 1.0f;
        k->quantize_act(x, N, act);
        for (size_t i = 3; i < N_TYPES; i++) {
            extreme_row(dtype_get(TYPES[i]), fill & 2 ? 0xff : 0x80, N, row);
            kernels_get("ref")->rows_dot(TYPES[i], N, row, 0, 1, operands, &expecteds, 1, NULL);
            for (size_t count = 1; count <= TOKENS; count += 4) {
                k->rows_dot(TYPES[i], N, row, 0, ROWS, operands, outs, count, NULL);
                for (size_t at = 0; at < count * ROWS; at++)
                    assert_float_equal(out[at / ROWS][at % ROWS], expected[0], fabsf(expected[0]) * 1e-5f + 1e-3f);
            }
        }
    }
}

static void test_rows_dot_extremes(void **state)
{
    (void)state;
    for_each_isa(dot_extremes_isa);
}

/* ---- interleaved rows ---------------------------------------------------------------------------------------- */

enum { SIXTEENS = 3, INTERLEAVED_ROWS = SIXTEENS * ROWS16 };

/* Rows plain and, at an odd address, interleaved. */
typedef struct twins {
    dtype type;
    size_t n, stride;
    uint8_t *plain, *memory, *w;
} twins;

static twins twins_new(rng *r, dtype type, size_t n)
{
    twins m = {.type = type, .n = n, .stride = dtype_row_bytes(type, n)};
    const size_t bytes = INTERLEAVED_ROWS * m.stride;
    m.plain = malloc(bytes);
    m.memory = malloc(bytes + 1);
    m.w = m.memory + 1;
    uint8_t *scratch = malloc(ROWS16 * m.stride);
    for (size_t row = 0; row < INTERLEAVED_ROWS; row++) {
        float *x = random_floats(r, n);
        dtype_from_f32(type, x, m.plain + row * m.stride, n);
        free(x);
    }
    memcpy(m.w, m.plain, bytes);
    for (size_t i = 0; i < SIXTEENS; i++) rows16_interleave(type, n, m.w + i * ROWS16 * m.stride, scratch);
    free(scratch);
    return m;
}

static void twins_free(twins *m)
{
    free(m->plain);
    free(m->memory);
}

/* Any row comes back, whole and from its second chunk on. */
static void assert_rows_come_back(const twins *m)
{
    float *x = malloc(m->n * sizeof *x), *back = malloc(m->n * sizeof *back);
    for (size_t row = 0; row < INTERLEAVED_ROWS; row++) {
        const uint8_t *group = m->w + row / ROWS16 * ROWS16 * m->stride;
        const size_t from = m->n > 256 ? 256 : 0;
        dtype_to_f32(m->type, m->plain + row * m->stride, x, m->n);
        rows16_to_f32(rows16_type(m->type), m->n, group, row % ROWS16, 0, back, m->n);
        assert_memory_equal(back, x, m->n * sizeof *x);
        rows16_to_f32(rows16_type(m->type), m->n, group, row % ROWS16, from, back, m->n - from);
        assert_memory_equal(back, x + from, (m->n - from) * sizeof *x);
    }
    free(x);
    free(back);
}

static void interleaved_dot(const kernels *k, const twins *m, const tokens *x, size_t rows, size_t n_tokens)
{
    outputs got = outputs_new(INTERLEAVED_ROWS, NULL), expected = outputs_new(INTERLEAVED_ROWS, NULL);
    k->rows_dot(rows16_type(m->type), m->n, m->w, m->stride, rows, x->x, got.row, n_tokens, NULL);
    k->rows_dot(m->type, m->n, m->plain, m->stride, rows, x->x, expected.row, n_tokens, NULL);
    for (size_t t = 0; t < MAX_TOKENS; t++)
        assert_memory_equal(got.row[t], expected.row[t], (INTERLEAVED_ROWS + 1) * sizeof(float));
    outputs_free(&got);
    outputs_free(&expected);
}

static void interleaved_of_type(const kernels *k, dtype type)
{
    const dtype_traits *traits = dtype_get(type);
    rng r;
    rng_init(&r, 12);
    for (const size_t *length = lengths_of(traits); *length; length++) {
        twins m = twins_new(&r, type, *length * traits->block);
        tokens x = tokens_new(&r, k, traits, m.n);
        assert_rows_come_back(&m);
        for (size_t rows = 0; rows <= INTERLEAVED_ROWS; rows += ROWS16)
            for (size_t t = 0; t <= MAX_TOKENS; t++) interleaved_dot(k, &m, &x, rows, t);
        tokens_free(&x);
        twins_free(&m);
    }
}

static void interleaved_isa(const kernels *k)
{
    size_t types = 0;
    if (!k->rows16 && strcmp(k->isa, "ref") != 0) return;
    for (size_t i = 0; i < N_TYPES; i++)
        if (rows16_type(TYPES[i]) != DTYPE_NONE) {
            assert_int_equal(dtype_plain(rows16_type(TYPES[i])), TYPES[i]);
            interleaved_of_type(k, TYPES[i]);
            types++;
        }
    assert_int_equal(types, 5);
}

static void test_rows_dot_interleaved(void **state)
{
    (void)state;
    for_each_isa(interleaved_isa);
}

/* ---- tiles in blocks ----------------------------------------------------------------------------------------- */

enum { TILES = 3 };

/* Tiles plain and, at an odd address, arranged. */
static twins tiles_new(rng *r, dtype type, size_t rows)
{
    twins m = {.type = type, .n = BLOCK32_WIDTH, .stride = dtype_row_bytes(type, BLOCK32_WIDTH)};
    const size_t bytes = TILES * rows * m.stride;
    uint8_t scratch[BLOCK32_ROWS * 512];
    m.plain = malloc(bytes);
    m.memory = malloc(bytes + 1);
    m.w = m.memory + 1;
    for (size_t row = 0; row < TILES * rows; row++) {
        float *x = random_floats(r, m.n);
        dtype_from_f32(type, x, m.plain + row * m.stride, m.n);
        free(x);
    }
    memcpy(m.w, m.plain, bytes);
    for (size_t tile = 0; tile < TILES; tile++)
        for (size_t row = 0; row < rows; row += BLOCK32_ROWS)
            blocks32_arrange(type, rows - row < BLOCK32_ROWS ? rows - row : BLOCK32_ROWS,
                             m.w + (tile * rows + row) * m.stride, scratch);
    return m;
}

static void assert_tile_rows_come_back(const twins *m, size_t rows)
{
    float x[BLOCK32_WIDTH], back[BLOCK32_WIDTH];
    for (size_t row = 0; row < rows; row++) {
        const size_t first = row / BLOCK32_ROWS * BLOCK32_ROWS, left = rows - first;
        dtype_to_f32(m->type, m->plain + row * m->stride, x, BLOCK32_WIDTH);
        blocks32_to_f32(blocks32_type(m->type), left < BLOCK32_ROWS ? left : BLOCK32_ROWS, m->w + first * m->stride,
                        row - first, back);
        assert_memory_equal(back, x, sizeof x);
    }
}

static void arranged_accumulate(const kernels *k, const twins *m, size_t rows, const tokens *a, const float *start,
                                size_t n_tokens)
{
    const float *const *factors = (const float *const *)a->x;
    outputs got = outputs_new(TILES * m->n, start), expected = outputs_new(TILES * m->n, start);
    k->rows_accumulate(blocks32_type(m->type), m->n, TILES, m->w, m->stride, rows, factors, got.row, n_tokens, m->w);
    k->rows_accumulate(m->type, m->n, TILES, m->plain, m->stride, rows, factors, expected.row, n_tokens, NULL);
    for (size_t t = 0; t < MAX_TOKENS; t++)
        assert_memory_equal(got.row[t], expected.row[t], (TILES * m->n + 1) * sizeof(float));
    memcpy(got.row[0], start, TILES * m->n * sizeof(float));
    for (size_t tile = 0; tile < TILES && n_tokens > 0; tile++) { /* each alone */
        float *y = got.row[0] + tile * m->n;
        k->rows_accumulate(m->type, m->n, 1, m->plain + tile * rows * m->stride, m->stride, rows, factors, &y, 1, NULL);
    }
    assert_memory_equal(got.row[0], expected.row[0], (TILES * m->n + 1) * sizeof(float));
    outputs_free(&got);
    outputs_free(&expected);
}

static void arranged_of_type(const kernels *k, dtype type)
{
    static const size_t ROWS[] = {4, 16, 24, 32, 44};
    rng r;
    rng_init(&r, 13);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        twins m = tiles_new(&r, type, ROWS[i]);
        tokens a = tokens_new(&r, k, dtype_get(DTYPE_F32), ROWS[i]);
        float *start = random_floats(&r, TILES * m.n);
        assert_tile_rows_come_back(&m, ROWS[i]);
        for (size_t t = 0; t <= MAX_TOKENS; t++) arranged_accumulate(k, &m, ROWS[i], &a, start, t);
        free(start);
        tokens_free(&a);
        twins_free(&m);
    }
}

static void arranged_isa(const kernels *k)
{
    if (!k->blocks32 && strcmp(k->isa, "ref") != 0) return;
    for (size_t i = 0; i < N_TYPES; i++) {
        if (blocks32_type(TYPES[i]) == DTYPE_NONE) continue;
        assert_int_equal(dtype_plain(blocks32_type(TYPES[i])), TYPES[i]);
        arranged_of_type(k, TYPES[i]);
    }
}

static void test_rows_accumulate_arranged(void **state)
{
    (void)state;
    for_each_isa(arranged_isa);
}

/* ---- rows_accumulate ----------------------------------------------------------------------------------------- */

/* Rows are rounded to integers in blocks of so many, by kernels that multiply them so. */
enum { BLOCK_ROWS = 32 };

static bool accumulates_integers(const kernels *k, dtype type)
{
    return strcmp(k->isa, "ref") && dtype_get(type)->quantized;
}

/* Each column on its own, or all of them where `error_bound` is not 0. */
static void check_accumulated(const kernels *k, const matrix *m, const float *got, const float *expected,
                              double column_bound, double error_bound)
{
    double error = 0;
    for (size_t c = 0; c < m->n; c++) {
        const double e = (double)got[c] - (double)expected[c];
        error += e * e;
        if (error_bound == 0 && !(fabs(e) <= column_bound))
            fail_msg("%s %s width %zu column %zu: %g, not %g", k->isa, dtype_get(m->type)->name, m->n, c,
                     (double)got[c], (double)expected[c]);
    }
    if (error_bound > 0 && !(sqrt(error) <= error_bound))
        fail_msg("%s %s width %zu: off by %g, not %g", k->isa, dtype_get(m->type)->name, m->n, sqrt(error),
                 error_bound);
}

/* What a token's factors of `rows` rows may cost. Integer kernels round each to 127 steps of the largest factor times
 * the largest scale. A column of one row alone is off by half a step at most, several rows are as chance has it. */
typedef struct bounds {
    double column, all;
} bounds;

static bounds bounds_of(const kernels *k, const matrix *m, const float *factors, size_t rows)
{
    double sum = 4, most = 0, row = 0;
    for (size_t j = 0; j < rows; j++) {
        sum += 3 * m->row_norm[j];
        row = fmax(row, m->row_norm[j]);
        most = fmax(most, fabs((double)factors[j]));
    }
    const bool integers = accumulates_integers(k, m->type);
    return (bounds){2e-7 * sum + (integers ? 0.011 * most * m->largest : 0), 0.005 * most * row * sqrt((double)rows)};
}

static void accumulate_against_ref(const kernels *k, const matrix *m, const tokens *a, const float *start, size_t rows,
                                   size_t n_tokens, bool by_column)
{
    outputs got = outputs_new(m->n, start), expected = outputs_new(m->n, start);
    const float *const *factors = (const float *const *)a->x;
    k->rows_accumulate(m->type, m->n, 1, m->w, m->stride, rows, factors, got.row, n_tokens, NULL);
    kernels_get("ref")->rows_accumulate(m->type, m->n, 1, m->w, m->stride, rows, factors, expected.row, n_tokens, NULL);
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        const bounds bound = bounds_of(k, m, factors[t], rows);
        check_accumulated(k, m, got.row[t], expected.row[t], bound.column, t >= n_tokens || by_column ? 0 : bound.all);
        for (size_t c = 0; c < m->n && (t >= n_tokens || rows == 0); c++) assert_true(got.row[t][c] == start[c]);
        assert_true(got.row[t][m->n] == SENTINEL);
    }
    outputs_free(&got);
    outputs_free(&expected);
}

/* One row of every block alone, which rounding changes little: every column of every row is where it belongs. */
static void accumulate_single_rows(const kernels *k, const matrix *m, tokens *a, const float *start)
{
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        float *factors = a->memory[t];
        for (size_t j = 0; j < MAX_ROWS; j++)
            if (j % BLOCK_ROWS != (j < BLOCK_ROWS ? 3 * t % BLOCK_ROWS : t % (MAX_ROWS - BLOCK_ROWS))) factors[j] = 0;
    }
    accumulate_against_ref(k, m, a, start, MAX_ROWS, MAX_TOKENS, true);
    accumulate_against_ref(k, m, a, start, MAX_ROWS, 1, true);
    accumulate_against_ref(k, m, a, start, 26, 7, true);
}

static void accumulate_of_type(const kernels *k, dtype type)
{
    static const size_t ROWS[] = {0, 1, 7, 16, 17, 32, 35};
    const dtype_traits *traits = dtype_get(type);
    const bool exact = !accumulates_integers(k, type);
    rng r;
    rng_init(&r, 6);
    for (const size_t *length = lengths_of(traits); *length; length++) {
        matrix m = matrix_new(&r, type, *length * traits->block, MAX_ROWS);
        tokens a = tokens_new(&r, k, dtype_get(DTYPE_F32), MAX_ROWS);
        float *start = random_floats(&r, m.n);
        for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
            accumulate_against_ref(k, &m, &a, start, ROWS[i], 1 + i, exact);
        for (size_t t = 0; t <= MAX_TOKENS; t++) accumulate_against_ref(k, &m, &a, start, 18, t, exact);
        accumulate_single_rows(k, &m, &a, start);
        free(start);
        tokens_free(&a);
        free(m.memory);
    }
}

static void accumulate_isa(const kernels *k)
{
    for (size_t i = 0; i < N_TYPES; i++) accumulate_of_type(k, TYPES[i]);
}

/* The same of 32 rows with factors of the same size, which are rounded to the most there is. */
static void accumulate_extremes_isa(const kernels *k)
{
    enum { N = 256, ROWS = 32, TOKENS = 6 };
    float a[ROWS], y[TOKENS][N], *ys[TOKENS], expected[N], *expecteds = expected;
    const float *factors[TOKENS];
    uint8_t row[512];
    for (size_t t = 0; t < TOKENS; t++) ys[t] = y[t], factors[t] = a;
    for (unsigned fill = 0; fill < 4; fill++) {
        for (size_t j = 0; j < ROWS; j++) a[j] = fill & 1 ? -1.0f : 1.0f;
        for (size_t i = 3; i < N_TYPES; i++) {
            extreme_row(dtype_get(TYPES[i]), fill & 2 ? 0xff : 0x80, N, row);
            memset(expected, 0, sizeof expected);
            kernels_get("ref")->rows_accumulate(TYPES[i], N, 1, row, 0, ROWS, factors, &expecteds, 1, NULL);
            for (size_t count = 1; count <= TOKENS; count++) {
                memset(y, 0, sizeof y);
                k->rows_accumulate(TYPES[i], N, 1, row, 0, ROWS, factors, ys, count, NULL);
                for (size_t at = 0; at < count * N; at++)
                    assert_float_equal(y[at / N][at % N], expected[at % N], fabsf(expected[at % N]) * 0.005f + 0.01f);
            }
        }
    }
}

static void test_rows_accumulate_extremes(void **state)
{
    (void)state;
    for_each_isa(accumulate_extremes_isa);
}

static void test_rows_accumulate(void **state)
{
    (void)state;
    for_each_isa(accumulate_isa);
}

/* A token alone, in a smaller group, with the rows in two calls, and each run of whole blocks alone. */
static void accumulate_bits_of(const kernels *k, const matrix *m, const tokens *a, const float *start)
{
    const size_t size = m->n * sizeof(float), block = dtype_get(m->type)->block;
    const size_t cut = m->n / block / 2 * block;
    const float *const *factors = (const float *const *)a->x;
    outputs all = outputs_new(m->n, start), group = outputs_new(m->n, start), one = outputs_new(m->n, start);
    k->rows_accumulate(m->type, m->n, 1, m->w, m->stride, m->rows, factors, all.row, MAX_TOKENS, NULL);
    k->rows_accumulate(m->type, m->n, 1, m->w, m->stride, m->rows, factors + 5, group.row, 3, NULL);
    for (size_t t = 0; t < 3; t++) assert_memory_equal(group.row[t], all.row[t + 5], size);
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        const float *rest = factors[t] + BLOCK_ROWS;
        float *right = one.row[t] + cut;
        k->rows_accumulate(m->type, cut, 1, m->w, m->stride, BLOCK_ROWS, &factors[t], &one.row[t], 1, NULL);
        k->rows_accumulate(m->type, cut, 1, m->w + BLOCK_ROWS * m->stride, m->stride, m->rows - BLOCK_ROWS, &rest,
                           &one.row[t], 1, NULL);
        const uint8_t *w = m->w + dtype_row_bytes(m->type, cut);
        k->rows_accumulate(m->type, m->n - cut, 1, w, m->stride, m->rows, &factors[t], &right, 1, NULL);
        assert_memory_equal(one.row[t], all.row[t], size);
    }
    outputs_free(&all);
    outputs_free(&group);
    outputs_free(&one);
}

static void accumulate_bits_isa(const kernels *k)
{
    rng r;
    rng_init(&r, 7);
    for (size_t i = 0; i < N_TYPES; i++) {
        const dtype_traits *traits = dtype_get(TYPES[i]);
        for (const size_t *length = lengths_of(traits); *length; length++) {
            matrix m = matrix_new(&r, TYPES[i], *length * traits->block, MAX_ROWS);
            tokens a = tokens_new(&r, k, dtype_get(DTYPE_F32), MAX_ROWS);
            float *start = random_floats(&r, m.n);
            accumulate_bits_of(k, &m, &a, start);
            free(start);
            tokens_free(&a);
            free(m.memory);
        }
    }
}

static void test_rows_accumulate_bits(void **state)
{
    (void)state;
    for_each_isa(accumulate_bits_isa);
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

static void act_isa(const kernels *k)
{
    enum { N = 320 };
    float x[N];
    uint8_t got[N + N / 2 + 1], expected[N + N / 2];
    rng r;
    rng_init(&r, 8);
    assert_int_equal(kernels_act_bytes(N), N + N / 2);
    for (size_t i = 0; i < N; i++) x[i] = rng_normal(&r) * expf((float)(i / 32) * 8 - 40);
    for (size_t i = 64; i < 96; i++) x[i] = 0;
    for (size_t i = 96; i < 128; i++) x[i] = 1e-40f;
    for (size_t i = 128; i < 160; i++) x[i] = 3e38f * (i % 2 ? 1 : -1);
    k->quantize_act(x, N, got + 1);
    kernels_get("ref")->quantize_act(x, N, expected);
    assert_memory_equal(got + 1, expected, sizeof expected);
    for (size_t b = 0; b < N / 32; b++) {
        float scale, scale_sum;
        int32_t half_sums[2];
        int sums[2] = {0};
        memcpy(&scale, got + 1 + N + 4 * b, 4);
        memcpy(&scale_sum, got + 1 + N + N / 8 + 4 * b, 4);
        memcpy(half_sums, got + 1 + N + N / 4 + 8 * b, 8);
        for (size_t i = 32 * b; i < 32 * b + 32; i++) {
            const int q = (int8_t)got[1 + i];
            sums[i / 16 % 2] += q;
            assert_true(fabs((double)scale * q - (double)x[i]) <= (double)scale * 0.5001 + 1e-30);
        }
        assert_true(scale_sum == scale * (float)(sums[0] + sums[1]));
        for (size_t h = 0; h < 2; h++) assert_int_equal(half_sums[h], sums[h]);
    }
    /* What is not a number stays visible. */
    x[5] = NAN, x[40] = INFINITY;
    k->quantize_act(x, N, got + 1);
    uint8_t row[N / 32 * 34];
    for (size_t i = 0; i < N; i++) x[i] = 1;
    dtype_from_f32(DTYPE_Q8_0, x, row, N);
    float out = 0, *outs = &out;
    const void *operand = got + 1;
    k->rows_dot(DTYPE_Q8_0, N, row, 0, 1, &operand, &outs, 1, NULL);
    assert_false(isfinite(out));
}

static void test_quantize_act(void **state)
{
    (void)state;
    for_each_isa(act_isa);
}

/* ---- vector operations ----------------------------------------------------------------------------------------- */

static void assert_close(float got, double expected, double relative, double absolute)
{
    if (!(fabs((double)got - expected) <= relative * fabs(expected) + absolute)) {
        fail_msg("%.9g, not %.9g", (double)got, expected);
    }
}

static void norm_and_swiglu_isa(const kernels *k)
{
    rng r;
    rng_init(&r, 9);
    for (size_t n = 1; n <= 70; n++) {
        float *x = random_floats(&r, n), *w = random_floats(&r, n), *out = malloc((n + 1) * sizeof *out);
        out[n] = SENTINEL;
        k->rms_norm(x, w, 1e-5f, out, n);
        const double scale = 1 / sqrt(pow(norm(x, n), 2) / (double)n + (double)1e-5f);
        for (size_t i = 0; i < n; i++) assert_close(out[i], (double)x[i] * (double)w[i] * scale, 3e-7, 0);
        for (size_t i = 0; i < n; i++) x[i] *= n % 2 ? 3.0f : 40.0f;
        k->swiglu(x, w, out, n);
        for (size_t i = 0; i < n; i++) {
            const double g = (double)x[i];
            assert_close(out[i], g / (1 + exp(-g)) * (double)w[i], 4e-7, 1e-36);
        }
        assert_true(out[n] == SENTINEL);
        k->swiglu(x, w, x, n); /* in place, into either */
        assert_memory_equal(x, out, n * sizeof *x);
        free(x);
        free(w);
        free(out);
    }
}

static void test_norm_and_swiglu(void **state)
{
    (void)state;
    for_each_isa(norm_and_swiglu_isa);
}

/* e^x by way of softmax of {0, x, ...}, whose first share is 1 / sum. */
static void exp_isa(const kernels *k)
{
    enum { N = 64 };
    for (float x = 0; x > -110; x -= 0.0137f) {
        float v[N];
        v[0] = 0;
        for (size_t i = 1; i < N; i++) v[i] = x;
        k->softmax(v, N);
        assert_close(v[N - 1] / v[0], exp((double)x), 4e-7, 1e-38);
    }
}

static void softmax_isa(const kernels *k)
{
    rng r;
    rng_init(&r, 10);
    exp_isa(k);
    for (size_t n = 1; n <= 70; n++) {
        float *x = random_floats(&r, n), *p = malloc((n + 1) * sizeof *p);
        double sum = 0, total = 0;
        for (size_t i = 0; i < n; i++) x[i] = x[i] * 10 + 500;
        if (n > 3) x[2] = -INFINITY;
        memcpy(p, x, n * sizeof *p);
        p[n] = SENTINEL;
        k->softmax(p, n);
        for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - 500);
        for (size_t i = 0; i < n; i++) {
            assert_close(p[i], exp((double)x[i] - 500) / sum, 5e-7, 1e-37);
            total += (double)p[i];
        }
        assert_true(fabs(total - 1) < 1e-6 && p[n] == SENTINEL);
        assert_float_equal(k->log_sum_exp(x, n), 500 + log(sum), 1e-7 * 500);
        free(x);
        free(p);
    }
    assert_true(isinf(k->log_sum_exp(NULL, 0)));
    k->softmax(NULL, 0);
}

static void test_softmax(void **state)
{
    (void)state;
    for_each_isa(softmax_isa);
}

/* A vocabulary's worth of equal logits: log(n), to the last visible digit. */
static void log_sum_exp_isa(const kernels *k)
{
    enum { N = 151936 };
    float *x = malloc(N * sizeof *x);
    for (size_t i = 0; i < N; i++) x[i] = 1.5f + (i % 2 ? 0.1f : 0);
    const double expected = log(N / 2.0) + log(exp(1.5) + exp((double)(1.5f + 0.1f)));
    assert_true(fabs(k->log_sum_exp(x, N) - expected) < 1e-7);
    free(x);
}

static void test_log_sum_exp(void **state)
{
    (void)state;
    for_each_isa(log_sum_exp_isa);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* A softmax in pieces is the softmax, whatever the order of large and small values. */
static void softmax_steps_of(const kernels *k, rng *r, size_t n, size_t piece)
{
    const float scale = 0.25f;
    float *x = random_floats(r, n), *p = malloc((n + 1) * sizeof *p);
    float largest = -INFINITY, mixed = 0, expected_largest = -INFINITY;
    double sum = 0, expected_sum = 0, expected_mixed = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] * 20 + 300;
        p[i] = x[i];
        expected_largest = fmaxf(expected_largest, x[i] * scale);
    }
    p[n] = SENTINEL;
    for (size_t i = 0; i < n; i++) {
        const double e = exp((double)x[i] * (double)scale - (double)expected_largest);
        expected_sum += e;
        expected_mixed += e * (double)(i % 7);
    }
    for (size_t i = 0; i < n; i += piece) {
        const size_t count = n - i < piece ? n - i : piece;
        mixed *= k->softmax_step(p + i, count, scale, &largest, &sum);
        for (size_t c = 0; c < count; c++) mixed += p[i + c] * (float)((i + c) % 7);
    }
    assert_true(largest == expected_largest && p[n] == SENTINEL);
    assert_close((float)sum, expected_sum, 2e-5, 0); /* the scaled values are near 75: 4e-6 of rounding in each */
    assert_close(mixed, expected_mixed, 2e-5, 1e-6);
    free(x);
    free(p);
}

/* Attention over Q8_0 rows, n a multiple of 32, rows at odd addresses. */
static void attention_q8_0_of(const kernels *k, rng *r, size_t n, size_t count)
{
    const size_t stride = dtype_row_bytes(DTYPE_Q8_0, n) + 34;
    float *row = random_floats(r, n), *q = random_floats(r, n), *p = random_floats(r, count),
          *back = random_floats(r, n);
    float *dot = malloc(count * sizeof *dot + 1), *mix = malloc(n * sizeof *mix), *again = malloc(n * sizeof *again);
    double *expected = calloc(n, sizeof *expected);
    uint8_t *memory = malloc(count * stride + 1), *cache = memory + 1;
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < n; c++) row[c] = rng_normal(r);
        dtype_from_f32(DTYPE_Q8_0, row, cache + i * stride, n);
    }
    for (size_t c = 0; c < n; c++) mix[c] = again[c] = 1;
    k->dot_q8_0(q, cache, stride, count, dot, n);
    k->mix_q8_0(p, cache, stride, count, mix, n);
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        dtype_to_f32(DTYPE_Q8_0, cache + i * stride, back, n);
        for (size_t c = 0; c < n; c++) sum += (double)q[c] * (double)back[c];
        for (size_t c = 0; c < n; c++) expected[c] += (double)p[i] * (double)back[c];
        assert_close(dot[i], sum, 0, 2e-6 * sqrt((double)n));
    }
    for (size_t c = 0; c < n; c++) assert_close(mix[c], 1 + expected[c], 0, 5e-6);
    k->mix_q8_0(p, cache, stride, count / 3, again, n); /* in two calls: the same bits */
    k->mix_q8_0(p + count / 3, cache + count / 3 * stride, stride, count - count / 3, again, n);
    assert_memory_equal(again, mix, n * sizeof *again);
    float *const owned[] = {row, q, p, back, dot, mix, again};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(expected);
    free(memory);
}

static void attention_isa(const kernels *k)
{
    static const size_t SIZES[] = {1, 5, 8, 15, 16, 17, 24, 33, 64, 100, 128, 192};
    rng r;
    rng_init(&r, 11);
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        softmax_steps_of(k, &r, SIZES[i], 1);
        softmax_steps_of(k, &r, SIZES[i], 17);
        softmax_steps_of(k, &r, SIZES[i], SIZES[i]);
    }
    for (size_t n = 32; n <= 576; n += 32) {
        attention_q8_0_of(k, &r, n, 0);
        attention_q8_0_of(k, &r, n, 11);
    }
}

static void test_attention(void **state)
{
    (void)state;
    for_each_isa(attention_isa);
}

static void half_isa(const kernels *k)
{
    static const float VALUES[] = {65519.0f, 65520.0f,       -1e30f,   5.9e-8f, 2.9e-8f, 3e-8f, 6.1e-5f,
                                   -0.0f,    1.00048828125f, INFINITY, 1e-40f,  2049,    2051,  0.1f,
                                   -3.3f,    1e5f,           7,        8,       9};
    enum { N = sizeof VALUES / sizeof *VALUES };
    uint16_t out[N];
    k->f32_to_f16_row(VALUES, out, N);
    for (size_t i = 0; i < N; i++) assert_int_equal(out[i], f32_to_f16(VALUES[i]));
}

static void test_half(void **state)
{
    (void)state;
    for_each_isa(half_isa);
}

static void test_choice(void **state)
{
    (void)state;
    assert_string_equal(kernels_get(NULL)->isa, kernels_available()[0]);
    for (const char *const *isa = kernels_available(); *isa; isa++) {
        assert_string_equal(kernels_get(*isa)->isa, *isa);
        if (!isa[1]) assert_string_equal(*isa, "ref");
    }
    assert_null(kernels_get("sse"));
    assert_null(kernels_get(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_quantize_act),
        cmocka_unit_test(test_rows_dot_ref),
        cmocka_unit_test(test_rows_dot),
        cmocka_unit_test(test_rows_dot_bits),
        cmocka_unit_test(test_rows_dot_extremes),
        cmocka_unit_test(test_rows_dot_interleaved),
        cmocka_unit_test(test_rows_accumulate),
        cmocka_unit_test(test_rows_accumulate_bits),
        cmocka_unit_test(test_rows_accumulate_arranged),
        cmocka_unit_test(test_rows_accumulate_extremes),
        cmocka_unit_test(test_norm_and_swiglu),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_log_sum_exp),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
