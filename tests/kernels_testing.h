/* kernels_testing.h: weights, tokens and outputs for the tests of kernels. Buffers are allocated to the byte and
 * weights start at odd addresses, so that the sanitizers see any access beside them. */
#ifndef TESTS_KERNELS_TESTING_H
#define TESTS_KERNELS_TESTING_H

#include <math.h>

#include "base/rng.h"
#include "tensor/kernels.h"
#include "testing.h"

enum { MAX_ROWS = 35, MAX_TOKENS = 21 };
#define SENTINEL 12345.0f

static UNUSED_OK const dtype TYPES[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1,
                                        DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

/* Lengths in blocks: odd ones, and the edges of chunks and vectors. */
static const size_t FLOAT_LENGTHS[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 257, 290, 0};
static const size_t SMALL_BLOCK_LENGTHS[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 23, 0};
static const size_t LARGE_BLOCK_LENGTHS[] = {1, 2, 3, 0};

static UNUSED_OK const size_t *lengths_of(const dtype_traits *traits)
{
    return traits->block == 1 ? FLOAT_LENGTHS : traits->block == 32 ? SMALL_BLOCK_LENGTHS : LARGE_BLOCK_LENGTHS;
}

static UNUSED_OK float *random_floats(rng *r, size_t n)
{
    float *x = malloc(n * sizeof *x + 1);
    for (size_t i = 0; i < n; i++) x[i] = rng_normal(r);
    return x;
}

static UNUSED_OK double norm(const float *x, size_t n)
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

static UNUSED_OK matrix matrix_new(rng *r, dtype type, size_t n, size_t rows)
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

/* A row of the extremes of an integer format, with factors of 1. */
static UNUSED_OK void extreme_row(const dtype_traits *traits, uint8_t fill, size_t n, uint8_t *row)
{
    memset(row, fill, n / traits->block * traits->block_bytes);
    for (size_t b = 0; b < n / traits->block; b++) {
        const size_t at = b * traits->block_bytes + (traits->type == DTYPE_Q6_K ? 208 : 0);
        memcpy(row + at, "\x00\x3c", 2);
        if (traits->type == DTYPE_Q4_K) memcpy(row + at + 2, "\x00\x3c", 2);
    }
}

/* Tokens as rows_dot takes them for this type; quantized ones at an odd address. */
typedef struct tokens {
    void *memory[MAX_TOKENS];
    const void *x[MAX_TOKENS];
    double norm[MAX_TOKENS];
} tokens;

static UNUSED_OK tokens tokens_new(rng *r, const kernels *k, const dtype_traits *traits, size_t n)
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

static UNUSED_OK void tokens_free(tokens *t)
{
    for (size_t i = 0; i < MAX_TOKENS; i++) free(t->memory[i]);
}

typedef struct outputs {
    float *row[MAX_TOKENS];
} outputs;

static UNUSED_OK outputs outputs_new(size_t n, const float *start)
{
    outputs out;
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        out.row[t] = malloc((n + 1) * sizeof(float));
        for (size_t i = 0; i <= n; i++) out.row[t][i] = start && i < n ? start[i] : SENTINEL;
    }
    return out;
}

static UNUSED_OK void outputs_free(outputs *out)
{
    for (size_t t = 0; t < MAX_TOKENS; t++) free(out->row[t]);
}

typedef void kernel_test(const kernels *k);

static UNUSED_OK void for_each_isa(kernel_test *test)
{
    for (const char *const *isa = kernels_available(); *isa; isa++) {
        print_message("           %s\n", *isa);
        test(kernels_get(*isa));
    }
}

/* Rows plain and, at an odd address, arranged. */
typedef struct twins {
    dtype type;
    size_t n, stride;
    uint8_t *plain, *memory, *w;
} twins;

static UNUSED_OK void twins_free(twins *m)
{
    free(m->plain);
    free(m->memory);
}

#endif
