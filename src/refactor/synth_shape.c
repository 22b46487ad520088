/* The shapes of published models, and the keys their conversions carry. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ladder.h"
#include "model/model.h"
#include "refactor/synth.h"

static const synth_shape SHAPES[] = {
    {
        .like = "olmoe-1b-7b",
        .arch = "olmoe",
        .name = "Synthetic OLMoE 1B 7B",
        .n_layers = 16,
        .d = 2048,
        .n_heads = 16,
        .n_kv_heads = 16,
        .context = 4096,
        .n_vocab = 50304,
        .head_dim = 128,
        .value_dim = 128,
        .n_experts = 64,
        .n_used = 8,
        .width = 1024,
        .ffn = 1024,
        .q_norm = 2048,
        .k_norm = 2048,
        .rope_base = 10000.0f,
        .rms_eps = 1e-5f,
        .pre = "olmo",
        .n_text = 50279,
        .bos = -1,
        .eos = 50279,
        .pad = 50280,
    },
    {
        .like = "qwen3-30b-a3b",
        .arch = "qwen3moe",
        .name = "Synthetic Qwen3 30B A3B",
        .n_layers = 48,
        .d = 2048,
        .n_heads = 32,
        .n_kv_heads = 4,
        .context = 40960,
        .n_vocab = 151936,
        .head_dim = 128,
        .value_dim = 128,
        .head_dim_key = true,
        .n_experts = 128,
        .n_used = 8,
        .width = 768,
        .ffn = 6144,
        .q_norm = 128,
        .k_norm = 128,
        .rope_base = 1e6f,
        .rms_eps = 1e-6f,
        .pre = "qwen2",
        .n_text = 151643,
        .bos = 151643,
        .eos = 151645,
        .pad = 151643,
    },
    {
        .like = "deepseek-v2-lite",
        .arch = "deepseek2",
        .name = "Synthetic DeepSeek V2 Lite",
        .n_layers = 27,
        .d = 2048,
        .n_heads = 16,
        .n_kv_heads = 16,
        .context = 163840,
        .n_vocab = 102400,
        .head_dim = 192,
        .value_dim = 128,
        .head_dim_key = true,
        .vocab_key = true,
        .n_experts = 64,
        .n_used = 6,
        .width = 1408,
        .ffn = 10944,
        .n_dense = 1,
        .n_shared = 2,
        .kv_lora = 512,
        .n_rot = 64,
        .rope_base = 10000.0f,
        .rms_eps = 1e-6f,
        .yarn_factor = 40,
        .yarn_context = 4096,
        .yarn_log_multiplier = 0.0707f,
        .pre = "deepseek-llm",
        .n_text = 100000,
        .bos = 100000,
        .eos = 100001,
        .pad = 100001,
        .add_bos = true,
    },
};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

mp_status synth_shape_find(const char *like, const synth_shape **out, mp_error *err)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        *out = &SHAPES[i];
        if (like && !strcmp(SHAPES[i].like, like)) return MP_OK;
    }
    return status_fail(err, MP_E_INVALID, "there is no shape '%s': choose %s, %s or %s", like ? like : "",
                       SHAPES[0].like, SHAPES[1].like, SHAPES[2].like);
}

/* ---- keys ---- */

/* Keys of one architecture; the first failure stays. */
typedef struct keys {
    gguf_writer *w;
    const char *arch;
    mp_error *err;
    mp_status status;
} keys;

static const char *key_of(const keys *k, const char *suffix, char buf[96])
{
    snprintf(buf, 96, "%s.%s", k->arch, suffix);
    return buf;
}

static void put_u32(keys *k, const char *suffix, uint32_t value)
{
    char key[96];
    if (!k->status) k->status = gguf_set_u32(k->w, key_of(k, suffix, key), value, k->err);
}

static void put_f32(keys *k, const char *suffix, float value)
{
    char key[96];
    if (!k->status) k->status = gguf_set_f32(k->w, key_of(k, suffix, key), value, k->err);
}

static void put_string(keys *k, const char *suffix, const char *value)
{
    char key[96];
    if (!k->status) k->status = gguf_set_string(k->w, key_of(k, suffix, key), value, k->err);
}

/* general.file_type, as llama.h numbers it. */
static uint32_t file_type(dtype type)
{
    switch (type) {
    case DTYPE_F32:
        return 0;
    case DTYPE_F16:
        return 1;
    case DTYPE_Q4_0:
        return 2;
    case DTYPE_Q4_1:
        return 3;
    case DTYPE_Q8_0:
        return 7;
    case DTYPE_Q5_0:
        return 8;
    case DTYPE_Q5_1:
        return 9;
    case DTYPE_Q4_K:
        return 14;
    case DTYPE_Q5_K:
        return 16;
    case DTYPE_Q6_K:
        return 18;
    case DTYPE_BF16:
        return 32;
    default:
        break;
    }
    return 1024; /* guessed */
}

static void put_general(keys *k, const synth_shape *s, dtype type)
{
    k->arch = "general";
    put_string(k, "architecture", s->arch);
    put_string(k, "type", "model");
    put_string(k, "name", s->name);
    put_u32(k, "file_type", file_type(type));
    put_u32(k, "quantization_version", 2);
    k->arch = s->arch;
}

static void put_attention(keys *k, const synth_shape *s)
{
    put_u32(k, "attention.head_count", s->n_heads);
    put_u32(k, "attention.head_count_kv", s->n_kv_heads);
    put_f32(k, "attention.layer_norm_rms_epsilon", s->rms_eps);
    if (s->head_dim_key) {
        put_u32(k, "attention.key_length", s->head_dim);
        put_u32(k, "attention.value_length", s->value_dim);
    }
    put_f32(k, "rope.freq_base", s->rope_base);
    if (s->kv_lora) {
        put_u32(k, "attention.kv_lora_rank", s->kv_lora);
        put_u32(k, "rope.dimension_count", s->n_rot);
    }
    if (s->yarn_factor > 0) {
        put_string(k, "rope.scaling.type", "yarn");
        put_f32(k, "rope.scaling.factor", s->yarn_factor);
        put_u32(k, "rope.scaling.original_context_length", s->yarn_context);
        put_f32(k, "rope.scaling.yarn_log_multiplier", s->yarn_log_multiplier);
    }
}

static void put_experts(keys *k, const synth_shape *s)
{
    put_u32(k, "expert_count", s->n_experts);
    put_u32(k, "expert_used_count", s->n_used);
    if (s->width != s->ffn) put_u32(k, "expert_feed_forward_length", s->width);
    if (s->n_dense) put_u32(k, "leading_dense_block_count", s->n_dense);
    if (s->n_shared) {
        put_u32(k, "expert_shared_count", s->n_shared);
        put_f32(k, "expert_weights_scale", 1);
    }
}

mp_status synth_shape_keys(const synth_shape *s, uint32_t n_layers, dtype type, gguf_writer *w, mp_error *err)
{
    keys k = {.w = w, .err = err};
    put_general(&k, s, type);
    put_u32(&k, "block_count", n_layers);
    put_u32(&k, "context_length", s->context);
    put_u32(&k, "embedding_length", s->d);
    put_u32(&k, "feed_forward_length", s->ffn);
    if (s->vocab_key) put_u32(&k, "vocab_size", s->n_vocab);
    put_attention(&k, s);
    put_experts(&k, s);
    return k.status;
}

/* ---- keys of an artifact ---- */

static mp_status put_repeated(gguf_writer *w, const char *key, float value, size_t n, mp_error *err)
{
    float *values = malloc(n * sizeof *values);
    if (!values) return status_no_memory(err, n * sizeof *values, key);
    for (size_t i = 0; i < n; i++) values[i] = value;
    const mp_status status = gguf_set_array(w, key, GGUF_F32, values, n, err);
    free(values);
    return status;
}

/* Whole numbers, so that top-k runs just these shares; rungs that fall together count once. */
static size_t budgets(uint32_t full, float out[LADDER_N_SHARES])
{
    size_t n = 0;
    for (size_t i = 0; i < LADDER_N_SHARES; i++) {
        const float budget = fmaxf(1, roundf((float)LADDER_SHARES[i] * (float)full));
        if (n == 0 || budget < out[n - 1]) out[n++] = budget;
    }
    return n;
}

static mp_status put_ladder(const synth_shape *s, uint32_t n_layers, uint32_t n_parts, gguf_writer *w, mp_error *err)
{
    float budget[LADDER_N_SHARES];
    const size_t n = budgets(n_parts * s->n_used, budget);
    MP_TRY(gguf_set_array(w, LADDER_KEY_BUDGET, GGUF_F32, budget, n, err));
    MP_TRY(put_repeated(w, LADDER_KEY_TAU, 0, n * n_layers, err));
    return put_repeated(w, LADDER_KEY_GAIN, 1, n * n_layers, err);
}

mp_status synth_artifact_keys(const synth_shape *s, uint32_t n_layers, const synth_split *split, gguf_writer *w,
                              mp_error *err)
{
    MP_TRY(gguf_set_u32(w, LADDER_KEY_VERSION, MODEL_ARTIFACT_VERSION, err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_PARTS, split->n_parts, err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_PART_WIDTH, s->width / split->n_parts, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SOLVER, LADDER_SOLVERS[MP_SOLVER_SORT], err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_GATE, LADDER_GATES[MP_GATE_PROBE], err));
    MP_TRY(gguf_set_u32(w, LADDER_KEY_RANK, split->rank, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SELECT, LADDER_SELECTS[MP_SELECT_TOPK], err));
    MP_TRY(gguf_set_u64(w, LADDER_KEY_SEED, split->seed, err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_SOURCE, "synthetic", err));
    MP_TRY(gguf_set_string(w, LADDER_KEY_CALIBRATION, "synthetic", err));
    MP_TRY(gguf_set_u64(w, LADDER_KEY_CALIBRATION_TOKENS, 0, err));
    return put_ladder(s, n_layers, split->n_parts, w, err);
}
