#include "cli/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/utf8.h"

enum { TOKEN_BYTES_MAX = 1024 };

mp_status generator_open(generator *g, const mp_model *model, const mp_engine_params *engine,
                         const mp_sampler_params *sampling, mp_error *err)
{
    *g = (generator){.model = model, .sampling = *sampling, .pending = -1};
    g->n_ctx = engine->n_ctx;
    g->n_batch = engine->n_batch;
    g->batch = calloc(g->n_batch, sizeof *g->batch);
    g->tokens = calloc(g->n_ctx, sizeof *g->tokens);
    mp_status status = MP_OK;
    if (g->batch == NULL || g->tokens == NULL)
        status = status_no_memory(err, g->n_batch * sizeof *g->batch + g->n_ctx * sizeof *g->tokens, "a batch");
    if (status == MP_OK) status = mp_engine_open(model, engine, &g->engine, err);
    if (status == MP_OK) status = mp_sampler_new(sampling, mp_model_get_info(model)->n_vocab, &g->sampler, err);
    if (status != MP_OK) generator_close(g);
    return status;
}

void generator_close(generator *g)
{
    mp_sampler_free(g->sampler);
    mp_engine_close(g->engine);
    free(g->batch);
    free(g->tokens);
    *g = (generator){.pending = -1};
}

mp_status generator_reset(generator *g, mp_error *err)
{
    mp_sampler *fresh;
    MP_TRY(mp_sampler_new(&g->sampling, mp_model_get_info(g->model)->n_vocab, &fresh, err));
    mp_sampler_free(g->sampler);
    g->sampler = fresh;
    mp_engine_seq_truncate(g->engine, 0, 0);
    g->n_past = 0;
    g->pending = -1;
    g->logits = NULL;
    return MP_OK;
}

void generator_reset_stats(generator *g)
{
    g->prompt_tokens = g->prompt_ns = g->drawn_tokens = g->decode_steps = g->decode_ns = 0;
    g->share_sum = 0;
}

/* Runs ids [n], n <= n_batch; logits of the last only. */
static mp_status step(generator *g, const int32_t *ids, size_t n, mp_error *err)
{
    for (size_t i = 0; i < n; i++)
        g->batch[i] = (mp_batch_token){.token = ids[i],
                                       .pos = g->n_past + (uint32_t)i,
                                       .point = g->point,
                                       .floor = g->floor,
                                       .logits = i + 1 == n};
    MP_TRY(mp_engine_step(g->engine, g->batch, n, err));
    for (size_t i = 0; i < n; i++) g->share_sum += mp_engine_compute_share(g->engine, i);
    g->logits = mp_engine_logits(g->engine, n - 1);
    memcpy(g->tokens + g->n_past, ids, n * sizeof *ids);
    g->n_past += (uint32_t)n;
    return MP_OK;
}

static mp_status run_prompt(generator *g, const int32_t *ids, size_t n, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    for (size_t done = 0; done < n;) {
        const size_t count = n - done < g->n_batch ? n - done : g->n_batch;
        MP_TRY(step(g, ids + done, count, err));
        for (size_t i = 0; i < count; i++) mp_sampler_accept(g->sampler, ids[done + i]);
        done += count;
        g->prompt_tokens += count;
        g->prompt_ns = clock_now_ns() - start;
        if (interrupt_seen() && done < n) return status_fail(err, MP_E_INTERRUPTED, "interrupted");
    }
    return MP_OK;
}

mp_status generator_feed(generator *g, const char *text, size_t len, mp_error *err)
{
    int32_t *ids;
    size_t n;
    const unsigned flags = MP_TOKENIZE_SPECIAL | (g->n_past == 0 ? MP_TOKENIZE_BOS : 0);
    MP_TRY(ids_of_text(g->model, text, len, flags, &ids, &n, err));
    mp_status status = MP_OK;
    const size_t used = (size_t)g->n_past + (g->pending >= 0);
    const size_t room = used < g->n_ctx ? g->n_ctx - used : 0;
    if (n > room)
        status = status_fail(err, MP_E_LIMIT, "the prompt has %zu tokens, the context has room for %zu (-c sets it)", n,
                             room);
    else if (n == 0 && g->logits == NULL && g->pending < 0)
        status = status_fail(err, MP_E_INVALID, "the prompt is empty");
    if (status == MP_OK && g->pending >= 0 && n > 0) {
        status = step(g, &g->pending, 1, err);
        g->pending = -1;
        g->prompt_tokens++;
    }
    if (status == MP_OK) status = run_prompt(g, ids, n, err);
    free(ids);
    return status;
}

mp_status generator_set(generator *g, const int32_t *ids, size_t n, mp_error *err)
{
    if (n > g->n_ctx)
        return status_fail(err, MP_E_LIMIT, "the prompt has %zu tokens, the context has room for %u (-c sets it)", n,
                           g->n_ctx);
    size_t same = 0;
    while (same < g->n_past && same < n - 1 && g->tokens[same] == ids[same]) same++; /* the last gives the logits */
    mp_engine_seq_truncate(g->engine, 0, (uint32_t)same);
    g->n_past = (uint32_t)same;
    g->pending = -1;
    g->logits = NULL;
    return run_prompt(g, ids + same, n - same, err);
}

/* Bytes of a text that comes in pieces, of which only whole UTF-8 sequences are let out. */
typedef struct stream {
    FILE *out;
    char held[TOKEN_BYTES_MAX + 4];
    size_t n_held;
    bool skip_white; /* nothing else has come yet */
} stream;

static bool stream_flush(stream *s, size_t n)
{
    fwrite(s->held, 1, n, s->out);
    memmove(s->held, s->held + n, s->n_held - n);
    s->n_held -= n;
    return fflush(s->out) == 0;
}

static void stream_skip_white(stream *s)
{
    size_t n = 0;
    while (n < s->n_held && strchr(" \t\r\n", s->held[n]) != NULL && s->held[n] != '\0') n++;
    memmove(s->held, s->held + n, s->n_held - n);
    s->n_held -= n;
    s->skip_white = s->n_held == 0;
}

static bool stream_token(stream *s, const mp_model *model, int32_t id)
{
    const size_t cap = sizeof s->held - s->n_held;
    const size_t n = mp_token_bytes(model, id, false, s->held + s->n_held, cap);
    s->n_held += n < cap ? n : cap;
    if (s->skip_white) stream_skip_white(s);
    return stream_flush(s, s->n_held - utf8_unfinished(s->held, s->n_held));
}

mp_status generator_run(generator *g, uint32_t max_tokens, FILE *out, generate_end *end, mp_error *err)
{
    stream s = {.out = out, .skip_white = g->skip_white};
    mp_status status = MP_OK;
    *end = GENERATE_END_LIMIT;
    for (uint32_t drawn = 0; drawn < max_tokens; drawn++) {
        const uint64_t start = clock_now_ns();
        if (g->pending >= 0) {
            if (g->n_past >= g->n_ctx) {
                *end = GENERATE_END_CONTEXT;
                break;
            }
            status = step(g, &g->pending, 1, err);
            if (status != MP_OK) break;
            g->decode_steps++;
        }
        g->pending = mp_sampler_draw(g->sampler, g->logits);
        mp_sampler_accept(g->sampler, g->pending);
        g->drawn_tokens++;
        g->decode_ns += clock_now_ns() - start;
        if (mp_token_ends_text(g->model, g->pending)) {
            *end = GENERATE_END_TEXT;
            break;
        }
        if (!stream_token(&s, g->model, g->pending) || interrupt_seen()) {
            *end = GENERATE_END_STOPPED;
            break;
        }
    }
    stream_flush(&s, s.n_held);
    return status;
}

static double per_second(uint64_t tokens, uint64_t ns)
{
    return ns > 0 ? (double)tokens * 1e9 / (double)ns : 0;
}

void generator_print_stats(const generator *g, FILE *out)
{
    const mp_model_info *info = mp_model_get_info(g->model);
    const uint64_t run = g->prompt_tokens + g->decode_steps;
    const double share = run > 0 ? g->share_sum / (double)run : 0;
    fprintf(out, "prompt %" PRIu64 " tokens %.0f t/s, generated %" PRIu64 " tokens", g->prompt_tokens,
            per_second(g->prompt_tokens, g->prompt_ns), g->drawn_tokens);
    /* The first token drawn took no step of its own. */
    if (g->decode_steps > 0) fprintf(out, " %.1f t/s", per_second(g->decode_steps, g->decode_ns));
    fprintf(out, ", experts %.2f of %u (%.0f %% of full), point %u", share * info->n_experts_used, info->n_experts_used,
            share * 100, g->point);
    if (g->sampling.temperature > 0) fprintf(out, ", seed %" PRIu64, g->sampling.seed);
    fputc('\n', out);
}
