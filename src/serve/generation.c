/* Submitting and reading the jobs of one request.
 *
 * All or nothing: when the queue has no room for the last choice, the first ones are cancelled and the request is
 * refused. Seeds of the choices differ: seed, seed + 1, ... */
#include "serve/generation.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "serve/text.h"

/* ---- start ---- */

static bool copy_stops(const api_request *r, job_params *p)
{
    if (r->n_stop == 0) return true;
    p->stop = calloc(r->n_stop, sizeof *p->stop);
    if (p->stop == NULL) return false;
    for (; p->n_stop < r->n_stop; p->n_stop++) {
        p->stop[p->n_stop] = strdup(r->stop[p->n_stop]);
        if (p->stop[p->n_stop] == NULL) return false;
    }
    return true;
}

static bool fill_params(const generation *g, size_t i, job_params *p)
{
    const api_request *r = &g->request;
    const api_prompt *prompt = &r->prompts[i / r->n];
    *p = (job_params){.n_prompt = prompt->n,
                      .max_tokens = r->max_tokens,
                      .open_ended = r->open_ended,
                      .sampling = r->sampling,
                      .ignore_eos = r->ignore_eos,
                      .logprobs = r->logprobs,
                      .prompt_logprobs = r->prompt_logprobs,
                      .top_logprobs = r->top_logprobs,
                      .skip_white = r->skip_white,
                      .best = r->best,
                      .floor = r->floor,
                      .ttft_ns = r->ttft_ns,
                      .tpot_ns = r->tpot_ns,
                      .priority = r->priority,
                      .request = g};
    p->sampling.seed += i % r->n;
    p->prompt = malloc(prompt->n * sizeof *p->prompt);
    if (p->prompt != NULL) memcpy(p->prompt, prompt->ids, prompt->n * sizeof *p->prompt);
    if (p->prompt != NULL && copy_stops(r, p)) return true;
    job_params_clear(p);
    return false;
}

static void fail_stopping(api_error *err)
{
    if (err->http == 0) err->retry_s = 5;
    api_fail(err, 503, "stopping", "the server is shutting down");
}

static bool refused(loop_verdict verdict, uint64_t retry_ns, const mp_error *cause, api_error *err)
{
    const double retry_s = ceil((double)retry_ns / 1e9);
    switch (verdict) {
    case LOOP_ACCEPTED:
        return false;
    case LOOP_QUEUE_FULL:
        api_fail(err, 503, "queue_full", "the queue is full; try again in %.0f s", retry_s < 1 ? 1 : retry_s);
        err->retry_s = retry_s < 1 ? 1 : retry_s > 3600 ? 3600 : (unsigned)retry_s;
        return true;
    case LOOP_NEVER_FITS:
        api_fail(err, 400, "context_length_exceeded", "%s", cause->message);
        return true;
    case LOOP_INVALID:
    case LOOP_BROKEN:
        api_fail_status(err, cause->status, cause);
        return true;
    case LOOP_STOPPING:
        fail_stopping(err);
        return true;
    }
    return true;
}

static bool submit(generation *g, size_t i, void (*wake)(void *user), void *user, api_error *err)
{
    job_params params;
    mp_error cause = {0};
    uint64_t retry_ns = 0;
    if (!fill_params(g, i, &params)) return api_fail_memory(err);
    params.wake = wake;
    params.user = user;
    const loop_verdict verdict = loop_submit(g->api->loop, &params, &g->choices[i].job, &retry_ns, &cause);
    return !refused(verdict, retry_ns, &cause, err);
}

static void make_id(generation *g)
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
        random[0] = clock_now_ns();
        random[1] = (uintptr_t)g;
    }
    snprintf(g->id, sizeof g->id, "%s%016" PRIx64 "%08" PRIx32, g->protocol->id_prefix, random[0], (uint32_t)random[1]);
    g->created_s = time(NULL);
}

/* Prompts are the jobs' now; an echoed text is still needed. */
static void drop_ids(api_request *r)
{
    for (size_t i = 0; i < r->n_prompts; i++) {
        free(r->prompts[i].ids);
        r->prompts[i].ids = NULL;
    }
}

bool generation_start(const api_context *api, const api_protocol *protocol, api_request *request,
                      void (*wake)(void *user), void *user, generation **out, api_error *err)
{
    generation *g = calloc(1, sizeof *g);
    choice *choices = calloc(request->n_prompts * request->n, sizeof *choices);
    if (g == NULL || choices == NULL) {
        free(g);
        free(choices);
        api_request_clear(request);
        return api_fail_memory(err);
    }
    *g = (generation){.api = api, .protocol = protocol, .request = *request, .choices = choices};
    *request = (api_request){0};
    make_id(g);
    while (g->n_choices < g->request.n_prompts * g->request.n) {
        if (!submit(g, g->n_choices, wake, user, err)) {
            generation_free(g);
            return false;
        }
        g->n_choices++;
    }
    drop_ids(&g->request);
    *out = g;
    return true;
}

void generation_free(generation *g)
{
    if (g == NULL) return;
    for (size_t i = 0; i < g->n_choices; i++) {
        job_release(g->choices[i].job);
        buffer_clear(&g->choices[i].text);
        free(g->choices[i].tokens);
    }
    free(g->choices);
    api_request_clear(&g->request);
    free(g);
}

/* ---- reading ---- */

static void note_end(generation *g, choice *c, const job_piece *piece)
{
    if (piece->end == JOB_RUNNING || c->end != JOB_RUNNING) return;
    c->end = piece->end;
    c->stopped_by = piece->stopped_by;
    g->n_ended++;
    if (piece->end == JOB_FAILED) api_fail_step(&g->failure, piece->error);
    if (piece->end == JOB_CANCELLED) fail_stopping(&g->failure);
}

static void keep(generation *g, choice *c, const job_piece *piece)
{
    buffer_add(&c->text, piece->text, piece->len);
    if (c->text.failed) api_fail_memory(&g->failure);
    if (piece->n_tokens == 0) return;
    job_token *grown = realloc(c->tokens, (c->n_tokens + piece->n_tokens) * sizeof *grown);
    if (grown == NULL) {
        api_fail_memory(&g->failure);
        return;
    }
    memcpy(grown + c->n_tokens, piece->tokens, piece->n_tokens * sizeof *grown);
    c->tokens = grown;
    c->n_tokens += piece->n_tokens;
}

bool generation_gather(generation *g)
{
    job_piece piece;
    for (size_t i = 0; i < g->n_choices; i++) {
        choice *c = &g->choices[i];
        while (c->end == JOB_RUNNING && job_take(c->job, &piece)) {
            keep(g, c, &piece);
            note_end(g, c, &piece);
            job_piece_clear(&piece);
        }
    }
    return g->n_ended == g->n_choices || g->failure.http != 0;
}

void generation_open_stream(generation *g, buffer *out)
{
    g->protocol->open(g, out);
}

bool generation_stream(generation *g, buffer *out)
{
    job_piece piece;
    for (size_t i = 0; i < g->n_choices && g->failure.http == 0; i++) {
        choice *c = &g->choices[i];
        while (c->end == JOB_RUNNING && job_take(c->job, &piece)) {
            note_end(g, c, &piece);
            if (g->failure.http != 0) piece.end = JOB_RUNNING; /* told by broken() */
            if (piece.end != JOB_RUNNING || piece.len > 0 || piece.n_tokens > 0) g->protocol->piece(g, i, &piece, out);
            job_piece_clear(&piece);
        }
    }
    if (g->failure.http != 0)
        g->protocol->broken(&g->failure, out);
    else if (g->n_ended == g->n_choices)
        g->protocol->close(g, out);
    else
        return false;
    return true;
}

/* ---- the account ---- */

const char *generation_finish(const choice *c)
{
    return c->end == JOB_LENGTH ? "length" : "stop";
}

static uint32_t tokens_run(const job_usage *u)
{
    return u->prompt_tokens - u->cached_tokens + u->completion_tokens;
}

/* Means over all tokens run; times are the slowest choice's. */
static void add_usage(job_usage *sum, const job_usage *u, double before)
{
    const double n = tokens_run(u), all = before + n, part = all > 0 ? n / all : 1;
    sum->compute_share += (u->compute_share - sum->compute_share) * part;
    sum->experts_mean += (u->experts_mean - sum->experts_mean) * part;
    sum->gate_share += (u->gate_share - sum->gate_share) * part;
    sum->ppl_increase += (u->ppl_increase - sum->ppl_increase) * part;
    if (u->point_min < sum->point_min) sum->point_min = u->point_min;
    if (u->point_max > sum->point_max) sum->point_max = u->point_max;
    if (u->queue_ns > sum->queue_ns) sum->queue_ns = u->queue_ns;
    if (u->ttft_ns > sum->ttft_ns) sum->ttft_ns = u->ttft_ns;
    if (u->tpot_ns > sum->tpot_ns) sum->tpot_ns = u->tpot_ns;
    sum->dropped += u->dropped;
    sum->cached_tokens += u->cached_tokens;
    sum->completion_tokens += u->completion_tokens;
}

job_usage generation_usage(const generation *g)
{
    job_usage sum = {0};
    double run = 0;
    uint32_t prompts = 0;
    for (size_t i = 0; i < g->n_choices; i++) {
        const job_usage u = job_get_usage(g->choices[i].job);
        if (i == 0)
            sum = u;
        else
            add_usage(&sum, &u, run);
        run += tokens_run(&u);
        if (i % g->request.n == 0) prompts += u.prompt_tokens;
    }
    sum.prompt_tokens = prompts;
    return sum;
}

static json_t *ms_json(uint64_t ns)
{
    return ns > 0 ? json_real(round((double)ns / 1e3) / 1e3) : json_null();
}

json_t *usage_account(const api_context *api, const job_usage *u, uint32_t floor)
{
    const mp_point *least = mp_model_point(api->model, floor);
    json_t *dropped = api->deadline_ns > 0 ? json_integer((json_int_t)u->dropped) : NULL;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:[i,i], s:i, s:o, s:o, s:o, s:o, s:o, s:i, s:o*}", /* */
                     "experts_mean", number_json(u->experts_mean), "experts_floor", number_json(u->experts_floor),
                     "compute_share", number_json(u->compute_share), "compute_floor", number_json(least->compute_share),
                     "gate_share", number_json(u->gate_share), "points", (int)u->point_min, (int)u->point_max,
                     "floor_point", (int)floor, "ppl_increase", number_json(u->ppl_increase), "ppl_increase_floor",
                     number_json(u->ppl_increase_floor), "queue_ms", json_real((double)u->queue_ns / 1e6), "ttft_ms",
                     ms_json(u->ttft_ns), "tpot_ms", ms_json(u->tpot_ns), "cached_tokens", (int)u->cached_tokens,
                     "dropped_subexperts", dropped);
}

json_t *generation_usage_json(const generation *g)
{
    const job_usage u = generation_usage(g);
    return json_pack("{s:I, s:I, s:I, s:{s:i}, s:o}", "prompt_tokens", (json_int_t)u.prompt_tokens, "completion_tokens",
                     (json_int_t)u.completion_tokens, "total_tokens", (json_int_t)u.prompt_tokens + u.completion_tokens,
                     "prompt_tokens_details", "cached_tokens", (int)u.cached_tokens, "moeprism",
                     usage_account(g->api, &u, g->request.floor));
}

void event_add(buffer *out, const char *name, json_t *data)
{
    if (name != NULL) {
        buffer_text(out, "event: ");
        buffer_text(out, name);
        buffer_text(out, "\n");
    }
    buffer_text(out, "data: ");
    buffer_json(out, data);
    buffer_text(out, "\n\n");
}
