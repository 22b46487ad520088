/* disk_testing.h: models for the tests of engines that read experts from disk: a whole one, the same split, and either
 * of them in several files; and a text to run. */
#ifndef TESTS_DISK_TESTING_H
#define TESTS_DISK_TESTING_H

#include <unistd.h>

#include "base/file.h"
#include "model/model.h"
#include "testing.h"

#define DEMO   "models/demo-olmoe-q8_0.gguf"
#define PARTS  8
#define TEXT   60 /* tokens, the first PROMPT of them in one step */
#define PROMPT 40

static char directory[] = "/tmp/moeprism-test-disk-XXXXXX";
static char split_path[128];
static mp_model *whole, *split;
static int32_t ids[TEXT];

static UNUSED_OK int make_models(void **state)
{
    (void)state;
    mp_error err;
    char *text;
    size_t len, n;
    assert_non_null(mkdtemp(directory));
    snprintf(split_path, sizeof split_path, "%s/split.gguf", directory);
    assert_ok(file_read("models/calibration.txt", &text, &len, &err), &err);
    const mp_refactor_params params = {
        .calibration = text, .calibration_len = len, .n_parts = PARTS, .max_tokens = 2048, .solver = MP_SOLVER_SORT};
    assert_ok(mp_refactor(DEMO, split_path, &params, NULL, &err), &err);
    assert_ok(mp_model_open(DEMO, NULL, &whole, &err), &err);
    assert_ok(mp_model_open(split_path, NULL, &split, &err), &err);
    assert_int_equal(mp_tokenize(whole, text, len < 2000 ? len : 2000, 0, ids, TEXT, &n, &err), MP_E_LIMIT);
    assert_true(n >= TEXT);
    mp_tokenize(whole, text, 120, 0, ids, TEXT, &n, &err);
    for (size_t i = n; i < TEXT; i++) ids[i] = ids[i % n];
    free(text);
    return 0;
}

static UNUSED_OK int remove_models(void **state)
{
    (void)state;
    mp_model_close(whole);
    mp_model_close(split);
    unlink(split_path);
    rmdir(directory);
    return 0;
}

static UNUSED_OK uint64_t least_memory(const mp_model *m)
{
    mp_plan plan;
    mp_error err;
    assert_ok(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 64}, &plan, &err), &err);
    return plan.experts_least;
}

static UNUSED_OK mp_engine *open_engine(const mp_model *m, uint32_t threads, mp_store_params store)
{
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {.threads = threads, .n_ctx = 64, .n_batch = 64, .store = store};
    assert_ok(mp_engine_open(m, &params, &e, &err), &err);
    return e;
}

/* Every token at one of a few points, the prompt at once, the rest one by one; the caller frees [TEXT, n_vocab]. */
static UNUSED_OK float *run_text(const mp_model *m, mp_engine *e, uint32_t floor)
{
    const size_t vocab = mp_model_get_info(m)->n_vocab;
    float *out = malloc(TEXT * vocab * sizeof *out);
    mp_batch_token batch[PROMPT];
    mp_error err;
    assert_non_null(out);
    for (uint32_t at = 0, n; at < TEXT; at += n) {
        n = at == 0 ? PROMPT : 1;
        for (uint32_t i = 0; i < n; i++)
            batch[i] = (mp_batch_token){
                .token = ids[at + i], .pos = at + i, .point = (at + i) % 3, .logits = true, .floor = floor};
        assert_ok(mp_engine_step(e, batch, n, &err), &err);
        for (uint32_t i = 0; i < n; i++) memcpy(out + (at + i) * vocab, mp_engine_logits(e, i), vocab * sizeof *out);
    }
    return out;
}

/* ---- several files ---- */

#define FILES 3

static UNUSED_OK void part_path(char path[160], int part)
{
    snprintf(path, 160, "%s/parts-%05d-of-%05d.gguf", directory, part + 1, FILES);
}

/* The keys of `g`, and those of its tensors that are wanted, as a file; `extend` may set keys of its own. */
static UNUSED_OK void write_some(const gguf *g, const char *path, bool (*wanted)(const gguf *g, size_t i, int which),
                                 void (*extend)(gguf_writer *w, const gguf *g, int which), int which)
{
    mp_error err;
    gguf_writer *w;
    assert_ok(gguf_writer_new(gguf_alignment(g), &w, &err), &err);
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        size_t bytes;
        const void *raw = gguf_key_raw(g, i, &bytes);
        assert_ok(gguf_set_raw(w, gguf_key_name(g, i), gguf_key_type(g, i), raw, bytes, &err), &err);
    }
    if (extend) extend(w, g, which);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (wanted(g, i, which))
            assert_ok(gguf_add_tensor(w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, &err), &err);
    }
    assert_ok(gguf_writer_begin(w, path, false, 0, &err), &err);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (wanted(g, i, which)) assert_ok(gguf_writer_data(w, t->data, t->bytes, &err), &err);
    }
    assert_ok(gguf_writer_commit(w, &err), &err);
    gguf_writer_free(w);
}

static UNUSED_OK bool is_of_part(const gguf *g, size_t i, int part)
{
    (void)g;
    return i % FILES == (size_t)part;
}

static UNUSED_OK void set_split(gguf_writer *w, const gguf *g, int part)
{
    mp_error err;
    assert_ok(gguf_set_u32(w, "split.no", (uint32_t)part, &err), &err);
    assert_ok(gguf_set_u32(w, "split.count", FILES, &err), &err);
    assert_ok(gguf_set_u32(w, "split.tensors.count", (uint32_t)gguf_n_tensors(g), &err), &err);
}

/* Every third tensor of `g` as one file of a model in three. */
static UNUSED_OK void write_part(const gguf *g, int part)
{
    char path[160];
    part_path(path, part);
    write_some(g, path, is_of_part, set_split, part);
}

static UNUSED_OK void write_parts(const char *from)
{
    mp_error err;
    gguf *g;
    const gguf_types types = model_types();
    assert_ok(gguf_open(from, &types, &g, &err), &err);
    for (int part = 0; part < FILES; part++) write_part(g, part);
    gguf_close(g);
}

static UNUSED_OK void remove_parts(void)
{
    for (int part = 0; part < FILES; part++) {
        char path[160];
        part_path(path, part);
        unlink(path);
    }
}

#endif
