/* Tensors by name, each checked against the shape that the hyper-parameters demand before anything points at it. */
#include <stdio.h>
#include <stdlib.h>

#include "model/model.h"

typedef struct want {
    uint32_t cols, rows, mats; /* 0: whatever the file says, at least 1 */
    bool f32;                  /* norms, biases, routers */
} want;

static mp_status check_dims(const mp_model *m, const gguf_tensor *g, want w, tensor *out, mp_error *err)
{
    for (int i = 0; i < GGUF_MAX_DIMS; i++)
        if (g->dims[i] == 0 || g->dims[i] > UINT32_MAX || (i == 3 && g->dims[3] != 1))
            return status_fail(err, MP_E_FORMAT, "%s: tensor %s has an unusable shape", gguf_path(m->file), g->name);
    out->cols = (uint32_t)g->dims[0];
    out->rows = (uint32_t)g->dims[1];
    out->mats = (uint32_t)g->dims[2];
    if ((w.cols && out->cols != w.cols) || (w.rows && out->rows != w.rows) || (w.mats && out->mats != w.mats))
        return status_fail(err, MP_E_FORMAT, "%s: tensor %s is [%u, %u, %u], expected [%u, %u, %u]", gguf_path(m->file),
                           g->name, out->cols, out->rows, out->mats, w.cols, w.rows, w.mats);
    return MP_OK;
}

static mp_status bind(const mp_model *m, const char *name, want w, bool required, tensor *out, mp_error *err)
{
    const gguf_tensor *g = gguf_find_tensor(m->file, name);
    if (!g) {
        if (!required) return MP_OK;
        return status_fail(err, MP_E_FORMAT, "%s: tensor %s is missing; is the file complete?", gguf_path(m->file),
                           name);
    }
    const dtype_traits *traits = dtype_get(g->dtype);
    if (!traits || (w.f32 && traits->type != DTYPE_F32))
        return status_fail(err, MP_E_UNSUPPORTED, "%s: tensor %s has type %d, supported here: %s", gguf_path(m->file),
                           name, g->dtype, w.f32 ? "F32" : dtype_list());
    tensor t = {.type = traits->type, .data = g->data};
    MP_TRY(check_dims(m, g, w, &t, err));
    t.row_bytes = dtype_row_bytes(t.type, t.cols);
    if (t.row_bytes == 0)
        return status_fail(err, MP_E_FORMAT, "%s: rows of tensor %s (%u) are not whole blocks of %s",
                           gguf_path(m->file), name, t.cols, traits->name);
    *out = t;
    return MP_OK;
}

static mp_status bind_layer(const mp_model *m, uint32_t layer, const char *suffix, want w, bool required, tensor *out,
                            mp_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s", layer, suffix);
    return bind(m, name, w, required, out, err);
}

static mp_status load_attention(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    const uint32_t q = hp->n_heads * hp->head_dim, kv = hp->n_kv_heads * hp->head_dim;
    layer_weights *w = &m->layers[l];
    MP_TRY(bind_layer(m, l, "attn_norm.weight", (want){hp->n_embd, 1, 1, true}, true, &w->attn_norm, err));
    MP_TRY(bind_layer(m, l, "attn_q.weight", (want){hp->n_embd, q, 1, false}, true, &w->wq, err));
    MP_TRY(bind_layer(m, l, "attn_k.weight", (want){hp->n_embd, kv, 1, false}, true, &w->wk, err));
    MP_TRY(bind_layer(m, l, "attn_v.weight", (want){hp->n_embd, kv, 1, false}, true, &w->wv, err));
    MP_TRY(bind_layer(m, l, "attn_output.weight", (want){q, hp->n_embd, 1, false}, true, &w->wo, err));
    if (m->arch->qk_norm == ARCH_QK_NORM_FULL) {
        MP_TRY(bind_layer(m, l, "attn_q_norm.weight", (want){q, 1, 1, true}, true, &w->q_norm, err));
        MP_TRY(bind_layer(m, l, "attn_k_norm.weight", (want){kv, 1, 1, true}, true, &w->k_norm, err));
    }
    return bind_layer(m, l, "ffn_norm.weight", (want){hp->n_embd, 1, 1, true}, true, &w->ffn_norm, err);
}

static mp_status load_whole(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    moe_weights *w = &m->moe[l].w;
    const want in = {hp->n_embd, hp->expert_width, hp->n_experts, false};
    MP_TRY(bind_layer(m, l, "ffn_gate_exps.weight", in, true, &w->gate, err));
    MP_TRY(bind_layer(m, l, "ffn_up_exps.weight", in, true, &w->up, err));
    if (w->gate.type != w->up.type)
        return status_fail(err, MP_E_UNSUPPORTED, "%s: gate and up experts of layer %u have different types",
                           gguf_path(m->file), l);
    return bind_layer(m, l, "ffn_down_exps.weight", (want){hp->expert_width, hp->n_embd, hp->n_experts, false}, true,
                      &w->down, err);
}

static mp_status load_probe(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    moe_weights *w = &m->moe[l].w;
    const uint32_t subs = m->info.n_parts * hp->n_experts;
    tensor bias = {0};
    MP_TRY(bind_layer(m, l, "ffn_probe_in.weight", (want){hp->n_embd, 0, 1, false}, false, &w->probe_in, err));
    const uint32_t in = w->probe_in.data ? w->probe_in.rows : hp->n_embd;
    MP_TRY(bind_layer(m, l, "ffn_probe.weight", (want){in, subs, 1, false}, true, &w->probe, err));
    MP_TRY(bind_layer(m, l, "ffn_probe.bias", (want){subs, 1, 1, true}, true, &bias, err));
    w->probe_bias = (const float *)bias.data;
    return MP_OK;
}

static mp_status load_split(mp_model *m, uint32_t l, mp_error *err)
{
    const moe_shape *s = &m->moe[l].shape;
    moe_weights *w = &m->moe[l].w;
    const uint32_t subs = s->n_parts * s->n_experts, tiles = s->d / s->tile;
    MP_TRY(bind_layer(m, l, "ffn_gate_up_subs.weight", (want){s->d, 2 * s->part_width, subs, false}, true, &w->gate_up,
                      err));
    MP_TRY(bind_layer(m, l, "ffn_down_subs.weight", (want){s->tile, s->part_width * tiles, subs, false}, true,
                      &w->down_t, err));
    return m->moe[l].gate == MP_GATE_PROBE ? load_probe(m, l, err) : MP_OK;
}

static mp_status load_layer(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    moe_layer *moe = &m->moe[l];
    const uint32_t parts = m->info.n_parts;
    moe->shape = (moe_shape){
        .d = hp->n_embd,
        .n_experts = hp->n_experts,
        .n_used = hp->n_used,
        .width = hp->expert_width,
        .n_parts = parts,
        .part_width = hp->expert_width / parts,
        .tile = m->info.artifact_version ? moe_tile(hp->n_embd) : 0,
        .renormalise = m->arch->renormalise,
    };
    MP_TRY(load_attention(m, l, err));
    MP_TRY(
        bind_layer(m, l, "ffn_gate_inp.weight", (want){hp->n_embd, hp->n_experts, 1, true}, true, &moe->w.router, err));
    return m->info.artifact_version ? load_split(m, l, err) : load_whole(m, l, err);
}

mp_status weights_load(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    m->layers = calloc(hp->n_layers, sizeof *m->layers);
    if (!m->layers) return status_no_memory(err, hp->n_layers * sizeof *m->layers, "layers");
    MP_TRY(bind(m, "token_embd.weight", (want){hp->n_embd, 0, 1, false}, true, &m->embed, err));
    hp->n_vocab = m->embed.rows;
    if (hp->n_vocab > 1u << 24)
        return status_fail(err, MP_E_LIMIT, "%s: a vocabulary of %u is too large", gguf_path(m->file), hp->n_vocab);
    MP_TRY(bind(m, "output_norm.weight", (want){hp->n_embd, 1, 1, true}, true, &m->output_norm, err));
    MP_TRY(bind(m, "output.weight", (want){hp->n_embd, hp->n_vocab, 1, false}, false, &m->output, err));
    if (!m->output.data) m->output = m->embed; /* tied */
    for (uint32_t l = 0; l < hp->n_layers; l++) MP_TRY(load_layer(m, l, err));
    return MP_OK;
}
