/* The GGUF reader: queries, split models, and files with any damage. */
#include <unistd.h>

#include "base/rng.h"
#include "gguf_sample.h"

/* ---- queries ---- */

static void test_tensors(void **state)
{
    (void)state;
    put_sample(&b);
    gguf *g = open_bytes();
    assert_string_equal(gguf_path(g), "(memory)");
    assert_int_equal(gguf_version(g), 3);
    assert_int_equal(gguf_n_parts(g), 1);
    assert_string_equal(gguf_part_path(g, 0), "(memory)");
    assert_null(gguf_part_path(g, 1));
    assert_int_equal(gguf_file_bytes(g), b.len);
    assert_int_equal(gguf_alignment(g), 32);
    assert_int_equal(gguf_n_tensors(g), SAMPLE_TENSORS);
    const gguf_tensor *t = gguf_find_tensor(g, "second.weight");
    assert_ptr_equal(t, gguf_tensor_at(g, 1));
    assert_int_equal(t->dtype, 8);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->dims[0], 32);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->dims[2], 2);
    assert_int_equal(t->dims[3], 1);
    assert_int_equal(t->bytes, 136);
    assert_int_equal(t->part, 0);
    assert_ptr_equal(t->data, b.data + t->offset);
    assert_int_equal(t->offset % 32, 0);
    assert_int_equal(*(const uint8_t *)t->data, (uint8_t)(t->offset + 1));
    assert_null(gguf_find_tensor(g, "second"));
    assert_null(gguf_find_tensor(g, ""));
    assert_null(gguf_tensor_at(g, SAMPLE_TENSORS));
    gguf_close(g);
    gguf_close(NULL);
}

static void test_integers(void **state)
{
    (void)state;
    uint32_t u32 = 1;
    uint64_t u64 = 1;
    put_sample(&b);
    gguf *g = open_bytes();
    static const struct {
        const char *key;
        uint64_t value;
    } good[] = {{"k.u8", 200}, {"k.u16", 65535}, {"k.u32", 4000000000}, {"k.i32", 77}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(gguf_get_u32(g, good[i].key, &u32, &err), MP_OK);
        assert_int_equal(u32, good[i].value);
        assert_int_equal(gguf_get_u64(g, good[i].key, &u64, &err), MP_OK);
        assert_int_equal(u64, good[i].value);
    }
    u32 = 1;
    assert_int_equal(gguf_get_u64(g, "k.u64", &u64, &err), MP_OK);
    assert_true(u64 == 1ull << 40);
    assert_message(gguf_get_u32(g, "k.u64", &u32, &err), MP_E_FORMAT, "'k.u64' is out of range");
    assert_message(gguf_get_u32(g, "k.i8", &u32, &err), MP_E_FORMAT, "'k.i8' is out of range");
    assert_message(gguf_get_u64(g, "k.i64", &u64, &err), MP_E_FORMAT, "'k.i64' is out of range");
    assert_message(gguf_get_u32(g, "k.f32", &u32, &err), MP_E_FORMAT, "of type f32, not an integer");
    assert_message(gguf_get_u32(g, "k.bool", &u32, &err), MP_E_FORMAT, "of type bool, not an integer");
    assert_message(gguf_get_u32(g, "k.empty", &u32, &err), MP_E_FORMAT, "of type string, not an integer");
    assert_message(gguf_get_u32(g, "a.i32", &u32, &err), MP_E_FORMAT, "an array of i32, not an integer");
    assert_message(gguf_get_u32(g, "none", &u32, &err), MP_E_FORMAT, "'none' is missing");
    assert_int_equal(u32, 1);
    gguf_close(g);
}

static void test_reals_bools_strings(void **state)
{
    (void)state;
    float f = 0;
    bool boolean = false;
    gguf_string s;
    const char *text;
    put_sample(&b);
    gguf *g = open_bytes();
    assert_int_equal(gguf_get_f32(g, "k.f32", &f, &err), MP_OK);
    assert_true(f == 1.5f);
    assert_int_equal(gguf_get_f32(g, "k.f64", &f, &err), MP_OK);
    assert_true(f == 0.25f);
    assert_message(gguf_get_f32(g, "k.u8", &f, &err), MP_E_FORMAT, "of type u8, not a real number");
    assert_message(gguf_get_f32(g, "a.f32", &f, &err), MP_E_FORMAT, "an array of f32");
    assert_int_equal(gguf_get_bool(g, "k.bool", &boolean, &err), MP_OK);
    assert_true(boolean);
    assert_message(gguf_get_bool(g, "k.u8", &boolean, &err), MP_E_FORMAT, "not a bool");
    assert_int_equal(gguf_get_string(g, "general.architecture", &s, &err), MP_OK);
    assert_int_equal(s.len, 5);
    assert_memory_equal(s.data, "olmoe", 5);
    assert_int_equal(gguf_get_cstring(g, "general.architecture", &text, &err), MP_OK);
    assert_string_equal(text, "olmoe");
    assert_int_equal(gguf_get_cstring(g, "k.empty", &text, &err), MP_OK);
    assert_string_equal(text, "");
    assert_message(gguf_get_string(g, "k.u8", &s, &err), MP_E_FORMAT, "not a string");
    assert_message(gguf_get_cstring(g, "a.strings", &text, &err), MP_E_FORMAT, "an array of string, not a string");
    assert_true(gguf_has(g, "k.u8"));
    assert_false(gguf_has(g, "k.u"));
    gguf_close(g);
}

static void test_strange_values(void **state)
{
    (void)state;
    float f = 3;
    bool boolean = false;
    const char *text;
    float *f32s;
    size_t n;
    put_head(&b, 3, 0, 7);
    put_key(&b, "nan", GGUF_F32, "\0\0\xc0\x7f", 4);
    put_key(&b, "inf", GGUF_F32, "\0\0\x80\x7f", 4);
    put_key(&b, "huge", GGUF_F64, &(double){1e300}, 8);
    put_key(&b, "bool", GGUF_BOOL, "\2", 1);
    put_key(&b, "zero", GGUF_STRING, NULL, 0);
    put_u64(&b, 3);
    put(&b, "a\0b", 3);
    put_array_key(&b, "nans", GGUF_F32, 1, "\0\0\xc0\x7f", 4);
    put_array_key(&b, "infs", GGUF_F32, 1, "\0\0\x80\xff", 4);
    gguf *g = open_bytes();
    assert_message(gguf_get_f32(g, "nan", &f, &err), MP_E_FORMAT, "not a finite number");
    assert_message(gguf_get_f32(g, "inf", &f, &err), MP_E_FORMAT, "not a finite number");
    assert_message(gguf_get_f32(g, "huge", &f, &err), MP_E_FORMAT, "not a finite number");
    assert_true(f == 3);
    assert_message(gguf_get_bool(g, "bool", &boolean, &err), MP_E_FORMAT, "not 0 or 1");
    assert_message(gguf_get_cstring(g, "zero", &text, &err), MP_E_FORMAT, "zero byte");
    assert_message(gguf_get_f32s(g, "nans", &f32s, &n, &err), MP_E_FORMAT, "element 0 is out of range");
    assert_null(f32s);
    assert_int_equal(gguf_get_f32s(g, "infs", &f32s, &n, &err), MP_OK);
    assert_true(f32s[0] < -1e38f);
    free(f32s);
    gguf_close(g);
}

static void test_arrays(void **state)
{
    (void)state;
    enum gguf_type type;
    size_t n = 9;
    gguf_string *strings;
    int32_t *i32s;
    float *f32s;
    double *f64s;
    put_sample(&b);
    gguf *g = open_bytes();
    assert_int_equal(gguf_array_len(g, "a.u16", &type, &n, &err), MP_OK);
    assert_int_equal(type, GGUF_U16);
    assert_int_equal(n, 2);
    assert_message(gguf_array_len(g, "k.u16", &type, &n, &err), MP_E_FORMAT, "not an array");
    assert_int_equal(gguf_get_i32s(g, "a.i32", &i32s, &n, &err), MP_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(i32s, ((int32_t[]){-1, 2, 3}), 12);
    free(i32s);
    assert_int_equal(gguf_get_i32s(g, "a.none", &i32s, &n, &err), MP_OK);
    assert_int_equal(n, 0);
    assert_non_null(i32s);
    free(i32s);
    assert_message(gguf_get_i32s(g, "a.f32", &i32s, &n, &err), MP_E_FORMAT,
                   "an array of f32, not an array of integers");
    assert_null(i32s);
    assert_message(gguf_get_i32s(g, "a.bool", &i32s, &n, &err), MP_E_FORMAT, "an array of bool");
    assert_int_equal(gguf_get_f32s(g, "a.u16", &f32s, &n, &err), MP_OK);
    assert_true(f32s[0] == 7 && f32s[1] == 65535);
    free(f32s);
    assert_message(gguf_get_f32s(g, "a.f64", &f32s, &n, &err), MP_E_FORMAT, "element 0 is out of range");
    assert_int_equal(gguf_get_f64s(g, "a.f64", &f64s, &n, &err), MP_OK);
    assert_true(n == 1 && f64s[0] == 1e300);
    free(f64s);
    assert_int_equal(gguf_get_strings(g, "a.strings", &strings, &n, &err), MP_OK);
    assert_int_equal(n, 3);
    assert_int_equal(strings[1].len, 0);
    assert_memory_equal(strings[2].data, "three", 5);
    free(strings);
    assert_message(gguf_get_strings(g, "a.i32", &strings, &n, &err), MP_E_FORMAT, "not an array of strings");
    assert_message(gguf_get_f64s(g, "a.strings", &f64s, &n, &err), MP_E_FORMAT, "not an array of numbers");
    gguf_close(g);
}

/* ---- damage ---- */

/* Opens a copy of exactly this size, so that the address sanitizer sees the first byte too far. */
static bool survives(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    gguf *g = NULL;
    assert_non_null(copy);
    memcpy(copy, data, len);
    err.message[0] = 0;
    mp_status status = gguf_open_memory(copy, len, &SAMPLE_TYPES, &g, &err);
    if (status == MP_OK) {
        assert_true(ask_everything(g) > 0);
    } else {
        assert_null(g);
        assert_int_equal(err.status, status);
        assert_int_equal(strncmp(err.message, "(memory): ", 10), 0);
    }
    gguf_close(g);
    free(copy);
    return status == MP_OK;
}

static void test_truncations(void **state)
{
    (void)state;
    put_sample(&b);
    size_t data_end = b.len - 12; /* of the last tensor's bytes; padding follows */
    for (size_t len = 0; len <= b.len; len++) assert_int_equal(survives(b.data, len), len >= data_end);
}

static void test_single_bytes(void **state)
{
    (void)state;
    put_sample(&b);
    for (size_t i = 0; i < b.len; i++) {
        const uint8_t original = b.data[i];
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] = (uint8_t)(original ^ 1 << bit);
            survives(b.data, b.len);
        }
        static const uint8_t values[] = {0x00, 0xff, 0x7f};
        for (size_t v = 0; v < sizeof values; v++) {
            b.data[i] = values[v];
            survives(b.data, b.len);
        }
        b.data[i] = (uint8_t)(original + 1);
        survives(b.data, b.len);
        b.data[i] = original;
    }
}

static void test_many_bytes(void **state)
{
    (void)state;
    rng r;
    rng_init(&r, 7);
    static bytes damaged;
    put_sample(&b);
    for (int round = 0; round < 3000; round++) {
        memcpy(&damaged, &b, sizeof b);
        for (uint64_t n = 2 + rng_below(&r, 6); n; n--)
            damaged.data[rng_below(&r, b.len)] = (uint8_t)rng_below(&r, 256);
        survives(damaged.data, round % 2 ? b.len : rng_below(&r, b.len));
    }
}

/* ---- split models ---- */

static void put_part(uint16_t no, uint16_t count, int32_t total, const char *tensor)
{
    put_head(&b, 3, 1, 4);
    put_string_key(&b, "general.architecture", no ? "other" : "olmoe");
    put_key(&b, "split.no", GGUF_U16, &no, 2);
    put_key(&b, "split.count", GGUF_U16, &count, 2);
    put_key(&b, "split.tensors.count", GGUF_I32, &total, 4);
    put_one_tensor(&b, tensor, 10);
}

static void save_parts(int32_t total, const char *last_tensor)
{
    put_part(0, 3, total, "zero");
    save("m-00001-of-00003.gguf");
    put_part(1, 3, total, "one");
    save("m-00002-of-00003.gguf");
    put_part(2, 3, total, last_tensor);
    save("m-00003-of-00003.gguf");
}

static void test_split(void **state)
{
    (void)state;
    gguf *g;
    const char *text;
    save_parts(3, "two");
    assert_int_equal(gguf_open(in_folder("m-00001-of-00003.gguf"), &SAMPLE_TYPES, &g, &err), MP_OK);
    assert_int_equal(gguf_n_parts(g), 3);
    assert_int_equal(gguf_n_tensors(g), 3);
    assert_string_equal(gguf_path(g), in_folder("m-00001-of-00003.gguf"));
    assert_string_equal(gguf_part_path(g, 2), in_folder("m-00003-of-00003.gguf"));
    assert_int_equal(gguf_file_bytes(g), 3 * b.len);
    assert_int_equal(gguf_get_cstring(g, "general.architecture", &text, &err), MP_OK);
    assert_string_equal(text, "olmoe");
    const gguf_tensor *t = gguf_find_tensor(g, "two");
    assert_int_equal(t->part, 2);
    assert_int_equal(t->bytes, 40);
    assert_memory_equal(t->data, b.data + t->offset, 40);
    assert_true(ask_everything(g) > 0);
    gguf_close(g);
    assert_refused(MP_E_UNSUPPORTED, "opened by name only");
}

static void test_bad_splits(void **state)
{
    (void)state;
    save_parts(3, "two");
    assert_open_fails("m-00002-of-00003.gguf", MP_E_INVALID, "part 2 of 3");
    assert_open_fails("m-00002-of-00003.gguf", MP_E_INVALID, "m-00001-of-00003.gguf");
    put_part(0, 3, 3, "zero");
    save("renamed.gguf");
    assert_open_fails("renamed.gguf", MP_E_INVALID, "must be named NAME-00001-of-00003.gguf");
    save("m-00003-of-00003.gguf");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "says that it is part 1 of 3, not 3 of 3");
    put_sample(&b);
    save("m-00003-of-00003.gguf");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "says that it is part 1 of 1");
    unlink(in_folder("m-00003-of-00003.gguf"));
    assert_open_fails("m-00001-of-00003.gguf", MP_E_IO, "part 3 of 3: cannot open");
    save_parts(4, "two");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "hold 3 tensors, but split.tensors.count is 4");
    save_parts(3, "zero");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "tensor 'zero' stands there twice");
    put_part(7, 3, 3, "zero");
    save("m-00001-of-00003.gguf");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "split.no is not a number from 0 to 2");
    put_head(&b, 3, 1, 1);
    put_key(&b, "split.count", GGUF_U16, "\3\0", 2);
    put_one_tensor(&b, "t", 8);
    save("m-00001-of-00003.gguf");
    assert_open_fails("m-00001-of-00003.gguf", MP_E_FORMAT, "no key split.no");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_reals_bools_strings),
        cmocka_unit_test(test_strange_values),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_single_bytes),
        cmocka_unit_test(test_many_bytes),
        IN_FOLDER(test_split),
        IN_FOLDER(test_bad_splits),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
