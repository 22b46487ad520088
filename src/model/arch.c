#include "model/arch.h"

#include <string.h>

/* X(name, q/k norm, rotary order, MLA, q/k/v biases, gated shared experts, renormalise, scales) */
#define ARCH_MAP(X)                                                                                                    \
    X("olmoe", ARCH_QK_NORM_FULL, ARCH_ROPE_HALVES, false, false, false, false, false)                                 \
    X("qwen2moe", ARCH_QK_NORM_NONE, ARCH_ROPE_HALVES, false, true, true, false, false)                                \
    X("qwen3moe", ARCH_QK_NORM_HEAD, ARCH_ROPE_HALVES, false, false, false, true, false)                               \
    X("deepseek2", ARCH_QK_NORM_NONE, ARCH_ROPE_PAIRS, true, false, false, false, false)                               \
    X("llama", ARCH_QK_NORM_NONE, ARCH_ROPE_PAIRS, false, false, false, true, false)                                   \
    X("granitemoe", ARCH_QK_NORM_NONE, ARCH_ROPE_PAIRS, false, false, false, true, true)

static const arch ARCHS[] = {
#define X(name_, norm_, rope_, mla_, bias_, gated_, renormalise_, scales_)                                             \
    {(name_), (norm_), (rope_), (mla_), (bias_), (gated_), (renormalise_), (scales_)},
    ARCH_MAP(X)
#undef X
};

const arch *arch_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (strlen(ARCHS[i].name) == len && !memcmp(ARCHS[i].name, name, len)) return &ARCHS[i];
    return NULL;
}

const char *arch_list(void)
{
#define X(name_, ...) ", " name_
    static const char list[] = ARCH_MAP(X);
    return list + 2; /* past the first comma */
#undef X
}
