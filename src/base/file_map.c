/* Mapped files, and how their pages become memory of our own.
 *
 * A page of a mapping is the file's: whoever cuts the file takes it away, and the next access kills the process. A copy
 * cannot be lost. It is read into memory elsewhere and then moved over the mapping, so that whoever holds a pointer
 * sees one or the other, and never a page that is still being filled. */
#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pool.h"

#define COPY_PIECE ((size_t)2 << 20)
#define COPY_WAVE  ((size_t)64 << 20) /* from one tick to the next */
#define HUGE_PAGE  ((size_t)2 << 20)

/* ---- stamps ---- */

bool file_stamp_take(int fd, file_stamp *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return false;
    *out = (file_stamp){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec,
                        (int64_t)st.st_mtim.tv_nsec};
    return true;
}

bool file_stamp_equals(const file_stamp *a, const file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->modified_s == b->modified_s &&
           a->modified_ns == b->modified_ns;
}

bool file_has_stamp(int fd, const file_stamp *stamp)
{
    file_stamp now;
    return file_stamp_take(fd, &now) && file_stamp_equals(&now, stamp);
}

/* ---- mappings ---- */

static mp_status map_fd(const char *path, file_map *map, mp_error *err)
{
    struct stat st;
    if (fstat(map->fd, &st) != 0 || !file_stamp_take(map->fd, &map->stamp))
        return status_fail_errno(err, errno, "open", path);
    if (S_ISDIR(st.st_mode)) return status_fail(err, MP_E_IO, "cannot open %s: it is a directory; name a file", path);
    if (!S_ISREG(st.st_mode)) return status_fail(err, MP_E_IO, "cannot map %s: it is not a regular file", path);
    map->len = (size_t)map->stamp.bytes;
    if (map->len == 0) return MP_OK;
    void *data = mmap(NULL, map->len, PROT_READ, MAP_SHARED, map->fd, 0);
    if (data == MAP_FAILED) return status_fail_errno(err, errno, "map", path);
    map->data = data;
    return MP_OK;
}

mp_status file_map_open(const char *path, file_map *out, mp_error *err)
{
    *out = FILE_MAP_NONE;
    /* O_NONBLOCK: a pipe must be refused, not waited for */
    file_map map = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (map.fd < 0) return status_fail_errno(err, errno, "open", path);
    mp_status status = map_fd(path, &map, err);
    if (status != MP_OK) {
        close(map.fd);
        return status;
    }
    *out = map;
    return MP_OK;
}

void file_map_close(file_map *map)
{
    if (map->data) munmap((void *)map->data, map->len);
    if (map->fd >= 0) close(map->fd);
    *map = FILE_MAP_NONE;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void file_map_release(const file_map *map, const void *at, size_t len)
{
    if (map->has_copies || !map->data) return;
    const size_t before = (uintptr_t)at % page_bytes();
    if (len) madvise((uint8_t *)(uintptr_t)at - before, len + before, MADV_DONTNEED); /* advice: failing is harmless */
}

mp_status file_map_read(const file_map *map, const char *path, uint64_t offset, size_t len, void *to, mp_error *err)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = pread(map->fd, (uint8_t *)to + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return status_fail_errno(err, errno, "read", path);
        if (n == 0)
            return status_fail(err, MP_E_IO, "%s: ends after %llu of %zu bytes: it was cut", path,
                               (unsigned long long)(offset + done), map->len);
        done += (size_t)n;
    }
    return MP_OK;
}

/* ---- copies ---- */

typedef struct copy_job {
    file_map *map;
    const char *path;
    pool *pool; /* NULL: none */
    file_tick_fn tick;
    void *user;
    uint64_t done, total;
    mp_error *err;
} copy_job;

/* Bytes of the file that all threads read together, piece by piece. */
typedef struct copy_wave {
    const copy_job *job;
    size_t begin, len;
    uint8_t *to;
    atomic_bool failed;
} copy_wave;

static void read_piece(void *arg, size_t piece, unsigned thread)
{
    (void)thread;
    copy_wave *w = arg;
    mp_error ignored;
    const size_t at = piece * COPY_PIECE, left = w->len - at, n = left < COPY_PIECE ? left : COPY_PIECE;
    if (file_map_read(w->job->map, w->job->path, w->begin + at, n, w->to + at, &ignored)) w->failed = true;
}

/* What failed on some thread is tried once more on this one, which says why. */
static mp_status read_wave(const copy_job *j, size_t begin, size_t len, uint8_t *to)
{
    copy_wave w = {.job = j, .begin = begin, .len = len, .to = to, .failed = !j->pool};
    if (j->pool) pool_for(j->pool, (len + COPY_PIECE - 1) / COPY_PIECE, read_piece, &w);
    return w.failed ? file_map_read(j->map, j->path, begin, len, to, j->err) : MP_OK;
}

static mp_status copy_in(copy_job *j, size_t begin, size_t end, uint8_t *to)
{
    for (size_t at = begin; at < end;) {
        const size_t left = end - at, n = left < COPY_WAVE ? left : COPY_WAVE;
        MP_TRY(read_wave(j, at, n, to + (at - begin)));
        at += n;
        j->done += n;
        if (j->tick && !j->tick(j->user, j->done, j->total))
            return status_fail(j->err, MP_E_INTERRUPTED, "interrupted");
    }
    return MP_OK;
}

/* New memory of whole pages that lies among huge pages as `like` does, so that it can move there without being cut into
 * small ones. NULL: there is none. */
static uint8_t *take_like(const uint8_t *like, size_t bytes)
{
    const size_t slack = bytes < HUGE_PAGE ? 0 : HUGE_PAGE;
    uint8_t *area = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return NULL;
    const size_t before = slack ? ((uintptr_t)like - (uintptr_t)area) % slack : 0;
    if (before) munmap(area, before);
    if (slack > before) munmap(area + before + bytes, slack - before);
    madvise(area + before, bytes, MADV_HUGEPAGE); /* advice: failing is harmless */
    return area + before;
}

/* The pages of bytes [begin, end), where begin is the first of a page and end that of another or the file's. */
static mp_status copy_pages(copy_job *j, size_t begin, size_t end)
{
    const size_t page = page_bytes(), bytes = (end - begin + page - 1) / page * page;
    uint8_t *const place = (uint8_t *)(uintptr_t)j->map->data + begin, *copy = take_like(place, bytes);
    if (!copy) return status_no_memory(j->err, bytes, j->path);
    mp_status status = copy_in(j, begin, end, copy);
    if (!status && !file_has_stamp(j->map->fd, &j->map->stamp))
        status =
            status_fail(j->err, MP_E_CHANGED, "%s: the file was changed since it was opened; open it again", j->path);
    if (!status) {
        mprotect(copy, bytes, PROT_READ);
        j->map->has_copies = true;
        if (mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED)
            status = status_no_memory(j->err, bytes, j->path);
    }
    if (status) munmap(copy, bytes);
    return status;
}

/* Whole pages of the mapping within a range, as offsets; false where there are none. */
static bool whole_pages(const file_map *map, const file_bytes *range, size_t *begin, size_t *end)
{
    const uintptr_t page = page_bytes(), base = (uintptr_t)map->data, at = (uintptr_t)range->at;
    if (at < base || at - base >= map->len || range->len > map->len - (at - base)) return false;
    *begin = (at - base + page - 1) / page * page;
    *end = (at - base + range->len) / page * page;
    return *begin < *end;
}

/* Picked pages without a gap, as offsets, and where to look for the next ones. Zeroed: before the first. */
typedef struct stretch {
    size_t begin, end;
    size_t range, behind; /* ranges and bytes that are done with */
} stretch;

static bool next_stretch(const file_map *map, const file_pick *pick, stretch *s)
{
    size_t begin, end;
    while (s->range < pick->n) {
        if (!whole_pages(map, &pick->ranges[s->range++], &begin, &end)) continue;
        s->begin = pick->only ? begin : s->behind;
        s->end = pick->only ? end : begin;
        s->behind = end;
        if (s->begin < s->end) return true;
    }
    s->begin = pick->only ? map->len : s->behind;
    s->end = s->behind = map->len;
    return s->begin < s->end;
}

uint64_t file_map_copy_bytes(const file_map *map, const file_pick *pick)
{
    uint64_t total = 0;
    for (stretch s = {0}; next_stretch(map, pick, &s);) total += s.end - s.begin;
    return total;
}

/* Pages that are left, of a mapping of which all others are copied. */
static void drop(const file_map *map, size_t begin, size_t end)
{
    if (begin < end)
        madvise((uint8_t *)(uintptr_t)map->data + begin, end - begin, MADV_DONTNEED); /* advice, as above */
}

mp_status file_map_copy(file_map *map, const char *path, const file_pick *pick, pool *p, file_tick_fn tick, void *user,
                        mp_error *err)
{
    copy_job job = {.map = map,
                    .path = path,
                    .pool = p,
                    .tick = tick,
                    .user = user,
                    .total = file_map_copy_bytes(map, pick),
                    .err = err};
    size_t at = 0;
    for (stretch s = {0}; next_stretch(map, pick, &s); at = s.end) {
        if (!pick->only) drop(map, at, s.begin);
        MP_TRY(copy_pages(&job, s.begin, s.end));
    }
    if (!pick->only) drop(map, at, map->len);
    return MP_OK;
}

mp_status file_map_write_protect(const file_map *map, const char *path, const file_pick *pick, bool on, mp_error *err)
{
    const int how = on ? PROT_READ : PROT_READ | PROT_WRITE;
    for (stretch s = {0}; next_stretch(map, pick, &s);)
        if (mprotect((uint8_t *)(uintptr_t)map->data + s.begin, s.end - s.begin, how) != 0)
            return status_fail_errno(err, errno, "protect memory of", path);
    return MP_OK;
}
