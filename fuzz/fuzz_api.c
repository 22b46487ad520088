/* Any bytes as the body of a request, through the parsers of all three APIs, through what is answered without the loop
 * (tokens of a text, text of tokens, tokens of messages) and through their error shapes; and as the headers Host and
 * Origin. What is accepted must keep what the loop relies on. Runs at the top of the tree, where the demo model is. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/access.h"
#include "serve/fields.h"
#include "serve/routes.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static api_context api;
static access_rules *rules;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    mp_model *model;
    mp_error err;
    (void)argc;
    (void)argv;
    if (mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err) != MP_OK ||
        access_open(NULL, "https://friend.example", "myhost", true, &rules, &err) != MP_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    api = (api_context){
        .model = model, .model_id = "demo", .chat_family = "chatml", .slots = 4, .queue = 4, .n_ctx = 128};
    return 0;
}

static void check_bias(const mp_sampler_params *p, uint32_t n_vocab)
{
    uint8_t *seen = calloc(n_vocab, 1);
    if (seen == NULL) return;
    for (size_t i = 0; i < p->n_bias; i++) {
        const mp_logit_bias *b = &p->bias[i];
        if (b->token < 0 || (uint32_t)b->token >= n_vocab || !(b->bias >= -100 && b->bias <= 100)) abort();
        if (seen[b->token]++ > 0) abort();
    }
    free(seen);
}

static void check_request(const api_request *r)
{
    const uint32_t n_vocab = mp_model_get_info(api.model)->n_vocab;
    if (r->n < 1 || r->n > api.slots || r->n_prompts < 1 || r->n * r->n_prompts > api.slots + api.queue) abort();
    if (r->best > r->floor || mp_model_point(api.model, r->floor) == NULL || r->max_tokens < 1) abort();
    for (size_t i = 0; i < r->n_prompts; i++) {
        const api_prompt *p = &r->prompts[i];
        if (p->n < 1 || p->n + r->max_tokens > api.n_ctx) abort();
        for (size_t k = 0; k < p->n; k++)
            if (p->ids[k] < 0 || (uint32_t)p->ids[k] >= n_vocab) abort();
    }
    for (size_t i = 0; i < r->n_stop; i++)
        if (r->stop[i][0] == '\0' || strlen(r->stop[i]) > API_MAX_STOP_BYTES) abort();
    check_bias(&r->sampling, n_vocab);
    mp_sampler *sampler = NULL;
    mp_error err;
    if (mp_sampler_new(&r->sampling, n_vocab, &sampler, &err) != MP_OK) abort();
    mp_sampler_free(sampler);
}

static void check_error(const api_protocol *protocol, const api_error *err)
{
    buffer b = {0};
    if (err->http < 400 || err->message[0] == '\0') abort();
    buffer_json(&b, protocol->error(err));
    protocol->broken(err, &b);
    if (b.failed) abort();
    buffer_clear(&b);
}

static void parse(const api_protocol *protocol, const char *body, size_t len)
{
    api_error err = {0};
    api_request r = {0};
    json_t *root = fields_parse(body, len, &err);
    const bool good = root != NULL && protocol->parse(&api, root, &r, &err);
    if (good != (err.http == 0)) abort();
    if (good)
        check_request(&r);
    else
        check_error(protocol, &err);
    api_request_clear(&r);
    json_decref(root);
}

/* A POST that is answered at once. */
static void ask(const char *path, const char *body, size_t len)
{
    const char *rest;
    const route *to = route_find(path, &rest);
    api_error err = {0};
    reply out = {0};
    buffer b = {0};
    json_t *root = fields_parse(body, len, &err);
    const bool good = root != NULL && to->answer(&api, rest, root, &out, &err);
    if (good != (err.http == 0)) abort();
    if (!good && (err.http < 400 || err.message[0] == '\0')) abort();
    if (!good) buffer_json(&b, to->error(&err));
    json_t *told = json_loadb(good ? out.body.data : b.data, good ? out.body.len : b.len, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(told)) abort();
    json_decref(told);
    buffer_clear(&out.body);
    buffer_clear(&b);
    json_decref(root);
}

/* A name that is this machine's is so at any port, and is not what others can add to it. */
static void check_host(const char *host, size_t len)
{
    char *more = malloc(len + 32);
    if (more == NULL) return;
    snprintf(more, len + 32, "%s:80", host);
    if (!access_host(rules, more)) abort();
    snprintf(more, len + 32, "evil.%s", host);
    if (access_host(rules, more)) abort();
    snprintf(more, len + 32, "%s.evil.example", host);
    if (strchr(host, ':') == NULL && access_host(rules, more)) abort();
    free(more);
}

/* The first line as Host, the rest as Origin. */
static void check_access(const char *body, size_t len)
{
    char *host = malloc(len + 1);
    if (host == NULL) return;
    memcpy(host, body, len);
    host[len] = '\0';
    char *origin = strchr(host, '\n');
    if (origin != NULL) *origin++ = '\0';
    const size_t n = strlen(host), of = origin != NULL ? strlen(origin) : 0;
    if (access_host(rules, host)) check_host(host, n);
    if (access_cors(rules, origin) && strcasecmp(origin, "https://friend.example") != 0) abort();
    if (origin != NULL && access_origin(rules, origin, host) && !access_cors(rules, origin)) {
        if (of < n + 3 || strcasecmp(origin + of - n, host) != 0) abort();
        if (memcmp(origin + of - n - 3, "://", 3) != 0) abort();
    }
    free(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *body = malloc(len > 0 ? len : 1); /* of exactly this size for the sanitizer */
    if (body == NULL) return 0;
    if (len > 0) memcpy(body, data, len);
    parse(&api_chat, body, len);
    parse(&api_completions, body, len);
    parse(&api_messages, body, len);
    ask("/tokenize", body, len);
    ask("/detokenize", body, len);
    ask("/v1/messages/count_tokens", body, len);
    check_access(body, len);
    free(body);
    return 0;
}
