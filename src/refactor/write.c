/* The artifact (DESIGN 2): the source with every ffn_{gate,up,down}_exps replaced by sub-experts, probes and the
 * neurons' original numbers; the rest is copied bit for bit. One expert at a time is in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "refactor/write.h"

#define NAME_CAP 64

struct artifact {
    refactor *r;
    gguf_writer *w;
    float *buf;     /* layout_scratch */
    uint8_t *bytes; /* one expert's gate/up or down */
};

/* ---- keys ---- */

static bool is_replaced_key(const char *name)
{
    return !strcmp(name, "general.alignment") || !strcmp(name, "general.padding") || !strncmp(name, "moeprism.", 9) ||
           !strncmp(name, "split.", 6);
}

static mp_status copy_keys(const artifact *a, mp_error *err)
{
    const gguf *from = a->r->source->file;
    for (size_t i = 0; i < gguf_n_keys(from); i++) {
        size_t bytes;
        const void *raw = gguf_key_raw(from, i, &bytes);
        if (is_replaced_key(gguf_key_name(from, i))) continue;
        MP_TRY(gguf_set_raw(a->w, gguf_key_name(from, i), gguf_key_type(from, i), raw, bytes, err));
    }
    return MP_OK;
}

static mp_status set_provenance(const artifact *a, mp_error *err)
{
    const refactor *r = a->r;
    gguf_writer *w = a->w;
    MP_TRY(gguf_set_u32(w, LADDER_KEY_VERSION, MODEL_ARTIFACT_VERSION, err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_PARTS, r->split.n_parts, err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_PART_WIDTH, r->split.part_width, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SOLVER, LADDER_SOLVERS[r->p.solver], err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_GATE, LADDER_GATES[r->p.gate], err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_RANK, r->gate_rank, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SELECT, LADDER_SELECTS[r->p.select], err));
    MP_TRY(gguf_set_u64(w, LADDER_KEY_SEED, r->p.seed, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SOURCE, r->source_sha, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_CALIBRATION, r->calibration_sha, err));
    return gguf_set_u64(w, LADDER_KEY_CALIBRATION_TOKENS, r->n_tokens, err);
}

/* keep [n_points]: the points that stay. One float per (point, layer), layers fastest. */
static mp_status set_rungs(const artifact *a, const char *key, const bool *keep,
                           float (*get)(const layer_result *, uint32_t), mp_error *err)
{
    const refactor *r = a->r;
    const uint32_t layers = r->source->hp.n_layers;
    float *values = malloc((size_t)r->n_points * layers * sizeof *values);
    size_t n = 0;
    if (!values) return status_no_memory(err, (size_t)r->n_points * layers * sizeof *values, key);
    for (uint32_t p = 0; p < r->n_points; p++)
        for (uint32_t l = 0; keep[p] && l < layers; l++) values[n++] = get(&r->results[l], p);
    mp_status status = gguf_set_array(a->w, key, GGUF_F32, values, n, err);
    free(values);
    return status;
}

/* Layers without experts have neither. */
static float tau_of(const layer_result *l, uint32_t point)
{
    return l->tau ? l->tau[point] : 0;
}

static float gain_of(const layer_result *l, uint32_t point)
{
    return l->gain ? l->gain[point] : 1;
}

static mp_status set_ladder(const artifact *a, const bool *keep, mp_error *err)
{
    const refactor *r = a->r;
    float budget[LADDER_N_SHARES];
    size_t n = 0;
    for (uint32_t p = 0; p < r->n_points; p++)
        if (keep[p]) budget[n++] = (float)r->budgets[p];
    MP_TRY(gguf_set_array(a->w, LADDER_KEY_BUDGET, GGUF_F32, budget, n, err));
    MP_TRY(set_rungs(a, LADDER_KEY_TAU, keep, tau_of, err));
    return set_rungs(a, LADDER_KEY_GAIN, keep, gain_of, err);
}

/* points [n_points], or NULL for room only. */
static mp_status set_curve(const artifact *a, const bool *keep, const mp_point *points, const char *sha,
                           uint64_t tokens, uint32_t context, mp_error *err)
{
    const refactor *r = a->r;
    MP_TRY(gguf_set_string(a->w, LADDER_KEY_EVAL, sha, err));
    MP_TRY(gguf_set_u64(a->w, LADDER_KEY_EVAL_TOKENS, tokens, err));
    MP_TRY(gguf_set_u32(a->w, LADDER_KEY_EVAL_CONTEXT, context, err));
    for (size_t c = 0; c < LADDER_N_CURVE; c++) {
        float values[LADDER_N_SHARES] = {0};
        size_t n = 0;
        for (uint32_t p = 0; p < r->n_points; p++)
            if (keep[p])
                values[n++] = points ? (float)*(const double *)((const char *)&points[p] + LADDER_CURVE[c].offset) : 0;
        MP_TRY(gguf_set_array(a->w, LADDER_CURVE[c].key, GGUF_F32, values, n, err));
    }
    return MP_OK;
}

/* ---- tensors ---- */

/* The layer of "blk.L.SUFFIX", or -1. */
static int layer_of(const char *name, const char *suffix)
{
    uint32_t layer;
    const char *rest = model_layer_suffix(name, &layer);
    return rest && !strcmp(rest, suffix) ? (int)layer : -1;
}

static mp_status add(const artifact *a, unsigned layer, const char *suffix, int type, uint64_t cols, uint64_t rows,
                     uint64_t mats, mp_error *err)
{
    char name[NAME_CAP];
    const uint64_t dims[3] = {cols, rows, mats};
    const size_t row = type == MODEL_TYPE_I32 ? cols * 4 : dtype_row_bytes(type, cols);
    snprintf(name, sizeof name, "blk.%u.%s", layer, suffix);
    return gguf_add_tensor(a->w, name, type,
                           mats   ? 3
                           : rows ? 2
                                  : 1,
                           dims, row * (rows ? rows : 1) * (mats ? mats : 1), err);
}

/* Everything that takes the place of a layer's experts, in the order write_layer() writes it. */
static mp_status add_layer(const artifact *a, unsigned layer, mp_error *err)
{
    const refactor *r = a->r;
    const moe_shape *s = &r->split;
    const layer_result *l = &r->results[layer];
    const uint64_t subs = refactor_subs(r);
    MP_TRY(add(a, layer, "ffn_gate_up_subs.weight", l->gate_up_type, s->d, 2 * (uint64_t)s->part_width, subs, err));
    MP_TRY(add(a, layer, "ffn_down_subs.weight", l->down_type, s->tile, (uint64_t)s->part_width * moe_tiles(s), subs,
               err));
    if (r->p.gate == MP_GATE_PROBE) {
        if (r->gate_rank) MP_TRY(add(a, layer, "ffn_probe_in.weight", l->probe_in_type, s->d, r->gate_rank, 0, err));
        MP_TRY(add(a, layer, "ffn_probe.weight", l->probe_type, r->gate_rank ? r->gate_rank : s->d, subs, 0, err));
        MP_TRY(add(a, layer, "ffn_probe.bias", DTYPE_F32, subs, 0, 0, err));
    }
    MP_TRY(add(a, layer, "ffn_subs_use.weight", DTYPE_F32, subs, 0, 0, err));
    return add(a, layer, "ffn_perm", MODEL_TYPE_I32, s->width, s->n_experts, 0, err);
}

static mp_status add_tensors(const artifact *a, mp_error *err)
{
    const gguf *from = a->r->source->file;
    for (size_t i = 0; i < gguf_n_tensors(from); i++) {
        const gguf_tensor *t = gguf_tensor_at(from, i);
        const int layer = layer_of(t->name, "ffn_gate_exps.weight");
        if (layer_of(t->name, "ffn_up_exps.weight") >= 0 || layer_of(t->name, "ffn_down_exps.weight") >= 0) continue;
        if (layer >= 0)
            MP_TRY(add_layer(a, (unsigned)layer, err));
        else
            MP_TRY(gguf_add_tensor(a->w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, err));
    }
    return MP_OK;
}

static mp_status write_layer(const artifact *a, uint32_t layer, mp_error *err)
{
    const refactor *r = a->r;
    const layer_result *l = &r->results[layer];
    double error[2];
    for (uint32_t e = 0; e < r->split.n_experts; e++) {
        layout_gate_up(r, layer, e, l->order + (size_t)e * r->split.width, a->buf, a->bytes);
        MP_TRY(gguf_writer_data(a->w, a->bytes, layout_gate_up_bytes(r, layer), err));
    }
    for (uint32_t e = 0; e < r->split.n_experts; e++) {
        layout_down(r, layer, e, l->order + (size_t)e * r->split.width, a->buf, a->bytes, error);
        MP_TRY(gguf_writer_data(a->w, a->bytes, layout_down_bytes(r, layer), err));
    }
    if (r->p.gate == MP_GATE_PROBE) {
        const size_t cols = r->gate_rank ? r->gate_rank : r->split.d, subs = refactor_subs(r);
        if (r->gate_rank)
            MP_TRY(
                gguf_writer_data(a->w, l->probe_in, r->gate_rank * dtype_row_bytes(l->probe_in_type, r->split.d), err));
        MP_TRY(gguf_writer_data(a->w, l->probe, subs * dtype_row_bytes(l->probe_type, cols), err));
        MP_TRY(gguf_writer_data(a->w, l->probe_bias, subs * sizeof *l->probe_bias, err));
    }
    MP_TRY(gguf_writer_data(a->w, l->use, refactor_subs(r) * sizeof *l->use, err));
    return gguf_writer_data(a->w, l->order, (size_t)r->split.n_experts * r->split.width * sizeof *l->order, err);
}

static void release_experts(const mp_model *m, uint32_t layer)
{
    static const char *const SUFFIXES[] = {"ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"};
    char name[NAME_CAP];
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
        snprintf(name, sizeof name, "blk.%u.%s", layer, SUFFIXES[i]);
        gguf_release(m->file, gguf_find_tensor(m->file, name));
    }
}

static mp_status write_tensors(const artifact *a, mp_error *err)
{
    const gguf *from = a->r->source->file;
    uint32_t done = 0;
    refactor_stage(a->r);
    for (size_t i = 0; i < gguf_n_tensors(from); i++) {
        const gguf_tensor *t = gguf_tensor_at(from, i);
        const int layer = layer_of(t->name, "ffn_gate_exps.weight");
        if (layer_of(t->name, "ffn_up_exps.weight") >= 0 || layer_of(t->name, "ffn_down_exps.weight") >= 0) continue;
        if (layer < 0) {
            MP_TRY(gguf_writer_data(a->w, t->data, t->bytes, err));
            gguf_release(from, t);
            continue;
        }
        MP_TRY(write_layer(a, (uint32_t)layer, err));
        release_experts(a->r->source, (uint32_t)layer);
        MP_TRY(refactor_progress(a->r, "write", "layers", ++done, a->r->source->info.n_moe_layers, err));
    }
    return MP_OK;
}

/* ---- stages ---- */

static mp_status begin(artifact *a, mp_error *err)
{
    const refactor *r = a->r;
    bool all[LADDER_N_SHARES];
    size_t most = 0;
    char no_sha[65];
    for (size_t p = 0; p < LADDER_N_SHARES; p++) all[p] = true;
    memset(no_sha, '0', 64);
    no_sha[64] = 0;
    for (uint32_t l = r->source->hp.n_dense; l < r->source->hp.n_layers; l++) {
        if (layout_gate_up_bytes(r, l) > most) most = layout_gate_up_bytes(r, l);
        if (layout_down_bytes(r, l) > most) most = layout_down_bytes(r, l);
    }
    a->buf = malloc(layout_scratch(r) * sizeof *a->buf);
    a->bytes = malloc(most);
    if (!a->buf || !a->bytes) return status_no_memory(err, most, "an expert");
    MP_TRY(gguf_writer_new(4096, &a->w, err));
    MP_TRY(copy_keys(a, err));
    MP_TRY(set_provenance(a, err));
    MP_TRY(set_ladder(a, all, err));
    if (r->p.eval) MP_TRY(set_curve(a, all, NULL, no_sha, 0, 0, err)); /* room for what is measured last */
    MP_TRY(add_tensors(a, err));
    return gguf_writer_begin(a->w, r->out_path, r->p.force, 1, err);
}

mp_status artifact_write(refactor *r, artifact **out, const char **path, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    artifact *a = calloc(1, sizeof *a);
    *out = a;
    if (!a) return status_no_memory(err, sizeof *a, "an artifact");
    a->r = r;
    MP_TRY(begin(a, err));
    MP_TRY(write_tensors(a, err));
    mp_status status = gguf_writer_peek(a->w, path, err);
    r->report.write_s += (double)(clock_now_ns() - start) * 1e-9;
    return status;
}

mp_status artifact_finish(artifact *a, const bool *keep, const mp_point *points, const mp_eval_result *curve,
                          mp_error *err)
{
    MP_TRY(set_ladder(a, keep, err));
    if (curve) MP_TRY(set_curve(a, keep, points, curve->text_sha256, curve->tokens, curve->n_ctx, err));
    MP_TRY(gguf_writer_rewrite_header(a->w, err));
    return gguf_writer_commit(a->w, err);
}

void artifact_free(artifact *a)
{
    if (!a) return;
    gguf_writer_free(a->w);
    free(a->buf);
    free(a->bytes);
    free(a);
}
