/* A sampler: one stream's history and what it does to the logits; draw.h chooses.
 *
 * The order is that of llama.cpp: logit bias, penalties (repetition over a window, then presence and frequency), top-k,
 * top-p, min-p, temperature last. Bias and penalties touch few tokens: those are listed, and a row is copied and edited
 * only where there are any. All memory is taken in mp_sampler_new(). */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/draw.h"

#define REPEAT_LAST_DEFAULT 64

/* What is known of a token of the vocabulary. */
typedef struct token_use {
    uint32_t in_ring, drawn; /* how often */
    bool listed;
} token_use;

struct mp_sampler {
    mp_sampler_params params;
    uint32_t n_vocab;
    rng rng;
    draw draw;
    mp_logit_bias *bias; /* [params.n_bias] */
    float *edited;       /* [n_vocab]; NULL: logits are drawn from as they come */

    /* With penalties, else NULL. */
    int32_t *ring; /* [repeat_last], the last accepted tokens */
    uint32_t ring_len, ring_next;
    token_use *use;  /* [n_vocab] */
    int32_t *listed; /* [n_vocab], n_listed tokens that were ever accepted or drawn */
    uint32_t n_listed;
};

/* ---- parameters ---- */

static mp_status check_range(const char *name, float value, float max, mp_error *err)
{
    if (value >= 0 && value <= max) return MP_OK; /* false for NaN */
    if (max == FLT_MAX)
        return status_fail(err, MP_E_INVALID, "%s = %g: must be finite and at least 0", name, (double)value);
    return status_fail(err, MP_E_INVALID, "%s = %g: must be between 0 and %g", name, (double)value, (double)max);
}

static mp_status check_finite(const char *name, float value, mp_error *err)
{
    return isfinite(value) ? MP_OK : status_fail(err, MP_E_INVALID, "%s = %g: must be finite", name, (double)value);
}

static mp_status check_bias(const mp_sampler_params *p, uint32_t n_vocab, mp_error *err)
{
    for (size_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token < 0 || (uint32_t)p->bias[i].token >= n_vocab)
            return status_fail(err, MP_E_INVALID, "bias of token %d: ids are 0 to %u", p->bias[i].token, n_vocab - 1);
        MP_TRY(check_finite("bias", p->bias[i].bias, err));
    }
    return MP_OK;
}

static mp_status check_params(const mp_sampler_params *p, uint32_t n_vocab, mp_error *err)
{
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return status_fail(err, MP_E_INVALID, "n_vocab = %u: must be between 1 and %d", n_vocab, INT32_MAX);
    MP_TRY(check_range("temperature", p->temperature, FLT_MAX, err));
    MP_TRY(check_range("top_p", p->top_p, 1, err));
    MP_TRY(check_range("min_p", p->min_p, 1, err));
    MP_TRY(check_range("repeat_penalty", p->repeat_penalty, FLT_MAX, err));
    MP_TRY(check_finite("presence_penalty", p->presence_penalty, err));
    MP_TRY(check_finite("frequency_penalty", p->frequency_penalty, err));
    if (p->repeat_last > MP_REPEAT_LAST_MAX)
        return status_fail(err, MP_E_INVALID, "repeat_last = %u: must be at most %d", p->repeat_last,
                           MP_REPEAT_LAST_MAX);
    return check_bias(p, n_vocab, err);
}

static bool repeats_cost(const mp_sampler_params *p)
{
    return p->repeat_penalty != 0 && p->repeat_penalty != 1;
}

static bool penalises(const mp_sampler_params *p)
{
    return repeats_cost(p) || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

/* ---- lifecycle ---- */

static mp_status take_memory(mp_sampler *s, mp_error *err)
{
    const size_t n = s->n_vocab, n_bias = s->params.n_bias, last = s->params.repeat_last;
    MP_TRY(draw_init(&s->draw, s->n_vocab, err));
    bool complete = true;
    if (n_bias > 0) {
        s->bias = calloc(n_bias, sizeof *s->bias);
        complete = s->bias != NULL;
    }
    if (penalises(&s->params)) {
        s->ring = calloc(last, sizeof *s->ring);
        s->use = calloc(n, sizeof *s->use);
        s->listed = calloc(n, sizeof *s->listed);
        complete = complete && s->ring && s->use && s->listed;
    }
    if (n_bias > 0 || penalises(&s->params)) {
        s->edited = calloc(n, sizeof *s->edited);
        complete = complete && s->edited;
    }
    return complete ? MP_OK : status_no_memory(err, n * 4 * sizeof(uint32_t), "a sampler");
}

mp_status mp_sampler_new(const mp_sampler_params *params, uint32_t n_vocab, mp_sampler **out, mp_error *err)
{
    *out = NULL;
    MP_TRY(check_params(params, n_vocab, err));
    mp_sampler *s = calloc(1, sizeof *s);
    if (!s) return status_no_memory(err, sizeof *s, "a sampler");
    s->params = *params;
    s->n_vocab = n_vocab;
    if (s->params.repeat_last == 0) s->params.repeat_last = REPEAT_LAST_DEFAULT;
    rng_init(&s->rng, params->seed);
    const mp_status status = take_memory(s, err);
    if (status != MP_OK) {
        mp_sampler_free(s);
        return status;
    }
    for (size_t i = 0; i < params->n_bias; i++) s->bias[i] = params->bias[i];
    s->params.bias = s->bias;
    *out = s;
    return MP_OK;
}

void mp_sampler_free(mp_sampler *s)
{
    if (!s) return;
    draw_clear(&s->draw);
    free(s->bias);
    free(s->edited);
    free(s->ring);
    free(s->use);
    free(s->listed);
    free(s);
}

/* ---- history ---- */

static token_use *list(mp_sampler *s, int32_t token)
{
    token_use *use = &s->use[token];
    if (!use->listed) s->listed[s->n_listed++] = token;
    use->listed = true;
    return use;
}

void mp_sampler_accept(mp_sampler *s, int32_t token)
{
    if (!s->ring || token < 0 || (uint32_t)token >= s->n_vocab) return;
    int32_t *slot = &s->ring[s->ring_next];
    if (s->ring_len == s->params.repeat_last)
        s->use[*slot].in_ring--;
    else
        s->ring_len++;
    *slot = token;
    list(s, token)->in_ring++;
    s->ring_next = (s->ring_next + 1) % s->params.repeat_last;
}

/* ---- editing a row ---- */

static float clean(float logit)
{
    if (isnan(logit)) return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* The repetition penalty pulls a logit down whatever its sign. */
static float penalised(const mp_sampler_params *p, const token_use *use, float logit)
{
    if (repeats_cost(p) && use->in_ring > 0)
        logit = clean(logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty);
    if (use->drawn > 0) logit -= p->presence_penalty + (float)use->drawn * p->frequency_penalty;
    return clean(logit);
}

static const float *edit(mp_sampler *s, const float *logits)
{
    if (!s->edited) return logits;
    memcpy(s->edited, logits, s->n_vocab * sizeof *s->edited);
    for (size_t i = 0; i < s->params.n_bias; i++) {
        float *logit = &s->edited[s->bias[i].token];
        *logit = clean(clean(*logit) + s->bias[i].bias);
    }
    for (uint32_t i = 0; i < s->n_listed; i++) {
        const int32_t token = s->listed[i];
        s->edited[token] = penalised(&s->params, &s->use[token], clean(s->edited[token]));
    }
    return s->edited;
}

int32_t mp_sampler_draw(mp_sampler *s, const float *logits)
{
    const mp_sampler_params *p = &s->params;
    const float *row = edit(s, logits);
    const draw_cuts cuts = {p->top_k, p->top_p, p->min_p, p->temperature};
    const bool greedy = p->temperature == 0 || p->top_k == 1;
    const int32_t token = greedy ? draw_best(&s->draw, row) : draw_random(&s->draw, row, &cuts, &s->rng);
    if (s->use) list(s, token)->drawn++;
    return token;
}
