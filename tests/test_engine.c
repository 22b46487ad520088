/* The engine against independent engines' logits, and against itself: pieces, batches, threads, instruction sets. */
#include "testing.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "model/model.h"
#include "moeprism.h"

#define POSITIONS 96
#define VOCAB     512

typedef struct golden {
    const char *name;
    double bound; /* of the largest magnitude */
} golden;

/* The 27 layers of deepseek2 amplify rounding. */
static golden GOLDEN[] = {
    {"tiny-olmoe-f32", 1e-5},     {"tiny-olmoe-d256-f16", 3e-3}, {"tiny-qwen2moe-f32", 1e-5},
    {"tiny-qwen3moe-f32", 1e-5},  {"tiny-mixtral-f32", 1e-5},    {"tiny-granitemoe-f32", 1e-5},
    {"tiny-deepseek2-f32", 1e-4},
};
#define N_GOLDEN   (sizeof GOLDEN / sizeof *GOLDEN)
#define F32_GOLDEN GOLDEN[0]
#define F16_GOLDEN GOLDEN[1]

static int32_t ids[POSITIONS];
static float expected[POSITIONS * VOCAB], got[POSITIONS * VOCAB], other[POSITIONS * VOCAB];

static mp_model *open_golden(const golden *g)
{
    mp_model *m;
    mp_error err;
    char path[64];
    snprintf(path, sizeof path, "golden/%s.gguf", g->name);
    if (access(shared_path(path), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path(path));
        skip();
    }
    assert_ok(mp_model_open(shared_path(path), NULL, &m, &err), &err);
    snprintf(path, sizeof path, "golden/%s.logits.f32", g->name);
    read_ids(shared_path("golden/tokens.txt"), ids, POSITIONS);
    read_floats(shared_path(path), expected, POSITIONS * VOCAB);
    return m;
}

static mp_engine *open_engine(const mp_model *m, uint32_t threads, const char *isa, mp_kv_type kv)
{
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {
        .threads = threads, .n_ctx = 128, .n_seqs = 4, .n_batch = 256, .kv_type = kv, .isa = isa};
    assert_ok(mp_engine_open(m, &params, &e, &err), &err);
    return e;
}

/* Feeds the tokens to sequence `seq` in pieces; logits [POSITIONS, VOCAB] into out. */
static void run_pieces(mp_engine *e, uint32_t seq, const size_t *pieces, float *out)
{
    mp_error err;
    mp_batch_token batch[POSITIONS];
    size_t at = 0;
    mp_engine_seq_truncate(e, seq, 0);
    for (size_t i = 0; at < POSITIONS; i++) {
        size_t n = pieces[i] < POSITIONS - at ? pieces[i] : POSITIONS - at;
        for (size_t t = 0; t < n; t++)
            batch[t] = (mp_batch_token){.token = ids[at + t], .seq = seq, .pos = (uint32_t)(at + t), .logits = true};
        assert_ok(mp_engine_step(e, batch, n, &err), &err);
        for (size_t t = 0; t < n; t++) memcpy(out + (at + t) * VOCAB, mp_engine_logits(e, t), VOCAB * sizeof *out);
        at += n;
    }
}

static const size_t WHOLE[] = {POSITIONS}, ONES[POSITIONS] = {[0 ... POSITIONS - 1] = 1},
                    ODD[] = {1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 96};

static void test_golden(void **state)
{
    const golden *g = *state;
    mp_model *m = open_golden(g);
    for (const char *const *isa = isas(); *isa; isa++) {
        mp_engine *e = open_engine(m, 2, *isa, MP_KV_F32);
        run_pieces(e, 0, WHOLE, got);
        assert_near(got, expected, POSITIONS * VOCAB, g->bound);
        run_pieces(e, 1, ONES, other);
        assert_memory_equal(got, other, sizeof got);
        run_pieces(e, 2, ODD, other);
        assert_memory_equal(got, other, sizeof got);
        mp_engine_close(e);
    }
    mp_model_close(m);
}

static void test_threads_do_not_change_bits(void **state)
{
    mp_model *m = open_golden(*state);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        mp_engine *e = open_engine(m, threads, NULL, MP_KV_F16);
        run_pieces(e, 0, WHOLE, threads == 1 ? got : other);
        if (threads > 1) assert_memory_equal(got, other, sizeof got);
        mp_engine_close(e);
    }
    mp_model_close(m);
}

/* Two sequences in one step, a prompt chunk of one with single tokens of the other, at different points. */
static void test_mixed_batch(void **state)
{
    mp_error err;
    mp_model *m = open_golden(*state);
    mp_engine *e = open_engine(m, 2, NULL, MP_KV_F32);
    const double k0 = mp_model_get_info(m)->n_experts_used;
    mp_batch_token batch[64];
    float alone[VOCAB], low[VOCAB];
    for (uint32_t p = 0; p < 2; p++) { /* each sequence alone */
        for (uint32_t t = 0; t < 32; t++) batch[t] = (mp_batch_token){ids[t], p, t, p, t == 31, 0};
        assert_ok(mp_engine_step(e, batch, 32, &err), &err);
        memcpy(p ? low : alone, mp_engine_logits(e, 31), sizeof alone);
        assert_true(fabs(mp_engine_compute_share(e, 31) - (p ? (k0 - 1) / k0 : 1)) < 1e-9);
        mp_engine_seq_truncate(e, p, 0);
    }
    for (uint32_t t = 0; t < 31; t++) batch[t] = (mp_batch_token){ids[t], 0, t, 0, false, 0};
    for (uint32_t t = 0; t < 20; t++) batch[31 + t] = (mp_batch_token){ids[t], 1, t, 1, false, 0};
    assert_ok(mp_engine_step(e, batch, 51, &err), &err);
    batch[0] = (mp_batch_token){ids[31], 0, 31, 0, true, 0};
    for (uint32_t t = 0; t < 12; t++) batch[1 + t] = (mp_batch_token){ids[20 + t], 1, 20 + t, 1, t == 11, 0};
    assert_ok(mp_engine_step(e, batch, 13, &err), &err);
    assert_memory_equal(mp_engine_logits(e, 0), alone, sizeof alone);
    assert_memory_equal(mp_engine_logits(e, 12), low, sizeof low);
    assert_null(mp_engine_logits(e, 1));
    mp_engine_close(e);
    mp_model_close(m);
}

/* Coarser caches stay near the F32 one, same bits in pieces; heads that are not whole blocks are refused. */
static void test_cache_types(void **state)
{
    (void)state;
    static const struct {
        size_t golden;
        mp_kv_type type;
        double bound;
    } CASES[] = {{2, MP_KV_F16, 2e-3}, {2, MP_KV_Q8_0, 2e-2}, {5, MP_KV_Q8_0, 2e-2}, {6, MP_KV_F16, 1e-1}};
    mp_error err;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mp_model *m = open_golden(&GOLDEN[CASES[i].golden]);
        for (const char *const *isa = isas(); *isa; isa++) {
            mp_engine *e = open_engine(m, 2, *isa, CASES[i].type);
            run_pieces(e, 0, WHOLE, got);
            assert_near(got, expected, POSITIONS * VOCAB, CASES[i].bound);
            run_pieces(e, 1, ODD, other);
            assert_memory_equal(got, other, sizeof got);
            mp_engine_close(e);
        }
        mp_model_close(m);
    }
    mp_engine *e;
    mp_model *m = open_golden(&GOLDEN[6]);
    assert_int_equal(mp_engine_open(m, &(mp_engine_params){.kv_type = MP_KV_Q8_0}, &e, &err), MP_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "multiple of 32"));
    mp_model_close(m);
}

/* MLA caches one latent and one rotary key per position and layer, whatever the number of heads. */
static void test_latent_cache_is_small(void **state)
{
    (void)state;
    mp_error err;
    mp_plan plan;
    mp_model *m = open_golden(&GOLDEN[6]);
    assert_ok(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 256, .kv_type = MP_KV_F16}, &plan, &err), &err);
    const uint64_t latents = 256 * (32 + 16) * 2 * 27;
    assert_true(plan.kv_cache >= latents && plan.kv_cache < latents + 4096);
    mp_model_close(m);
}

static void refuse(mp_engine *e, mp_batch_token token, mp_status status)
{
    mp_error err;
    const uint32_t before = mp_engine_seq_len(e, 0);
    const mp_batch_token batch[2] = {{.token = 1, .pos = before}, token};
    assert_int_equal(mp_engine_step(e, batch, 2, &err), status);
    assert_true(strlen(err.message) > 0);
    assert_int_equal(mp_engine_seq_len(e, 0), before);
}

static void test_bad_batches_change_nothing(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_golden(&F32_GOLDEN);
    mp_engine *e = open_engine(m, 1, NULL, MP_KV_F32);
    refuse(e, (mp_batch_token){.token = VOCAB, .pos = 1}, MP_E_INVALID);
    refuse(e, (mp_batch_token){.token = -1, .pos = 1}, MP_E_INVALID);
    refuse(e, (mp_batch_token){.token = 1, .pos = 2}, MP_E_INVALID);
    refuse(e, (mp_batch_token){.token = 1, .pos = 0}, MP_E_INVALID);
    refuse(e, (mp_batch_token){.token = 1, .seq = 4}, MP_E_INVALID);
    refuse(e, (mp_batch_token){.token = 1, .pos = 1, .point = 3}, MP_E_INVALID);
    for (uint32_t pos = 0; pos < 127; pos++)
        assert_ok(mp_engine_step(e, &(mp_batch_token){.token = 1, .pos = pos}, 1, &err), &err);
    refuse(e, (mp_batch_token){.token = 1, .pos = 128}, MP_E_LIMIT);
    assert_int_equal(mp_engine_step(e, NULL, 0, &err), MP_E_INVALID);
    mp_engine_close(e);
    mp_model_close(m);
}

/* Pages come back: many more tokens than the cache holds pass through it. */
static void test_cache_is_reused(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_golden(&F32_GOLDEN);
    mp_engine *e = open_engine(m, 1, NULL, MP_KV_F16);
    run_pieces(e, 0, WHOLE, got);
    for (int round = 0; round < 20; round++) {
        run_pieces(e, (uint32_t)round % 4, WHOLE, other);
        assert_memory_equal(got, other, sizeof got);
    }
    mp_engine_seq_truncate(e, 0, 40); /* a cut sequence goes on as if the rest had never been */
    const mp_batch_token next = {.token = ids[40], .pos = 40, .logits = true};
    assert_ok(mp_engine_step(e, &next, 1, &err), &err);
    assert_memory_equal(mp_engine_logits(e, 0), got + 40 * VOCAB, VOCAB * sizeof *got);
    mp_engine_close(e);
    mp_model_close(m);
}

/* Scores that depend on the position are those of a model whose scale is changed from position to position. */
static void test_temperature(void **state)
{
    mp_error err;
    mp_model *m = open_golden(*state);
    mp_engine *e = open_engine(m, 2, NULL, MP_KV_F32);
    const float scale = m->hp.attention_scale;
    for (uint32_t t = 0; t < POSITIONS; t++) {
        const mp_batch_token one = {.token = ids[t], .pos = t, .logits = true};
        m->hp.attention_scale = scale * (1 + 0.3f * logf(1 + (float)(t / 20)));
        assert_ok(mp_engine_step(e, &one, 1, &err), &err);
        memcpy(other + (size_t)t * VOCAB, mp_engine_logits(e, 0), VOCAB * sizeof *other);
    }
    m->hp.attention_scale = scale;
    m->hp.temperature = 0.3f;
    m->hp.temperature_length = 20;
    run_pieces(e, 1, ODD, got);
    assert_memory_equal(got, other, sizeof got);
    run_pieces(e, 2, WHOLE, got);
    assert_memory_equal(got, other, sizeof got);
    mp_engine_close(e);
    mp_model_close(m);
}

static void test_plan_matches_parameters(void **state)
{
    (void)state;
    mp_error err;
    mp_plan small, large;
    mp_model *m = open_golden(&F32_GOLDEN);
    assert_ok(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 64, .n_seqs = 1}, &small, &err), &err);
    assert_ok(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 256, .n_seqs = 8}, &large, &err), &err);
    assert_true(large.kv_cache > 31 * small.kv_cache && large.kv_cache < 33 * small.kv_cache);
    assert_int_equal(small.weights_experts + small.weights_other, mp_model_get_info(m)->bytes_total);
    assert_int_equal(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 257}, &small, &err), MP_E_INVALID);
    mp_model_close(m);
}

int main(void)
{
    struct CMUnitTest tests[4 * N_GOLDEN + 5];
    size_t n = 0;
    for (size_t i = 0; i < N_GOLDEN; i++) {
        tests[n++] = (struct CMUnitTest){GOLDEN[i].name, test_golden, NULL, NULL, &GOLDEN[i]};
        tests[n++] =
            (struct CMUnitTest){"threads do not change bits", test_threads_do_not_change_bits, NULL, NULL, &GOLDEN[i]};
        tests[n++] = (struct CMUnitTest){"mixed batch", test_mixed_batch, NULL, NULL, &GOLDEN[i]};
        tests[n++] = (struct CMUnitTest){"temperature", test_temperature, NULL, NULL, &GOLDEN[i]};
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_bad_batches_change_nothing);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_cache_is_reused);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_cache_types);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_latent_cache_is_small);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_plan_matches_parameters);
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
