#include "serve/api_openai.h"

#include "serve/api_parts.h"
#include "serve/text.h"

static json_t *envelope(const generation *g, const char *object, json_t *choices)
{
    json_t *root = json_pack("{s:s, s:s, s:I, s:o, s:s, s:o}", "id", g->id, "object", object, "created",
                             (json_int_t)g->created_s, "model", text_json(g->api->model_id), "system_fingerprint",
                             "moeprism-" MP_VERSION, "choices", choices);
    if (g->request.tier_given) json_object_set_new(root, "service_tier", json_string(tier_name(g->request.tier)));
    return root;
}

json_t *openai_reply(const generation *g, json_t *choices)
{
    json_t *root = envelope(g, g->protocol->object, choices);
    json_object_set_new(root, "usage", generation_usage_json(g));
    return root;
}

static void chunk(const generation *g, json_t *choices, json_t *usage, buffer *out)
{
    json_t *root = envelope(g, g->protocol->chunk, choices);
    if (g->request.include_usage) json_object_set_new(root, "usage", usage);
    event_add(out, NULL, root);
}

/* What was used so far, for those who may not stay until the end; null until there is a token. */
static json_t *usage_so_far(const generation *g)
{
    const bool told = g->request.include_usage && g->request.usage_always;
    return told && generation_usage(g).completion_tokens > 0 ? generation_usage_json(g) : json_null();
}

void openai_chunk(const generation *g, json_t *choices, buffer *out)
{
    chunk(g, choices, usage_so_far(g), out);
}

void openai_close(const generation *g, buffer *out)
{
    if (g->request.include_usage) chunk(g, json_array(), generation_usage_json(g), out);
    buffer_text(out, "data: [DONE]\n\n");
}

void openai_broken(const api_error *err, buffer *out)
{
    event_add(out, NULL, api_error_openai(err));
    buffer_text(out, "data: [DONE]\n\n");
}
