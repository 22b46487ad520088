/* Any bytes as the body of a request, through the parsers of all three APIs and of their error shapes. What is accepted
 * must keep what the loop relies on. Runs at the top of the tree, where the demo model is. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api.h"
#include "serve/fields.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static api_context api;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    mp_model *model;
    mp_error err;
    (void)argc;
    (void)argv;
    if (mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err) != MP_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    api = (api_context){
        .model = model, .model_id = "demo", .chat_family = "chatml", .slots = 4, .queue = 4, .n_ctx = 128};
    return 0;
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
        if (r->stop[i][0] == '\0') abort();
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *body = malloc(len > 0 ? len : 1); /* of exactly this size for the sanitizer */
    if (body == NULL) return 0;
    if (len > 0) memcpy(body, data, len);
    parse(&api_chat, body, len);
    parse(&api_completions, body, len);
    parse(&api_messages, body, len);
    free(body);
    return 0;
}
