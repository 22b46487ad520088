/* kernels.c: which tables exist in this build, and which of them this CPU can run. */
#include "tensor/kernels.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "tensor/kernels_impl.h"

size_t kernels_act_bytes(size_t n)
{
    return n + n / ACT_BLOCK * 4 * sizeof(float);
}

static bool always(void)
{
    return true;
}

/* The compiler's CPU tests ask the operating system's register mask (XGETBV) too. They have no common name for F16C,
 * which needs nothing more of the system than AVX2 does. */
#if defined(__x86_64__)
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

/* Nor have older compilers one for this. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
#endif

typedef struct choice {
    const kernels *table;
    bool (*supported)(void);
} choice;

static const choice CHOICES[] = {
/* best first */
#if defined(__x86_64__)
    {&KERNELS_AVX512, has_avx512},
    {&KERNELS_AVXVNNI, has_avxvnni},
    {&KERNELS_AVX2, has_avx2},
#endif
    {&KERNELS_REF, always},
};
enum { N_CHOICES = sizeof CHOICES / sizeof *CHOICES };

const kernels *kernels_get(const char *isa)
{
    for (size_t i = 0; i < N_CHOICES; i++) {
        const choice *c = &CHOICES[i];
        if ((!isa || !strcmp(isa, c->table->isa)) && c->supported()) return c->table;
    }
    return NULL;
}

/* The supported names are a tail of one of these lists, or all of it: whoever runs AVX-512 runs AVX2, though many
 * such CPUs have no AVX-VNNI. */
const char *const *kernels_available(void)
{
    static const char *const NAMES[] = {
#if defined(__x86_64__)
        "avx512",
        "avxvnni",
        "avx2",
#endif
        "ref",
        NULL,
    };
#if defined(__x86_64__)
    static const char *const WITHOUT_AVXVNNI[] = {"avx512", "avx2", "ref", NULL};
    if (has_avx512() && !has_avxvnni()) return WITHOUT_AVXVNNI;
#endif
    size_t first = 0;
    while (!CHOICES[first].supported()) first++;
    return NAMES + first;
}
