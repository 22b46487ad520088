/* loop.h: the thread that owns the engine: takes jobs, asks the scheduler for the next step, runs it, draws tokens,
 * hands out text. Iteration-level batching: prompts in chunks beside decodes, each sequence at its own operating point.
 */
#ifndef SERVE_LOOP_H
#define SERVE_LOOP_H

#include "sched/sched.h"
#include "serve/job.h"
#include "serve/metrics.h"

typedef struct loop_params {
    const mp_model *model;   /* must outlive the loop */
    mp_engine_params engine; /* n_seqs = slots */
    sched_policy policy;
    uint32_t queue;
    uint64_t ttft_ns, tpot_ns; /* targets of requests that name none; 0: none */
    uint64_t max_wait_ns;
    cost_model cost;
    bool no_prefix_cache;
    metrics *metrics; /* borrowed */
    /* A step failed, and all requests in it; MP_E_CHANGED: told once, from then on requests are refused. The loop's
     * thread, no lock held; NULL: nobody wants to know. */
    void (*failed)(void *user, const mp_error *err);
    /* What the system refused the engine, and what is done instead. The caller of loop_open(); NULL: as above. */
    void (*noticed)(void *user, const char *notice);
    void *user;
} loop_params;

typedef enum loop_verdict {
    LOOP_ACCEPTED,
    LOOP_QUEUE_FULL, /* *retry_ns tells when to try again */
    LOOP_NEVER_FITS, /* err has the numbers */
    LOOP_INVALID,    /* err: sampling parameters, memory */
    LOOP_BROKEN,     /* err: why nothing will run any more */
    LOOP_STOPPING,
} loop_verdict;

typedef struct loop loop;

/* Opens the engine and starts the thread. */
mp_status loop_open(const loop_params *params, loop **out, mp_error *err);
/* Refuses what is new and cancels what waits; what runs may finish until the deadline, with all replies to its request,
 * then it is cancelled. Returns when all is done. */
void loop_stop(loop *l, uint64_t grace_ns);
/* Cancels what runs, from any thread, also while loop_stop() waits. */
void loop_abort(loop *l);
/* Cancels what runs; every job was released. NULL is fine. */
void loop_close(loop *l);

/* Takes over the contents of `params` whatever the verdict. Any thread. */
loop_verdict loop_submit(loop *l, job_params *params, job **out, uint64_t *retry_ns, mp_error *err);

typedef struct loop_status {
    uint32_t slots, running, waiting;
    uint32_t kv_pages, kv_pages_free;
    uint32_t n_ctx; /* tokens of a slot */
    bool stopping;
    bool broken; /* the model's file has changed: what of it is not in memory is lost */
} loop_status;

loop_status loop_get_status(loop *l);

#endif
