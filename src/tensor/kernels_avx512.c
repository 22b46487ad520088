/* kernels_avx512.c: the table of this instruction set and its vector operations. */
#if defined(__x86_64__)

#include "tensor/simd_avx512.h"

#include "tensor/simd_ops.h"

const kernels KERNELS_AVX512 = {
    .isa = "avx512",
    .rows16 = true,
    .blocks32 = true,
    .quantize_act = quantize_act_avx512,
    .rows_dot = rows_dot_avx512,
    .rows_accumulate = rows_accumulate_avx512,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .softmax = softmax,
    .log_sum_exp = log_sum_exp,
    .softmax_step = softmax_step,
    .dot_q8_0 = dot_q8_0,
    .mix_q8_0 = mix_q8_0,
    .f32_to_f16_row = f32_to_f16_row,
};

#endif
