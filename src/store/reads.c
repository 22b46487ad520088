/* Reads of the store: what is wanted waits in a queue of slots, as much as the depth allows is in flight, and whoever
 * waits for something reaps for everyone. There is no thread of its own: a result is taken in when a claim begins or
 * waits.
 *
 * A file is looked at after data of it have arrived and before anybody sees them: a write sets the time of modification
 * first, so data that were read before an unchanged time are those of the file that was opened. A file that has changed
 * stays so; one that cannot be asked, as on a server that is away, fails what has arrived, and may be asked again. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "store/store_impl.h"

static const store_part *part_of(const store *s, uint32_t unit, uint32_t part)
{
    return &s->shape.parts[unit / s->shape.n_subs * s->shape.n_parts + part];
}

static uint64_t file_offset(const store *s, uint32_t unit, uint32_t part)
{
    const store_part *p = part_of(s, unit, part);
    return p->offset + unit % s->shape.n_subs * p->bytes;
}

/* The blocks around the part where reads are direct, else the part; either way its data land in the same place. */
static io_request request_for(const store *s, uint32_t at, uint32_t part)
{
    const uint32_t unit = s->slots[at].unit;
    const uint64_t offset = file_offset(s, unit, part), bytes = part_of(s, unit, part)->bytes;
    const uint64_t begin = offset / s->align * s->align;
    const uint64_t end = (offset + bytes + s->align - 1) / s->align * s->align;
    return (io_request){
        .offset = begin,
        .file = part_of(s, unit, part)->file,
        .bytes = (uint32_t)(end - begin),
        .tag = at * s->shape.n_parts + part,
        .to = store_place(s, at, part) + begin % s->block,
    };
}

/* ---- starting ---- */

void reads_queue(store *s, uint32_t at)
{
    s->queue[(s->queue_head + s->n_queue++) % s->n_slots] = at;
}

static void drop_head(store *s)
{
    s->queue_head = (s->queue_head + 1) % s->n_slots;
    s->n_queue--;
}

void reads_settle(store *s, uint32_t at)
{
    slot *x = &s->slots[at];
    if (x->state != SLOT_FAILED || x->pins || x->n_left) return;
    x->state = SLOT_FREE;
    s->free[s->n_free++] = at;
}

/* The queue's first slot, where it needs no (further) read: one that failed, or that everybody let go of in time. */
static bool skip_head(store *s)
{
    const uint32_t at = s->queue[s->queue_head];
    slot *x = &s->slots[at];
    if (x->state == SLOT_READING && (x->pins || x->n_started)) return false;
    if (x->state == SLOT_READING) store_forget(s, at);
    x->state = SLOT_FAILED;
    x->n_left -= s->shape.n_parts - x->n_started;
    drop_head(s);
    reads_settle(s, at);
    return true;
}

static void start_next(store *s, io_request *request)
{
    const uint32_t at = s->queue[s->queue_head];
    slot *x = &s->slots[at];
    *request = request_for(s, at, x->n_started++);
    if (x->n_started == s->shape.n_parts) drop_head(s);
    s->in_flight++;
    s->stats.depth_sum += s->in_flight;
    if (s->in_flight > s->stats.depth_max) s->stats.depth_max = s->in_flight;
}

void reads_start(store *s)
{
    uint32_t n = 0;
    while (s->n_queue) {
        if (skip_head(s)) continue;
        if (s->in_flight == s->depth) break;
        start_next(s, &s->batch[n++]);
    }
    if (n) s->io_class->submit(s->io, s->batch, n);
}

/* ---- arriving ---- */

static void fail(store *s, uint32_t at, uint32_t part, int error, uint32_t arrived)
{
    slot *x = &s->slots[at];
    if (x->state == SLOT_FAILED) return; /* the first fault is told */
    store_forget(s, at);
    x->state = SLOT_FAILED;
    x->failed_part = (uint8_t)part;
    x->error = error;
    x->failed_at = arrived;
}

static void land(store *s, const io_result *result)
{
    const uint32_t at = result->tag / s->shape.n_parts, part = result->tag % s->shape.n_parts;
    slot *x = &s->slots[at];
    const uint64_t before = file_offset(s, x->unit, part) % s->align;
    const uint64_t arrived = result->bytes > before ? result->bytes - before : 0;
    s->in_flight--;
    s->stats.reads++;
    s->stats.bytes_read += result->bytes;
    if (result->error)
        fail(s, at, part, result->error, (uint32_t)arrived);
    else if (s->changed_source)
        fail(s, at, part, READ_CHANGED, (uint32_t)arrived);
    else if (arrived < part_of(s, x->unit, part)->bytes)
        fail(s, at, part, READ_CUT, (uint32_t)arrived);
    if (--x->n_left) return;
    if (x->state == SLOT_READING) {
        x->state = SLOT_RESIDENT;
        s->stats.resident++;
    }
    reads_settle(s, at);
}

static source *source_of(const store *s, const io_result *arrival)
{
    const uint32_t unit = s->slots[arrival->tag / s->shape.n_parts].unit;
    return &s->sources[part_of(s, unit, arrival->tag % s->shape.n_parts)->file];
}

static bool has_changed(source *x, int fd)
{
    file_stamp now;
    x->unknown = file_stamp_take(fd, &now) ? 0 : errno;
    return x->unknown == ESTALE || (!x->unknown && !file_stamp_equals(&now, &x->opened));
}

/* Looks at the files that have had arrivals [n]; NULL where none has changed. */
static const source *find_changed(store *s, uint32_t n)
{
    const source *changed = NULL;
    for (uint32_t i = 0; i < n; i++) source_of(s, &s->arrivals[i])->has_arrived = true;
    for (uint32_t i = 0; i < s->n_sources; i++) {
        source *x = &s->sources[i];
        if (x->has_arrived && has_changed(x, s->fds[i])) changed = x;
        x->has_arrived = false;
    }
    for (uint32_t i = 0; i < n && !changed; i++)
        if (!s->arrivals[i].error) s->arrivals[i].error = source_of(s, &s->arrivals[i])->unknown;
    return changed;
}

/* What is in our slots need not be in the page cache as well, behind the cap's back. */
static void drop_cached(const store *s, const io_result *result)
{
    const io_request request = request_for(s, result->tag / s->shape.n_parts, result->tag % s->shape.n_parts);
    const uint64_t begin = request.offset / IO_ALIGN * IO_ALIGN;
    posix_fadvise(s->fds[request.file], (off_t)begin, (off_t)(request.offset + request.bytes + IO_ALIGN - begin),
                  POSIX_FADV_DONTNEED);
}

/* Reaps once, with the lock released meanwhile; the caller has seen that nobody else does. */
static void reap(store *s, uint64_t wait_ns)
{
    s->reaping = true;
    pthread_mutex_unlock(&s->lock);
    const uint32_t n = s->io_class->reap(s->io, s->arrivals, s->depth, wait_ns);
    const source *changed = n ? find_changed(s, n) : NULL;
    for (uint32_t i = 0; i < n && s->align == 1; i++) drop_cached(s, &s->arrivals[i]);
    pthread_mutex_lock(&s->lock);
    s->reaping = false;
    if (changed) s->changed_source = changed;
    for (uint32_t i = 0; i < n; i++) land(s, &s->arrivals[i]);
    reads_start(s);
    pthread_cond_broadcast(&s->changed);
}

void reads_poll(store *s)
{
    if (s->in_flight && !s->reaping) reap(s, 0);
}

bool reads_wait(store *s, uint64_t until_ns)
{
    const uint64_t now = clock_now_ns();
    if (until_ns && now >= until_ns) {
        reads_poll(s);
        return false;
    }
    if (s->in_flight && !s->reaping) {
        reap(s, until_ns ? until_ns - now : UINT64_MAX);
    } else if (until_ns) {
        const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                       .tv_nsec = (long)(until_ns % 1000000000u)};
        pthread_cond_timedwait(&s->changed, &s->lock, &until);
    } else {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    return true;
}

mp_status reads_error(const store *s, uint32_t at, mp_error *err)
{
    const slot *x = &s->slots[at];
    const unsigned long long offset = file_offset(s, x->unit, x->failed_part);
    const unsigned long long bytes = part_of(s, x->unit, x->failed_part)->bytes;
    const char *path = s->sources[part_of(s, x->unit, x->failed_part)->file].path;
    if (x->error == READ_CHANGED)
        return status_fail(err, MP_E_CHANGED, "%s: the file has changed while in use; open it again",
                           s->changed_source->path);
    if (x->error == READ_CUT)
        return status_fail(err, MP_E_IO, "%s: only %u of %llu bytes could be read at offset %llu: the file was cut",
                           path, x->failed_at, bytes, offset);
    return status_fail(err, MP_E_IO, "%s: cannot read %llu bytes at offset %llu: %s", path, bytes, offset,
                       strerror(x->error));
}
