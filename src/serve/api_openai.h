/* api_openai.h: what OpenAI's two APIs share of replies: the envelope, chunks of streams, their end. protocol->object
 * and protocol->chunk name what is in an envelope. */
#ifndef SERVE_API_OPENAI_H
#define SERVE_API_OPENAI_H

#include "serve/generation.h"

/* A whole reply. Takes over the reference. */
json_t *openai_reply(const generation *g, json_t *choices);
/* An event of a stream. Takes over the reference. */
void openai_chunk(const generation *g, json_t *choices, buffer *out);

/* api_protocol's */
void openai_close(const generation *g, buffer *out);
void openai_broken(const api_error *err, buffer *out);

#endif
