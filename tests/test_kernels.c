/* What every instruction set that this CPU has does beside the two products, against the portable one, and which are
 * chosen. */
#include "kernels_testing.h"

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
        cmocka_unit_test(test_choice),  cmocka_unit_test(test_quantize_act), cmocka_unit_test(test_norm_and_swiglu),
        cmocka_unit_test(test_softmax), cmocka_unit_test(test_log_sum_exp),  cmocka_unit_test(test_attention),
        cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
