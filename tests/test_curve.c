/* Perplexity and KL: against llama-perplexity's numbers, against a plain rewriting of the formulas, and its refusals.
 */
#include "testing.h"

#include <unistd.h>

#include "base/file.h"
#include "refactor/curve.h"

#define DEMO    "models/demo-olmoe-q8_0.gguf"
#define HELDOUT "models/heldout.txt"
#define LONG    700 /* a chunk of more than one step */

/* Bytes of the text that make 64 and 16 chunks of 256 tokens and a rest; both end a line. */
#define CHUNKS_64 62625
#define CHUNKS_16 16513

static char dir[] = "/tmp/moeprism-test-XXXXXX", patched[sizeof dir + 16], damaged[sizeof dir + 16];
static char *text;
static size_t text_len;
static mp_model *demo;

/* The demo model for longer contexts, with a file's rule that a text begins with BOS; damaged: with a norm of NaN. */
static mp_status write_copy(const char *path, bool damage, mp_error *err)
{
    static float nans[256];
    const gguf *from = demo->file;
    gguf_writer *w = NULL;
    MP_TRY(gguf_writer_new(32, &w, err));
    mp_status status = MP_OK;
    for (size_t i = 0; i < gguf_n_keys(from) && !status; i++) {
        size_t bytes;
        const void *raw = gguf_key_raw(from, i, &bytes);
        status = gguf_set_raw(w, gguf_key_name(from, i), gguf_key_type(from, i), raw, bytes, err);
    }
    if (!status) status = gguf_set_u32(w, "olmoe.context_length", 4 * LONG, err);
    if (!status) status = gguf_set_bool(w, "tokenizer.ggml.add_bos_token", true, err);
    for (size_t i = 0; i < gguf_n_tensors(from) && !status; i++) {
        const gguf_tensor *t = gguf_tensor_at(from, i);
        status = gguf_add_tensor(w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, err);
    }
    if (!status) status = gguf_writer_begin(w, path, false, 0, err);
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) nans[i] = NAN;
    for (size_t i = 0; i < gguf_n_tensors(from) && !status; i++) {
        const gguf_tensor *t = gguf_tensor_at(from, i);
        status = gguf_writer_data(w, damage && !strcmp(t->name, "output_norm.weight") ? nans : t->data, t->bytes, err);
    }
    if (!status) status = gguf_writer_commit(w, err);
    gguf_writer_free(w);
    return status;
}

static int setup(void **state)
{
    (void)state;
    mp_error err;
    if (!mkdtemp(dir)) return -1;
    snprintf(patched, sizeof patched, "%s/patched.gguf", dir);
    snprintf(damaged, sizeof damaged, "%s/damaged.gguf", dir);
    if (file_read(HELDOUT, &text, &text_len, &err) || mp_model_open(DEMO, NULL, &demo, &err)) return -1;
    return write_copy(patched, false, &err) || write_copy(damaged, true, &err) ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    mp_model_close(demo);
    free(text);
    unlink(patched);
    unlink(damaged);
    return rmdir(dir);
}

static mp_eval_params params_of(uint32_t n_ctx, uint64_t max_tokens, const uint32_t *points, size_t n_points)
{
    return (mp_eval_params){
        .text = text,
        .len = text_len,
        .n_ctx = n_ctx,
        .max_tokens = max_tokens,
        .points = points,
        .n_points = n_points,
        .threads = 2,
    };
}

static mp_eval_result eval(const mp_model *m, mp_eval_params p)
{
    mp_eval_result r;
    mp_error err;
    assert_ok(mp_eval(m, &p, &r, &err), &err);
    assert_int_equal(r.n_points, p.n_points);
    return r;
}

static void assert_within(double value, double expected, double relative)
{
    if (!(fabs(value - expected) <= relative * expected)) fail_msg("%.5f, expected %.5f", value, expected);
}

/* ---- llama-perplexity ---- */

/* Context 256, the first 64 chunks; experts set by overriding the file's number. */
static void test_golden_perplexity(void **state)
{
    (void)state;
    static const uint32_t points[] = {0, 4, 6};
    static const double golden[3][2] = {{48.4863, 1.40257}, {49.6482, 1.45883}, {54.3921, 1.61739}};
    mp_eval_params p = params_of(256, 0, points, 3);
    p.len = CHUNKS_64;
    mp_eval_result r = eval(demo, p);
    assert_int_equal(r.n_chunks, 64);
    assert_int_equal(r.tokens, 64 * 127);
    for (size_t i = 0; i < 3; i++) {
        assert_within(r.points[i].ppl, golden[i][0], 0.003);
        assert_within(r.points[i].ppl_se, golden[i][1], 0.003);
        assert_int_equal(r.points[i].point, points[i]);
        assert_true(r.points[i].compute_share == 1 - points[i] / 8.0);
        assert_true(r.points[i].experts == 8.0 - points[i]);
        assert_true(r.points[i].tokens_per_s > 0);
    }
    assert_true(r.points[0].ppl == r.against_ppl && r.points[0].ppl_se == r.against_ppl_se);
    assert_true(r.points[0].kl_mean == 0 && r.points[0].kl_p99 == 0 && r.points[0].same_top == 1);
    /* four experts against eight; it keeps the reference's logarithms as 16-bit numbers */
    assert_within(r.points[1].kl_mean, 0.031815, 0.01);
    assert_within(r.points[1].kl_p99, 0.185243, 0.03);
    assert_within(r.points[1].same_top, 0.85827, 0.005);
    mp_eval_result_clear(&r);
}

/* Where mixing weights are not renormalised, fewer experts by override are a rung of the whole ladder. */
static void test_override_is_a_rung(void **state)
{
    (void)state;
    static const uint32_t rung = 4, full = 0;
    const mp_model_params override = {.override_experts = 4};
    mp_model *four;
    mp_error err;
    assert_ok(mp_model_open(DEMO, &override, &four, &err), &err);
    mp_eval_params p = params_of(256, 8 * 256, &rung, 1);
    mp_eval_result a = eval(demo, p);
    p.points = &full;
    p.against = demo;
    mp_eval_result b = eval(four, p);
    assert_true(a.points[0].ppl == b.points[0].ppl);
    assert_true(a.points[0].kl_mean == b.points[0].kl_mean && a.points[0].kl_mean > 0);
    assert_true(a.against_ppl == b.against_ppl);
    mp_eval_result_clear(&a);
    mp_eval_result_clear(&b);
    mp_model_close(four);
}

static void test_golden_bos(void **state)
{
    (void)state;
    static const uint32_t full = 0;
    mp_model *m;
    mp_error err;
    assert_ok(mp_model_open(patched, NULL, &m, &err), &err);
    mp_eval_params p = params_of(256, 0, &full, 1);
    p.len = CHUNKS_16;
    mp_eval_result with = eval(m, p), without = eval(demo, p);
    assert_int_equal(with.n_chunks, 16);
    assert_int_equal(without.n_chunks, 16);
    assert_within(with.points[0].ppl, 50.7077, 0.003);
    assert_within(without.points[0].ppl, 51.1488, 0.003);
    mp_eval_result_clear(&with);
    mp_eval_result_clear(&without);
    mp_model_close(m);
}

/* ---- the formulas, written plainly ---- */

/* Log-probabilities [n_ctx, vocab] of one chunk, a token at a time. */
static double *log_probabilities(mp_engine *e, uint32_t n_vocab, const int32_t *ids, size_t n, int32_t bos,
                                 uint32_t point)
{
    mp_error err;
    double *out = malloc(n * n_vocab * sizeof *out);
    assert_non_null(out);
    mp_engine_seq_truncate(e, 0, 0);
    for (size_t t = 0; t < n; t++) {
        const mp_batch_token b = {
            .token = t || bos < 0 ? ids[t] : bos, .pos = (uint32_t)t, .point = point, .logits = true};
        double log_sum = 0;
        assert_ok(mp_engine_step(e, &b, 1, &err), &err);
        const float *z = mp_engine_logits(e, 0);
        for (size_t i = 0; i < n_vocab; i++) log_sum += exp((double)z[i]);
        log_sum = log(log_sum);
        for (size_t i = 0; i < n_vocab; i++) out[t * n_vocab + i] = (double)z[i] - log_sum;
    }
    return out;
}

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static mp_eval_point expected_point(const double *ref, const double *lp, size_t n_vocab, const int32_t *ids, size_t n)
{
    mp_eval_point out = {0};
    double sum = 0, squares = 0, kls[LONG];
    size_t count = 0;
    for (size_t t = n / 2; t < n - 1; t++, count++) {
        const double *r = ref + t * n_vocab, *p = lp + t * n_vocab, nll = -p[ids[t + 1]];
        size_t top = 0, ref_top = 0;
        kls[count] = 0;
        for (size_t i = 0; i < n_vocab; i++) {
            kls[count] += exp(r[i]) * (r[i] - p[i]);
            if (p[i] > p[top]) top = i;
            if (r[i] > r[ref_top]) ref_top = i;
        }
        sum += nll;
        squares += nll * nll;
        out.same_top += top == ref_top;
        out.kl_mean += kls[count];
    }
    const double c = (double)count, mean = sum / c, at = 0.99 * (c - 1);
    qsort(kls, count, sizeof *kls, rising);
    out.ppl = exp(mean);
    out.ppl_se = out.ppl * sqrt((squares / c - mean * mean) / (c - 1));
    out.same_top /= c;
    out.kl_mean /= c;
    out.kl_p99 = kls[(size_t)at] + (at - floor(at)) * (kls[(size_t)at + 1] - kls[(size_t)at]);
    return out;
}

/* Chunks of `n` tokens, enough for one; n > 512 takes several steps. */
static void check_formulas(size_t n, int32_t bos)
{
    static const uint32_t points[] = {7, 0};
    mp_model *m;
    mp_engine *e;
    mp_error err;
    mp_eval_result got;
    int32_t ids[LONG];
    assert_ok(mp_model_open(patched, NULL, &m, &err), &err);
    assert_ok(mp_engine_open(m, &(mp_engine_params){.threads = 2, .n_ctx = LONG}, &e, &err), &err);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 7919 + i * i) % 4096);
    double *full = log_probabilities(e, m->hp.n_vocab, ids, n, bos, 0);
    double *least = log_probabilities(e, m->hp.n_vocab, ids, n, bos, 7);
    const mp_eval_point want = expected_point(full, least, m->hp.n_vocab, ids, n);
    const mp_eval_point want_full = expected_point(full, full, m->hp.n_vocab, ids, n);
    const curve_params p = {
        .tokens = ids, .n_tokens = n, .n_ctx = (uint32_t)n, .bos = bos, .points = points, .n_points = 2, .threads = 2};
    assert_ok(curve_measure(m, &p, &got, &err), &err);
    assert_within(got.points[0].ppl, want.ppl, 1e-6);
    assert_within(got.points[0].ppl_se, want.ppl_se, 1e-6);
    assert_within(got.points[0].kl_mean, want.kl_mean, 1e-5);
    assert_within(got.points[0].kl_p99, want.kl_p99, 1e-5);
    assert_true(got.points[0].same_top == want.same_top);
    assert_within(got.points[1].ppl, want_full.ppl, 1e-6);
    assert_within(got.against_ppl, want_full.ppl, 1e-6);
    assert_int_equal(got.tokens, n - 1 - n / 2);
    assert_true(got.text_sha256[0] == 0);
    mp_eval_result_clear(&got);
    free(full);
    free(least);
    mp_engine_close(e);
    mp_model_close(m);
}

static void test_formulas(void **state)
{
    (void)state;
    check_formulas(CURVE_MIN_CTX, -1);
    check_formulas(33, -1);
    check_formulas(33, 5);
}

static void test_chunks_longer_than_a_step(void **state)
{
    (void)state;
    check_formulas(LONG, 5);
}

/* ---- itself ---- */

/* Chunks share steps in groups of 10 here, 25 of them: the last group is smaller. */
static void test_threads_do_not_matter(void **state)
{
    (void)state;
    static const uint32_t points[] = {3, 7};
    mp_eval_params p = params_of(50, 25 * 50 + 49, points, 2);
    mp_eval_result a = eval(demo, p);
    p.threads = 3;
    mp_eval_result b = eval(demo, p);
    assert_int_equal(a.n_chunks, 25);
    for (size_t i = 0; i < 2; i++) {
        a.points[i].tokens_per_s = b.points[i].tokens_per_s = 0;
        assert_memory_equal(&a.points[i], &b.points[i], sizeof a.points[i]);
    }
    assert_true(a.points[0].kl_mean < a.points[1].kl_mean);
    mp_eval_result_clear(&a);
    mp_eval_result_clear(&b);
}

static void test_against_a_copy_of_itself(void **state)
{
    (void)state;
    static const uint32_t full = 0;
    mp_model *copy;
    mp_error err;
    assert_ok(mp_model_open(DEMO, NULL, &copy, &err), &err);
    mp_eval_params p = params_of(64, 4 * 64, &full, 1);
    p.against = copy;
    mp_eval_result r = eval(demo, p);
    assert_true(r.points[0].kl_mean == 0 && r.points[0].kl_p99 == 0 && r.points[0].same_top == 1);
    assert_true(r.points[0].ppl == r.against_ppl);
    mp_eval_result_clear(&r);
    mp_model_close(copy);
}

static void test_whole_ladder_by_default(void **state)
{
    (void)state;
    mp_eval_params p = params_of(32, 2 * 32, NULL, 0);
    mp_eval_result r;
    mp_error err;
    char sha[65];
    assert_ok(mp_eval(demo, &p, &r, &err), &err);
    sha256_hex(text, text_len, sha);
    assert_string_equal(r.text_sha256, sha);
    assert_int_equal(r.n_points, 8);
    for (uint32_t i = 0; i < 8; i++) assert_int_equal(r.points[i].point, i);
    mp_eval_result_clear(&r);
}

/* 5 of the text's 16 chunks: numbers 0, 3, 6, 9 and 12. */
static void test_part_of_a_text(void **state)
{
    (void)state;
    static const uint32_t full = 0;
    enum { N = 256 };
    static int32_t ids[CHUNKS_16];
    mp_eval_params part = params_of(N, 6 * N - 1, &full, 1);
    mp_eval_result got, want;
    mp_error err;
    size_t n;
    part.len = CHUNKS_16;
    got = eval(demo, part);
    assert_int_equal(got.n_chunks, 5);
    assert_ok(mp_tokenize(demo, text, CHUNKS_16, MP_TOKENIZE_BOS, ids, CHUNKS_16, &n, &err), &err);
    for (size_t i = 0; i < 5; i++) memmove(ids + i * N, ids + 3 * i * N, N * sizeof *ids);
    const curve_params whole = {
        .tokens = ids, .n_tokens = 5 * N, .n_ctx = N, .bos = -1, .points = &full, .n_points = 1, .threads = 2};
    assert_ok(curve_measure(demo, &whole, &want, &err), &err);
    assert_true(got.points[0].ppl == want.points[0].ppl);
    mp_eval_result_clear(&got);
    mp_eval_result_clear(&want);
}

typedef struct watch {
    uint64_t calls, last, total, stop_at;
} watch;

static bool observe(void *user, const mp_progress *p)
{
    watch *w = user;
    assert_string_equal(p->stage, "evaluate");
    assert_string_equal(p->unit, "tokens");
    assert_true(p->done > w->last && p->done <= p->total);
    w->last = p->done;
    w->total = p->total;
    return ++w->calls != w->stop_at;
}

static void test_progress(void **state)
{
    (void)state;
    static const uint32_t points[] = {1, 0, 2}, without_full[] = {1, 2};
    watch w = {0};
    mp_eval_params p = params_of(64, 9 * 64, points, 3);
    p.progress = observe;
    p.user = &w;
    mp_eval_result r = eval(demo, p);
    mp_eval_result_clear(&r);
    assert_int_equal(w.last, 3 * 9 * 64);
    assert_int_equal(w.total, w.last);
    w = (watch){0};
    p.points = without_full;
    p.n_points = 2;
    r = eval(demo, p); /* the reference runs all the same */
    mp_eval_result_clear(&r);
    assert_int_equal(w.last, 3 * 9 * 64);
}

static void test_interrupted(void **state)
{
    (void)state;
    mp_error err;
    mp_eval_result r;
    watch w = {.stop_at = 2};
    mp_eval_params p = params_of(64, 9 * 64, NULL, 0);
    p.progress = observe;
    p.user = &w;
    assert_int_equal(mp_eval(demo, &p, &r, &err), MP_E_INTERRUPTED);
    assert_int_equal(w.calls, 2);
    assert_null(r.points);
}

/* ---- refusals ---- */

static void assert_refused(const mp_eval_params *p, const char *part)
{
    mp_eval_result r;
    mp_error err;
    assert_int_equal(mp_eval(demo, p, &r, &err), MP_E_INVALID);
    if (!strstr(err.message, part)) fail_msg("'%s' does not say '%s'", err.message, part);
    assert_null(r.points);
    mp_eval_result_clear(&r);
}

static void test_refused_texts(void **state)
{
    (void)state;
    mp_eval_params p = params_of(256, 0, NULL, 0);
    p.len = 0;
    assert_refused(&p, "empty");
    p.text = NULL;
    assert_refused(&p, "empty");
    p.text = "abc\xff"
             "def";
    p.len = 7;
    assert_refused(&p, "byte 3 is 0xff");
    p.text = "too short";
    p.len = 9;
    assert_refused(&p, "at least 512");
}

static void test_refused_parameters(void **state)
{
    (void)state;
    static const uint32_t missing = 8;
    mp_eval_params p = params_of(CURVE_MIN_CTX - 1, 0, NULL, 0);
    assert_refused(&p, "choose 8 to 256");
    p.n_ctx = 257;
    assert_refused(&p, "choose 8 to 256");
    p = params_of(256, 255, NULL, 0);
    assert_refused(&p, "limit of 255");
    p = params_of(256, 512, &missing, 1);
    assert_refused(&p, "point 8");
    p = params_of(256, 512, NULL, 0);
    p.isa = "no-such";
    mp_eval_result r;
    mp_error err;
    assert_int_equal(mp_eval(demo, &p, &r, &err), MP_E_UNSUPPORTED);
}

static void test_refused_tokens(void **state)
{
    (void)state;
    int32_t ids[16] = {0};
    mp_eval_result r;
    mp_error err;
    curve_params p = {.tokens = ids, .n_tokens = 15, .n_ctx = 16, .bos = -1};
    assert_int_equal(curve_measure(demo, &p, &r, &err), MP_E_INVALID);
    p.n_tokens = 16;
    ids[15] = (int32_t)demo->hp.n_vocab;
    assert_int_equal(curve_measure(demo, &p, &r, &err), MP_E_INVALID);
    ids[15] = -1;
    assert_int_equal(curve_measure(demo, &p, &r, &err), MP_E_INVALID);
}

static void test_refused_logits(void **state)
{
    (void)state;
    mp_model *m;
    mp_error err;
    mp_eval_result r;
    assert_ok(mp_model_open(damaged, NULL, &m, &err), &err);
    const mp_eval_params p = params_of(32, 64, NULL, 0);
    assert_int_equal(mp_eval(m, &p, &r, &err), MP_E_FORMAT);
    assert_null(r.points);
    mp_model_close(m);
}

static void test_refused_vocabulary(void **state)
{
    (void)state;
    mp_model *tiny;
    mp_error err;
    if (access(shared_path("golden/tiny-olmoe-f32.gguf"), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path("golden/tiny-olmoe-f32.gguf"));
        skip();
    }
    assert_ok(mp_model_open(shared_path("golden/tiny-olmoe-f32.gguf"), NULL, &tiny, &err), &err);
    mp_eval_params p = params_of(256, 512, NULL, 0);
    p.against = tiny;
    assert_refused(&p, "vocabulary");
    mp_model_close(tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_perplexity),
        cmocka_unit_test(test_override_is_a_rung),
        cmocka_unit_test(test_golden_bos),
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_chunks_longer_than_a_step),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_against_a_copy_of_itself),
        cmocka_unit_test(test_whole_ladder_by_default),
        cmocka_unit_test(test_part_of_a_text),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_refused_texts),
        cmocka_unit_test(test_refused_parameters),
        cmocka_unit_test(test_refused_tokens),
        cmocka_unit_test(test_refused_logits),
        cmocka_unit_test(test_refused_vocabulary),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
