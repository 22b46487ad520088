/* What is answered at once about the server and its model. */
#include "serve/answers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api_parts.h"
#include "serve/text.h"

static bool answer_json(json_t *root, reply *out, api_error *err)
{
    buffer_json(&out->body, root);
    buffer_text(&out->body, "\n");
    return out->body.failed ? api_fail_memory(err) : true;
}

bool answer_health(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    (void)body;
    const loop_status s = loop_get_status(api->loop);
    if (s.stopping || s.broken) out->http = 503;
    /* No key is needed here, so the reason names no file. */
    const char *reason = s.broken ? "the model's file has changed while in use: start the server again" : NULL;
    return answer_json(json_pack("{s:s, s:s*, s:i, s:i, s:i}", "status",
                                 s.stopping ? "stopping"
                                 : s.broken ? "failed"
                                            : "ok",
                                 "reason", reason, "slots", (int)s.slots, "running", (int)s.running, "waiting",
                                 (int)s.waiting),
                       out, err);
}

bool answer_metrics(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    (void)body;
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) return api_fail_memory(err);
    metrics_render(api->metrics, stream);
    const bool whole = fclose(stream) == 0;
    out->type = "text/plain; version=0.0.4; charset=utf-8";
    if (whole) buffer_add(&out->body, text, len);
    free(text);
    return whole && !out->body.failed ? true : api_fail_memory(err);
}

bool answer_page(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)api;
    (void)body;
    (void)err;
    out->page = page_find(rest);
    return true;
}

/* ---- models ---- */

static json_t *model_json(const api_context *api)
{
    return json_pack("{s:o, s:s, s:I, s:s, s:i}", "id", text_json(api->model_id), "object", "model", "created",
                     (json_int_t)api->started_s, "owned_by", "moeprism", "max_model_len", (int)api->n_ctx);
}

bool answer_models(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    (void)body;
    return answer_json(json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(api)), out, err);
}

bool answer_model(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)body;
    if (strcmp(rest, api->model_id) != 0)
        return api_fail(err, 404, "model_not_found", "there is no model '%.100s', only '%.100s'", rest, api->model_id);
    return answer_json(model_json(api), out, err);
}

/* ---- properties ---- */

/* Tokens of one lone stream a second, in the middle of a usual context. */
static double decode_speed(const api_context *api, double share)
{
    double features[COST_FEATURES];
    const cost_item item = {
        .n_tokens = 1, .context = api->n_ctx < 512 ? api->n_ctx / 2 : 256, .logits = 1, .share = share};
    cost_features(&api->cost.shape, &item, 1, features);
    const double ns = cost_predict_ns(&api->cost, features);
    return ns > 0 ? 1e9 / ns : NAN;
}

static json_t *ladder_json(const api_context *api)
{
    const mp_point *full = mp_model_point(api->model, 0), *p;
    json_t *ladder = json_array();
    for (uint32_t i = 0; (p = mp_model_point(api->model, i)) != NULL; i++) {
        const bool measured = p->measured && full->measured;
        json_array_append_new(
            ladder, json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "point", (int)i, "experts",
                              number_json(p->experts), "compute_share", number_json(p->compute_share), "gate_share",
                              number_json(p->gate_share), "ppl", number_json(measured ? p->ppl : NAN), "ppl_increase",
                              number_json(measured ? p->ppl / full->ppl - 1 : NAN), "measured", (int)p->measured,
                              "tokens_per_s", number_json(decode_speed(api, p->compute_share))));
    }
    return ladder;
}

static json_t *levels_json(const api_context *api)
{
    json_t *levels = json_object();
    const char *name;
    for (size_t i = 0; (name = quality_level_name(i)) != NULL; i++) {
        uint32_t point = 0;
        quality_level(api->model, name, &point);
        json_object_set_new(levels, name, json_integer(point));
    }
    return levels;
}

bool answer_props(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    (void)body;
    const mp_model_info *info = mp_model_get_info(api->model);
    const char *family = api->chat_family != NULL ? api->chat_family : mp_chat_family(api->model);
    const loop_status s = loop_get_status(api->loop);
    json_t *root = json_pack("{s:o, s:s, s:s, s:i, s:i, s:i, s:s, s:i, s:i, s:s?, s:i, s:i, s:i}", "model",
                             text_json(api->model_id), "architecture", info->architecture, "version", mp_version(),
                             "n_ctx", (int)api->n_ctx, "slots", (int)api->slots, "queue", (int)api->queue, "policy",
                             sched_policy_names[api->policy], "n_experts_used", (int)info->n_experts_used, "n_vocab",
                             (int)info->n_vocab, "chat_template", family, "floor", (int)api->floor[TIER_DEFAULT],
                             "kv_pages", (int)s.kv_pages, "kv_page_tokens", MP_KV_PAGE);
    json_object_set_new(root, "ladder", ladder_json(api));
    json_object_set_new(root, "levels", levels_json(api));
    return answer_json(root, out, err);
}

/* ---- tokens ---- */

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

/* [{"id", "piece"}] */
static json_t *pieces_json(const mp_model *model, const int32_t *ids, size_t n)
{
    json_t *list = json_array();
    char piece[1024];
    for (size_t i = 0; i < n; i++) {
        size_t len = mp_token_bytes(model, ids[i], true, piece, sizeof piece);
        if (len > sizeof piece) len = sizeof piece;
        json_array_append_new(list, json_pack("{s:i, s:o}", "id", (int)ids[i], "piece", text_json_n(piece, len)));
    }
    return list;
}

static bool tokenize(const api_context *api, const json_t *text, unsigned flags, int32_t **ids, size_t *n,
                     api_error *err)
{
    mp_error cause;
    const char *data = json_string_value(text);
    const size_t len = json_string_length(text);
    *ids = malloc((len + 4) * sizeof **ids); /* a token a byte, and what begins and ends a text */
    if (*ids == NULL) return api_fail_memory(err);
    mp_status status = mp_tokenize(api->model, data, len, flags, *ids, len + 4, n, &cause);
    return status == MP_OK ? true : api_fail_status(err, status, &cause);
}

bool answer_tokenize(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    const fields f = {.object = body, .err = err};
    bool add_special = false, parse_special = true, with_pieces = false;
    int32_t *ids = NULL;
    size_t n = 0;
    const json_t *text = field_get(&f, "content");
    if (text == NULL) text = field_get(&f, "prompt");
    field_bool(&f, "add_special", &add_special);
    field_bool(&f, "parse_special", &parse_special);
    field_bool(&f, "with_pieces", &with_pieces);
    if (!json_is_string(text)) field_fail(&f, "content", "must be a string");
    prompt_bounded(api, "content", json_string_length(text), err);
    const unsigned flags =
        (add_special ? MP_TOKENIZE_BOS | MP_TOKENIZE_EOS : 0U) | (parse_special ? MP_TOKENIZE_SPECIAL : 0U);
    if (err->http == 0 && tokenize(api, text, flags, &ids, &n, err))
        answer_json(json_pack("{s:o, s:I, s:i}", "tokens",
                              with_pieces ? pieces_json(api->model, ids, n) : ids_json(ids, n), "count", (json_int_t)n,
                              "max_model_len", (int)api->n_ctx),
                    out, err);
    free(ids);
    return err->http == 0;
}

/* A few ids can stand for much text: it is bounded like text that comes in. */
static bool detokenize(const api_context *api, const int32_t *ids, size_t n, reply *out, api_error *err)
{
    const size_t len = mp_detokenize(api->model, ids, n, true, NULL, 0);
    if (!prompt_bounded(api, "tokens", len, err)) return false;
    char *text = malloc(len + 1);
    if (text == NULL) return api_fail_memory(err);
    mp_detokenize(api->model, ids, n, true, text, len);
    answer_json(json_pack("{s:o}", "content", text_json_n(text, len)), out, err);
    free(text);
    return err->http == 0;
}

bool answer_detokenize(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    const fields f = {.object = body, .err = err};
    const json_t *list = field_get(&f, "tokens");
    if (!json_is_array(list)) return field_fail(&f, "tokens", "must be an array of token ids");
    const size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (ids == NULL) return api_fail_memory(err);
    const bool answered = prompt_ids(&f, "tokens", api, list, ids) && detokenize(api, ids, n, out, err);
    free(ids);
    return answered;
}

bool answer_count_tokens(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err)
{
    (void)rest;
    api_request r = {0};
    buffer system = {0};
    if (!json_is_null(json_object_get(body, "system")) && json_object_get(body, "system") != NULL)
        content_text(err, "system", json_object_get(body, "system"), &system);
    prompt_chat(api, system.data, json_object_get(body, "messages"), false, &r, err);
    if (err->http == 0) answer_json(json_pack("{s:I}", "input_tokens", (json_int_t)r.prompts[0].n), out, err);
    buffer_clear(&system);
    api_request_clear(&r);
    return err->http == 0;
}
