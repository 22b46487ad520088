/* eviction.c: the policies by name. Each is a file of its own, eviction_<name>.c; the order here is that of preference
 * by the misses measured on recorded routing. */
#include "store/eviction.h"

#include <stdio.h>
#include <string.h>

#include "store/eviction_impl.h"

static const eviction *const POLICIES[] = {&eviction_adaptive, &eviction_lfru, &eviction_lru, &eviction_lfu,
                                           &eviction_2q};
enum { N_POLICIES = sizeof POLICIES / sizeof *POLICIES };

const eviction *eviction_at(size_t i)
{
    return i < N_POLICIES ? POLICIES[i] : NULL;
}

mp_status eviction_find(const char *name, const eviction **out, mp_error *err)
{
    char known[256] = "";
    *out = POLICIES[0];
    if (name == NULL) return MP_OK;
    for (size_t i = 0; i < N_POLICIES; i++) {
        const size_t len = strlen(known);
        *out = POLICIES[i];
        if (strcmp(name, POLICIES[i]->name) == 0) return MP_OK;
        snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", POLICIES[i]->name);
    }
    *out = NULL;
    return status_fail(err, MP_E_INVALID, "there is no cache policy '%s'; there are: %s", name, known);
}

size_t eviction_sum(size_t head, size_t n, const eviction_array *arrays)
{
    size_t total = head;
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        if (!size_mul(arrays[i].count, arrays[i].size, &bytes) || !size_add(total, bytes, &total)) return 0;
    }
    return total;
}
