/* AVX-VNNI multiplies the same integers as AVX2 with other instructions: every bit of its results is that of AVX2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/kernels.h"
#include "tensor/rows16.h"

enum { ROWS = 48, TOKENS = 21, TABLES = 2 };

static const dtype TYPES[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                              DTYPE_Q5_1, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};

static float *random_floats(rng *r, size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = rng_normal(r);
    return x;
}

/* One matrix and its tokens: F32, as many as the factors of rows or the elements of one, and quantized as rows_dot
 * takes them. */
typedef struct operands {
    dtype type;
    size_t n, stride;
    uint8_t *w;
    float *x[TOKENS];
    void *act[TOKENS];
} operands;

static operands operands_new(rng *r, dtype type, size_t n)
{
    operands o = {.type = type, .n = n, .stride = dtype_row_bytes(type, n)};
    float *w = random_floats(r, ROWS * n);
    o.w = malloc(ROWS * o.stride);
    dtype_from_f32(type, w, o.w, ROWS * n);
    free(w);
    for (size_t t = 0; t < TOKENS; t++) {
        o.x[t] = random_floats(r, n > ROWS ? n : ROWS);
        o.act[t] = malloc(kernels_act_bytes(n));
        kernels_get("ref")->quantize_act(o.x[t], n, o.act[t]);
    }
    return o;
}

static void operands_free(operands *o)
{
    for (size_t t = 0; t < TOKENS; t++) {
        free(o->x[t]);
        free(o->act[t]);
    }
    free(o->w);
}

typedef void product(const kernels *k, const operands *o, float *const *out, size_t tokens);

static void dot(const kernels *k, const operands *o, float *const *out, size_t tokens)
{
    k->rows_dot(o->type, o->n, o->w, o->stride, ROWS, (const void *const *)o->act, out, tokens, NULL);
}

static void accumulate(const kernels *k, const operands *o, float *const *out, size_t tokens)
{
    k->rows_accumulate(o->type, o->n, 1, o->w, o->stride, ROWS, (const float *const *)o->x, out, tokens, NULL);
}

static void assert_same_bits(product run, const operands *o)
{
    const char *const names[TABLES] = {"avx2", "avxvnni"};
    const size_t most = o->n > ROWS ? o->n : ROWS;
    for (size_t tokens = 1; tokens <= TOKENS; tokens++) {
        float *all[TABLES];
        for (int i = 0; i < TABLES; i++) {
            float *out[TOKENS];
            all[i] = calloc(TOKENS * most, sizeof(float));
            for (size_t t = 0; t < TOKENS; t++) out[t] = all[i] + t * most;
            run(kernels_get(names[i]), o, out, tokens);
        }
        assert_memory_equal(all[1], all[0], TOKENS * most * sizeof(float));
        for (int i = 0; i < TABLES; i++) free(all[i]);
    }
}

static void interleave(operands *o)
{
    uint8_t *scratch = malloc(ROWS16 * o->stride);
    for (size_t r = 0; r < ROWS; r += ROWS16) rows16_interleave(o->type, o->n, o->w + r * o->stride, scratch);
    o->type = rows16_type(o->type);
    free(scratch);
}

static void test_bits_of_avx2(void **state)
{
    (void)state;
    rng r;
    if (!kernels_get("avxvnni")) {
        print_message("SKIPPED: this CPU has no AVX-VNNI\n");
        skip();
    }
    rng_init(&r, 1);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        const size_t block = dtype_get(TYPES[i])->block;
        for (size_t n = block == 32 ? 32 : 256; n <= 768; n += block == 32 ? 160 : 256) {
            operands o = operands_new(&r, TYPES[i], n);
            assert_same_bits(dot, &o);
            assert_same_bits(accumulate, &o);
            if (rows16_type(TYPES[i]) != DTYPE_NONE) {
                interleave(&o);
                assert_same_bits(dot, &o);
            }
            operands_free(&o);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits_of_avx2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
