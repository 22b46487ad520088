/* Exports at full are the source, whatever the family; what cannot be exported costs nothing. */
#include "testing.h"

#include <unistd.h>

#include "base/file.h"
#include "model/model.h"
#include "refactor/expert_types.h"

#define DEMO "models/demo-olmoe-q8_0.gguf"

static char dir[] = "/tmp/moeprism-test-XXXXXX", artifact[64], out[64];
static char *calibration;
static size_t calibration_len;

static void split(const char *source, uint32_t parts)
{
    mp_error err;
    const mp_refactor_params params = {.calibration = calibration,
                                       .calibration_len = calibration_len,
                                       .n_parts = parts,
                                       .solver = MP_SOLVER_SORT,
                                       .gate = MP_GATE_LINEAR,
                                       .max_tokens = 1024,
                                       .threads = 2,
                                       .force = true};
    assert_ok(mp_refactor(source, artifact, &params, NULL, &err), &err);
}

static mp_export_report export(const char *source, uint32_t parts, const char *type)
{
    mp_error err;
    mp_export_report report;
    const mp_export_params params = {.source = source, .parts = parts, .type = type, .force = true};
    assert_ok(mp_export(artifact, out, &params, &report, &err), &err);
    mp_export_report_clear(&report);
    assert_ok(mp_export(artifact, out, &params, &report, &err), &err); /* replaces */
    return report;
}

static void test_every_family(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"olmoe", "qwen2moe", "qwen3moe", "mixtral", "granitemoe", "deepseek2"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char name[64], source[4096];
        mp_model *m;
        mp_error err;
        snprintf(name, sizeof name, "golden/tiny-%s-f32.gguf", NAMES[i]);
        snprintf(source, sizeof source, "%s", shared_path(name));
        if (access(source, R_OK)) {
            print_message("SKIPPED: %s is not here\n", source);
            skip();
        }
        split(source, 8);
        mp_export_report report = export(source, 4, NULL);
        assert_true(report.max_difference < (i == 5 ? 1e-4 : 1e-5));
        assert_true(report.requant_rmse[0] == 0);
        assert_false(report.widened);
        assert_ok(mp_model_open(out, NULL, &m, &err), &err);
        assert_int_equal(mp_model_get_info(m)->n_experts, report.experts);
        assert_int_equal(mp_model_get_info(m)->n_experts_used, report.experts_used);
        assert_int_equal(mp_model_get_info(m)->artifact_version, 0);
        mp_model_close(m);
        mp_export_report_clear(&report);
    }
}

static void test_quantized(void **state)
{
    (void)state;
    split(DEMO, 8);
    mp_export_report report = export(DEMO, 0, NULL);
    assert_int_equal(report.parts, 4);
    assert_int_equal(report.experts, 128);
    assert_string_equal(report.down_type, "Q8_0");
    assert_true(report.requant_rmse[0] > 0 && report.requant_rmse[0] < 0.01 && report.kl_mean < 1e-3);
    mp_export_report_clear(&report);
    report = export(DEMO, 8, NULL); /* 16 neurons are no block */
    assert_string_equal(report.down_type, "F16");
    assert_true(report.widened);
    mp_export_report_clear(&report);
    report = export(DEMO, 1, "Q5_1");
    assert_string_equal(report.down_type, "Q5_1");
    assert_true(report.requant_rmse[0] > 0.01 && report.requant_rmse[0] < 0.06);
    mp_export_report_clear(&report);
}

/* The mixtures of llama.cpp: gate and up of one type, the down matrices of some layers of a larger one. */
static void test_mixture(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m;
    split(DEMO, 8);
    mp_export_report report = export(DEMO, 1, "q4_k_m");
    assert_ok(mp_model_open(out, NULL, &m, &err), &err);
    assert_int_equal(m->hp.n_layers, 4);
    for (uint32_t l = 0; l < 4; l++) { /* rows of 128 take the type of 32s above: Q5_0 for Q4_K, Q8_0 for Q6_K */
        assert_int_equal(m->moe[l].w.gate.type, DTYPE_Q4_K);
        assert_int_equal(m->moe[l].w.up.type, DTYPE_Q4_K);
        assert_int_equal(m->moe[l].w.down.type, l >= 2 ? DTYPE_Q8_0 : DTYPE_Q5_0);
    }
    assert_true(report.widened && report.requant_rmse[0] > 2 * report.requant_rmse[3]);
    mp_model_close(m);
    mp_export_report_clear(&report);
}

static void test_types_by_layer(void **state)
{
    (void)state;
    static const bool more[16] = {[0] = 1, [1] = 1, [4] = 1, [7] = 1, [10] = 1, [13] = 1, [14] = 1, [15] = 1};
    mp_error err;
    expert_types t;
    for (uint32_t l = 0; l < 16; l++) {
        assert_ok(expert_types_of("Q5_K_M", l, 16, &t, &err), &err);
        assert_true(t.gate_up == DTYPE_Q5_K && t.down == (more[l] ? DTYPE_Q6_K : DTYPE_Q5_K));
        assert_ok(expert_types_of("q5_1", l, 16, &t, &err), &err);
        assert_true(t.gate_up == DTYPE_Q5_1 && t.down == DTYPE_Q5_1);
    }
    assert_int_equal(expert_types_of("Q4_K_S", 0, 16, &t, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "Q4_K_M, Q5_K_M"));
}

/* A copy of the router's first row for every part, in place. */
static void test_router_rows_repeat(void **state)
{
    (void)state;
    mp_error err;
    mp_model *a, *b;
    split(DEMO, 8);
    mp_export_report report = export(DEMO, 2, NULL);
    mp_export_report_clear(&report);
    assert_ok(mp_model_open(DEMO, NULL, &a, &err), &err);
    assert_ok(mp_model_open(out, NULL, &b, &err), &err);
    for (uint32_t e = 0; e < 64; e++)
        assert_memory_equal(tensor_row(&b->moe[1].w.router, 0, e), tensor_row(&a->moe[1].w.router, 0, e / 2),
                            a->moe[1].w.router.row_bytes);
    mp_model_close(a);
    mp_model_close(b);
}

static void refuse(const char *from, mp_export_params params, mp_status status, const char *says)
{
    mp_error err;
    assert_int_equal(mp_export(from, out, &params, NULL, &err), status);
    if (!strstr(err.message, says)) fail_msg("\"%s\" does not say \"%s\"", err.message, says);
}

static bool stop(void *user, const mp_progress *progress)
{
    (void)user;
    return strcmp(progress->stage, "write") || progress->done < 5;
}

static void test_refusals_leave_nothing(void **state)
{
    (void)state;
    split(DEMO, 8);
    unlink(out);
    refuse(DEMO, (mp_export_params){.source = DEMO}, MP_E_INVALID, "not split");
    refuse(artifact, (mp_export_params){.source = artifact}, MP_E_INVALID, "is split");
    refuse(artifact, (mp_export_params){.source = DEMO, .parts = 3}, MP_E_INVALID, "1, 2, 4, 8");
    refuse(artifact, (mp_export_params){.source = DEMO, .parts = 16}, MP_E_INVALID, "1, 2, 4, 8");
    refuse(artifact, (mp_export_params){.source = DEMO, .type = "Q9"}, MP_E_INVALID, "unknown type");
    refuse(artifact, (mp_export_params){.source = "missing.gguf"}, MP_E_IO, "missing.gguf");
    refuse(artifact, (mp_export_params){.source = DEMO, .progress = stop}, MP_E_INTERRUPTED, "interrupted");
    assert_int_not_equal(access(out, F_OK), 0);
    mp_export_report report = export(DEMO, 2, NULL);
    mp_export_report_clear(&report);
    refuse(artifact, (mp_export_params){.source = DEMO}, MP_E_EXISTS, "exists");
}

static void test_inputs_are_not_outputs(void **state)
{
    (void)state;
    split(DEMO, 8);
    mp_error err;
    const mp_export_params params = {.source = DEMO, .force = true};
    assert_int_equal(mp_export(artifact, artifact, &params, NULL, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "choose another name"));
    assert_int_equal(mp_export(artifact, DEMO, &params, NULL, &err), MP_E_INVALID);
}

static int setup(void **state)
{
    (void)state;
    mp_error err;
    if (!mkdtemp(dir)) return -1;
    snprintf(artifact, sizeof artifact, "%s/artifact.gguf", dir);
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    return file_read("models/calibration.txt", &calibration, &calibration_len, &err) ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    free(calibration);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family),           cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_router_rows_repeat),     cmocka_unit_test(test_refusals_leave_nothing),
        cmocka_unit_test(test_inputs_are_not_outputs), cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_types_by_layer),
    };
    return cmocka_run_group_tests_name("export", tests, setup, teardown);
}
