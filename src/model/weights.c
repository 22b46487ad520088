/* Tensors by name, each checked against the shape that the hyper-parameters demand before anything points at it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static mp_status bind_row(const mp_model *m, uint32_t layer, const char *suffix, uint32_t n, bool required, tensor *out,
                          mp_error *err)
{
    return bind_layer(m, layer, suffix, (want){n, 1, 1, true}, required, out, err);
}

/* ---- attention ---- */

static mp_status bind_projection(const mp_model *m, uint32_t l, const char *name, uint32_t in, uint32_t out_width,
                                 bool bias, projection *out, mp_error *err)
{
    char suffix[48];
    snprintf(suffix, sizeof suffix, "%s.weight", name);
    MP_TRY(bind_layer(m, l, suffix, (want){in, out_width, 1, false}, true, &out->w, err));
    snprintf(suffix, sizeof suffix, "%s.bias", name);
    return bind_row(m, l, suffix, out_width, bias, &out->bias, err);
}

static mp_status load_queries_keys_values(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    layer_weights *w = &m->layers[l];
    const uint32_t q = hp->n_heads * hp->head_dim, k = hp->n_kv_heads * hp->head_dim;
    const bool per_head = m->arch->qk_norm == ARCH_QK_NORM_HEAD;
    MP_TRY(bind_projection(m, l, "attn_q", hp->n_embd, q, m->arch->qkv_bias, &w->q, err));
    MP_TRY(bind_projection(m, l, "attn_k", hp->n_embd, k, m->arch->qkv_bias, &w->k, err));
    MP_TRY(bind_projection(m, l, "attn_v", hp->n_embd, hp->n_kv_heads * hp->value_dim, m->arch->qkv_bias, &w->v, err));
    if (m->arch->qk_norm == ARCH_QK_NORM_NONE) return MP_OK;
    MP_TRY(bind_row(m, l, "attn_q_norm.weight", per_head ? hp->head_dim : q, true, &w->q_norm, err));
    return bind_row(m, l, "attn_k_norm.weight", per_head ? hp->head_dim : k, true, &w->k_norm, err);
}

static mp_status load_latent(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    layer_weights *w = &m->layers[l];
    const uint32_t nope = hp->head_dim - hp->n_rot, q = hp->n_heads * hp->head_dim;
    if (hp->q_lora) {
        MP_TRY(bind_layer(m, l, "attn_q_a.weight", (want){hp->n_embd, hp->q_lora, 1, false}, true, &w->q_a, err));
        MP_TRY(bind_row(m, l, "attn_q_a_norm.weight", hp->q_lora, true, &w->q_a_norm, err));
        MP_TRY(bind_projection(m, l, "attn_q_b", hp->q_lora, q, false, &w->q, err));
    } else {
        MP_TRY(bind_projection(m, l, "attn_q", hp->n_embd, q, false, &w->q, err));
    }
    MP_TRY(bind_layer(m, l, "attn_kv_a_mqa.weight", (want){hp->n_embd, hp->kv_lora + hp->n_rot, 1, false}, true,
                      &w->kv_a, err));
    MP_TRY(bind_row(m, l, "attn_kv_a_norm.weight", hp->kv_lora, true, &w->kv_a_norm, err));
    MP_TRY(bind_layer(m, l, "attn_kv_b.weight", (want){hp->kv_lora, hp->n_heads * (nope + hp->value_dim), 1, false},
                      false, &w->kv_b, err));
    if (w->kv_b.data) return MP_OK;
    MP_TRY(bind_layer(m, l, "attn_k_b.weight", (want){nope, hp->kv_lora, hp->n_heads, false}, true, &w->k_b, err));
    return bind_layer(m, l, "attn_v_b.weight", (want){hp->kv_lora, hp->value_dim, hp->n_heads, false}, true, &w->v_b,
                      err);
}

static mp_status load_attention(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    layer_weights *w = &m->layers[l];
    MP_TRY(bind_row(m, l, "attn_norm.weight", hp->n_embd, true, &w->attn_norm, err));
    MP_TRY(m->arch->mla ? load_latent(m, l, err) : load_queries_keys_values(m, l, err));
    MP_TRY(bind_projection(m, l, "attn_output", hp->n_heads * hp->value_dim, hp->n_embd, false, &w->o, err));
    return bind_row(m, l, "ffn_norm.weight", hp->n_embd, true, &w->ffn_norm, err);
}

/* ---- feed-forward ---- */

/* suffix "": a dense block; "_shexp": the shared experts, which a model may lack. */
static mp_status load_ffn(mp_model *m, uint32_t l, const char *suffix, uint32_t width, bool required, mp_error *err)
{
    const uint32_t d = m->hp.n_embd;
    ffn_weights *w = &m->layers[l].ffn;
    char name[48];
    snprintf(name, sizeof name, "ffn_gate%s.weight", suffix);
    MP_TRY(bind_layer(m, l, name, (want){d, width, 1, false}, required, &w->gate, err));
    if (!w->gate.data) return MP_OK;
    snprintf(name, sizeof name, "ffn_up%s.weight", suffix);
    MP_TRY(bind_layer(m, l, name, (want){d, w->gate.rows, 1, false}, true, &w->up, err));
    snprintf(name, sizeof name, "ffn_down%s.weight", suffix);
    MP_TRY(bind_layer(m, l, name, (want){w->gate.rows, d, 1, false}, true, &w->down, err));
    if (!*suffix) return MP_OK;
    return bind_layer(m, l, "ffn_gate_inp_shexp.weight", (want){d, 1, 1, false}, m->arch->gated_shared, &w->mix, err);
}

/* Whether the file says that there are shared experts, and how wide they are; 0 where it does not say. */
static bool says_shared(const mp_model *m, uint32_t *width)
{
    char key[64];
    uint32_t count = 0;
    *width = 0;
    snprintf(key, sizeof key, "%s.expert_shared_count", m->arch->name);
    if (gguf_has(m->file, key) && gguf_get_u32(m->file, key, &count, NULL)) count = 0;
    snprintf(key, sizeof key, "%s.expert_shared_feed_forward_length", m->arch->name);
    if (gguf_has(m->file, key) && gguf_get_u32(m->file, key, width, NULL)) *width = 0;
    return count > 0 || *width > 0 || m->arch->gated_shared;
}

static mp_status load_whole(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    moe_weights *w = &m->moe[l].w;
    const want in = {hp->n_embd, hp->expert_width, hp->n_experts, false};
    MP_TRY(bind_layer(m, l, "ffn_gate_exps.weight", in, true, &w->gate, err));
    MP_TRY(bind_layer(m, l, "ffn_up_exps.weight", in, true, &w->up, err));
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

/* Shares, which order sub-experts where something must stay in memory. */
static mp_status load_use(mp_model *m, uint32_t l, mp_error *err)
{
    const uint32_t subs = m->info.n_parts * m->hp.n_experts;
    tensor use = {0};
    MP_TRY(bind_row(m, l, "ffn_subs_use.weight", subs, false, &use, err));
    const float *shares = (const float *)use.data;
    for (uint32_t i = 0; shares && i < subs; i++)
        if (!(shares[i] >= 0 && shares[i] <= 1))
            return status_fail(err, MP_E_FORMAT, "%s: tensor blk.%u.ffn_subs_use.weight holds %g, not a share",
                               gguf_path(m->file), l, (double)shares[i]);
    m->moe[l].w.use = shares;
    return MP_OK;
}

static mp_status load_split(mp_model *m, uint32_t l, mp_error *err)
{
    const moe_shape *s = &m->moe[l].shape;
    moe_weights *w = &m->moe[l].w;
    const uint32_t subs = s->n_parts * s->n_experts, tiles = moe_tiles(s);
    MP_TRY(bind_layer(m, l, "ffn_gate_up_subs.weight", (want){s->d, 2 * s->part_width, subs, false}, true, &w->gate_up,
                      err));
    MP_TRY(bind_layer(m, l, "ffn_down_subs.weight", (want){s->tile, s->part_width * tiles, subs, false}, true,
                      &w->down_t, err));
    MP_TRY(load_use(m, l, err));
    return m->moe[l].gate == MP_GATE_PROBE ? load_probe(m, l, err) : MP_OK;
}

static mp_status load_experts(mp_model *m, uint32_t l, mp_error *err)
{
    const hparams *hp = &m->hp;
    moe_layer *moe = &m->moe[l];
    const uint32_t parts = m->info.n_parts;
    tensor bias = {0};
    moe->number = l - hp->n_dense;
    moe->shape = (moe_shape){
        .d = hp->n_embd,
        .n_experts = hp->n_experts,
        .n_used = hp->n_used,
        .width = hp->expert_width,
        .n_parts = parts,
        .part_width = hp->expert_width / parts,
        .tile = m->info.artifact_version ? moe_tile(hp->n_embd) : 0,
        .routing = hp->routing,
    };
    MP_TRY(bind_layer(m, l, "ffn_gate_inp.weight", (want){hp->n_embd, hp->n_experts, 1, false}, true, &moe->w.router,
                      err));
    MP_TRY(bind_row(m, l, "exp_probs_b.bias", hp->n_experts, false, &bias, err));
    moe->w.router_bias = (const float *)bias.data;
    uint32_t shared_width;
    const bool shared = says_shared(m, &shared_width);
    MP_TRY(load_ffn(m, l, "_shexp", shared_width, shared, err));
    return m->info.artifact_version ? load_split(m, l, err) : load_whole(m, l, err);
}

static mp_status load_layer(mp_model *m, uint32_t l, mp_error *err)
{
    MP_TRY(load_attention(m, l, err));
    return model_has_experts(m, l) ? load_experts(m, l, err) : load_ffn(m, l, "", 0, true, err);
}

const char *model_layer_suffix(const char *name, uint32_t *layer)
{
    char *end;
    if (strncmp(name, "blk.", 4) || name[4] < '0' || name[4] > '9' || (name[4] == '0' && name[5] != '.')) return NULL;
    errno = 0;
    const unsigned long number = strtoul(name + 4, &end, 10);
    if (errno || number > UINT32_MAX || *end != '.') return NULL;
    *layer = (uint32_t)number;
    return end + 1;
}

/* Tensors that nothing would ever read tell that a key is wrong. */
static mp_status check_layers(const mp_model *m, mp_error *err)
{
    for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
        uint32_t layer;
        const char *name = gguf_tensor_at(m->file, i)->name, *suffix = model_layer_suffix(name, &layer);
        if (suffix && layer >= m->hp.n_layers)
            return status_fail(err, MP_E_FORMAT, "%s: tensor %s, but %s.block_count is %u", gguf_path(m->file), name,
                               m->arch->name, m->hp.n_layers);
        if (suffix && !model_has_experts(m, layer) && (strstr(suffix, "_exps.") || strstr(suffix, "_shexp.")))
            return status_fail(err, MP_E_FORMAT, "%s: tensor %s, but %s.leading_dense_block_count is %u",
                               gguf_path(m->file), name, m->arch->name, m->hp.n_dense);
    }
    return MP_OK;
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
    tensor freqs = {0};
    MP_TRY(bind(m, "rope_freqs.weight", (want){hp->n_rot / 2, 1, 1, true}, false, &freqs, err));
    m->rope_freqs = (const float *)freqs.data;
    MP_TRY(check_layers(m, err));
    for (uint32_t l = 0; l < hp->n_layers; l++) MP_TRY(load_layer(m, l, err));
    return MP_OK;
}
