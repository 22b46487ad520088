/* The loop's life: opening, the thread, what other threads ask of it. loop_plan.c and loop_step.c do the work.
 *
 * A turn of the thread is: plan, under the lock; deliver, which tells readers; run, the engine's step and the draws.
 * The lock is held for scheduling only, never during a step, so submitting waits for microseconds. */
#include "serve/loop.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "serve/loop_impl.h"

/* ---- opening ---- */

/* Fills l->loss, which replies account by, and `points`, which the scheduler goes by. */
static void read_points(loop *l, sched_point *points)
{
    const mp_point *full = mp_model_point(l->p.model, 0);
    for (uint32_t i = 0; i < l->info->n_points; i++) {
        const mp_point *p = mp_model_point(l->p.model, i);
        l->loss[i] = i == 0 ? 0 : sched_loss_measured(full, p);
        points[i] = sched_point_of(full, p, i > 0 ? &points[i - 1] : NULL);
    }
}

static mp_status open_sched(loop *l, mp_error *err)
{
    sched_point *points = calloc(l->info->n_points, sizeof *points);
    if (!points) return status_no_memory(err, l->info->n_points * sizeof *points, "operating points");
    read_points(l, points);
    const sched_config config = {.policy = l->p.policy,
                                 .slots = l->slots,
                                 .queue = l->p.queue,
                                 .step_tokens = l->step_tokens,
                                 .step_scored = LOOP_SCORED,
                                 .kv_pages = mp_engine_kv_pages(l->engine, &l->pages_free),
                                 .page_tokens = MP_KV_PAGE,
                                 .ttft_ns = l->p.ttft_ns,
                                 .tpot_ns = l->p.tpot_ns,
                                 .max_wait_ns = l->p.max_wait_ns,
                                 .points = points,
                                 .n_points = l->info->n_points,
                                 .cost = l->p.cost};
    const mp_status status = sched_new(&config, &l->sched, err);
    free(points);
    return status;
}

static mp_status take_memory(loop *l, mp_error *err)
{
    const size_t jobs = (size_t)l->slots + l->p.queue, pages = l->n_ctx / MP_KV_PAGE + 1;
    l->jobs = calloc(jobs, sizeof(job *));
    l->over = calloc(jobs, sizeof(job *));
    l->running = calloc(l->slots, sizeof(job *));
    l->batch = calloc(l->step_tokens, sizeof *l->batch);
    l->draws = calloc((size_t)l->slots + LOOP_SCORED, sizeof *l->draws);
    l->loss = calloc(l->info->n_points, sizeof *l->loss);
    l->pages = calloc(pages, sizeof *l->pages);
    l->taken = calloc(pages, sizeof *l->taken);
    l->layer_use = calloc((size_t)2 * l->info->n_moe_layers + 1, sizeof *l->layer_use);
    if (l->jobs && l->over && l->running && l->batch && l->draws && l->loss && l->pages && l->taken && l->layer_use)
        return MP_OK;
    return status_no_memory(err, jobs * 2 * sizeof(job *), "the serving loop");
}

static void open_lock(loop *l)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, &monotonic);
    pthread_cond_init(&l->done, NULL);
    pthread_condattr_destroy(&monotonic);
}

/* Until there is news, or until wake_ns; 0: for as long as it takes. Under the lock. */
static void sleep_until(loop *l, uint64_t wake_ns)
{
    if (l->stopping && (wake_ns == 0 || l->deadline_ns < wake_ns)) wake_ns = l->deadline_ns;
    const struct timespec until = {(time_t)(wake_ns / 1000000000), (long)(wake_ns % 1000000000)};
    int result = 0;
    while (!l->news && result != ETIMEDOUT)
        result =
            wake_ns == 0 ? pthread_cond_wait(&l->wake, &l->lock) : pthread_cond_timedwait(&l->wake, &l->lock, &until);
}

static void *loop_thread(void *arg)
{
    loop *l = arg;
    bool goes_on = true;
    l->since_ns = clock_now_ns();
    while (goes_on) {
        pthread_mutex_lock(&l->lock);
        const uint64_t now = clock_now_ns(); /* under the lock: nothing that waits arrived later */
        goes_on = loop_plan(l, now);
        pthread_mutex_unlock(&l->lock);
        loop_deliver(l, now);
        if (l->plan.n > 0) {
            loop_run(l);
            continue;
        }
        pthread_mutex_lock(&l->lock);
        if (goes_on) sleep_until(l, l->plan.wake_ns);
        pthread_mutex_unlock(&l->lock);
        l->since_ns = clock_now_ns();
    }
    pthread_mutex_lock(&l->lock);
    l->is_done = true;
    pthread_cond_broadcast(&l->done);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static mp_status open_loop(loop *l, mp_error *err)
{
    mp_engine_params engine = l->p.engine;
    engine.n_logits = l->slots + LOOP_SCORED;
    MP_TRY(take_memory(l, err));
    MP_TRY(mp_engine_open(l->p.model, &engine, &l->engine, err));
    mp_store_stats store;
    mp_engine_store_stats(l->engine, &store);
    if (store.notice[0] && l->p.noticed) l->p.noticed(l->p.user, store.notice);
    MP_TRY(open_sched(l, err));
    if (!l->p.no_prefix_cache) MP_TRY(prefix_new(mp_engine_kv_pages(l->engine, NULL), &l->prefix, err));
    const int failed = pthread_create(&l->thread, NULL, loop_thread, l);
    if (failed) return status_fail(err, MP_E_MEMORY, "cannot start a thread: %s", strerror(failed));
    l->started = true;
    return MP_OK;
}

mp_status loop_open(const loop_params *params, loop **out, mp_error *err)
{
    enum { DEFAULT_STEP_TOKENS = 512 };
    *out = NULL;
    loop *l = calloc(1, sizeof *l);
    if (!l) return status_no_memory(err, sizeof *l, "the serving loop");
    l->p = *params;
    l->info = mp_model_get_info(params->model);
    l->slots = params->engine.n_seqs > 0 ? params->engine.n_seqs : 1;
    l->n_ctx = params->engine.n_ctx > 0 ? params->engine.n_ctx : l->info->n_ctx_train;
    l->step_tokens = params->engine.n_batch > 0 ? params->engine.n_batch : DEFAULT_STEP_TOKENS;
    if (l->step_tokens < l->slots) l->step_tokens = l->slots;
    l->p.engine.n_batch = l->step_tokens;
    open_lock(l);
    const mp_status status = open_loop(l, err);
    if (status != MP_OK) {
        loop_close(l);
        return status;
    }
    *out = l;
    return MP_OK;
}

/* ---- the end ---- */

/* Under the lock. */
static void tell(loop *l)
{
    l->news = true;
    pthread_cond_signal(&l->wake);
}

void loop_stop(loop *l, uint64_t grace_ns)
{
    const uint64_t now = clock_now_ns();
    pthread_mutex_lock(&l->lock);
    const uint64_t deadline = now + grace_ns < now ? UINT64_MAX : now + grace_ns;
    if (!l->stopping || deadline < l->deadline_ns) l->deadline_ns = deadline;
    l->stopping = true;
    tell(l);
    while (!l->is_done) pthread_cond_wait(&l->done, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

void loop_abort(loop *l)
{
    pthread_mutex_lock(&l->lock);
    if (!l->stopping) l->deadline_ns = 0;
    l->stopping = l->aborted = true;
    tell(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_close(loop *l)
{
    if (!l) return;
    if (l->started) {
        loop_stop(l, 0);
        pthread_join(l->thread, NULL);
    }
    sched_free(l->sched);
    prefix_free(l->prefix);
    mp_engine_close(l->engine);
    free((void *)l->jobs);
    free((void *)l->over);
    free((void *)l->running);
    free(l->batch);
    free(l->draws);
    free(l->loss);
    free(l->pages);
    free(l->taken);
    free(l->layer_use);
    pthread_cond_destroy(&l->wake);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- asked by any thread ---- */

static void job_left(void *arg)
{
    loop *l = arg;
    pthread_mutex_lock(&l->lock);
    tell(l);
    pthread_mutex_unlock(&l->lock);
}

static loop_verdict check(const loop *l, const job_params *p, mp_error *err)
{
    const uint64_t need = (uint64_t)p->n_prompt + p->max_tokens;
    if (p->n_prompt == 0) {
        status_fail(err, MP_E_INVALID, "the prompt is empty");
        return LOOP_INVALID;
    }
    if (p->max_tokens == 0 || p->best > p->floor || p->floor >= l->info->n_points) {
        status_fail(err, MP_E_INVALID, "%u tokens at points %u to %u: there are points 0 to %u", p->max_tokens, p->best,
                    p->floor, l->info->n_points - 1);
        return LOOP_INVALID;
    }
    for (size_t i = 0; i < p->n_prompt; i++) {
        if (p->prompt[i] >= 0 && (uint32_t)p->prompt[i] < l->info->n_vocab) continue;
        status_fail(err, MP_E_INVALID, "token %zu of the prompt: id %d is not in the vocabulary of %u", i, p->prompt[i],
                    l->info->n_vocab);
        return LOOP_INVALID;
    }
    if (need <= l->n_ctx) return LOOP_ACCEPTED;
    status_fail(err, MP_E_LIMIT, "the prompt has %zu tokens and the reply may have %u: the context holds %u",
                p->n_prompt, p->max_tokens, l->n_ctx);
    return LOOP_NEVER_FITS;
}

/* Under the lock. */
static loop_verdict enqueue(loop *l, job *j, uint64_t *retry_ns, mp_error *err)
{
    const job_params *p = &j->params;
    if (l->stopping) return LOOP_STOPPING;
    if (l->broken.status != MP_OK) {
        *err = l->broken;
        return LOOP_BROKEN;
    }
    j->id = ++l->next_id;
    j->arrival_ns = clock_now_ns();
    const sched_request request = {.id = j->id,
                                   .arrival_ns = j->arrival_ns,
                                   .prompt_tokens = (uint32_t)p->n_prompt,
                                   .max_tokens = p->max_tokens,
                                   .open_ended = p->open_ended,
                                   .best = p->best,
                                   .floor = p->floor,
                                   .ttft_ns = p->ttft_ns,
                                   .tpot_ns = p->tpot_ns,
                                   .priority = p->priority,
                                   .scored = p->prompt_logprobs};
    const sched_verdict verdict = sched_submit(l->sched, &request, j->arrival_ns, retry_ns);
    if (verdict == SCHED_QUEUE_FULL) return LOOP_QUEUE_FULL;
    if (verdict == SCHED_NEVER_FITS) {
        status_fail(err, MP_E_LIMIT, "the request needs %u pages of the key-value cache, which has %u",
                    sched_pages(l->sched, (uint32_t)p->n_prompt, p->max_tokens), mp_engine_kv_pages(l->engine, NULL));
        return LOOP_NEVER_FITS;
    }
    l->jobs[l->n_jobs++] = j;
    tell(l);
    return LOOP_ACCEPTED;
}

/* What never changes of the account. */
static void note_floor(const loop *l, job *j)
{
    j->used.experts_floor = mp_model_point(l->p.model, j->params.floor)->experts;
    j->used.ppl_increase_floor = expm1(l->loss[j->params.floor]);
    j->usage = j->used;
    j->leave = job_left;
}

loop_verdict loop_submit(loop *l, job_params *params, job **out, uint64_t *retry_ns, mp_error *err)
{
    job *j = NULL;
    *out = NULL;
    loop_verdict verdict = check(l, params, err);
    if (verdict != LOOP_ACCEPTED)
        job_params_clear(params);
    else if (job_new(params, l->p.model, &j, err) != MP_OK)
        verdict = LOOP_INVALID;
    if (verdict == LOOP_ACCEPTED) {
        j->loop = l;
        note_floor(l, j);
        pthread_mutex_lock(&l->lock);
        verdict = enqueue(l, j, retry_ns, err);
        pthread_mutex_unlock(&l->lock);
    }
    if (verdict == LOOP_ACCEPTED) *out = j;
    if (verdict != LOOP_ACCEPTED && j) {
        job_drop(j);
        job_drop(j);
    }
    return verdict;
}

loop_status loop_get_status(loop *l)
{
    pthread_mutex_lock(&l->lock);
    const sched_counts counts = sched_get_counts(l->sched);
    const loop_status status = {.slots = l->slots,
                                .running = counts.running,
                                .waiting = counts.waiting,
                                .kv_pages = mp_engine_kv_pages(l->engine, NULL),
                                .kv_pages_free = l->pages_free,
                                .n_ctx = l->n_ctx,
                                .stopping = l->stopping,
                                .broken = l->broken.status != MP_OK};
    pthread_mutex_unlock(&l->lock);
    return status;
}
