/* A finished layer is kept in a small GGUF under OUT.resume/ until the artifact is complete. A fingerprint over source,
 * calibration text and every setting that matters keeps layers of different runs apart. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "refactor/refactor.h"

#define KEY_FINGERPRINT "resume.fingerprint"
#define KEY_ORDER       "resume.order"
#define KEY_TAU         "resume.tau"
#define KEY_GAIN        "resume.gain"
#define KEY_REPORT      "resume.report"
#define KEY_PROBE       "resume.probe"
#define KEY_PROBE_IN    "resume.probe_in"
#define KEY_PROBE_BIAS  "resume.probe_bias"
#define KEY_USE         "resume.use"

#define PATH_CAP 4096

static mp_status layer_path(const refactor *r, uint32_t layer, char path[PATH_CAP], mp_error *err)
{
    const int n = snprintf(path, PATH_CAP, "%s.resume/layer-%04u.gguf", r->out_path, layer);
    if (n < 0 || n >= PATH_CAP) return status_fail(err, MP_E_INVALID, "%s: the path is too long", r->out_path);
    return MP_OK;
}

/* ---- memory ---- */

static size_t probe_cols(const refactor *r)
{
    return r->gate_rank ? r->gate_rank : r->split.d;
}

static size_t probe_bytes(const refactor *r, const layer_result *l)
{
    return r->p.gate == MP_GATE_PROBE ? refactor_subs(r) * dtype_row_bytes(l->probe_type, probe_cols(r)) : 0;
}

static size_t probe_in_bytes(const refactor *r, const layer_result *l)
{
    return r->p.gate == MP_GATE_PROBE ? r->gate_rank * dtype_row_bytes(l->probe_in_type, r->split.d) : 0;
}

static dtype row_type(size_t cols)
{
    return cols % dtype_get(DTYPE_Q8_0)->block == 0 ? DTYPE_Q8_0 : DTYPE_F16;
}

mp_status layer_result_alloc(const refactor *r, layer_result *l, mp_error *err)
{
    const size_t neurons = (size_t)r->split.n_experts * r->split.width;
    l->probe_type = row_type(probe_cols(r));
    l->probe_in_type = row_type(r->split.d);
    l->order = calloc(neurons, sizeof *l->order);
    l->tau = calloc(r->n_points, sizeof *l->tau);
    l->gain = calloc(r->n_points, sizeof *l->gain);
    l->probe = calloc(1, probe_bytes(r, l) + 1);
    l->probe_in = calloc(1, probe_in_bytes(r, l) + 1);
    l->probe_bias = calloc(refactor_subs(r), sizeof *l->probe_bias);
    l->use = calloc(refactor_subs(r), sizeof *l->use);
    if (l->order && l->tau && l->gain && l->probe && l->probe_in && l->probe_bias && l->use) return MP_OK;
    return status_no_memory(err, neurons * sizeof *l->order, "a layer's result");
}

void layer_result_clear(layer_result *l)
{
    free(l->order);
    free(l->tau);
    free(l->gain);
    free(l->probe);
    free(l->probe_in);
    free(l->probe_bias);
    free(l->use);
    *l = (layer_result){0};
}

/* ---- save ---- */

static mp_status put_layer(gguf_writer *w, const refactor *r, const layer_result *l, mp_error *err)
{
    const size_t neurons = (size_t)r->split.n_experts * r->split.width;
    MP_TRY(gguf_set_string(w, KEY_FINGERPRINT, r->fingerprint, err));
    MP_TRY(gguf_set_array(w, KEY_ORDER, GGUF_U32, l->order, neurons, err));
    MP_TRY(gguf_set_array(w, KEY_TAU, GGUF_F32, l->tau, r->n_points, err));
    MP_TRY(gguf_set_array(w, KEY_GAIN, GGUF_F32, l->gain, r->n_points, err));
    MP_TRY(gguf_set_array(w, KEY_REPORT, GGUF_U8, &l->report, sizeof l->report, err));
    MP_TRY(gguf_set_array(w, KEY_PROBE, GGUF_U8, l->probe, probe_bytes(r, l), err));
    MP_TRY(gguf_set_array(w, KEY_PROBE_IN, GGUF_U8, l->probe_in, probe_in_bytes(r, l), err));
    MP_TRY(gguf_set_array(w, KEY_USE, GGUF_F32, l->use, refactor_subs(r), err));
    return gguf_set_array(w, KEY_PROBE_BIAS, GGUF_F32, l->probe_bias, refactor_subs(r), err);
}

mp_status resume_save(const refactor *r, uint32_t layer, mp_error *err)
{
    char path[PATH_CAP];
    gguf_writer *w;
    MP_TRY(layer_path(r, layer, path, err));
    MP_TRY(gguf_writer_new(32, &w, err));
    mp_status status = put_layer(w, r, &r->results[layer], err);
    if (!status) status = gguf_writer_begin(w, path, true, 0, err);
    if (!status) status = gguf_writer_commit(w, err);
    gguf_writer_free(w);
    return status;
}

/* ---- load ---- */

/* An array of exactly `bytes` bytes after its type and count. */
static bool get_array(const gguf *g, const char *key, void *out, size_t bytes)
{
    const size_t header = sizeof(uint32_t) + sizeof(uint64_t);
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        size_t n;
        if (strcmp(gguf_key_name(g, i), key) || gguf_key_type(g, i) != GGUF_ARRAY) continue;
        const uint8_t *raw = gguf_key_raw(g, i, &n);
        if (n != header + bytes) return false;
        memcpy(out, raw + header, bytes);
        return true;
    }
    return false;
}

/* Each expert's order must be a permutation: it becomes an index. */
static bool is_order(const refactor *r, const uint32_t *order)
{
    const uint32_t c = r->split.width;
    uint8_t *seen = malloc(c);
    bool good = seen != NULL;
    for (uint32_t e = 0; good && e < r->split.n_experts; e++, order += c) {
        memset(seen, 0, c);
        for (uint32_t j = 0; good && j < c; j++) good = order[j] < c && !seen[order[j]]++;
    }
    free(seen);
    return good;
}

/* MP_E_FORMAT: not a layer of this run. */
static mp_status load_layer(const refactor *r, const char *path, layer_result *l, mp_error *err)
{
    const size_t neurons = (size_t)r->split.n_experts * r->split.width;
    gguf *g;
    const char *print = "";
    const gguf_types types = model_types();
    MP_TRY(gguf_open(path, &types, &g, err));
    const bool known = gguf_get_cstring(g, KEY_FINGERPRINT, &print, NULL) == MP_OK && !strcmp(print, r->fingerprint);
    const bool good = known && get_array(g, KEY_ORDER, l->order, neurons * sizeof *l->order) && is_order(r, l->order) &&
                      get_array(g, KEY_TAU, l->tau, r->n_points * sizeof *l->tau) &&
                      get_array(g, KEY_GAIN, l->gain, r->n_points * sizeof *l->gain) &&
                      get_array(g, KEY_REPORT, &l->report, sizeof l->report) &&
                      get_array(g, KEY_PROBE, l->probe, probe_bytes(r, l)) &&
                      get_array(g, KEY_PROBE_IN, l->probe_in, probe_in_bytes(r, l)) &&
                      get_array(g, KEY_USE, l->use, refactor_subs(r) * sizeof *l->use) &&
                      get_array(g, KEY_PROBE_BIAS, l->probe_bias, refactor_subs(r) * sizeof *l->probe_bias);
    gguf_close(g);
    if (good) return MP_OK;
    return status_fail(err, MP_E_FORMAT, "%s belongs to a run with other settings or texts: run without --resume",
                       path);
}

mp_status resume_prepare(refactor *r, uint32_t *n_done, mp_error *err)
{
    char path[PATH_CAP];
    *n_done = r->source->hp.n_dense;
    if (!r->p.resume) resume_remove(r);
    snprintf(path, sizeof path, "%s.resume", r->out_path);
    if (mkdir(path, 0777) && errno != EEXIST) return status_fail_errno(err, errno, "create", path);
    for (; *n_done < r->source->hp.n_layers; ++*n_done) {
        MP_TRY(layer_path(r, *n_done, path, err));
        if (access(path, F_OK)) break;
        MP_TRY(load_layer(r, path, &r->results[*n_done], err));
    }
    return MP_OK;
}

void resume_remove(const refactor *r)
{
    char path[PATH_CAP];
    for (uint32_t l = 0; l < r->source->hp.n_layers; l++)
        if (layer_path(r, l, path, NULL) == MP_OK) unlink(path);
    snprintf(path, sizeof path, "%s.resume", r->out_path);
    rmdir(path);
}
