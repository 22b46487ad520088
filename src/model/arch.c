#include "model/arch.h"

#include <string.h>

static const arch ARCHS[] = {
    {.name = "olmoe", .qk_norm = ARCH_QK_NORM_FULL, .renormalise = false},
};

const arch *arch_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (strlen(ARCHS[i].name) == len && !memcmp(ARCHS[i].name, name, len)) return &ARCHS[i];
    return NULL;
}

const char *arch_list(void)
{
    return "olmoe";
}
