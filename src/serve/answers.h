/* answers.h: everything that is answered at once: health, models, properties, metrics, tokens, the page. See
 * route.answer. */
#ifndef SERVE_ANSWERS_H
#define SERVE_ANSWERS_H

#include "serve/routes.h"

bool answer_health(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_models(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_model(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_props(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_metrics(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_tokenize(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_detokenize(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_page(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
bool answer_count_tokens(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);

#endif
