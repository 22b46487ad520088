/* store_testing.h: files whose every byte is known, and a scripted I/O backend, for the tests of the store. */
#ifndef TESTS_STORE_TESTING_H
#define TESTS_STORE_TESTING_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/store.h"
#include "testing.h"

#define MS 1000000u /* ns */

/* ---- files ---- */

static inline uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)((offset * 0x9e3779b97f4a7c15u) >> 56);
}

/* A new file below `folder` of so many known bytes, those from `first` on; its name is in path [64]. */
static void UNUSED_OK make_known_file(const char *folder, uint64_t first, uint64_t bytes, char path[64])
{
    snprintf(path, 64, "%s/moeprism-store.XXXXXX", folder);
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "wb");
    assert_non_null(f);
    for (uint64_t i = 0; i < bytes; i++) putc(byte_at(first + i), f);
    assert_int_equal(fclose(f), 0);
}

/* ---- the scripted backend ---- */

#define FAKE_MAX 4096

typedef struct fake_io {
    /* the script, changed under the lock once the store is open */
    bool hold;                 /* nothing arrives */
    bool last_first;           /* what came last arrives first */
    uint32_t at_once;          /* results a reap gives at most; 0: all */
    uint64_t delay_ns;         /* before a reap gives anything */
    uint64_t bad_from, bad_to; /* reads that touch these bytes of the file fail: */
    int error;                 /* with this, where it is not 0, */
    uint32_t keep;             /* else after so many bytes */
    mp_status refuse;          /* what open() fails with */
    /* the record */
    uint32_t n_reads, most;
    uint64_t offsets[FAKE_MAX]; /* in the order of submission */
    bool closed;
    /* inside */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    io_setup setup;
    io_request waiting[FAKE_MAX];
    uint32_t n_waiting;
} fake_io;

static void UNUSED_OK fake_init(fake_io *f)
{
    pthread_condattr_t attr;
    memset(f, 0, sizeof *f);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->woken, &attr);
    pthread_condattr_destroy(&attr);
}

static void UNUSED_OK fake_clear(fake_io *f)
{
    pthread_cond_destroy(&f->woken);
    pthread_mutex_destroy(&f->lock);
}

static void UNUSED_OK fake_hold(fake_io *f, bool hold)
{
    pthread_mutex_lock(&f->lock);
    f->hold = hold;
    pthread_cond_broadcast(&f->woken);
    pthread_mutex_unlock(&f->lock);
}

static mp_status fake_open(const io_setup *setup, void **io, mp_error *err)
{
    fake_io *f = setup->user;
    *io = NULL;
    if (f->refuse) return status_fail(err, f->refuse, "refused by the script");
    f->setup = *setup;
    *io = f;
    return MP_OK;
}

static void fake_close(void *io)
{
    fake_io *f = io;
    assert_int_equal(f->n_waiting, 0);
    f->closed = true;
}

static void fake_submit(void *io, const io_request *requests, uint32_t n)
{
    fake_io *f = io;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < n; i++) {
        f->offsets[f->n_reads++ % FAKE_MAX] = requests[i].offset;
        f->waiting[f->n_waiting++] = requests[i];
    }
    if (f->n_waiting > f->most) f->most = f->n_waiting;
    pthread_cond_broadcast(&f->woken);
    pthread_mutex_unlock(&f->lock);
}

static io_result fake_read(const fake_io *f, const io_request *request)
{
    io_result result = io_read_rest(&f->setup, request, 0);
    if (request->offset >= f->bad_to || request->offset + request->bytes <= f->bad_from) return result;
    result.error = f->error;
    result.bytes = f->error ? 0 : f->keep;
    return result;
}

static uint32_t fake_reap(void *io, io_result *results, uint32_t cap, uint64_t wait_ns)
{
    fake_io *f = io;
    uint64_t until;
    if (__builtin_add_overflow(clock_now_ns(), wait_ns, &until)) until = INT64_MAX;
    const struct timespec limit = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
    if (f->delay_ns) nanosleep(&(struct timespec){.tv_nsec = (long)f->delay_ns}, NULL);
    pthread_mutex_lock(&f->lock);
    while ((f->hold || !f->n_waiting) && wait_ns)
        if (pthread_cond_timedwait(&f->woken, &f->lock, &limit)) break;
    if (f->at_once && f->at_once < cap) cap = f->at_once;
    uint32_t n = 0;
    while (!f->hold && n < cap && f->n_waiting) {
        const uint32_t which = f->last_first ? f->n_waiting - 1 : 0;
        results[n++] = fake_read(f, &f->waiting[which]);
        f->n_waiting--;
        memmove(&f->waiting[which], &f->waiting[which + 1], (f->n_waiting - which) * sizeof *f->waiting);
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

static const io_class fake_backend UNUSED_OK = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .submit = fake_submit,
    .reap = fake_reap,
};

/* ---- a store over a known file ---- */

#define RIG_MAX 512

typedef struct rig {
    char path[64], second[64];
    int fd, second_fd;
    file_stamp stamps[2];
    store_file files[2];
    store_shape shape;
    store_part parts[64];
    store_params params;
    fake_io fake;
    store *s;
    char notice[MP_ERROR_MAX];
    mp_error err;
} rig;

/* Layers of n_subs units in parts of `bytes`, the first at `offset`. */
static void UNUSED_OK rig_init(rig *r, const char *folder, uint32_t layers, uint32_t subs, uint32_t parts,
                               uint64_t bytes, uint64_t offset)
{
    memset(r, 0, sizeof *r);
    fake_init(&r->fake);
    for (uint32_t i = 0; i < layers * parts; i++) r->parts[i] = (store_part){offset + i * subs * bytes, bytes, 0};
    r->shape = (store_shape){layers, subs, parts, r->parts, 1, r->files};
    make_known_file(folder, 0, offset + (uint64_t)layers * parts * subs * bytes, r->path);
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    assert_true(r->fd >= 0 && file_stamp_take(r->fd, &r->stamps[0]));
    r->files[0] = (store_file){r->path, &r->stamps[0]};
    r->second_fd = -1;
    r->params = (store_params){.io = &fake_backend, .io_user = &r->fake, .eviction = "lru"};
}

/* The bytes of a second file are those of another place. */
#define SECOND_FILE ((uint64_t)1 << 40)

/* Of a rig that is not open: every second part goes to a second file, where it begins where the part before it ends in
 * the first. */
static void UNUSED_OK rig_split(rig *r, const char *folder)
{
    const uint32_t n_parts = r->shape.n_layers * r->shape.n_parts;
    uint64_t end = 0;
    for (uint32_t i = 1; i < n_parts; i += 2) {
        r->parts[i].file = 1;
        r->parts[i].offset = r->parts[i - 1].offset + r->parts[i].bytes;
        end = r->parts[i].offset + r->shape.n_subs * r->parts[i].bytes;
    }
    make_known_file(folder, SECOND_FILE, end, r->second);
    r->second_fd = open(r->second, O_RDONLY | O_CLOEXEC);
    assert_true(r->second_fd >= 0 && file_stamp_take(r->second_fd, &r->stamps[1]));
    r->files[1] = (store_file){r->second, &r->stamps[1]};
    r->shape.n_files = 2;
}

static mp_status UNUSED_OK rig_try(rig *r, uint32_t slots, uint32_t least)
{
    r->params.memory = store_memory_for(&r->shape, slots);
    return store_open(&r->shape, &r->params, least, &r->s, r->notice, &r->err);
}

static void UNUSED_OK rig_open(rig *r, uint32_t slots)
{
    assert_ok(rig_try(r, slots, 1), &r->err);
    assert_int_equal(store_slots(r->s), slots);
}

static void UNUSED_OK rig_clear(rig *r)
{
    store_close(r->s);
    close(r->fd);
    unlink(r->path);
    if (r->second_fd >= 0) {
        close(r->second_fd);
        unlink(r->second);
    }
    fake_clear(&r->fake);
}

/* A claim with its arrays. */
typedef struct big_claim {
    store_claim c;
    uint32_t slot[RIG_MAX], ready[RIG_MAX];
} big_claim;

static store_claim UNUSED_OK *claim_init(big_claim *b)
{
    b->c = (store_claim){.cap = RIG_MAX, .slot = b->slot, .ready = b->ready};
    return &b->c;
}

static bool UNUSED_OK part_is_right(const store_shape *shape, uint32_t unit, uint32_t part, const uint8_t *data)
{
    const store_part *p = &shape->parts[unit / shape->n_subs * shape->n_parts + part];
    const uint64_t offset = p->offset + unit % shape->n_subs * p->bytes;
    for (uint64_t i = 0; i < p->bytes; i++)
        if (data[i] != byte_at(p->file * SECOND_FILE + offset + i)) return false;
    return true;
}

/* Whether the i-th unit of the claim holds the file's bytes. */
static bool UNUSED_OK unit_is_right(const store *s, const store_shape *shape, const store_claim *c, uint32_t i,
                                    uint32_t unit)
{
    for (uint32_t p = 0; p < shape->n_parts; p++)
        if (!part_is_right(shape, unit, p, store_data(s, c, i, p))) return false;
    return true;
}

/* Claims, waits for all, compares, ends. */
static void UNUSED_OK rig_read(rig *r, const uint32_t *units, uint32_t n)
{
    big_claim b;
    store_claim *c = claim_init(&b);
    assert_int_equal(store_claim_begin(r->s, c, units, n, true), n);
    assert_ok(store_claim_wait(r->s, c, n, 0, &r->err), &r->err);
    assert_int_equal(c->n_ready, n);
    for (uint32_t i = 0; i < n; i++)
        if (!unit_is_right(r->s, &r->shape, c, i, units[i])) fail_msg("unit %u differs from the file", units[i]);
    store_claim_end(r->s, c);
}

#endif
