/* Hyper-parameters from ARCH.* keys. Every number is bounded here, so that products of them cannot overflow later. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"

#define KEY_MAX 160

static const char *key_of(const mp_model *m, const char *suffix, char buf[KEY_MAX])
{
    snprintf(buf, KEY_MAX, "%s.%s", m->arch->name, suffix);
    return buf;
}

static mp_status read_u32(const mp_model *m, const char *suffix, uint32_t min, uint32_t max, uint32_t *out,
                          mp_error *err)
{
    char key[KEY_MAX];
    MP_TRY(gguf_get_u32(m->file, key_of(m, suffix, key), out, err));
    if (*out < min || *out > max)
        return status_fail(err, MP_E_FORMAT, "%s: %s is %u, must be %u to %u", gguf_path(m->file), key, *out, min, max);
    return MP_OK;
}

static mp_status read_u32_or(const mp_model *m, const char *suffix, uint32_t fallback, uint32_t max, uint32_t *out,
                             mp_error *err)
{
    char key[KEY_MAX];
    *out = fallback;
    return gguf_has(m->file, key_of(m, suffix, key)) ? read_u32(m, suffix, 1, max, out, err) : MP_OK;
}

/* A missing number keeps what `out` holds. */
static mp_status read_f32_or(const mp_model *m, const char *suffix, float *out, mp_error *err)
{
    char key[KEY_MAX];
    if (!gguf_has(m->file, key_of(m, suffix, key))) return MP_OK;
    MP_TRY(gguf_get_f32(m->file, key, out, err));
    if (isfinite(*out)) return MP_OK;
    return status_fail(err, MP_E_FORMAT, "%s: %s is not a number", gguf_path(m->file), key);
}

static mp_status read_positive_f32(const mp_model *m, const char *suffix, float *out, mp_error *err)
{
    char key[KEY_MAX];
    MP_TRY(gguf_get_f32(m->file, key_of(m, suffix, key), out, err));
    if (!(*out > 0) || !isfinite(*out))
        return status_fail(err, MP_E_FORMAT, "%s: %s is %g, must be positive", gguf_path(m->file), key, (double)*out);
    return MP_OK;
}

static mp_status read_positive_f32_or(const mp_model *m, const char *suffix, float fallback, float *out, mp_error *err)
{
    char key[KEY_MAX];
    *out = fallback;
    return gguf_has(m->file, key_of(m, suffix, key)) ? read_positive_f32(m, suffix, out, err) : MP_OK;
}

/* Zero and missing mean 1, as llama.cpp writes them. */
static mp_status read_scale(const mp_model *m, const char *suffix, float *out, mp_error *err)
{
    *out = 0;
    MP_TRY(read_f32_or(m, suffix, out, err));
    if (*out == 0) *out = 1;
    return MP_OK;
}

static mp_status read_arch(mp_model *m, mp_error *err)
{
    gguf_string name;
    MP_TRY(gguf_get_string(m->file, "general.architecture", &name, err));
    m->arch = arch_find(name.data, name.len);
    if (!m->arch)
        return status_fail(err, MP_E_UNSUPPORTED, "%s: architecture '%.*s' is not supported (supported: %s)",
                           gguf_path(m->file), (int)(name.len > 64 ? 64 : name.len), name.data, arch_list());
    return MP_OK;
}

/* ---- positions ---- */

static mp_status read_scaling_type(mp_model *m, mp_error *err)
{
    char key[KEY_MAX];
    gguf_string type;
    if (!gguf_has(m->file, key_of(m, "rope.scaling.type", key))) return MP_OK;
    MP_TRY(gguf_get_string(m->file, key, &type, err));
    if (type.len == 4 && !memcmp(type.data, "none", 4)) {
        m->hp.rope.factor = 1;
        return MP_OK;
    }
    if (type.len == 6 && !memcmp(type.data, "linear", 6)) return MP_OK;
    m->hp.rope.yarn = type.len == 4 && !memcmp(type.data, "yarn", 4);
    if (m->hp.rope.yarn) return MP_OK;
    return status_fail(err, MP_E_UNSUPPORTED, "%s: %s '%.*s' is not supported (supported: none, linear, yarn)",
                       gguf_path(m->file), key, (int)(type.len > 32 ? 32 : type.len), type.data);
}

/* Old files have the factor under another name. */
static mp_status read_factor(mp_model *m, mp_error *err)
{
    char key[KEY_MAX];
    const bool old = !gguf_has(m->file, key_of(m, "rope.scaling.factor", key));
    MP_TRY(read_scale(m, old ? "rope.scale_linear" : "rope.scaling.factor", &m->hp.rope.factor, err));
    if (m->hp.rope.factor > 0) return MP_OK;
    return status_fail(err, MP_E_FORMAT, "%s: positions are stretched by %g, must be positive", gguf_path(m->file),
                       (double)m->hp.rope.factor);
}

/* YaRN (arXiv 2309.00071) lengthens the rotated vectors by 1 + 0.1 ln(factor). The DeepSeek family has a multiplier of
 * its own in place of 0.1 and scales the scores by it, queries and keys each. */
static void apply_yarn(hparams *hp, bool latent, float log_multiplier)
{
    rope_params *r = &hp->rope;
    if (r->yarn && r->factor > 1 && !(latent && log_multiplier != 0)) r->magnitude *= 1 + 0.1f * logf(r->factor);
    if (!latent) return;
    const float longer = r->magnitude * (r->yarn ? 1 + log_multiplier * logf(r->factor) : 1);
    hp->attention_scale *= longer * longer;
}

static mp_status read_rope(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    rope_params *r = &hp->rope;
    float log_multiplier = 0;
    MP_TRY(read_positive_f32_or(m, "rope.freq_base", 10000, &r->base, err));
    MP_TRY(read_factor(m, err));
    MP_TRY(read_scaling_type(m, err));
    MP_TRY(read_u32_or(m, "rope.scaling.original_context_length", hp->n_ctx, 1u << 24, &r->n_ctx_orig, err));
    MP_TRY(read_positive_f32_or(m, "rope.scaling.yarn_beta_fast", 32, &r->beta_fast, err));
    MP_TRY(read_positive_f32_or(m, "rope.scaling.yarn_beta_slow", 1, &r->beta_slow, err));
    MP_TRY(read_positive_f32_or(m, "rope.scaling.attn_factor", 1, &r->magnitude, err));
    MP_TRY(read_f32_or(m, "rope.scaling.yarn_log_multiplier", &log_multiplier, err));
    apply_yarn(hp, m->arch->mla, log_multiplier);
    return MP_OK;
}

/* ---- attention ---- */

static mp_status read_latent(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    char key[KEY_MAX];
    MP_TRY(read_u32(m, "attention.kv_lora_rank", 1, 1u << 16, &hp->kv_lora, err));
    hp->q_lora = 0;
    if (gguf_has(m->file, key_of(m, "attention.q_lora_rank", key)))
        MP_TRY(read_u32(m, "attention.q_lora_rank", 0, 1u << 16, &hp->q_lora, err));
    /* files with the absorbed projections keep a head's own sizes under these names */
    MP_TRY(read_u32_or(m, "attention.key_length_mla", hp->head_dim, 4096, &hp->head_dim, err));
    MP_TRY(read_u32_or(m, "attention.value_length_mla", hp->value_dim, 4096, &hp->value_dim, err));
    if (hp->n_rot >= hp->head_dim)
        return status_fail(err, MP_E_FORMAT, "%s: heads of %u leave nothing beside %u rotary elements",
                           gguf_path(m->file), hp->head_dim, hp->n_rot);
    hp->n_kv_heads = 1;
    return MP_OK;
}

/* Scores of far positions are sharpened: hparams_score_scale(). */
static mp_status read_temperature(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    hp->temperature = 0;
    MP_TRY(read_f32_or(m, "attention.temperature_scale", &hp->temperature, err));
    if (hp->temperature == 0) return MP_OK;
    return read_u32(m, "attention.temperature_length", 1, 1u << 24, &hp->temperature_length, err);
}

static mp_status read_attention(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    MP_TRY(read_u32(m, "attention.head_count", 1, 4096, &hp->n_heads, err));
    MP_TRY(read_u32_or(m, "attention.head_count_kv", hp->n_heads, 4096, &hp->n_kv_heads, err));
    if (hp->n_heads % hp->n_kv_heads)
        return status_fail(err, MP_E_FORMAT, "%s: %u heads cannot share %u key-value heads", gguf_path(m->file),
                           hp->n_heads, hp->n_kv_heads);
    MP_TRY(read_u32_or(m, "attention.key_length", hp->n_embd / hp->n_heads, 4096, &hp->head_dim, err));
    MP_TRY(read_u32_or(m, "attention.value_length", hp->head_dim, 4096, &hp->value_dim, err));
    MP_TRY(read_u32_or(m, "rope.dimension_count", hp->head_dim, 4096, &hp->n_rot, err));
    if (m->arch->mla) MP_TRY(read_latent(m, err));
    if (hp->head_dim == 0 || hp->n_rot > hp->head_dim || hp->n_rot % 2)
        return status_fail(err, MP_E_FORMAT, "%s: head dimension %u and rotary dimension %u do not fit together",
                           gguf_path(m->file), hp->head_dim, hp->n_rot);
    hp->attention_scale = 1 / sqrtf((float)hp->head_dim);
    if (m->arch->scales)
        MP_TRY(read_positive_f32_or(m, "attention.scale", hp->attention_scale, &hp->attention_scale, err));
    MP_TRY(read_rope(m, err));
    MP_TRY(read_temperature(m, err));
    return read_positive_f32(m, "attention.layer_norm_rms_epsilon", &hp->rms_eps, err);
}

float hparams_score_scale(const hparams *hp, uint32_t pos)
{
    if (hp->temperature == 0) return hp->attention_scale;
    const uint32_t lengths = pos / hp->temperature_length;
    return hp->attention_scale * (1 + hp->temperature * logf(1 + (float)lengths));
}

static mp_status read_scales(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    hp->embedding_scale = hp->residual_scale = hp->logit_scale = 1;
    if (!m->arch->scales) return MP_OK;
    MP_TRY(read_scale(m, "embedding_scale", &hp->embedding_scale, err));
    MP_TRY(read_scale(m, "residual_scale", &hp->residual_scale, err));
    return read_scale(m, "logit_scale", &hp->logit_scale, err);
}

/* ---- experts ---- */

static mp_status read_groups(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    moe_routing *r = &hp->routing;
    MP_TRY(read_u32_or(m, "expert_group_count", 1, hp->n_experts, &r->n_groups, err));
    MP_TRY(read_u32_or(m, "expert_group_used_count", r->n_groups, r->n_groups, &r->n_groups_used, err));
    if (hp->n_experts % r->n_groups || hp->n_experts / r->n_groups * r->n_groups_used < hp->n_used)
        return status_fail(err, MP_E_FORMAT, "%s: %u experts in %u groups, of which %u run, cannot give %u experts",
                           gguf_path(m->file), hp->n_experts, r->n_groups, r->n_groups_used, hp->n_used);
    return MP_OK;
}

/* GGUF numbers the gating functions 0 unset, 1 softmax, 2 sigmoid, 3 softmax over the chosen logits, which is a
 * renormalised softmax. */
static mp_status read_routing(mp_model *m, mp_error *err)
{
    moe_routing *r = &m->hp.routing;
    char key[KEY_MAX];
    uint32_t gating = 0;
    r->renormalise = m->arch->renormalise;
    if (gguf_has(m->file, key_of(m, "expert_weights_norm", key)))
        MP_TRY(gguf_get_bool(m->file, key, &r->renormalise, err));
    MP_TRY(read_scale(m, "expert_weights_scale", &r->scale, err));
    if (gguf_has(m->file, key_of(m, "expert_gating_func", key))) MP_TRY(gguf_get_u32(m->file, key, &gating, err));
    if (gating > 3)
        return status_fail(err, MP_E_UNSUPPORTED, "%s: %s %u is not supported (supported: 1 softmax, 2 sigmoid)",
                           gguf_path(m->file), key, gating);
    r->gating = gating == 2 ? MOE_GATING_SIGMOID : MOE_GATING_SOFTMAX;
    if (gating == 3) r->renormalise = true;
    return read_groups(m, err);
}

static mp_status read_experts(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    char key[KEY_MAX];
    uint32_t dense;
    if (!gguf_has(m->file, key_of(m, "expert_count", key)))
        return status_fail(err, MP_E_UNSUPPORTED,
                           "%s: the model has no experts (%s is missing); only mixture-of-experts models can run",
                           gguf_path(m->file), key);
    MP_TRY(read_u32(m, "expert_count", 1, 4096, &hp->n_experts, err));
    MP_TRY(read_u32(m, "expert_used_count", 1, hp->n_experts, &hp->n_used, err));
    MP_TRY(read_u32(m, "feed_forward_length", 1, 1u << 20, &dense, err));
    /* Qwen's models without the key give the width of all experts of a token together. */
    const bool together = !strcmp(m->arch->name, "qwen2moe") || !strcmp(m->arch->name, "qwen3moe");
    MP_TRY(read_u32_or(m, "expert_feed_forward_length", together ? dense / hp->n_used : dense, 1u << 20,
                       &hp->expert_width, err));
    hp->n_dense = 0;
    if (gguf_has(m->file, key_of(m, "leading_dense_block_count", key)))
        MP_TRY(read_u32(m, "leading_dense_block_count", 0, hp->n_layers - 1, &hp->n_dense, err));
    return read_routing(m, err);
}

/* The last blocks of such a file draft tokens: they are no layers of the model. */
static mp_status refuse_drafts(const mp_model *m, mp_error *err)
{
    char key[KEY_MAX];
    uint32_t n = 0;
    if (gguf_has(m->file, key_of(m, "nextn_predict_layers", key))) MP_TRY(gguf_get_u32(m->file, key, &n, err));
    if (n == 0) return MP_OK;
    return status_fail(err, MP_E_UNSUPPORTED,
                       "%s: %s is %u: files with blocks that predict further tokens are not supported",
                       gguf_path(m->file), key, n);
}

mp_status hparams_read(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    MP_TRY(read_arch(m, err));
    MP_TRY(refuse_drafts(m, err));
    MP_TRY(read_u32(m, "block_count", 1, 1024, &hp->n_layers, err));
    MP_TRY(read_u32(m, "embedding_length", 1, 1u << 16, &hp->n_embd, err));
    MP_TRY(read_u32(m, "context_length", 1, 1u << 24, &hp->n_ctx, err));
    MP_TRY(read_attention(m, err));
    MP_TRY(read_scales(m, err));
    return read_experts(m, err);
}
