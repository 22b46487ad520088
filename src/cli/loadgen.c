/* The transfers, on libcurl's multi interface: one thread sends what is due and reads what comes, so that no request
 * ever waits for another one's reply. Latencies count from when a request was due, not from when it was sent: a client
 * that falls behind must not make the server look better. */
#include "cli/loadgen.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/loadgen_request.h"
#include "cli/progress.h"

#define MS_NS 1000000ull
enum {
    POLL_MS = 200, /* how often Ctrl-C is looked for */
    CONNECT_S = 30,
    LIST_MAX = 1 << 20, /* bytes of the server's list of models */
};

typedef struct transfer {
    loadgen_request request;
    CURL *easy;
    bool ended;
} transfer;

typedef struct client {
    const loadgen_params *params;
    const trace *trace;
    loadgen_result *out;
    CURLM *multi;
    struct curl_slist *headers;
    char url[1024];
    transfer *transfers;     /* [trace->n] */
    report_request *results; /* [trace->n], of those that ended */
    size_t sent, ended;
    uint64_t start_ns;
    progress shown;
    mp_error *err;
} client;

/* ---- which model ---- */

typedef struct text {
    char *data;
    size_t len;
} text;

static size_t collect(char *bytes, size_t size, size_t n, void *user)
{
    text *t = user;
    if (n > LIST_MAX - t->len) return 0;
    char *grown = realloc(t->data, t->len + n);
    if (grown == NULL) return 0;
    memcpy(grown + t->len, bytes, n);
    t->data = grown;
    t->len += n;
    return size * n;
}

/* The first of /v1/models; "default" where the server does not tell: most then do not care. */
static void find_model(client *c)
{
    char url[1024];
    text list = {0};
    CURL *easy = curl_easy_init();
    snprintf(c->out->model, sizeof c->out->model, "%s", c->params->model != NULL ? c->params->model : "default");
    if (easy == NULL || c->params->model != NULL) {
        curl_easy_cleanup(easy);
        return;
    }
    snprintf(url, sizeof url, "%s/v1/models", c->params->url);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &list);
    if (curl_easy_perform(easy) == CURLE_OK) {
        json_t *root = json_loadb(list.data != NULL ? list.data : "", list.len, 0, NULL);
        const char *id = json_string_value(json_object_get(json_array_get(json_object_get(root, "data"), 0), "id"));
        if (id != NULL) snprintf(c->out->model, sizeof c->out->model, "%s", id);
        json_decref(root);
    }
    curl_easy_cleanup(easy);
    free(list.data);
}

/* ---- one transfer ---- */

static size_t receive(char *bytes, size_t size, size_t n, void *user)
{
    transfer *t = user;
    long http = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &http);
    return loadgen_request_feed(&t->request, http, bytes, n, clock_now_ns()) ? size * n : 0;
}

static mp_status send_one(client *c)
{
    transfer *t = &c->transfers[c->sent];
    const uint64_t due = c->start_ns + c->trace->requests[c->sent].arrival_ns, now = clock_now_ns();
    if (!loadgen_request_begin(&t->request, c->params, c->out->model, &c->trace->requests[c->sent], c->sent))
        return status_no_memory(c->err, 0, "a request");
    t->request.due_ns = due;
    if (now > due && (double)(now - due) / MS_NS > c->out->late_ms) c->out->late_ms = (double)(now - due) / MS_NS;
    c->sent++;
    t->easy = curl_easy_init();
    if (t->easy == NULL) return status_no_memory(c->err, 0, "a transfer");
    curl_easy_setopt(t->easy, CURLOPT_URL, c->url);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE, (long)t->request.body_len);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->request.body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)(c->params->timeout_s * 1e3));
    if (curl_multi_add_handle(c->multi, t->easy) != CURLM_OK) return status_no_memory(c->err, 0, "a transfer");
    return MP_OK;
}

static void end_one(client *c, CURL *easy, CURLcode code)
{
    void *private;
    long http = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &http);
    transfer *t = private;
    const char *transport = code != CURLE_OK ? curl_easy_strerror(code) : NULL;
    const report_request result = loadgen_request_end(&t->request, http, transport);
    c->results[t - c->transfers] = result;
    c->out->unverified += loadgen_request_unverified(&t->request, &result);
    if (result.outcome == REPORT_FAILED && c->out->failure[0] == '\0')
        snprintf(c->out->failure, sizeof c->out->failure, "%s", t->request.error);
    t->ended = true;
    c->ended++;
    curl_multi_remove_handle(c->multi, easy);
    curl_easy_cleanup(easy);
    t->easy = NULL;
    loadgen_request_clear(&t->request);
}

/* ---- all of them ---- */

static mp_status open_client(client *c)
{
    char line[1024];
    const size_t n = c->trace->n;
    c->transfers = calloc(n, sizeof *c->transfers);
    c->results = calloc(n, sizeof *c->results);
    c->out->requests = calloc(n, sizeof *c->out->requests);
    c->multi = curl_multi_init();
    c->headers = curl_slist_append(NULL, "Content-Type: application/json");
    /* a body of more than a kilobyte would ask for leave first ("Expect: 100-continue") */
    struct curl_slist *more = c->headers != NULL ? curl_slist_append(c->headers, "Expect:") : NULL;
    if (more != NULL && c->params->key != NULL) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", c->params->key);
        more = curl_slist_append(c->headers, line);
    }
    if (c->transfers == NULL || c->results == NULL || c->out->requests == NULL || c->multi == NULL || more == NULL)
        return status_no_memory(c->err, n * sizeof *c->transfers, "a load of requests");
    snprintf(c->url, sizeof c->url, "%s/v1/%s", c->params->url, c->params->chat ? "chat/completions" : "completions");
    return MP_OK;
}

static void close_client(client *c)
{
    for (size_t i = 0; i < c->sent; i++) {
        transfer *t = &c->transfers[i];
        if (t->easy != NULL) {
            curl_multi_remove_handle(c->multi, t->easy);
            curl_easy_cleanup(t->easy);
        }
        loadgen_request_clear(&t->request);
    }
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    free(c->transfers);
    free(c->results);
}

static uint64_t due(const client *c)
{
    return c->sent < c->trace->n ? c->start_ns + c->trace->requests[c->sent].arrival_ns : UINT64_MAX;
}

/* Milliseconds to wait for something to happen: never past the next request, rounded down, so it is never late. */
static int patience(const client *c)
{
    const uint64_t now = clock_now_ns(), next = due(c);
    if (next <= now) return 0;
    const uint64_t left = (next - now) / MS_NS;
    return left < POLL_MS ? (int)left : POLL_MS;
}

static void show(client *c)
{
    const mp_progress now = {.stage = "loadgen",
                             .unit = "requests",
                             .done = c->ended,
                             .total = c->trace->n,
                             .elapsed_ns = clock_now_ns() - c->start_ns,
                             .layer = -1};
    progress_update(&c->shown, &now);
}

static mp_status drive(client *c)
{
    while (c->ended < c->trace->n && !interrupt_seen()) {
        int running, left;
        const CURLMsg *message;
        while (due(c) <= clock_now_ns()) MP_TRY(send_one(c));
        CURLMcode code = curl_multi_perform(c->multi, &running);
        while ((message = curl_multi_info_read(c->multi, &left)) != NULL)
            if (message->msg == CURLMSG_DONE) end_one(c, message->easy_handle, message->data.result);
        show(c);
        if (code == CURLM_OK && c->ended < c->trace->n) code = curl_multi_poll(c->multi, NULL, 0, patience(c), NULL);
        if (code != CURLM_OK) return status_fail(c->err, MP_E_IO, "transfers failed: %s", curl_multi_strerror(code));
    }
    return MP_OK;
}

mp_status loadgen_run(const loadgen_params *params, const trace *t, loadgen_result *out, mp_error *err)
{
    client c = {.params = params, .trace = t, .out = out, .err = err};
    *out = (loadgen_result){0};
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0) return status_no_memory(err, 0, "libcurl");
    mp_status status = open_client(&c);
    if (status == MP_OK) {
        find_model(&c);
        progress_begin(&c.shown, true);
        interrupt_catch("\nstopping; once more ends at once\n");
        c.start_ns = clock_now_ns();
        status = drive(&c);
        progress_end(&c.shown, status == MP_OK);
        interrupt_release();
    }
    for (size_t i = 0; status == MP_OK && i < c.sent; i++)
        if (c.transfers[i].ended) out->requests[out->n++] = c.results[i];
    out->unfinished = t->n - out->n;
    close_client(&c);
    curl_global_cleanup();
    return status;
}

void loadgen_result_clear(loadgen_result *r)
{
    free(r->requests);
    *r = (loadgen_result){0};
}
