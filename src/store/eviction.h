/* eviction.h: which slot makes room, as pure policies.
 *
 * A policy is told what happens to slots and keeps its own order; it never sees data, time or threads, so the store,
 * the simulator and the tests run the same code. State is one block of bytes that the caller allocates. Keys are
 * numbers below n_keys, slots below n_slots. */
#ifndef STORE_EVICTION_H
#define STORE_EVICTION_H

#include "base/status.h"

#define EVICTION_NONE UINT32_MAX

typedef struct eviction {
    const char *name, *summary; /* one line for --help */
    /* Bytes of state; 0 where the product overflows. */
    size_t (*bytes)(uint32_t n_slots, uint32_t n_keys);
    void (*start)(void *state, uint32_t n_slots, uint32_t n_keys); /* state is zeroed */
    /* A key was asked for and is in `slot`. */
    void (*hit)(void *state, uint32_t slot, uint32_t key);
    /* A key was asked for, was not there, and now has `slot`, which was free. Admission on the second miss is decided
     * here: what is not admitted is the next to go. */
    void (*insert)(void *state, uint32_t slot, uint32_t key);
    /* The slot is free again: evicted, or its read failed. */
    void (*remove)(void *state, uint32_t slot, uint32_t key);
    /* The slot to give up, among those that may go: movable(user, slot). EVICTION_NONE: none may. */
    uint32_t (*victim)(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user);
} eviction;

/* NULL past the end; the first is the default. */
const eviction *eviction_at(size_t i);
/* By name, NULL for the default. MP_E_INVALID lists the names. */
mp_status eviction_find(const char *name, const eviction **out, mp_error *err);

/* Belady's: evicts what is used last in the future. For a recorded trace only, the yardstick of the others; it is not
 * in the list above. After start(), tell it the sequence of keys [n], all below n_keys, n < UINT32_MAX; it fills next
 * [n], which must outlive it. Each key's hits and inserts must then follow the sequence; those of different keys may
 * change places within a claim. */
extern const eviction eviction_belady;
void eviction_belady_future(void *state, const uint32_t *keys, size_t n, uint32_t *next);

#endif
