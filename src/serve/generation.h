/* generation.h: the jobs of one request: one per prompt and choice, submitted together, read together.
 *
 * Used by the HTTP thread alone. The jobs call `wake` from the loop's thread; see job.h. A generation that is freed
 * early cancels what still runs. */
#ifndef SERVE_GENERATION_H
#define SERVE_GENERATION_H

#include "serve/api.h"

typedef struct choice {
    job *job;
    buffer text;       /* whole replies only: all of it */
    job_token *tokens; /* [n_tokens] the same, where logprobs were asked for */
    size_t n_tokens;
    job_end end;
    const char *stopped_by; /* the job's */
    size_t text_offset;     /* completions: characters told so far, for logprobs */
} choice;

typedef struct generation {
    const api_context *api;
    const api_protocol *protocol;
    api_request request;
    char id[64];
    int64_t created_s; /* Unix time */
    choice *choices;   /* [n_choices]; choice i answers prompt i / request.n */
    size_t n_choices, n_ended;
    api_error failure; /* the first choice that failed says why */
} generation;

/* Takes over `request`, which is cleared where it fails (err). */
bool generation_start(const api_context *api, const api_protocol *protocol, api_request *request,
                      void (*wake)(void *user), void *user, generation **out, api_error *err);
void generation_free(generation *g); /* NULL is fine */

/* Reads what there is. Whole replies gather it: true when every choice has ended. */
bool generation_gather(generation *g);
/* Streams: appends the events of what there is to `out`; true when that was the stream's end. */
void generation_open_stream(generation *g, buffer *out);
bool generation_stream(generation *g, buffer *out);

/* ---- for the protocols ---- */

/* "stop" or "length". */
const char *generation_finish(const choice *c);
/* What all choices used, in tokens and in quality; prompts counted once. */
job_usage generation_usage(const generation *g);
/* OpenAI's usage object, with the account of quality. */
json_t *generation_usage_json(const generation *g);
/* The account alone: {"experts_mean", ...}. */
json_t *usage_account(const api_context *api, const job_usage *u, uint32_t floor);
/* "data: JSON\n\n", behind "event: NAME\n" where there is a name. Takes over the reference. */
void event_add(buffer *out, const char *name, json_t *data);

#endif
