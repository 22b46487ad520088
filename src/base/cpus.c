#include "base/cpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/file.h"

#define CPUS_MOST (1u << 16) /* larger than any kernel's NR_CPUS */

cpus_mask cpus_affinity(void)
{
    for (unsigned n = CPU_SETSIZE; n <= CPUS_MOST; n *= 2) { /* a mask shorter than the kernel's is refused */
        cpus_mask mask = {.set = CPU_ALLOC(n), .bytes = CPU_ALLOC_SIZE(n)};
        if (!mask.set) break;
        CPU_ZERO_S(mask.bytes, mask.set);
        if (sched_getaffinity(0, mask.bytes, mask.set) == 0) return mask;
        cpus_clear(&mask);
    }
    return (cpus_mask){0};
}

void cpus_clear(cpus_mask *mask)
{
    if (mask->set) CPU_FREE(mask->set);
    *mask = (cpus_mask){0};
}

unsigned cpus_logical(const cpus_mask *mask)
{
    long n = mask->set ? CPU_COUNT_S(mask->bytes, mask->set) : sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

/* The lowest hardware thread on the core of `cpu`: the same number for all that share the core, and, unlike core_id,
 * different for cores of different packages and dies. */
static unsigned first_sibling(const char *root, unsigned cpu)
{
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"}; /* since Linux 5.3; before */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char topology[512], line[256];
        unsigned first;
        snprintf(topology, sizeof topology, "%s/sys/devices/system/cpu/cpu%u/topology", root, cpu);
        if (file_first_line(topology, names[i], line, sizeof line) && sscanf(line, "%u", &first) == 1 &&
            first < CPUS_MOST)
            return first;
    }
    return cpu;
}

/* Counts cores up to number `index`, whose first hardware thread in the mask goes to *cpu; returns how many there were.
 */
static unsigned count_cores(const char *root, const cpus_mask *mask, unsigned index, unsigned *cpu)
{
    unsigned cores = 0;
    unsigned char *seen = calloc(CPUS_MOST, 1);
    if (!seen) return 0;
    for (unsigned c = 0; c < mask->bytes * 8 && c < CPUS_MOST && cores <= index; c++) {
        if (!CPU_ISSET_S(c, mask->bytes, mask->set)) continue;
        unsigned core = first_sibling(root, c);
        if (!seen[core]) *cpu = c;
        cores += !seen[core];
        seen[core] = 1;
    }
    free(seen);
    return cores;
}

unsigned cpus_cores(const char *root, const cpus_mask *mask)
{
    unsigned last;
    if (!mask->set) return cpus_logical(mask);
    const unsigned cores = count_cores(root, mask, CPUS_MOST, &last);
    return cores ? cores : 1;
}

bool cpus_core(const char *root, const cpus_mask *mask, unsigned index, unsigned *cpu)
{
    return mask->set && count_cores(root, mask, index, cpu) == index + 1;
}

/* Rounded down: a thread more than the quota makes the kernel stop all of them for the rest of each period. */
static unsigned whole_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) return 0;
    long long n = quota / period;
    return n < 1 ? 1 : n > CPUS_MOST ? CPUS_MOST : (unsigned)n;
}

static unsigned quota_of(const char *directory, bool v2)
{
    char line[128];
    long long quota, period;
    if (v2) { /* "QUOTA PERIOD", or "max 100000" */
        if (!file_first_line(directory, "cpu.max", line, sizeof line)) return 0;
        return sscanf(line, "%lld %lld", &quota, &period) == 2 ? whole_cpus(quota, period) : 0;
    }
    if (!file_first_line(directory, "cpu.cfs_quota_us", line, sizeof line) || sscanf(line, "%lld", &quota) != 1)
        return 0;
    if (!file_first_line(directory, "cpu.cfs_period_us", line, sizeof line) || sscanf(line, "%lld", &period) != 1)
        return 0;
    return whole_cpus(quota, period);
}

static void keep_tightest(void *user, const char *directory, bool v2)
{
    unsigned *least = user;
    const unsigned n = quota_of(directory, v2);
    if (n && (!*least || n < *least)) *least = n;
}

unsigned cpus_quota(const char *root)
{
    unsigned least = 0;
    cgroup_visit(root, "cpu", keep_tightest, &least);
    return least;
}
