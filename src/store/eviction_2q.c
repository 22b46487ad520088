/* eviction_2q.c: admission on the second miss (2Q, Johnson and Shasha 1994).
 *
 * What comes in for the first time waits in a queue, a quarter of the slots, and leaves it in order of arrival, however
 * often it is used meanwhile. A key that has left is remembered as a ghost, half as many as there are slots; if it is
 * missed again while it is, it is admitted to the main list, which is LRU. One pass over much that is never used again
 * does not touch the main list.
 *
 * Ghosts need no list: a key keeps the number of its leaving, and is a ghost until so many others have left since. */
#include "store/eviction_impl.h"
#include "store/slot_list.h"

typedef struct two_q {
    slot_list waiting, admitted;
    uint32_t n_slots;
    uint64_t n_left;
    uint64_t *left;    /* [n_keys] number of its last leaving, from 1; 0: never left, or admitted */
    slot_link *links;  /* [n_slots] */
    bool *is_admitted; /* [n_slots] */
} two_q;

static size_t two_q_bytes(uint32_t n_slots, uint32_t n_keys)
{
    return eviction_sum(
        sizeof(two_q), 2,
        (const eviction_array[]){{n_keys, sizeof(uint64_t)}, {n_slots, sizeof(slot_link) + sizeof(bool)}});
}

static void two_q_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    two_q *s = state;
    slot_list_init(&s->waiting);
    slot_list_init(&s->admitted);
    s->n_slots = n_slots;
    s->left = (uint64_t *)(s + 1);
    s->links = (slot_link *)(s->left + n_keys);
    s->is_admitted = (bool *)(s->links + n_slots);
}

static void two_q_hit(void *state, uint32_t slot, uint32_t key)
{
    two_q *s = state;
    (void)key;
    if (!s->is_admitted[slot]) return;
    slot_list_remove(&s->admitted, s->links, slot);
    slot_list_append(&s->admitted, s->links, slot);
}

static void two_q_insert(void *state, uint32_t slot, uint32_t key)
{
    two_q *s = state;
    s->is_admitted[slot] = s->left[key] > 0 && s->n_left - s->left[key] < s->n_slots / 2;
    if (s->is_admitted[slot]) s->left[key] = 0;
    slot_list_append(s->is_admitted[slot] ? &s->admitted : &s->waiting, s->links, slot);
}

static void two_q_remove(void *state, uint32_t slot, uint32_t key)
{
    two_q *s = state;
    slot_list_remove(s->is_admitted[slot] ? &s->admitted : &s->waiting, s->links, slot);
    if (!s->is_admitted[slot]) s->left[key] = ++s->n_left;
}

static uint32_t oldest(const two_q *s, const slot_list *l, bool (*movable)(const void *user, uint32_t slot),
                       const void *user)
{
    uint32_t slot = l->oldest;
    while (slot != SLOT_NONE && !movable(user, slot)) slot = s->links[slot].newer;
    return slot;
}

static uint32_t two_q_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    const two_q *s = state;
    const bool crowded = s->waiting.n > s->n_slots / 4;
    const uint32_t slot = oldest(s, crowded ? &s->waiting : &s->admitted, movable, user);
    return slot != SLOT_NONE ? slot : oldest(s, crowded ? &s->admitted : &s->waiting, movable, user);
}

const eviction eviction_2q = {
    .name = "2q",
    .summary = "admitted on the second miss, then least recently used goes first",
    .bytes = two_q_bytes,
    .start = two_q_start,
    .hit = two_q_hit,
    .insert = two_q_insert,
    .remove = two_q_remove,
    .victim = two_q_victim,
};
