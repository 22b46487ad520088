/* Eviction policies: each against its definition, evaluated naively over the whole history, on random uses with pins
 * and failed reads; then what all of them promise. */
#include "store/eviction.h"

#include "base/rng.h"
#include "testing.h"

enum { KEYS = 48, SLOTS_MAX = 24, TURNS = 4000, CLAIM_MAX = 10 };

/* What has happened so far. */
typedef struct world world;
struct world {
    const eviction *policy;
    void *state;
    uint32_t n_slots;
    uint32_t key_of[SLOTS_MAX], slot_of[KEYS]; /* EVICTION_NONE: free, not there */
    bool pinned[SLOTS_MAX];
    bool admitted[SLOTS_MAX]; /* by the rules of 2Q */
    uint64_t arrived[SLOTS_MAX];
    uint32_t uses[TURNS + CLAIM_MAX]; /* the keys, in order */
    size_t turn;
    uint32_t gone[TURNS]; /* keys that left without having been admitted; EVICTION_NONE: admitted since */
    size_t n_gone;
    const uint32_t *future; /* the same as uses, ahead of time */
    size_t n_future;
    world *lfru, *lru; /* what each of the two would hold: for the one that follows the better */
    double missed;     /* by this one, faded */
    bool lru_leads;
};

static mp_error err;

static bool movable(const void *user, uint32_t slot)
{
    const world *w = user;
    assert_true(slot < w->n_slots);
    assert_true(w->key_of[slot] != EVICTION_NONE);
    return !w->pinned[slot];
}

static size_t last_use(const world *w, uint32_t slot)
{
    for (size_t i = w->turn; i-- > 0;)
        if (w->uses[i] == w->key_of[slot]) return i;
    fail_msg("slot %u was never used", slot);
    return 0;
}

/* ---- each policy's definition: the slot of the lowest value goes ---- */

static double lru_value(const world *w, uint32_t slot)
{
    return (double)last_use(w, slot);
}

static double lfu_value(const world *w, uint32_t slot)
{
    uint32_t count = 0;
    for (size_t i = 0; i < w->turn; i++) {
        if (i > 0 && i % (8 * KEYS) == 0) count /= 2;
        count += w->uses[i] == w->key_of[slot];
    }
    return count + (double)last_use(w, slot) * 1e-6;
}

static double two_q_value(const world *w, uint32_t slot)
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < w->n_slots; i++) waiting += w->key_of[i] != EVICTION_NONE && !w->admitted[i];
    const bool first = w->admitted[slot] == (waiting <= w->n_slots / 4);
    return (first ? 0 : 1e6) + (w->admitted[slot] ? (double)last_use(w, slot) : (double)w->arrived[slot]);
}

static double belady_value(const world *w, uint32_t slot)
{
    for (size_t i = w->turn; i < w->n_future; i++)
        if (w->future[i] == w->key_of[slot]) return -(double)i;
    return -(double)w->n_future;
}

/* Of rounds, as told by the uses so far: their number, their mean length and how far the last one has been passed. */
static uint64_t rounds_of(const world *w, double *length, uint64_t *passed)
{
    uint64_t used[KEYS] = {0}, began = 0, rounds = 0;
    *length = 0;
    *passed = 0;
    for (uint64_t turn = 0; turn < w->turn; turn++) {
        const uint64_t last = used[w->uses[turn]];
        if (last > began) {
            const double weight = rounds < 2 ? 1 : 1.0 / (double)(rounds < 16 ? rounds : 16);
            const double counts = rounds < 2 ? INFINITY : 1.25 * *length;
            *length = *length * (1 - weight) + fmin((double)(turn - began), counts) * weight;
            rounds++;
            began = turn;
        }
        if (last > *passed && (double)(turn - last) > *length / 2) *passed = last;
        used[w->uses[turn]] = turn + 1;
    }
    return rounds;
}

static double lfru_value(const world *w, uint32_t slot)
{
    double length, frequency = 0;
    uint64_t passed;
    const uint64_t rounds = rounds_of(w, &length, &passed);
    const uint64_t last = last_use(w, slot) + 1;
    for (size_t i = 0; i < w->turn; i++)
        if (w->uses[i] == w->key_of[slot]) frequency += exp2(((double)(i + 1) - (double)w->turn) / (8.0 * KEYS));
    const bool enough = w->n_slots >= 0.8 * length, loosely = w->n_slots > 1.05 * length;
    if (rounds < 8 || (enough && !loosely)) return (double)last;
    const bool stale = last < passed || (length > 0 && (double)(w->turn - last) > length);
    return stale ? frequency : 1e6 + (enough ? (double)last : frequency);
}

/* What a policy would hold that knows no pins and whose reads never fail. */
static void follow(world *w, uint32_t key, double (*value)(const world *, uint32_t))
{
    w->missed *= 1 - 1 / (4.0 * KEYS);
    if (w->slot_of[key] == EVICTION_NONE) {
        uint32_t slot = 0;
        for (uint32_t i = 0; i < w->n_slots && w->key_of[slot] != EVICTION_NONE; i++)
            if (w->key_of[i] == EVICTION_NONE || value(w, i) < value(w, slot)) slot = i;
        if (w->key_of[slot] != EVICTION_NONE) w->slot_of[w->key_of[slot]] = EVICTION_NONE;
        w->key_of[slot] = key;
        w->slot_of[key] = slot;
        w->missed++;
    }
    w->uses[w->turn++] = key;
}

static void follow_both(world *w, uint32_t key)
{
    follow(w->lfru, key, lfru_value);
    follow(w->lru, key, lru_value);
    if (w->lru->missed < 0.97 * w->lfru->missed - 16)
        w->lru_leads = true;
    else if (w->lfru->missed <= w->lru->missed)
        w->lru_leads = false;
}

static double adaptive_value(const world *w, uint32_t slot)
{
    return w->lru_leads ? lru_value(w, slot) : lfru_value(w, slot);
}

/* ---- the world ---- */

static void note_arrival(world *w, uint32_t slot, uint32_t key)
{
    w->admitted[slot] = false;
    for (size_t i = w->n_gone; i-- > 0 && w->n_gone - i <= w->n_slots / 2;) {
        if (w->gone[i] != key) continue;
        w->admitted[slot] = true;
        for (size_t k = 0; k < w->n_gone; k++)
            if (w->gone[k] == key) w->gone[k] = EVICTION_NONE;
        break;
    }
    w->arrived[slot] = w->turn;
}

static void take_away(world *w, uint32_t slot)
{
    const uint32_t key = w->key_of[slot];
    w->policy->remove(w->state, slot, key);
    if (!w->admitted[slot]) w->gone[w->n_gone++] = key;
    w->slot_of[key] = EVICTION_NONE;
    w->key_of[slot] = EVICTION_NONE;
}

static uint32_t free_slot(const world *w)
{
    for (uint32_t i = 0; i < w->n_slots; i++)
        if (w->key_of[i] == EVICTION_NONE) return i;
    return EVICTION_NONE;
}

/* The victim has the lowest value of those that may go, within rounding. */
static uint32_t checked_victim(world *w, double (*value)(const world *, uint32_t))
{
    const uint32_t victim = w->policy->victim(w->state, movable, w);
    assert_true(victim < w->n_slots);
    assert_false(w->pinned[victim]);
    const double got = value(w, victim);
    for (uint32_t i = 0; i < w->n_slots; i++)
        if (!w->pinned[i] && value(w, i) < got - 1e-9)
            fail_msg("%s, turn %zu: slot %u (%.9g) goes, %u (%.9g) stays", w->policy->name, w->turn, victim, got, i,
                     value(w, i));
    return victim;
}

static void use(world *w, uint32_t key, double (*value)(const world *, uint32_t))
{
    uint32_t slot = w->slot_of[key];
    const bool follows = value == adaptive_value;
    if (slot != EVICTION_NONE) {
        if (follows) follow_both(w, key);
        w->policy->hit(w->state, slot, key);
    } else {
        slot = free_slot(w);
        if (slot == EVICTION_NONE) {
            slot = checked_victim(w, value);
            take_away(w, slot);
        }
        note_arrival(w, slot, key);
        if (follows) follow_both(w, key);
        w->policy->insert(w->state, slot, key);
        w->key_of[slot] = key;
        w->slot_of[key] = slot;
    }
    w->pinned[slot] = true;
    w->uses[w->turn++] = key;
}

/* Claims of a few keys, by turns from four layers, some keys much more often than others. */
static size_t make_uses(rng *r, uint32_t *uses, uint8_t *claims, size_t *n_claims)
{
    size_t n = 0;
    for (*n_claims = 0; n < TURNS; (*n_claims)++) {
        const uint32_t size = 1 + rng_below(r, CLAIM_MAX), layer = *n_claims % 4 * (KEYS / 4);
        bool taken[KEYS] = {false};
        uint8_t count = 0;
        for (uint32_t i = 0; i < size; i++) {
            const uint32_t key = layer + rng_below(r, 1 + rng_below(r, KEYS / 4));
            if (taken[key]) continue;
            taken[key] = true;
            uses[n++] = key;
            count++;
        }
        claims[*n_claims] = count;
    }
    return n;
}

static void empty(world *w, uint32_t n_slots)
{
    *w = (world){.n_slots = n_slots};
    for (uint32_t i = 0; i < n_slots; i++) w->key_of[i] = EVICTION_NONE;
    for (uint32_t i = 0; i < KEYS; i++) w->slot_of[i] = EVICTION_NONE;
}

static void start(world *w, const eviction *policy, uint32_t n_slots)
{
    static world lfru, lru;
    empty(w, n_slots);
    empty(w->lfru = &lfru, n_slots);
    empty(w->lru = &lru, n_slots);
    w->policy = policy;
    w->state = calloc(1, policy->bytes(n_slots, KEYS));
    assert_non_null(w->state);
    policy->start(w->state, n_slots, KEYS);
}

static void check_policy(const eviction *policy, uint32_t n_slots, uint64_t seed,
                         double (*value)(const world *, uint32_t))
{
    static uint32_t uses[TURNS + CLAIM_MAX], next[TURNS + CLAIM_MAX];
    static uint8_t claims[TURNS];
    static world w;
    size_t n_claims;
    rng r;
    rng_init(&r, seed);
    const size_t n = make_uses(&r, uses, claims, &n_claims);
    start(&w, policy, n_slots);
    w.future = uses;
    w.n_future = n;
    if (policy == &eviction_belady) eviction_belady_future(w.state, uses, n, next);
    const uint32_t *key = uses;
    for (size_t c = 0; c < n_claims; c++) {
        for (uint32_t i = 0; i < claims[c]; i++)
            if (w.slot_of[key[i]] != EVICTION_NONE) w.pinned[w.slot_of[key[i]]] = true;
        for (uint32_t i = 0; i < claims[c]; i++) use(&w, *key++, value);
        memset(w.pinned, 0, sizeof w.pinned);
        const uint32_t slot = rng_below(&r, n_slots); /* now and then, a read has failed */
        if (rng_below(&r, 20) == 0 && w.key_of[slot] != EVICTION_NONE) take_away(&w, slot);
    }
    free(w.state);
}

static const struct {
    const char *name; /* NULL: Belady's */
    double (*value)(const world *, uint32_t);
} definitions[] = {{"adaptive", adaptive_value}, {"lru", lru_value},   {"lfu", lfu_value},
                   {"2q", two_q_value},          {"lfru", lfru_value}, {NULL, belady_value}};

static void test_definitions(void **state)
{
    (void)state;
    size_t listed = 0;
    while (eviction_at(listed)) listed++;
    assert_int_equal(listed + 1, sizeof definitions / sizeof *definitions);
    for (size_t i = 0; i <= listed; i++) {
        const eviction *policy = &eviction_belady;
        if (definitions[i].name) assert_ok(eviction_find(definitions[i].name, &policy, &err), &err);
        for (uint32_t n_slots = CLAIM_MAX; n_slots <= SLOTS_MAX; n_slots += 7)
            check_policy(policy, n_slots, n_slots, definitions[i].value);
    }
}

/* ---- the better of two ---- */

enum { LAYERS = 8, TEXTS = 12, ROUNDS = 24 };

/* A cache without pins, for a third of the keys. */
typedef struct cache {
    const eviction *policy;
    void *order;
    uint32_t *slot_of, *key_of, n_slots, n_held;
    uint64_t misses;
} cache;

static void cache_open(cache *c, const char *name, uint32_t n_keys)
{
    *c = (cache){.n_slots = n_keys / 3};
    assert_ok(eviction_find(name, &c->policy, &err), &err);
    c->order = calloc(1, c->policy->bytes(c->n_slots, n_keys));
    c->slot_of = malloc(n_keys * sizeof *c->slot_of);
    c->key_of = malloc(c->n_slots * sizeof *c->key_of);
    assert_true(c->order && c->slot_of && c->key_of);
    c->policy->start(c->order, c->n_slots, n_keys);
    for (uint32_t key = 0; key < n_keys; key++) c->slot_of[key] = EVICTION_NONE;
}

static void cache_close(cache *c)
{
    free(c->order);
    free(c->slot_of);
    free(c->key_of);
}

static bool all_move(const void *user, uint32_t slot)
{
    (void)user;
    (void)slot;
    return true;
}

static void cache_use(cache *c, uint32_t key)
{
    uint32_t slot = c->slot_of[key];
    if (slot != EVICTION_NONE) {
        c->policy->hit(c->order, slot, key);
        return;
    }
    slot = c->n_held;
    if (slot < c->n_slots) {
        c->n_held++;
    } else {
        slot = c->policy->victim(c->order, all_move, NULL);
        c->policy->remove(c->order, slot, c->key_of[slot]);
        c->slot_of[c->key_of[slot]] = EVICTION_NONE;
    }
    c->slot_of[key] = slot;
    c->key_of[slot] = key;
    c->policy->insert(c->order, slot, key);
    c->misses++;
}

/* Misses on texts, one after the other. A token uses a fifth of each layer's keys; most are favourites, which are a
 * quarter of the layer: the same for all texts, or others for each. */
static uint64_t misses_on_texts(const char *name, uint32_t n_keys, bool same_favourites)
{
    const uint32_t per_layer = n_keys / LAYERS, favourites = per_layer / 4;
    uint64_t *used = calloc(n_keys, sizeof *used);
    cache c;
    rng r;
    assert_non_null(used);
    rng_init(&r, 5);
    cache_open(&c, name, n_keys);
    for (uint32_t round = 0; round < TEXTS * ROUNDS; round++) {
        const uint32_t first = same_favourites ? 0 : round / ROUNDS * (per_layer * 3 / 7);
        for (uint32_t i = 0; i < LAYERS * (per_layer / 5); i++) {
            const uint32_t layer = i / (per_layer / 5);
            const uint64_t among = rng_below(&r, 4) ? first + rng_below(&r, favourites) : rng_below(&r, per_layer);
            const uint32_t key = layer * per_layer + (uint32_t)(among % per_layer);
            if (used[key] == round + 1) continue;
            used[key] = round + 1;
            cache_use(&c, key);
        }
    }
    cache_close(&c);
    free(used);
    return c.misses;
}

/* On either kind of text, the two differ and the misses of the one that follows are close to the fewer; with so many
 * keys too that only a sample of them is watched. */
static void test_adaptive(void **state)
{
    (void)state;
    for (uint32_t n_keys = 1024; n_keys <= 16384; n_keys *= 16) {
        for (int same = 0; same < 2; same++) {
            const double lfru = (double)misses_on_texts("lfru", n_keys, same);
            const double lru = (double)misses_on_texts("lru", n_keys, same);
            const double got = (double)misses_on_texts("adaptive", n_keys, same);
            assert_true(same ? lfru < 0.75 * lru : lru < 0.75 * lfru);
            assert_true(got <= 1.02 * fmin(lfru, lru));
        }
    }
}

/* ---- what all of them promise ---- */

static bool nothing_moves(const void *user, uint32_t slot)
{
    (void)user;
    (void)slot;
    return false;
}

static bool only_one_moves(const void *user, uint32_t slot)
{
    return slot == *(const uint32_t *)user;
}

/* More pinned slots than a heap looks at again in one search, and every one of them found in the end. */
static void test_pins(void **state)
{
    (void)state;
    enum { SLOTS = 300 };
    for (size_t i = 0; i == 0 || eviction_at(i - 1); i++) {
        const eviction *policy = i == 0 ? &eviction_belady : eviction_at(i - 1);
        void *order = calloc(1, policy->bytes(SLOTS, SLOTS));
        assert_non_null(order);
        policy->start(order, SLOTS, SLOTS);
        uint32_t next[1] = {0};
        if (i == 0) eviction_belady_future(order, NULL, 0, next);
        assert_int_equal(policy->victim(order, nothing_moves, NULL), EVICTION_NONE);
        for (uint32_t slot = 0; slot < SLOTS; slot++) policy->insert(order, slot, slot);
        assert_int_equal(policy->victim(order, nothing_moves, NULL), EVICTION_NONE);
        for (uint32_t k = 0; k < SLOTS; k++) {
            const uint32_t slot = k * 7 % SLOTS;
            assert_int_equal(policy->victim(order, only_one_moves, &slot), slot);
            policy->remove(order, slot, slot);
            if (k % 3 == 0) policy->insert(order, slot, slot);
            if (k % 3 == 0) policy->hit(order, slot, slot);
        }
        for (uint32_t k = 0; k < SLOTS / 3; k++) {
            const uint32_t slot = 3 * k * 7 % SLOTS;
            assert_int_equal(policy->victim(order, only_one_moves, &slot), slot);
            policy->remove(order, slot, slot);
        }
        assert_int_equal(policy->victim(order, nothing_moves, NULL), EVICTION_NONE);
        free(order);
    }
}

static void test_names(void **state)
{
    (void)state;
    const eviction *found;
    assert_ok(eviction_find(NULL, &found, &err), &err);
    assert_ptr_equal(found, eviction_at(0));
    for (size_t i = 0; eviction_at(i); i++) {
        assert_ok(eviction_find(eviction_at(i)->name, &found, &err), &err);
        assert_ptr_equal(found, eviction_at(i));
        assert_true(found->summary[0] != '\0');
    }
    assert_int_equal(eviction_find("fifo", &found, &err), MP_E_INVALID);
    assert_null(found);
    assert_non_null(strstr(err.message, "'fifo'"));
    for (size_t i = 0; eviction_at(i); i++) assert_non_null(strstr(err.message, eviction_at(i)->name));
    assert_int_equal(eviction_find("belady", &found, &err), MP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_adaptive),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
