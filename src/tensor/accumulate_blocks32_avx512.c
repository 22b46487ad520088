/* accumulate_blocks32_avx512.c: rows_accumulate of tiles arranged in blocks, with the bits of plain ones. */
#if defined(__x86_64__)

#include <assert.h>

#include "tensor/ints_avx512.h"

/* A function of its own for every type. */
#define BLOCKS32_DEFINE(type)                                                                                          \
    static __attribute__((noinline)) void blocks32_##type(const accumulate_args *args)                                 \
    {                                                                                                                  \
        ints_run(DTYPE_##type, true, args);                                                                            \
    }

BLOCKS32_DEFINE(Q4_0)
BLOCKS32_DEFINE(Q8_0)
BLOCKS32_DEFINE(Q4_K)
BLOCKS32_DEFINE(Q5_K)
BLOCKS32_DEFINE(Q6_K)

void blocks32_accumulate_avx512(dtype type, const accumulate_args *args)
{
    assert(args->width == STRIP && args->rows % GROUP == 0);
    switch (type) {
    case DTYPE_Q4_0:
        return blocks32_Q4_0(args);
    case DTYPE_Q8_0:
        return blocks32_Q8_0(args);
    case DTYPE_Q4_K:
        return blocks32_Q4_K(args);
    case DTYPE_Q5_K:
        return blocks32_Q5_K(args);
    case DTYPE_Q6_K:
        return blocks32_Q6_K(args);
    default:
        assert(!"a type without a kernel");
    }
}

#endif
