/* rows_accumulate of every instruction set that this CPU has, of plain tiles and of tiles in blocks, against the
 * portable one; and the promise of kernels.h that the bits of an output depend on its own rows and token alone. */
#include "kernels_testing.h"
#include "tensor/blocks32.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_accumulate),
        cmocka_unit_test(test_rows_accumulate_bits),
        cmocka_unit_test(test_rows_accumulate_arranged),
        cmocka_unit_test(test_rows_accumulate_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
