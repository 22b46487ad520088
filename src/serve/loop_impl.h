/* loop_impl.h: the inside of the loop. `lock` guards what any thread sees; the rest is the loop thread's. A job's lock
 * is never taken under it, and no callback is called under any. */
#ifndef SERVE_LOOP_IMPL_H
#define SERVE_LOOP_IMPL_H

#include "serve/job_impl.h"
#include "serve/loop.h"

enum { LOOP_SCORED = 32 }; /* tokens of prompts a step may hold whose log probabilities are asked for */

/* The next token of a job, to be drawn beside the others', or one of its prompt, to be scored. */
typedef struct loop_draw {
    job *job;
    const float *logits;
    bool given; /* of the prompt */
    int32_t token;
    job_token logprobs; /* where they were asked for */
} loop_draw;

struct loop {
    loop_params p;
    const mp_model_info *info;
    uint32_t slots, n_ctx, step_tokens;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;
    pthread_cond_t wake, done; /* to the loop thread; from it */
    sched *sched;
    job **jobs; /* [slots + queue], n_jobs that wait or run */
    size_t n_jobs;
    uint64_t next_id;
    uint64_t deadline_ns; /* of stopping */
    bool news;            /* look at the jobs: one was submitted or released, or the loop is to stop */
    bool stopping, aborted, is_done;
    bool closed;         /* stopping, and what waited has been refused */
    uint32_t pages_free; /* of the engine, after the last step */
    mp_error broken;     /* MP_OK: it is not */

    /* The loop thread's. */
    mp_engine *engine;
    prefix *prefix; /* NULL: none */
    sched_plan plan;
    job **running; /* [slots] by slot, NULL: free */
    job **over;    /* [slots + queue], n_over that ended since the last delivery */
    size_t n_over;
    mp_batch_token *batch; /* [step_tokens] */
    loop_draw *draws;      /* [slots + LOOP_SCORED] */
    double *loss;          /* [n_points] ln(ppl / full's), NAN: not measured */
    uint32_t *pages;       /* [pages of a sequence] ids */
    bool *taken;           /* the same */
    uint64_t *layer_use;   /* [2, n_moe_layers] run, full */
    uint64_t since_ns;     /* end of the last step, or of the last sleep */
    uint64_t took_ns;      /* the last step */
};

/* loop_plan.c. Scheduling, under the lock: what the last step and other threads changed, then the next plan. False: the
 * loop is to end. */
bool loop_plan(loop *l, uint64_t now_ns);
/* Tells readers what the last step and the plan changed. */
void loop_deliver(loop *l, uint64_t now_ns);

/* loop_step.c: runs the plan: batch, engine, tokens. */
void loop_run(loop *l);
/* What a slot holds when its job begins and ends; the loop's lock may be held. */
void loop_start_slot(loop *l, size_t item, job *j, uint64_t now_ns);
void loop_clear_slot(loop *l, job *j);

#endif
