/* Reads by io_uring: one system call starts many, and what has ended is seen without any.
 *
 * The arena and the files are registered where the system allows it (locked memory may be limited), which spares the
 * kernel to look them up and to pin pages for every read; nothing else depends on it. Sub-experts that are neighbours
 * in the file, as those of one expert are, are read as one, which disks do faster. Waiting with a limit must not touch
 * the submission side, which another thread may be using: kernels do that from 5.11 on, older ones are left to the
 * threads. */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "store/io.h"

#define CHUNK      ((size_t)1 << 30) /* the most that one registered buffer may hold */
#define MAX_CHUNKS 1024u             /* buffers; all kernels take so many */
#define NONE       UINT32_MAX
/* Neighbours in the file are read as one: so much of it, in so many pieces; and this many runs are looked back at,
 * since the parts of a sub-expert take turns. */
#define RUN_BYTES  ((uint64_t)1 << 20)
#define RUN_PIECES 16u
#define RUNS_OPEN  3u

typedef struct flight {
    io_request request;
    uint32_t next; /* of its run, or of the free ones */
} flight;

/* Requests of which each begins where the one before ends. */
typedef struct run {
    uint32_t first, last, n; /* flights */
    uint32_t file;
    uint64_t begin, end;
} run;

typedef struct uring_io {
    struct io_uring ring;
    io_setup setup;
    bool files_registered, arena_registered;
    pthread_mutex_t lock; /* of the flights: submitting takes, reaping gives back */
    flight *flights;      /* [depth] */
    uint32_t free;
    bool joins;           /* the kernel copies what describes a request when it is submitted */
    run *runs;            /* [depth] while submitting */
    struct iovec *pieces; /* [depth] of runs */
} uring_io;

static void register_arena(uring_io *u)
{
    const size_t n = (u->setup.arena_bytes + CHUNK - 1) / CHUNK;
    struct iovec *chunks = n <= MAX_CHUNKS ? calloc(n, sizeof *chunks) : NULL;
    if (!chunks) return;
    for (size_t i = 0; i < n; i++) {
        const size_t left = u->setup.arena_bytes - i * CHUNK;
        chunks[i] = (struct iovec){.iov_base = u->setup.arena + i * CHUNK, .iov_len = left < CHUNK ? left : CHUNK};
    }
    u->arena_registered = io_uring_register_buffers(&u->ring, chunks, (unsigned)n) == 0;
    free(chunks);
}

/* A filter of system calls may let the ring be made and forbid its use: one empty request decides. */
static int try_ring(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    if (!(ring->features & IORING_FEAT_EXT_ARG)) return -ENOSYS;
    io_uring_prep_nop(io_uring_get_sqe(ring));
    int n = io_uring_submit_and_wait(ring, 1);
    if (n < 0) return n;
    n = io_uring_wait_cqe(ring, &cqe);
    if (n == 0) io_uring_cqe_seen(ring, cqe);
    return n;
}

static mp_status make_ring(uring_io *u, mp_error *err)
{
    int error = io_uring_queue_init(u->setup.depth, &u->ring, 0);
    if (error == 0 && (error = try_ring(&u->ring)) != 0) io_uring_queue_exit(&u->ring);
    if (error) return status_fail(err, MP_E_UNSUPPORTED, "io_uring does not work here (%s)", strerror(-error));
    return MP_OK;
}

static mp_status make_flights(uring_io *u, mp_error *err)
{
    const uint32_t n = u->setup.depth;
    u->flights = calloc(n, sizeof *u->flights);
    u->runs = calloc(n, sizeof *u->runs);
    u->pieces = calloc(n, sizeof *u->pieces);
    if (!u->flights || !u->runs || !u->pieces)
        return status_no_memory(err, n * (sizeof *u->flights + sizeof *u->runs + sizeof *u->pieces), "reads in flight");
    for (uint32_t i = 0; i < n; i++) u->flights[i].next = i + 1;
    return MP_OK;
}

static void free_all(uring_io *u)
{
    free(u->flights);
    free(u->runs);
    free(u->pieces);
    free(u);
}

static mp_status uring_open(const io_setup *setup, void **io, mp_error *err)
{
    *io = NULL;
    uring_io *u = calloc(1, sizeof *u);
    if (!u) return status_no_memory(err, sizeof *u, "io_uring");
    u->setup = *setup;
    mp_status status = make_flights(u, err);
    if (status == MP_OK) status = make_ring(u, err);
    if (status != MP_OK) {
        free_all(u);
        return status;
    }
    u->joins = u->ring.features & IORING_FEAT_SUBMIT_STABLE;
    pthread_mutex_init(&u->lock, NULL);
    u->files_registered = io_uring_register_files(&u->ring, setup->fds, setup->n_files) == 0;
    register_arena(u);
    *io = u;
    return MP_OK;
}

static void uring_close(void *io)
{
    uring_io *u = io;
    io_uring_queue_exit(&u->ring);
    pthread_mutex_destroy(&u->lock);
    free_all(u);
}

/* Puts a request into a flight, and that into one of runs [n], a new one if need be; returns their number. */
static uint32_t add_to_runs(uring_io *u, uint32_t n, const io_request *request)
{
    const uint32_t i = u->free;
    assert(i < u->setup.depth);
    u->free = u->flights[i].next;
    u->flights[i] = (flight){.request = *request, .next = NONE};
    for (uint32_t r = n; u->joins && r > 0 && n - r < RUNS_OPEN; r--) {
        run *open = &u->runs[r - 1];
        if (open->file != request->file || open->end != request->offset || open->n == RUN_PIECES ||
            request->offset + request->bytes - open->begin > RUN_BYTES)
            continue;
        u->flights[open->last].next = i;
        open->last = i;
        open->n++;
        open->end += request->bytes;
        return n;
    }
    u->runs[n] = (run){i, i, 1, request->file, request->offset, request->offset + request->bytes};
    return n + 1;
}

/* Where the data of a run go: what is side by side in memory, too, is one piece. Returns their number. */
static uint32_t gather(const uring_io *u, const run *r, struct iovec *pieces)
{
    uint32_t n = 0;
    for (uint32_t i = r->first; i != NONE; i = u->flights[i].next) {
        const io_request *request = &u->flights[i].request;
        if (n > 0 && (uint8_t *)pieces[n - 1].iov_base + pieces[n - 1].iov_len == request->to)
            pieces[n - 1].iov_len += request->bytes;
        else
            pieces[n++] = (struct iovec){.iov_base = request->to, .iov_len = request->bytes};
    }
    return n;
}

/* One piece goes into the registered arena, several into a list; returns what of the list is free. */
static struct iovec *prepare(uring_io *u, const run *r, struct iovec *pieces)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    assert(sqe); /* the ring has room for all that may be in flight */
    const int fd = u->files_registered ? (int)r->file : u->setup.fds[r->file];
    const uint32_t n = gather(u, r, pieces), bytes = (uint32_t)(r->end - r->begin);
    const size_t at = (size_t)((uint8_t *)pieces[0].iov_base - u->setup.arena), chunk = at / CHUNK;
    if (n > 1)
        io_uring_prep_readv(sqe, fd, pieces, n, r->begin);
    else if (u->arena_registered && (at + bytes - 1) / CHUNK == chunk)
        io_uring_prep_read_fixed(sqe, fd, pieces[0].iov_base, bytes, r->begin, (int)chunk);
    else
        io_uring_prep_read(sqe, fd, pieces[0].iov_base, bytes, r->begin);
    if (u->files_registered) sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, r->first);
    return pieces + n;
}

static void uring_submit(void *io, const io_request *requests, uint32_t n)
{
    uring_io *u = io;
    struct iovec *pieces = u->pieces;
    uint32_t runs = 0;
    pthread_mutex_lock(&u->lock);
    for (uint32_t i = 0; i < n; i++) runs = add_to_runs(u, runs, &requests[i]);
    for (uint32_t i = 0; i < runs; i++) pieces = prepare(u, &u->runs[i], pieces);
    pthread_mutex_unlock(&u->lock);
    while (io_uring_sq_ready(&u->ring)) {
        const int error = io_uring_submit(&u->ring);
        assert(error >= 0 || error == -EINTR || error == -EAGAIN || error == -EBUSY);
        if (error < 0) sched_yield(); /* the kernel is short of memory for requests: others must end first */
    }
}

/* The requests of a run, whose flights are free then; returns their number. */
static uint32_t land(uring_io *u, uint32_t first, io_request *requests)
{
    uint32_t n = 0;
    pthread_mutex_lock(&u->lock);
    for (uint32_t i = first, next; i != NONE; i = next) {
        next = u->flights[i].next;
        requests[n++] = u->flights[i].request;
        u->flights[i].next = u->free;
        u->free = i;
    }
    pthread_mutex_unlock(&u->lock);
    return n;
}

/* Shares out what a run has read. The kernel may stop early or ask to come again: rare, so the rest is read right here.
 */
static void finish(const uring_io *u, const io_request *requests, uint32_t n, int res, io_result *results)
{
    uint32_t left = res > 0 ? (uint32_t)res : 0;
    const bool failed = n == 1 && res < 0 && res != -EINTR && res != -EAGAIN; /* of several: which, shows one by one */
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t done = left < requests[i].bytes ? left : requests[i].bytes;
        left -= done;
        results[i] =
            failed ? (io_result){.tag = requests[i].tag, .error = -res} : io_read_rest(&u->setup, &requests[i], done);
    }
}

/* `cap` is the depth: all that can be in flight has room. */
static uint32_t take_results(uring_io *u, io_result *results, uint32_t cap)
{
    struct io_uring_cqe *cqe;
    io_request requests[RUN_PIECES];
    uint32_t n = 0;
    while (n < cap && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        const int res = cqe->res;
        const uint32_t first = (uint32_t)io_uring_cqe_get_data64(cqe), count = land(u, first, requests);
        io_uring_cqe_seen(&u->ring, cqe);
        assert(n + count <= cap);
        finish(u, requests, count, res, results + n);
        n += count;
    }
    return n;
}

static uint32_t uring_reap(void *io, io_result *results, uint32_t cap, uint64_t wait_ns)
{
    uring_io *u = io;
    const uint32_t n = take_results(u, results, cap);
    if (n || !wait_ns) return n;
    struct io_uring_cqe *first;
    struct __kernel_timespec limit = {.tv_sec = (int64_t)(wait_ns / 1000000000u),
                                      .tv_nsec = (long long)(wait_ns % 1000000000u)};
    io_uring_wait_cqes(&u->ring, &first, 1, wait_ns == UINT64_MAX ? NULL : &limit, NULL); /* failing, none is seen */
    return take_results(u, results, cap);
}

const io_class io_uring_backend = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .reap = uring_reap,
};
