/* rows16_run.h: from a call of rows_dot with interleaved rows (rows16.h) to the kernels of its type, written once over
 * r16_all() and r16_few() of dot_rows16_<isa>.c. */
#ifndef TENSOR_ROWS16_RUN_H
#define TENSOR_ROWS16_RUN_H

#include <assert.h>

#include "tensor/rows16_read.h"

/* All rows for all tokens, in the way that pays. */
INLINE void r16_all(dtype type, const dot_args *a, size_t tokens);
/* Rows r0 .. r0 + 16 for tokens t0 .. t0 + T, T from 1 to 4. */
INLINE void r16_few(dtype type, size_t T, const dot_args *a, size_t r0, size_t t0);

/* All rows, weights going straight from memory. */
INLINE void r16_by_few(dtype type, const dot_args *a, size_t tokens)
{
    for (size_t r = 0; r < a->rows; r += ROWS16)
        for (size_t t = 0, T; t < tokens; t += T) {
            T = tokens_together(tokens - t);
            switch (T) {
            case 4:
                r16_few(type, 4, a, r, t);
                break;
            case 3:
                r16_few(type, 3, a, r, t);
                break;
            case 2:
                r16_few(type, 2, a, r, t);
                break;
            default:
                r16_few(type, 1, a, r, t);
            }
        }
}

/* A function of its own for every type. */
#define ROWS16_DEFINE(type)                                                                                            \
    static __attribute__((noinline)) void rows16_##type(const dot_args *a, size_t tokens)                              \
    {                                                                                                                  \
        r16_all(DTYPE_##type, a, tokens);                                                                              \
    }
ARRANGED_TYPES(ROWS16_DEFINE)

static void rows16_run(dtype type, const dot_args *a, size_t tokens)
{
    assert(a->rows % ROWS16 == 0);
    switch (type) {
#define ROWS16_CASE(type)                                                                                              \
    case DTYPE_##type##_R16:                                                                                           \
        return rows16_##type(a, tokens);
        ARRANGED_TYPES(ROWS16_CASE)
    default:
        assert(!"a type without a kernel");
    }
}

#endif
