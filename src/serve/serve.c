/* Starting and stopping the server. Threads: this one watches connections and for the word to stop (watch.h), one
 * speaks HTTP (http.h), one owns the engine (loop.h). To stop, a fourth waits for the loop, so that this one goes on
 * watching clients, and hears it being said again. */
#include "serve/serve.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/api.h"
#include "serve/http.h"
#include "serve/watch.h"

/* Clients may take so long to read the end of their replies, or so long once the server was told twice to stop. */
enum { FLUSH_S = 5, HASTY_FLUSH_S = 1, FLUSH_TICK_MS = 10 };

typedef struct server {
    const serve_params *p;
    metrics *metrics;
    loop *loop;
    watch *watch;
    http *http;
    api_context api;
    int stopped;   /* eventfd: the loop has stopped */
    unsigned told; /* to stop, so often */
    pthread_t stopper;
} server;

/* As many descriptors as connections need, if the system lets us. */
static void raise_file_limit(uint32_t connections)
{
    struct rlimit limit;
    const rlim_t need = (rlim_t)connections + 64;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need) return;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- stopping ---- */

static void *stop_loop(void *user)
{
    server *s = user;
    const uint64_t one = 1;
    loop_stop(s->loop, s->p->grace_s * UINT64_C(1000000000));
    const ssize_t written = write(s->stopped, &one, sizeof one);
    (void)written; /* an eventfd takes it */
    return NULL;
}

static mp_status on_stop(server *s, mp_error *err)
{
    char byte;
    if (read(s->p->stop_fd, &byte, 1) != 1) return MP_OK;
    s->told++;
    if (s->told > 1) {
        loop_abort(s->loop);
        return MP_OK;
    }
    const int failed = pthread_create(&s->stopper, NULL, stop_loop, s);
    if (failed == 0) return MP_OK;
    s->told = 0;
    return status_fail(err, MP_E_MEMORY, "cannot start a thread: %s", strerror(failed));
}

/* The ends of replies that clients have not read yet: also those that were cut short have one, which says why. */
static mp_status flush(server *s, mp_error *err)
{
    const uint64_t since = clock_now_ns();
    while (watch_sleepers(s->watch) > 0) {
        const uint64_t limit_s = s->told < 2 ? FLUSH_S : HASTY_FLUSH_S;
        if (clock_now_ns() - since >= limit_s * 1000000000) break;
        if (watch_wait(s->watch, FLUSH_TICK_MS) == s->p->stop_fd) MP_TRY(on_stop(s, err));
    }
    return MP_OK;
}

static mp_status run(server *s, mp_error *err)
{
    for (;;) {
        const int fd = watch_wait(s->watch, WATCH_TICK_MS);
        if (fd == s->stopped) break;
        if (fd == s->p->stop_fd) MP_TRY(on_stop(s, err));
    }
    return flush(s, err);
}

/* ---- starting ---- */

static mp_status open_watch(server *s, mp_error *err)
{
    MP_TRY(watch_new(&s->watch, err));
    s->stopped = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->stopped < 0) return status_fail(err, MP_E_IO, "cannot make an eventfd: %s", strerror(errno));
    MP_TRY(watch_add(s->watch, s->p->stop_fd, err));
    return watch_add(s->watch, s->stopped, err);
}

static mp_status open_loop(server *s, mp_error *err)
{
    const serve_params *p = s->p;
    const loop_params params = {.model = p->model,
                                .engine = p->engine,
                                .policy = p->policy,
                                .queue = p->queue,
                                .ttft_ns = p->ttft_ns,
                                .tpot_ns = p->tpot_ns,
                                .max_wait_ns = p->max_wait_ns,
                                .cost = p->cost,
                                .no_prefix_cache = p->no_prefix_cache,
                                .metrics = s->metrics,
                                .failed = p->failed,
                                .noticed = p->noticed,
                                .user = p->user};
    return loop_open(&params, &s->loop, err);
}

static size_t longest_token(const mp_model *model)
{
    const uint32_t n_vocab = mp_model_get_info(model)->n_vocab;
    size_t longest = 1;
    for (uint32_t id = 0; id < n_vocab; id++) {
        const size_t n = mp_token_bytes(model, (int32_t)id, true, NULL, 0);
        if (n > longest) longest = n;
    }
    return longest;
}

static void describe(server *s)
{
    const serve_params *p = s->p;
    const loop_status status = loop_get_status(s->loop);
    s->api = (api_context){
        .model = p->model,
        .loop = s->loop,
        .metrics = s->metrics,
        .model_id = p->model_id,
        .chat_family = p->chat_family,
        .policy = p->policy,
        .slots = status.slots,
        .queue = p->queue,
        .n_ctx = status.n_ctx,
        .longest_token = longest_token(p->model),
        .floor = {[TIER_DEFAULT] = p->floor, [TIER_FLEX] = p->flex_floor, [TIER_PRIORITY] = p->priority_floor},
        .ttft_ns = p->ttft_ns,
        .tpot_ns = p->tpot_ns,
        .deadline_ns = p->engine.store.deadline_ns,
        .cost = p->cost,
        .started_s = time(NULL)};
}

static mp_status start(server *s, mp_error *err)
{
    const serve_params *p = s->p;
    raise_file_limit(p->connections);
    MP_TRY(open_watch(s, err));
    MP_TRY(metrics_new(p->model, &s->metrics, err));
    MP_TRY(open_loop(s, err));
    describe(s);
    MP_TRY(listener_start(p->listener, err));
    const http_params params = {.api = &s->api,
                                .access = p->access,
                                .watch = s->watch,
                                .listener = p->listener,
                                .max_body = p->max_body,
                                .connections = p->connections,
                                .timeout_s = p->timeout_s};
    return http_start(&params, &s->http, err);
}

mp_status serve_run(const serve_params *params, mp_error *err)
{
    server s = {.p = params, .stopped = -1};
    mp_status status = start(&s, err);
    if (status == MP_OK) {
        params->ready(params->user);
        status = run(&s, err);
    }
    if (s.watch != NULL) watch_close_all(s.watch);
    http_stop(s.http);
    if (s.told > 0) pthread_join(s.stopper, NULL);
    loop_close(s.loop);
    metrics_free(s.metrics);
    watch_free(s.watch);
    if (s.stopped >= 0) close(s.stopped);
    listener_close(params->listener);
    return status;
}
