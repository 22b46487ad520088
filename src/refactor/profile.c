/* Runs the calibration text through the original model one layer at a time, all tokens through a layer before the next:
 * only the residual stream of the tokens stays in memory, and an interrupted run can go on at any layer. */
#include <string.h>

#include "base/clock.h"
#include "refactor/refactor.h"

/* Chunks of the context's length, one after the other in sequence 0. */
static size_t chunk_at(const refactor *r, size_t begin, mp_batch_token *batch)
{
    size_t n = r->n_tokens - begin < r->ctx ? r->n_tokens - begin : r->ctx;
    for (size_t i = 0; i < n; i++) batch[i] = (mp_batch_token){.token = r->tokens[begin + i], .pos = (uint32_t)i};
    return n;
}

static mp_status begin_chunk(refactor *r, size_t begin, size_t *n, mp_error *err)
{
    mp_batch_token *batch = r->engine->batch; /* engine_begin copies it onto itself */
    *n = chunk_at(r, begin, batch);
    mp_engine_seq_truncate(r->engine, 0, 0);
    return engine_begin(r->engine, batch, *n, err);
}

mp_status profile_start(refactor *r, mp_error *err)
{
    const size_t d = r->source->hp.n_embd;
    size_t n;
    for (size_t t = 0; t < r->n_tokens; t += n) {
        MP_TRY(begin_chunk(r, t, &n, err));
        engine_embed(r->engine, r->h + t * d);
    }
    return MP_OK;
}

mp_status profile_attention(refactor *r, mp_error *err)
{
    const size_t d = r->source->hp.n_embd, k0 = r->source->hp.n_used;
    mp_engine *e = r->engine;
    const uint64_t start = clock_now_ns();
    size_t n;
    refactor_stage(r);
    for (size_t t = 0; t < r->n_tokens; t += n) {
        MP_TRY(begin_chunk(r, t, &n, err));
        engine_attention(e, r->layer, r->h + t * d);
        engine_ffn_norm(e, r->layer, r->h + t * d, r->x + t * d);
        if (model_has_experts(r->source, r->layer)) {
            moe_exec_route(&e->moe, &r->source->moe[r->layer], &e->in_acts, n);
            memcpy(r->experts + t * k0, e->moe.experts, n * k0 * sizeof *r->experts);
            memcpy(r->mix + t * k0, e->moe.mix, n * k0 * sizeof *r->mix);
        }
        MP_TRY(refactor_progress(r, "profile", "tokens", t + n, r->n_tokens, err));
    }
    r->report.profile_s += (double)(clock_now_ns() - start) * 1e-9;
    return MP_OK;
}

mp_status profile_advance(refactor *r, mp_error *err)
{
    const size_t d = r->source->hp.n_embd;
    mp_engine *e = r->engine;
    const uint64_t start = clock_now_ns();
    size_t n;
    refactor_stage(r);
    for (size_t t = 0; t < r->n_tokens; t += n) {
        MP_TRY(begin_chunk(r, t, &n, err));
        engine_ffn_input(e, r->layer, r->x + t * d);
        MP_TRY(engine_ffn(e, r->layer, e->out, err));
        engine_add(e, r->h + t * d, e->out);
        MP_TRY(refactor_progress(r, "experts", "tokens", t + n, r->n_tokens, err));
    }
    r->report.profile_s += (double)(clock_now_ns() - start) * 1e-9;
    return MP_OK;
}
