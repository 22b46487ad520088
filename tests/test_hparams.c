/* Hyper-parameters: what files say about positions and the scale of attention scores, against what llama.cpp makes of
 * the same keys. */
#include <math.h>

#include "gguf_sample.h"
#include "model/model.h"

enum { HEAD = 16 };

static void put_u32_key(const char *name, uint32_t x)
{
    put_key(&b, name, GGUF_U32, &x, sizeof x);
}

static void put_f32_key(const char *name, float x)
{
    put_key(&b, name, GGUF_F32, &x, sizeof x);
}

/* Keys that every file has: 12 of deepseek2, 11 of qwen3moe. `more` is the number that the caller adds. */
static void begin(bool latent, uint64_t more)
{
    char key[64];
    const char *family = latent ? "deepseek2" : "qwen3moe";
    static const struct {
        const char *suffix;
        uint32_t value;
    } numbers[] = {
        {"block_count", 2},
        {"embedding_length", 64},
        {"context_length", 4096},
        {"attention.head_count", 4},
        {"attention.key_length", HEAD},
        {"rope.dimension_count", 8},
        {"expert_count", 8},
        {"expert_used_count", 2},
        {"feed_forward_length", 32},
        {"attention.kv_lora_rank", 8},
    };
    const size_t n = sizeof numbers / sizeof *numbers - !latent;
    put_head(&b, 3, 0, n + 2 + more);
    put_string_key(&b, "general.architecture", family);
    for (size_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%s.%s", family, numbers[i].suffix);
        put_u32_key(key, numbers[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", family);
    put_f32_key(key, 1e-6f);
}

static mp_status read_all(hparams *hp)
{
    mp_model m = {.file = open_bytes()};
    const mp_status status = hparams_read(&m, &err);
    *hp = m.hp;
    gguf_close(m.file);
    return status;
}

static void read_well(hparams *hp)
{
    if (read_all(hp) != MP_OK) fail_msg("%s", err.message);
}

/* ---- the scaling of positions ---- */

typedef struct scaling {
    const char *type; /* NULL: no such key */
    float factor, log_multiplier, attn_factor;
} scaling;

static double mscale(double factor, double by)
{
    return factor <= 1 ? 1 : 1 + 0.1 * by * log(factor);
}

/* llama.cpp's way in its own steps: the context's factor, which takes back what the rotation's kernel adds, then the
 * graph of deepseek2, which takes back that. */
static void as_llama_cpp(bool latent, const scaling *s, double *magnitude, double *scale)
{
    const bool yarn = s->type && strcmp(s->type, "yarn") == 0, none = s->type && strcmp(s->type, "none") == 0;
    const double factor = s->factor == 0 || none ? 1 : (double)s->factor;
    const double multiplier = latent ? (double)s->log_multiplier / 0.1 : 0; /* no other family reads it */
    const double kernel = 1 + 0.1 * log(factor);
    double attn = 1;
    if (yarn) {
        attn = multiplier != 0 ? mscale(factor, multiplier) / mscale(factor, multiplier) : mscale(factor, 1);
        attn /= kernel;
    }
    attn *= (double)s->attn_factor;
    *magnitude = yarn ? attn * kernel : attn;
    const double longer = latent ? attn * kernel * (1 + 0.1 * multiplier * log(factor)) : 1;
    *scale = longer * longer / sqrt(HEAD);
}

static void check_scaling(bool latent, const scaling *s)
{
    const char *family = latent ? "deepseek2" : "qwen3moe";
    char key[64];
    hparams hp;
    double magnitude, scale;
    begin(latent, 3 + (s->type != NULL));
    snprintf(key, sizeof key, "%s.rope.scaling.type", family);
    if (s->type) put_string_key(&b, key, s->type);
    snprintf(key, sizeof key, "%s.rope.scaling.factor", family);
    put_f32_key(key, s->factor);
    snprintf(key, sizeof key, "%s.rope.scaling.yarn_log_multiplier", family);
    put_f32_key(key, s->log_multiplier);
    snprintf(key, sizeof key, "%s.rope.scaling.attn_factor", family);
    put_f32_key(key, s->attn_factor);
    read_well(&hp);
    as_llama_cpp(latent, s, &magnitude, &scale);
    if (fabs((double)hp.rope.magnitude / magnitude - 1) > 1e-6 || fabs((double)hp.attention_scale / scale - 1) > 1e-6)
        fail_msg("%s, %s, factor %g, multiplier %g, %g: magnitude %g, expected %g; scale %g, expected %g", family,
                 s->type ? s->type : "no type", (double)s->factor, (double)s->log_multiplier, (double)s->attn_factor,
                 (double)hp.rope.magnitude, magnitude, (double)hp.attention_scale, scale);
}

static void test_scaling(void **state)
{
    (void)state;
    static const scaling cases[] = {
        {"yarn", 40, 0.0707f, 1}, {"yarn", 40, 0.1f, 1}, {"yarn", 40, 0, 1},    {"yarn", 4, 0.0707f, 1.3f},
        {"yarn", 4, 0, 0.8f},     {"yarn", 1, 0.1f, 1},  {"yarn", 0.5f, 0, 1},  {"yarn", 0.5f, 0.1f, 1},
        {"yarn", 0, 0.1f, 1},     {"none", 4, 0.1f, 1},  {"none", 4, 0, 1.25f}, {NULL, 1, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int latent = 0; latent <= 1; latent++) check_scaling(latent, &cases[i]);
    check_scaling(false, &(scaling){"linear", 4, 0, 1.5f});
}

static void test_factor(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        float value, expected; /* 0: refused */
    } cases[] = {
        {"qwen3moe.rope.scaling.factor", 8, 8},   {"qwen3moe.rope.scale_linear", 8, 8}, /* its name in old files */
        {"qwen3moe.rope.scaling.factor", 0, 1},   {"qwen3moe.rope.scaling.factor", -2, 0},
        {"qwen3moe.rope.scaling.factor", NAN, 0}, {"qwen3moe.rope.scale_linear", INFINITY, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hparams hp;
        begin(false, 1);
        put_f32_key(cases[i].key, cases[i].value);
        assert_int_equal(read_all(&hp), cases[i].expected > 0 ? MP_OK : MP_E_FORMAT);
        if (cases[i].expected > 0) assert_true(hp.rope.factor == cases[i].expected);
    }
}

/* ---- temperature ---- */

static void test_temperature(void **state)
{
    (void)state;
    hparams hp;
    begin(true, 2);
    put_f32_key("deepseek2.attention.temperature_scale", 0.1f);
    put_u32_key("deepseek2.attention.temperature_length", 8192);
    read_well(&hp);
    for (uint32_t pos = 0; pos < 40000; pos += 511) {
        const double expected = (log(floor(pos / 8192.0) + 1) * 0.1 + 1) / sqrt(HEAD);
        assert_true(fabs((double)hparams_score_scale(&hp, pos) / expected - 1) < 1e-6);
    }
    begin(true, 1); /* which positions are far? */
    put_f32_key("deepseek2.attention.temperature_scale", 0.1f);
    assert_message(read_all(&hp), MP_E_FORMAT, "attention.temperature_length");
    begin(true, 1);
    put_u32_key("deepseek2.attention.temperature_length", 8192);
    read_well(&hp);
    assert_true(hparams_score_scale(&hp, 0) == hparams_score_scale(&hp, 100000));
}

static void test_drafts(void **state)
{
    (void)state;
    hparams hp;
    for (uint32_t n = 0; n <= 1; n++) {
        begin(true, 1);
        put_u32_key("deepseek2.nextn_predict_layers", n);
        assert_int_equal(read_all(&hp), n == 0 ? MP_OK : MP_E_UNSUPPORTED);
    }
    assert_message(read_all(&hp), MP_E_UNSUPPORTED, "nextn_predict_layers is 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scaling),
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
