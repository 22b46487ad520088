/* Claims: a unit that has a slot is pinned where it is, one that has none gets a slot and is read.
 *
 * A claim first pins everything that is there, so that making room for one of its units never costs it another. Where
 * room ends it lets go of what lies beyond the first unit without a slot; only a claim that could not even have its
 * first unit gives up its own later ones, last first, until that has room.
 *
 * Reading ahead is a claim that nobody waits for: its units keep their slots, but no pins. They are guesses, which the
 * policy hears of when a claim wants them, as if they had come only then; those that none wanted are the first to go.
 * How many they may be follows the disk: one more each time it was done before the next claim began, a quarter less
 * each time it was not. */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "store/store_impl.h"

static bool movable(const void *user, uint32_t at)
{
    const store *s = user;
    const slot *x = &s->slots[at];
    return x->state == SLOT_RESIDENT && !x->pins && !s->fixed[x->unit];
}

/* A slot with nothing in it, STORE_NONE where none can be had now. */
static uint32_t find_room(store *s)
{
    if (s->n_free) return s->free[--s->n_free];
    uint32_t at = slot_list_oldest(&s->guesses, s->links, movable, s);
    if (at == SLOT_NONE) at = s->policy->victim(s->order, movable, s);
    if (at == EVICTION_NONE) return STORE_NONE;
    assert(movable(s, at));
    store_forget(s, at);
    s->stats.resident--;
    s->stats.evictions++;
    return at;
}

static void pin(store *s, uint32_t at)
{
    if (s->slots[at].pins++ == 0) s->stats.pinned++;
}

static void unpin(store *s, uint32_t at)
{
    if (--s->slots[at].pins == 0) s->stats.pinned--;
    reads_settle(s, at);
}

/* The slot is one that may be given up, in its turn. */
static void enter_order(store *s, uint32_t at)
{
    const slot *x = &s->slots[at];
    if (s->fixed[x->unit]) return;
    if (x->ahead)
        slot_list_append(&s->guesses, s->links, at);
    else
        s->policy->insert(s->order, at, x->unit);
}

/* Puts a unit that has no slot into one, pinned, its reads queued. */
static void place(store *s, uint32_t at, uint32_t unit, bool ahead)
{
    s->slots[at] = (slot){.unit = unit, .state = SLOT_READING, .n_left = (uint8_t)s->shape.n_parts, .ahead = ahead};
    s->slot_of[unit] = at;
    pin(s, at);
    enter_order(s, at);
    reads_queue(s, at);
}

/* A claim wants a unit that is there. Had it not been guessed it would not be: so the policy is told. */
static void use(store *s, uint32_t at)
{
    slot *x = &s->slots[at];
    if (x->ahead) {
        store_leave_order(s, at);
        x->ahead = false;
        enter_order(s, at);
        s->stats.ahead_used++;
    } else if (!s->fixed[x->unit]) {
        s->policy->hit(s->order, at, x->unit);
    }
}

/* Units [i, n) of the list that were pinned because they were there; slot [n] says which. */
static void let_go(store *s, uint32_t *slots, uint32_t i, uint32_t n)
{
    for (; i < n; i++) {
        if (slots[i] == STORE_NONE) continue;
        unpin(s, slots[i]);
        slots[i] = STORE_NONE;
    }
}

static uint32_t room_for_first(store *s, uint32_t *slots, uint32_t n)
{
    uint32_t at = find_room(s);
    for (uint32_t last = n; at == STORE_NONE && last > 1; last--) {
        let_go(s, slots, last - 1, last);
        at = find_room(s);
    }
    return at;
}

static void count(store *s, uint32_t unit, bool hit)
{
    const store_part *parts = &s->shape.parts[unit / s->shape.n_subs * s->shape.n_parts];
    for (uint32_t p = 0; p < s->shape.n_parts; p++) s->stats.bytes_wanted += parts[p].bytes;
    if (hit)
        s->stats.hits++;
    else
        s->stats.misses++;
}

/* Pins or places the first units [n], as many as have room; returns how many, their slots in `slots`. */
static uint32_t take(store *s, uint32_t *slots, const uint32_t *units, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = s->slot_of[units[i]];
        if (slots[i] != STORE_NONE) pin(s, slots[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        const bool hit = slots[i] != STORE_NONE;
        if (hit) {
            use(s, slots[i]);
        } else {
            const uint32_t at = i == 0 ? room_for_first(s, slots, n) : find_room(s);
            if (at == STORE_NONE) {
                let_go(s, slots, i, n);
                return i;
            }
            place(s, at, units[i], false);
            slots[i] = at;
        }
        count(s, units[i], hit);
    }
    return n;
}

/* ready [n_ready] holds what has arrived, ready [n_ready, n) what has not, both in order. */
static mp_status collect(const store *s, store_claim *c, mp_error *err)
{
    for (uint32_t i = c->n_ready; i < c->n; i++) {
        const uint32_t unit = c->ready[i], at = c->slot[unit];
        if (s->slots[at].state == SLOT_FAILED) return reads_error(s, at, err);
        if (s->slots[at].state != SLOT_RESIDENT) continue;
        memmove(&c->ready[c->n_ready + 1], &c->ready[c->n_ready], (i - c->n_ready) * sizeof *c->ready);
        c->ready[c->n_ready++] = unit;
    }
    return MP_OK;
}

/* Whether the disk was done with what was read ahead when a claim began. */
static void judge_ahead(store *s)
{
    if (!s->ahead_open) return;
    s->ahead_open = false;
    if (s->in_flight)
        s->ahead_most -= s->ahead_most / 4 + (s->ahead_most > 1 && s->ahead_most < 4);
    else if (s->ahead_limited && s->ahead_most < s->depth)
        s->ahead_most++;
}

uint32_t store_claim_begin(store *s, store_claim *c, const uint32_t *units, uint32_t n, bool wait)
{
    assert(n <= c->cap && c->n == 0);
    c->n_ready = 0;
    pthread_mutex_lock(&s->lock);
    reads_poll(s);
    judge_ahead(s);
    while ((c->n = take(s, c->slot, units, n)) == 0 && n && wait) reads_wait(s, 0);
    reads_start(s);
    for (uint32_t i = 0; i < c->n; i++) c->ready[i] = i;
    collect(s, c, NULL); /* a failed one is told to who waits for it */
    pthread_mutex_unlock(&s->lock);
    return c->n;
}

mp_status store_claim_wait(store *s, store_claim *c, uint32_t seen, uint64_t until_ns, mp_error *err)
{
    mp_status status;
    uint64_t began = 0;
    bool in_time = true;
    pthread_mutex_lock(&s->lock);
    while ((status = collect(s, c, err)) == MP_OK && c->n_ready <= seen && c->n_ready < c->n && in_time) {
        if (!began) began = clock_now_ns();
        in_time = reads_wait(s, until_ns);
    }
    if (began) s->stats.stall_ns += clock_now_ns() - began;
    pthread_mutex_unlock(&s->lock);
    return status;
}

void store_claim_end(store *s, store_claim *c)
{
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < c->n; i++) unpin(s, c->slot[i]);
    c->n = c->n_ready = 0;
    reads_start(s);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Places units that have no slot, as many as may be; returns how many. */
static uint32_t place_ahead(store *s, const uint32_t *units, uint32_t n)
{
    const uint32_t free = s->n_queue ? 0 : (s->depth - s->in_flight) / s->shape.n_parts;
    const uint32_t most = s->ahead_most < free ? s->ahead_most : free;
    uint32_t begun = 0;
    s->ahead_limited = false;
    for (uint32_t i = 0; i < n && !s->ahead_limited; i++) {
        if (s->slot_of[units[i]] != STORE_NONE) continue;
        s->ahead_limited = begun == most;
        const uint32_t at = s->ahead_limited ? STORE_NONE : find_room(s);
        if (at == STORE_NONE) break;
        place(s, at, units[i], true);
        begun++;
    }
    return begun;
}

void store_read_ahead(store *s, const uint32_t *units, uint32_t n)
{
    pthread_mutex_lock(&s->lock);
    reads_poll(s);
    for (uint32_t i = 0; i < n; i++)
        if (s->slot_of[units[i]] != STORE_NONE) pin(s, s->slot_of[units[i]]);
    const uint32_t begun = place_ahead(s, units, n);
    reads_start(s);
    for (uint32_t i = 0; i < n; i++)
        if (s->slot_of[units[i]] != STORE_NONE) unpin(s, s->slot_of[units[i]]);
    s->stats.ahead += begun;
    s->ahead_open = begun > 0;
    pthread_mutex_unlock(&s->lock);
}

const uint8_t *store_data(const store *s, const store_claim *c, uint32_t i, uint32_t part)
{
    const uint32_t at = c->slot[i], unit = s->slots[at].unit;
    const store_part *p = &s->shape.parts[unit / s->shape.n_subs * s->shape.n_parts + part];
    const uint64_t offset = p->offset + unit % s->shape.n_subs * p->bytes;
    return store_place(s, at, part) + offset % s->block;
}
