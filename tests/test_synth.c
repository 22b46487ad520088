/* Synthetic models: shapes and names as published, keys and vocabularies that open, files that run. */
#include "testing.h"

#include <unistd.h>

#include "engine/engine.h"
#include "model/ladder.h"
#include "refactor/synth.h"

static char dir[] = "/tmp/moeprism-test-XXXXXX", path[sizeof dir + 16];
static const char *const LIKES[] = {"olmoe-1b-7b", "qwen3-30b-a3b", "deepseek-v2-lite"};
enum { N_LIKES = sizeof LIKES / sizeof *LIKES };

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/synth.gguf", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir); /* fails where a test left a file */
}

static const synth_shape *shape(const char *like)
{
    const synth_shape *s;
    mp_error err;
    assert_ok(synth_shape_find(like, &s, &err), &err);
    return s;
}

static synth_list list_of(const char *like, uint32_t layers, dtype type, uint32_t parts, uint32_t rank)
{
    synth_list l = {0};
    mp_error err;
    const synth_split split = {.n_parts = parts, .rank = rank};
    assert_ok(synth_list_build(shape(like), layers, type, &split, &l, &err), &err);
    return l;
}

static const synth_tensor *find(const synth_list *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->tensors[i].name, name)) return &l->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static uint64_t elements(const synth_tensor *t)
{
    return t->rows * t->dims[0];
}

static void assert_tensor(const synth_list *l, const char *name, int type, uint64_t a, uint64_t b, uint64_t c)
{
    const synth_tensor *t = find(l, name);
    if (t->type != type || t->dims[0] != a || t->dims[1] != b || t->dims[2] != c)
        fail_msg("%s is type %d [%lu, %lu, %lu]", name, t->type, (unsigned long)t->dims[0], (unsigned long)t->dims[1],
                 (unsigned long)t->dims[2]);
    assert_int_equal(t->n_dims, c ? 3 : b ? 2 : 1);
}

/* ---- shapes ---- */

/* The models' published numbers of parameters, to the last one. */
static void test_parameters(void **state)
{
    (void)state;
    static const uint64_t published[] = {6919161856, 30532122624, 15706484224};
    for (size_t i = 0; i < N_LIKES; i++) {
        synth_list l = list_of(LIKES[i], shape(LIKES[i])->n_layers, DTYPE_F16, 1, 0);
        uint64_t n = 0;
        for (size_t t = 0; t < l.n; t++) n += elements(&l.tensors[t]);
        assert_int_equal(n, published[i]);
        synth_list_clear(&l);
    }
}

static void test_olmoe_tensors(void **state)
{
    (void)state;
    synth_list l = list_of(LIKES[0], 2, DTYPE_Q4_0, 1, 0);
    assert_tensor(&l, "token_embd.weight", DTYPE_Q4_0, 2048, 50304, 0);
    assert_tensor(&l, "output.weight", DTYPE_Q6_K, 2048, 50304, 0);
    assert_tensor(&l, "blk.1.attn_q_norm.weight", DTYPE_F32, 2048, 0, 0);
    assert_tensor(&l, "blk.1.ffn_gate_inp.weight", DTYPE_F32, 2048, 64, 0);
    assert_tensor(&l, "blk.1.ffn_up_exps.weight", DTYPE_Q4_0, 2048, 1024, 64);
    assert_tensor(&l, "blk.1.ffn_down_exps.weight", DTYPE_Q4_0, 1024, 2048, 64);
    assert_int_equal(l.n, 3 + 2 * 12);
    synth_list_clear(&l);
}

static void test_qwen3_tensors(void **state)
{
    (void)state;
    synth_list l = list_of(LIKES[1], 1, DTYPE_Q4_K, 1, 0);
    assert_tensor(&l, "output.weight", DTYPE_Q6_K, 2048, 151936, 0);
    assert_tensor(&l, "blk.0.attn_q.weight", DTYPE_Q4_K, 2048, 4096, 0);
    assert_tensor(&l, "blk.0.attn_v.weight", DTYPE_Q4_K, 2048, 512, 0);
    assert_tensor(&l, "blk.0.attn_output.weight", DTYPE_Q4_K, 4096, 2048, 0);
    assert_tensor(&l, "blk.0.attn_k_norm.weight", DTYPE_F32, 128, 0, 0);
    assert_tensor(&l, "blk.0.ffn_down_exps.weight", DTYPE_Q4_K, 768, 2048, 128);
    synth_list_clear(&l);
}

/* Rows of 1408 and 10944 are not whole blocks of 256. */
static void test_deepseek2_tensors(void **state)
{
    (void)state;
    synth_list l = list_of(LIKES[2], 2, DTYPE_Q4_K, 1, 0);
    assert_tensor(&l, "blk.0.ffn_down.weight", DTYPE_Q5_0, 10944, 2048, 0);
    assert_tensor(&l, "blk.0.attn_q.weight", DTYPE_Q4_K, 2048, 3072, 0);
    assert_tensor(&l, "blk.1.attn_kv_a_mqa.weight", DTYPE_Q4_K, 2048, 576, 0);
    assert_tensor(&l, "blk.1.attn_kv_a_norm.weight", DTYPE_F32, 512, 0, 0);
    assert_tensor(&l, "blk.1.attn_kv_b.weight", DTYPE_Q4_K, 512, 4096, 0);
    assert_tensor(&l, "blk.1.ffn_down_exps.weight", DTYPE_Q5_0, 1408, 2048, 64);
    assert_tensor(&l, "blk.1.ffn_down_shexp.weight", DTYPE_Q4_K, 2816, 2048, 0);
    synth_list_clear(&l);
    l = list_of(LIKES[2], 2, DTYPE_Q6_K, 1, 0);
    assert_tensor(&l, "blk.1.ffn_down_exps.weight", DTYPE_Q8_0, 1408, 2048, 64);
    synth_list_clear(&l);
}

/* Gate, up and down of all shapes, in as many parts as the refactorer would make. */
static void test_split_tensors(void **state)
{
    (void)state;
    synth_list l = list_of(LIKES[2], 2, DTYPE_Q4_K, 32, 224);
    assert_tensor(&l, "blk.0.ffn_up.weight", DTYPE_Q4_K, 2048, 10944, 0);
    assert_tensor(&l, "blk.1.ffn_gate_up_subs.weight", DTYPE_Q4_K, 2048, 88, 2048);
    assert_tensor(&l, "blk.1.ffn_down_subs.weight", DTYPE_Q4_K, 256, 44 * 8, 2048);
    assert_tensor(&l, "blk.1.ffn_probe_in.weight", DTYPE_Q8_0, 2048, 224, 0);
    assert_tensor(&l, "blk.1.ffn_probe.weight", DTYPE_Q8_0, 224, 2048, 0);
    assert_tensor(&l, "blk.1.ffn_probe.bias", DTYPE_F32, 2048, 0, 0);
    assert_tensor(&l, "blk.1.ffn_perm", MODEL_TYPE_I32, 1408, 64, 0);
    synth_list_clear(&l);
    l = list_of(LIKES[0], 1, DTYPE_Q8_0, 4, 0);
    assert_tensor(&l, "blk.0.ffn_gate_up_subs.weight", DTYPE_Q8_0, 2048, 512, 256);
    assert_tensor(&l, "blk.0.ffn_probe.weight", DTYPE_Q8_0, 2048, 256, 0);
    for (size_t i = 0; i < l.n; i++) assert_null(strstr(l.tensors[i].name, "probe_in"));
    synth_list_clear(&l);
}

/* ---- keys and vocabulary ---- */

/* A file of keys alone. */
static gguf *write_keys(const synth_shape *s, const synth_split *split)
{
    gguf_writer *w;
    gguf *g;
    mp_error err;
    const gguf_types types = model_types();
    assert_ok(gguf_writer_new(32, &w, &err), &err);
    assert_ok(synth_shape_keys(s, s->n_layers, DTYPE_Q4_0, w, &err), &err);
    assert_ok(synth_vocab_keys(s, w, &err), &err);
    if (split) assert_ok(synth_artifact_keys(s, s->n_layers, split, w, &err), &err);
    assert_ok(gguf_writer_begin(w, path, false, 0, &err), &err);
    assert_ok(gguf_writer_commit(w, &err), &err);
    gguf_writer_free(w);
    assert_ok(gguf_open(path, &types, &g, &err), &err);
    unlink(path);
    return g;
}

static void assert_key(const gguf *g, const char *family, const char *suffix, uint32_t expected)
{
    char key[96];
    uint32_t got;
    mp_error err;
    snprintf(key, sizeof key, "%s.%s", family, suffix);
    assert_ok(gguf_get_u32(g, key, &got, &err), &err);
    assert_int_equal(got, expected);
}

static void test_deepseek2_keys(void **state)
{
    (void)state;
    gguf *g = write_keys(shape(LIKES[2]), NULL);
    gguf_string scaling;
    float value;
    mp_error err;
    assert_key(g, "general", "file_type", 2);
    assert_key(g, "deepseek2", "block_count", 27);
    assert_key(g, "deepseek2", "attention.kv_lora_rank", 512);
    assert_key(g, "deepseek2", "attention.key_length", 192);
    assert_key(g, "deepseek2", "attention.value_length", 128);
    assert_key(g, "deepseek2", "rope.dimension_count", 64);
    assert_key(g, "deepseek2", "leading_dense_block_count", 1);
    assert_key(g, "deepseek2", "expert_shared_count", 2);
    assert_key(g, "deepseek2", "expert_feed_forward_length", 1408);
    assert_key(g, "deepseek2", "rope.scaling.original_context_length", 4096);
    assert_ok(gguf_get_string(g, "deepseek2.rope.scaling.type", &scaling, &err), &err);
    assert_memory_equal(scaling.data, "yarn", 4);
    assert_ok(gguf_get_f32(g, "deepseek2.rope.scaling.factor", &value, &err), &err);
    assert_true(value == 40);
    assert_false(gguf_has(g, "deepseek2.attention.q_lora_rank"));
    gguf_close(g);
}

static void test_other_keys(void **state)
{
    (void)state;
    gguf *g = write_keys(shape(LIKES[1]), NULL);
    assert_key(g, "qwen3moe", "attention.head_count", 32);
    assert_key(g, "qwen3moe", "attention.head_count_kv", 4);
    assert_key(g, "qwen3moe", "attention.key_length", 128);
    assert_key(g, "qwen3moe", "expert_feed_forward_length", 768);
    assert_key(g, "qwen3moe", "feed_forward_length", 6144);
    gguf_close(g);
    g = write_keys(shape(LIKES[0]), NULL);
    assert_key(g, "olmoe", "feed_forward_length", 1024);
    assert_key(g, "olmoe", "expert_used_count", 8);
    assert_false(gguf_has(g, "olmoe.rope.scaling.type"));
    assert_false(gguf_has(g, LADDER_KEY_VERSION));
    gguf_close(g);
}

/* Everything in a file of the architecture that llama.cpp reads is in ours, of the same type and rank. */
static void check_converted(const char *like, const char *file)
{
    gguf *theirs, *ours;
    mp_error err;
    const gguf_types types = model_types();
    if (access(shared_path(file), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path(file));
        skip();
    }
    assert_ok(gguf_open(shared_path(file), &types, &theirs, &err), &err);
    ours = write_keys(shape(like), NULL);
    for (size_t i = 0; i < gguf_n_keys(theirs); i++) {
        const char *name = gguf_key_name(theirs, i);
        size_t k = 0;
        if (strstr(name, "bos_token_id") || strstr(name, ".vocab_size")) continue; /* optional */
        while (k < gguf_n_keys(ours) && strcmp(gguf_key_name(ours, k), name)) k++;
        if (k == gguf_n_keys(ours)) fail_msg("no key %s", name);
        assert_int_equal(gguf_key_type(ours, k), gguf_key_type(theirs, i));
    }
    synth_list l = list_of(like, shape(like)->n_layers, DTYPE_F32, 1, 0);
    for (size_t i = 0; i < gguf_n_tensors(theirs); i++)
        assert_int_equal(find(&l, gguf_tensor_at(theirs, i)->name)->n_dims, gguf_tensor_at(theirs, i)->n_dims);
    synth_list_clear(&l);
    gguf_close(ours);
    gguf_close(theirs);
}

static void test_names_as_converted(void **state)
{
    (void)state;
    check_converted(LIKES[0], "golden/tiny-olmoe-f32.gguf");
    check_converted(LIKES[1], "golden/tiny-qwen3moe-f32.gguf");
    check_converted(LIKES[2], "golden/tiny-deepseek2-f32.gguf");
}

/* Any text comes back; control tokens stand where the real model has them. */
static void test_vocabularies(void **state)
{
    (void)state;
    static const char text[] = "The other nation: 12 \xe2\x82\xac,\n\tna\xc3\xafve!";
    for (size_t i = 0; i < N_LIKES; i++) {
        const synth_shape *s = shape(LIKES[i]);
        gguf *g = write_keys(s, NULL);
        tokenizer *t;
        mp_error err;
        int32_t ids[sizeof text + 1];
        char back[2 * sizeof text];
        size_t n, len = 0;
        assert_ok(tokenizer_new(g, &t, &err), &err);
        gguf_close(g);
        assert_int_equal(tokenizer_n_tokens(t), s->n_vocab);
        assert_ok(tokenizer_encode(t, text, sizeof text - 1, MP_TOKENIZE_BOS, ids, sizeof text + 1, &n, &err), &err);
        assert_true(n < sizeof text - 1 - 5); /* merges apply */
        assert_int_equal(ids[0] == s->bos, s->add_bos);
        for (size_t k = 0; k < n; k++) len += tokenizer_decode(t, ids[k], false, back + len, sizeof back - len);
        assert_int_equal(len, sizeof text - 1);
        assert_memory_equal(back, text, len);
        assert_true(tokenizer_ends_text(t, s->eos));
        tokenizer_free(t);
    }
}

static void test_ladder(void **state)
{
    (void)state;
    const synth_split split = {.n_parts = 4, .rank = 0, .seed = 1};
    gguf *g = write_keys(shape(LIKES[2]), &split); /* 24 at full: a sixteenth is 1.5 */
    float *budget, *tau;
    size_t n, n_tau;
    mp_error err;
    assert_ok(gguf_get_f32s(g, LADDER_KEY_BUDGET, &budget, &n, &err), &err);
    assert_ok(gguf_get_f32s(g, LADDER_KEY_TAU, &tau, &n_tau, &err), &err);
    assert_true(budget[0] == 24 && budget[n - 1] == 2);
    for (size_t i = 1; i < n; i++) assert_true(budget[i] < budget[i - 1] && budget[i] == floorf(budget[i]));
    assert_int_equal(n_tau, n * 27);
    free(budget);
    free(tau);
    gguf_close(g);
}

/* ---- random rows ---- */

static void test_pools(void **state)
{
    (void)state;
    enum { COLS = 1024, ROWS = 64 };
    synth_pools a = {.seed = 5}, b = {.seed = 5}, c = {.seed = 6};
    synth_pools *sets[] = {&a, &b, &c};
    static uint8_t rows[3][ROWS * COLS]; /* Q4_0: 576 bytes a row */
    static float back[ROWS * COLS];
    const synth_pool *p;
    mp_error err;
    for (int i = 0; i < 3; i++) {
        rng r;
        rng_init_stream(&r, 9, 1);
        assert_ok(synth_pools_get(sets[i], DTYPE_Q4_0, 0.25f, &p, &err), &err);
        synth_pool_rows(p, &r, COLS, ROWS, rows[i]);
    }
    const size_t bytes = ROWS * dtype_row_bytes(DTYPE_Q4_0, COLS);
    assert_memory_equal(rows[0], rows[1], bytes);
    assert_memory_not_equal(rows[0], rows[2], bytes);
    dtype_to_f32(DTYPE_Q4_0, rows[0], back, ROWS * COLS);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < ROWS * COLS; i++) {
        sum += (double)back[i];
        squares += (double)back[i] * (double)back[i];
    }
    assert_true(fabs(sum / (ROWS * COLS)) < 0.01);
    assert_true(fabs(sqrt(squares / (ROWS * COLS)) - 0.25) < 0.01);
    for (size_t i = 1; i < ROWS; i++) assert_memory_not_equal(rows[0], rows[0] + i * bytes / ROWS, bytes / ROWS);
    for (int i = 0; i < 3; i++) synth_pools_clear(sets[i]);
}

/* ---- whole files: one layer of OLMoE ---- */

typedef struct watch {
    uint64_t last, total, calls, stop_at;
} watch;

static bool observe(void *user, const mp_progress *p)
{
    watch *w = user;
    assert_true(p->done > w->last && p->done <= p->total);
    assert_string_equal(p->unit, "bytes");
    w->last = p->done;
    w->total = p->total;
    return ++w->calls != w->stop_at;
}

static mp_model *synthesize(uint32_t parts)
{
    mp_model *m;
    mp_error err;
    watch w = {0};
    const mp_synth_params p = {
        .like = LIKES[0], .n_layers = 1, .n_parts = parts, .seed = 3, .progress = observe, .user = &w};
    assert_ok(mp_synth(path, &p, &err), &err);
    assert_true(w.last == w.total && w.total > 0);
    assert_ok(mp_model_open(path, NULL, &m, &err), &err);
    unlink(path);
    return m;
}

/* 128 tokens at `point`: logits are of moderate size, the share is exact, and every expert gets work. */
static void check_run(const mp_model *m, uint32_t point, double share)
{
    enum { TOKENS = 128 };
    mp_engine *e;
    mp_error err;
    mp_batch_token batch[TOKENS];
    uint32_t used[64] = {0};
    double squares = 0;
    assert_ok(mp_engine_open(m, &(mp_engine_params){.threads = 2, .n_ctx = TOKENS}, &e, &err), &err);
    for (uint32_t i = 0; i < TOKENS; i++)
        batch[i] =
            (mp_batch_token){.token = (int32_t)(i * 391 + 7), .pos = i, .point = point, .logits = i == TOKENS - 1};
    assert_ok(mp_engine_step(e, batch, TOKENS, &err), &err);
    const float *logits = mp_engine_logits(e, TOKENS - 1);
    for (uint32_t i = 0; i < m->hp.n_vocab; i++) squares += (double)logits[i] * (double)logits[i];
    const double deviation = sqrt(squares / m->hp.n_vocab);
    assert_true(deviation > 0.5 && deviation < 2);
    for (size_t i = 0; i < TOKENS; i++) assert_true(mp_engine_compute_share(e, i) == share);
    for (size_t i = 0; i < TOKENS * 8; i++) used[e->moe.experts[i]]++;
    for (size_t i = 0; i < 64; i++) /* 16 each on average */
        if (used[i] < 4 || used[i] > 48) fail_msg("expert %zu has %u tokens", i, used[i]);
    mp_engine_close(e);
}

static const uint8_t *rows_of(const mp_model *m, const char *name)
{
    const gguf_tensor *t = gguf_find_tensor(m->file, name);
    assert_non_null(t);
    return t->data;
}

/* A split model routes as the whole one does and has its neurons: a sub-expert's gate rows, then its up rows. */
static void test_split_is_like_whole(void **state)
{
    (void)state;
    enum { PARTS = 4 };
    mp_model *whole = synthesize(0), *split = synthesize(PARTS);
    const tensor *gate = &whole->moe[0].w.gate, *gate_up = &split->moe[0].w.gate_up;
    const size_t row = gate->row_bytes, rows = gate_up->rows / 2;
    assert_int_equal(row, gate_up->row_bytes);
    for (uint32_t sub = 0; sub < PARTS * 3; sub++) {
        assert_memory_equal(tensor_row(gate_up, sub, 0), tensor_row(gate, sub / PARTS, sub % PARTS * rows), rows * row);
        assert_memory_equal(tensor_row(gate_up, sub, rows),
                            tensor_row(&whole->moe[0].w.up, sub / PARTS, sub % PARTS * rows), rows * row);
    }
    const char *same[] = {"token_embd.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.weight"};
    for (size_t i = 0; i < 3; i++) assert_memory_equal(rows_of(whole, same[i]), rows_of(split, same[i]), 4096);
    assert_memory_not_equal(rows_of(whole, "blk.0.attn_k.weight"), rows_of(whole, "blk.0.attn_q.weight"), 4096);
    mp_model_close(whole);
    mp_model_close(split);
}

static void test_whole_runs(void **state)
{
    (void)state;
    mp_model *m = synthesize(0);
    assert_int_equal(m->info.n_parts, 1);
    assert_string_equal(m->info.type, "Q4_0");
    assert_int_equal(gguf_alignment(m->file), 32);
    check_run(m, 0, 1);
    mp_model_close(m);
}

static void test_split_runs(void **state)
{
    (void)state;
    mp_model *m = synthesize(32);
    mp_error err;
    const gguf_tensor *perm = gguf_find_tensor(m->file, "blk.0.ffn_perm");
    assert_int_equal(m->info.n_parts, 32);
    assert_int_equal(m->info.n_points, LADDER_N_SHARES);
    assert_string_equal(m->info.gate, "probe");
    assert_string_equal(m->info.source_sha256, "synthetic");
    assert_false(m->points[0].measured);
    assert_int_equal(gguf_alignment(m->file), 4096);
    assert_int_equal(((const int32_t *)perm->data)[1024 + 5], 5);
    check_run(m, 0, 1);
    check_run(m, LADDER_N_SHARES - 1, 0.0625);
    uint32_t point;
    assert_ok(mp_model_find_point(m, MP_QUALITY_EXPERTS, 2.25, &point, &err), &err);
    assert_true(m->points[point].experts == 2.5);
    mp_model_close(m);
}

/* ---- refusals ---- */

static void assert_refused(mp_synth_params p, mp_status status, const char *part)
{
    mp_error err;
    if (!p.like) p.like = LIKES[2];
    assert_int_equal(mp_synth(path, &p, &err), status);
    if (!strstr(err.message, part)) fail_msg("'%s' does not say '%s'", err.message, part);
}

static void test_refused(void **state)
{
    (void)state;
    assert_refused((mp_synth_params){.like = "gpt-5"}, MP_E_INVALID, "olmoe-1b-7b");
    assert_refused((mp_synth_params){.type = "Q9_9"}, MP_E_INVALID, "Q4_0");
    assert_refused((mp_synth_params){.n_layers = 1}, MP_E_INVALID, "2 to 1024");
    assert_refused((mp_synth_params){.n_layers = 1025}, MP_E_INVALID, "2 to 1024");
    assert_refused((mp_synth_params){.n_parts = 5}, MP_E_INVALID, "1408");
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_existing_file_stays(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_refused((mp_synth_params){.n_layers = 2}, MP_E_EXISTS, "--force");
    assert_int_equal(unlink(path), 0);
}

static void test_interrupted(void **state)
{
    (void)state;
    watch w = {.stop_at = 3};
    assert_refused((mp_synth_params){.progress = observe, .user = &w}, MP_E_INTERRUPTED, "interrupted");
    assert_int_equal(w.calls, 3);
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),    cmocka_unit_test(test_olmoe_tensors),
        cmocka_unit_test(test_qwen3_tensors), cmocka_unit_test(test_deepseek2_tensors),
        cmocka_unit_test(test_split_tensors), cmocka_unit_test(test_deepseek2_keys),
        cmocka_unit_test(test_other_keys),    cmocka_unit_test(test_names_as_converted),
        cmocka_unit_test(test_vocabularies),  cmocka_unit_test(test_ladder),
        cmocka_unit_test(test_pools),         cmocka_unit_test(test_split_is_like_whole),
        cmocka_unit_test(test_whole_runs),    cmocka_unit_test(test_split_runs),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_existing_file_stays),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
