/* eviction_lru.c: least recently used goes first.
 *
 * One list in order of use. What is pinned was used a moment ago, so it sits at the far end and the search from the old
 * end meets it only when nearly everything is pinned.
 *
 * A model's layers come round once a token, which is the pattern that LRU is worst at: where a token uses more than
 * there is room for, what comes next is always what was just thrown out. It is here as the yardstick that every reader
 * knows. */
#include "store/eviction_impl.h"
#include "store/slot_list.h"

typedef struct lru {
    slot_list used;
    slot_link links[]; /* [n_slots] */
} lru;

static size_t lru_bytes(uint32_t n_slots, uint32_t n_keys)
{
    (void)n_keys;
    return eviction_sum(sizeof(lru), 1, (const eviction_array[]){{n_slots, sizeof(slot_link)}});
}

static void lru_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    (void)n_slots, (void)n_keys;
    slot_list_init(&((lru *)state)->used);
}

static void lru_hit(void *state, uint32_t slot, uint32_t key)
{
    lru *s = state;
    (void)key;
    slot_list_remove(&s->used, s->links, slot);
    slot_list_append(&s->used, s->links, slot);
}

static void lru_insert(void *state, uint32_t slot, uint32_t key)
{
    lru *s = state;
    (void)key;
    slot_list_append(&s->used, s->links, slot);
}

static void lru_remove(void *state, uint32_t slot, uint32_t key)
{
    lru *s = state;
    (void)key;
    slot_list_remove(&s->used, s->links, slot);
}

static uint32_t lru_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    const lru *s = state;
    return slot_list_oldest(&s->used, s->links, movable, user);
}

const eviction eviction_lru = {
    .name = "lru",
    .summary = "least recently used goes first",
    .bytes = lru_bytes,
    .start = lru_start,
    .hit = lru_hit,
    .insert = lru_insert,
    .remove = lru_remove,
    .victim = lru_victim,
};
