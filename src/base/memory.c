#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cgroup.h"
#include "base/file.h"

/* The number after NAME, which stands in a line of its own; 0: none. */
static uint64_t read_field(const char *path, const char *name)
{
    char line[256];
    uint64_t value = 0;
    const size_t n = strlen(name);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, name, n) && sscanf(line + n, "%" SCNu64, &value) == 1) break;
    fclose(f);
    return value;
}

static uint64_t read_number(const char *directory, const char *file)
{
    char line[64];
    uint64_t value;
    return file_first_line(directory, file, line, sizeof line) && sscanf(line, "%" SCNu64, &value) == 1 ? value : 0;
}

/* What a group's limit leaves: unused bytes, and those that hold pages of files. */
static void leave_within(void *user, const char *directory, bool v2)
{
    uint64_t *least = user;
    char path[1200];
    uint64_t limit = read_number(directory, v2 ? "memory.max" : "memory.limit_in_bytes"); /* or "max": 0 */
    const uint64_t high = v2 ? read_number(directory, "memory.high") : 0; /* above it a process is slowed to a crawl */
    if (high && (!limit || high < limit)) limit = high;
    if (!limit || limit >= INT64_MAX / 4096 * 4096) return;
    const uint64_t used = read_number(directory, v2 ? "memory.current" : "memory.usage_in_bytes");
    snprintf(path, sizeof path, "%s/memory.stat", directory);
    const uint64_t files = read_field(path, v2 ? "inactive_file " : "total_inactive_file ") +
                           read_field(path, v2 ? "active_file " : "total_active_file ");
    const uint64_t held = used > files ? used - files : 0, left = limit > held ? limit - held : 1;
    if (left < *least) *least = left;
}

uint64_t memory_available(const char *root)
{
    char path[256];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    const uint64_t system = read_field(path, "MemAvailable:") * 1024;
    uint64_t least = system ? system : UINT64_MAX;
    cgroup_visit(root, "memory", leave_within, &least);
    return least == UINT64_MAX ? 0 : least;
}
