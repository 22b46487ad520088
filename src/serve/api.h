/* api.h: what the endpoints that generate share: the server as they see it, a request in one form whatever API it came
 * by, and the table of functions that one API is.
 *
 * Everything here runs on the HTTP thread. Parsing needs a model and a JSON object, no server: tests and fuzzers call
 * it as it is. */
#ifndef SERVE_API_H
#define SERVE_API_H

#include <jansson.h>

#include "sched/cost.h"
#include "serve/api_error.h"
#include "serve/buffer.h"
#include "serve/job.h"
#include "serve/loop.h"

/* OpenAI's service_tier. Better tiers run first (api_quality.c); each has a floor of its own. */
typedef enum api_tier { TIER_DEFAULT, TIER_FLEX, TIER_PRIORITY, TIERS } api_tier;

typedef struct api_context {
    const mp_model *model;
    loop *loop; /* NULL: parsing only */
    metrics *metrics;
    const char *model_id;    /* the name it is served under */
    const char *chat_family; /* NULL: the model's own */
    sched_policy policy;
    uint32_t slots, queue;
    uint32_t n_ctx;            /* tokens of a slot */
    size_t longest_token;      /* bytes, 0: not known */
    uint32_t floor[TIERS];     /* points, where a request names none */
    uint64_t ttft_ns, tpot_ns; /* targets, 0: none */
    uint64_t deadline_ns;      /* of a step's reads, 0: nothing is left out */
    cost_model cost;           /* for speeds told by /props */
    int64_t started_s;         /* Unix time */
} api_context;

typedef struct api_prompt {
    int32_t *ids; /* [n] */
    size_t n;
    char *text; /* to be echoed [text_len], else NULL */
    size_t text_len;
} api_prompt;

enum { API_MAX_STOPS = 16, API_MAX_STOP_BYTES = 1024 };

/* One request of any API: each prompt is answered n times. Owns all it points at. */
typedef struct api_request {
    api_prompt *prompts;
    size_t n_prompts;
    uint32_t n;
    uint32_t max_tokens; /* as asked, 0: whatever the context has room for */
    bool open_ended;     /* the context ends the reply where the model does not: no length, or more, was asked for */
    mp_sampler_params sampling;
    mp_logit_bias *bias; /* sampling.bias */
    char *stop[API_MAX_STOPS];
    size_t n_stop;
    bool stream, include_usage, usage_always, ignore_eos, logprobs, prompt_logprobs, skip_white;
    uint32_t top_logprobs;
    api_tier tier;
    bool tier_given;
    uint32_t best, floor;
    uint64_t ttft_ns, tpot_ns;
    int32_t priority;
} api_request;

void api_request_clear(api_request *r);

struct generation;

/* One API. The functions append to `out` what a client receives. */
typedef struct api_protocol {
    const char *id_prefix;      /* of the reply's id */
    const char *object, *chunk; /* what OpenAI's name a whole reply, an event of a stream; else NULL */
    /* Fills *out, which is zero; false: err. The caller clears *out in any case. */
    bool (*parse)(const api_context *api, const json_t *body, api_request *out, api_error *err);
    /* The whole reply, when every choice has ended. NULL: out of memory. */
    json_t *(*whole)(const struct generation *g);
    /* A stream: its beginning, a piece of a choice (with piece->end set, the last), its end, a sign of life. */
    void (*open)(const struct generation *g, buffer *out);
    void (*piece)(const struct generation *g, size_t choice, const job_piece *piece, buffer *out);
    void (*close)(const struct generation *g, buffer *out);
    const char *heartbeat;
    /* An error within a stream; the stream ends behind it. */
    void (*broken)(const api_error *err, buffer *out);
    json_t *(*error)(const api_error *err);
} api_protocol;

extern const api_protocol api_chat, api_completions, api_messages;

#endif
