/* Where weights are: with experts on disk everything else is in memory of our own, whatever becomes of the files. */
#include "disk_testing.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/stat.h>

static mp_model *open_model(const char *path, bool copied)
{
    mp_error err;
    mp_model *m;
    const mp_model_params params = {.weights = copied ? MP_WEIGHTS_COPIED : MP_WEIGHTS_MAPPED};
    assert_ok(mp_model_open(path, &params, &m, &err), &err);
    return m;
}

static const char *copy_path(void)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/copy.gguf", directory);
    return path;
}

static void copy_file(const char *from)
{
    char *bytes;
    size_t len;
    mp_error err;
    assert_ok(file_read(from, &bytes, &len, &err), &err);
    FILE *f = fopen(copy_path(), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    free(bytes);
}

static bool is_expert(const gguf_tensor *t)
{
    return strstr(t->name, "_exps.") || strstr(t->name, "_subs.");
}

/* ---- the same bits ---- */

static void check_same_bits(const char *path, const mp_model *mapped)
{
    const size_t bytes = TEXT * mp_model_get_info(mapped)->n_vocab * sizeof(float);
    const uint64_t caps[] = {least_memory(mapped), mp_model_get_info(mapped)->bytes_experts - 1};
    mp_engine *e = open_engine(mapped, 2, (mp_store_params){0});
    float *expected = run_text(mapped, e, 0);
    mp_engine_close(e);
    for (int i = 0; i < 6; i++) { /* capped or not, a model that was opened for either */
        mp_model *m = open_model(path, i % 2);
        e = open_engine(m, 1 + (uint32_t)i % 2, (mp_store_params){.memory = i < 4 ? caps[i / 2] : 0});
        float *got = run_text(m, e, 0);
        assert_memory_equal(got, expected, bytes);
        free(got);
        mp_engine_close(e);
        mp_model_close(m);
    }
    free(expected);
}

static void test_same_bits(void **state)
{
    (void)state;
    char path[160];
    check_same_bits(split_path, split);
    check_same_bits(DEMO, whole);
    write_parts(split_path);
    part_path(path, 0);
    check_same_bits(path, split);
    remove_parts();
}

/* ---- what is in memory of our own ---- */

/* Whether the page at p, which must not be writable, is a file's. */
static bool is_files_page(const void *p)
{
    char line[512], rights[8] = "";
    bool found = false, of_file = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (!found && fgets(line, sizeof line, maps)) {
        uintptr_t begin, end, inode;
        assert_int_equal(sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %" SCNuPTR, &begin, &end, rights, &inode),
                         4);
        found = (uintptr_t)p >= begin && (uintptr_t)p < end;
        of_file = inode != 0;
    }
    fclose(maps);
    assert_true(found);
    assert_int_equal(rights[1], '-');
    return of_file;
}

/* `experts`, `others`: whether they should be pages of a file. Of experts the middle is asked: at their ends they share
 * pages with others. */
static void assert_pages(const mp_model *m, bool experts, bool others)
{
    for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        const uint8_t *data = t->data;
        if (is_expert(t)) {
            assert_int_equal(is_files_page(data + t->bytes / 2), experts);
        } else {
            assert_int_equal(is_files_page(data), others);
            assert_int_equal(is_files_page(data + t->bytes - 1), others);
        }
    }
    size_t bytes;
    assert_int_equal(is_files_page(gguf_key_raw(m->file, 0, &bytes)), others);
}

static void check_pages(const char *path)
{
    const mp_store_params capped = {.memory = least_memory(split)};
    mp_error err;
    for (int copied = 0; copied < 2; copied++) {
        mp_model *m = open_model(path, copied);
        assert_pages(m, true, true);
        mp_engine *e = open_engine(m, 1, capped), *other;
        assert_pages(m, true, false);
        mp_engine_close(open_engine(m, 1, capped)); /* once is enough */
        assert_pages(m, true, false);
        other = open_engine(m, 1, (mp_store_params){0});
        assert_pages(m, !copied, false);
        const mp_engine_params late = {.n_ctx = 64, .store = capped};
        if (copied) {
            mp_engine *none;
            assert_int_equal(mp_engine_open(m, &late, &none, &err), MP_E_INVALID);
            assert_non_null(strstr(err.message, "in memory already"));
        }
        free(run_text(m, e, 0)); /* nobody took anything away */
        mp_engine_close(e);
        mp_engine_close(other);
        mp_model_close(m);
    }
}

static void test_pages(void **state)
{
    (void)state;
    char path[160];
    check_pages(split_path);
    write_parts(split_path);
    part_path(path, 0);
    check_pages(path);
    remove_parts();
}

static bool is_left_mapped(const char *path)
{
    mp_error err;
    mp_model *m;
    mp_plan plan;
    assert_ok(mp_model_open(path, &(mp_model_params){.weights = MP_WEIGHTS_AUTO}, &m, &err), &err);
    assert_ok(mp_engine_plan(m, &(mp_engine_params){.n_ctx = 64}, &plan, &err), &err);
    mp_engine *e = open_engine(m, 1, (mp_store_params){0});
    assert_pages(m, plan.weights_mapped, plan.weights_mapped);
    mp_engine_close(e);
    mp_model_close(m);
    return plan.weights_mapped;
}

/* A small model is copied, but not where kernels would gain nothing by it. */
static void test_auto(void **state)
{
    (void)state;
    mp_error err;
    char *text;
    size_t len;
    assert_ok(file_read("models/calibration.txt", &text, &len, &err), &err);
    const mp_refactor_params params = {.calibration = text,
                                       .calibration_len = len,
                                       .n_parts = PARTS,
                                       .max_tokens = 512,
                                       .solver = MP_SOLVER_SORT,
                                       .type = "F16"};
    assert_ok(mp_refactor(DEMO, copy_path(), &params, NULL, &err), &err);
    assert_false(is_left_mapped(split_path));
    assert_true(is_left_mapped(copy_path()));
    unlink(copy_path());
    free(text);
}

/* What does not fit is refused before anything is brought to memory. */
static void test_refused_first(void **state)
{
    (void)state;
    mp_error err;
    mp_engine *e;
    mp_model *m = open_model(split_path, false);
    const mp_engine_params params = {.n_ctx = 64, .store = {.memory = least_memory(m) - 1}};
    assert_int_equal(mp_engine_open(m, &params, &e, &err), MP_E_LIMIT);
    assert_pages(m, true, true);
    mp_model_close(m);
}

/* ---- files that are cut or changed ---- */

/* The model as it is when a capped engine, the first, has brought everything but the experts to memory. */
static mp_model *open_capped(void)
{
    mp_model *m = open_model(split_path, false);
    mp_engine_close(open_engine(m, 2, (mp_store_params){.memory = least_memory(m)}));
    return m;
}

/* Everything but the experts, byte by byte. */
static void assert_intact(const mp_model *m, const mp_model *original)
{
    for (size_t i = 0; i < gguf_n_keys(original->file); i++) {
        size_t bytes, there;
        const void *expected = gguf_key_raw(original->file, i, &bytes), *raw = gguf_key_raw(m->file, i, &there);
        assert_int_equal(there, bytes);
        assert_memory_equal(raw, expected, bytes);
    }
    for (size_t i = 0; i < gguf_n_tensors(original->file); i++) {
        const gguf_tensor *expected = gguf_tensor_at(original->file, i);
        if (is_expert(expected)) continue;
        const gguf_tensor *t = gguf_find_tensor(m->file, expected->name);
        assert_non_null(t);
        assert_memory_equal(t->data, expected->data, expected->bytes);
    }
}

static bool has_experts(const mp_model *m, int part)
{
    bool has = false;
    for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        has |= t->part == part && is_expert(t);
    }
    return has;
}

/* One token at a point other than full, so that the gate is asked. */
static mp_status step(mp_engine *e, uint32_t at, mp_error *err)
{
    return mp_engine_step(e, &(mp_batch_token){.token = ids[at], .pos = at, .point = 2}, 1, err);
}

/* Cuts a file of the model while an engine runs. A page of it that is still mapped would end this program. Steps that
 * find what they want in memory go on; the first that does not fails, and so do all after it. */
static void check_cut(mp_model *m, int part)
{
    mp_error err;
    uint32_t len = 1;
    const char *cut = gguf_part_path(m->file, part);
    mp_engine *e = open_engine(m, 2, (mp_store_params){.memory = least_memory(m)});
    assert_ok(step(e, 0, &err), &err);
    assert_int_equal(truncate(cut, 0), 0);
    while (len < TEXT && step(e, len, &err) == MP_OK) len++;
    assert_int_equal(len < TEXT, has_experts(m, part));
    for (int i = 0; i < 3 && len < TEXT; i++) {
        assert_int_equal(step(e, len, &err), MP_E_CHANGED);
        assert_non_null(strstr(err.message, cut));
        assert_int_equal(mp_engine_seq_len(e, 0), len);
    }
    mp_engine_close(e);
}

static void test_cut_file(void **state)
{
    (void)state;
    mp_error err;
    mp_engine *e;
    copy_file(split_path);
    mp_model *m = open_model(copy_path(), false);
    const mp_engine_params again = {.n_ctx = 64, .store = {.memory = least_memory(m)}};
    mp_model *original = open_capped();
    check_cut(m, 0);
    assert_intact(m, original);
    mp_model_close(original);
    assert_int_equal(mp_engine_open(m, &again, &e, &err), MP_E_CHANGED);
    mp_model_close(m);
    unlink(copy_path());
}

/* One file of several, with experts or without, and then the others too. */
static void test_cut_parts(void **state)
{
    (void)state;
    char first[160], path[160];
    mp_model *original = open_capped();
    part_path(first, 0);
    for (int part = 0; part < FILES; part++) {
        write_parts(split_path);
        mp_model *m = open_model(first, false);
        check_cut(m, part);
        for (int i = 0; i < FILES; i++) {
            part_path(path, i);
            assert_int_equal(truncate(path, 0), 0);
        }
        for (size_t i = 0; i < gguf_n_tensors(m->file); i++) {
            const gguf_tensor *t = gguf_tensor_at(m->file, i), *expected = gguf_find_tensor(original->file, t->name);
            if (!is_expert(t)) assert_memory_equal(t->data, expected->data, t->bytes);
        }
        mp_model_close(m);
        remove_parts();
    }
    mp_model_close(original);
}

/* A file that is no longer what was opened gives no engine: neither its experts nor the rest would be the model's. */
static void test_changed_before(void **state)
{
    (void)state;
    const struct timespec past[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    for (int copied = 0; copied < 2; copied++) {
        mp_error err;
        mp_engine *e;
        copy_file(split_path);
        mp_model *m = open_model(copy_path(), copied);
        const mp_engine_params params = {.n_ctx = 64, .store = {.memory = copied ? 0 : least_memory(m)}};
        assert_int_equal(utimensat(AT_FDCWD, copy_path(), past, 0), 0);
        assert_int_equal(mp_engine_open(m, &params, &e, &err), MP_E_CHANGED);
        assert_non_null(strstr(err.message, copy_path()));
        mp_model_close(m);
        unlink(copy_path());
    }
}

/* ---- loading ---- */

typedef struct heard {
    uint64_t n, done, total;
    bool stop, goes_back;
} heard;

static bool hear(void *user, const mp_progress *now)
{
    heard *h = user;
    assert_string_equal(now->stage, "load");
    assert_string_equal(now->unit, "bytes");
    h->n++;
    if (now->done <= h->done || (h->total && now->total != h->total)) h->goes_back = true;
    h->done = now->done;
    h->total = now->total;
    return !h->stop;
}

static void check_progress(const char *path)
{
    mp_error err;
    mp_engine *e;
    const mp_model_info *info = mp_model_get_info(split);
    for (int capped = 0; capped < 2; capped++) {
        heard h = {.stop = true};
        mp_model *m = open_model(path, true);
        const mp_engine_params params = {
            .n_ctx = 64, .store = {.memory = capped ? least_memory(m) : 0}, .progress = hear, .user = &h};
        assert_int_equal(mp_engine_open(m, &params, &e, &err), MP_E_INTERRUPTED);
        assert_null(e);
        assert_int_equal(h.n, 1);
        h = (heard){0};
        assert_ok(mp_engine_open(m, &params, &e, &err), &err);
        assert_int_equal(h.done, h.total);
        assert_false(h.goes_back);
        const uint64_t least = info->bytes_total - (capped ? info->bytes_experts : 0);
        assert_true(h.total >= least && h.total < least + info->bytes_experts);
        const uint64_t n = h.n;
        mp_engine *other;
        assert_ok(mp_engine_open(m, &params, &other, &err), &err);
        assert_int_equal(h.n, n); /* what is there is not loaded again */
        mp_engine_close(e);
        mp_engine_close(other);
        mp_model_close(m);
    }
}

/* One load, of one file or of several. */
static void test_progress(void **state)
{
    (void)state;
    char path[160];
    check_progress(split_path);
    write_parts(split_path);
    part_path(path, 0);
    check_progress(path);
    remove_parts();
}

/* A proxy gate looks at the first neurons of sub-experts that are not in memory: not at the file, whatever becomes of
 * it. */
static void test_proxy_gate(void **state)
{
    (void)state;
    mp_error err;
    mp_plan plan;
    char *text;
    size_t len;
    const mp_model_info *info;
    assert_ok(file_read("models/calibration.txt", &text, &len, &err), &err);
    const mp_refactor_params params = {.calibration = text,
                                       .calibration_len = len,
                                       .n_parts = PARTS,
                                       .max_tokens = 1024,
                                       .solver = MP_SOLVER_SORT,
                                       .gate = MP_GATE_PROXY};
    assert_ok(mp_refactor(DEMO, copy_path(), &params, NULL, &err), &err);
    free(text);
    mp_model *m = open_model(copy_path(), false);
    info = mp_model_get_info(m);
    const mp_engine_params capped = {.n_ctx = 64, .store = {.memory = least_memory(m)}};
    assert_ok(mp_engine_plan(m, &capped, &plan, &err), &err);
    assert_int_equal(plan.weights_other - (info->bytes_total - info->bytes_experts), proxies_bytes(m));
    assert_true(proxies_bytes(m) > 0 && proxies_bytes(m) < info->bytes_experts / 2);
    check_same_bits(copy_path(), m);
    check_cut(m, 0);
    mp_engine *e;
    assert_int_equal(mp_engine_open(m, &capped, &e, &err), MP_E_CHANGED);
    mp_model_close(m);
    unlink(copy_path());
}

typedef struct opener {
    const mp_model *model;
    uint64_t memory;
    float *logits;
    pthread_t thread;
} opener;

static void *open_and_run(void *arg)
{
    opener *o = arg;
    mp_engine *e = open_engine(o->model, 1, (mp_store_params){.memory = o->memory});
    o->logits = run_text(o->model, e, 0);
    mp_engine_close(e);
    return NULL;
}

/* Engines that open while others run: what is copied beneath a running one does not disturb it. */
static void test_threads(void **state)
{
    (void)state;
    enum { ENGINES = 4 };
    opener openers[ENGINES];
    mp_model *m = open_model(split_path, false);
    for (int i = 0; i < ENGINES; i++) {
        openers[i] = (opener){.model = m, .memory = i == 0 ? 0 : least_memory(m)};
        assert_int_equal(pthread_create(&openers[i].thread, NULL, open_and_run, &openers[i]), 0);
    }
    for (int i = 0; i < ENGINES; i++) {
        assert_int_equal(pthread_join(openers[i].thread, NULL), 0);
        assert_memory_equal(openers[i].logits, openers[0].logits,
                            TEXT * mp_model_get_info(m)->n_vocab * sizeof *openers[i].logits);
        if (i > 0) free(openers[i].logits);
    }
    free(openers[0].logits);
    mp_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_pages),    cmocka_unit_test(test_auto),
        cmocka_unit_test(test_refused_first),  cmocka_unit_test(test_cut_file), cmocka_unit_test(test_cut_parts),
        cmocka_unit_test(test_changed_before), cmocka_unit_test(test_progress), cmocka_unit_test(test_proxy_gate),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
