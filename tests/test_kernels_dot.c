/* rows_dot of every instruction set that this CPU has, of plain and of interleaved rows, against the portable one; and
 * the promise of kernels.h that the bits of an output depend on its own rows and token alone. */
#include "kernels_testing.h"
#include "tensor/rows16.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_dot_ref),         cmocka_unit_test(test_rows_dot),
        cmocka_unit_test(test_rows_dot_bits),        cmocka_unit_test(test_rows_dot_extremes),
        cmocka_unit_test(test_rows_dot_interleaved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
