#include "gguf/gguf_impl.h"

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

#define N_TYPES (sizeof types / sizeof *types)

/* ggml's numbers. The gaps are types that were withdrawn. */
static const char *const dtype_names[] = {
    [0] = "F32",      [1] = "F16",    [2] = "Q4_0",    [3] = "Q4_1",   [4] = "Q4_2",     [5] = "Q4_3",
    [6] = "Q5_0",     [7] = "Q5_1",   [8] = "Q8_0",    [9] = "Q8_1",   [10] = "Q2_K",    [11] = "Q3_K",
    [12] = "Q4_K",    [13] = "Q5_K",  [14] = "Q6_K",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS",
    [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S",   [23] = "IQ4_XS",
    [24] = "I8",      [25] = "I16",   [26] = "I32",    [27] = "I64",   [28] = "F64",     [29] = "IQ1_M",
    [30] = "BF16",    [34] = "TQ1_0", [35] = "TQ2_0",  [39] = "MXFP4", [40] = "NVFP4",
};

const char *gguf_type_name(uint32_t type)
{
    return type < N_TYPES ? types[type].name : "unknown";
}

size_t gguf_type_bytes(uint32_t type)
{
    return type < N_TYPES ? types[type].bytes : 0;
}

const char *gguf_dtype_name(int dtype)
{
    return dtype >= 0 && (size_t)dtype < sizeof dtype_names / sizeof *dtype_names ? dtype_names[dtype] : NULL;
}
