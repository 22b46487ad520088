/* POST /v1/completions, OpenAI's older shape: texts go on. */
#include <math.h>
#include <string.h>

#include "serve/api_openai.h"
#include "serve/api_parts.h"
#include "serve/text.h"

enum { DEFAULT_MAX_TOKENS = 16 }; /* OpenAI's */

/* Here logprobs is a number: how many alternatives to tell of; 0 means the tokens alone, those of an echoed prompt
 * too. */
static void read_logprobs(const fields *f, bool echo, api_request *r)
{
    const json_t *value = field_get(f, "logprobs");
    if (value == NULL || json_is_false(value)) return;
    r->logprobs = true;
    if (!json_is_true(value)) field_u32(f, "logprobs", 0, JOB_TOP_LOGPROBS_MAX, &r->top_logprobs);
    r->prompt_logprobs = echo;
}

static bool parse(const api_context *api, const json_t *body, api_request *r, api_error *err)
{
    const fields f = {.object = body, .err = err};
    bool echo = false;
    const char *suffix = "";
    request_begin(api, r);
    r->max_tokens = DEFAULT_MAX_TOKENS;
    request_openai(&f, api, r);
    field_bool(&f, "echo", &echo);
    read_logprobs(&f, echo, r);
    field_string(&f, "suffix", &suffix);
    if (suffix[0] != '\0') field_fail(&f, "suffix", "is not supported: the model only goes on with a text");
    prompt_texts(&f, api, echo, r);
    prompt_limits(api, r, err);
    return err->http == 0;
}

static const api_prompt *prompt_of(const generation *g, size_t i)
{
    return &g->request.prompts[i / g->request.n];
}

/* ---- logprobs ---- */

static json_t *token_text(const mp_model *model, int32_t token, size_t *characters)
{
    char bytes[1024];
    size_t n = mp_token_bytes(model, token, true, bytes, sizeof bytes);
    if (n > sizeof bytes) n = sizeof bytes;
    for (size_t i = 0; i < n; i++) *characters += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return text_json_n(bytes, n);
}

/* Four lists of the same length; offsets count characters from the beginning of the text. */
static json_t *logprobs_json(const generation *g, const job_token *tokens, size_t n, size_t offset)
{
    if (!g->request.logprobs) return json_null();
    const mp_model *model = g->api->model;
    json_t *texts = json_array(), *drawn = json_array(), *tops = json_array(), *offsets = json_array();
    for (size_t i = 0; i < n; i++) {
        size_t ignored = 0;
        json_t *top = json_object();
        json_array_append_new(offsets, json_integer((json_int_t)offset));
        json_array_append_new(texts, token_text(model, tokens[i].drawn.token, &offset));
        json_array_append_new(drawn, number_json(tokens[i].drawn.logprob));
        for (uint32_t k = 0; k < tokens[i].n_top; k++) {
            json_t *name = token_text(model, tokens[i].top[k].token, &ignored);
            json_object_set_new(top, json_string_value(name), number_json(tokens[i].top[k].logprob));
            json_decref(name);
        }
        if (isnan(tokens[i].drawn.logprob)) { /* the first token of a prompt */
            json_decref(top);
            top = json_null();
        }
        json_array_append_new(tops, top);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", texts, "token_logprobs", drawn, "top_logprobs", tops,
                     "text_offset", offsets);
}

/* ---- replies ---- */

static json_t *choice_json(size_t i, json_t *text, json_t *logprobs, const char *finish)
{
    return json_pack("{s:i, s:o, s:o, s:s?}", "index", (int)i, "text", text, "logprobs", logprobs, "finish_reason",
                     finish);
}

static json_t *whole_text(const generation *g, size_t i)
{
    const api_prompt *prompt = prompt_of(g, i);
    buffer text = {0};
    if (prompt->text != NULL) buffer_add(&text, prompt->text, prompt->text_len);
    buffer_add(&text, g->choices[i].text.data, g->choices[i].text.len);
    json_t *out = text.failed ? NULL : text_json_n(text.data, text.len);
    buffer_clear(&text);
    return out;
}

static json_t *whole(const generation *g)
{
    json_t *choices = json_array();
    for (size_t i = 0; i < g->n_choices; i++) {
        const choice *c = &g->choices[i];
        json_array_append_new(choices, choice_json(i, whole_text(g, i), logprobs_json(g, c->tokens, c->n_tokens, 0),
                                                   generation_finish(c)));
    }
    return openai_reply(g, choices);
}

static void open_stream(const generation *g, buffer *out)
{
    for (size_t i = 0; i < g->n_choices; i++) {
        const api_prompt *prompt = prompt_of(g, i);
        if (prompt->text == NULL) continue;
        json_t *text = text_json_n(prompt->text, prompt->text_len);
        openai_chunk(g, json_pack("[o]", choice_json(i, text, json_null(), NULL)), out);
    }
}

static void piece_event(const generation *g, size_t i, const job_piece *piece, buffer *out)
{
    choice *c = &g->choices[i];
    json_t *logprobs = logprobs_json(g, piece->tokens, piece->n_tokens, c->text_offset);
    for (size_t k = 0; k < piece->n_tokens; k++)
        json_decref(token_text(g->api->model, piece->tokens[k].drawn.token, &c->text_offset));
    const char *finish = piece->end != JOB_RUNNING ? generation_finish(c) : NULL;
    openai_chunk(g, json_pack("[o]", choice_json(i, text_json_n(piece->text, piece->len), logprobs, finish)), out);
}

const api_protocol api_completions = {
    .id_prefix = "cmpl-",
    .object = "text_completion",
    .chunk = "text_completion",
    .parse = parse,
    .whole = whole,
    .open = open_stream,
    .piece = piece_event,
    .close = openai_close,
    .heartbeat = ": waiting\n\n",
    .broken = openai_broken,
    .error = api_error_openai,
};
