/* Prompts: from messages, texts or ids to ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api_parts.h"
#include "serve/fields.h"

static api_prompt *add_prompts(api_request *r, size_t n, api_error *err)
{
    r->prompts = calloc(n, sizeof *r->prompts);
    if (r->prompts == NULL) {
        api_fail_memory(err);
        return NULL;
    }
    r->n_prompts = n;
    return r->prompts;
}

static bool too_long(const api_context *api, size_t n, api_error *err)
{
    api_fail(err, 400, "context_length_exceeded",
             "the prompt has %zu tokens, the context of %u has room for %u and one of the reply", n, api->n_ctx,
             api->n_ctx - 1);
    return false;
}

/* Cutting text into tokens takes up to 0.3 s a megabyte, in which nobody else is answered. */
bool prompt_bounded(const api_context *api, const char *field, size_t bytes, api_error *err)
{
    enum { ALWAYS = 512 << 10, A_TOKEN = 8 };
    const size_t by_context = (size_t)api->n_ctx * A_TOKEN, most = by_context > ALWAYS ? by_context : ALWAYS;
    if (bytes <= most) return true;
    return api_fail_field(err, field, "%s has %zu bytes of text, more than the %zu that one request may have", field,
                          bytes, most);
}

/* Text that no context of this length can hold is refused before it is cut into tokens. */
static bool fits(const api_context *api, size_t bytes, api_error *err)
{
    if (api->longest_token == 0 || bytes / api->longest_token < api->n_ctx) return true;
    return api_fail(err, 400, "context_length_exceeded",
                    "the prompt has %zu bytes, more than a context of %u tokens can hold", bytes, api->n_ctx);
}

/* ---- messages ---- */

static bool part_text(api_error *err, const char *name, size_t i, const json_t *part, buffer *out)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    if (type == NULL || strcmp(type, "text") != 0)
        return api_fail_field(err, name, "%s[%zu].type must be \"text\"%s%.40s%s", name, i, type != NULL ? ": \"" : "",
                              type != NULL ? type : "", type != NULL ? "\" is not supported" : "");
    if (!json_is_string(text)) return api_fail_field(err, name, "%s[%zu].text must be a string", name, i);
    if (i > 0) buffer_text(out, "\n");
    buffer_add(out, json_string_value(text), json_string_length(text));
    return true;
}

void content_text(api_error *err, const char *name, const json_t *content, buffer *out)
{
    const json_t *part;
    size_t i;
    buffer_text(out, "");
    if (json_is_string(content)) {
        buffer_add(out, json_string_value(content), json_string_length(content));
    } else if (json_is_array(content)) {
        json_array_foreach(content, i, part)
        {
            if (!part_text(err, name, i, part, out)) return;
        }
    } else {
        api_fail_field(err, name, "%s must be a string or an array of text parts", name);
    }
    if (out->failed)
        api_fail_memory(err);
    else if (strlen(out->data) != out->len)
        api_fail_field(err, name, "%s must not contain the character U+0000", name);
}

static const char *read_role(const json_t *message, size_t i, bool openai, api_error *err)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer"};
    const char *role = json_string_value(json_object_get(message, "role"));
    char name[64];
    snprintf(name, sizeof name, "messages[%zu].role", i);
    for (size_t k = 0; role != NULL && k < (openai ? 4 : 2); k++)
        if (strcmp(role, roles[k]) == 0) return roles[k];
    api_fail_field(err, name, "%s must be %s", name,
                   openai ? "system, developer, user or assistant" : "user or assistant");
    return NULL;
}

/* The content is the caller's to free; its length is added to *bytes. */
static bool read_message(const json_t *message, size_t i, bool openai, mp_chat_message *out, size_t *bytes,
                         api_error *err)
{
    buffer text = {0};
    char name[64];
    snprintf(name, sizeof name, "messages[%zu]", i);
    if (!json_is_object(message)) return api_fail_field(err, name, "%s must be an object", name);
    out->role = read_role(message, i, openai, err);
    if (out->role == NULL) return false;
    snprintf(name, sizeof name, "messages[%zu].tool_calls", i);
    if (json_array_size(json_object_get(message, "tool_calls")) > 0)
        return api_fail_field(err, name, "%s are not supported", name);
    snprintf(name, sizeof name, "messages[%zu].content", i);
    content_text(err, name, json_object_get(message, "content"), &text);
    if (err->http == 0) {
        out->content = text.data;
        *bytes += text.len;
        return true;
    }
    buffer_clear(&text);
    return false;
}

/* Tokens of a conversation as the request's only prompt. */
static void tokenize_chat(const api_context *api, const mp_chat_message *messages, size_t n, api_request *r,
                          api_error *err)
{
    mp_error cause;
    size_t n_ids = 0;
    api_prompt *prompt = add_prompts(r, 1, err);
    if (prompt == NULL) return;
    prompt->ids = malloc(api->n_ctx * sizeof *prompt->ids);
    if (prompt->ids == NULL) {
        api_fail_memory(err);
        return;
    }
    const mp_status status =
        mp_chat_tokenize(api->model, api->chat_family, messages, n, true, prompt->ids, api->n_ctx - 1, &n_ids, &cause);
    prompt->n = n_ids;
    if (status == MP_E_LIMIT && n_ids >= api->n_ctx)
        too_long(api, n_ids, err);
    else if (status != MP_OK)
        api_fail_status(err, status, &cause);
    else if (n_ids == 0)
        api_fail_field(err, "messages", "messages give an empty prompt");
}

void prompt_chat(const api_context *api, const char *system, const json_t *messages, bool openai, api_request *r,
                 api_error *err)
{
    const size_t n = json_array_size(messages);
    size_t used = 0, bytes = system != NULL ? strlen(system) : 0;
    if (err->http != 0) return;
    if (n == 0) {
        api_fail_field(err, "messages", "messages must be an array with at least one message");
        return;
    }
    mp_chat_message *list = calloc(n + 1, sizeof *list);
    if (list == NULL) {
        api_fail_memory(err);
        return;
    }
    if (system != NULL) list[used++] = (mp_chat_message){"system", system};
    const size_t first = used;
    for (size_t i = 0; i < n && read_message(json_array_get(messages, i), i, openai, &list[used], &bytes, err); i++)
        used++;
    if (err->http == 0 && fits(api, bytes, err) && prompt_bounded(api, "messages", bytes, err))
        tokenize_chat(api, list, used, r, err);
    for (size_t i = first; i < used; i++) free((char *)list[i].content);
    free(list);
}

/* ---- texts and ids ---- */

static bool tokenize_text(const fields *f, const api_context *api, const json_t *value, bool echo, api_prompt *out)
{
    mp_error cause;
    const char *text = json_string_value(value);
    const size_t len = json_string_length(value);
    if (!fits(api, len, f->err)) return false;
    out->ids = malloc(api->n_ctx * sizeof *out->ids);
    if (echo) out->text = malloc(len + 1);
    if (out->ids == NULL || (echo && out->text == NULL)) return api_fail_memory(f->err);
    if (echo) memcpy(out->text, text, len + 1);
    out->text_len = len;
    const mp_status status = mp_tokenize(api->model, text, len, MP_TOKENIZE_BOS | MP_TOKENIZE_SPECIAL, out->ids,
                                         api->n_ctx - 1, &out->n, &cause);
    if (status == MP_E_LIMIT) return too_long(api, out->n, f->err);
    if (status != MP_OK) return api_fail_status(f->err, status, &cause);
    if (out->n == 0) return field_fail(f, "prompt", "is empty");
    return true;
}

bool prompt_ids(const fields *f, const char *name, const api_context *api, const json_t *list, int32_t *ids)
{
    const uint32_t n_vocab = mp_model_get_info(api->model)->n_vocab;
    const json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        const json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= n_vocab)
            return field_fail(f, name, "must hold token ids from 0 to %u", n_vocab - 1);
        ids[i] = (int32_t)id;
    }
    return true;
}

static bool copy_ids(const fields *f, const api_context *api, const json_t *list, bool echo, api_prompt *out)
{
    out->n = json_array_size(list);
    if (out->n == 0) return field_fail(f, "prompt", "is empty");
    if (out->n >= api->n_ctx) return too_long(api, out->n, f->err);
    out->ids = malloc(out->n * sizeof *out->ids);
    if (out->ids == NULL) return api_fail_memory(f->err);
    if (!prompt_ids(f, "prompt", api, list, out->ids)) return false;
    if (!echo) return true;
    out->text_len = mp_detokenize(api->model, out->ids, out->n, false, NULL, 0);
    out->text = malloc(out->text_len + 1);
    if (out->text == NULL) return api_fail_memory(f->err);
    mp_detokenize(api->model, out->ids, out->n, false, out->text, out->text_len);
    return true;
}

/* Of all prompts that are text. */
static size_t text_bytes(const json_t *value)
{
    size_t bytes = json_string_length(value), i; /* 0: no string */
    const json_t *item;
    json_array_foreach(value, i, item) bytes += json_string_length(item);
    return bytes;
}

static bool one_prompt(const fields *f, const api_context *api, const json_t *value, bool echo, api_prompt *out)
{
    if (json_is_string(value)) return tokenize_text(f, api, value, echo, out);
    if (json_is_array(value)) return copy_ids(f, api, value, echo, out);
    return field_fail(f, "prompt", "must be a string, an array of strings, of token ids, or of arrays of token ids");
}

void prompt_texts(const fields *f, const api_context *api, bool echo, api_request *r)
{
    const json_t *value = field_get(f, "prompt");
    if (f->err->http != 0) return;
    if (value == NULL) {
        field_fail(f, "prompt", "is required");
        return;
    }
    const json_t *head = json_array_get(value, 0);
    const bool several = head != NULL && !json_is_number(head);
    const size_t n = several ? json_array_size(value) : 1, most = (size_t)api->slots + api->queue;
    if (n * r->n > most) {
        field_fail(f, "prompt", "asks for %zu replies (prompts times n), the server can hold %zu at once", n * r->n,
                   most);
        return;
    }
    if (!prompt_bounded(api, "prompt", text_bytes(value), f->err)) return;
    api_prompt *prompts = add_prompts(r, n, f->err);
    if (prompts == NULL) return;
    for (size_t i = 0; i < n; i++)
        if (!one_prompt(f, api, several ? json_array_get(value, i) : value, echo, &prompts[i])) return;
}

void prompt_limits(const api_context *api, api_request *r, api_error *err)
{
    if (err->http != 0) return;
    size_t longest = 0;
    for (size_t i = 0; i < r->n_prompts; i++)
        if (r->prompts[i].n > longest) longest = r->prompts[i].n;
    const uint32_t room = api->n_ctx - (uint32_t)longest;
    const bool unbounded = r->max_tokens == 0 || r->max_tokens > room;
    r->open_ended = unbounded && !r->ignore_eos;
    if (unbounded) r->max_tokens = room;
}
