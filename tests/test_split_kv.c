/* Latent attention reads both layouts of its up-projection: attn_kv_b, and attn_k_b with attn_v_b. */
#include "testing.h"

#include <unistd.h>

#include "model/model.h"

enum { POSITIONS = 96, VOCAB = 512 };

#define GOLDEN "golden/tiny-deepseek2-f32"

static char dir[] = "/tmp/moeprism-test-XXXXXX", path[64];

static void set_u32(gguf_writer *w, const char *key, uint32_t value)
{
    mp_error err;
    assert_ok(gguf_set_u32(w, key, value, &err), &err);
}

static void copy_keys(gguf_writer *w, const mp_model *m)
{
    mp_error err;
    for (size_t i = 0; i < gguf_n_keys(m->file); i++) {
        size_t bytes;
        const void *raw = gguf_key_raw(m->file, i, &bytes);
        assert_ok(gguf_set_raw(w, gguf_key_name(m->file, i), gguf_key_type(m->file, i), raw, bytes, &err), &err);
    }
    set_u32(w, "deepseek2.attention.head_count_kv", 1);
    set_u32(w, "deepseek2.attention.key_length", m->hp.kv_lora + m->hp.n_rot);
    set_u32(w, "deepseek2.attention.value_length", m->hp.kv_lora);
    set_u32(w, "deepseek2.attention.key_length_mla", m->hp.head_dim);
    set_u32(w, "deepseek2.attention.value_length_mla", m->hp.value_dim);
}

/* The layer of "blk.L.attn_kv_b.weight", or -1. */
static int kv_b_layer(const char *name)
{
    int layer, end = 0;
    return sscanf(name, "blk.%d.attn_kv_b.weight%n", &layer, &end) == 1 && end && !name[end] ? layer : -1;
}

static void add_tensors(gguf_writer *w, const mp_model *m)
{
    const hparams *hp = &m->hp;
    const uint64_t nope = hp->head_dim - hp->n_rot, k[] = {nope, hp->kv_lora, hp->n_heads},
                   v[] = {hp->kv_lora, hp->value_dim, hp->n_heads};
    mp_error err;
    for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        const int layer = kv_b_layer(t->name);
        char name[64];
        if (layer < 0) {
            assert_ok(gguf_add_tensor(w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, &err), &err);
            continue;
        }
        snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", layer);
        assert_ok(gguf_add_tensor(w, name, DTYPE_F32, 3, k, k[0] * k[1] * k[2] * sizeof(float), &err), &err);
        snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
        assert_ok(gguf_add_tensor(w, name, DTYPE_F32, 3, v, v[0] * v[1] * v[2] * sizeof(float), &err), &err);
    }
}

/* k_b holds a head's key rows transposed, v_b its value rows as they are. */
static void write_kv(gguf_writer *w, const hparams *hp, const float *kv)
{
    const size_t nope = hp->head_dim - hp->n_rot, rows = nope + hp->value_dim, lora = hp->kv_lora;
    mp_error err;
    for (size_t h = 0; h < hp->n_heads; h++)
        for (size_t c = 0; c < lora; c++)
            for (size_t j = 0; j < nope; j++)
                assert_ok(gguf_writer_data(w, &kv[(h * rows + j) * lora + c], sizeof *kv, &err), &err);
    for (size_t h = 0; h < hp->n_heads; h++)
        assert_ok(gguf_writer_data(w, &kv[(h * rows + nope) * lora], hp->value_dim * lora * sizeof *kv, &err), &err);
}

static void write_split(const mp_model *m)
{
    mp_error err;
    gguf_writer *w;
    assert_ok(gguf_writer_new(32, &w, &err), &err);
    copy_keys(w, m);
    add_tensors(w, m);
    assert_ok(gguf_writer_begin(w, path, true, 0, &err), &err);
    for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        if (kv_b_layer(t->name) < 0)
            assert_ok(gguf_writer_data(w, t->data, t->bytes, &err), &err);
        else
            write_kv(w, &m->hp, t->data);
    }
    assert_ok(gguf_writer_commit(w, &err), &err);
    gguf_writer_free(w);
}

static void test_both_layouts_agree(void **state)
{
    (void)state;
    static float expected[POSITIONS * VOCAB], got[POSITIONS * VOCAB];
    int32_t ids[POSITIONS];
    mp_batch_token batch[POSITIONS];
    mp_error err;
    mp_model *m;
    mp_engine *e;
    if (access(shared_path(GOLDEN ".gguf"), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path(GOLDEN ".gguf"));
        skip();
    }
    assert_ok(mp_model_open(shared_path(GOLDEN ".gguf"), NULL, &m, &err), &err);
    write_split(m);
    mp_model_close(m);
    read_ids(shared_path("golden/tokens.txt"), ids, POSITIONS);
    read_floats(shared_path(GOLDEN ".logits.f32"), expected, POSITIONS * VOCAB);
    for (uint32_t t = 0; t < POSITIONS; t++) batch[t] = (mp_batch_token){.token = ids[t], .pos = t, .logits = true};
    assert_ok(mp_model_open(path, NULL, &m, &err), &err);
    assert_null(m->layers[0].kv_b.data);
    assert_ok(mp_engine_open(m, &(mp_engine_params){.threads = 2, .kv_type = MP_KV_F32}, &e, &err), &err);
    assert_ok(mp_engine_step(e, batch, POSITIONS, &err), &err);
    for (size_t t = 0; t < POSITIONS; t++) memcpy(got + t * VOCAB, mp_engine_logits(e, t), VOCAB * sizeof *got);
    assert_near(got, expected, POSITIONS * VOCAB, 1e-4);
    mp_engine_close(e);
    mp_model_close(m);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/split.gguf", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both_layouts_agree)};
    return cmocka_run_group_tests_name("split kv", tests, setup, teardown);
}
