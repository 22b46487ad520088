/* Cost files: written and read back, every part missing or wrong, and what makes one not count; what the measurement
 * tells of the store. */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cost_file.h"
#include "cli/cost_measure.h"
#include "refusal.h"
#include "testing.h"

static mp_error err;
static char dir[] = "/tmp/moeprism-test-XXXXXX", path[64];

static cost_file sample(void)
{
    cost_file f = {
        .model_file = "m.gguf",
        .model_name = "A \"model\"",
        .model_bytes = 123456789012,
        .machine = {.cpu = "A CPU", .isa = "avx2", .threads = 3},
        .in_memory = true,
        .memory = 1 << 30,
        .date = "2026-01-02T03:04:05Z",
        .kv_type = MP_KV_Q8_0,
        .slots = 8,
        .step_tokens = 512,
        .context = 4096,
        .cost = {.shape = {.used = 0.125}, .ns = {1e6, 2.5e5, 0, 1e8, 1e-3, 7}, .correction = 1, .error_median = 0.05},
        .points = {{1, 0}, {0.5, 0.01}, {0.25, 0.03}},
        .n_points = 3};
    return f;
}

static void write_text(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_path(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a/m.gguf", "a/m.cost.json"},
                                           {"m", "m.cost.json"},
                                           {".gguf", ".gguf.cost.json"},
                                           {"x.gguf.y", "x.gguf.y.cost.json"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *made = cost_file_path(cases[i][0]);
        assert_string_equal(made, cases[i][1]);
        free(made);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    const cost_file f = sample();
    cost_file back;
    assert_ok(cost_file_write(&f, json_array(), path, &err), &err);
    assert_ok(cost_file_read(path, &back, &err), &err);
    assert_string_equal(back.model_name, f.model_name);
    assert_string_equal(back.date, f.date);
    assert_true(back.model_bytes == f.model_bytes && back.in_memory && back.memory == f.memory && !back.quick &&
                back.kv_type == MP_KV_Q8_0);
    assert_true(back.slots == 8 && back.step_tokens == 512 && back.context == 4096 && back.machine.threads == 3);
    assert_memory_equal(&back.cost, &f.cost, sizeof f.cost);
    assert_int_equal(back.n_points, 3);
    assert_memory_equal(back.points, f.points, 3 * sizeof *f.points);
    assert_null(cost_file_mismatch(&back, &f));
}

static void test_mismatch(void **state)
{
    (void)state;
    const cost_file want = sample();
    cost_file have[10];
    for (size_t i = 0; i < 10; i++) have[i] = want;
    have[0].model_bytes++;
    have[1].n_points--;
    have[2].points[1].share = 0.51;
    have[3].machine.threads = 2;
    have[4].machine.isa[0] = 'x';
    have[5].machine.cpu[0] = 'x';
    have[6].in_memory = false;
    have[7].kv_type = MP_KV_F16;
    have[8].slots = 4;
    have[9].memory = 0;
    for (size_t i = 0; i < 10; i++)
        if (cost_file_mismatch(&have[i], &want) == NULL) fail_msg("change %zu went unnoticed", i);
    cost_file more = want;
    more.slots = 16;
    assert_null(cost_file_mismatch(&more, &want));
}

static void refuses(const json_t *root, const char *name, const char *how)
{
    cost_file out;
    char *dumped = json_dumps(root, 0);
    write_text(dumped);
    free(dumped);
    const mp_status status = cost_file_read(path, &out, &err);
    if (status != MP_E_FORMAT || strstr(err.message, path) == NULL)
        fail_msg("%s %s: status %d, %s", name, how, status, err.message);
}

/* Takes every value of the object away, and replaces it by ones that it cannot be. */
static size_t damage(const json_t *root, json_t *object)
{
    char *keys[16];
    const char *key;
    json_t *value;
    size_t n = 0, tried = 0;
    json_object_foreach(object, key, value) keys[n++] = strdup(key); /* the order changes below */
    for (size_t i = 0; i < n; i++) {
        json_t *kept = json_incref(json_object_get(object, keys[i]));
        if (json_is_object(kept)) tried += damage(root, kept);
        json_object_del(object, keys[i]);
        refuses(root, keys[i], "missing");
        json_object_set_new(object, keys[i], json_null());
        refuses(root, keys[i], "null");
        json_object_set_new(object, keys[i], json_is_string(kept) ? json_integer(-1) : json_string("?"));
        refuses(root, keys[i], "of another type");
        json_object_set_new(object, keys[i], kept);
        free(keys[i]);
        tried += 3;
    }
    return tried;
}

static void test_every_value_is_needed(void **state)
{
    (void)state;
    const cost_file f = sample();
    assert_ok(cost_file_write(&f, NULL, path, &err), &err);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    json_object_del(json_object_get(root, "machine"), "version"); /* told to people only */
    assert_true(damage(root, root) > 60);
    json_decref(root);
}

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "line"},
        {"{", "line 1"},
        {"[]", "not a cost file"},
        {"{\"moeprism_cost\": 1}", "another version"},
        {"{\"moeprism_cost\": 2}", "model"},
    };
    cost_file out;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(cases[i].text);
        assert_int_equal(cost_file_read(path, &out, &err), MP_E_FORMAT);
        if (strstr(err.message, cases[i].says) == NULL) fail_msg("%s: %s", cases[i].text, err.message);
    }
    unlink(path);
    assert_int_equal(cost_file_read(path, &out, &err), MP_E_IO);
}

/* Numbers that no measurement gives. */
static void test_out_of_range(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++) {
        cost_file f = sample(), out;
        if (i == 0) f.cost.ns[2] = -1;
        if (i == 1) f.cost.shape.used = 1.5;
        if (i == 2) f.points[1].share = 1.5;
        if (i == 3) f.points[2].share = 0.75; /* dearer than the point before */
        if (i == 4) f.points[2].loss = 0.005;
        if (i == 5) f.n_points = 0;
        if (i == 6) f.slots = 0;
        assert_ok(cost_file_write(&f, NULL, path, &err), &err);
        if (cost_file_read(path, &out, &err) != MP_E_FORMAT) fail_msg("case %d was read", i);
    }
}

/* ---- the measurement ---- */

typedef struct attempt {
    mp_model *model;
    bool quick, refused;
    mp_status status;
} attempt;

static bool stop_at_once(void *user, const mp_progress *now)
{
    (void)user;
    (void)now;
    return false;
}

/* Begins to measure where the system has no io_uring; another thread judges. */
static void *measure_without_io_uring(void *arg)
{
    attempt *a = arg;
    mp_plan plan;
    cost_steps steps;
    cost_measure_params params = {
        .engine = {.n_ctx = 256, .n_seqs = 1, .n_batch = 64}, .quick = a->quick, .progress = stop_at_once};
    a->refused = refusal_install(&(refusal){SYS_io_uring_setup, EPERM, 0});
    a->status = mp_engine_plan(a->model, &params.engine, &plan, NULL);
    params.engine.store.memory = plan.experts_least;
    if (a->status == MP_OK) a->status = cost_measure(a->model, &params, &steps, NULL);
    cost_steps_clear(&steps);
    return NULL;
}

/* Once, where the user asked for the measurement; a server that measures quickly opens another engine and tells then.
 */
static void test_notice(void **state)
{
    (void)state;
    mp_model *model;
    assert_ok(mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err), &err);
    for (int quick = 0; quick < 2; quick++) {
        attempt a = {.model = model, .quick = quick};
        pthread_t thread;
        char *said;
        size_t len;
        fflush(stderr);
        const int console = dup(STDERR_FILENO), file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_true(console >= 0 && dup2(file, STDERR_FILENO) >= 0);
        const int failed = pthread_create(&thread, NULL, measure_without_io_uring, &a);
        if (!failed) pthread_join(thread, NULL);
        fflush(stderr);
        assert_true(dup2(console, STDERR_FILENO) >= 0);
        close(console);
        close(file);
        assert_int_equal(failed, 0);
        assert_true(a.refused);
        assert_int_equal(a.status, MP_E_INTERRUPTED);
        assert_ok(file_read(path, &said, &len, &err), &err);
        const char *told = strstr(said, "moeprism: io_uring does not work here");
        if (quick ? len > 0 : !told || !strstr(told, "reading with threads\n") || strstr(told + 1, "moeprism:"))
            fail_msg("%s", said);
        free(said);
    }
    mp_model_close(model);
}

static int make_dir(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(path, sizeof path, "%s/m.cost.json", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),      cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_mismatch),  cmocka_unit_test(test_every_value_is_needed),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_notice),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
