/* loadgen: load for a server, and what it made of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/loadgen.h"
#include "cli/output.h"
#include "cli/request_report.h"
#include "cli/trace_options.h"

typedef struct loadgen_options {
    cli_common common;
    trace_options trace;
    const char *url, *model, *key_file;
    int endpoint, prompts;
    uint32_t vocabulary;
    double timeout_s;
    bool quality, plain;
    option_text json;
} loadgen_options;

static const char *const endpoints[] = {"completions", "chat", NULL};
static const char *const prompts[] = {"ids", "text", NULL};
enum { ENDPOINT_CHAT = 1, PROMPTS_TEXT = 1 };

/* Without a wish for less than everything, nor a deadline, a request is one that any server understands. */
static bool asks_for_quality(const trace *t)
{
    for (size_t i = 0; i < t->n; i++) {
        const trace_request *r = &t->requests[i];
        if (r->floor.is_point || r->floor.share < 1 || r->ttft_ns > 0 || r->tpot_ns > 0) return true;
    }
    return false;
}

/* The first line of the file. */
static mp_status read_key(const char *path, char **key, mp_error *err)
{
    size_t len;
    *key = NULL;
    if (path == NULL) return MP_OK;
    MP_TRY(input_read(path, key, &len, err));
    (*key)[strcspn(*key, "\r\n")] = '\0';
    if ((*key)[0] != '\0') return MP_OK;
    free(*key);
    *key = NULL;
    return status_fail(err, MP_E_INVALID, "%s: holds no key", path);
}

/* ---- results ---- */

static json_t *result_json(const loadgen_options *o, const loadgen_result *r, const report *made)
{
    json_t *object = request_report_json(made);
    json_object_set_new(object, "url", json_text(o->url));
    json_object_set_new(object, "model", json_text(r->model));
    json_object_set_new(object, "unfinished", json_integer((json_int_t)r->unfinished));
    json_object_set_new(object, "unverified_floors", json_integer((json_int_t)r->unverified));
    json_object_set_new(object, "client_late_ms", json_number(r->late_ms));
    if (r->failure[0] != '\0') json_object_set_new(object, "first_failure", json_text(r->failure));
    return object;
}

enum { LATE_MS = 50 }; /* a client that is further behind disturbs what it measures */

static void tell_notes(const loadgen_result *r, const report *made)
{
    if (made->failed > 0) fprintf(stderr, "moeprism: %zu failed, the first: %s\n", made->failed, r->failure);
    if (r->unfinished > 0) fprintf(stderr, "moeprism: interrupted: %zu requests are left out\n", r->unfinished);
    if (r->unverified > 0)
        fprintf(stderr, "moeprism: the server does not account for the floors of %zu replies: they are not verified\n",
                r->unverified);
    if (r->late_ms > LATE_MS)
        fprintf(stderr, "moeprism: requests were sent up to %.0f ms late: this client is too busy\n", r->late_ms);
}

static mp_status deliver(const loadgen_options *o, const loadgen_result *r, mp_error *err)
{
    report made;
    const char *name = r->model;
    MP_TRY(report_make(r->requests, r->n, &made, err));
    if (made.failed > 0 && made.failed == r->n && r->unfinished == 0)
        return status_fail(err, MP_E_IO, "all %zu requests to %s failed: %.300s", r->n, o->url, r->failure);
    tell_notes(r, &made);
    if (o->json.given) return output_json(result_json(o, r, &made), o->json.text, err);
    return request_report_print(&made, &name, 1, stdout, err);
}

static mp_status load(const loadgen_options *o, mp_error *err)
{
    trace t;
    char *key, url[512];
    loadgen_result result;
    size_t len = strlen(o->url);
    while (len > 0 && o->url[len - 1] == '/') len--;
    if (len >= sizeof url) return status_fail(err, MP_E_INVALID, "the URL is too long");
    snprintf(url, sizeof url, "%.*s", (int)len, o->url);
    MP_TRY(read_key(o->key_file, &key, err));
    mp_status status = trace_options_load(&o->trace, &t, err);
    if (status != MP_OK) {
        free(key);
        return status;
    }
    const loadgen_params params = {.url = url,
                                   .model = o->model,
                                   .key = key,
                                   .chat = o->endpoint == ENDPOINT_CHAT,
                                   .text = o->prompts == PROMPTS_TEXT,
                                   .quality = !o->plain && (o->quality || asks_for_quality(&t)),
                                   .vocabulary = o->vocabulary,
                                   .timeout_s = o->timeout_s,
                                   .seed = o->trace.seed};
    status = loadgen_run(&params, &t, &result, err);
    if (status == MP_OK) status = deliver(o, &result, err);
    loadgen_result_clear(&result);
    trace_clear(&t);
    free(key);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    const loadgen_options *o = options;
    mp_error err;
    if (o->trace.path == NULL && isnan(o->trace.rate))
        return cli_usage(self, "nothing arrives: give --trace FILE, or --rate R for a trace that is made up");
    if (strncmp(o->url, "http://", 7) != 0 && strncmp(o->url, "https://", 8) != 0)
        return cli_usage(self, "option '--url' takes http://HOST:PORT, not '%s'", o->url);
    if (o->quality && o->plain) return cli_usage(self, "choose one of --quality and --plain");
    return load(o, &err) == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define MEMBER(member) offsetof(loadgen_options, member)

static const option_spec specs[] = {
    {.name = "url",
     .kind = OPTION_TEXT,
     .offset = MEMBER(url),
     .argument = "URL",
     .required = true,
     .help = "the server, as http://127.0.0.1:8080"},
    TRACE_OPTIONS(MEMBER(trace)),
    {.name = "The requests", .kind = OPTION_HEADING},
    {.name = "endpoint",
     .kind = OPTION_CHOICE,
     .offset = MEMBER(endpoint),
     .argument = "NAME",
     .choices = endpoints,
     .help = "completions or chat"},
    {.name = "prompts",
     .kind = OPTION_CHOICE,
     .offset = MEMBER(prompts),
     .argument = "KIND",
     .choices = prompts,
     .help = "ids, exactly as many as asked for, or text, about as many; chat is text"},
    {.name = "vocabulary",
     .kind = OPTION_U32,
     .offset = MEMBER(vocabulary),
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "ids are drawn below N"},
    {.name = "model",
     .kind = OPTION_TEXT,
     .offset = MEMBER(model),
     .argument = "NAME",
     .help = "the model to ask for (default: the first that the server lists)"},
    {.name = "api-key-file",
     .kind = OPTION_TEXT,
     .offset = MEMBER(key_file),
     .argument = "FILE",
     .help = "its first line is the key"},
    {.name = "timeout",
     .kind = OPTION_F64,
     .offset = MEMBER(timeout_s),
     .argument = "S",
     .max = 1e6,
     .help = "seconds after which a request has failed (default: never)"},
    {.name = "quality",
     .kind = OPTION_FLAG,
     .offset = MEMBER(quality),
     .help = "send floors and deadlines even where all floors are full (else only where one is not)"},
    {.name = "plain",
     .kind = OPTION_FLAG,
     .offset = MEMBER(plain),
     .help = "never send them, for servers that refuse fields they do not know"},
    {.name = "json",
     .kind = OPTION_OPTIONAL_TEXT,
     .offset = MEMBER(json),
     .argument = "FILE",
     .help = "print JSON, or write it to FILE"},
};

static const loadgen_options defaults = {.trace = TRACE_OPTIONS_UNSET, .vocabulary = 8192};

const cli_command cmd_loadgen = {
    .name = "loadgen",
    .arguments = "--url URL (--trace FILE | --rate R) [options]",
    .summary = "load for a server, and what it made of it",
    .details =
        "An open-loop client of servers that speak OpenAI's protocol: requests go out when the trace says so, "
        "whatever became of those before, and replies are streamed. Latencies count from when a request was due. "
        "Of 'moeprism serve' it also checks that no reply ran below its floor.",
    .example = "loadgen --url http://127.0.0.1:8080 --rate 1.5 -n 200 --floors uniform:1,0.75,0.5,0.25",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .run = run,
};
