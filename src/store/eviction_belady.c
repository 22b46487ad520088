/* eviction_belady.c: what is used last in the future goes first (Belady 1966). No policy without the future misses
 * less, so it tells how much of the misses is the policy's fault.
 *
 * Each key remembers the place in the sequence of its next use; a slot ranks by that, the furthest lowest. */
#include "store/eviction_impl.h"
#include "store/slot_heap.h"

typedef struct belady {
    slot_heap slots;
    uint32_t n, n_keys;
    const uint32_t *next; /* [n] of each place, that of the same key's next use; n: none */
    uint32_t *ahead;      /* [n_keys] place of the key's first use that has not been told yet */
} belady;

static size_t belady_bytes(uint32_t n_slots, uint32_t n_keys)
{
    return eviction_sum(sizeof(belady), 2,
                        (const eviction_array[]){{n_slots, SLOT_HEAP_BYTES}, {n_keys, sizeof(uint32_t)}});
}

static void belady_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    belady *s = state;
    s->n_keys = n_keys;
    s->ahead = slot_heap_start(&s->slots, n_slots, s + 1);
}

void eviction_belady_future(void *state, const uint32_t *keys, size_t n, uint32_t *next)
{
    belady *s = state;
    s->n = (uint32_t)n;
    s->next = next;
    for (uint32_t key = 0; key < s->n_keys; key++) s->ahead[key] = s->n;
    for (size_t i = n; i-- > 0;) {
        next[i] = s->ahead[keys[i]];
        s->ahead[keys[i]] = (uint32_t)i;
    }
}

static slot_rank next_use(belady *s, uint32_t key)
{
    const uint32_t now = s->ahead[key];
    if (now < s->n) s->ahead[key] = s->next[now];
    return (slot_rank){.score = -(double)s->ahead[key]};
}

static void belady_hit(void *state, uint32_t slot, uint32_t key)
{
    belady *s = state;
    slot_heap_change(&s->slots, slot, next_use(s, key));
}

static void belady_insert(void *state, uint32_t slot, uint32_t key)
{
    belady *s = state;
    slot_heap_add(&s->slots, slot, next_use(s, key));
}

static void belady_remove(void *state, uint32_t slot, uint32_t key)
{
    belady *s = state;
    (void)key;
    slot_heap_remove(&s->slots, slot);
}

static uint32_t belady_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    return slot_heap_lowest(&((belady *)state)->slots, movable, user);
}

const eviction eviction_belady = {
    .name = "belady",
    .summary = "what is used last in the future goes first; needs a record",
    .bytes = belady_bytes,
    .start = belady_start,
    .hit = belady_hit,
    .insert = belady_insert,
    .remove = belady_remove,
    .victim = belady_victim,
};
