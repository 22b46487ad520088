/* eviction_lfru.c: frequency and recency, each where it tells more. The default.
 *
 * A model goes through its layers once a token, so uses come in rounds, in the same order of layers. On measured
 * routing a unit that one round used is used by the next with a probability of about 0.6, several times its share over
 * a long time; once the next round has passed it by, that bonus is gone, and what tells most is how often it has been
 * used. So a slot is
 *
 *   fresh   from its use until the next round has passed its layer. Fresh slots go only when no other may: the least
 *           frequent first, or, where a whole round fits into the slots, the oldest, which is about to be passed;
 *   stale   afterwards: least frequent first. Something used once goes soon, so one pass over much that is rare
 *           disturbs little, and what is missed again and again is soon frequent enough to stay.
 *
 * Frequency is a sum of uses that fade, each by half in HALF_LIFE uses a key on average. Every key keeps its sum, in
 * memory or not. Sums all fade alike, so log2(sum) + now / half-life does not change between uses: a rank that is
 * written once.
 *
 * Rounds are not announced; they show. No key is used twice in one, so a use of a key that this round has used begins
 * the next. The mean of their lengths says when a slot has waited for a whole round; more exactly, a key that was last
 * used at some place of the last round says that this round has come to that place, and what lies before it is stale.
 *
 * So it behaves like LRU where a round just fits, and like least frequently used where few slots are there or many. */
#include <math.h>

#include "store/eviction_impl.h"
#include "store/slot_heap.h"

#define HALF_LIFE 8    /* uses a key */
#define ROUNDS    16   /* that the mean length remembers */
#define FITS      0.85 /* of a round's length: the mean may come out too long, as a round may be noticed late */

typedef struct lfru {
    slot_heap fresh, stale; /* rank: frequency, then turn of the last use */
    slot_list order;        /* of fresh slots, by last use */
    uint32_t n_slots;
    uint64_t turn;   /* uses so far */
    uint64_t began;  /* turn in which the round began */
    uint64_t passed; /* turn, in the last round, of the place that this round has come to */
    uint64_t rounds;
    double length;     /* of a round, mean; 0 before there was one */
    double half_life;  /* in uses */
    double *frequency; /* [n_keys] log2, as of turn 0; 0: never used */
    uint64_t *used;    /* [n_keys] turn of the last use, 0: never */
    slot_link *links;  /* [n_slots] of `order` */
    bool *is_fresh;    /* [n_slots] */
} lfru;

static size_t lfru_bytes(uint32_t n_slots, uint32_t n_keys)
{
    return eviction_sum(sizeof(lfru), 3,
                        (const eviction_array[]){{n_slots, 2 * SLOT_HEAP_BYTES},
                                                 {n_keys, sizeof(double) + sizeof(uint64_t)},
                                                 {n_slots, sizeof(slot_link) + sizeof(bool)}});
}

static void lfru_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    lfru *s = state;
    s->n_slots = n_slots;
    s->half_life = (double)HALF_LIFE * n_keys;
    slot_list_init(&s->order);
    s->frequency = slot_heap_start(&s->stale, n_slots, slot_heap_start(&s->fresh, n_slots, s + 1));
    s->used = (uint64_t *)(s->frequency + n_keys);
    s->links = (slot_link *)(s->used + n_keys);
    s->is_fresh = (bool *)(s->links + n_slots);
}

static void begin_round(lfru *s)
{
    const double length = (double)(s->turn - s->began);
    const double n = s->rounds < ROUNDS ? (double)s->rounds : ROUNDS;
    s->length += (length - s->length) / (n > 1 ? n : 1); /* the first, which begins before the first use, is a guess */
    s->rounds++;
    s->began = s->turn;
}

/* A key is used: what that says of rounds, and its rank from now on. */
static slot_rank use(lfru *s, uint32_t key)
{
    const uint64_t last = s->used[key];
    if (last > s->began) begin_round(s);
    if (last > s->passed && (double)(s->turn - last) > s->length / 2) s->passed = last;
    s->used[key] = ++s->turn;
    const double now = (double)s->turn / s->half_life, before = s->frequency[key];
    s->frequency[key] = before > 0 ? now + log2(1 + exp2(before - now)) : now;
    return (slot_rank){.score = s->frequency[key], .turn = s->turn};
}

static void leave(lfru *s, uint32_t slot)
{
    slot_heap_remove(s->is_fresh[slot] ? &s->fresh : &s->stale, slot);
    if (s->is_fresh[slot]) slot_list_remove(&s->order, s->links, slot);
}

static void freshen(lfru *s, uint32_t slot, uint32_t key)
{
    s->is_fresh[slot] = true;
    slot_list_append(&s->order, s->links, slot);
    slot_heap_add(&s->fresh, slot, use(s, key));
}

static void lfru_hit(void *state, uint32_t slot, uint32_t key)
{
    leave(state, slot);
    freshen(state, slot, key);
}

static void lfru_insert(void *state, uint32_t slot, uint32_t key)
{
    freshen(state, slot, key);
}

static void lfru_remove(void *state, uint32_t slot, uint32_t key)
{
    (void)key;
    leave(state, slot);
}

static void grow_stale(lfru *s)
{
    while (s->order.n > 0) {
        const uint32_t slot = s->order.oldest;
        const slot_rank rank = s->fresh.ranks[slot];
        const bool waited = s->length > 0 && (double)(s->turn - rank.turn) > s->length;
        if (rank.turn >= s->passed && !waited) return;
        leave(s, slot);
        s->is_fresh[slot] = false;
        slot_heap_add(&s->stale, slot, rank);
    }
}

static uint32_t lfru_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    lfru *s = state;
    grow_stale(s);
    uint32_t slot = slot_heap_lowest(&s->stale, movable, user);
    if (slot != SLOT_NONE) return slot;
    if (s->n_slots < s->length * FITS) return slot_heap_lowest(&s->fresh, movable, user);
    for (slot = s->order.oldest; slot != SLOT_NONE && !movable(user, slot);) slot = s->links[slot].newer;
    return slot;
}

const eviction eviction_lfru = {
    .name = "lfru",
    .summary = "what the last round used stays for the next; the rest by frequency",
    .bytes = lfru_bytes,
    .start = lfru_start,
    .hit = lfru_hit,
    .insert = lfru_insert,
    .remove = lfru_remove,
    .victim = lfru_victim,
};
