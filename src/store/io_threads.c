/* Reads by a few threads that sleep in pread(): works everywhere, at the price of a switch of threads per read.
 *
 * Two rings under one lock, each with room for all that may be in flight: requests that wait for a thread, and results
 * that wait to be reaped. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/io.h"

#define MAX_WORKERS 64u
#define STACK_BYTES ((size_t)128 << 10)

typedef struct threads_io {
    io_setup setup;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    io_request *requests; /* [depth] */
    io_result *results;   /* [depth] */
    uint32_t next_request, n_requests, next_result, n_results;
    uint32_t n_workers;
    bool stop;
    pthread_t workers[MAX_WORKERS];
} threads_io;

static void *worker_main(void *arg)
{
    threads_io *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->n_requests && !t->stop) pthread_cond_wait(&t->work, &t->lock);
        if (!t->n_requests) break;
        const io_request request = t->requests[t->next_request];
        t->next_request = (t->next_request + 1) % t->setup.depth;
        t->n_requests--;
        pthread_mutex_unlock(&t->lock);
        const io_result result = io_read_rest(&t->setup, &request, 0);
        pthread_mutex_lock(&t->lock);
        t->results[(t->next_result + t->n_results++) % t->setup.depth] = result;
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void threads_close(void *io)
{
    threads_io *t = io;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_workers; i++) pthread_join(t->workers[i], NULL);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    pthread_mutex_destroy(&t->lock);
    free(t->requests);
    free(t->results);
    free(t);
}

/* As many as the system gives: one is enough to go on. They block every signal, so that handlers run on threads that
 * expect them. */
static int start_workers(threads_io *t)
{
    const uint32_t wanted = t->setup.depth < MAX_WORKERS ? t->setup.depth : MAX_WORKERS;
    pthread_attr_t attr;
    sigset_t all, old;
    int error = 0;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES); /* a refusal leaves the default, which is larger */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (t->n_workers < wanted && !error) {
        error = pthread_create(&t->workers[t->n_workers], &attr, worker_main, t);
        if (!error) t->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return t->n_workers ? 0 : error;
}

static void init_locks(threads_io *t)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, &attr);
    pthread_condattr_destroy(&attr);
}

static mp_status threads_open(const io_setup *setup, void **io, mp_error *err)
{
    *io = NULL;
    threads_io *t = calloc(1, sizeof *t);
    if (!t) return status_no_memory(err, sizeof *t, "reading threads");
    t->setup = *setup;
    init_locks(t);
    t->requests = calloc(setup->depth, sizeof *t->requests);
    t->results = calloc(setup->depth, sizeof *t->results);
    mp_status status = MP_OK;
    if (!t->requests || !t->results)
        status = status_no_memory(err, setup->depth * sizeof *t->requests, "reading threads");
    const int error = status == MP_OK ? start_workers(t) : 0;
    if (error) status = status_fail(err, MP_E_LIMIT, "cannot start a thread to read with: %s", strerror(error));
    if (status == MP_OK)
        *io = t;
    else
        threads_close(t);
    return status;
}

static void threads_submit(void *io, const io_request *requests, uint32_t n)
{
    threads_io *t = io;
    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < n; i++) t->requests[(t->next_request + t->n_requests++) % t->setup.depth] = requests[i];
    if (n > 1)
        pthread_cond_broadcast(&t->work);
    else
        pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

/* Under the lock. False once the time is up. */
static bool wait_for_result(threads_io *t, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX) return pthread_cond_wait(&t->done, &t->lock) == 0;
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};
    return pthread_cond_timedwait(&t->done, &t->lock, &until) == 0;
}

static uint32_t threads_reap(void *io, io_result *results, uint32_t cap, uint64_t wait_ns)
{
    threads_io *t = io;
    uint64_t until = 0;
    if (wait_ns && __builtin_add_overflow(clock_now_ns(), wait_ns, &until)) until = UINT64_MAX;
    pthread_mutex_lock(&t->lock);
    while (wait_ns && !t->n_results && wait_for_result(t, until)) {
    }
    const uint32_t n = t->n_results < cap ? t->n_results : cap;
    for (uint32_t i = 0; i < n; i++) results[i] = t->results[(t->next_result + i) % t->setup.depth];
    t->next_result = (t->next_result + n) % t->setup.depth;
    t->n_results -= n;
    pthread_mutex_unlock(&t->lock);
    return n;
}

const io_class io_threads_backend = {
    .name = "threads",
    .open = threads_open,
    .close = threads_close,
    .submit = threads_submit,
    .reap = threads_reap,
};
