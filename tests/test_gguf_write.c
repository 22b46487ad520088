/* The GGUF writer: the same bytes again, changed headers, and nothing left behind when it fails. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file_map.h"
#include "gguf_sample.h"
#include "tensor/dtype.h"

static const uint64_t DIMS_8[] = {8};
static float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static void assert_ok(mp_status status)
{
    if (status != MP_OK) fail_msg("%s", err.message);
}

static gguf_writer *new_writer(size_t alignment)
{
    gguf_writer *w;
    assert_ok(gguf_writer_new(alignment, &w, &err));
    return w;
}

static gguf *open_file(const char *path)
{
    gguf *g;
    const gguf_types types = {dtype_row_bytes, dtype_list()};
    assert_ok(gguf_open(path, &types, &g, &err));
    return g;
}

static int files_in_folder(void)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void assert_same_files(const char *first, const char *second)
{
    file_map x, y;
    assert_ok(file_map_open(first, &x, &err));
    assert_ok(file_map_open(second, &y, &err));
    if (x.len != y.len || memcmp(x.data, y.data, x.len)) fail_msg("%s and its copy differ", first);
    file_map_close(&x);
    file_map_close(&y);
}

/* Every key and tensor of g in its order. The data goes in pieces of odd sizes. */
static void copy_all(const gguf *g, const char *path)
{
    gguf_writer *w = new_writer(gguf_alignment(g));
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        size_t len;
        const void *raw = gguf_key_raw(g, i, &len);
        assert_ok(gguf_set_raw(w, gguf_key_name(g, i), gguf_key_type(g, i), raw, len, &err));
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        assert_ok(gguf_add_tensor(w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, &err));
    }
    assert_ok(gguf_writer_begin(w, path, true, 0, &err));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        for (size_t at = 0, n; at < t->bytes; at += n) {
            n = t->bytes - at < 100003 ? t->bytes - at : 100003;
            assert_ok(gguf_writer_data(w, (const char *)t->data + at, n, &err));
        }
    }
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
}

static void assert_copies_to_itself(const char *path)
{
    const char *copy = in_folder("copy.gguf");
    gguf *g = open_file(path);
    copy_all(g, copy);
    gguf_close(g);
    assert_same_files(path, copy);
}

static void test_copy_synthetic(void **state)
{
    (void)state;
    put_sample(&b);
    save("sample.gguf");
    assert_copies_to_itself(in_folder("sample.gguf"));
    put_head(&b, 3, 1, 2); /* an alignment of its own, and a tensor whose padding is long */
    put_key(&b, "general.alignment", GGUF_U32, &(uint32_t){256}, 4);
    put_string_key(&b, "general.name", "x");
    put_tensor(&b, "t", 1, DIMS_8, 0, 0);
    put_align(&b, 256);
    put_data(&b, 32, 256);
    save("aligned.gguf");
    assert_copies_to_itself(in_folder("aligned.gguf"));
    put_head(&b, 3, 0, 1); /* no tensors: no padding either */
    put_string_key(&b, "general.name", "x");
    save("keys.gguf");
    assert_copies_to_itself(in_folder("keys.gguf"));
}

static void test_copy_real(void **state)
{
    (void)state;
    static const char *const folders[] = {"golden", "golden/vocab", "models"};
    const char *shared = getenv("MOEPRISM_SHARED");
    char path[1024];
    int copied = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", shared ? shared : "../shared", folders[i]);
        DIR *dir = opendir(path);
        if (!dir) continue;
        for (const struct dirent *entry; (entry = readdir(dir));) {
            const size_t len = strlen(entry->d_name);
            if (len < 5 || strcmp(entry->d_name + len - 5, ".gguf") != 0) continue;
            snprintf(path, sizeof path, "%s/%s/%s", shared ? shared : "../shared", folders[i], entry->d_name);
            assert_copies_to_itself(path);
            copied++;
        }
        closedir(dir);
    }
    if (copied) return;
    print_message("SKIPPED: no GGUF files in %s\n", shared ? shared : "../shared");
    skip();
}

/* ---- keys ---- */

static void set_one_of_each(gguf_writer *w)
{
    const gguf_string strings[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    assert_ok(gguf_set_u32(w, "u32", 7, &err));
    assert_ok(gguf_set_u64(w, "u64", 1ull << 40, &err));
    assert_ok(gguf_set_f32(w, "f32", 1.5f, &err));
    assert_ok(gguf_set_f64(w, "f64", 0.25, &err));
    assert_ok(gguf_set_bool(w, "bool", true, &err));
    assert_ok(gguf_set_string(w, "string", "text", &err));
    assert_ok(gguf_set_array(w, "array", GGUF_I16, ((int16_t[]){-1, 2}), 2, &err));
    assert_ok(gguf_set_array(w, "none", GGUF_F64, NULL, 0, &err));
    assert_ok(gguf_set_strings(w, "strings", strings, 3, &err));
}

static void assert_one_of_each(const gguf *g)
{
    uint32_t u32 = 0;
    uint64_t u64 = 0;
    float f32 = 0, f64 = 0;
    bool boolean = false;
    const char *text = "";
    int32_t *array;
    gguf_string *strings;
    size_t n = 9;
    enum gguf_type type;
    assert_ok(gguf_get_u32(g, "u32", &u32, &err));
    assert_ok(gguf_get_u64(g, "u64", &u64, &err));
    assert_ok(gguf_get_f32(g, "f32", &f32, &err));
    assert_ok(gguf_get_f32(g, "f64", &f64, &err));
    assert_ok(gguf_get_bool(g, "bool", &boolean, &err));
    assert_ok(gguf_get_cstring(g, "string", &text, &err));
    assert_true(u32 == 7 && u64 == 1ull << 40 && f32 == 1.5f && f64 == 0.25f && boolean);
    assert_string_equal(text, "text");
    assert_ok(gguf_array_len(g, "none", &type, &n, &err));
    assert_true(type == GGUF_F64 && n == 0);
    assert_ok(gguf_get_i32s(g, "array", &array, &n, &err));
    assert_true(n == 2 && array[0] == -1 && array[1] == 2);
    free(array);
    assert_ok(gguf_get_strings(g, "strings", &strings, &n, &err));
    assert_int_equal(n, 3);
    assert_int_equal(strings[1].len, 0);
    assert_memory_equal(strings[2].data, "a\0b", 3);
    free(strings);
}

static void write_one_of_each(const char *path)
{
    gguf_writer *w = new_writer(4096);
    set_one_of_each(w);
    assert_ok(gguf_add_tensor(w, "t", 0, 1, DIMS_8, sizeof values, &err));
    assert_ok(gguf_writer_begin(w, path, true, 0, &err));
    assert_ok(gguf_writer_data(w, values, sizeof values, &err));
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
}

static void test_keys(void **state)
{
    (void)state;
    const char *first = in_folder("first");
    write_one_of_each(first);
    write_one_of_each(in_folder("second"));
    assert_same_files(first, in_folder("second"));
    gguf *g = open_file(first);
    assert_one_of_each(g);
    assert_int_equal(gguf_alignment(g), 4096);
    assert_int_equal(gguf_tensor_at(g, 0)->offset, 4096);
    assert_int_equal(gguf_file_bytes(g), 8192);
    assert_memory_equal(gguf_tensor_at(g, 0)->data, values, sizeof values);
    gguf_close(g);
}

static void test_replace_and_remove(void **state)
{
    (void)state;
    uint32_t u32 = 0;
    gguf_writer *w = new_writer(32);
    assert_ok(gguf_set_u32(w, "a", 1, &err));
    assert_ok(gguf_set_string(w, "b", "x", &err));
    assert_ok(gguf_set_u32(w, "c", 3, &err));
    assert_ok(gguf_set_u32(w, "b", 2, &err)); /* another type, the same place */
    assert_ok(gguf_remove(w, "a"));
    assert_int_equal(gguf_remove(w, "a"), MP_E_INVALID);
    assert_ok(gguf_writer_begin(w, in_folder("out"), false, 0, &err));
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
    gguf *g = open_file(in_folder("out"));
    assert_int_equal(gguf_n_keys(g), 2);
    assert_string_equal(gguf_key_name(g, 0), "b");
    assert_ok(gguf_get_u32(g, "b", &u32, &err));
    assert_int_equal(u32, 2);
    assert_string_equal(gguf_key_name(g, 1), "c");
    gguf_close(g);
}

/* ---- a header written twice ---- */

static void test_rewrite(void **state)
{
    (void)state;
    const char *path = NULL, *text = "";
    char large[3000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    gguf_writer *w = new_writer(32);
    assert_ok(gguf_set_string(w, "name", "first", &err));
    assert_ok(gguf_add_tensor(w, "t", 0, 1, DIMS_8, sizeof values, &err));
    assert_ok(gguf_writer_begin(w, in_folder("out"), false, 2000, &err));
    assert_ok(gguf_writer_data(w, values, sizeof values, &err));
    assert_ok(gguf_writer_peek(w, &path, &err));
    gguf *g = open_file(path);
    assert_true(gguf_has(g, "general.padding"));
    assert_int_equal(gguf_tensor_at(g, 0)->offset, 2016);
    gguf_close(g);
    /* every length up to the largest that fits; the padding gives way byte by byte */
    size_t fits = 0;
    for (size_t len = 0; len < sizeof large - 1; len++) {
        large[len] = 0;
        assert_ok(gguf_set_string(w, "name", large, &err));
        mp_status status = gguf_writer_rewrite_header(w, &err);
        large[len] = 'x';
        if (status != MP_OK) {
            assert_message(status, MP_E_LIMIT, "more than the 2016 that are reserved");
            break;
        }
        fits = len;
        if (len % 100) continue;
        assert_ok(gguf_writer_peek(w, &path, &err));
        g = open_file(path);
        assert_ok(gguf_get_cstring(g, "name", &text, &err));
        assert_int_equal(strlen(text), len);
        assert_memory_equal(gguf_tensor_at(g, 0)->data, values, sizeof values);
        gguf_close(g);
    }
    /* head 24, "name" with type and length 24, padding key 39, tensor 33 */
    assert_int_equal(fits, 2016 - 24 - 24 - 39 - 33);
    assert_ok(gguf_set_string(w, "name", "last", &err));
    assert_ok(gguf_set_u32(w, "late", 5, &err));
    assert_ok(gguf_writer_rewrite_header(w, &err));
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
    g = open_file(in_folder("out"));
    assert_ok(gguf_get_cstring(g, "name", &text, &err));
    assert_string_equal(text, "last");
    assert_string_equal(gguf_key_name(g, 1), "late");
    assert_string_equal(gguf_key_name(g, 2), "general.padding");
    gguf_close(g);
    assert_copies_to_itself(in_folder("out"));
}

/* Without a reserve a header can be rewritten as long as it keeps its area. */
static void test_rewrite_unreserved(void **state)
{
    (void)state;
    uint32_t u32 = 0;
    gguf_writer *w = new_writer(32);
    assert_ok(gguf_set_u32(w, "a", 1, &err));
    assert_ok(gguf_add_tensor(w, "t", 0, 1, DIMS_8, sizeof values, &err));
    assert_ok(gguf_writer_begin(w, in_folder("out"), false, 0, &err));
    assert_ok(gguf_writer_data(w, values, sizeof values, &err));
    assert_ok(gguf_set_u32(w, "a", 2, &err));
    assert_ok(gguf_writer_rewrite_header(w, &err));
    assert_ok(gguf_set_string(w, "b", "longer than the rest of the alignment", &err));
    assert_int_equal(gguf_writer_rewrite_header(w, &err), MP_E_LIMIT);
    assert_ok(gguf_remove(w, "b"));
    assert_ok(gguf_writer_rewrite_header(w, &err));
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
    gguf *g = open_file(in_folder("out"));
    assert_ok(gguf_get_u32(g, "a", &u32, &err));
    assert_int_equal(u32, 2);
    assert_int_equal(gguf_n_keys(g), 1);
    gguf_close(g);
}

/* ---- failures ---- */

static void test_misuse(void **state)
{
    (void)state;
    gguf_writer *w;
    assert_message(gguf_writer_new(24, &w, &err), MP_E_INVALID, "alignment of 24");
    assert_message(gguf_writer_new(4, &w, &err), MP_E_INVALID, "alignment of 4");
    assert_null(w);
    gguf_writer_free(NULL);
    w = new_writer(32);
    assert_message(gguf_set_u32(w, "", 1, &err), MP_E_INVALID, "name must have");
    assert_message(gguf_set_array(w, "k", GGUF_STRING, NULL, 0, &err), MP_E_INVALID, "array of type string");
    assert_int_equal(gguf_set_raw(w, "k", GGUF_U32, "123", 3, &err), MP_E_FORMAT);
    assert_message(gguf_set_raw(w, "k", GGUF_U8, "123", 3, &err), MP_E_INVALID, "3 bytes are not one value of type u8");
    assert_int_equal(gguf_set_raw(w, "k", GGUF_STRING, NULL, 0, &err), MP_E_FORMAT);
    assert_message(gguf_add_tensor(w, "", 0, 1, DIMS_8, 32, &err), MP_E_INVALID, "name must have");
    assert_message(gguf_add_tensor(w, "t", 0, 5, (uint64_t[]){1, 1, 1, 1, 1}, 4, &err), MP_E_INVALID, "5 dimensions");
    assert_message(gguf_add_tensor(w, "t", 0, 1, (uint64_t[]){0}, 4, &err), MP_E_INVALID, "is empty");
    assert_message(gguf_add_tensor(w, "t", 0, 1, DIMS_8, SIZE_MAX, &err), MP_E_INVALID, "cannot be written");
    assert_message(gguf_writer_data(w, values, 4, &err), MP_E_INVALID, "no GGUF file");
    assert_message(gguf_writer_commit(w, &err), MP_E_INVALID, "no GGUF file");
    assert_ok(gguf_add_tensor(w, "t", 0, 1, DIMS_8, 32, &err));
    assert_ok(gguf_add_tensor(w, "t", 0, 1, DIMS_8, 32, &err));
    assert_message(gguf_writer_begin(w, in_folder("out"), false, 0, &err), MP_E_INVALID, "'t' is declared twice");
    gguf_writer_free(w);
    assert_int_equal(files_in_folder(), 0);
}

static void test_incomplete(void **state)
{
    (void)state;
    const char *path;
    gguf_writer *w = new_writer(32);
    assert_ok(gguf_add_tensor(w, "a", 0, 1, DIMS_8, 32, &err));
    assert_ok(gguf_add_tensor(w, "b", 0, 1, DIMS_8, 32, &err));
    assert_ok(gguf_writer_begin(w, in_folder("out"), false, 0, &err));
    assert_message(gguf_writer_begin(w, in_folder("out"), false, 0, &err), MP_E_INVALID, "begun already");
    assert_message(gguf_add_tensor(w, "c", 0, 1, DIMS_8, 32, &err), MP_E_INVALID, "after the data began");
    assert_ok(gguf_writer_data(w, values, 20, &err));
    assert_message(gguf_writer_data(w, values, 20, &err), MP_E_INVALID, "'a': 20 bytes for the 12 that are left");
    assert_ok(gguf_writer_data(w, values, 12, &err));
    assert_ok(gguf_writer_data(w, NULL, 0, &err));
    assert_message(gguf_writer_peek(w, &path, &err), MP_E_INVALID, "'b': 0 of 32 bytes");
    assert_message(gguf_writer_commit(w, &err), MP_E_INVALID, "'b': 0 of 32 bytes");
    assert_ok(gguf_writer_data(w, values, 32, &err));
    assert_message(gguf_writer_data(w, values, 1, &err), MP_E_INVALID, "after the last tensor");
    assert_int_equal(files_in_folder(), 1);
    gguf_writer_free(w); /* not committed */
    assert_int_equal(files_in_folder(), 0);
}

static void test_exists(void **state)
{
    (void)state;
    b.len = 0;
    put(&b, "old", 3);
    save("out");
    gguf_writer *w = new_writer(32);
    assert_message(gguf_writer_begin(w, in_folder("out"), false, 0, &err), MP_E_EXISTS, "--force");
    assert_ok(gguf_writer_begin(w, in_folder("out"), true, 0, &err));
    assert_ok(gguf_writer_commit(w, &err));
    gguf_writer_free(w);
    gguf_close(open_file(in_folder("out")));
}

/* A limit on file sizes makes write() fail as a full disk does, at whatever byte. */
static void test_disk_full(void **state)
{
    (void)state;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit <= 320; limit += 20) {
        mp_status status;
        gguf_writer *w = new_writer(32);
        assert_ok(gguf_set_u32(w, "key", 1, &err));
        assert_ok(gguf_add_tensor(w, "a", 0, 1, DIMS_8, sizeof values, &err));
        small = old;
        small.rlim_cur = limit;
        setrlimit(RLIMIT_FSIZE, &small);
        status = gguf_writer_begin(w, in_folder("out"), false, 256, &err);
        if (status == MP_OK) status = gguf_writer_data(w, values, sizeof values, &err);
        if (status == MP_OK) status = gguf_writer_rewrite_header(w, &err);
        if (status == MP_OK) status = gguf_writer_commit(w, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        gguf_writer_free(w);
        assert_int_equal(status, limit < 288 ? MP_E_IO : MP_OK);
        assert_int_equal(files_in_folder(), status == MP_OK);
        unlink(in_folder("out"));
    }
    signal(SIGXFSZ, handler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_copy_synthetic), IN_FOLDER(test_copy_real),
        IN_FOLDER(test_keys),           IN_FOLDER(test_replace_and_remove),
        IN_FOLDER(test_rewrite),        IN_FOLDER(test_rewrite_unreserved),
        IN_FOLDER(test_misuse),         IN_FOLDER(test_incomplete),
        IN_FOLDER(test_exists),         IN_FOLDER(test_disk_full),
    };
    return cmocka_run_group_tests_name("gguf_write", tests, NULL, NULL);
}
