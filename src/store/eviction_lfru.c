/* eviction_lfru.c: frequency and recency, each where it tells more.
 *
 * A model goes through its layers once a token, so uses come in rounds, in the same order of layers. On measured
 * routing, the next round uses two units in five of those that this one used, twice their share over a long time; once
 * it has passed a unit by, that bonus is gone, and what tells most is how often the unit has been used. So a slot is
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
 * Prompts are long rounds between short ones: each counts for little in the mean.
 *
 * Where a round just fits, nothing beats LRU: all it throws out is what the round has passed. There,
 * and in the first rounds, this policy is LRU. */
#include <math.h>

#include "store/eviction_impl.h"
#include "store/slot_heap.h"

#define HALF_LIFE 8    /* uses a key */
#define ROUNDS    16   /* that the mean length remembers */
#define WATCHED   8    /* rounds before their length is believed */
#define LONG      1.25 /* times the mean, what a round counts for at most */
/* A round just fits into so many slots, as shares of its mean length: rounds are noticed late and vary. */
#define FITS_FROM 0.8
#define FITS_TO   1.05

typedef struct lfru {
    slot_heap fresh, stale; /* rank: frequency, then turn of the last use */
    slot_list order;        /* all slots, by last use: the stale, then the fresh */
    uint32_t first_fresh;   /* the oldest of those, SLOT_NONE */
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
    s->first_fresh = SLOT_NONE;
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
    if (n <= 1) /* the first began before the first use: a guess */
        s->length = length;
    else
        s->length += (fmin(length, LONG * s->length) - s->length) / n;
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
    if (slot == s->first_fresh) s->first_fresh = s->links[slot].newer;
    slot_list_remove(&s->order, s->links, slot);
}

static void freshen(lfru *s, uint32_t slot, uint32_t key)
{
    s->is_fresh[slot] = true;
    slot_list_append(&s->order, s->links, slot);
    if (s->first_fresh == SLOT_NONE) s->first_fresh = slot;
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
    while (s->first_fresh != SLOT_NONE) {
        const uint32_t slot = s->first_fresh;
        const slot_rank rank = s->fresh.ranks[slot];
        const bool waited = s->length > 0 && (double)(s->turn - rank.turn) > s->length;
        if (rank.turn >= s->passed && !waited) return;
        slot_heap_remove(&s->fresh, slot);
        slot_heap_add(&s->stale, slot, rank);
        s->is_fresh[slot] = false;
        s->first_fresh = s->links[slot].newer;
    }
}

static uint32_t oldest(const lfru *s, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    return slot_list_oldest(&s->order, s->links, movable, user);
}

static uint32_t lfru_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    lfru *s = state;
    const bool enough = s->n_slots >= FITS_FROM * s->length;
    grow_stale(s);
    if (s->rounds < WATCHED || (enough && s->n_slots <= FITS_TO * s->length)) return oldest(s, movable, user);
    const uint32_t slot = slot_heap_lowest(&s->stale, movable, user);
    if (slot != SLOT_NONE) return slot;
    return enough ? oldest(s, movable, user) : slot_heap_lowest(&s->fresh, movable, user);
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
