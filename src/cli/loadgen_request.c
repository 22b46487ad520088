#include "cli/loadgen_request.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "cli/output.h"

/* ---- the body ---- */

enum { FIRST_ID = 256 }; /* below lie the control tokens of most vocabularies */

static json_t *prompt_ids(const loadgen_params *p, uint32_t n, rng *random)
{
    json_t *list = json_array();
    const uint32_t first = p->vocabulary > 2 * FIRST_ID ? FIRST_ID : 0;
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(first + (json_int_t)rng_below(random, p->vocabulary - first)));
    return list;
}

/* Common words, about a token each. */
static json_t *prompt_words(uint32_t n, rng *random)
{
    static const char *const words[] = {"the",  "and",  "time", "house", "of",   "water", "people", "in",
                                        "when", "long", "work", "to",    "from", "place", "day",    "small"};
    json_t *text = NULL;
    char *buf = malloc((size_t)n * 8 + 1), *end = buf;
    if (buf == NULL) return NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0) *end++ = ' ';
        end = stpcpy(end, words[rng_below(random, sizeof words / sizeof words[0])]);
    }
    *end = '\0';
    text = json_string(buf);
    free(buf);
    return text;
}

static json_t *quality(const trace_request *t)
{
    json_t *object = json_object();
    if (t->floor.is_point)
        json_object_set_new(object, "min_point", json_integer(t->floor.point));
    else
        json_object_set_new(object, "min_compute", json_number(t->floor.share));
    if (t->ttft_ns > 0) json_object_set_new(object, "ttft_ms", json_number((double)t->ttft_ns * 1e-6));
    if (t->tpot_ns > 0) json_object_set_new(object, "tpot_ms", json_number((double)t->tpot_ns * 1e-6));
    return object;
}

static json_t *body_json(const loadgen_request *r, const char *model, rng *random)
{
    const loadgen_params *p = r->params;
    const trace_request *t = r->wanted;
    json_t *words = p->chat || p->text ? prompt_words(t->prompt_tokens, random) : NULL;
    json_t *body = json_pack("{s:o s:I s:b s:{s:b} s:f s:b}", "model", json_text(model), "max_tokens",
                             (json_int_t)t->output_tokens, "stream", 1, "stream_options", "include_usage", 1,
                             "temperature", 0.0, "ignore_eos", 1);
    int bad = p->chat
                  ? json_object_set_new(body, "messages", json_pack("[{s:s s:o}]", "role", "user", "content", words))
                  : json_object_set_new(body, "prompt", p->text ? words : prompt_ids(p, t->prompt_tokens, random));
    if (p->quality) bad |= json_object_set_new(body, "moeprism", quality(t));
    if (bad == 0) return body;
    json_decref(body);
    return NULL;
}

bool loadgen_request_begin(loadgen_request *r, const loadgen_params *params, const char *model,
                           const trace_request *wanted, size_t index)
{
    rng random;
    rng_init_stream(&random, params->seed, index);
    *r = (loadgen_request){.params = params,
                           .wanted = wanted,
                           .share = NAN,
                           .floor_share = NAN,
                           .ppl_increase = NAN,
                           .ppl_increase_floor = NAN,
                           .point_max = NAN,
                           .floor_point = NAN};
    json_t *body = body_json(r, model, &random);
    r->body = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (r->body == NULL) return false;
    r->body_len = strlen(r->body);
    return true;
}

void loadgen_request_clear(loadgen_request *r)
{
    sse_clear(&r->events);
    free(r->body);
    r->body = NULL;
}

/* ---- the reply ---- */

typedef struct arrival {
    loadgen_request *request;
    uint64_t now_ns;
} arrival;

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static uint32_t token_count(const json_t *usage, const char *key)
{
    const double value = number(usage, key);
    return value >= 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
}

static void read_usage(loadgen_request *r, const json_t *usage)
{
    const json_t *own = json_object_get(usage, "moeprism");
    r->prompt_tokens = token_count(usage, "prompt_tokens");
    r->output_tokens = token_count(usage, "completion_tokens");
    if (!json_is_object(own)) return;
    const json_t *most = json_array_get(json_object_get(own, "points"), 1);
    r->share = number(own, "compute_share");
    r->floor_share = number(own, "compute_floor");
    r->ppl_increase = number(own, "ppl_increase");
    r->ppl_increase_floor = number(own, "ppl_increase_floor");
    r->floor_point = number(own, "floor_point");
    r->point_max = json_is_number(most) ? json_number_value(most) : NAN;
    r->accounted = !isnan(r->floor_point) && !isnan(r->point_max) && !isnan(r->floor_share);
}

static void keep_error(loadgen_request *r, const json_t *error)
{
    const char *message = json_string_value(json_object_get(error, "message"));
    if (message == NULL) message = json_string_value(error);
    if (r->error[0] == '\0') snprintf(r->error, sizeof r->error, "%s", message != NULL ? message : "an error");
}

/* A text or a delta that is not empty. */
static bool has_text(const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *text = delta != NULL ? json_object_get(delta, "content") : json_object_get(choice, "text");
    return json_string_length(text) > 0;
}

static bool one_event(void *user, const char *data, size_t len)
{
    const arrival *a = user;
    loadgen_request *r = a->request;
    if (strcmp(data, "[DONE]") == 0) return true;
    json_t *event = json_loadb(data, len, JSON_ALLOW_NUL, NULL);
    if (event == NULL) {
        snprintf(r->error, sizeof r->error, "an event that is no JSON");
        return false;
    }
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *usage = json_object_get(event, "usage"), *error = json_object_get(event, "error");
    const bool ends = json_is_string(json_object_get(choice, "finish_reason"));
    if (has_text(choice) || ends) {
        r->last_ns = a->now_ns;
        r->pieces++;
        if (r->first_ns == 0) r->first_ns = a->now_ns;
    }
    r->finished |= ends;
    if (json_is_object(usage)) read_usage(r, usage);
    if (error != NULL && !json_is_null(error)) keep_error(r, error);
    json_decref(event);
    return true;
}

bool loadgen_request_feed(loadgen_request *r, long http, const char *bytes, size_t n, uint64_t now_ns)
{
    if (http == 200) return sse_feed(&r->events, bytes, n, one_event, &(arrival){r, now_ns});
    const size_t room = sizeof r->head - 1 - r->head_len, take = n < room ? n : room;
    memcpy(r->head + r->head_len, bytes, take);
    r->head_len += take;
    return true;
}

/* ---- the end ---- */

/* "HTTP 400: MESSAGE", from OpenAI's form of errors where it is one. */
static void tell_http_error(loadgen_request *r, long http)
{
    json_t *root = json_loadb(r->head, r->head_len, JSON_ALLOW_NUL, NULL);
    const json_t *error = json_object_get(root, "error");
    if (error != NULL) keep_error(r, error);
    char message[REQUEST_BODY_KEEP];
    snprintf(message, sizeof message, "%s", r->error[0] != '\0' ? r->error : r->head);
    snprintf(r->error, sizeof r->error, "HTTP %ld%s%.400s", http, message[0] != '\0' ? ": " : "", message);
    json_decref(root);
}

/* The slack that a server may take between the share asked for and the point it maps to (mp_model_find_point). */
#define SHARE_SLACK 0.06

static bool violated(const loadgen_request *r)
{
    const trace_floor *floor = &r->wanted->floor;
    if (!r->params->quality || !r->accounted) return false;
    if (r->point_max > r->floor_point) return true;
    return floor->is_point ? r->floor_point > floor->point : r->floor_share < floor->share * (1 - SHARE_SLACK) - 1e-9;
}

report_request loadgen_request_end(loadgen_request *r, long http, const char *transport)
{
    const bool refused = transport == NULL && (http == 503 || http == 429);
    if (transport != NULL && r->error[0] == '\0') snprintf(r->error, sizeof r->error, "%s", transport);
    if (transport == NULL && http != 200) tell_http_error(r, http);
    if (r->error[0] == '\0' && !r->finished) snprintf(r->error, sizeof r->error, "the stream ended in the middle");
    const bool done = r->error[0] == '\0';
    return (report_request){
        .outcome = done      ? REPORT_DONE
                   : refused ? REPORT_REFUSED
                             : REPORT_FAILED,
        .arrival_ns = r->due_ns,
        .first_ns = r->first_ns,
        .end_ns = r->last_ns,
        .prompt_tokens = r->prompt_tokens > 0 ? r->prompt_tokens : r->wanted->prompt_tokens,
        .output_tokens = r->output_tokens > 0 ? r->output_tokens : r->pieces,
        .ttft_target_ns = r->wanted->ttft_ns,
        .tpot_target_ns = r->wanted->tpot_ns,
        .share = r->share,
        .floor_share = r->floor_share,
        .loss = log1p(r->ppl_increase),
        .floor_loss = log1p(r->ppl_increase_floor),
        .violated = violated(r),
    };
}

bool loadgen_request_unverified(const loadgen_request *r, const report_request *result)
{
    return result->outcome == REPORT_DONE && r->params->quality && !r->accounted;
}
