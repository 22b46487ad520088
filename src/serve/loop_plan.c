/* Between steps, under the lock: what ran is told to the scheduler, who is done gives up its slot, then the next plan.
 */
#include <string.h>

#include "serve/loop_impl.h"

/* Every job that ended goes on to loop_deliver(). */
static void end_job(loop *l, size_t at, job_end end, uint64_t now_ns)
{
    job *j = l->jobs[at];
    j->ends = end;
    sched_finish(l->sched, j->id, now_ns);
    if (j->slot != JOB_NO_SLOT) loop_clear_slot(l, j);
    l->jobs[at] = l->jobs[--l->n_jobs];
    l->over[l->n_over++] = j;
}

/* Of a request that has a slot, or had one until now. */
static bool request_runs(const loop *l, const job *j)
{
    if (j->slot != JOB_NO_SLOT) return true;
    for (size_t i = 0; j->params.request && i < l->n_jobs; i++)
        if (l->jobs[i]->params.request == j->params.request && l->jobs[i]->slot != JOB_NO_SLOT) return true;
    return false;
}

/* Once told to stop: the grace is for what runs, so what waits ends here. Nothing comes in any more. */
static void refuse_waiting(loop *l)
{
    for (size_t i = 0; i < l->n_jobs; i++)
        if (!request_runs(l, l->jobs[i])) l->jobs[i]->ends = JOB_CANCELLED;
    l->closed = true;
}

static void end_jobs(loop *l, uint64_t now_ns)
{
    if (l->stopping && !l->closed) refuse_waiting(l); /* before those that end give up their slots */
    const bool all = l->aborted || (l->stopping && now_ns >= l->deadline_ns);
    for (size_t i = l->n_jobs; i-- > 0;) {
        job *j = l->jobs[i];
        if (j->ends != JOB_RUNNING)
            end_job(l, i, j->ends, now_ns);
        else if (all || atomic_load(&j->released))
            end_job(l, i, JOB_CANCELLED, now_ns);
    }
}

static job *find_job(const loop *l, uint64_t id)
{
    size_t i = 0;
    while (l->jobs[i]->id != id) i++; /* the scheduler knows none but these */
    return l->jobs[i];
}

bool loop_plan(loop *l, uint64_t now_ns)
{
    if (l->plan.n > 0) sched_ran(l->sched, &l->plan, now_ns, l->took_ns);
    end_jobs(l, now_ns);
    l->news = false;
    l->plan = (sched_plan){0};
    if (l->stopping && l->n_jobs == 0) return false;
    sched_next(l->sched, now_ns, &l->plan);
    for (size_t i = 0; i < l->plan.n; i++)
        if (l->plan.items[i].starts) loop_start_slot(l, i, find_job(l, l->plan.items[i].id), now_ns);
    const sched_counts counts = sched_get_counts(l->sched);
    const uint32_t pages = mp_engine_kv_pages(l->engine, &l->pages_free);
    metrics_gauges(l->p.metrics, counts.running, counts.waiting, pages, pages - l->pages_free);
    return true;
}

/* A job that was released is not told: its waker may be gone. */
static void wake(job *j)
{
    if (j->params.wake && !atomic_load(&j->released)) j->params.wake(j->params.user);
}

void loop_deliver(loop *l, uint64_t now_ns)
{
    for (size_t i = 0; i < l->n_over; i++) {
        job *j = l->over[i];
        if (j->ends == JOB_STOP || j->ends == JOB_LENGTH) metrics_end_to_end(l->p.metrics, now_ns - j->arrival_ns);
        job_finish(j, j->ends, &j->failure);
        wake(j);
        job_drop(j);
    }
    l->n_over = 0;
    for (uint32_t i = 0; i < l->slots; i++) {
        job *j = l->running[i];
        if (!j || !j->news) continue;
        j->news = false;
        wake(j);
    }
    for (uint32_t i = 0; i < l->info->n_moe_layers; i++)
        mp_engine_layer_use(l->engine, i, &l->layer_use[i], &l->layer_use[l->info->n_moe_layers + i]);
    metrics_layers(l->p.metrics, l->layer_use, l->layer_use + l->info->n_moe_layers, l->info->n_moe_layers);
    mp_store_stats store;
    if (mp_engine_store_stats(l->engine, &store)) metrics_store(l->p.metrics, &store);
}
