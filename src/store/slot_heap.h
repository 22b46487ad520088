/* slot_heap.h: which slot ranks lowest among those that may go, for policies that weigh slots by a number.
 *
 * An indexed binary heap in memory of the caller's. What was used last is pinned, and in a policy that counts uses what
 * came in last also ranks lowest, so the top of the heap is often pinned. Such a slot is set aside when it is met, and
 * looked at again, a few at a time, in later searches: a search costs O(log n) and not O(pinned). It finds the lowest
 * while no more than SLOT_HEAP_LOOKS slots that are set aside are pinned, and nearly the lowest beyond that. */
#ifndef STORE_SLOT_HEAP_H
#define STORE_SLOT_HEAP_H

#include "store/eviction.h"
#include "store/slot_list.h"

#define SLOT_HEAP_LOOKS 32

typedef struct slot_rank {
    double score;  /* the lowest goes first */
    uint64_t turn; /* breaks ties, the lowest first */
} slot_rank;

typedef struct slot_heap {
    uint32_t n;       /* in the heap */
    slot_list aside;  /* the others */
    slot_rank *ranks; /* [n_slots] of slots that are held */
    slot_link *links; /* [n_slots] of those set aside */
    uint32_t *heap;   /* [n] slots, each lower than its children, which are 2 i + 1 and 2 i + 2 */
    uint32_t *at;     /* [n_slots] place in the heap, SLOT_NONE: set aside */
} slot_heap;

/* What the arrays take for one slot; they are cut from `memory`, which is aligned for a double. Returns its end. */
#define SLOT_HEAP_BYTES (sizeof(slot_rank) + sizeof(slot_link) + 2 * sizeof(uint32_t))
void *slot_heap_start(slot_heap *h, uint32_t n_slots, void *memory);

void slot_heap_add(slot_heap *h, uint32_t slot, slot_rank rank);
void slot_heap_change(slot_heap *h, uint32_t slot, slot_rank rank);
void slot_heap_remove(slot_heap *h, uint32_t slot);
/* Stays held. SLOT_NONE: none may go. */
uint32_t slot_heap_lowest(slot_heap *h, bool (*movable)(const void *user, uint32_t slot), const void *user);
/* After scores of any slots were changed in `ranks`. */
void slot_heap_rebuild(slot_heap *h);

#endif
