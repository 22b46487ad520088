#include "store/cache_sim.h"

#include <stdlib.h>

#define SLOT_NONE UINT32_MAX

typedef struct sim {
    const record_trace *trace;
    const cache_sim_params *params;
    cache_sim_result *out;
    uint32_t n_parts; /* a unit stands for so many sub-experts */
    uint32_t per_layer;
    uint32_t n_held;     /* slots in use: they are filled in order, and a slot that was filled stays so */
    uint64_t claim;      /* number of the one that is open, from 1 */
    uint32_t *slot_of;   /* [units] SLOT_NONE: not in memory */
    uint32_t *unit_of;   /* [slots] */
    uint64_t *pinned_by; /* [slots] the claim that did so last */
    uint32_t *units;     /* [claimed] */
    uint32_t *next;      /* [claimed] for Belady's */
    void *order;         /* the policy's state */
} sim;

uint64_t cache_sim_all_bytes(const record_shape *shape)
{
    return shape->sub_bytes * shape->n_parts * shape->n_experts * shape->n_layers;
}

uint64_t cache_sim_least(const record_trace *t)
{
    uint32_t experts = 1;
    for (size_t i = 0; i < t->n; i++)
        if (t->steps[i].tokens <= 1 && t->steps[i].n_experts > experts) experts = t->steps[i].n_experts;
    return t->shape.sub_bytes * t->shape.n_parts * experts;
}

static uint32_t claim_of(const sim *s, const record_step *step, const uint32_t **ids)
{
    *ids = s->params->whole ? step->experts : step->subs;
    return s->params->whole ? step->n_experts : step->n_subs;
}

/* ---- set up ---- */

static uint64_t count_tokens(const record_trace *t)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < t->n; i++)
        if (i == 0 || t->steps[i].step != t->steps[i - 1].step) tokens += t->steps[i].tokens;
    return tokens;
}

static mp_status count_units(sim *s, mp_error *err)
{
    const record_shape *shape = &s->trace->shape;
    cache_sim_result *r = s->out;
    const uint64_t least = cache_sim_least(s->trace);
    if (s->params->memory < least)
        return status_fail(err, MP_E_LIMIT,
                           "%llu bytes do not hold what one token uses in a layer; it takes %llu bytes, %.1f %% of all",
                           (unsigned long long)s->params->memory, (unsigned long long)least,
                           100 * (double)least / (double)cache_sim_all_bytes(shape));
    s->n_parts = s->params->whole ? shape->n_parts : 1;
    s->per_layer = shape->n_experts * (shape->n_parts / s->n_parts);
    r->unit_bytes = shape->sub_bytes * s->n_parts;
    r->units = s->per_layer * shape->n_layers;
    const uint64_t slots = s->params->memory / r->unit_bytes;
    r->slots = slots < r->units ? (uint32_t)slots : r->units;
    r->tokens = count_tokens(s->trace);
    for (size_t i = 0; i < s->trace->n; i++) {
        const uint32_t *ids;
        r->claimed += claim_of(s, &s->trace->steps[i], &ids);
    }
    if (r->claimed >= UINT32_MAX) return status_fail(err, MP_E_LIMIT, "a record of more than %u uses", UINT32_MAX);
    return MP_OK;
}

static mp_status make_room(sim *s, mp_error *err)
{
    const cache_sim_result *r = s->out;
    const size_t order = s->params->policy->bytes(r->slots, r->units);
    s->slot_of = malloc(r->units * sizeof *s->slot_of);
    s->unit_of = calloc(r->slots, sizeof *s->unit_of);
    s->pinned_by = calloc(r->slots, sizeof *s->pinned_by);
    s->units = malloc((r->claimed + 1) * sizeof *s->units);
    s->next = malloc((r->claimed + 1) * sizeof *s->next);
    s->order = order ? calloc(1, order) : NULL;
    if (!s->slot_of || !s->unit_of || !s->pinned_by || !s->units || !s->next || !s->order)
        return status_no_memory(err, order + (size_t)r->claimed * 2 * sizeof *s->units, "the simulation of a cache");
    for (uint32_t unit = 0; unit < r->units; unit++) s->slot_of[unit] = SLOT_NONE;
    return MP_OK;
}

static void start_policy(sim *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->trace->n; i++) {
        const record_step *step = &s->trace->steps[i];
        const uint32_t *ids, count = claim_of(s, step, &ids);
        for (uint32_t k = 0; k < count; k++) s->units[n++] = step->layer * s->per_layer + ids[k];
    }
    s->params->policy->start(s->order, s->out->slots, s->out->units);
    if (s->params->policy == &eviction_belady) eviction_belady_future(s->order, s->units, n, s->next);
}

/* ---- run ---- */

static bool movable(const void *user, uint32_t slot)
{
    const sim *s = user;
    return s->pinned_by[slot] != s->claim;
}

static uint32_t find_room(sim *s)
{
    if (s->n_held < s->out->slots) return s->n_held++;
    const uint32_t slot = s->params->policy->victim(s->order, movable, s), unit = s->unit_of[slot];
    s->params->policy->remove(s->order, slot, unit);
    s->slot_of[unit] = SLOT_NONE;
    s->out->evictions++;
    return slot;
}

/* n <= slots, so room for it can always be made. */
static void run_claim(sim *s, const uint32_t *units, uint32_t n)
{
    s->claim++;
    for (uint32_t i = 0; i < n; i++)
        if (s->slot_of[units[i]] != SLOT_NONE) s->pinned_by[s->slot_of[units[i]]] = s->claim;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t unit = units[i], slot = s->slot_of[unit];
        if (slot != SLOT_NONE) {
            s->params->policy->hit(s->order, slot, unit);
            continue;
        }
        const uint32_t room = find_room(s);
        s->slot_of[unit] = room;
        s->unit_of[room] = unit;
        s->pinned_by[room] = s->claim;
        s->params->policy->insert(s->order, room, unit);
        s->out->misses++;
    }
}

static void run_all(sim *s)
{
    const uint32_t *units = s->units;
    for (size_t i = 0; i < s->trace->n; i++) {
        const uint32_t *ids, count = claim_of(s, &s->trace->steps[i], &ids);
        for (uint32_t k = 0, n; k < count; k += n, units += n) {
            n = count - k < s->out->slots ? count - k : s->out->slots;
            run_claim(s, units, n);
        }
    }
}

static void report(cache_sim_result *r, const cache_sim_params *p)
{
    const double tokens = r->tokens ? (double)r->tokens : 1, bytes = (double)r->misses * (double)r->unit_bytes;
    r->hit_rate = r->claimed ? 1 - (double)r->misses / (double)r->claimed : 0;
    r->bytes_per_token = bytes / tokens;
    r->stall_per_token = (bytes / p->bandwidth + (double)r->misses * p->latency) / tokens;
}

mp_status cache_sim(const record_trace *t, const cache_sim_params *p, cache_sim_result *out, mp_error *err)
{
    *out = (cache_sim_result){0};
    sim s = {.trace = t, .params = p, .out = out};
    MP_TRY(count_units(&s, err));
    const mp_status status = make_room(&s, err);
    if (status == MP_OK) {
        start_policy(&s);
        run_all(&s);
        report(out, p);
    }
    free(s.slot_of);
    free(s.unit_of);
    free(s.pinned_by);
    free(s.units);
    free(s.next);
    free(s.order);
    return status;
}
