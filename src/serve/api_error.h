/* api_error.h: a refusal as a client sees it: a status of HTTP and one line, in the shape of the API that was asked. */
#ifndef SERVE_API_ERROR_H
#define SERVE_API_ERROR_H

#include <jansson.h>

#include "base/status.h"

typedef struct api_error {
    unsigned http;    /* status, 4xx or 5xx; 0: no error */
    const char *code; /* static: what programs test for, NULL: none */
    char param[128];  /* the field that is wrong, "": none */
    unsigned retry_s; /* Retry-After in seconds, 0: none */
    char message[MP_ERROR_MAX];
} api_error;

/* Fills *err, unless it holds an error already: the first one is told. Always false, so that it ends a parser. */
bool api_fail(api_error *err, unsigned http, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* 400 about one field. */
bool api_fail_field(api_error *err, const char *field, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What a call of the library said: 400 where the request is at fault, else 500. */
bool api_fail_status(api_error *err, mp_status status, const mp_error *cause);
/* 500: what a step of the engine failed with. */
bool api_fail_step(api_error *err, const mp_error *cause);
bool api_fail_memory(api_error *err);

/* {"error": {"message", "type", "param", "code"}}; NULL: out of memory. */
json_t *api_error_openai(const api_error *err);
/* {"type": "error", "error": {"type", "message"}} */
json_t *api_error_anthropic(const api_error *err);

#endif
