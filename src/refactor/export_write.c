/* The tensors of an export, in the order of the source. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "refactor/expert_types.h"
#include "refactor/export.h"

typedef enum export_kind { COPY, ROUTER, ROUTER_BIAS, GATE_UP, DOWN } export_kind;

/* What becomes of "blk.L.SUFFIX". */
static export_kind kind_of(const char *name, uint32_t *layer)
{
    const char *suffix = model_layer_suffix(name, layer);
    static const struct {
        const char *suffix;
        export_kind kind;
    } KINDS[] = {{"ffn_gate_inp.weight", ROUTER},
                 {"exp_probs_b.bias", ROUTER_BIAS},
                 {"ffn_gate_exps.weight", GATE_UP},
                 {"ffn_up_exps.weight", GATE_UP},
                 {"ffn_down_exps.weight", DOWN}};
    for (size_t i = 0; suffix && i < sizeof KINDS / sizeof *KINDS; i++)
        if (!strcmp(suffix, KINDS[i].suffix)) return KINDS[i].kind;
    return COPY;
}

static mp_status asked_type(const export_job *j, export_kind kind, uint32_t layer, int source, dtype *type,
                            mp_error *err)
{
    expert_types asked = {(dtype)source, (dtype)source};
    if (j->p.type) MP_TRY(expert_types_of(j->p.type, layer, j->source->hp.n_layers, &asked, err));
    *type = kind == DOWN ? asked.down : asked.gate_up;
    return MP_OK;
}

/* Width of the rows after the cut: of down matrices the experts', else the model's. */
static uint32_t row_width(const export_job *j, export_kind kind)
{
    return kind == DOWN ? j->width : j->source->hp.n_embd;
}

static mp_status add_experts(export_job *j, const gguf_tensor *t, export_kind kind, uint32_t layer, mp_error *err)
{
    const hparams *hp = &j->source->hp;
    const uint32_t cols = row_width(j, kind), rows = kind == DOWN ? hp->n_embd : j->width;
    const uint64_t dims[] = {cols, rows, (uint64_t)j->n * hp->n_experts};
    dtype type;
    MP_TRY(asked_type(j, kind, layer, t->dtype, &type, err));
    const dtype fitted = dtype_fitting(type, cols);
    if (fitted != type) j->report.widened = true;
    if (kind == DOWN) j->report.down_type = dtype_get(fitted)->name;
    return gguf_add_tensor(j->w, t->name, fitted, 3, dims, dtype_row_bytes(fitted, cols) * rows * dims[2], err);
}

mp_status export_add_tensors(export_job *j, mp_error *err)
{
    const gguf *g = j->source->file;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        uint32_t layer;
        const export_kind kind = kind_of(t->name, &layer);
        const uint64_t router[] = {t->dims[0], t->dims[1] * j->n}, bias[] = {t->dims[0] * j->n};
        if (kind == GATE_UP || kind == DOWN)
            MP_TRY(add_experts(j, t, kind, layer, err));
        else if (kind == ROUTER)
            MP_TRY(gguf_add_tensor(j->w, t->name, t->dtype, 2, router, t->bytes * j->n, err));
        else if (kind == ROUTER_BIAS)
            MP_TRY(gguf_add_tensor(j->w, t->name, t->dtype, 1, bias, t->bytes * j->n, err));
        else
            MP_TRY(gguf_add_tensor(j->w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, err));
    }
    return MP_OK;
}

/* ---- the order of the neurons ---- */

/* ffn_perm of a layer, [C, E]: every expert's neurons, set by set. */
static mp_status layer_order(const export_job *j, uint32_t layer, const int32_t **order, mp_error *err)
{
    const hparams *hp = &j->source->hp;
    char name[64];
    snprintf(name, sizeof name, "blk.%u.ffn_perm", layer);
    const gguf_tensor *t = gguf_find_tensor(j->artifact->file, name);
    if (!t || t->dtype != MODEL_TYPE_I32 || t->dims[0] != hp->expert_width || t->dims[1] != hp->n_experts)
        return status_fail(err, MP_E_FORMAT, "%s: tensor %s is missing or misshapen", j->artifact->info.path, name);
    *order = t->data;
    for (size_t i = 0; i < (size_t)hp->expert_width * hp->n_experts; i++)
        if ((uint32_t)(*order)[i] >= hp->expert_width)
            return status_fail(err, MP_E_FORMAT, "%s: tensor %s names neuron %d of %u", j->artifact->info.path, name,
                               (*order)[i], hp->expert_width);
    return MP_OK;
}

/* ---- data ---- */

static mp_status write_router(export_job *j, const tensor *w, mp_error *err)
{
    for (uint32_t e = 0; e < w->rows; e++)
        for (uint32_t i = 0; i < j->n; i++) MP_TRY(gguf_writer_data(j->w, tensor_row(w, 0, e), w->row_bytes, err));
    return MP_OK;
}

static mp_status write_router_bias(export_job *j, const float *bias, mp_error *err)
{
    for (uint32_t e = 0; e < j->source->hp.n_experts; e++)
        for (uint32_t i = 0; i < j->n; i++) {
            const float value = bias[e] * j->bias_scale;
            MP_TRY(gguf_writer_data(j->w, &value, sizeof value, err));
        }
    return MP_OK;
}

/* Rows move whole where the type stays. */
static mp_status write_gate_up(export_job *j, const tensor *w, dtype type, const int32_t *order, mp_error *err)
{
    const size_t n = (size_t)w->rows * w->mats, bytes = dtype_row_bytes(type, w->cols);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = tensor_row(w, (uint32_t)(i / w->rows), (uint32_t)order[i]);
        if (type != w->type) {
            dtype_to_f32(w->type, row, j->row, w->cols);
            dtype_from_f32(type, j->row, j->bytes, w->cols);
            row = j->bytes;
        }
        MP_TRY(gguf_writer_data(j->w, row, bytes, err));
    }
    return MP_OK;
}

/* One row of one of the new experts: the columns in `order` [width] of row r. */
static mp_status write_down_row(export_job *j, uint32_t r, dtype type, const int32_t *order, mp_error *err)
{
    const float *from = j->down + (size_t)r * j->source->hp.expert_width;
    for (uint32_t c = 0; c < j->width; c++) j->row[c] = from[order[c]] * j->scale;
    dtype_from_f32(type, j->row, j->bytes, j->width);
    dtype_to_f32(type, j->bytes, j->back, j->width);
    for (uint32_t c = 0; c < j->width; c++) {
        const double diff = (double)j->back[c] - (double)j->row[c];
        j->error[0] += diff * diff;
        j->error[1] += (double)j->row[c] * (double)j->row[c];
    }
    return gguf_writer_data(j->w, j->bytes, dtype_row_bytes(type, j->width), err);
}

static mp_status write_down(export_job *j, const tensor *w, dtype type, uint32_t layer, const int32_t *order,
                            mp_error *err)
{
    j->error[0] = j->error[1] = 0;
    for (uint32_t e = 0; e < w->mats; e++) {
        for (uint32_t r = 0; r < w->rows; r++)
            dtype_to_f32(w->type, tensor_row(w, e, r), j->down + (size_t)r * w->cols, w->cols);
        for (uint32_t i = 0; i < j->n; i++)
            for (uint32_t r = 0; r < w->rows; r++)
                MP_TRY(write_down_row(j, r, type, order + (size_t)e * w->cols + (size_t)i * j->width, err));
    }
    const double rmse = j->error[1] > 0 ? sqrt(j->error[0] / j->error[1]) : 0;
    j->report.requant_rmse[layer - j->source->hp.n_dense] = rmse;
    return MP_OK;
}

static mp_status write_tensor(export_job *j, const gguf_tensor *t, mp_error *err)
{
    uint32_t layer = 0;
    const int32_t *order = NULL;
    dtype type;
    const export_kind kind = kind_of(t->name, &layer);
    if (kind == COPY) return gguf_writer_data(j->w, t->data, t->bytes, err);
    const moe_weights *w = &j->source->moe[layer].w;
    if (kind == ROUTER) return write_router(j, &w->router, err);
    if (kind == ROUTER_BIAS) return write_router_bias(j, w->router_bias, err);
    MP_TRY(asked_type(j, kind, layer, t->dtype, &type, err));
    type = dtype_fitting(type, row_width(j, kind));
    MP_TRY(layer_order(j, layer, &order, err));
    if (kind == DOWN) return write_down(j, &w->down, type, layer, order, err);
    return write_gate_up(j, strstr(t->name, "ffn_gate") ? &w->gate : &w->up, type, order, err);
}

mp_status export_write_tensors(export_job *j, mp_error *err)
{
    const gguf *g = j->source->file;
    const size_t n = gguf_n_tensors(g);
    for (size_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        MP_TRY(write_tensor(j, t, err));
        gguf_release(g, t);
        MP_TRY(export_progress(j, "write", "tensors", i + 1, n, err));
    }
    return MP_OK;
}
