/* The offline engine from end to end: layers one after the other, then the artifact, then what it is worth. */
#include "refactor/refactor.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "refactor/curve.h"
#include "refactor/setup.h"
#include "refactor/write.h"

/* Tokens that decide whether a gain stays. */
#define JUDGE_TOKENS 4096

/* ---- progress ---- */

void refactor_stage(refactor *r)
{
    r->stage_start = clock_now_ns();
}

mp_status refactor_progress(refactor *r, const char *stage, const char *unit, uint64_t done, uint64_t total,
                            mp_error *err)
{
    const mp_progress progress = {
        .stage = stage,
        .unit = unit,
        .done = done,
        .total = total,
        .elapsed_ns = clock_now_ns() - r->stage_start,
        .layer = r->in_layers ? (int)r->layer : -1,
        .n_layers = (int)r->source->hp.n_layers,
    };
    if (!r->p.progress || r->p.progress(r->p.user, &progress)) return MP_OK;
    return status_fail(err, MP_E_INTERRUPTED,
                       "interrupted in layer %u of %u; finished layers are kept: go on with --resume", r->layer + 1,
                       r->source->hp.n_layers);
}

/* ---- layers ---- */

/* The source may be larger than memory: what has been used of it goes. */
static void release_layer(const refactor *r, uint32_t layer)
{
    const gguf *g = r->source->file;
    char prefix[32];
    const size_t len = (size_t)snprintf(prefix, sizeof prefix, "blk.%u.", layer);
    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        if (!strncmp(gguf_tensor_at(g, i)->name, prefix, len)) gguf_release(g, gguf_tensor_at(g, i));
}

static mp_status refactor_experts(refactor *r, mp_error *err)
{
    MP_TRY(split_layer(r, &r->results[r->layer], err));
    MP_TRY(calibrate_layer(r, &r->results[r->layer], err));
    return resume_save(r, r->layer, err);
}

static mp_status refactor_layers(refactor *r, mp_error *err)
{
    uint32_t done; /* layers, the dense ones that lead included */
    MP_TRY(resume_prepare(r, &done, err));
    MP_TRY(profile_start(r, err));
    r->in_layers = true;
    for (r->layer = 0; r->layer < r->source->hp.n_layers; r->layer++) {
        const bool last = r->layer + 1 == r->source->hp.n_layers;
        if (r->layer < done && done == r->source->hp.n_layers) continue; /* nothing left to profile for */
        MP_TRY(profile_attention(r, err));
        if (r->layer >= done) MP_TRY(refactor_experts(r, err));
        if (!last) MP_TRY(profile_advance(r, err));
        release_layer(r, r->layer);
    }
    r->in_layers = false;
    return MP_OK;
}

/* ---- what it is worth ---- */

static void all_points(const refactor *r, uint32_t *points)
{
    for (uint32_t p = 0; p < r->n_points; p++) points[p] = p;
}

static mp_status judge(refactor *r, const mp_model *m, mp_eval_result *out, mp_error *err)
{
    uint32_t points[LADDER_N_SHARES];
    size_t n = r->n_tokens - r->n_fit;
    if (n > JUDGE_TOKENS && r->ctx <= JUDGE_TOKENS) n = JUDGE_TOKENS / r->ctx * r->ctx;
    all_points(r, points);
    const curve_params params = {
        .tokens = r->tokens + r->n_fit,
        .n_tokens = n,
        .n_ctx = r->ctx,
        .bos = -1,
        .points = points,
        .n_points = r->n_points,
        .threads = r->p.threads,
        .stage = "judge gains",
        .progress = r->p.progress,
        .user = r->p.user,
    };
    return curve_measure(m, &params, out, err);
}

/* A point keeps its gains where they bring it nearer to the full model on tokens that nothing was fitted on. */
static mp_status judge_gains(refactor *r, mp_model *m, mp_error *err)
{
    mp_eval_result with = {0}, without = {0};
    const size_t n = (size_t)m->hp.n_layers * r->n_points;
    if (r->p.no_gain || r->n_points < 2) return MP_OK;
    mp_status status = judge(r, m, &with, err);
    for (size_t i = 0; i < n; i++) m->rungs[i].gain = 1;
    if (!status) status = judge(r, m, &without, err);
    for (uint32_t p = 1; p < r->n_points && !status; p++) {
        const bool keep = with.points[p].kl_mean < without.points[p].kl_mean;
        r->report.heldout_kl_gain += with.points[p].kl_mean / (r->n_points - 1);
        r->report.heldout_kl_no_gain += without.points[p].kl_mean / (r->n_points - 1);
        for (uint32_t l = m->hp.n_dense; l < m->hp.n_layers; l++) {
            if (!keep) r->results[l].gain[p] = 1;
            m->rungs[(size_t)l * r->n_points + p].gain = r->results[l].gain[p];
        }
    }
    mp_eval_result_clear(&with);
    mp_eval_result_clear(&without);
    return status;
}

static mp_status measure_curve(refactor *r, const mp_model *m, mp_eval_result *out, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    const mp_eval_params params = {
        .text = r->p.eval,
        .len = r->p.eval_len,
        .n_ctx = r->ctx,
        .max_tokens = r->p.max_eval_tokens,
        .threads = r->p.threads,
        .progress = r->p.progress,
        .user = r->p.user,
    };
    MP_TRY(mp_eval(m, &params, out, err));
    r->report.curve_s = (double)(clock_now_ns() - start) * 1e-9;
    r->report.eval_tokens = out->tokens;
    return MP_OK;
}

static bool dominates(const mp_eval_point *a, const mp_eval_point *b)
{
    return a->compute_share < b->compute_share && a->ppl <= b->ppl && a->kl_mean <= b->kl_mean;
}

/* A point that is dearer than another and worse in perplexity and in KL goes; full always stays. */
static void prune(const mp_eval_result *curve, bool *keep)
{
    for (size_t p = 1; p < curve->n_points; p++)
        for (size_t q = 1; q < curve->n_points; q++)
            if (dominates(&curve->points[q], &curve->points[p])) keep[p] = false;
}

static void to_points(const mp_eval_result *curve, mp_point *points)
{
    for (size_t p = 0; p < curve->n_points; p++) {
        const mp_eval_point *e = &curve->points[p];
        points[p] = (mp_point){
            .compute_share = e->compute_share,
            .ppl = e->ppl,
            .ppl_se = e->ppl_se,
            .kl_mean = e->kl_mean,
            .kl_p99 = e->kl_p99,
            .same_top = e->same_top,
        };
    }
}

static mp_status finish(refactor *r, artifact *a, const char *path, mp_error *err)
{
    mp_model *m = NULL;
    mp_eval_result curve = {0};
    mp_point points[LADDER_N_SHARES];
    bool keep[LADDER_N_SHARES];
    memset(keep, true, sizeof keep);
    mp_status status = mp_model_open(path, &(mp_model_params){.weights = MP_WEIGHTS_AUTO}, &m, err);
    if (!status) status = judge_gains(r, m, err);
    if (!status && r->p.eval) status = measure_curve(r, m, &curve, err);
    if (!status && r->p.eval) {
        prune(&curve, keep);
        to_points(&curve, points);
    }
    mp_model_close(m);
    if (!status) status = artifact_finish(a, keep, points, r->p.eval ? &curve : NULL, err);
    mp_eval_result_clear(&curve);
    if (!status) status = mp_model_open(r->out_path, NULL, &m, err); /* what was written can be read */
    if (!status) mp_model_close(m);
    return status;
}

/* ---- report ---- */

static mp_status fill_report(refactor *r, uint64_t start, mp_refactor_report *out, mp_error *err)
{
    struct rusage usage;
    const uint32_t dense = r->source->hp.n_dense, n = r->source->hp.n_layers - dense;
    getrusage(RUSAGE_SELF, &usage);
    *out = r->report;
    out->calibration_tokens = r->n_tokens;
    out->validation_tokens = r->n_tokens - r->n_fit;
    out->peak_rss = (uint64_t)usage.ru_maxrss * 1024;
    out->total_s = (double)(clock_now_ns() - start) * 1e-9;
    out->n_layers = n;
    out->layers = malloc(n * sizeof *out->layers);
    if (!out->layers) return status_no_memory(err, n * sizeof *out->layers, "the report");
    for (uint32_t l = 0; l < n; l++) out->layers[l] = r->results[dense + l].report;
    return MP_OK;
}

void mp_refactor_report_clear(mp_refactor_report *report)
{
    free(report->layers);
    *report = (mp_refactor_report){0};
}

mp_status mp_refactor(const char *source, const char *out, const mp_refactor_params *params, mp_refactor_report *report,
                      mp_error *err)
{
    const uint64_t start = clock_now_ns();
    refactor r = {0};
    artifact *a = NULL;
    const char *path = NULL;
    openblas_set_num_threads(1); /* experts are spread over our own threads */
    mp_status status = refactor_setup(&r, source, out, params, err);
    if (!status) status = refactor_layers(&r, err);
    if (!status) status = artifact_write(&r, &a, &path, err);
    if (!status) status = finish(&r, a, path, err);
    artifact_free(a);
    if (!status) resume_remove(&r);
    if (!status && report) status = fill_report(&r, start, report, err);
    refactor_clear(&r);
    return status;
}
