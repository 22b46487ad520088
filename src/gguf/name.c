/* Names are looked up by bisection in a sorted index rather than a hash table: no choice of names in a file can make it
 * slow, and sorting finds names that stand there twice. */
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_impl.h"

static const char *name_of(const gguf_names *names, size_t entry)
{
    return *(const char *const *)((const char *)names->entries + entry * names->stride);
}

static int compare_entries(const void *a, const void *b, void *names)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    int order = strcmp(name_of(names, x), name_of(names, y));
    return order ? order : (x > y) - (x < y);
}

mp_status gguf_names_build(const void *entries, size_t stride, size_t n, gguf_names *out, const char **repeated,
                           mp_error *err)
{
    *repeated = NULL;
    *out = (gguf_names){.entries = entries, .stride = stride, .n = n};
    size_t bytes;
    if (!size_mul(n + 1, sizeof *out->order, &bytes) || !(out->order = malloc(bytes)))
        return status_no_memory(err, n, "an index of names");
    for (size_t i = 0; i < n; i++) out->order[i] = i;
    qsort_r(out->order, n, sizeof *out->order, compare_entries, out);
    for (size_t i = 1; i < n && !*repeated; i++) {
        const char *name = name_of(out, out->order[i]);
        if (!strcmp(name_of(out, out->order[i - 1]), name)) *repeated = name;
    }
    return MP_OK;
}

void gguf_names_clear(gguf_names *names)
{
    free(names->order);
    *names = (gguf_names){0};
}

size_t gguf_names_find(const gguf_names *names, const char *name)
{
    size_t low = 0, high = names->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, name_of(names, names->order[middle]));
        if (order == 0) return names->order[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return GGUF_NONE;
}

mp_status gguf_grow(void **array, size_t *capacity, size_t n, size_t element_bytes, mp_error *err)
{
    if (n < *capacity) return MP_OK;
    size_t larger = *capacity ? *capacity : 32, bytes;
    while (larger <= n)
        if (!size_mul(larger, 2, &larger)) return status_no_memory(err, n, "a GGUF header");
    void *grown = size_mul(larger, element_bytes, &bytes) ? realloc(*array, bytes) : NULL;
    if (!grown) return status_no_memory(err, larger, "a GGUF header");
    *array = grown;
    *capacity = larger;
    return MP_OK;
}
