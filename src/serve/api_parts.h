/* api_parts.h: the parts of a request that several APIs have in common. All follow fields.h: nothing after the first
 * error. */
#ifndef SERVE_API_PARTS_H
#define SERVE_API_PARTS_H

#include "serve/api.h"
#include "serve/fields.h"

/* Defaults that depend on the server, before anything is read. */
void request_begin(const api_context *api, api_request *r);
/* temperature, top_p, top_k, min_p, seed, penalties, logit_bias, ignore_eos. */
void request_sampling(const fields *f, const api_context *api, api_request *r);
/* A string or an array of strings. */
void request_stop(const fields *f, const char *name, api_request *r);
/* stream, stream_options. */
void request_stream(const fields *f, api_request *r);
/* OpenAI: n, best_of, max_tokens under its names, what cannot be done. */
void request_openai(const fields *f, const api_context *api, api_request *r);
/* Fields that ask for something that is not there: refused unless absent, null, false, "none", an empty list. */
void request_refuse(const fields *f, const char *name, const char *why);

/* "moeprism", and the points, targets and priority that follow from it; the tier must have been read before. */
void request_quality(const fields *f, const api_context *api, api_request *r);
/* OpenAI's and Anthropic's service_tier. */
void request_tier(const fields *f, api_request *r);
/* The name of a tier for a reply. */
const char *tier_name(api_tier tier);

/* A quality as an option writes it: "full", "high", "medium", "low", "2.25" (experts), "25%" (of the expert compute),
 * "max-ppl-increase=2%", "point=7"; also "experts=X", "compute=X". */
mp_status quality_read(const mp_model *model, const char *text, uint32_t *point, mp_error *err);
/* The point of a named level; false: there is no such level. */
bool quality_level(const mp_model *model, const char *name, uint32_t *point);
/* "low", "medium", "high", "full"; NULL past the end. */
const char *quality_level_name(size_t i);

/* A message's text: a string, or an array of parts of type "text"; others are refused under `name`, which is the path
 * told in errors. Appends to `out`. */
void content_text(api_error *err, const char *name, const json_t *content, buffer *out);
/* `messages` with roles, and `system` (may be NULL) before them, as the one prompt of the request. */
void prompt_chat(const api_context *api, const char *system, const json_t *messages, bool openai, api_request *r,
                 api_error *err);
/* `prompt`: a string, strings, ids, or arrays of ids. */
void prompt_texts(const fields *f, const api_context *api, bool echo, api_request *r);
/* The token ids of `list`, the array in the field `name`, into ids [its size]; false: err names the field. */
bool prompt_ids(const fields *f, const char *name, const api_context *api, const json_t *list, int32_t *ids);
/* Whether so much text may be cut into tokens, or be put together from them, in one request; false: err names the
 * field. */
bool prompt_bounded(const api_context *api, const char *field, size_t bytes, api_error *err);
/* All prompts fit the context; max_tokens is cut to what is left, open_ended says whether that alone bounds it. */
void prompt_limits(const api_context *api, api_request *r, api_error *err);

#endif
