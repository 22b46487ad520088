#include "base/arena.h"

#include <assert.h>
#include <sys/mman.h>

void *arena_take(arena *a, size_t count, size_t size)
{
    size_t bytes, end;
    if (!size_mul(count, size, &bytes) || !size_add(a->used, bytes, &end) || !size_add(end, ARENA_ALIGN - 1, &end)) {
        a->overflow = true;
        return NULL;
    }
    uint8_t *at = a->base ? a->base + a->used : NULL;
    a->used = end / ARENA_ALIGN * ARENA_ALIGN;
    assert(!a->base || a->used <= a->cap);
    return at;
}

/* Anonymous pages: zeroed, untouched until used, and given back whole; huge ones where the kernel has them, so that use
 * goes by 2 MiB. A step takes long strides through scratch memory and caches, where small pages cost a translation
 * each. */
mp_status arena_reserve(arena *a, const char *what, mp_error *err)
{
    assert(!a->base);
    if (a->overflow) return status_fail(err, MP_E_LIMIT, "%s: the size overflows; ask for less", what);
    a->cap = a->used;
    a->used = 0;
    if (a->cap == 0) return MP_OK;
    void *memory = mmap(NULL, a->cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return status_no_memory(err, a->cap, what);
    madvise(memory, a->cap, MADV_HUGEPAGE); /* advice: failing is harmless */
    a->base = memory;
    return MP_OK;
}

void arena_clear(arena *a)
{
    if (a->base) munmap(a->base, a->cap);
    *a = (arena){0};
}
