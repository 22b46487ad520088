/* memory.h: how much memory there is to take. Any thread may ask. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdint.h>

/* Bytes that this process could still take without swapping: what the system has available, or less where a cgroup's
 * limit leaves less; pages of files count as free. 0: not known. `root` as in base/cgroup.h. */
uint64_t memory_available(const char *root);

#endif
