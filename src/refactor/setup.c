/* What a run needs before its first layer: checked settings, the source, its hash, the calibration tokens, memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "refactor/curve.h"
#include "refactor/expert_types.h"
#include "refactor/setup.h"
#include "refactor/source_hash.h"

#define DEFAULT_MAX_TOKENS      98304
#define DEFAULT_MAX_PER_EXPERT  32768
#define DEFAULT_MAX_EVAL_TOKENS 32768
#define DEFAULT_CTX             512
#define BEST_PARTS              32
/* One chunk in this many is kept to judge by. */
#define JUDGE_EVERY 16

/* ---- settings ---- */

static uint32_t default_parts(uint32_t width)
{
    uint32_t best = 1;
    for (uint32_t n = 2; n <= width && n <= 2 * BEST_PARTS; n++)
        if (width % n == 0 && abs((int)n - BEST_PARTS) <= abs((int)best - BEST_PARTS)) best = n;
    return best;
}

static mp_status choose_split(refactor *r, mp_error *err)
{
    const hparams *hp = &r->source->hp;
    const uint32_t n = r->p.n_parts ? r->p.n_parts : default_parts(hp->expert_width);
    if (n > hp->expert_width || hp->expert_width % n)
        return status_fail(err, MP_E_INVALID, "%u parts do not divide experts of %u neurons: choose a divisor, as %u",
                           n, hp->expert_width, default_parts(hp->expert_width));
    r->split = model_first_moe(r->source)->shape;
    r->split.n_parts = r->p.n_parts = n;
    r->split.part_width = hp->expert_width / n;
    r->split.tile = moe_tile(hp->n_embd);
    if ((uint64_t)n * hp->n_experts > 1u << 20)
        return status_fail(err, MP_E_LIMIT, "%u parts of %u experts are too many", n, hp->n_experts);
    return MP_OK;
}

static mp_status choose_gate(refactor *r, mp_error *err)
{
    const uint32_t d = r->split.d, s = r->split.part_width, asked = r->p.gate_rank;
    switch (r->p.gate) {
    case MP_GATE_PROBE:
        if (asked > d) return status_fail(err, MP_E_INVALID, "a probe of rank %u: the model's width is %u", asked, d);
        r->gate_rank = asked ? asked % d : split_default_rank(&r->split); /* d: whole rows */
        return MP_OK;
    case MP_GATE_PROXY:
        if (asked > s) return status_fail(err, MP_E_INVALID, "%u gate neurons: a sub-expert has %u neurons", asked, s);
        r->gate_rank = asked ? asked : 1;
        return MP_OK;
    case MP_GATE_LINEAR:
        r->gate_rank = 0;
        return MP_OK;
    }
    return status_fail(err, MP_E_INVALID, "unknown gate");
}

/* What --type asks for in a layer; the source's types where it asks for nothing. */
static mp_status asked_types(const refactor *r, uint32_t layer, expert_types *out, mp_error *err)
{
    const moe_weights *w = &r->source->moe[layer].w;
    if (r->p.type) return expert_types_of(r->p.type, layer, r->source->hp.n_layers, out, err);
    *out = (expert_types){w->gate.row_bytes >= w->up.row_bytes ? w->gate.type : w->up.type, w->down.type};
    return MP_OK;
}

static mp_status choose_types(refactor *r, mp_error *err)
{
    for (uint32_t l = r->source->hp.n_dense; l < r->source->hp.n_layers; l++) {
        layer_result *out = &r->results[l];
        expert_types asked;
        MP_TRY(asked_types(r, l, &asked, err));
        out->gate_up_type = dtype_fitting(asked.gate_up, r->split.d);
        out->down_type = dtype_fitting(asked.down, r->split.tile);
    }
    return MP_OK;
}

/* Mean budgets on texts unlike the calibration's come out up to 5 % larger: thresholds aim below the share, so that
 * what is really used is at most the rung's. */
#define THRESHOLD_AIM 0.95

static void choose_ladder(refactor *r)
{
    const double full = moe_full_budget(&r->split);
    for (size_t i = 0; i < LADDER_N_SHARES; i++) {
        double budget = LADDER_SHARES[i] * full;
        if (i && r->p.select == MP_SELECT_THRESHOLD) budget *= THRESHOLD_AIM;
        if (budget < 1) budget = 1;
        if (r->p.select == MP_SELECT_TOPK) budget = (double)(uint32_t)(budget + 0.5);
        if (r->n_points && budget >= r->budgets[r->n_points - 1]) continue; /* few sub-experts: rungs coincide */
        r->budgets[r->n_points++] = budget;
    }
}

static void fill_defaults(refactor *r, const mp_refactor_params *params)
{
    r->p = *params;
    if (!r->p.max_tokens) r->p.max_tokens = DEFAULT_MAX_TOKENS;
    if (!r->p.max_tokens_per_expert) r->p.max_tokens_per_expert = DEFAULT_MAX_PER_EXPERT;
    if (!r->p.max_eval_tokens) r->p.max_eval_tokens = DEFAULT_MAX_EVAL_TOKENS;
    r->ctx = r->p.eval_ctx ? r->p.eval_ctx : DEFAULT_CTX;
    if (r->ctx > r->source->hp.n_ctx) r->ctx = r->source->hp.n_ctx;
}

/* ---- calibration text ---- */

/* Chunks evenly spread over the whole text; every sixteenth is moved behind the others, to judge by. */
static mp_status select_tokens(refactor *r, const int32_t *all, size_t n_all, int32_t bos, mp_error *err)
{
    const size_t ctx = r->ctx, have = n_all / ctx, want = r->p.max_tokens / ctx, n = have < want ? have : want;
    if (n < 2)
        return status_fail(err, MP_E_INVALID,
                           "the calibration text is too short: %zu tokens, at least %zu are needed (--max-tokens %llu)",
                           n_all, 2 * ctx, (unsigned long long)r->p.max_tokens);
    const size_t judges = n < JUDGE_EVERY ? 1 : n / JUDGE_EVERY, every = n / judges;
    size_t fit = 0, judge = n - judges;
    r->n_tokens = n * ctx;
    r->n_fit = (n - judges) * ctx;
    r->tokens = malloc(r->n_tokens * sizeof *r->tokens);
    if (!r->tokens) return status_no_memory(err, r->n_tokens * sizeof *r->tokens, "calibration tokens");
    for (size_t i = 0; i < n; i++) {
        const bool judges_here = i % every == every - 1 && judge < n;
        const size_t to = judges_here ? judge++ : fit++;
        memcpy(r->tokens + to * ctx, all + i * have / n * ctx, ctx * sizeof *all);
        if (bos >= 0) r->tokens[to * ctx] = bos; /* as the judge and every user begins */
    }
    return MP_OK;
}

static mp_status read_calibration(refactor *r, mp_error *err)
{
    size_t n = 0;
    int32_t bos = -1;
    const char *text = r->p.calibration;
    const size_t len = r->p.calibration_len;
    MP_TRY(curve_check_text("calibration", text, len, err));
    if (r->p.eval) MP_TRY(curve_check_text("evaluation", r->p.eval, r->p.eval_len, err));
    int32_t *ids = malloc((len + 1) * sizeof *ids); /* a token is at least a byte */
    if (!ids) return status_no_memory(err, len * sizeof *ids, "calibration tokens");
    mp_status status = mp_tokenize(r->source, text, len, 0, ids, len + 1, &n, err);
    if (!status) status = curve_begin_token(r->source, &bos, err);
    if (!status) status = select_tokens(r, ids, n, bos, err);
    free(ids);
    sha256_hex(text, len, r->calibration_sha);
    return status;
}

/* ---- identity ---- */

static bool tell_hashing(void *user, uint64_t done, uint64_t total)
{
    return refactor_progress(user, "hash", "bytes", done, total, NULL) == MP_OK;
}

/* Counts changes of the method: saved layers of another one are not gone on with. */
enum { METHOD_REVISION = 2 };

static void make_fingerprint(refactor *r)
{
    char text[512];
    const mp_refactor_params *p = &r->p;
    const int n = snprintf(text, sizeof text, "%d %d %s %s %u %d %d %u %d %d %s %zu %u %u %llu", MODEL_ARTIFACT_VERSION,
                           METHOD_REVISION, r->source_sha, r->calibration_sha, p->n_parts, p->solver, p->gate,
                           r->gate_rank, p->select, p->no_gain, p->type ? p->type : "", r->n_tokens,
                           p->max_tokens_per_expert, r->ctx, (unsigned long long)p->seed);
    sha256_hex(text, (size_t)n, r->fingerprint);
}

/* ---- memory ---- */

static mp_status take_memory(refactor *r, mp_error *err)
{
    const size_t n = r->n_tokens, d = r->split.d, k0 = r->split.n_used;
    r->h = malloc(n * d * sizeof *r->h);
    r->x = malloc(n * d * sizeof *r->x);
    r->experts = malloc(n * k0 * sizeof *r->experts);
    r->mix = malloc(n * k0 * sizeof *r->mix);
    if (!r->h || !r->x || !r->experts || !r->mix)
        return status_no_memory(err, 2 * n * (d + k0) * sizeof *r->h,
                                "the calibration tokens' states (lower --max-tokens)");
    for (uint32_t l = r->source->hp.n_dense; l < r->source->hp.n_layers; l++)
        MP_TRY(layer_result_alloc(r, &r->results[l], err));
    const mp_engine_params params = {.threads = r->p.threads, .n_ctx = r->ctx, .n_batch = r->ctx, .n_logits = 1};
    return mp_engine_open(r->source, &params, &r->engine, err);
}

static mp_status open_source(refactor *r, const char *path, mp_error *err)
{
    if (!r->p.force && access(r->out_path, F_OK) == 0)
        return status_fail(err, MP_E_EXISTS, "%s exists already: choose another name or pass --force", r->out_path);
    if (file_same(path, r->out_path))
        return status_fail(err, MP_E_INVALID, "%s is the model itself: choose another name", r->out_path);
    MP_TRY(mp_model_open(path, NULL, &r->source, err));
    if (r->source->info.artifact_version)
        return status_fail(err, MP_E_INVALID, "%s is split already: refactor the original model", path);
    r->results = calloc(r->source->hp.n_layers, sizeof *r->results);
    return r->results ? MP_OK : status_no_memory(err, r->source->hp.n_layers * sizeof *r->results, "layers");
}

mp_status refactor_setup(refactor *r, const char *source, const char *out, const mp_refactor_params *params,
                         mp_error *err)
{
    r->out_path = out;
    r->p.force = params->force;
    MP_TRY(open_source(r, source, err));
    fill_defaults(r, params);
    MP_TRY(choose_split(r, err));
    MP_TRY(choose_gate(r, err));
    MP_TRY(choose_types(r, err));
    choose_ladder(r);
    MP_TRY(read_calibration(r, err));
    refactor_stage(r);
    MP_TRY(source_sha256(r->source->file, tell_hashing, r, r->source_sha, err));
    make_fingerprint(r);
    return take_memory(r, err);
}

void refactor_clear(refactor *r)
{
    for (uint32_t l = 0; r->results && l < r->source->hp.n_layers; l++) layer_result_clear(&r->results[l]);
    free(r->results);
    free(r->tokens);
    free(r->h);
    free(r->x);
    free(r->experts);
    free(r->mix);
    mp_engine_close(r->engine);
    mp_model_close(r->source);
    mp_refactor_report_clear(&r->report);
}
