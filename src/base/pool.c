/* One job at a time, published through a gate.
 *
 * `gate` holds an OPEN bit and the number of workers inside. To publish, the caller writes the job while the gate is
 * shut and empty, then opens it and moves `epoch` on. A worker that notices enters (one compare-and-swap, only while
 * open), takes items until none is left, and leaves. The caller works too; when nothing is left it shuts the gate and
 * waits for those inside. So a job never waits for a worker that is still asleep or was descheduled: it comes too late,
 * finds the gate shut and goes back to waiting. That matters for tiny jobs and where there are more threads than free
 * CPUs.
 *
 * Items are cut into a range for each thread, which takes those of its own in order and then the next of the others'.
 * Neighbouring items mostly read neighbouring memory, and a thread that goes from one to the next reads it faster than
 * one that jumps.
 *
 * Ordering: opening the gate (release) hands the job's fields to those who enter (acquire); leaving (release) hands
 * their results to the caller's last look at the gate (acquire). The two sleeps, of workers on `epoch` and of the
 * caller on `gate`, announce themselves before they sleep, and the other side changes the word before it looks for the
 * announcement, all sequentially consistent: one of the two always notices the other. */
#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpus.h"

#define MAX_THREADS 1024u
#define OPEN        0x10000u /* of gate; workers inside below it */
#define SPIN_NS     30000u   /* about the cost of a sleep and a wake */
#define SPIN_BATCH  32       /* pauses between looks at the clock */
#define YIELDS      4        /* instead of spinning where threads outnumber CPUs */
#define CACHE_LINE  64

typedef struct worker {
    pool *p;
    unsigned index;
    pthread_t thread;
} worker;

/* The items of a job that one thread begins with. */
typedef struct item_range {
    _Alignas(CACHE_LINE) _Atomic size_t next;
    size_t end;
} item_range;

struct pool {
    /* written by the caller while the gate is shut and empty */
    pool_item_fn fn;
    void *arg;
    unsigned n_ranges;
    item_range *ranges; /* [n_threads]; of this job the first n_ranges */

    unsigned n_threads, n_started;
    bool crowded; /* more threads than CPUs: waiting must not hold one */
    worker *workers;

    _Alignas(CACHE_LINE) _Atomic uint32_t gate;
    _Atomic uint32_t caller_sleeps;
    _Alignas(CACHE_LINE) _Atomic uint32_t epoch; /* jobs so far */
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0); /* early returns are fine: callers loop */
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void pause_cpu(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static bool masked_equal(_Atomic uint32_t *word, uint32_t mask, uint32_t value)
{
    return (atomic_load_explicit(word, memory_order_acquire) & mask) == value;
}

/* Waits a moment without sleeping while (*word & mask) == value; false where it still is. */
static bool spin_while(const pool *p, _Atomic uint32_t *word, uint32_t mask, uint32_t value)
{
    for (int i = 0; i < SPIN_BATCH; i++) {
        if (!masked_equal(word, mask, value)) return true;
        pause_cpu();
    }
    if (p->crowded) {
        for (int i = 0; i < YIELDS; i++) {
            sched_yield();
            if (!masked_equal(word, mask, value)) return true;
        }
        return false;
    }
    for (uint64_t end = clock_now_ns() + SPIN_NS; clock_now_ns() < end;) {
        for (int i = 0; i < SPIN_BATCH; i++) {
            if (!masked_equal(word, mask, value)) return true;
            pause_cpu();
        }
    }
    return false;
}

static bool enter(pool *p)
{
    uint32_t gate = atomic_load_explicit(&p->gate, memory_order_relaxed);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak_explicit(&p->gate, &gate, gate + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void leave(pool *p)
{
    uint32_t before = atomic_fetch_sub_explicit(&p->gate, 1, memory_order_seq_cst);
    if (before == 1 && atomic_load_explicit(&p->caller_sleeps, memory_order_seq_cst)) futex_wake(&p->gate, 1);
}

static void run_items(pool *p, unsigned thread)
{
    const pool_item_fn fn = p->fn;
    void *const arg = p->arg;
    const unsigned n = p->n_ranges;
    for (unsigned i = 0; i < n; i++) {
        item_range *r = &p->ranges[(thread + i) % n];
        while (atomic_load_explicit(&r->next, memory_order_relaxed) < r->end) { /* looking leaves its line shared */
            const size_t item = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
            if (item >= r->end) break;
            fn(arg, item, thread);
        }
    }
}

/* Returns the new epoch. */
static uint32_t wait_for_job(pool *p, uint32_t seen)
{
    while (!spin_while(p, &p->epoch, UINT32_MAX, seen)) {
        atomic_fetch_add_explicit(&p->sleepers, 1, memory_order_seq_cst);
        futex_wait(&p->epoch, seen);
        atomic_fetch_sub_explicit(&p->sleepers, 1, memory_order_relaxed);
    }
    return atomic_load_explicit(&p->epoch, memory_order_acquire);
}

static void *worker_main(void *arg)
{
    const worker *w = arg;
    pool *p = w->p;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_job(p, seen);
        if (atomic_load_explicit(&p->stop, memory_order_acquire)) return NULL;
        if (!enter(p)) continue;
        run_items(p, w->index);
        leave(p);
    }
}

static void announce(pool *p, size_t useful)
{
    atomic_fetch_add_explicit(&p->epoch, 1, memory_order_seq_cst);
    uint32_t asleep = atomic_load_explicit(&p->sleepers, memory_order_seq_cst);
    if (asleep) futex_wake(&p->epoch, (int)(useful < asleep ? useful : asleep));
}

static void wait_until_empty(pool *p)
{
    for (;;) {
        uint32_t inside = atomic_load_explicit(&p->gate, memory_order_acquire);
        if (!inside) return;
        if (spin_while(p, &p->gate, UINT32_MAX, inside)) continue;
        atomic_store_explicit(&p->caller_sleeps, 1, memory_order_seq_cst);
        inside = atomic_load_explicit(&p->gate, memory_order_seq_cst);
        if (inside) futex_wait(&p->gate, inside);
        atomic_store_explicit(&p->caller_sleeps, 0, memory_order_relaxed);
    }
}

void pool_for(pool *p, size_t n, pool_item_fn fn, void *arg)
{
    if (p->n_threads == 1 || n < 2) {
        for (size_t item = 0; item < n; item++) fn(arg, item, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_ranges = n < p->n_threads ? (unsigned)n : p->n_threads;
    size_t begin = 0;
    for (unsigned i = 0; i < p->n_ranges; i++) {
        atomic_store_explicit(&p->ranges[i].next, begin, memory_order_relaxed);
        p->ranges[i].end = begin = n * (i + 1) / p->n_ranges;
    }
    atomic_store_explicit(&p->gate, OPEN, memory_order_release);
    announce(p, n - 1);
    run_items(p, 0);
    atomic_fetch_and_explicit(&p->gate, ~OPEN, memory_order_acquire);
    wait_until_empty(p);
}

/* Workers block every signal, so that handlers run on threads that expect them. */
static mp_status start_workers(pool *p, mp_error *err)
{
    sigset_t all, old;
    int error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (unsigned i = 1; i < p->n_threads && !error; i++) {
        worker *w = &p->workers[i - 1];
        *w = (worker){.p = p, .index = i};
        error = pthread_create(&w->thread, NULL, worker_main, w);
        if (!error) p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!error) return MP_OK;
    return status_fail(err, MP_E_LIMIT, "cannot start thread %u of %u: %s; ask for fewer threads", p->n_started + 2,
                       p->n_threads, strerror(error));
}

/* Hardware threads, unlike pool_default_threads(): spinning on the second one of a core hurts, but not much. */
static unsigned cpus_to_run_on(void)
{
    cpus_mask mask = cpus_affinity();
    unsigned cpus = cpus_logical(&mask), quota = cpus_quota("");
    cpus_clear(&mask);
    return quota && quota < cpus ? quota : cpus;
}

mp_status pool_new(unsigned threads, pool **out, mp_error *err)
{
    *out = NULL;
    if (threads == 0) threads = pool_default_threads();
    if (threads > MAX_THREADS)
        return status_fail(err, MP_E_INVALID, "%u threads: at most %u are supported", threads, MAX_THREADS);
    pool *p = aligned_alloc(CACHE_LINE, sizeof *p);
    if (!p) return status_no_memory(err, sizeof *p, "a thread pool");
    memset(p, 0, sizeof *p);
    p->n_threads = threads;
    p->workers = calloc(threads, sizeof *p->workers);
    p->ranges = aligned_alloc(CACHE_LINE, threads * sizeof *p->ranges);
    p->crowded = threads > cpus_to_run_on();
    mp_status status = p->workers && p->ranges
                           ? start_workers(p, err)
                           : status_no_memory(err, threads * (sizeof *p->workers + sizeof *p->ranges), "a thread pool");
    if (status != MP_OK) {
        pool_free(p);
        return status;
    }
    *out = p;
    return MP_OK;
}

void pool_free(pool *p)
{
    if (!p) return;
    atomic_store_explicit(&p->stop, true, memory_order_release);
    announce(p, p->n_started);
    for (unsigned i = 0; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    free(p->ranges);
    free(p);
}

static bool pin_worker(const worker *w, const cpus_mask *mask)
{
    unsigned cpu;
    if (!cpus_core("", mask, w->index, &cpu)) return false;
    cpu_set_t *set = CPU_ALLOC(mask->bytes * 8);
    if (!set) return false;
    CPU_ZERO_S(mask->bytes, set);
    CPU_SET_S(cpu, mask->bytes, set);
    const bool pinned = pthread_setaffinity_np(w->thread, mask->bytes, set) == 0;
    CPU_FREE(set);
    return pinned;
}

unsigned pool_pin(pool *p)
{
    unsigned pinned = 0;
    if (p->n_threads > pool_default_threads()) return 0;
    cpus_mask mask = cpus_affinity();
    for (unsigned i = 0; i < p->n_started; i++) pinned += pin_worker(&p->workers[i], &mask);
    cpus_clear(&mask);
    return pinned;
}

unsigned pool_threads(const pool *p)
{
    return p->n_threads;
}

unsigned pool_default_threads(void)
{
    cpus_mask mask = cpus_affinity();
    unsigned cores = cpus_cores("", &mask), quota = cpus_quota("");
    cpus_clear(&mask);
    if (quota && quota < cores) cores = quota;
    return cores < MAX_THREADS ? cores : MAX_THREADS;
}
