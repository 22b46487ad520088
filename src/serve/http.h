/* http.h: the server's socket side: one thread of libmicrohttpd's that accepts, reads, asks access.h and routes.h, and
 * writes.
 *
 * Nothing waits in that thread: a request whose reply must be generated is put to sleep (watch.h) until its jobs have
 * something, a client that reads slowly keeps its unread text in its job. */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include "serve/access.h"
#include "serve/api.h"
#include "serve/listen.h"
#include "serve/watch.h"

typedef struct http http;

typedef struct http_params {
    const api_context *api; /* all borrowed, outlive the server */
    const access_rules *access;
    watch *watch;
    listener *listener;   /* its descriptor is taken over, also by a failure */
    uint64_t max_body;    /* bytes of a request's body */
    uint32_t connections; /* at once; more wait in the system's queue */
    uint32_t timeout_s;   /* a client may take to send a request, to read a part of a reply, or between requests */
} http_params;

mp_status http_start(const http_params *params, http **out, mp_error *err);
/* Ends all connections; watch_close_all() must have been called. NULL is fine. */
void http_stop(http *h);

#endif
