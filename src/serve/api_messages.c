/* POST /v1/messages, Anthropic's shape.
 *
 * A stream is message_start, then the one block of text: content_block_start, deltas, content_block_stop, and at the
 * end message_delta with why it stopped and what it used, message_stop. */
#include <string.h>

#include "serve/api_parts.h"
#include "serve/generation.h"
#include "serve/text.h"

static void refuse_thinking(const fields *f)
{
    fields thinking;
    const char *type = "disabled";
    if (!field_object(f, "thinking", &thinking)) return;
    field_string(&thinking, "type", &type);
    if (strcmp(type, "disabled") != 0) field_fail(f, "thinking", "is not supported");
}

/* A reply cannot go on with words that were put into its mouth. */
static void refuse_prefill(const json_t *messages, api_error *err)
{
    const size_t n = json_array_size(messages);
    const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    if (n > 0 && role != NULL && strcmp(role, "user") != 0)
        api_fail_field(err, "messages",
                       "messages must end with one of the user's: prefilled replies are not supported");
}

static bool parse(const api_context *api, const json_t *body, api_request *r, api_error *err)
{
    const fields f = {.object = body, .err = err};
    const json_t *messages = json_object_get(body, "messages");
    buffer system = {0};
    request_begin(api, r);
    r->skip_white = true;
    if (field_get(&f, "max_tokens") == NULL) field_fail(&f, "max_tokens", "is required");
    field_u32(&f, "max_tokens", 1, INT32_MAX, &r->max_tokens);
    request_stream(&f, r);
    request_stop(&f, "stop_sequences", r);
    request_sampling(&f, api, r);
    request_tier(&f, r);
    request_quality(&f, api, r);
    request_refuse(&f, "tools", "are not supported: the server does not call functions");
    refuse_thinking(&f);
    refuse_prefill(messages, err);
    if (field_get(&f, "system") != NULL) content_text(err, "system", json_object_get(body, "system"), &system);
    prompt_chat(api, system.data, messages, false, r, err);
    prompt_limits(api, r, err);
    buffer_clear(&system);
    return err->http == 0;
}

static const char *stop_reason(const choice *c)
{
    if (c->end == JOB_LENGTH) return "max_tokens";
    return c->stopped_by != NULL ? "stop_sequence" : "end_turn";
}

/* Tokens that came from the cache are told apart, and not in input_tokens. */
static json_t *usage_json(const generation *g)
{
    const job_usage u = generation_usage(g);
    return json_pack("{s:I, s:I, s:i, s:I, s:s, s:o}", "input_tokens", (json_int_t)u.prompt_tokens - u.cached_tokens,
                     "output_tokens", (json_int_t)u.completion_tokens, "cache_creation_input_tokens", 0,
                     "cache_read_input_tokens", (json_int_t)u.cached_tokens, "service_tier", "standard", "moeprism",
                     usage_account(g->api, &u, g->request.floor));
}

static json_t *message(const generation *g, json_t *content, json_t *usage, const choice *ended)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:s?, s:o, s:o}", "id", g->id, "type", "message", "role", "assistant",
                     "model", text_json(g->api->model_id), "content", content, "stop_reason",
                     ended != NULL ? stop_reason(ended) : NULL, "stop_sequence",
                     ended != NULL && ended->stopped_by != NULL ? text_json(ended->stopped_by) : json_null(), "usage",
                     usage);
}

static json_t *whole(const generation *g)
{
    const choice *c = &g->choices[0];
    json_t *content = json_pack("[{s:s, s:o}]", "type", "text", "text", text_json_n(c->text.data, c->text.len));
    return message(g, content, usage_json(g), c);
}

static void open_stream(const generation *g, buffer *out)
{
    json_t *usage = json_pack("{s:I, s:i}", "input_tokens", (json_int_t)g->request.prompts[0].n, "output_tokens", 0);
    event_add(out, "message_start",
              json_pack("{s:s, s:o}", "type", "message_start", "message", message(g, json_array(), usage, NULL)));
    event_add(out, "content_block_start",
              json_pack("{s:s, s:i, s:{s:s, s:s}}", "type", "content_block_start", "index", 0, "content_block", "type",
                        "text", "text", ""));
    event_add(out, "ping", json_pack("{s:s}", "type", "ping"));
}

static void piece_event(const generation *g, size_t i, const job_piece *piece, buffer *out)
{
    (void)g;
    (void)i;
    if (piece->len == 0) return;
    event_add(out, "content_block_delta",
              json_pack("{s:s, s:i, s:{s:s, s:o}}", "type", "content_block_delta", "index", 0, "delta", "type",
                        "text_delta", "text", text_json_n(piece->text, piece->len)));
}

static void close_stream(const generation *g, buffer *out)
{
    const choice *c = &g->choices[0];
    event_add(out, "content_block_stop", json_pack("{s:s, s:i}", "type", "content_block_stop", "index", 0));
    event_add(out, "message_delta",
              json_pack("{s:s, s:{s:s, s:o}, s:o}", "type", "message_delta", "delta", "stop_reason", stop_reason(c),
                        "stop_sequence", c->stopped_by != NULL ? text_json(c->stopped_by) : json_null(), "usage",
                        usage_json(g)));
    event_add(out, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static void broken(const api_error *err, buffer *out)
{
    event_add(out, "error", api_error_anthropic(err));
}

const api_protocol api_messages = {
    .id_prefix = "msg_",
    .parse = parse,
    .whole = whole,
    .open = open_stream,
    .piece = piece_event,
    .close = close_stream,
    .heartbeat = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    .broken = broken,
    .error = api_error_anthropic,
};
