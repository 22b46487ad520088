#include "serve/exchange.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "serve/fields.h"

enum {
    MAX_HEADER = 16384,  /* bytes of a request's header */
    STREAM_BLOCK = 8192, /* bytes of a stream that one write takes */
    BEAT_S = 10,         /* silence of a stream before a sign of life */
    SLOW_LINE = 65536,   /* bytes a second: a reply may take as long as at this pace, beyond the timeout */
};

static const char *header(const exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

uint64_t exchange_deadline(const http *h, size_t bytes)
{
    return clock_now_ns() + h->p.timeout_s * UINT64_C(1000000000) + bytes * UINT64_C(1000000000) / SLOW_LINE;
}

/* So many bytes are there to be read. */
static void expect_reader(exchange *x, size_t bytes)
{
    if (x->visitor != NULL) visitor_deadline(x->visitor, exchange_deadline(x->http, bytes));
}

/* All of them were; the next ones take time. */
static void expect_nothing(exchange *x)
{
    if (x->visitor != NULL) visitor_deadline(x->visitor, 0);
}

/* ---- the header ---- */

static const char *allowed(const route *r)
{
    return r->method == ROUTE_POST ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

static void check_route(exchange *x, const char *url, const char *method)
{
    api_error *err = &x->refusal;
    x->route = route_find(url, &x->rest);
    if (x->route == NULL) {
        api_fail(err, 404, "not_found", "there is nothing at %.200s", url);
        return;
    }
    x->preflight = strcmp(method, "OPTIONS") == 0;
    const bool gets = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    const bool fits = x->route->method == ROUTE_POST ? strcmp(method, "POST") == 0 : gets;
    if (!fits && !x->preflight)
        api_fail(err, 405, "method_not_allowed", "%.20s is not allowed here, only %s", method, allowed(x->route));
}

static void check_access(exchange *x)
{
    api_error *err = &x->refusal;
    const access_rules *rules = x->http->p.access;
    const char *origin = header(x, "Origin"), *host = header(x, "Host");
    if (!access_host(rules, host)) {
        api_fail(err, 403, "wrong_host", "this server does not answer for the host '%.100s'", host);
        return;
    }
    if (access_cors(rules, origin)) x->origin = origin;
    if (!access_origin(rules, origin, host)) {
        api_fail(err, 403, "wrong_origin", "pages of %.100s may not ask this server (--cors-origin)", origin);
        return;
    }
    const bool open = x->preflight || (x->route != NULL && x->route->open);
    if (!open && !access_key(rules, header(x, "Authorization"), header(x, "x-api-key")))
        api_fail(err, 401, "invalid_api_key", "a valid API key is needed (Authorization: Bearer KEY)");
}

uint64_t exchange_content_length(const exchange *x)
{
    const char *text = header(x, "Content-Length");
    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

static void check_sizes(exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (info != NULL && info->header_size > MAX_HEADER)
        api_fail(&x->refusal, 431, "header_too_large", "the header has %zu bytes, %d are allowed", info->header_size,
                 MAX_HEADER);
    if (exchange_content_length(x) > x->http->p.max_body)
        api_fail(&x->refusal, 413, "body_too_large", "the body has %" PRIu64 " bytes, %" PRIu64 " are allowed",
                 exchange_content_length(x), x->http->p.max_body);
}

void exchange_check(exchange *x, const char *url, const char *method)
{
    check_sizes(x);
    check_route(x, url, method);
    check_access(x);
}

/* ---- outcomes ---- */

static metric_outcome outcome_of_error(const api_error *err)
{
    const char *code = err->code != NULL ? err->code : "";
    if (strcmp(code, "stopping") == 0) return OUTCOME_CANCELLED;
    if (err->http == 503) return OUTCOME_REFUSED_QUEUE;
    if (err->http >= 500) return OUTCOME_FAILED;
    return strcmp(code, "context_length_exceeded") == 0 ? OUTCOME_REFUSED_SIZE : OUTCOME_INVALID;
}

/* Of a generation that has ended: several replies are cut short if one of them is. */
static metric_outcome outcome_of_generation(const generation *g)
{
    if (g->failure.http != 0) return outcome_of_error(&g->failure);
    for (size_t i = 0; i < g->n_choices; i++)
        if (g->choices[i].end == JOB_LENGTH) return OUTCOME_LENGTH;
    return OUTCOME_STOP;
}

/* A request has one outcome: the first that is known. */
static void count(exchange *x, metric_outcome outcome)
{
    if (!x->counted) metrics_outcome(x->http->p.api->metrics, outcome);
    x->counted = true;
}

/* ---- replies ---- */

static void add_headers(const exchange *x, struct MHD_Response *response)
{
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (x->generation != NULL) MHD_add_response_header(response, "x-request-id", x->generation->id);
    if (x->origin == NULL) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", x->origin);
    MHD_add_response_header(response, "Vary", "Origin");
    MHD_add_response_header(response, "Access-Control-Expose-Headers", "x-request-id, retry-after");
    if (!x->preflight) return;
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(response, "Access-Control-Allow-Headers",
                            header(x, "Access-Control-Request-Headers") != NULL
                                ? header(x, "Access-Control-Request-Headers")
                                : "authorization, content-type");
    MHD_add_response_header(response, "Access-Control-Max-Age", "86400");
}

static enum MHD_Result queue(exchange *x, unsigned status, struct MHD_Response *response, size_t bytes)
{
    if (response == NULL) return MHD_NO;
    add_headers(x, response);
    expect_reader(x, bytes);
    const enum MHD_Result result = MHD_queue_response(x->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* Takes over the body. */
static struct MHD_Response *text_response(buffer *body, const char *type)
{
    if (body->failed) {
        buffer_clear(body);
        return NULL;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        buffer_clear(body);
    else
        MHD_add_response_header(response, "Content-Type", type != NULL ? type : "application/json");
    *body = (buffer){0};
    return response;
}

enum MHD_Result exchange_refuse(exchange *x, const api_error *err)
{
    buffer body = {0};
    char seconds[16];
    count(x, outcome_of_error(err));
    buffer_json(&body, x->route != NULL ? x->route->error(err) : api_error_openai(err));
    buffer_text(&body, "\n");
    const size_t bytes = body.len;
    struct MHD_Response *response = text_response(&body, NULL);
    if (response == NULL) return MHD_NO;
    if (err->retry_s > 0) {
        snprintf(seconds, sizeof seconds, "%u", err->retry_s);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (err->http == 405 && x->route != NULL) MHD_add_response_header(response, "Allow", allowed(x->route));
    if (err->http == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    return queue(x, err->http, response, bytes);
}

/* A file of the page: kept by browsers as long as its digest is the same. It needs scripts and styles of its own only.
 */
static enum MHD_Result send_page(exchange *x, const page_file *file)
{
    char digest[65], etag[24];
    sha256_hex(file->data, file->len, digest);
    snprintf(etag, sizeof etag, "\"%.16s\"", digest);
    const char *known = header(x, "If-None-Match");
    const bool same = known != NULL && strstr(known, etag) != NULL;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(same ? 0 : file->len, (void *)file->data, MHD_RESPMEM_PERSISTENT);
    if (response == NULL) return MHD_NO;
    MHD_add_response_header(response, "Content-Type", file->type);
    MHD_add_response_header(response, "ETag", etag);
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    return queue(x, same ? 304 : 200, response, file->len);
}

static enum MHD_Result send_reply(exchange *x, reply *r)
{
    if (r->page != NULL) return send_page(x, r->page);
    const size_t bytes = r->body.len;
    return queue(x, r->http, text_response(&r->body, r->type), bytes);
}

static enum MHD_Result answer_preflight(exchange *x)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response != NULL) MHD_add_response_header(response, "Allow", allowed(x->route));
    return queue(x, 204, response, 0);
}

/* ---- generations ---- */

static void fill(exchange *x)
{
    if (sleeper_beat(x->sleeper)) buffer_text(&x->out, x->generation->protocol->heartbeat);
    x->ended = generation_stream(x->generation, &x->out);
    if (x->ended) count(x, outcome_of_generation(x->generation));
    if (x->out.len == 0) return;
    sleeper_wrote(x->sleeper);
    expect_reader(x, x->out.len);
}

/* MHD_ContentReaderCallback */
static ssize_t read_stream(void *user, uint64_t position, char *out, size_t cap)
{
    exchange *x = user;
    (void)position;
    for (;;) {
        if (x->out.failed || sleeper_gone(x->sleeper)) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (x->out.len > 0) return (ssize_t)buffer_take(&x->out, out, cap);
        if (x->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        fill(x);
        if (x->out.len > 0 || x->ended) continue;
        expect_nothing(x);
        if (sleeper_sleep(x->sleeper)) return 0;
    }
}

static enum MHD_Result start_stream(exchange *x)
{
    generation_open_stream(x->generation, &x->out);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* proxies hand events on at once */
    }
    return queue(x, 200, response, x->out.len);
}

enum MHD_Result exchange_continue(exchange *x)
{
    do {
        if (sleeper_gone(x->sleeper)) return MHD_NO;
        if (!generation_gather(x->generation)) continue;
        if (x->generation->failure.http != 0) return exchange_refuse(x, &x->generation->failure);
        reply r = {.http = 200};
        count(x, outcome_of_generation(x->generation));
        buffer_json(&r.body, x->generation->protocol->whole(x->generation));
        buffer_text(&r.body, "\n");
        return send_reply(x, &r);
    } while (!sleeper_sleep(x->sleeper));
    return MHD_YES;
}

static enum MHD_Result start_generation(exchange *x, const json_t *body, api_error *err)
{
    const api_context *api = x->http->p.api;
    const api_protocol *protocol = x->route->protocol;
    api_request request = {0};
    if (!protocol->parse(api, body, &request, err)) {
        api_request_clear(&request);
        return exchange_refuse(x, err);
    }
    x->sleeper = sleeper_take(x->http->p.watch, x->connection, request.stream ? BEAT_S * UINT64_C(1000000000) : 0);
    if (x->sleeper == NULL) {
        api_request_clear(&request);
        api_fail_memory(err);
    } else {
        generation_start(api, protocol, &request, sleeper_wake, x->sleeper, &x->generation, err);
    }
    if (err->http != 0) return exchange_refuse(x, err);
    return x->generation->request.stream ? start_stream(x) : exchange_continue(x);
}

static enum MHD_Result answer_at_once(exchange *x, const json_t *body, api_error *err)
{
    reply r = {.http = 200};
    if (x->route->answer(x->http->p.api, x->rest, body, &r, err)) return send_reply(x, &r);
    buffer_clear(&r.body);
    return exchange_refuse(x, err);
}

enum MHD_Result exchange_answer(exchange *x)
{
    api_error err = {0};
    json_t *body = NULL;
    if (x->preflight) return answer_preflight(x);
    if (x->route->method == ROUTE_POST) {
        body = fields_parse(x->body.data, x->body.len, &err);
        x->http->body_bytes -= x->body.len;
        buffer_clear(&x->body);
        if (body == NULL) return exchange_refuse(x, &err);
    }
    const enum MHD_Result result =
        x->route->protocol != NULL ? start_generation(x, body, &err) : answer_at_once(x, body, &err);
    json_decref(body);
    return result;
}

void exchange_free(exchange *x)
{
    if (x->refusal.http != 0) count(x, outcome_of_error(&x->refusal)); /* also where nobody listened any more */
    if (x->generation != NULL) count(x, OUTCOME_CANCELLED);            /* unless it ended */
    generation_free(x->generation);                                    /* first: its jobs know the sleeper */
    if (x->sleeper != NULL) sleeper_put(x->sleeper);
    x->http->body_bytes -= x->body.len;
    buffer_clear(&x->body);
    buffer_clear(&x->out);
    free(x);
}
