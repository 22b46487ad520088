/* Metrics: the text's form, sums and buckets, updates from many threads. */
#include "testing.h"

#include <pthread.h>

#include "serve/metrics.h"

static mp_model *model;

static int open_model(void **state)
{
    (void)state;
    mp_error err;
    return (int)mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err);
}

static int close_model(void **state)
{
    (void)state;
    mp_model_close(model);
    return 0;
}

static metrics *open_metrics(void)
{
    metrics *m;
    mp_error err;
    assert_ok(metrics_new(model, &m, &err), &err);
    return m;
}

static char *render(const metrics *m)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    metrics_render(m, f);
    fclose(f);
    return text;
}

/* The value behind a series' name and labels. */
static double value(const char *text, const char *series)
{
    const size_t n = strlen(series);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, series, n) == 0 && line[n] == ' ') return strtod(line + n, NULL);
    }
    fail_msg("no series %s", series);
    return 0;
}

static void test_values(void **state)
{
    (void)state;
    metrics *m = open_metrics();
    metrics_outcome(m, OUTCOME_STOP);
    metrics_outcome(m, OUTCOME_STOP);
    metrics_outcome(m, OUTCOME_REFUSED_QUEUE);
    metrics_tokens(m, 1, 10, true, 7.5, 0.25, 0.5);
    metrics_tokens(m, 0, 3, false, 3, NAN, NAN); /* not measured: not counted */
    metrics_drawn(m, 4);
    metrics_prefix(m, 100, 64);
    metrics_step(m, 2000000, 3000000, 4000000, 500000000);
    metrics_gauges(m, 3, 2, 40, 17);
    metrics_connections(m, 1);
    metrics_connections(m, 1);
    metrics_connections(m, -1);
    metrics_layers(m, (const uint64_t[]){5, 6}, (const uint64_t[]){10, 12}, 2);
    metrics_store(m, &(mp_store_stats){.hits = 7,
                                       .misses = 3,
                                       .bytes_read = 4096,
                                       .reads = 6,
                                       .stall_ns = 250000000,
                                       .memory = 8192,
                                       .resident_bytes = 4096,
                                       .depth_mean = 2.5});
    char *text = render(m);
    assert_true(value(text, "moeprism_store_hits_total") == 7);
    assert_true(value(text, "moeprism_store_misses_total") == 3);
    assert_true(value(text, "moeprism_store_read_bytes_total") == 4096);
    assert_true(value(text, "moeprism_store_reads_total") == 6);
    assert_true(value(text, "moeprism_store_stall_seconds_total") == 0.25);
    assert_true(value(text, "moeprism_store_memory_bytes") == 8192);
    assert_true(value(text, "moeprism_store_resident_bytes") == 4096);
    assert_true(value(text, "moeprism_store_read_depth_mean") == 2.5);
    assert_true(value(text, "moeprism_requests_total{outcome=\"stop\"}") == 2);
    assert_true(value(text, "moeprism_requests_total{outcome=\"refused_queue\"}") == 1);
    assert_true(value(text, "moeprism_requests_total{outcome=\"failed\"}") == 0);
    assert_true(value(text, "moeprism_tokens_total{kind=\"prompt\"}") == 10);
    assert_true(value(text, "moeprism_tokens_total{kind=\"generated\"}") == 4);
    assert_true(value(text, "moeprism_point_tokens_total{point=\"1\"}") == 10);
    assert_true(value(text, "moeprism_expert_compute_tokens_total") == 10.5);
    assert_true(value(text, "moeprism_log_perplexity_increase_total") == 0.25);
    assert_true(value(text, "moeprism_log_perplexity_increase_promised_total") == 0.5);
    assert_true(value(text, "moeprism_prefix_hit_tokens_total") == 64);
    assert_true(value(text, "moeprism_step_overhead_seconds_total") == 0.5);
    assert_true(value(text, "moeprism_step_uncorrected_seconds_total") == 0.003);
    assert_true(value(text, "moeprism_step_seconds_sum") == 0.004);
    assert_true(value(text, "moeprism_step_predicted_seconds_bucket{le=\"0.002\"}") == 1);
    assert_true(value(text, "moeprism_kv_pages_used") == 17);
    assert_true(value(text, "moeprism_connections") == 1);
    assert_true(value(text, "moeprism_connections_total") == 2);
    assert_true(value(text, "moeprism_layer_subexperts_total{layer=\"1\"}") == 6);
    assert_true(value(text, "moeprism_layer_subexperts_full_total{layer=\"0\"}") == 10);
    free(text);
    metrics_free(m);
    metrics_free(NULL);
}

static void test_buckets(void **state)
{
    (void)state;
    metrics *m = open_metrics();
    metrics_ttft(m, 0);
    metrics_ttft(m, 999999);
    metrics_ttft(m, 40000000);
    metrics_ttft(m, 3600000000000);
    char *text = render(m);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_bucket{le=\"0.001\"}") == 2);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_bucket{le=\"0.03\"}") == 2);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_bucket{le=\"0.05\"}") == 3);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_bucket{le=\"100\"}") == 3);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_bucket{le=\"+Inf\"}") == 4);
    assert_true(value(text, "moeprism_time_to_first_token_seconds_count") == 4);
    free(text);
    metrics_free(m);
}

/* Every metric says what it is, once, before its series; counters end in _total and nothing else does. */
static void test_form(void **state)
{
    (void)state;
    metrics *m = open_metrics();
    char *text = render(m), name[128] = "", type[16] = "", *rest = NULL;
    size_t n = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char other[128];
        if (sscanf(line, "# HELP %127s ", other) == 1) {
            assert_true(strlen(line) > strlen("# HELP ") + strlen(other) + 10 && line[strlen(line) - 1] == '.');
            snprintf(name, sizeof name, "%s", other);
            n++;
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_int_equal(sscanf(line, "# TYPE %127s %15s", other, type), 2);
            assert_string_equal(other, name);
            const size_t len = strlen(name);
            assert_int_equal(strcmp(type, "counter") == 0, len > 6 && strcmp(name + len - 6, "_total") == 0);
        } else {
            assert_int_equal(strncmp(line, name, strlen(name)), 0);
            const char *space = strrchr(line, ' ');
            char *end;
            assert_non_null(space);
            (void)strtod(space, &end);
            assert_true(*end == '\0');
        }
    }
    assert_true(n > 20);
    free(text);
    metrics_free(m);
}

static void *count_many(void *m)
{
    for (int i = 0; i < 10000; i++) {
        metrics_inter_token(m, (uint64_t)i * 1000);
        metrics_tokens(m, 0, 1, true, 1, 0, 0);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    metrics *m = open_metrics();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, count_many, m), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    char *text = render(m);
    assert_true(value(text, "moeprism_tokens_total{kind=\"prompt\"}") == 40000);
    assert_true(value(text, "moeprism_inter_token_seconds_count") == 40000);
    free(text);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("metrics", tests, open_model, close_model);
}
