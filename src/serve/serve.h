/* serve.h: the server from its start to its end, on the calling thread. */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

#include "serve/access.h"
#include "serve/listen.h"
#include "serve/loop.h"

typedef struct serve_params {
    const mp_model *model;
    const char *model_id;    /* the name it is served under */
    const char *chat_family; /* NULL: the model's own */
    mp_engine_params engine; /* n_seqs: slots, n_ctx: tokens of each */
    sched_policy policy;
    uint32_t queue;
    uint32_t floor, flex_floor, priority_floor; /* points, for requests that name none, by their service tier */
    uint64_t ttft_ns, tpot_ns, max_wait_ns;
    cost_model cost;
    bool no_prefix_cache;
    const access_rules *access;
    listener *listener; /* closed by serve_run() */
    uint64_t max_body;
    uint32_t connections, timeout_s, grace_s;
    int stop_fd;                                     /* does not block; borrowed */
    void (*ready)(void *user);                       /* called once, when requests are answered */
    void (*failed)(void *user, const mp_error *err); /* loop.h */
    void (*noticed)(void *user, const char *notice); /* loop.h */
    void *user;
} serve_params;

/* Serves until a byte can be read from stop_fd; then finishes what runs within grace_s, refusing what is new. The
 * second byte cancels what runs. */
mp_status serve_run(const serve_params *params, mp_error *err);

#endif
