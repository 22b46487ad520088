/* The store: a fixed number of equally large slots, filled from the file as units are claimed. This file opens and
 * closes it; claim.c and reads.c are what it does. All memory is taken here. */
#include "store/store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/slots.h"
#include "store/store_impl.h"

#define DEFAULT_DEPTH 128u
#define MAX_DEPTH     4096u

/* ---- what stays for good ---- */

typedef struct used_unit {
    float use;
    uint32_t unit;
} used_unit;

static int most_used_first(const void *a, const void *b)
{
    const used_unit *x = a, *y = b;
    if (x->use != y->use) return x->use < y->use ? 1 : -1;
    return x->unit < y->unit ? -1 : x->unit > y->unit;
}

/* Marks the units used most, leaving `least` slots that move. */
static mp_status mark_fixed(store *s, const store_params *params, uint32_t least, mp_error *err)
{
    if (!params->use || !(params->pin_share > 0)) return MP_OK;
    const double share = params->pin_share < 1 ? params->pin_share : 1;
    uint32_t n = (uint32_t)(share * s->n_slots);
    if (n > s->n_slots - least) n = s->n_slots - least;
    used_unit *units = calloc(s->n_units, sizeof *units);
    if (!units) return status_no_memory(err, s->n_units * sizeof *units, "the use of sub-experts");
    for (uint32_t i = 0; i < s->n_units; i++) units[i] = (used_unit){.use = params->use[i], .unit = i};
    qsort(units, s->n_units, sizeof *units, most_used_first);
    for (uint32_t i = 0; i < n && units[i].use > 0; i++) s->fixed[units[i].unit] = true;
    free(units);
    return MP_OK;
}

/* ---- the file ---- */

static mp_status check_file(const store *s, uint32_t i, const file_stamp *expected, mp_error *err)
{
    source *x = &s->sources[i];
    x->opened = *expected;
    if (!file_has_stamp(s->fds[i], expected))
        return status_fail(err, MP_E_CHANGED,
                           "%s: the file was replaced or changed since the model was opened; open it again", x->path);
    const uint64_t end = slots_file_end(&s->shape, i);
    if (expected->bytes < end)
        return status_fail(err, MP_E_FORMAT, "%s: %llu bytes, but sub-experts end at %llu: the file was cut", x->path,
                           (unsigned long long)expected->bytes, (unsigned long long)end);
    return MP_OK;
}

static void close_files(store *s)
{
    for (uint32_t i = 0; i < s->n_sources; i++) {
        if (s->fds[i] >= 0) close(s->fds[i]);
        s->fds[i] = -1;
    }
}

/* s->align is what all of them allow. */
static mp_status try_files(store *s, bool direct, mp_error *err)
{
    bool all_direct = direct;
    uint32_t most = 1;
    for (uint32_t i = 0; i < s->n_sources; i++) {
        uint32_t align;
        MP_TRY(io_file_open(s->sources[i].path, direct, &s->fds[i], &align, err));
        if (align == 1) all_direct = false;
        if (align > most) most = align;
    }
    s->align = !all_direct ? 1 : most > s->block ? most : s->block;
    return MP_OK;
}

/* One alignment holds for all: where a file cannot be read directly, none is. Nor are disks of large sectors, but for
 * files that are made for them. */
static mp_status open_files(store *s, const store_file *files, mp_error *err)
{
    const bool direct = s->block > 1;
    MP_TRY(try_files(s, direct, err));
    const bool fits = s->align <= s->block || slots_lie_on(&s->shape, s->align);
    if (direct && (!fits || (s->align == 1 && s->n_sources > 1))) {
        close_files(s);
        MP_TRY(try_files(s, false, err));
    }
    for (uint32_t i = 0; i < s->n_sources; i++) MP_TRY(check_file(s, i, files[i].expected, err));
    return MP_OK;
}

/* Names of the files, and room for what is to be known of them. */
static mp_status copy_files(store *s, const store_shape *shape, mp_error *err)
{
    for (uint32_t i = 0; i < shape->n_layers * shape->n_parts; i++)
        if (shape->parts[i].file >= shape->n_files)
            return status_fail(err, MP_E_INVALID, "a part in file %u of %u", shape->parts[i].file, shape->n_files);
    s->sources = calloc(shape->n_files, sizeof *s->sources);
    s->fds = malloc(shape->n_files * sizeof *s->fds);
    if (!s->sources || !s->fds) return status_no_memory(err, shape->n_files * sizeof *s->sources, "a list of files");
    for (uint32_t i = 0; i < shape->n_files; i++) {
        s->fds[i] = -1;
        s->sources[i].path = strdup(shape->files[i].path);
        s->n_sources++;
        if (!s->sources[i].path) return status_no_memory(err, strlen(shape->files[i].path) + 1, "a file's name");
    }
    s->shape.files = NULL;
    s->shape.n_files = 0;
    return MP_OK;
}

/* ---- the backend ---- */

static void note(char *notice, const char *text)
{
    const size_t used = strlen(notice);
    snprintf(notice + used, MP_ERROR_MAX - used, "%s%s", used ? "; " : "", text);
}

static mp_status open_backend(store *s, const io_class *backend, const io_setup *setup, mp_error *err)
{
    s->io_class = backend;
    return backend->open(setup, &s->io, err);
}

static mp_status choose_backend(store *s, const store_params *params, char *notice, mp_error *err)
{
    const io_setup setup = {
        .fds = s->fds,
        .n_files = s->n_sources,
        .align = s->align,
        .arena = s->data,
        .arena_bytes = s->n_slots * s->slot_bytes,
        .depth = s->depth,
        .user = params->io_user,
    };
    if (params->io) return open_backend(s, params->io, &setup, err);
    if (params->backend) {
        const io_class *named;
        MP_TRY(io_find(params->backend, &named, err));
        return open_backend(s, named, &setup, err);
    }
    mp_status status = MP_E_UNSUPPORTED;
    mp_error why = {0};
    for (size_t i = 0; status == MP_E_UNSUPPORTED && io_at(i); i++) {
        if (why.message[0]) {
            char text[MP_ERROR_MAX];
            snprintf(text, sizeof text, "%.300s: reading with %s", why.message, io_at(i)->name);
            note(notice, text);
        }
        status = open_backend(s, io_at(i), &setup, &why);
    }
    if (status != MP_OK) return status_fail(err, status, "%s", why.message);
    return MP_OK;
}

/* ---- memory ---- */

static void lay_out_tables(store *s, arena *a)
{
    const size_t n_parts = (size_t)s->shape.n_layers * s->shape.n_parts;
    store_part *parts = arena_take(a, n_parts, sizeof *parts);
    s->slots = arena_take(a, s->n_slots, sizeof *s->slots);
    s->slot_of = arena_take(a, s->n_units, sizeof *s->slot_of);
    s->fixed = arena_take(a, s->n_units, sizeof *s->fixed);
    s->links = arena_take(a, s->n_slots, sizeof *s->links);
    s->free = arena_take(a, s->n_slots, sizeof *s->free);
    s->queue = arena_take(a, s->n_slots, sizeof *s->queue);
    s->batch = arena_take(a, s->depth, sizeof *s->batch);
    s->arrivals = arena_take(a, s->depth, sizeof *s->arrivals);
    s->order = arena_take(a, 1, s->policy->bytes(s->n_slots, s->n_units));
    if (parts) s->shape.parts = memcpy(parts, s->shape.parts, n_parts * sizeof *parts);
}

static mp_status take_memory(store *s, mp_error *err)
{
    if (s->policy->bytes(s->n_slots, s->n_units) == 0)
        return status_fail(err, MP_E_LIMIT, "%s cannot keep order among %u slots", s->policy->name, s->n_slots);
    lay_out_tables(s, &s->tables);
    MP_TRY(arena_reserve(&s->tables, "the store's tables", err));
    lay_out_tables(s, &s->tables);
    arena_take(&s->memory, s->n_slots, s->slot_bytes);
    MP_TRY(arena_reserve(&s->memory, "sub-experts; lower the cap", err));
    s->data = arena_take(&s->memory, s->n_slots, s->slot_bytes);
    for (uint32_t p = 0; p + 1 < s->shape.n_parts; p++)
        s->column_start[p + 1] = s->column_start[p] + s->n_slots * s->column_bytes[p];
    for (uint32_t i = 0; i < s->n_units; i++) s->slot_of[i] = STORE_NONE;
    for (uint32_t i = s->n_slots; i--;) s->free[s->n_free++] = i;
    s->policy->start(s->order, s->n_slots, s->n_units);
    slot_list_init(&s->guesses);
    return MP_OK;
}

static mp_status count_slots(store *s, uint64_t memory, uint32_t least, mp_error *err)
{
    s->n_units = s->shape.n_layers * s->shape.n_subs;
    s->block = slots_align(&s->shape);
    s->slot_bytes = slots_bytes(&s->shape);
    for (uint32_t p = 0; p < s->shape.n_parts; p++) s->column_bytes[p] = slots_column(&s->shape, p);
    const uint64_t fit = memory / s->slot_bytes;
    s->n_slots = fit < s->n_units ? (uint32_t)fit : s->n_units;
    if (s->n_slots >= least) {
        if (s->n_slots <= SIZE_MAX / s->slot_bytes) return MP_OK;
        return status_fail(err, MP_E_LIMIT, "%llu bytes are more than a process can have", (unsigned long long)memory);
    }
    const uint64_t needed = store_memory_for(&s->shape, least);
    return status_fail(
        err, MP_E_LIMIT,
        "%llu bytes hold %u sub-experts, but up to %u are used at once: that takes at least %.1f MiB (%llu "
        "bytes)",
        (unsigned long long)memory, s->n_slots, least, (double)needed / 1048576, (unsigned long long)needed);
}

/* ---- the whole ---- */

static void init_lock(store *s)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
}

static mp_status open_parts(store *s, const store_shape *shape, const store_params *params, uint32_t least,
                            char *notice, mp_error *err)
{
    MP_TRY(slots_check(shape, err));
    MP_TRY(copy_files(s, shape, err));
    const uint32_t units = s->shape.n_layers * s->shape.n_subs;
    least = least < 1 ? 1 : least < units ? least : units;
    if (s->depth > MAX_DEPTH)
        return status_fail(err, MP_E_INVALID, "%u reads in flight: at most %u", s->depth, MAX_DEPTH);
    MP_TRY(eviction_find(params->eviction, &s->policy, err));
    MP_TRY(count_slots(s, params->memory, least, err));
    MP_TRY(open_files(s, shape->files, err));
    if (s->block > 1 && s->align == 1)
        note(notice, "the file system refuses direct reads: reading through the page cache");
    MP_TRY(take_memory(s, err));
    MP_TRY(mark_fixed(s, params, least, err));
    return choose_backend(s, params, notice, err);
}

mp_status store_open(const store_shape *shape, const store_params *params, uint32_t least, store **out, char *notice,
                     mp_error *err)
{
    *out = NULL;
    notice[0] = 0;
    store *s = calloc(1, sizeof *s);
    if (!s) return status_no_memory(err, sizeof *s, "the store");
    init_lock(s);
    s->shape = *shape;
    s->ahead_most = 1;
    s->depth = params->depth ? params->depth : DEFAULT_DEPTH;
    const mp_status status = open_parts(s, shape, params, least, notice, err);
    if (status == MP_OK)
        *out = s;
    else
        store_close(s);
    return status;
}

void store_close(store *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    assert(s->stats.pinned == 0);
    while (s->in_flight) reads_wait(s, 0);
    pthread_mutex_unlock(&s->lock);
    if (s->io) s->io_class->close(s->io);
    arena_clear(&s->memory);
    arena_clear(&s->tables);
    close_files(s);
    for (uint32_t i = 0; i < s->n_sources; i++) free(s->sources[i].path);
    free(s->sources);
    free(s->fds);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- questions ---- */

uint32_t store_slots(const store *s)
{
    return s->n_slots;
}

bool store_is_resident(store *s, uint32_t unit)
{
    pthread_mutex_lock(&s->lock);
    const uint32_t at = s->slot_of[unit];
    const bool resident = at != STORE_NONE && s->slots[at].state == SLOT_RESIDENT;
    pthread_mutex_unlock(&s->lock);
    return resident;
}

store_stats store_get_stats(store *s)
{
    pthread_mutex_lock(&s->lock);
    store_stats stats = s->stats;
    pthread_mutex_unlock(&s->lock);
    stats.slots = s->n_slots;
    stats.slot_bytes = s->slot_bytes;
    return stats;
}

const char *store_backend(const store *s)
{
    return s->io_class->name;
}

const char *store_eviction(const store *s)
{
    return s->policy->name;
}
