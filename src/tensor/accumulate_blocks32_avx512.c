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
ARRANGED_TYPES(BLOCKS32_DEFINE)

void blocks32_accumulate_avx512(dtype type, const accumulate_args *args)
{
    assert(args->width == STRIP && args->rows % GROUP == 0);
    switch (type) {
#define BLOCKS32_CASE(type)                                                                                            \
    case DTYPE_##type:                                                                                                 \
        return blocks32_##type(args);
        ARRANGED_TYPES(BLOCKS32_CASE)
    default:
        assert(!"a type without a kernel");
    }
}

#endif
