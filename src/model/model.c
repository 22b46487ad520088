/* Opening a model is three checked stages: hyper-parameters, the split and its ladder, the weights. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/rows16.h"

static size_t stored_row_bytes(int type, uint64_t n)
{
    if (type != MODEL_TYPE_I32) return dtype_row_bytes(type, n);
    return n <= SIZE_MAX / sizeof(int32_t) ? n * sizeof(int32_t) : 0;
}

gguf_types model_types(void)
{
    return (gguf_types){.row_bytes = stored_row_bytes, .supported = dtype_list()};
}

static mp_status apply_override(mp_model *m, const mp_model_params *params, mp_error *err)
{
    const uint32_t k = params ? params->override_experts : 0;
    if (k == 0) return MP_OK;
    if (m->info.artifact_version || gguf_has(m->file, "moeprism.version"))
        return status_fail(err, MP_E_INVALID,
                           "%s is split: choose an operating point instead of overriding its experts",
                           gguf_path(m->file));
    if (k > m->hp.n_experts)
        return status_fail(err, MP_E_INVALID, "%s: cannot use %u experts of %u", gguf_path(m->file), k,
                           m->hp.n_experts);
    m->hp.n_used = k;
    return MP_OK;
}

static uint64_t count_params(const gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        n += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    return n;
}

static dtype expert_type(const mp_model *m)
{
    const moe_weights *w = &model_first_moe(m)->w;
    return m->info.artifact_version ? w->gate_up.type : w->gate.type;
}

static void fill_info(mp_model *m)
{
    mp_model_info *info = &m->info;
    const hparams *hp = &m->hp;
    info->path = gguf_path(m->file);
    info->architecture = m->arch->name;
    info->name = "";
    if (gguf_has(m->file, "general.name")) gguf_get_cstring(m->file, "general.name", &info->name, NULL);
    info->type = dtype_get(expert_type(m))->name;
    info->n_layers = hp->n_layers;
    info->n_moe_layers = hp->n_layers - hp->n_dense;
    info->n_embd = hp->n_embd;
    info->n_vocab = hp->n_vocab;
    info->n_ctx_train = hp->n_ctx;
    info->n_heads = hp->n_heads;
    info->n_kv_heads = hp->n_kv_heads;
    info->head_dim = hp->head_dim;
    info->n_experts = hp->n_experts;
    info->n_experts_used = hp->n_used;
    info->expert_width = hp->expert_width;
    info->part_width = hp->expert_width / info->n_parts;
    info->n_params = count_params(m->file);
    info->bytes_total = gguf_file_bytes(m->file);
    for (uint32_t l = 0; l < hp->n_layers; l++) {
        const moe_weights *e = &m->moe[l].w;
        info->bytes_experts += tensor_bytes(&e->gate) + tensor_bytes(&e->up) + tensor_bytes(&e->down);
        info->bytes_experts += tensor_bytes(&e->gate_up) + tensor_bytes(&e->down_t);
    }
}

static void fill_points(mp_model *m)
{
    const double gate = moe_gate_share(model_first_moe(m));
    for (uint32_t p = 0; p < m->info.n_points; p++) {
        m->points[p].experts = m->points[p].compute_share * m->hp.n_used;
        m->points[p].gate_share = p ? gate : 0; /* full needs no gate */
    }
}

/* A model whose tokenizer cannot be used still runs on ids: the reason is kept for who needs the text. */
static mp_status load_tokenizer(mp_model *m, mp_error *err)
{
    const mp_status status = tokenizer_new(m->file, &m->tok, &m->tok_error);
    if (status == MP_E_MEMORY) return status_fail(err, status, "%s", m->tok_error.message);
    if (m->tok && m->hp.n_vocab && tokenizer_n_tokens(m->tok) > m->hp.n_vocab)
        return status_fail(err, MP_E_FORMAT, "%s: the tokenizer has %u tokens, the model only %u", gguf_path(m->file),
                           tokenizer_n_tokens(m->tok), m->hp.n_vocab);
    return MP_OK;
}

static mp_status load_vocabulary(mp_model *m, mp_error *err)
{
    m->info.path = gguf_path(m->file);
    MP_TRY(load_tokenizer(m, err));
    MP_TRY(model_need_tokenizer(m, err));
    m->info.n_vocab = tokenizer_n_tokens(m->tok);
    return MP_OK;
}

/* Kernels gain nothing by copies of types that they do not arrange. */
static bool is_copied(const mp_model *m, mp_weights weights)
{
    if (weights != MP_WEIGHTS_AUTO) return weights == MP_WEIGHTS_COPIED;
    return rows16_type(expert_type(m)) != DTYPE_NONE && m->info.bytes_total <= memory_available("") / 2;
}

static mp_status load(mp_model *m, const mp_model_params *params, mp_error *err)
{
    if (params && params->vocab_only) return load_vocabulary(m, err);
    MP_TRY(hparams_read(m, err));
    MP_TRY(apply_override(m, params, err));
    MP_TRY(ladder_load(m, err));
    MP_TRY(weights_load(m, err));
    fill_info(m);
    fill_points(m);
    m->copied = params && is_copied(m, params->weights);
    return load_tokenizer(m, err);
}

mp_status mp_model_open(const char *path, const mp_model_params *params, mp_model **out, mp_error *err)
{
    *out = NULL;
    mp_model *m = calloc(1, sizeof *m);
    if (!m) return status_no_memory(err, sizeof *m, "a model");
    const gguf_types types = model_types();
    mp_status status = gguf_open(path, &types, &m->file, err);
    if (!status) status = load(m, params, err);
    if (!status) status = residence_new(&m->residence, err);
    if (status) {
        mp_model_close(m);
        return status;
    }
    *out = m;
    return MP_OK;
}

void mp_model_close(mp_model *m)
{
    if (!m) return;
    tokenizer_free(m->tok);
    free(m->layers);
    free(m->moe);
    free(m->rungs);
    free(m->points);
    residence_free(m->residence);
    gguf_close(m->file);
    free(m);
}

const mp_model_info *mp_model_get_info(const mp_model *m)
{
    return &m->info;
}

const mp_point *mp_model_point(const mp_model *m, uint32_t point)
{
    return point < m->info.n_points ? &m->points[point] : NULL;
}
