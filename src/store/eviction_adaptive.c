/* eviction_adaptive.c: lfru or lru, whichever has missed less of late. The default.
 *
 * On the routing of trained models lfru is the better of the two, by a sixth on average: there are favourites, which a
 * text that follows another shares. Where every text has favourites of its own, what was frequent in the last one is in
 * the way of the next, and lfru misses up to 1.6 times as often as lru. Which it is shows only in use, and can change.
 *
 * So both policies run beside the cache, each on a shadow: the keys that it would hold, without data. A sample of the
 * keys is enough, one of `rate` neighbours picked by a hash, with as small a share of the slots: what a policy misses
 * there is close to that share of what it would miss in all (for lru: Waldspurger et al., FAST 2015). The misses of
 * each fade. Both keep the real slots in order all the time, and the one that has missed less says which goes. lru must
 * be better by a margin to be followed: a change costs misses, and on measured routing the two are now and then close.
 * Nothing is moved at a change: slots that the new leader would not hold are the first that it gives up. */
#include "store/eviction_impl.h"

#define SAMPLE  2048u /* keys that the shadows see, about */
#define MEMORY  4     /* uses a key, after which a miss counts for 1 / e */
#define MARGIN  0.01  /* of lfru's misses: by how much lru must be better, and */
#define MARGIN0 8     /* so many misses beside */
#define ALIGN   16    /* of the states of policies */

enum { LFRU, LRU, N_SIDES };
static const eviction *const SIDES[N_SIDES] = {&eviction_lfru, &eviction_lru};

typedef struct shadow {
    void *order;       /* the policy's state */
    uint32_t *slot_of; /* [sampled keys] EVICTION_NONE: not held */
    uint32_t *key_of;  /* [n_slots] */
    uint32_t n_slots, n_held;
    double misses; /* faded */
} shadow;

typedef struct adaptive {
    uint32_t rate;         /* one of so many keys is in the sample */
    double keep;           /* what is left of a miss after a use of a sampled key */
    unsigned leader;       /* whose order decides */
    void *orders[N_SIDES]; /* of the real slots */
    shadow shadows[N_SIDES];
} adaptive;

static uint32_t rate_for(uint32_t n_keys)
{
    return n_keys > SAMPLE ? n_keys / SAMPLE : 1;
}

/* ceil(n / rate): what the sample of n neighbours can be at most. */
static uint32_t share(uint32_t n, uint32_t rate)
{
    return n / rate + (n % rate != 0);
}

static bool add(size_t *total, size_t bytes)
{
    return bytes && size_add(*total, bytes, total) && size_add(*total, ALIGN - 1, total) &&
           (*total = *total / ALIGN * ALIGN, true);
}

static size_t adaptive_bytes(uint32_t n_slots, uint32_t n_keys)
{
    const uint32_t rate = rate_for(n_keys), slots = share(n_slots, rate), keys = share(n_keys, rate);
    const size_t maps =
        eviction_sum(0, 2, (const eviction_array[]){{keys, sizeof(uint32_t)}, {slots, sizeof(uint32_t)}});
    size_t total = 0;
    bool fits = add(&total, sizeof(adaptive));
    for (unsigned i = 0; i < N_SIDES; i++)
        fits = fits && add(&total, SIDES[i]->bytes(n_slots, n_keys)) && add(&total, SIDES[i]->bytes(slots, keys)) &&
               add(&total, maps);
    return fits ? total : 0;
}

/* Cuts `bytes` from *at. */
static void *cut(uint8_t **at, size_t bytes)
{
    void *piece = *at;
    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return piece;
}

static void start_shadow(shadow *x, const eviction *policy, uint32_t slots, uint32_t keys, uint32_t n_slots,
                         uint8_t **at)
{
    x->order = cut(at, policy->bytes(slots, keys));
    x->slot_of = cut(at, ((size_t)keys + slots) * sizeof *x->slot_of);
    x->key_of = x->slot_of + keys;
    x->n_slots = n_slots;
    policy->start(x->order, slots, keys);
    for (uint32_t key = 0; key < keys; key++) x->slot_of[key] = EVICTION_NONE;
}

static void adaptive_start(void *state, uint32_t n_slots, uint32_t n_keys)
{
    adaptive *s = state;
    uint8_t *at = state;
    cut(&at, sizeof *s);
    s->rate = rate_for(n_keys);
    const uint32_t slots = share(n_slots, s->rate), keys = share(n_keys, s->rate);
    const uint32_t rounded = (uint32_t)(((uint64_t)n_slots + s->rate / 2) / s->rate);
    s->keep = 1 - 1 / ((double)MEMORY * keys);
    for (unsigned i = 0; i < N_SIDES; i++) {
        s->orders[i] = cut(&at, SIDES[i]->bytes(n_slots, n_keys));
        SIDES[i]->start(s->orders[i], n_slots, n_keys);
        start_shadow(&s->shadows[i], SIDES[i], slots, keys, rounded ? rounded : 1, &at);
    }
}

/* ---- the shadows ---- */

static bool always(const void *user, uint32_t slot)
{
    (void)user;
    (void)slot;
    return true;
}

/* Of a key that is not held: in a free slot, or in that of the policy's victim. */
static void bring_in(shadow *x, const eviction *policy, uint32_t key)
{
    uint32_t slot = x->n_held;
    if (slot < x->n_slots) {
        x->n_held++;
    } else {
        slot = policy->victim(x->order, always, NULL);
        policy->remove(x->order, slot, x->key_of[slot]);
        x->slot_of[x->key_of[slot]] = EVICTION_NONE;
    }
    x->slot_of[key] = slot;
    x->key_of[slot] = key;
    policy->insert(x->order, slot, key);
    x->misses++;
}

/* A key is used: what each side would have made of it, and who leads from now on. */
static void watch(adaptive *s, uint32_t key)
{
    const uint32_t group = key / s->rate;
    if (key % s->rate != (uint32_t)(group * UINT64_C(0x9e3779b97f4a7c15) >> 32) % s->rate) return;
    for (unsigned i = 0; i < N_SIDES; i++) {
        shadow *x = &s->shadows[i];
        x->misses *= s->keep;
        if (x->slot_of[group] == EVICTION_NONE)
            bring_in(x, SIDES[i], group);
        else
            SIDES[i]->hit(x->order, x->slot_of[group], group);
    }
    const double lfru = s->shadows[LFRU].misses, lru = s->shadows[LRU].misses;
    if (lru < lfru * (1 - MARGIN) - MARGIN0)
        s->leader = LRU;
    else if (lfru <= lru)
        s->leader = LFRU;
}

/* ---- the policy ---- */

static void adaptive_hit(void *state, uint32_t slot, uint32_t key)
{
    adaptive *s = state;
    watch(s, key);
    for (unsigned i = 0; i < N_SIDES; i++) SIDES[i]->hit(s->orders[i], slot, key);
}

static void adaptive_insert(void *state, uint32_t slot, uint32_t key)
{
    adaptive *s = state;
    watch(s, key);
    for (unsigned i = 0; i < N_SIDES; i++) SIDES[i]->insert(s->orders[i], slot, key);
}

static void adaptive_remove(void *state, uint32_t slot, uint32_t key)
{
    adaptive *s = state;
    for (unsigned i = 0; i < N_SIDES; i++) SIDES[i]->remove(s->orders[i], slot, key);
}

static uint32_t adaptive_victim(void *state, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    const adaptive *s = state;
    return SIDES[s->leader]->victim(s->orders[s->leader], movable, user);
}

const eviction eviction_adaptive = {
    .name = "adaptive",
    .summary = "lfru or lru, whichever has missed less of late",
    .bytes = adaptive_bytes,
    .start = adaptive_start,
    .hit = adaptive_hit,
    .insert = adaptive_insert,
    .remove = adaptive_remove,
    .victim = adaptive_victim,
};
