/* io.h: reading pieces of files, several at once.
 *
 * A backend takes requests and gives them back when they are done, in any order. One thread at a time submits and one
 * at a time reaps (the store sees to that), the two possibly at once; threads of its own are its own affair. */
#ifndef STORE_IO_H
#define STORE_IO_H

#include "base/status.h"

#define IO_SECTOR 512u  /* what direct reads are a multiple of, of most disks, */
#define IO_ALIGN  4096u /* and of all of them */

typedef struct io_request {
    uint64_t offset;
    uint32_t file; /* number in io_setup.fds */
    uint32_t bytes;
    uint32_t tag; /* handed back */
    uint8_t *to;  /* in the arena */
} io_request;

typedef struct io_result {
    uint32_t tag;
    int error;      /* an errno, 0: none */
    uint32_t bytes; /* that arrived: fewer than asked for at the end of a file that was cut */
} io_result;

typedef struct io_setup {
    const int *fds; /* [n_files] from io_file_open(), as is `align`, which all of them allow */
    uint32_t n_files, align;
    uint8_t *arena; /* where all requests lead */
    size_t arena_bytes;
    uint32_t depth; /* requests in flight at most */
    void *user;     /* of a fake */
} io_setup;

typedef struct io_class {
    const char *name;
    /* MP_E_UNSUPPORTED where the system does not have it: the next backend is tried, and the message is shown. */
    mp_status (*open)(const io_setup *setup, void **io, mp_error *err);
    void (*close)(void *io); /* after everything submitted was reaped */
    /* Starts requests [n]; never more than `depth` in flight. */
    void (*submit)(void *io, const io_request *requests, uint32_t n);
    /* Results [cap], cap at least the depth, of requests that are done; waits for the first one for at most wait_ns (0:
     * not at all, UINT64_MAX: as long as it takes), where any is in flight. Returns their number. */
    uint32_t (*reap)(void *io, io_result *results, uint32_t cap, uint64_t wait_ns);
} io_class;

extern const io_class io_uring_backend;   /* "io_uring" */
extern const io_class io_threads_backend; /* "threads" */

/* NULL past the end, best first. */
const io_class *io_at(size_t i);

/* By name; MP_E_INVALID lists the names. */
mp_status io_find(const char *name, const io_class **out, mp_error *err);

/* Opens for reading, where `direct` past the page cache (O_DIRECT) if the file system takes that; *align is then
 * IO_SECTOR or IO_ALIGN, and offsets, sizes and addresses must be multiples of it. 1 where it is not direct. */
mp_status io_file_open(const char *path, bool direct, int *fd, uint32_t *align, mp_error *err);

/* For backends: reads what is left of a request of which `done` bytes have arrived, in the calling thread. */
io_result io_read_rest(const io_setup *setup, const io_request *request, uint32_t done);

#endif
