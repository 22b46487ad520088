/* A step: the plan's items become a batch, the engine runs it, every item that ends its prompt or decodes draws a
 * token, all of them at once on the engine's threads. Nothing here is seen by other threads but through the jobs' own
 * locks. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "serve/loop_impl.h"

enum { TOKEN_BYTES_MAX = 1024 };

static uint32_t pages_of(uint32_t tokens)
{
    return tokens / MP_KV_PAGE + (tokens % MP_KV_PAGE != 0);
}

/* ---- slots and the prefix cache ---- */

static void widen(prefix_range *r, bool first, uint32_t point)
{
    if (first || point < r->best) r->best = point;
    if (first || point > r->floor) r->floor = point;
}

static void note_point(job *j, uint32_t point)
{
    prefix_range all = {j->used.point_min, j->used.point_max};
    widen(&all, j->n_run == 0, point);
    j->used.point_min = all.best;
    j->used.point_max = all.floor;
}

/* Begins with the pages that are known; the last token of the prompt always runs. */
static void start_from_cache(loop *l, size_t item, job *j)
{
    const uint32_t most = (j->n_tokens - 1) / MP_KV_PAGE, slot = l->plan.items[item].slot;
    const prefix_range accepted = {j->params.best, j->params.floor};
    const uint32_t n = prefix_find(l->prefix, j->tokens, most, accepted, l->pages, j->page_ran);
    const bool starts = n > 0 && mp_engine_seq_start(l->engine, slot, l->pages, n, NULL) == MP_OK;
    const uint32_t cached = starts ? n * MP_KV_PAGE : 0;
    metrics_prefix(l->p.metrics, j->n_tokens, cached);
    if (!starts) return;
    for (uint32_t i = 0; i < n; i++) {
        note_point(j, j->page_ran[i].best);
        j->n_run += MP_KV_PAGE;
        note_point(j, j->page_ran[i].floor);
    }
    j->used.cached_tokens = cached;
    sched_cached(l->sched, &l->plan, item, cached);
}

void loop_start_slot(loop *l, size_t item, job *j, uint64_t now_ns)
{
    l->running[l->plan.items[item].slot] = j;
    j->slot = l->plan.items[item].slot;
    j->used.queue_ns = now_ns - j->arrival_ns;
    metrics_queue(l->p.metrics, j->used.queue_ns);
    if (l->prefix && !j->params.prompt_logprobs) start_from_cache(l, item, j); /* what is scored has to run */
}

/* Lets later requests begin with the whole pages that ran. */
static void enter_pages(loop *l, const job *j)
{
    const uint32_t n = j->n_run / MP_KV_PAGE;
    for (uint32_t i = 0; i < n; i++) l->pages[i] = mp_engine_seq_page(l->engine, j->slot, i);
    prefix_enter(l->prefix, j->tokens, n, l->pages, j->page_ran, l->taken);
    for (uint32_t i = 0; i < n; i++)
        if (l->taken[i]) mp_engine_page_hold(l->engine, l->pages[i]);
}

void loop_clear_slot(loop *l, job *j)
{
    if (l->prefix && j->ends != JOB_FAILED) enter_pages(l, j);
    mp_engine_seq_truncate(l->engine, j->slot, 0);
    l->running[j->slot] = NULL;
}

/* The scheduler has reserved pages for all that runs, so once the cache has given up its own there is room. */
static void make_room(loop *l)
{
    uint32_t need = 0, n_free, page;
    for (size_t i = 0; i < l->plan.n; i++) {
        const job *j = l->running[l->plan.items[i].slot];
        need += pages_of(j->n_run + l->plan.items[i].n_tokens) - pages_of(j->n_run);
    }
    while (mp_engine_kv_pages(l->engine, &n_free), n_free < need && l->prefix && prefix_evict(l->prefix, &page))
        mp_engine_page_release(l->engine, page);
}

/* ---- tokens that ran ---- */

/* The j->n_run-th token ran, as the i-th of the batch; what it lost beyond its point, at most. One that went without
 * something ran between its point and its floor: it counts as both where points are told, as the floor in loss. */
static double account_token(const loop *l, job *j, uint32_t point, size_t i)
{
    const uint32_t dropped = mp_engine_dropped(l->engine, i), floor = j->params.floor;
    prefix_range *page = &j->page_ran[j->n_run / MP_KV_PAGE];
    note_point(j, point);
    widen(page, j->n_run % MP_KV_PAGE == 0, point);
    if (dropped == 0) return 0;
    note_point(j, floor);
    widen(page, false, floor);
    j->used.dropped += dropped;
    return l->loss[floor] - l->loss[point];
}

/* Item `it` was the batch from `at` on. */
static void account(loop *l, job *j, const sched_item *it, size_t at)
{
    const double n = it->n_tokens;
    double share = 0, loss = n * l->loss[it->point];
    for (uint32_t k = 0; k < it->n_tokens; k++, j->n_run++) {
        loss += account_token(l, j, it->point, at + k);
        share += mp_engine_compute_share(l->engine, at + k);
    }
    j->n_counted += it->n_tokens;
    j->share_sum += share;
    j->gate_sum += n * mp_model_point(l->p.model, it->point)->gate_share;
    j->loss_sum += loss;
    j->used.compute_share = j->share_sum / j->n_counted;
    j->used.experts_mean = j->used.compute_share * l->info->n_experts_used;
    j->used.gate_share = j->gate_sum / j->n_counted;
    j->used.ppl_increase = expm1(j->loss_sum / j->n_counted);
    metrics_tokens(l->p.metrics, it->point, it->n_tokens, it->prompt, share, loss, n * l->loss[j->params.floor]);
}

static void note_times(loop *l, job *j, uint64_t now_ns)
{
    if (j->first_ns == 0) {
        j->first_ns = now_ns;
        j->used.ttft_ns = now_ns - j->arrival_ns;
        metrics_ttft(l->p.metrics, j->used.ttft_ns);
    } else {
        metrics_inter_token(l->p.metrics, now_ns - j->last_ns);
        j->used.tpot_ns = (now_ns - j->first_ns) / (j->used.completion_tokens - 1);
    }
    j->last_ns = now_ns;
}

static void find_logprobs(const loop *l, const job *j, const float *logits, int32_t token, job_token *out)
{
    int32_t top[JOB_TOP_LOGPROBS_MAX];
    float values[JOB_TOP_LOGPROBS_MAX];
    const uint32_t k = j->params.top_logprobs < JOB_TOP_LOGPROBS_MAX ? j->params.top_logprobs : JOB_TOP_LOGPROBS_MAX;
    out->drawn = (job_logprob){token, mp_logprobs(logits, l->info->n_vocab, token, k, top, values)};
    out->n_top = 0;
    for (; out->n_top < k && top[out->n_top] >= 0; out->n_top++)
        out->top[out->n_top] = (job_logprob){top[out->n_top], values[out->n_top]};
}

/* On any of the engine's threads: touches nothing but the draw and its job's sampler. */
static void draw_one(void *arg, size_t i, unsigned thread)
{
    const loop *l = arg;
    loop_draw *d = &l->draws[i];
    (void)thread;
    if (!d->given) d->token = mp_sampler_draw(d->job->sampler, d->logits);
    if (d->job->params.logprobs) find_logprobs(l, d->job, d->logits, d->token, &d->logprobs);
}

static void take_score(loop_draw *d)
{
    job *j = d->job;
    if (j->ends == JOB_RUNNING && job_note_token(j, &d->logprobs, &j->failure) != MP_OK) j->ends = JOB_FAILED;
}

/* Each token of a chunk of the prompt scores the next one, and nothing the first. The chunk was the batch from `at`
 * on. */
static size_t score_prompt(loop *l, job *j, const sched_item *it, size_t at, loop_draw *out)
{
    const uint32_t first = j->n_run - it->n_tokens, n_prompt = (uint32_t)j->params.n_prompt;
    loop_draw start = {.job = j, .logprobs.drawn = {j->tokens[0], NAN}};
    size_t n = 0;
    if (first == 0) take_score(&start);
    for (uint32_t k = 0; k < it->n_tokens && first + k + 1 < n_prompt; k++)
        out[n++] = (loop_draw){
            .job = j, .logits = mp_engine_logits(l->engine, at + k), .given = true, .token = j->tokens[first + k + 1]};
    return n;
}

/* A token was drawn; j->ends where it is the last. */
static void take_token(loop *l, const loop_draw *d, uint64_t now_ns)
{
    job *j = d->job;
    const int32_t token = d->token;
    if (j->ends != JOB_RUNNING) return; /* its prompt could not be told */
    mp_sampler_accept(j->sampler, token);
    j->tokens[j->n_tokens++] = token;
    j->used.completion_tokens++;
    note_times(l, j, now_ns);
    j->news = true;
    if (!j->params.ignore_eos && mp_token_ends_text(l->p.model, token)) {
        j->ends = JOB_STOP;
        return;
    }
    char bytes[TOKEN_BYTES_MAX];
    bool stopped;
    const size_t n = mp_token_bytes(l->p.model, token, false, bytes, sizeof bytes);
    if (job_append(j, bytes, n < sizeof bytes ? n : sizeof bytes, j->params.logprobs ? &d->logprobs : NULL, &stopped,
                   &j->failure) != MP_OK)
        j->ends = JOB_FAILED;
    else if (stopped)
        j->ends = JOB_STOP;
    else if (j->used.completion_tokens == j->params.max_tokens)
        j->ends = JOB_LENGTH;
}

/* ---- the step ---- */

static size_t fill_batch(loop *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->plan.n; i++) {
        const sched_item *it = &l->plan.items[i];
        const job *j = l->running[it->slot];
        for (uint32_t k = 0; k < it->n_tokens; k++)
            l->batch[n++] = (mp_batch_token){.token = j->tokens[j->n_run + k],
                                             .seq = it->slot,
                                             .pos = j->n_run + k,
                                             .point = it->point,
                                             .logits = (it->samples && k + 1 == it->n_tokens) ||
                                                       (it->prompt && j->params.prompt_logprobs),
                                             .floor = it->prompt ? it->point : j->params.floor};
    }
    return n;
}

/* Told, unless nothing that follows can be news. What runs and waits goes on: all it needs may be in memory. */
static void tell_failure(loop *l, const mp_error *err)
{
    pthread_mutex_lock(&l->lock);
    const bool known = l->broken.status != MP_OK;
    if (err->status == MP_E_CHANGED) l->broken = *err;
    pthread_mutex_unlock(&l->lock);
    if (known) return;
    if (err->status == MP_E_CHANGED) metrics_model_changed(l->p.metrics);
    if (l->p.failed) l->p.failed(l->p.user, err);
}

/* Nobody knows what a step that failed has left in the cache: whoever took part is told, and its pages are given up. */
static void fail_all(loop *l, const mp_error *err)
{
    for (size_t i = 0; i < l->plan.n; i++) {
        job *j = l->running[l->plan.items[i].slot];
        j->ends = JOB_FAILED;
        j->failure = *err;
    }
    l->plan.n = 0; /* it did not run */
    tell_failure(l, err);
    l->since_ns = clock_now_ns();
}

void loop_run(loop *l)
{
    mp_error err;
    make_room(l);
    const size_t n = fill_batch(l);
    const uint64_t start = clock_now_ns(), overhead = start - l->since_ns;
    if (mp_engine_step(l->engine, l->batch, n, &err) != MP_OK) {
        fail_all(l, &err);
        return;
    }
    const uint64_t end = clock_now_ns();
    l->since_ns = end;
    l->took_ns = end - start;
    const double as_measured = (double)l->plan.predicted_ns / sched_cost(l->sched)->correction;
    metrics_step(l->p.metrics, l->plan.predicted_ns, (uint64_t)as_measured, l->took_ns, overhead);
    size_t at = 0, draws = 0, drawn = 0;
    for (size_t i = 0; i < l->plan.n; i++) {
        const sched_item *it = &l->plan.items[i];
        job *j = l->running[it->slot];
        account(l, j, it, at);
        if (it->prompt && j->params.prompt_logprobs) draws += score_prompt(l, j, it, at, &l->draws[draws]);
        at += it->n_tokens;
        if (!it->samples) continue;
        if (it->prompt && l->prefix) enter_pages(l, j);
        l->draws[draws++] = (loop_draw){.job = j, .logits = mp_engine_logits(l->engine, at - 1)};
        drawn++;
    }
    mp_engine_for(l->engine, draws, draw_one, l);
    for (size_t i = 0; i < draws; i++)
        if (l->draws[i].given)
            take_score(&l->draws[i]);
        else
            take_token(l, &l->draws[i], end);
    for (size_t i = 0; i < l->plan.n; i++) job_show_usage(l->running[l->plan.items[i].slot]);
    metrics_drawn(l->p.metrics, drawn);
}
