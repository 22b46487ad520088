/* generate.h: one sequence that grows: text goes in, sampled tokens come out. The generator owns its engine, sampler
 * and buffers; the model must outlive it. One thread. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include <stdio.h>

#include "moeprism.h"

typedef struct generator {
    const mp_model *model;
    mp_engine *engine;
    mp_sampler *sampler;
    mp_sampler_params sampling;
    mp_batch_token *batch; /* [n_batch] */
    uint32_t n_ctx, n_batch;
    uint32_t point;      /* of the tokens to come */
    uint32_t floor;      /* theirs, see mp_batch_token */
    uint32_t n_past;     /* tokens the engine holds */
    int32_t *tokens;     /* [n_ctx] those n_past */
    int32_t pending;     /* drawn but not yet run, -1: none */
    const float *logits; /* of the last token run, NULL before the first */
    bool skip_white;     /* write no white space where a drawn text begins */
    /* since generator_reset_stats() */
    uint64_t prompt_tokens, prompt_ns;
    uint64_t drawn_tokens, decode_steps, decode_ns;
    double share_sum; /* of the prompt_tokens + decode_steps tokens run */
} generator;

typedef enum generate_end {
    GENERATE_END_TEXT,    /* an end-of-text token was drawn */
    GENERATE_END_LIMIT,   /* max_tokens were drawn */
    GENERATE_END_CONTEXT, /* the context is full */
    GENERATE_END_STOPPED, /* Ctrl-C, or nobody reads the output any more */
} generate_end;

mp_status generator_open(generator *g, const mp_model *model, const mp_engine_params *engine,
                         const mp_sampler_params *sampling, mp_error *err);
void generator_close(generator *g);

/* Adds text [len] to the sequence. Fails with MP_E_LIMIT, changing nothing, when it does not fit, and with
 * MP_E_INTERRUPTED after Ctrl-C, leaving what was run. */
mp_status generator_feed(generator *g, const char *text, size_t len, mp_error *err);
/* Makes the sequence ids [n > 0], n <= n_ctx: what it has in common with the present one is not run again. Fails as
 * generator_feed() does. */
mp_status generator_set(generator *g, const int32_t *ids, size_t n, mp_error *err);
/* Draws up to max_tokens and writes them to `out` as they come, whole UTF-8 sequences at a time. */
mp_status generator_run(generator *g, uint32_t max_tokens, FILE *out, generate_end *end, mp_error *err);
/* Forgets the text, keeps the settings. */
mp_status generator_reset(generator *g, mp_error *err);

void generator_reset_stats(generator *g);
/* "prompt 12 tokens 310 t/s, generated 100 tokens 82 t/s, experts 2.1 of 8 (26 % of full), point 7" */
void generator_print_stats(const generator *g, FILE *out);

#endif
