/* Reads by io_uring: one system call starts many, and what has ended is seen without any.
 *
 * The arena and the file are registered where the system allows it (locked memory may be limited), which spares the
 * kernel to look them up and to pin pages for every read; nothing else depends on it. Waiting with a limit must not
 * touch the submission side, which another thread may be using: kernels do that from 5.11 on, older ones are left to
 * the threads. */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "store/io.h"

#define CHUNK        ((size_t)1 << 30) /* the most that one registered buffer may hold */
#define MAX_CHUNKS   1024u             /* buffers; all kernels take so many */
#define REAP_AT_ONCE 32u

typedef struct flight {
    io_request request;
    uint32_t next; /* free one */
} flight;

typedef struct uring_io {
    struct io_uring ring;
    io_setup setup;
    bool file_registered, arena_registered;
    pthread_mutex_t lock; /* of the list of free flights: submitting takes, reaping gives back */
    flight *flights;      /* [depth] */
    uint32_t free;
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
    if (!u->flights) return status_no_memory(err, n * sizeof *u->flights, "reads in flight");
    for (uint32_t i = 0; i < n; i++) u->flights[i].next = i + 1;
    return MP_OK;
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
        free(u->flights);
        free(u);
        return status;
    }
    pthread_mutex_init(&u->lock, NULL);
    u->file_registered = io_uring_register_files(&u->ring, &setup->fd, 1) == 0;
    register_arena(u);
    *io = u;
    return MP_OK;
}

static void uring_close(void *io)
{
    uring_io *u = io;
    io_uring_queue_exit(&u->ring);
    pthread_mutex_destroy(&u->lock);
    free(u->flights);
    free(u);
}

static void prepare(uring_io *u, const io_request *request)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    assert(sqe && u->free < u->setup.depth); /* the ring has room for all that may be in flight */
    const uint32_t i = u->free;
    u->free = u->flights[i].next;
    u->flights[i].request = *request;

    const int fd = u->file_registered ? 0 : u->setup.fd;
    const size_t at = (size_t)(request->to - u->setup.arena), chunk = at / CHUNK;
    if (u->arena_registered && (at + request->bytes - 1) / CHUNK == chunk)
        io_uring_prep_read_fixed(sqe, fd, request->to, request->bytes, request->offset, (int)chunk);
    else
        io_uring_prep_read(sqe, fd, request->to, request->bytes, request->offset);
    if (u->file_registered) sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, i);
}

static void uring_submit(void *io, const io_request *requests, uint32_t n)
{
    uring_io *u = io;
    pthread_mutex_lock(&u->lock);
    for (uint32_t i = 0; i < n; i++) prepare(u, &requests[i]);
    pthread_mutex_unlock(&u->lock);
    while (io_uring_sq_ready(&u->ring)) {
        const int error = io_uring_submit(&u->ring);
        assert(error >= 0 || error == -EINTR || error == -EAGAIN || error == -EBUSY);
        if (error < 0) sched_yield(); /* the kernel is short of memory for requests: others must end first */
    }
}

/* The kernel may stop early or ask to come again: rare, so the rest is read right here. */
static io_result finish(const uring_io *u, const io_request *request, int res)
{
    if (res == -EINTR || res == -EAGAIN) res = 0;
    if (res < 0) return (io_result){.tag = request->tag, .error = -res};
    return io_read_rest(&u->setup, request, (uint32_t)res);
}

static uint32_t take_results(uring_io *u, io_result *results, uint32_t cap)
{
    struct io_uring_cqe *cqes[REAP_AT_ONCE];
    const uint32_t n = io_uring_peek_batch_cqe(&u->ring, cqes, cap < REAP_AT_ONCE ? cap : REAP_AT_ONCE);
    io_request requests[REAP_AT_ONCE];
    pthread_mutex_lock(&u->lock);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t landed = (uint32_t)io_uring_cqe_get_data64(cqes[i]);
        requests[i] = u->flights[landed].request;
        u->flights[landed].next = u->free;
        u->free = landed;
    }
    pthread_mutex_unlock(&u->lock);
    for (uint32_t i = 0; i < n; i++) results[i] = finish(u, &requests[i], cqes[i]->res);
    io_uring_cq_advance(&u->ring, n);
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
