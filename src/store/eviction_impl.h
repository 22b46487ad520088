/* eviction_impl.h: the policies that eviction.c lists, and what they share. */
#ifndef STORE_EVICTION_IMPL_H
#define STORE_EVICTION_IMPL_H

#include "store/eviction.h"

extern const eviction eviction_adaptive, eviction_lru, eviction_lfu, eviction_lfru, eviction_2q;

typedef struct eviction_array {
    size_t count, size;
} eviction_array;

/* Bytes of a head and of arrays [n] that follow it; 0 on overflow. */
size_t eviction_sum(size_t head, size_t n, const eviction_array *arrays);

#endif
