/* Experts from disk: the work of one layer, where a store holds some of the weights and the file all of them.
 *
 * The sub-experts of a layer are claimed together, those with the best scores first, so that their reads are all on
 * their way before anything is computed; hidden rows are computed as weights arrive, in whatever order that is, and the
 * down product, whose sum has an order, when they are complete; meanwhile the disk reads ahead (moe_ahead.c). Where a
 * batch needs more than the store holds, as prompts do, the groups go through it in ascending waves: one is at work
 * while the next is being read. Either way a token's sub-experts are added up in ascending order, so results have the
 * bits of a mapped model's. */
#include <math.h>
#include <string.h>

#include "engine/moe_exec.h"

void moe_disk_layout(arena *a, moe_exec *m)
{
    const size_t subs = (size_t)m->shape.n_parts * m->shape.n_experts;
    moe_disk *d = &m->disk;
    d->order = arena_take(a, subs, sizeof *d->order);
    d->keys = arena_take(a, subs, sizeof *d->keys);
    if (!d->wanted) return;
    d->units = arena_take(a, subs, sizeof *d->units);
    d->todo = arena_take(a, subs, sizeof *d->todo);
    d->required = arena_take(a, subs, sizeof *d->required);
    d->swaps = arena_take(a, m->threads, sizeof *d->swaps);
    moe_ahead_layout(a, m);
    for (int i = 0; i < 2; i++) {
        d->claims[i].cap = (uint32_t)subs;
        d->claims[i].slot = arena_take(a, subs, sizeof *d->claims[i].slot);
        d->claims[i].ready = arena_take(a, subs, sizeof *d->claims[i].ready);
    }
}

/* ---- order ---- */

static void sift_down(uint64_t *keys, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && keys[child + 1] > keys[child]) child++;
        if (keys[root] >= keys[child]) return;
        const uint64_t swap = keys[root];
        keys[root] = keys[child];
        keys[child] = swap;
    }
}

/* Heapsort: in place, and nothing is allocated within a step (qsort may). */
void moe_sort_keys(uint64_t *keys, size_t n)
{
    for (size_t i = n / 2; i-- > 0;) sift_down(keys, i, n);
    for (size_t end = n; end-- > 1;) {
        const uint64_t swap = keys[0];
        keys[0] = keys[end];
        keys[end] = swap;
        sift_down(keys, 0, end);
    }
}

void moe_disk_order(moe_exec *m, const uint32_t *points)
{
    moe_disk *d = &m->disk;
    for (size_t g = 0; g < m->n_active; g++) {
        float best = -INFINITY;
        for (size_t p = m->group_start[m->active[g]]; p < m->group_start[m->active[g] + 1]; p++) {
            const float score = moe_exec_run_score(m, points, m->pair_token[p], m->pair_run[p]);
            if (score > best) best = score;
        }
        d->keys[g] = moe_score_key(best, (uint32_t)g);
    }
    moe_sort_keys(d->keys, m->n_active);
    for (size_t g = 0; g < m->n_active; g++) d->order[g] = (uint32_t)d->keys[g];
}

static void order_ascending(moe_exec *m)
{
    for (size_t g = 0; g < m->n_active; g++) m->disk.order[g] = (uint32_t)g;
}

/* ---- claims ---- */

static uint32_t unit_of(const moe_exec *m, const moe_layer *layer, uint32_t sub)
{
    return layer->number * m->shape.n_parts * m->shape.n_experts + sub;
}

/* Claims groups from disk.order[first] on, at most `most`; returns how many had room. */
static uint32_t claim_groups(moe_exec *m, const moe_layer *layer, store_claim *c, size_t first, size_t most, bool wait)
{
    moe_disk *d = &m->disk;
    const size_t left = m->n_active - first, n = left < most ? left : most;
    c->n = 0;
    if (n == 0) return 0;
    for (size_t i = first; i < first + n; i++) d->units[i] = unit_of(m, layer, m->active[d->order[i]]);
    return store_claim_begin(d->store, c, d->units + first, (uint32_t)n, wait);
}

/* Hidden rows of what has arrived since `done`. */
static void run_arrived(moe_exec *m, const moe_pass *pass, const store_claim *c, size_t first, uint32_t done)
{
    moe_disk *d = &m->disk;
    for (uint32_t i = done; i < c->n_ready; i++) {
        const uint32_t g = d->order[first + c->ready[i]];
        for (unsigned part = 0; part < MOE_PARTS && moe_part(pass->layer, part); part++)
            m->at[part][g] = store_data(d->store, c, c->ready[i], part);
        d->todo[i] = g;
    }
    moe_exec_hidden(m, pass, d->todo + done, c->n_ready - done);
}

/* ---- what arrives too late ---- */

/* Marks the sub-experts that a token may not lose: all that run where it has no floor below its point. */
static void require(moe_exec *m, const moe_pass *pass, size_t t)
{
    const moe_shape *s = &m->shape;
    const uint32_t full = moe_full_budget(s), floor = m->disk.floors[t];
    if (floor > pass->points[t])
        moe_exec_mark(m, pass->layer, t, floor, m->sort, m->keep);
    else
        memset(m->keep, 1, full);
    for (uint32_t i = 0; i < m->n_run[t]; i++) {
        const uint32_t run = m->run[t * full + i], expert = m->experts[t * s->n_used + run / s->n_parts];
        if (m->keep[run]) m->disk.required[expert * s->n_parts + run % s->n_parts] = 1;
    }
}

/* Leaves out the groups that have not arrived, unless one of them is required. */
static bool drop_missing(moe_exec *m, const moe_pass *pass, const store_claim *c)
{
    moe_disk *d = &m->disk;
    memset(d->required, 0, (size_t)m->shape.n_parts * m->shape.n_experts);
    for (size_t t = 0; t < pass->tokens; t++) require(m, pass, t);
    for (uint32_t i = 0; i < c->n; i++) d->todo[i] = 0;
    for (uint32_t i = 0; i < c->n_ready; i++) d->todo[d->order[c->ready[i]]] = 1; /* by group: here */
    for (size_t g = 0; g < m->n_active; g++)
        if (!d->todo[g] && d->required[m->active[g]]) return false;
    size_t kept = 0;
    for (size_t g = 0; g < m->n_active; g++) {
        const uint32_t sub = m->active[g];
        if (d->todo[g]) {
            for (unsigned part = 0; part < MOE_PARTS; part++) m->at[part][kept] = m->at[part][g];
            m->active[kept++] = sub;
            continue;
        }
        for (size_t p = m->group_start[sub]; p < m->group_start[sub + 1]; p++) {
            m->n_run[m->pair_token[p]]--;
            d->lost[m->pair_token[p]]++;
        }
        d->dropped += m->group_start[sub + 1] - m->group_start[sub];
    }
    m->n_active = kept;
    return true;
}

/* ---- the layer ---- */

/* Hidden rows of a claim whose groups begin at disk.order[first]. `until`: when what is missing may be dropped. */
static mp_status run_claim(moe_exec *m, const moe_pass *pass, store_claim *c, size_t first, uint64_t until,
                           mp_error *err)
{
    uint32_t done = 0;
    while (done < c->n) {
        if (c->n_ready == done) MP_TRY(store_claim_wait(m->disk.store, c, done, until, err));
        if (c->n_ready == done) { /* time is up */
            if (drop_missing(m, pass, c)) return MP_OK;
            MP_TRY(store_claim_wait(m->disk.store, c, done, 0, err));
        }
        if (c->n_ready == c->n) moe_ahead_start(m); /* the disk has nothing else to do */
        run_arrived(m, pass, c, first, done);
        done = c->n_ready;
    }
    return MP_OK;
}

static mp_status apply_at_once(moe_exec *m, const moe_pass *pass, store_claim *c, mp_error *err)
{
    moe_ahead_guess(m, pass);
    const mp_status status = run_claim(m, pass, c, 0, m->disk.until_ns, err);
    if (!status) moe_exec_down(m, pass, 0, m->n_active);
    store_claim_end(m->disk.store, c);
    return status;
}

static mp_status apply_in_waves(moe_exec *m, const moe_pass *pass, mp_error *err)
{
    store *s = m->disk.store;
    store_claim *now = &m->disk.claims[0], *next = &m->disk.claims[1];
    const size_t most = store_slots(s) > 1 ? store_slots(s) / 2 : 1;
    mp_status status = MP_OK;
    order_ascending(m);
    claim_groups(m, pass->layer, now, 0, most, true);
    for (size_t first = 0; first < m->n_active && !status;) {
        const size_t end = first + now->n;
        claim_groups(m, pass->layer, next, end, most, false);
        status = run_claim(m, pass, now, first, 0, err);
        if (!status) moe_exec_down(m, pass, first, end);
        store_claim_end(s, now);
        if (!status && next->n == 0) claim_groups(m, pass->layer, next, end, most, true);
        store_claim *const swap = now;
        now = next;
        next = swap;
        first = end;
    }
    if (status && now->n > 0) store_claim_end(s, now);
    return status;
}

mp_status moe_disk_apply(moe_exec *m, const moe_pass *pass, mp_error *err)
{
    store_claim *c = &m->disk.claims[0];
    if (m->n_active <= store_slots(m->disk.store)) {
        moe_disk_order(m, pass->points);
        if (claim_groups(m, pass->layer, c, 0, m->n_active, true) == m->n_active) return apply_at_once(m, pass, c, err);
        store_claim_end(m->disk.store,
                        c); /* others hold the rest, or reads that were given up are still on their way */
    }
    return apply_in_waves(m, pass, err);
}

/* ---- residency-aware selection ---- */

void moe_disk_prefer_resident(const moe_exec *m, const moe_layer *layer, size_t token, uint8_t *keep, unsigned thread)
{
    const moe_shape *s = &m->shape;
    const uint32_t full = moe_full_budget(s), *experts = m->experts + token * s->n_used;
    const float *scores = m->scores + token * full;
    uint64_t *resident = m->sort + (size_t)thread * full;
    for (uint32_t i = 0; i < full; i++) {
        const uint32_t sub = experts[i / s->n_parts] * s->n_parts + i % s->n_parts;
        resident[i] = store_is_resident(m->disk.store, unit_of(m, layer, sub));
    }
    for (;;) {
        uint32_t missing = UINT32_MAX, spare = UINT32_MAX; /* the worst that must be read, the best that need not */
        for (uint32_t i = 0; i < full; i++) {
            if (keep[i] && !resident[i] && (missing == UINT32_MAX || scores[i] < scores[missing])) missing = i;
            if (!keep[i] && resident[i] && (spare == UINT32_MAX || scores[i] > scores[spare])) spare = i;
        }
        if (missing == UINT32_MAX || spare == UINT32_MAX) return;
        if (scores[spare] < scores[missing] + m->disk.resident_margin) return;
        keep[missing] = 0;
        keep[spare] = 1;
        m->disk.swaps[thread]++;
    }
}
