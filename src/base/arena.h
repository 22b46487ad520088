/* arena.h: memory planned before it is taken.
 *
 * A layout function carves its arrays from an arena. Run first on an arena without memory it only counts, so the
 * number that a plan prints and the memory that is really taken come from the same lines of code. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/status.h"

#define ARENA_ALIGN 64

typedef struct arena {
    uint8_t *base; /* NULL: count only */
    size_t used, cap;
    bool overflow;
} arena;

/* count * size bytes, aligned, zeroed at first; NULL while counting. */
void *arena_take(arena *a, size_t count, size_t size);
/* The counted size becomes memory; fails on overflow or where there is none. */
mp_status arena_reserve(arena *a, const char *what, mp_error *err);
void arena_clear(arena *a);

#endif
