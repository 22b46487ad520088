/* accumulate_avx512.c: rows_accumulate for AVX-512 with VNNI and VBMI.
 F32, F16 and BF16 go the way
 * of simd_accumulate.h, quantized rows that of ints_avx512.h. */
#if defined(__x86_64__)

#include "tensor/ints_avx512.h"

/* ---- rows of floats --------------------------------------------------------------------------------------------- */

enum { ONE_UNITS = 8, MANY_UNITS = 2, TILE_TOKENS = FACTOR_TOKENS };

/* Columns of unit `unit` of the strip at `row`. */
INLINE void unit_load(dtype type, const uint8_t *row, size_t unit, vf *w)
{
    row += block_bytes(type) * UNIT * unit;
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        if (type == DTYPE_F32)
            w[i] = v_load(row + 64 * i);
        else
            w[i] = type == DTYPE_F16 ? v_load_f16(row + 32 * i) : v_load_bf16(row + 32 * i);
    }
}

#include "tensor/simd_accumulate.h"

INLINE void run(dtype type, const accumulate_args *args)
{
    if (type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16)
        float_run(type, args);
    else
        ints_run(type, false, args);
}

void rows_accumulate_avx512(dtype type, size_t width, size_t tiles, const void *r, size_t r_stride, size_t rows,
                            const float *const *a, float *const *y, size_t tokens, const void *next)
{
    const accumulate_args args = {width, tiles, r_stride, rows, r, a, y, tokens, next};
    if (dtype_is_b32(type))
        blocks32_accumulate_avx512(dtype_plain(type), &args);
    else
        run_type(type, &args);
}

#endif
