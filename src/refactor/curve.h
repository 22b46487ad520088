/* curve.h: how good a model is at each of its operating points (DESIGN 2.6).
 *
 * The perplexity is llama-perplexity's: the text is tokenized once and cut into chunks of n_ctx tokens, each run as a
 * sequence of its own; the second half of a chunk is scored, positions n_ctx/2 .. n_ctx-2 predicting the next token;
 * perplexity = exp(mean of -log p), standard error by the delta method. The same numbers come out on any number of
 * threads: a token's figures depend on it alone and are summed in order.
 *
 * mp_eval() adds the rules for text on top of curve_measure(), which the refactorer also calls with tokens of its own.
 * The caller owns everything that goes in, and frees the result with mp_eval_result_clear(). */
#ifndef REFACTOR_CURVE_H
#define REFACTOR_CURVE_H

#include "model/model.h"

/* Below this half a chunk is no context to speak of. */
#define CURVE_MIN_CTX 8

typedef struct curve_params {
    const int32_t *tokens; /* [n_tokens]; what is left after the last whole chunk is not used */
    size_t n_tokens;
    uint32_t n_ctx;         /* chunk length, at most the model's context */
    int32_t bos;            /* takes the place of each chunk's first token; -1: none does */
    const uint32_t *points; /* [n_points], any order; NULL: the whole ladder */
    size_t n_points;
    const mp_model *against; /* KL is taken to this model at full; NULL: the model itself at full */
    uint32_t threads;        /* 0: default */
    const char *isa;         /* NULL: the best */
    mp_kv_type kv_type;
    mp_store_params store;
    const char *stage;       /* name shown as progress, counted in tokens; NULL: "evaluate" */
    mp_progress_fn progress; /* NULL: none */
    void *user;
} curve_params;

/* Fills all of `out` but text_sha256, which is left empty. Memory: probabilities of the scored positions of one group
 * of chunks (up to 512 tokens, or one chunk where that is longer) over the vocabulary, beside the engines.
 * MP_E_INVALID: fewer tokens than a chunk, a point that does not exist, models whose vocabularies differ; MP_E_FORMAT:
 * logits that are not numbers; MP_E_INTERRUPTED. */
mp_status curve_measure(const mp_model *m, const curve_params *p, mp_eval_result *out, mp_error *err);

/* The token that begins a text by the file's rules; -1: none does. */
mp_status curve_begin_token(const mp_model *m, int32_t *bos, mp_error *err);

/* Refuses a text that is empty or not UTF-8; `what` names it ("calibration"). */
mp_status curve_check_text(const char *what, const char *text, size_t len, mp_error *err);

#endif
