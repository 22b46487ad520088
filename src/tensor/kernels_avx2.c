/* kernels_avx2.c: the table of this instruction set and its vector operations. */
#if defined(__x86_64__)

#include "tensor/simd_avx2.h"

#include "tensor/simd_ops.h"

#define TABLE(name)                                                                                                    \
    {                                                                                                                  \
        .isa = #name, .rows16 = true, .quantize_act = quantize_act_##name, .rows_dot = rows_dot_##name,                \
        .rows_accumulate = rows_accumulate_##name, .rms_norm = rms_norm, .swiglu = swiglu, .softmax = softmax,         \
        .log_sum_exp = log_sum_exp, .softmax_step = softmax_step, .dot_q8_0 = dot_q8_0, .mix_q8_0 = mix_q8_0,          \
        .f32_to_f16_row = f32_to_f16_row,                                                                              \
    }

const kernels KERNELS_AVX2 = TABLE(avx2);
const kernels KERNELS_AVXVNNI = TABLE(avxvnni);

#endif
