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

static mp_status read_positive_f32(const mp_model *m, const char *suffix, float *out, mp_error *err)
{
    char key[KEY_MAX];
    MP_TRY(gguf_get_f32(m->file, key_of(m, suffix, key), out, err));
    if (!(*out > 0))
        return status_fail(err, MP_E_FORMAT, "%s: %s is %g, must be positive", gguf_path(m->file), key, (double)*out);
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

static mp_status read_attention(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    char key[KEY_MAX];
    MP_TRY(read_u32(m, "attention.head_count", 1, 4096, &hp->n_heads, err));
    MP_TRY(read_u32_or(m, "attention.head_count_kv", hp->n_heads, 4096, &hp->n_kv_heads, err));
    if (hp->n_heads % hp->n_kv_heads)
        return status_fail(err, MP_E_FORMAT, "%s: %u heads cannot share %u key-value heads", gguf_path(m->file),
                           hp->n_heads, hp->n_kv_heads);
    MP_TRY(read_u32_or(m, "attention.key_length", hp->n_embd / hp->n_heads, 4096, &hp->head_dim, err));
    MP_TRY(read_u32_or(m, "rope.dimension_count", hp->head_dim, 4096, &hp->n_rot, err));
    if (hp->head_dim == 0 || hp->n_rot > hp->head_dim || hp->n_rot % 2)
        return status_fail(err, MP_E_FORMAT, "%s: head dimension %u and rotary dimension %u do not fit together",
                           gguf_path(m->file), hp->head_dim, hp->n_rot);
    hp->rope_base = 10000.0f;
    if (gguf_has(m->file, key_of(m, "rope.freq_base", key)))
        MP_TRY(read_positive_f32(m, "rope.freq_base", &hp->rope_base, err));
    gguf_string scaling;
    if (gguf_has(m->file, key_of(m, "rope.scaling.type", key))) {
        MP_TRY(gguf_get_string(m->file, key, &scaling, err));
        if (scaling.len != 4 || memcmp(scaling.data, "none", 4))
            return status_fail(err, MP_E_UNSUPPORTED, "%s: %s '%.*s' is not supported", gguf_path(m->file), key,
                               (int)(scaling.len > 32 ? 32 : scaling.len), scaling.data);
    }
    return read_positive_f32(m, "attention.layer_norm_rms_epsilon", &hp->rms_eps, err);
}

static mp_status read_experts(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    char key[KEY_MAX];
    if (!gguf_has(m->file, key_of(m, "expert_count", key)))
        return status_fail(err, MP_E_UNSUPPORTED,
                           "%s: the model has no experts (%s is missing); only mixture-of-experts models can run",
                           gguf_path(m->file), key);
    MP_TRY(read_u32(m, "expert_count", 1, 4096, &hp->n_experts, err));
    MP_TRY(read_u32(m, "expert_used_count", 1, hp->n_experts, &hp->n_used, err));
    uint32_t dense;
    MP_TRY(read_u32(m, "feed_forward_length", 1, 1u << 20, &dense, err));
    return read_u32_or(m, "expert_feed_forward_length", dense, 1u << 20, &hp->expert_width, err);
}

mp_status hparams_read(mp_model *m, mp_error *err)
{
    hparams *hp = &m->hp;
    MP_TRY(read_arch(m, err));
    MP_TRY(read_u32(m, "block_count", 1, 1024, &hp->n_layers, err));
    MP_TRY(read_u32(m, "embedding_length", 1, 1u << 16, &hp->n_embd, err));
    MP_TRY(read_u32(m, "context_length", 1, 1u << 24, &hp->n_ctx, err));
    MP_TRY(read_attention(m, err));
    return read_experts(m, err);
}
