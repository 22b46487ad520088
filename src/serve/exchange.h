/* exchange.h: one request and its reply on a connection, as the callbacks of libmicrohttpd see it. The HTTP thread's.
 */
#ifndef SERVE_EXCHANGE_H
#define SERVE_EXCHANGE_H

#include <microhttpd.h>

#include "serve/generation.h"
#include "serve/http.h"
#include "serve/routes.h"

struct http {
    http_params p;
    struct MHD_Daemon *daemon;
    size_t body_bytes; /* of requests being read, in all */
};

typedef struct exchange {
    http *http;
    struct MHD_Connection *connection;
    visitor *visitor;
    const route *route; /* NULL: none fits */
    const char *rest;
    const char *origin; /* allowed to read the reply (CORS), else NULL */
    bool preflight;
    api_error refusal; /* found before the body was read */
    buffer body;
    size_t received; /* bytes of the body, stored or not */
    generation *generation;
    sleeper *sleeper;
    buffer out;   /* a stream's text that waits to be sent */
    bool ended;   /* nothing more will be added to it */
    bool counted; /* its outcome is in the metrics */
} exchange;

/* Time (clock_now_ns()) by which a client has to have done its part, with so many bytes of a reply to read. */
uint64_t exchange_deadline(const http *h, size_t bytes);
uint64_t exchange_content_length(const exchange *x); /* as the header says, 0: it does not */
/* Judges what is known when the header has arrived: access, address, method, sizes. refusal.http != 0: refused. */
void exchange_check(exchange *x, const char *url, const char *method);
/* The request is complete: answers it, or begins a generation. MHD_NO: give the connection up. */
enum MHD_Result exchange_answer(exchange *x);
/* Called again after a sleep. */
enum MHD_Result exchange_continue(exchange *x);
/* Sends an error in the shape of the API that was asked. */
enum MHD_Result exchange_refuse(exchange *x, const api_error *err);
void exchange_free(exchange *x);

#endif
