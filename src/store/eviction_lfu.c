/* eviction_lfu.c: least frequently used goes first, among equals the least recently used, with ageing.
 *
 * Every key keeps its count, in memory or not: what comes back ranks by all its uses, so something used once cannot
 * push out what is used often; it is the next to go itself. Counts would freeze the first habits of a run, so all are
 * halved whenever there have been AGE uses a key on average, which costs O(1) a use. */
#include <math.h>

#include "store/eviction_impl.h"
#include "store/slot_heap.h"

#define AGE 8

typedef struct lfu {
    slot_heap slots;
    uint32_t n_slots, n_keys;
    uint64_t turn;    /* uses so far */
    uint32_t *counts; /* [n_keys] */
} lfu;

static size_t lfu_bytes(uint32_t n_slots, uint32_t n_keys)
{
    return eviction_sum(sizeof(lfu), 2,
                        (const eviction_array[]){{n_slots, SLOT_HEAP_BYTES}, {n_keys, sizeof(uint32_t)}});
}

static void lfu_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    lfu *s = state;
    s->n_slots = n_slots;
    s->n_keys = n_keys;
    s->counts = slot_heap_start(&s->slots, n_slots, s + 1);
}

/* Ranks of free slots are halved too, and mean nothing. Halving makes equals, so the order must be made again. */
static void grow_old(lfu *s)
{
    for (uint32_t key = 0; key < s->n_keys; key++) s->counts[key] /= 2;
    for (uint32_t slot = 0; slot < s->n_slots; slot++)
        s->slots.ranks[slot].score = floor(s->slots.ranks[slot].score / 2);
    slot_heap_rebuild(&s->slots);
}

static slot_rank use(lfu *s, uint32_t key)
{
    if (s->turn > 0 && s->turn % ((uint64_t)AGE * s->n_keys) == 0) grow_old(s);
    s->turn++;
    return (slot_rank){.score = ++s->counts[key], .turn = s->turn};
}

static void lfu_hit(void *state, uint32_t slot, uint32_t key)
{
    lfu *s = state;
    slot_heap_change(&s->slots, slot, use(s, key));
}

static void lfu_insert(void *state, uint32_t slot, uint32_t key)
{
    lfu *s = state;
    slot_heap_add(&s->slots, slot, use(s, key));
}

static void lfu_remove(void *state, uint32_t slot, uint32_t key)
{
    lfu *s = state;
    (void)key;
    slot_heap_remove(&s->slots, slot);
}

static uint32_t lfu_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    return slot_heap_lowest(&((lfu *)state)->slots, movable, user);
}

const eviction eviction_lfu = {
    .name = "lfu",
    .summary = "least frequently used goes first; counts age",
    .bytes = lfu_bytes,
    .start = lfu_start,
    .hit = lfu_hit,
    .insert = lfu_insert,
    .remove = lfu_remove,
    .victim = lfu_victim,
};
