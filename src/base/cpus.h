/* cpus.h: how many processors this process may use. Nothing is kept; any thread may ask.
 *
 * `root` stands before every path ("" on a live system, a made-up tree in tests). */
#ifndef BASE_CPUS_H
#define BASE_CPUS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

/* The CPUs of an affinity mask; `set` is of CPU_ALLOC and ends with cpus_clear(). NULL where the kernel does not tell.
 */
typedef struct cpus_mask {
    cpu_set_t *set;
    size_t bytes;
} cpus_mask;

cpus_mask cpus_affinity(void);
void cpus_clear(cpus_mask *mask);
/* Hardware threads in the mask, at least 1. */
unsigned cpus_logical(const cpus_mask *mask);
/* Distinct physical cores with a hardware thread in the mask, at least 1. */
unsigned cpus_cores(const char *root, const cpus_mask *mask);
/* A hardware thread on core number `index` of those; false where there are fewer or the kernel does not tell. */
bool cpus_core(const char *root, const cpus_mask *mask, unsigned index, unsigned *cpu);
/* Whole CPUs of the tightest cgroup quota (v2 cpu.max or v1 CFS) from this process's group up to the root, at least 1;
 * 0: no quota. */
unsigned cpus_quota(const char *root);

#endif
