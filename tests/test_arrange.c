/* Weights that are arranged in memory for the kernels of this CPU: which, and that nobody sees a difference. */
#include "disk_testing.h"

#include "refactor/synth.h"

static mp_model *open_in_memory(const char *path)
{
    mp_error err;
    mp_model *m;
    assert_ok(mp_model_open(path, &(mp_model_params){.weights = MP_WEIGHTS_COPIED}, &m, &err), &err);
    return m;
}

static mp_engine *open_isa(const mp_model *m, const char *isa, uint32_t threads)
{
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {.threads = threads, .n_ctx = 64, .n_batch = 64, .isa = isa};
    assert_ok(mp_engine_open(m, &params, &e, &err), &err);
    return e;
}

static mp_engine *open_capped(const mp_model *m, const char *isa)
{
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {
        .threads = 1, .n_ctx = 64, .n_batch = 64, .isa = isa, .store = {.memory = least_memory(m)}};
    assert_ok(mp_engine_open(m, &params, &e, &err), &err);
    return e;
}

/* All kernels of this CPU that take such rows; the best are those of an engine that names none. */
static void for_each_isa(void (*test)(const char *isa))
{
    size_t tested = 0;
    for (const char *const *isa = kernels_available(); *isa; isa++) {
        if (!kernels_get(*isa)->rows16) continue;
        print_message("           %s\n", *isa);
        test(isa == kernels_available() ? NULL : *isa);
        tested++;
    }
    if (tested) return;
    print_message("SKIPPED: the kernels of this CPU take rows as they are in files\n");
    skip();
}

/* k: for which; NULL: as in files. */
static void assert_others_arranged(const mp_model *m, const kernels *k)
{
    const bool on = k && k->rows16;
    assert_true(dtype_is_r16(m->layers[0].q.w.type) == on);
    assert_true(dtype_is_r16(m->output.type) == on);
    assert_false(dtype_is_r16(m->moe[m->hp.n_dense].w.router.type));
}

static void assert_experts_arranged(const mp_model *m, const kernels *k)
{
    const moe_weights *w = &m->moe[m->hp.n_dense].w;
    assert_true(dtype_is_r16(w->gate_up.data ? w->gate_up.type : w->down.type) == (k && k->rows16));
    if (w->down_t.data) assert_true(dtype_is_b32(w->down_t.type) == (k && k->blocks32));
}

static void assert_arranged(const mp_model *m, const kernels *k)
{
    assert_others_arranged(m, k);
    assert_experts_arranged(m, k);
}

/* What an engine gives is to the bit what one of a mapped model gives. */
static void assert_as_mapped(const mp_model *m, mp_engine *e, const char *isa, const char *path)
{
    mp_error err;
    mp_model *mapped;
    assert_ok(mp_model_open(path, NULL, &mapped, &err), &err);
    mp_engine *plain = open_isa(mapped, isa, 1);
    float *expected = run_text(mapped, plain, 0), *got = run_text(m, e, 0);
    assert_memory_equal(got, expected, TEXT * mp_model_get_info(mapped)->n_vocab * sizeof *got);
    free(expected);
    free(got);
    mp_engine_close(plain);
    mp_model_close(mapped);
}

/* The same of a new engine of the model, on as many threads. */
static void assert_same_as_mapped(const mp_model *m, const char *isa, const char *path, uint32_t threads)
{
    mp_engine *e = open_isa(m, isa, threads);
    assert_as_mapped(m, e, isa, path);
    mp_engine_close(e);
}

static void arranged_isa(const char *isa)
{
    const char *const paths[] = {DEMO, split_path};
    mp_error err;
    for (int i = 0; i < 2; i++) {
        mp_model *m = open_in_memory(paths[i]);
        mp_engine *e = open_isa(m, isa, 2), *other;
        assert_arranged(m, kernels_get(isa));
        const mp_engine_params ref = {.n_ctx = 64, .isa = "ref"};
        assert_int_equal(mp_engine_open(m, &ref, &other, &err), MP_E_INVALID);
        assert_non_null(
            strstr(err.message, "arranged in memory for another engine's kernels, which 'ref' cannot read"));
        mp_engine_close(e);
        assert_same_as_mapped(m, isa, paths[i], 2);
        mp_model_close(m);
    }
}

static void test_arranged(void **state)
{
    (void)state;
    for_each_isa(arranged_isa);
}

/* The first engine's kernels decide. */
static void test_not_arranged(void **state)
{
    (void)state;
    mp_error err;
    mp_engine *e;
    mp_model *m = open_in_memory(split_path);
    const mp_engine_params ref = {.n_ctx = 64, .isa = "ref"};
    assert_ok(mp_engine_open(m, &ref, &e, &err), &err);
    mp_engine_close(e);
    assert_arranged(m, NULL);
    mp_model_close(m);
    assert_arranged(whole, NULL);
}

/* Under a cap what does not stay in the file is arranged, and for all that come later, in memory or mapped. */
static void capped_isa(const char *isa)
{
    const mp_model_params how[] = {{.weights = MP_WEIGHTS_COPIED}, {.weights = MP_WEIGHTS_MAPPED}};
    for (int i = 0; i < 2; i++) {
        mp_error err;
        mp_model *m;
        mp_engine *other;
        assert_ok(mp_model_open(split_path, &how[i], &m, &err), &err);
        mp_engine *capped = open_capped(m, isa);
        assert_others_arranged(m, kernels_get(isa));
        assert_experts_arranged(m, NULL);
        const mp_engine_params ref = {.n_ctx = 64, .isa = "ref"};
        assert_int_equal(mp_engine_open(m, &ref, &other, &err), MP_E_INVALID);
        assert_same_as_mapped(m, isa, split_path, 2);
        assert_experts_arranged(m, NULL);
        assert_as_mapped(m, capped, isa, split_path);
        mp_engine_close(capped);
        mp_model_close(m);
    }
}

static void test_capped(void **state)
{
    (void)state;
    for_each_isa(capped_isa);
}

/* What an engine runs on stays as it is. */
static void test_mapped_before(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m;
    assert_ok(mp_model_open(split_path, NULL, &m, &err), &err);
    mp_engine *mapped = open_engine(m, 1, (mp_store_params){0});
    mp_engine *capped = open_engine(m, 1, (mp_store_params){.memory = least_memory(m)});
    assert_arranged(m, NULL);
    assert_as_mapped(m, capped, NULL, split_path);
    assert_as_mapped(m, mapped, NULL, split_path);
    mp_engine_close(capped);
    mp_engine_close(mapped);
    mp_model_close(m);
}

/* A small OLMoE with several down tiles, which the threads of the first engine share; split by 16 24 neurons a part, so
 * that only gate and up rows together are whole sixteens, and a whole sixteen of probes for each expert. */
static synth_shape several_tiles_shape(void)
{
    const synth_shape *olmoe;
    mp_error err;
    assert_ok(synth_shape_find("olmoe-1b-7b", &olmoe, &err), &err);
    synth_shape s = *olmoe;
    s.n_layers = 2;
    s.d = s.q_norm = s.k_norm = 1536;
    s.n_heads = s.n_kv_heads = s.d / s.head_dim;
    s.n_experts = 8, s.n_used = 4, s.width = s.ffn = 384;
    s.n_vocab = 8256, s.n_text = 8192, s.eos = 8192, s.pad = 8193;
    return s;
}

/* In memory, arranged for two threads; other numbers of threads read it as they find it. With experts on disk it gives
 * the same. */
static mp_model *several_tiles(const char *isa, uint32_t parts)
{
    char path[160];
    mp_error err;
    snprintf(path, sizeof path, "%s/tiles.gguf", directory);
    const synth_shape shape = several_tiles_shape();
    const mp_synth_params params = {.type = "Q4_K", .n_parts = parts};
    assert_ok(synth_write(path, &shape, &params, &err), &err);
    mp_model *m = open_in_memory(path);
    for (uint32_t i = 0; i < 4; i++) assert_same_as_mapped(m, isa, path, (const uint32_t[]){2, 1, 3, 6}[i]);
    mp_model *mapped;
    assert_ok(mp_model_open(path, NULL, &mapped, &err), &err);
    mp_engine *capped = open_capped(mapped, isa);
    assert_as_mapped(mapped, capped, isa, path);
    mp_engine_close(capped);
    mp_model_close(mapped);
    unlink(path);
    return m;
}

static void shared_tiles_isa(const char *isa)
{
    mp_model *m = several_tiles(isa, 16);
    const moe_weights *w = &m->moe[0].w;
    assert_int_equal(w->down_tiles, 3);
    assert_true(dtype_is_r16(w->gate_up.type));
    assert_true(dtype_is_r16(w->probe.type));
    mp_model_close(m);
    m = several_tiles(isa, 1);
    assert_int_equal(m->moe[0].w.down_tiles, 0);
    mp_model_close(m);
}

static void test_shared_tiles(void **state)
{
    (void)state;
    for_each_isa(shared_tiles_isa);
}

static bool is_no_head(const gguf *g, size_t i, int which)
{
    (void)which;
    return strcmp(gguf_tensor_at(g, i)->name, "output.weight") != 0;
}

/* DEMO without a head of its own. */
static void write_tied(const char *path)
{
    mp_error err;
    gguf *g;
    const gguf_types types = model_types();
    assert_ok(gguf_open(DEMO, &types, &g, &err), &err);
    write_some(g, path, is_no_head, NULL, 0);
    gguf_close(g);
}

/* Rows of embeddings are found again where they are the head's, too. */
static void tied_isa(const char *isa)
{
    char path[160];
    snprintf(path, sizeof path, "%s/tied.gguf", directory);
    write_tied(path);
    mp_model *m = open_in_memory(path);
    assert_same_as_mapped(m, isa, path, 2);
    assert_ptr_equal(m->output.data, m->embed.data);
    assert_true(dtype_is_r16(m->embed.type));
    mp_model_close(m);
    unlink(path);
}

static void test_tied(void **state)
{
    (void)state;
    for_each_isa(tied_isa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arranged),      cmocka_unit_test(test_not_arranged), cmocka_unit_test(test_capped),
        cmocka_unit_test(test_mapped_before), cmocka_unit_test(test_shared_tiles), cmocka_unit_test(test_tied),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
