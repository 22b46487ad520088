/* What the GGUF reader refuses, and that the message names the place and the reason. */
#include "gguf_sample.h"

/* ---- refusals ---- */

static void test_not_a_gguf(void **state)
{
    (void)state;
    b.len = 0;
    assert_refused(MP_E_FORMAT, "the file is empty");
    put(&b, "GGU", 3);
    assert_refused(MP_E_FORMAT, "not a GGUF file");
    b.len = 0;
    put(&b, "PK\3\4 and more of a zip file", 28);
    assert_refused(MP_E_FORMAT, "at byte 0: not a GGUF file");
    b.len = 0;
    put(&b, "version https://git-lfs.github.com/spec/v1", 42);
    assert_refused(MP_E_FORMAT, "git lfs pull");
    put_head(&b, 1, 0, 0);
    assert_refused(MP_E_UNSUPPORTED, "at byte 4: GGUF version 1 is not supported");
    put_head(&b, 0x03000000, 0, 0);
    assert_refused(MP_E_UNSUPPORTED, "big-endian");
    put_head(&b, 4, 0, 0);
    assert_refused(MP_E_UNSUPPORTED, "version 4");
    put_head(&b, 3, UINT64_MAX, 0);
    assert_refused(MP_E_FORMAT, "at byte 8: 18446744073709551615 tensors");
    put_head(&b, 3, 0, 1);
    assert_refused(MP_E_FORMAT, "at byte 16: 1 keys");
    put_head(&b, 2, 0, 0);
    gguf_close(open_bytes()); /* version 2 has the same layout */
}

static void test_bad_files(void **state)
{
    (void)state;
    gguf *g;
    assert_open_fails("none", MP_E_IO, "none: No such file");
    assert_message(gguf_open(folder, &SAMPLE_TYPES, &g, &err), MP_E_IO, "it is a directory");
    b.len = 0;
    save("empty");
    assert_open_fails("empty", MP_E_FORMAT, "empty");
    put_sample(&b);
    b.len -= 40;
    save("cut");
    assert_open_fails("cut", MP_E_FORMAT, "incomplete");
}

static void one_key(uint32_t type, const void *raw, size_t len)
{
    put_head(&b, 3, 0, 1);
    put_key(&b, "the.key", type, raw, len);
    put(&b, "0123456789abcdef", 16); /* something to read too far into */
}

static void test_bad_keys(void **state)
{
    (void)state;
    one_key(13, "", 0);
    assert_refused(MP_E_FORMAT, "at byte 43: key 'the.key' has the unknown type 13");
    one_key(GGUF_ARRAY, "\x0d\0\0\0\1\0\0\0\0\0\0\0", 12);
    assert_refused(MP_E_FORMAT, "array of the unknown type 13");
    one_key(GGUF_ARRAY, "\x09\0\0\0\1\0\0\0\0\0\0\0", 12);
    assert_refused(MP_E_UNSUPPORTED, "array of arrays");
    one_key(GGUF_ARRAY, "\4\0\0\0\0\0\0\0\0\0\0\x40", 12); /* n * 4 is 0 in 64 bits */
    assert_refused(MP_E_FORMAT, "claims 4611686018427387904 elements of type u32");
    one_key(GGUF_ARRAY, "\x08\0\0\0\0\0\0\0\0\0\0\x20", 12);
    assert_refused(MP_E_FORMAT, "claims 2305843009213693952 elements of type string");
    one_key(GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    assert_refused(MP_E_FORMAT, "takes 18446744073709551615 bytes");
    put_head(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) put_key(&b, "twin", GGUF_U8, "\1", 1);
    assert_refused(MP_E_FORMAT, "key 'twin' stands there twice");
    put_head(&b, 3, 0, 1);
    put_key(&b, "", GGUF_U8, "\1", 1);
    put(&b, "more", 4);
    assert_refused(MP_E_FORMAT, "at byte 24: a key's name is empty");
    put_head(&b, 3, 0, 1);
    put_u64(&b, 3);
    put(&b, "a\0b\0\0\0\0\1", 8);
    assert_refused(MP_E_FORMAT, "zero byte");
    put_head(&b, 3, 0, 1);
    put_u64(&b, 65536);
    put_data(&b, 1000, 32);
    assert_refused(MP_E_FORMAT, "takes 65536 bytes");
}

static void test_long_name(void **state)
{
    (void)state;
    size_t len = 24 + 8 + 65536 + 5;
    uint8_t *data = calloc(1, len);
    gguf *g;
    assert_non_null(data);
    put_head(&b, 3, 0, 1);
    put_u64(&b, 65536);
    memcpy(data, b.data, b.len);
    memset(data + b.len, 'k', 65536);
    assert_message(gguf_open_memory(data, len, &SAMPLE_TYPES, &g, &err), MP_E_FORMAT, "65536 bytes, more than 65535");
    b.len = 24;
    put_u64(&b, 65535);
    memcpy(data, b.data, b.len);
    data[32 + 65535] = GGUF_U8;
    assert_int_equal(gguf_open_memory(data, len, &SAMPLE_TYPES, &g, &err), MP_OK);
    gguf_close(g);
    free(data);
}

static void one_tensor(uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "the.tensor", n_dims, dims, type, offset);
    put_align(&b, 32);
    put_data(&b, 256, 32);
}

#define DIMS(...)                                                                                                      \
    (sizeof((uint64_t[]){__VA_ARGS__}) / 8), (uint64_t[])                                                              \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static void test_bad_tensors(void **state)
{
    (void)state;
    one_tensor(DIMS(64), 10, 0);
    assert_refused(MP_E_UNSUPPORTED, "tensor 'the.tensor' has type 10 (Q2_K), which is not supported");
    assert_refused(MP_E_UNSUPPORTED, "F32, Q8_0");
    one_tensor(DIMS(64), 77, 0);
    assert_refused(MP_E_UNSUPPORTED, "has type 77 (unknown)");
    one_tensor(DIMS(64), 0xffffffff, 0);
    assert_refused(MP_E_UNSUPPORTED, "has type 4294967295 (unknown)");
    one_tensor(DIMS(33), 8, 0);
    assert_refused(MP_E_FORMAT, "at byte 24: tensor 'the.tensor' of type Q8_0 has rows of 33 elements");
    one_tensor(DIMS(1, 1, 1, 1, 1), 0, 0);
    assert_refused(MP_E_FORMAT, "5 dimensions");
    one_tensor(DIMS(4, 0), 0, 0);
    assert_refused(MP_E_FORMAT, "no elements along dimension 1");
    one_tensor(DIMS(1ull << 32, 1ull << 32), 0, 0);
    assert_refused(MP_E_FORMAT, "too many elements");
    one_tensor(DIMS(1ull << 62), 0, 0);
    assert_refused(MP_E_FORMAT, "tensor 'the.tensor'");
    one_tensor(DIMS(1ull << 60, 4), 0, 0);
    assert_refused(MP_E_FORMAT, "tensor 'the.tensor'");
    one_tensor(DIMS(8), 0, 4);
    assert_refused(MP_E_FORMAT, "offset 4, not a multiple of 32");
    one_tensor(DIMS(64), 0, 32);
    assert_refused(MP_E_FORMAT, "256 bytes of data at offset 32 from byte 96 on, but the file ends at byte 352");
    one_tensor(DIMS(64), 0, UINT64_MAX - 31);
    assert_refused(MP_E_FORMAT, "but the file ends");
    one_tensor(0, NULL, 0, 0);
    gguf *g = open_bytes(); /* a scalar */
    assert_int_equal(gguf_tensor_at(g, 0)->bytes, 4);
    gguf_close(g);
}

static void two_tensors(const char *first, const char *second, uint64_t second_offset)
{
    put_head(&b, 3, 2, 0);
    put_tensor(&b, first, DIMS(16), 0, 0);
    put_tensor(&b, second, DIMS(16), 0, second_offset);
    put_align(&b, 32);
    put_data(&b, 128, 32);
}

static void test_pairs_of_tensors(void **state)
{
    (void)state;
    two_tensors("a", "b", 64);
    gguf_close(open_bytes());
    two_tensors("a", "b", 32);
    assert_refused(MP_E_FORMAT, "tensors 'a' and 'b' share bytes");
    two_tensors("a", "b", 0);
    assert_refused(MP_E_FORMAT, "share bytes");
    two_tensors("a", "a", 64);
    assert_refused(MP_E_FORMAT, "tensor 'a' stands there twice");
}

static void with_alignment(uint32_t type, const void *raw, size_t len)
{
    put_head(&b, 3, 1, 1);
    put_key(&b, "general.alignment", type, raw, len);
    put_tensor(&b, "t", DIMS(2), 0, 0);
    put_align(&b, 64);
    put_data(&b, 8, 64);
}

static void test_alignment(void **state)
{
    (void)state;
    with_alignment(GGUF_U32, &(uint32_t){64}, 4);
    gguf *g = open_bytes();
    assert_int_equal(gguf_alignment(g), 64);
    assert_int_equal(gguf_tensor_at(g, 0)->offset, 128);
    gguf_close(g);
    static const uint32_t bad[] = {0, 1, 4, 24, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        with_alignment(GGUF_U32, &bad[i], 4);
        assert_refused(MP_E_FORMAT, "not a power of two of at least 8");
    }
    with_alignment(GGUF_U64, &(uint64_t){1ull << 62}, 8);
    assert_refused(MP_E_FORMAT, "but the file ends");
    with_alignment(GGUF_F32, &(float){32}, 4);
    assert_refused(MP_E_FORMAT, "general.alignment is of type f32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_a_gguf), IN_FOLDER(test_bad_files),          cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_long_name),  cmocka_unit_test(test_bad_tensors), cmocka_unit_test(test_pairs_of_tensors),
        cmocka_unit_test(test_alignment),
    };
    return cmocka_run_group_tests_name("gguf_refuse", tests, NULL, NULL);
}
