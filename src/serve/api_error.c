#include "serve/api_error.h"

#include <stdarg.h>
#include <stdio.h>

#include "serve/text.h"

/* What both APIs call an error of a status. */
typedef struct error_kind {
    unsigned http;
    const char *openai, *anthropic;
} error_kind;

static const error_kind kinds[] = {
    {401, "authentication_error", "authentication_error"},
    {403, "permission_error", "permission_error"},
    {404, "not_found_error", "not_found_error"},
    {413, "invalid_request_error", "request_too_large"},
    {500, "server_error", "api_error"},
    {503, "overloaded_error", "overloaded_error"},
};

static const error_kind *kind_of(unsigned http)
{
    static const error_kind other = {400, "invalid_request_error", "invalid_request_error"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].http == http) return &kinds[i];
    return &other;
}

__attribute__((format(printf, 5, 0))) static void fail(api_error *err, unsigned http, const char *code,
                                                       const char *field, const char *format, va_list args)
{
    if (err->http != 0) return;
    err->http = http;
    err->code = code;
    err->retry_s = 0;
    snprintf(err->param, sizeof err->param, "%s", field);
    vsnprintf(err->message, sizeof err->message, format, args);
}

bool api_fail(api_error *err, unsigned http, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(err, http, code, "", format, args);
    va_end(args);
    return false;
}

bool api_fail_field(api_error *err, const char *field, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(err, 400, "invalid_value", field, format, args);
    va_end(args);
    return false;
}

bool api_fail_step(api_error *err, const mp_error *cause)
{
    return api_fail(err, 500, cause->status == MP_E_CHANGED ? "model_file_changed" : NULL, "%s", cause->message);
}

bool api_fail_status(api_error *err, mp_status status, const mp_error *cause)
{
    if (status == MP_E_MEMORY || status == MP_E_IO || status == MP_E_CHANGED) return api_fail_step(err, cause);
    return api_fail(err, 400, NULL, "%s", cause->message);
}

bool api_fail_memory(api_error *err)
{
    return api_fail(err, 500, NULL, "out of memory");
}

/* A message may quote what the client sent. */
json_t *api_error_openai(const api_error *err)
{
    return json_pack("{s:{s:o, s:s, s:o, s:s?}}", "error", "message", text_json(err->message), "type",
                     kind_of(err->http)->openai, "param", err->param[0] != '\0' ? text_json(err->param) : json_null(),
                     "code", err->code);
}

json_t *api_error_anthropic(const api_error *err)
{
    return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type", kind_of(err->http)->anthropic, "message",
                     text_json(err->message));
}
