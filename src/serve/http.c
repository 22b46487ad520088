/* The callbacks of libmicrohttpd.
 *
 * A request that is refused is still read to its end (and dropped), within bounds: who closes a socket with unread
 * bytes in it sends a reset, which overtakes the refusal.
 *
 * A header has to fit into a connection's memory before anybody here sees it; what does not is refused by libmicrohttpd
 * itself, with a page of its own. So that memory is several times the header that is allowed, but no more than a
 * thousand connections can have: all of it is touched whenever a connection goes on to its next request. */
#include "serve/http.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "serve/exchange.h"

enum {
    CONNECTION_MEMORY = 65536, /* of libmicrohttpd: header and buffers of a connection */
    DROPPED_BODIES = 4,        /* a refused body is read up to so many times the limit */
    HELD_BODIES = 16,          /* all bodies being read may take so many times the limit */
};

static visitor *visitor_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

/* MHD_NotifyConnectionCallback */
static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    http *h = user;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = info != NULL ? visitor_open(h->p.watch, info->connect_fd, exchange_deadline(h, 0)) : NULL;
        metrics_connections(h->p.api->metrics, 1);
    } else {
        visitor_close(*context);
        *context = NULL;
        metrics_connections(h->p.api->metrics, -1);
    }
}

/* MHD_RequestCompletedCallback: also of requests that broke off. */
static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    http *h = user;
    visitor *v = visitor_of(connection);
    (void)code;
    if (*context != NULL) exchange_free(*context);
    *context = NULL;
    if (v != NULL) visitor_deadline(v, exchange_deadline(h, 0));
}

static enum MHD_Result begin(http *h, struct MHD_Connection *connection, const char *url, const char *method,
                             void **context)
{
    exchange *x = calloc(1, sizeof *x);
    if (x == NULL) return MHD_NO;
    *x = (exchange){.http = h, .connection = connection, .visitor = visitor_of(connection)};
    *context = x;
    exchange_check(x, url, method);
    if (x->visitor != NULL) visitor_deadline(x->visitor, exchange_deadline(h, 0));
    /* A client that asks before it sends hears a refusal at once, and so does one that would send too much to drop. */
    const bool at_once = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Expect") != NULL ||
                         exchange_content_length(x) / DROPPED_BODIES > h->p.max_body;
    return x->refusal.http != 0 && at_once ? exchange_refuse(x, &x->refusal) : MHD_YES;
}

static enum MHD_Result take_body(exchange *x, const char *data, size_t len)
{
    http *h = x->http;
    x->received += len;
    if (x->received > h->p.max_body) {
        api_fail(&x->refusal, 413, "body_too_large", "the body has more than the %" PRIu64 " bytes that are allowed",
                 h->p.max_body);
    } else if (h->body_bytes + len > HELD_BODIES * h->p.max_body) {
        api_fail(&x->refusal, 503, "busy", "too many large requests at once");
        x->refusal.retry_s = 1;
    }
    if (x->refusal.http != 0) return x->received <= DROPPED_BODIES * h->p.max_body ? MHD_YES : MHD_NO;
    const size_t before = x->body.len;
    buffer_add(&x->body, data, len);
    h->body_bytes += x->body.len - before;
    return x->body.failed ? MHD_NO : MHD_YES;
}

/* MHD_AccessHandlerCallback: once with the header, with every part of the body, at the end, and after every sleep. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **context)
{
    exchange *x = *context;
    (void)version;
    if (x == NULL) return begin(user, connection, url, method, context);
    if (*size > 0) {
        const enum MHD_Result result = take_body(x, data, *size);
        *size = 0;
        return result;
    }
    if (x->generation != NULL) return exchange_continue(x);
    if (x->visitor != NULL) visitor_deadline(x->visitor, 0);
    return x->refusal.http != 0 ? exchange_refuse(x, &x->refusal) : exchange_answer(x);
}

mp_status http_start(const http_params *params, http **out, mp_error *err)
{
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    http *h = calloc(1, sizeof *h);
    if (h == NULL) {
        listener_close(params->listener);
        return status_no_memory(err, sizeof *h, "the server");
    }
    h->p = *params;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, params->listener->fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)params->connections, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)params->timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_END);
    if (h->daemon == NULL) {
        free(h);
        listener_close(params->listener);
        return status_fail(err, MP_E_IO, "cannot start the HTTP server");
    }
    params->listener->fd = -1;
    *out = h;
    return MP_OK;
}

void http_stop(http *h)
{
    if (h == NULL) return;
    MHD_stop_daemon(h->daemon);
    free(h);
}
