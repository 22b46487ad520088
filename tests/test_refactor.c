/* Refactoring: any split at full is the original, an artifact is what the format says, and a run that stops goes on. */
#include "testing.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "model/model.h"

#define DEMO        "models/demo-olmoe-q8_0.gguf"
#define CALIBRATION "models/calibration.txt"
#define HELDOUT     "models/heldout.txt"
#define POSITIONS   96
#define VOCAB       512

static char dir[] = "/tmp/moeprism-test-XXXXXX";
static char *calibration, *heldout;
static size_t calibration_len, heldout_len;

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int setup(void **state)
{
    (void)state;
    mp_error err;
    if (!mkdtemp(dir)) return -1;
    if (file_read(CALIBRATION, &calibration, &calibration_len, &err)) return -1;
    return file_read(HELDOUT, &heldout, &heldout_len, &err) ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    free(calibration);
    free(heldout);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* A quick run: 1024 tokens. */
static mp_refactor_params quick(void)
{
    return (mp_refactor_params){
        .calibration = calibration,
        .calibration_len = calibration_len,
        .max_tokens = 1024,
        .threads = 2,
        .solver = MP_SOLVER_SORT,
        .seed = 7,
    };
}

static mp_model *open_model(const char *path)
{
    mp_model *m;
    mp_error err;
    assert_ok(mp_model_open(path, NULL, &m, &err), &err);
    return m;
}

/* ---- full is the original ---- */

static void golden_logits(const char *path, float *out)
{
    mp_error err;
    mp_engine *e;
    int32_t ids[POSITIONS];
    mp_batch_token batch[POSITIONS];
    mp_model *m = open_model(path);
    read_ids(shared_path("golden/tokens.txt"), ids, POSITIONS);
    for (uint32_t t = 0; t < POSITIONS; t++) batch[t] = (mp_batch_token){.token = ids[t], .pos = t, .logits = true};
    assert_ok(mp_engine_open(m, &(mp_engine_params){.threads = 2, .kv_type = MP_KV_F32}, &e, &err), &err);
    assert_ok(mp_engine_step(e, batch, POSITIONS, &err), &err);
    for (size_t t = 0; t < POSITIONS; t++) memcpy(out + t * VOCAB, mp_engine_logits(e, t), VOCAB * sizeof *out);
    mp_engine_close(e);
    mp_model_close(m);
}

static void check_split(const char *name, double bound, uint32_t parts, mp_solver solver, mp_gate gate)
{
    static float expected[POSITIONS * VOCAB], got[POSITIONS * VOCAB];
    char path[64];
    mp_error err;
    mp_refactor_params p = quick();
    snprintf(path, sizeof path, "golden/%s.logits.f32", name);
    read_floats(shared_path(path), expected, POSITIONS * VOCAB);
    snprintf(path, sizeof path, "golden/%s.gguf", name);
    p.n_parts = parts;
    p.solver = solver;
    p.gate = gate;
    p.force = true;
    assert_ok(mp_refactor(shared_path(path), in_dir("golden.gguf"), &p, NULL, &err), &err);
    golden_logits(in_dir("golden.gguf"), got);
    assert_near(got, expected, POSITIONS * VOCAB, bound);
}

static void test_any_split_at_full_is_the_original(void **state)
{
    (void)state;
    if (access(shared_path("golden/tiny-olmoe-f32.gguf"), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path("golden/tiny-olmoe-f32.gguf"));
        skip();
    }
    for (uint32_t parts = 1; parts <= 128; parts *= 4)
        check_split("tiny-olmoe-f32", 1e-5, parts, MP_SOLVER_SORT, MP_GATE_PROBE);
    check_split("tiny-olmoe-f32", 1e-5, 32, MP_SOLVER_BCD, MP_GATE_PROXY);
    check_split("tiny-olmoe-f32", 1e-5, 8, MP_SOLVER_BCD, MP_GATE_LINEAR);
    check_split("tiny-olmoe-d256-f16", 3e-3, 16, MP_SOLVER_BCD, MP_GATE_PROBE);
    check_split("tiny-qwen2moe-f32", 1e-5, 16, MP_SOLVER_BCD, MP_GATE_PROBE);
    check_split("tiny-qwen3moe-f32", 1e-5, 32, MP_SOLVER_BCD, MP_GATE_PROBE);
    check_split("tiny-mixtral-f32", 1e-5, 4, MP_SOLVER_BCD, MP_GATE_PROXY);
    check_split("tiny-granitemoe-f32", 1e-5, 64, MP_SOLVER_BCD, MP_GATE_PROBE);
    check_split("tiny-deepseek2-f32", 1e-4, 8, MP_SOLVER_BCD, MP_GATE_PROBE);
}

/* ---- the artifact ---- */

static void check_copied_tensors(const gguf *from, const gguf *to)
{
    for (size_t i = 0; i < gguf_n_tensors(from); i++) {
        const gguf_tensor *a = gguf_tensor_at(from, i), *b = gguf_find_tensor(to, a->name);
        if (strstr(a->name, "_exps.weight")) {
            assert_null(b);
            continue;
        }
        assert_non_null(b);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
}

/* Every neuron once, its gate and up rows bit for bit where the order says they are. */
static void check_layer(const mp_model *from, const mp_model *to, uint32_t layer)
{
    char name[64];
    const moe_shape *s = &to->moe[layer].shape;
    const moe_weights *a = &from->moe[layer].w, *b = &to->moe[layer].w;
    snprintf(name, sizeof name, "blk.%u.ffn_perm", layer);
    const gguf_tensor *perm = gguf_find_tensor(to->file, name);
    assert_non_null(perm);
    assert_int_equal(perm->dims[0], s->width);
    assert_int_equal(perm->dims[1], s->n_experts);
    for (uint32_t e = 0; e < s->n_experts; e++) {
        const int32_t *order = (const int32_t *)perm->data + (size_t)e * s->width;
        uint8_t seen[1024] = {0};
        for (uint32_t i = 0; i < s->width; i++) {
            const uint32_t sub = e * s->n_parts + i / s->part_width, row = i % s->part_width,
                           neuron = (uint32_t)order[i];
            assert_true(neuron < s->width && !seen[neuron]++);
            assert_memory_equal(tensor_row(&a->gate, e, neuron), tensor_row(&b->gate_up, sub, row), a->gate.row_bytes);
            assert_memory_equal(tensor_row(&a->up, e, neuron), tensor_row(&b->gate_up, sub, s->part_width + row),
                                a->up.row_bytes);
        }
    }
}

/* How often sub-experts run near half of the compute adds up to that budget, and differs between them. */
static void check_use(const mp_model *m, uint32_t layer)
{
    const moe_shape *s = &m->moe[layer].shape;
    const float *use = m->moe[layer].w.use;
    const uint32_t subs = s->n_parts * s->n_experts;
    double sum = 0, first = 0, most = 0;
    assert_non_null(use);
    for (uint32_t i = 0; i < subs; i++) {
        sum += (double)use[i];
        first += i % s->n_parts ? 0 : (double)use[i];
        most = fmax(most, (double)use[i]);
    }
    assert_true(fabs(sum / moe_full_budget(s) - 0.5) < 0.06);
    assert_true(first > 1.2 * sum / s->n_parts); /* the first of an expert matters most */
    assert_true(most > 2 * sum / subs && most <= 1);
}

static void test_artifact_holds_what_the_format_says(void **state)
{
    (void)state;
    mp_error err;
    mp_refactor_params p = quick();
    mp_refactor_report report;
    p.eval = heldout;
    p.eval_len = 24000;
    p.max_eval_tokens = 1024;
    assert_ok(mp_refactor(DEMO, in_dir("a.gguf"), &p, &report, &err), &err);
    mp_model *from = open_model(DEMO), *to = open_model(in_dir("a.gguf"));
    const mp_model_info *info = mp_model_get_info(to);
    check_copied_tensors(from->file, to->file);
    for (uint32_t l = 0; l < info->n_layers; l++) {
        check_layer(from, to, l);
        check_use(to, l);
    }
    assert_int_equal(gguf_alignment(to->file), 4096);
    assert_int_equal(info->n_parts, 32);
    assert_true(info->n_points >= 12);
    assert_int_equal(info->calibration_tokens, 1024);
    for (uint32_t i = 0; i < info->n_points; i++) {
        const mp_point *point = mp_model_point(to, i);
        assert_true(point->measured && point->ppl > 1 && point->kl_mean >= 0);
        if (i) assert_true(point->compute_share < mp_model_point(to, i - 1)->compute_share);
    }
    assert_true(mp_model_point(to, info->n_points - 1)->kl_mean > mp_model_point(to, 1)->kl_mean);
    assert_int_equal(report.n_layers, info->n_layers);
    assert_true(report.layers[0].gate_r2 > 0.2 && report.layers[0].requant_rmse < 0.01);
    mp_refactor_report_clear(&report);
    mp_model_close(from);
    mp_model_close(to);
}

/* The full point of an artifact, requantized down matrices and all. */
static void test_full_point_keeps_the_perplexity(void **state)
{
    (void)state;
    mp_error err;
    mp_eval_result r;
    mp_model *from = open_model(DEMO), *to = open_model(in_dir("a.gguf"));
    const uint32_t points[] = {0, 4};
    const mp_eval_params p = {.text = heldout,
                              .len = heldout_len,
                              .n_ctx = 256,
                              .max_tokens = 4096,
                              .points = points,
                              .n_points = 2,
                              .against = from};
    assert_ok(mp_eval(to, &p, &r, &err), &err);
    assert_true(fabs(r.points[0].ppl / r.against_ppl - 1) < 0.002);
    assert_true(r.points[0].kl_mean < 1e-3);
    assert_true(r.points[1].kl_mean > r.points[0].kl_mean && r.points[1].ppl / r.against_ppl < 1.1);
    mp_eval_result_clear(&r);
    mp_model_close(from);
    mp_model_close(to);
}

static void test_requests_map_to_points(void **state)
{
    (void)state;
    mp_error err;
    uint32_t point;
    mp_model *m = open_model(in_dir("a.gguf"));
    const uint32_t last = mp_model_get_info(m)->n_points - 1;
    assert_ok(mp_model_find_point(m, MP_QUALITY_COMPUTE, 1, &point, &err), &err);
    assert_int_equal(point, 0);
    assert_ok(mp_model_find_point(m, MP_QUALITY_COMPUTE, 0.5, &point, &err), &err);
    assert_true(fabs(mp_model_point(m, point)->compute_share - 0.5) < 0.03);
    assert_ok(mp_model_find_point(m, MP_QUALITY_EXPERTS, 2, &point, &err), &err);
    assert_true(fabs(mp_model_point(m, point)->experts - 2) < 0.2);
    assert_ok(mp_model_find_point(m, MP_QUALITY_MAX_PPL_INCREASE, 10, &point, &err), &err);
    assert_int_equal(point, last);
    assert_int_equal(mp_model_find_point(m, MP_QUALITY_POINT, last + 1, &point, &err), MP_E_INVALID);
    assert_int_equal(mp_model_find_point(m, MP_QUALITY_COMPUTE, 1.5, &point, &err), MP_E_INVALID);
    assert_int_equal(mp_model_find_point(m, MP_QUALITY_EXPERTS, NAN, &point, &err), MP_E_INVALID);
    mp_model_close(m);
}

/* ---- same input, same bytes ---- */

static void assert_same_file(const char *a, const char *b)
{
    mp_error err;
    file_map x, y;
    assert_ok(file_map_open(a, &x, &err), &err);
    assert_ok(file_map_open(b, &y, &err), &err);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    file_map_close(&x);
    file_map_close(&y);
}

static void test_threads_do_not_change_a_byte(void **state)
{
    (void)state;
    mp_error err;
    mp_refactor_params p = quick();
    p.solver = MP_SOLVER_BCD;
    assert_ok(mp_refactor(DEMO, in_dir("two.gguf"), &p, NULL, &err), &err);
    p.threads = 1;
    assert_ok(mp_refactor(DEMO, in_dir("one.gguf"), &p, NULL, &err), &err);
    assert_same_file(in_dir("one.gguf"), in_dir("two.gguf"));
}

typedef struct stop_at {
    int layer;
    int started; /* first layer that was split in this run */
} stop_at;

static bool stop_in_layer(void *user, const mp_progress *progress)
{
    stop_at *s = user;
    if (s->started < 0 && !strcmp(progress->stage, "partition")) s->started = progress->layer;
    return progress->layer < s->layer || strcmp(progress->stage, "partition") != 0;
}

static void test_an_interrupted_run_goes_on(void **state)
{
    (void)state;
    mp_error err;
    mp_refactor_params p = quick();
    stop_at stop = {.layer = 2, .started = -1};
    p.solver = MP_SOLVER_BCD;
    p.progress = stop_in_layer;
    p.user = &stop;
    assert_int_equal(mp_refactor(DEMO, in_dir("stopped.gguf"), &p, NULL, &err), MP_E_INTERRUPTED);
    assert_int_not_equal(access(in_dir("stopped.gguf"), F_OK), 0);

    mp_refactor_params changed = p;
    changed.resume = true;
    changed.seed++;
    assert_int_equal(mp_refactor(DEMO, in_dir("stopped.gguf"), &changed, NULL, &err), MP_E_FORMAT);

    stop = (stop_at){.layer = 99, .started = -1};
    p.resume = true;
    assert_ok(mp_refactor(DEMO, in_dir("stopped.gguf"), &p, NULL, &err), &err);
    assert_int_equal(stop.started, 2);
    assert_same_file(in_dir("stopped.gguf"), in_dir("two.gguf"));
    assert_int_not_equal(access(in_dir("stopped.gguf.resume"), F_OK), 0);
}

/* ---- bad input ---- */

static void refuse(const char *model, const char *out, const mp_refactor_params *p, mp_status status, const char *says)
{
    mp_error err = {0};
    assert_int_equal(mp_refactor(model, out, p, NULL, &err), status);
    if (!strstr(err.message, says)) fail_msg("'%s' does not say '%s'", err.message, says);
}

static void test_bad_input_is_refused(void **state)
{
    (void)state;
    mp_refactor_params p = quick();
    char out[256], *odd = strdup("a text that is \xff not UTF-8");
    snprintf(out, sizeof out, "%s", in_dir("never.gguf")); /* in_dir() reuses its buffers */
    p.n_parts = 3;
    refuse(DEMO, out, &p, MP_E_INVALID, "divisor");
    p = quick();
    p.calibration_len = 0;
    refuse(DEMO, out, &p, MP_E_INVALID, "empty");
    p.calibration_len = 100;
    refuse(DEMO, out, &p, MP_E_INVALID, "too short");
    p.calibration = odd;
    p.calibration_len = strlen(odd);
    refuse(DEMO, out, &p, MP_E_INVALID, "UTF-8");
    p = quick();
    p.type = "Q9_9";
    refuse(DEMO, out, &p, MP_E_INVALID, "Q8_0");
    p = quick();
    p.gate_rank = 257;
    refuse(DEMO, out, &p, MP_E_INVALID, "rank");
    p = quick();
    refuse(in_dir("a.gguf"), out, &p, MP_E_INVALID, "split already");
    refuse(in_dir("nothing.gguf"), out, &p, MP_E_IO, "nothing.gguf");
    refuse(DEMO, in_dir("a.gguf"), &p, MP_E_EXISTS, "--force");
    p.force = true;
    refuse(in_dir("a.gguf"), in_dir("a.gguf"), &p, MP_E_INVALID, "the model itself");
    refuse(DEMO, in_dir("no/such/place.gguf"), &p, MP_E_IO, "place.gguf");
    assert_int_not_equal(access(out, F_OK), 0);
    free(odd);
}

/* a.gguf with the bytes at `find` [n] + skip changed into others. */
static const char *changed_artifact(const char *find, size_t skip, const void *bytes, size_t n)
{
    mp_error err;
    char *data;
    size_t len;
    assert_ok(file_read(in_dir("a.gguf"), &data, &len, &err), &err);
    char *at = memmem(data, len, find, strlen(find));
    assert_non_null(at);
    memcpy(at + skip, bytes, n);
    FILE *f = fopen(in_dir("changed.gguf"), "wb");
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
    free(data);
    return in_dir("changed.gguf");
}

/* Artifacts from before uses were recorded open as ever; uses that are no shares are refused. */
static void test_uses_may_be_missing_but_not_wrong(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_model(changed_artifact("blk.0.ffn_subs_use", 14, "xxx", 3));
    assert_null(m->moe[0].w.use);
    assert_non_null(m->moe[1].w.use);
    mp_model_close(m);
    m = open_model(in_dir("a.gguf"));
    const gguf_tensor *t = gguf_find_tensor(m->file, "blk.2.ffn_subs_use.weight");
    int part;
    uint64_t offset;
    assert_true(gguf_locate(m->file, t->data, &part, &offset));
    mp_model_close(m);
    const float wrong[] = {NAN, -0.5F, 1.5F};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *path = changed_artifact("GGUF", (size_t)offset, &wrong[i], sizeof wrong[i]);
        assert_int_equal(mp_model_open(path, NULL, &m, &err), MP_E_FORMAT);
        assert_non_null(strstr(err.message, "blk.2.ffn_subs_use.weight"));
    }
}

/* An artifact of a newer version says so instead of being misread. */
static void test_newer_artifacts_are_refused(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m;
    const char *path = changed_artifact("moeprism.version", 16 + 4, "\2", 1); /* past the type word */
    assert_int_equal(mp_model_open(path, NULL, &m, &err), MP_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "version 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_split_at_full_is_the_original),
        cmocka_unit_test(test_artifact_holds_what_the_format_says),
        cmocka_unit_test(test_full_point_keeps_the_perplexity),
        cmocka_unit_test(test_requests_map_to_points),
        cmocka_unit_test(test_threads_do_not_change_a_byte),
        cmocka_unit_test(test_an_interrupted_run_goes_on),
        cmocka_unit_test(test_bad_input_is_refused),
        cmocka_unit_test(test_uses_may_be_missing_but_not_wrong),
        cmocka_unit_test(test_newer_artifacts_are_refused),
    };
    return cmocka_run_group_tests_name("refactor", tests, setup, teardown);
}
