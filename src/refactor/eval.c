/* mp_eval: from text to the tokens that curve_measure() runs, by llama-perplexity's rules. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "refactor/curve.h"
#include "text/utf8.h"

#define DEFAULT_CTX 512

mp_status curve_check_text(const char *what, const char *text, size_t len, mp_error *err)
{
    if (!text || len == 0) return status_fail(err, MP_E_INVALID, "the %s text is empty", what);
    const size_t valid = utf8_valid(text, len);
    if (valid == len) return MP_OK;
    return status_fail(err, MP_E_INVALID, "the %s text is not UTF-8: byte %zu is 0x%02x", what, valid,
                       (uint8_t)text[valid]);
}

/* *ids is the caller's to free, whatever is returned. */
static mp_status tokenize(const mp_model *m, const char *text, size_t len, int32_t **ids, size_t *n, mp_error *err)
{
    size_t cap = len / 3 + 16; /* English takes about four bytes a token */
    for (;;) {
        free(*ids);
        *ids = malloc(cap * sizeof **ids);
        if (!*ids) return status_no_memory(err, cap * sizeof **ids, "tokens");
        const mp_status status = mp_tokenize(m, text, len, MP_TOKENIZE_BOS, *ids, cap, n, err);
        if (status != MP_E_LIMIT || *n <= cap) return status;
        cap = *n;
    }
}

static mp_status check_length(size_t n_tokens, size_t limit, uint32_t n_ctx, mp_error *err)
{
    if (n_tokens < 2 * (size_t)n_ctx)
        return status_fail(
            err, MP_E_INVALID,
            "the text has only %zu tokens; chunks of %u need at least %zu: give more text or shorten the context",
            n_tokens, n_ctx, 2 * (size_t)n_ctx);
    if (limit < n_ctx)
        return status_fail(err, MP_E_INVALID,
                           "a limit of %zu tokens leaves no whole chunk of %u: raise it or shorten the context", limit,
                           n_ctx);
    return MP_OK;
}

/* Part of a text stands for the whole: its chunks are taken evenly from all over, moved to the front. */
static void spread_chunks(int32_t *ids, size_t n, size_t wanted, uint32_t n_ctx)
{
    const size_t have = n / n_ctx, take = wanted / n_ctx;
    for (size_t i = 0; i < take && take < have; i++)
        memmove(ids + i * n_ctx, ids + i * have / take * n_ctx, n_ctx * sizeof *ids);
}

mp_status mp_eval(const mp_model *m, const mp_eval_params *params, mp_eval_result *out, mp_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    curve_params p = {
        .n_ctx = params->n_ctx               ? params->n_ctx
                 : m->hp.n_ctx < DEFAULT_CTX ? m->hp.n_ctx
                                             : DEFAULT_CTX,
        .points = params->points,
        .n_points = params->n_points,
        .against = params->against,
        .threads = params->threads,
        .isa = params->isa,
        .kv_type = params->kv_type,
        .store = params->store,
        .progress = params->progress,
        .user = params->user,
    };
    *out = (mp_eval_result){0};
    MP_TRY(curve_check_text("evaluation", params->text, params->len, err));
    MP_TRY(curve_begin_token(m, &p.bos, err));
    mp_status status = tokenize(m, params->text, params->len, &ids, &n, err);
    p.tokens = ids;
    p.n_tokens = params->max_tokens && params->max_tokens < n ? (size_t)params->max_tokens : n;
    if (!status) spread_chunks(ids, n, p.n_tokens, p.n_ctx);
    if (!status) status = check_length(n, p.n_tokens, p.n_ctx, err);
    if (!status) status = curve_measure(m, &p, out, err);
    if (!status) sha256_hex(params->text, params->len, out->text_sha256);
    free(ids);
    return status;
}
