/* How the experts are split and which operating points there are: moeprism.* keys of an artifact, or the plain
 * ladder of a whole model (rung p runs k0 - p experts). Runs before the weights are bound: it decides their shape. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/ladder.h"
#include "model/model.h"

const double LADDER_SHARES[LADDER_N_SHARES] = {
    1, .875, .75, .625, .5, .4375, .375, .3125, .25, .21875, .1875, .15625, .125, .09375, .0625,
};
const char *const LADDER_GATES[] = {[MP_GATE_PROBE] = "probe", [MP_GATE_PROXY] = "proxy", [MP_GATE_LINEAR] = "linear"};
const char *const LADDER_SELECTS[] = {[MP_SELECT_THRESHOLD] = "threshold", [MP_SELECT_TOPK] = "topk"};
const char *const LADDER_SOLVERS[] = {
    [MP_SOLVER_BCD] = "bcd", [MP_SOLVER_ANNEAL] = "anneal", [MP_SOLVER_SORT] = "sort"};

static mp_status read_choice(const mp_model *m, const char *key, const char *const *names, int n, int *out,
                             mp_error *err)
{
    const char *value;
    MP_TRY(gguf_get_cstring(m->file, key, &value, err));
    for (int i = 0; i < n; i++)
        if (!strcmp(value, names[i])) {
            *out = i;
            return MP_OK;
        }
    return status_fail(err, MP_E_UNSUPPORTED, "%s: %s '%s' is not known; a newer moeprism may read this file",
                       gguf_path(m->file), key, value);
}

static mp_status read_split(mp_model *m, mp_error *err)
{
    mp_model_info *info = &m->info;
    MP_TRY(gguf_get_u32(m->file, LADDER_KEY_PARTS, &info->n_parts, err));
    if (info->n_parts == 0 || m->hp.expert_width % info->n_parts || info->n_parts > 65535)
        return status_fail(err, MP_E_FORMAT, "%s: %u parts do not divide experts of %u neurons", gguf_path(m->file),
                           info->n_parts, m->hp.expert_width);
    uint64_t subs = (uint64_t)info->n_parts * m->hp.n_experts;
    if (subs > 1u << 20) return status_fail(err, MP_E_LIMIT, "%s: too many sub-experts in a layer", gguf_path(m->file));
    MP_TRY(gguf_get_u32(m->file, LADDER_KEY_RANK, &info->gate_rank, err));
    if (info->gate_rank > m->hp.n_embd)
        return status_fail(err, MP_E_FORMAT, "%s: %s is %u", gguf_path(m->file), LADDER_KEY_RANK, info->gate_rank);
    MP_TRY(gguf_get_cstring(m->file, LADDER_KEY_SOURCE, &info->source_sha256, err));
    MP_TRY(gguf_get_cstring(m->file, LADDER_KEY_CALIBRATION, &info->calibration_sha256, err));
    MP_TRY(gguf_get_u64(m->file, LADDER_KEY_CALIBRATION_TOKENS, &info->calibration_tokens, err));
    return gguf_get_u64(m->file, LADDER_KEY_SEED, &info->seed, err);
}

/* One F32 array of exactly n numbers. */
static mp_status read_floats(const mp_model *m, const char *key, size_t n, float **out, mp_error *err)
{
    size_t got;
    MP_TRY(gguf_get_f32s(m->file, key, out, &got, err));
    if (got == n) return MP_OK;
    free(*out);
    *out = NULL;
    return status_fail(err, MP_E_FORMAT, "%s: %s holds %zu numbers, expected %zu", gguf_path(m->file), key, got, n);
}

static mp_status alloc_points(mp_model *m, uint32_t n, mp_error *err)
{
    const size_t rungs = (size_t)n * m->hp.n_layers;
    m->info.n_points = n;
    m->points = calloc(n, sizeof *m->points);
    m->rungs = calloc(rungs, sizeof *m->rungs);
    if (!m->points || !m->rungs) return status_no_memory(err, rungs * sizeof *m->rungs, "the ladder");
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        m->moe[l].rungs = m->rungs + (size_t)l * n;
        m->moe[l].n_rungs = n;
    }
    return MP_OK;
}

static mp_status whole_ladder(mp_model *m, mp_error *err)
{
    const uint32_t k0 = m->hp.n_used;
    MP_TRY(alloc_points(m, k0, err));
    for (uint32_t p = 0; p < k0; p++) {
        const double k = k0 - p;
        m->points[p] = (mp_point){.budget = k, .compute_share = k / k0, .experts = k};
        for (uint32_t l = 0; l < m->hp.n_layers; l++) m->rungs[(size_t)l * k0 + p] = moe_rung_for_budget(k, k0);
    }
    return MP_OK;
}

static mp_status split_rungs(mp_model *m, const float *budget, const float *tau, const float *gain, mp_error *err)
{
    const uint32_t n = m->info.n_points, full = m->info.n_parts * m->hp.n_used;
    for (uint32_t p = 0; p < n; p++) {
        if (!(budget[p] > 0) || budget[p] > (float)full || (p == 0 && budget[0] != (float)full))
            return status_fail(err, MP_E_FORMAT, "%s: operating point %u has budget %g of %u", gguf_path(m->file), p,
                               (double)budget[p], full);
        m->points[p].budget = (double)budget[p];
        m->points[p].compute_share = (double)budget[p] / full; /* until the measured one is read */
        for (uint32_t l = 0; l < m->hp.n_layers; l++) {
            moe_rung *r = &m->rungs[(size_t)l * n + p];
            const size_t at = (size_t)p * m->hp.n_layers + l;
            *r = moe_rung_for_budget((double)budget[p], full);
            if (!(tau[at] >= 0) || !(gain[at] > 0))
                return status_fail(err, MP_E_FORMAT,
                                   "%s: operating point %u, layer %u: threshold %g or gain %g is out of range",
                                   gguf_path(m->file), p, l, (double)tau[at], (double)gain[at]);
            r->log_tau = p == 0 ? -INFINITY : logf(tau[at]);
            r->gain = p == 0 ? 1 : gain[at];
        }
    }
    return MP_OK;
}

static mp_status split_ladder(mp_model *m, mp_error *err)
{
    enum gguf_type type;
    size_t n;
    float *budget = NULL, *tau = NULL, *gain = NULL;
    MP_TRY(gguf_array_len(m->file, LADDER_KEY_BUDGET, &type, &n, err));
    if (n == 0 || n > LADDER_MAX_POINTS)
        return status_fail(err, MP_E_FORMAT, "%s: %s holds %zu operating points", gguf_path(m->file), LADDER_KEY_BUDGET,
                           n);
    MP_TRY(alloc_points(m, (uint32_t)n, err));
    mp_status status = read_floats(m, LADDER_KEY_BUDGET, n, &budget, err);
    if (!status) status = read_floats(m, LADDER_KEY_TAU, n * m->hp.n_layers, &tau, err);
    if (!status) status = read_floats(m, LADDER_KEY_GAIN, n * m->hp.n_layers, &gain, err);
    if (!status) status = split_rungs(m, budget, tau, gain, err);
    free(budget);
    free(tau);
    free(gain);
    return status;
}

/* The measured curve; an artifact made without evaluation text has none. */
static mp_status read_curve(mp_model *m, mp_error *err)
{
    mp_model_info *info = &m->info;
    if (!gguf_has(m->file, LADDER_KEY_EVAL)) return MP_OK;
    MP_TRY(gguf_get_cstring(m->file, LADDER_KEY_EVAL, &info->eval_sha256, err));
    MP_TRY(gguf_get_u64(m->file, LADDER_KEY_EVAL_TOKENS, &info->eval_tokens, err));
    MP_TRY(gguf_get_u32(m->file, LADDER_KEY_EVAL_CONTEXT, &info->eval_context, err));
    for (size_t c = 0; c < LADDER_N_CURVE; c++) {
        float *values;
        MP_TRY(read_floats(m, LADDER_CURVE[c].key, info->n_points, &values, err));
        for (uint32_t p = 0; p < info->n_points; p++) {
            double *field = (double *)((char *)&m->points[p] + LADDER_CURVE[c].offset);
            *field = (double)values[p];
            m->points[p].measured = true;
        }
        free(values);
    }
    return MP_OK;
}

const ladder_curve LADDER_CURVE[LADDER_N_CURVE] = {
    {"moeprism.ladder.compute_share", offsetof(mp_point, compute_share)},
    {"moeprism.ladder.perplexity", offsetof(mp_point, ppl)},
    {"moeprism.ladder.perplexity_se", offsetof(mp_point, ppl_se)},
    {"moeprism.ladder.kl_mean", offsetof(mp_point, kl_mean)},
    {"moeprism.ladder.kl_p99", offsetof(mp_point, kl_p99)},
    {"moeprism.ladder.same_top", offsetof(mp_point, same_top)},
};

static mp_status load_artifact(mp_model *m, mp_error *err)
{
    int gate = 0, select = 0, solver = 0;
    uint32_t version;
    MP_TRY(gguf_get_u32(m->file, LADDER_KEY_VERSION, &version, err));
    if (version == 0 || version > MODEL_ARTIFACT_VERSION)
        return status_fail(err, MP_E_UNSUPPORTED,
                           "%s: artifact version %u; this moeprism reads up to %u: use a newer one or refactor again",
                           gguf_path(m->file), version, MODEL_ARTIFACT_VERSION);
    m->info.artifact_version = version;
    MP_TRY(read_choice(m, LADDER_KEY_GATE, LADDER_GATES, 3, &gate, err));
    MP_TRY(read_choice(m, LADDER_KEY_SELECT, LADDER_SELECTS, 2, &select, err));
    MP_TRY(read_choice(m, LADDER_KEY_SOLVER, LADDER_SOLVERS, 3, &solver, err));
    MP_TRY(read_split(m, err));
    m->info.gate = LADDER_GATES[gate];
    m->info.select = LADDER_SELECTS[select];
    m->info.solver = LADDER_SOLVERS[solver];
    if (gate == MP_GATE_PROXY && (m->info.gate_rank == 0 || m->info.gate_rank > m->hp.expert_width / m->info.n_parts))
        return status_fail(err, MP_E_FORMAT, "%s: %u gate neurons in sets of %u", gguf_path(m->file), m->info.gate_rank,
                           m->hp.expert_width / m->info.n_parts);
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        m->moe[l].gate = (mp_gate)gate;
        m->moe[l].select = (mp_select)select;
        m->moe[l].proxy_neurons = m->info.gate_rank;
    }
    MP_TRY(split_ladder(m, err));
    return read_curve(m, err);
}

mp_status ladder_load(mp_model *m, mp_error *err)
{
    m->moe = calloc(m->hp.n_layers, sizeof *m->moe);
    if (!m->moe) return status_no_memory(err, m->hp.n_layers * sizeof *m->moe, "layers");
    if (gguf_has(m->file, LADDER_KEY_VERSION)) return load_artifact(m, err);
    m->info.n_parts = 1;
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        m->moe[l].gate = MP_GATE_LINEAR;
        m->moe[l].select = MP_SELECT_TOPK;
    }
    return whole_ladder(m, err);
}
