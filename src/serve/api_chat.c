/* POST /v1/chat/completions, OpenAI's shape. */
#include <string.h>

#include "serve/api_openai.h"
#include "serve/api_parts.h"
#include "serve/text.h"

static void read_logprobs(const fields *f, api_request *r)
{
    field_bool(f, "logprobs", &r->logprobs);
    field_u32(f, "top_logprobs", 0, JOB_TOP_LOGPROBS_MAX, &r->top_logprobs);
    if (r->top_logprobs > 0 && !r->logprobs) field_fail(f, "top_logprobs", "needs logprobs to be true");
}

static bool parse(const api_context *api, const json_t *body, api_request *r, api_error *err)
{
    const fields f = {.object = body, .err = err};
    request_begin(api, r);
    r->skip_white = true;
    request_openai(&f, api, r);
    read_logprobs(&f, r);
    request_refuse(&f, "tools", "are not supported: the server does not call functions");
    request_refuse(&f, "functions", "are not supported: the server does not call functions");
    request_refuse(&f, "audio", "is not supported: replies are text");
    prompt_chat(api, NULL, json_object_get(body, "messages"), true, r, err);
    prompt_limits(api, r, err);
    return err->http == 0;
}

/* ---- logprobs ---- */

/* {"token", "logprob", "bytes"} and what `more` adds. */
static json_t *token_json(const mp_model *model, const job_logprob *p)
{
    char bytes[1024];
    size_t n = mp_token_bytes(model, p->token, true, bytes, sizeof bytes);
    if (n > sizeof bytes) n = sizeof bytes;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return json_pack("{s:o, s:o, s:o}", "token", text_json_n(bytes, n), "logprob", number_json(p->logprob), "bytes",
                     list);
}

static json_t *logprobs_json(const generation *g, const job_token *tokens, size_t n)
{
    if (!g->request.logprobs) return json_null();
    json_t *content = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *token = token_json(g->api->model, &tokens[i].drawn), *top = json_array();
        for (uint32_t k = 0; k < tokens[i].n_top; k++)
            json_array_append_new(top, token_json(g->api->model, &tokens[i].top[k]));
        json_object_set_new(token, "top_logprobs", top);
        json_array_append_new(content, token);
    }
    return json_pack("{s:o, s:n}", "content", content, "refusal");
}

/* ---- whole replies ---- */

static json_t *choice_json(const generation *g, size_t i)
{
    const choice *c = &g->choices[i];
    return json_pack("{s:i, s:{s:s, s:o, s:n}, s:o, s:s}", "index", (int)i, "message", "role", "assistant", "content",
                     text_json_n(c->text.data, c->text.len), "refusal", "logprobs",
                     logprobs_json(g, c->tokens, c->n_tokens), "finish_reason", generation_finish(c));
}

static json_t *whole(const generation *g)
{
    json_t *choices = json_array();
    for (size_t i = 0; i < g->n_choices; i++) json_array_append_new(choices, choice_json(g, i));
    return openai_reply(g, choices);
}

/* ---- streams ---- */

static void delta(const generation *g, size_t i, json_t *content, json_t *logprobs, const char *finish, buffer *out)
{
    openai_chunk(g,
                 json_pack("[{s:i, s:o, s:o, s:s?}]", "index", (int)i, "delta", content, "logprobs", logprobs,
                           "finish_reason", finish),
                 out);
}

static void open_stream(const generation *g, buffer *out)
{
    for (size_t i = 0; i < g->n_choices; i++)
        delta(g, i, json_pack("{s:s, s:s, s:n}", "role", "assistant", "content", "", "refusal"), json_null(), NULL,
              out);
}

static void piece_event(const generation *g, size_t i, const job_piece *piece, buffer *out)
{
    if (piece->len > 0 || piece->n_tokens > 0)
        delta(g, i, json_pack("{s:o}", "content", text_json_n(piece->text, piece->len)),
              logprobs_json(g, piece->tokens, piece->n_tokens), NULL, out);
    if (piece->end != JOB_RUNNING) delta(g, i, json_object(), json_null(), generation_finish(&g->choices[i]), out);
}

const api_protocol api_chat = {
    .id_prefix = "chatcmpl-",
    .object = "chat.completion",
    .chunk = "chat.completion.chunk",
    .parse = parse,
    .whole = whole,
    .open = open_stream,
    .piece = piece_event,
    .close = openai_close,
    .heartbeat = ": waiting\n\n",
    .broken = openai_broken,
    .error = api_error_openai,
};
