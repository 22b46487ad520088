/* gguf_sample.h: GGUF files put together byte by byte, without the writer, a reader that asks everything, and a folder
 * of the test's own. Static, one copy a program. */
#ifndef TESTS_GGUF_SAMPLE_H
#define TESTS_GGUF_SAMPLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gguf/gguf.h"

#define SAMPLE_UNUSED __attribute__((unused))

/* F32 and Q8_0, from their definition. */
static size_t sample_row_bytes(int dtype, uint64_t n)
{
    if (dtype == 0 && n <= SIZE_MAX / 4) return n * 4;
    if (dtype == 8 && n % 32 == 0) return n / 32 * 34;
    return 0;
}

static const gguf_types SAMPLE_TYPES = {sample_row_bytes, "F32, Q8_0"};

typedef struct bytes {
    uint8_t data[16384];
    size_t len;
} bytes;

static void put(bytes *b, const void *data, size_t len)
{
    if (len > sizeof b->data - b->len) abort();
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void put_u32(bytes *b, uint32_t x)
{
    put(b, &x, sizeof x);
}

static void put_u64(bytes *b, uint64_t x)
{
    put(b, &x, sizeof x);
}

static void put_string(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void put_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    b->len = 0;
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static void put_key(bytes *b, const char *name, uint32_t type, const void *raw, size_t len)
{
    put_string(b, name);
    put_u32(b, type);
    put(b, raw, len);
}

static void SAMPLE_UNUSED put_string_key(bytes *b, const char *name, const char *value)
{
    put_key(b, name, GGUF_STRING, NULL, 0);
    put_string(b, value);
}

static void put_array_key(bytes *b, const char *name, uint32_t type, uint64_t n, const void *values, size_t len)
{
    put_key(b, name, GGUF_ARRAY, NULL, 0);
    put_u32(b, type);
    put_u64(b, n);
    put(b, values, len);
}

static void put_tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                       uint64_t offset)
{
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(b, dims[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

static void put_align(bytes *b, size_t alignment)
{
    while (b->len % alignment) put(b, "", 1);
}

/* n bytes that differ, then zeros up to the alignment. */
static void put_data(bytes *b, size_t n, size_t alignment)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t x = (uint8_t)(i * 7 + b->len + 1);
        put(b, &x, 1);
    }
    put_align(b, alignment);
}

static void put_sample_keys(bytes *b)
{
    put_string_key(b, "general.architecture", "olmoe");
    put_key(b, "k.u8", GGUF_U8, &(uint8_t){200}, 1);
    put_key(b, "k.i8", GGUF_I8, &(int8_t){-5}, 1);
    put_key(b, "k.u16", GGUF_U16, &(uint16_t){65535}, 2);
    put_key(b, "k.i16", GGUF_I16, &(int16_t){-300}, 2);
    put_key(b, "k.u32", GGUF_U32, &(uint32_t){4000000000}, 4);
    put_key(b, "k.i32", GGUF_I32, &(int32_t){77}, 4);
    put_key(b, "k.f32", GGUF_F32, &(float){1.5f}, 4);
    put_key(b, "k.bool", GGUF_BOOL, &(uint8_t){1}, 1);
    put_key(b, "k.u64", GGUF_U64, &(uint64_t){1ull << 40}, 8);
    put_key(b, "k.i64", GGUF_I64, &(int64_t){-1}, 8);
    put_key(b, "k.f64", GGUF_F64, &(double){0.25}, 8);
    put_string_key(b, "k.empty", "");
    put_array_key(b, "a.i32", GGUF_I32, 3, (int32_t[]){-1, 2, 3}, 12);
    put_array_key(b, "a.u16", GGUF_U16, 2, (uint16_t[]){7, 65535}, 4);
    put_array_key(b, "a.f32", GGUF_F32, 2, (float[]){0.5f, -2}, 8);
    put_array_key(b, "a.f64", GGUF_F64, 1, (double[]){1e300}, 8);
    put_array_key(b, "a.none", GGUF_U8, 0, NULL, 0);
    put_array_key(b, "a.bool", GGUF_BOOL, 2, "\1\0", 2);
    put_array_key(b, "a.strings", GGUF_STRING, 3, NULL, 0);
    put_string(b, "one");
    put_string(b, "");
    put_string(b, "three");
}

#define SAMPLE_KEYS    20
#define SAMPLE_TENSORS 3

/* All types of keys, three tensors; as the writer would lay it out. */
static void SAMPLE_UNUSED put_sample(bytes *b)
{
    put_head(b, 3, SAMPLE_TENSORS, SAMPLE_KEYS);
    put_sample_keys(b);
    put_tensor(b, "first.weight", 2, (uint64_t[]){4, 3}, 0, 0);
    put_tensor(b, "second.weight", 3, (uint64_t[]){32, 2, 2}, 8, 64);
    put_tensor(b, "bias", 1, (uint64_t[]){5}, 0, 224);
    put_align(b, 32);
    put_data(b, 4 * 3 * 4, 32);
    put_data(b, 34 * 4, 32);
    put_data(b, 20, 32);
}

/* One F32 tensor of n elements after `keys` keys that the caller has put since put_head(). */
static void SAMPLE_UNUSED put_one_tensor(bytes *b, const char *name, uint64_t n)
{
    put_tensor(b, name, 1, &n, 0, 0);
    put_align(b, 32);
    put_data(b, n * 4, 32);
}

static uint64_t sum_of(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) sum += p[i];
    return sum;
}

static uint64_t ask_arrays(const gguf *g, const char *key)
{
    uint64_t sum = 0;
    size_t n = 0;
    enum gguf_type type;
    gguf_string *strings;
    int32_t *i32s;
    float *f32s;
    double *f64s;
    if (gguf_array_len(g, key, &type, &n, NULL) == MP_OK) sum += n;
    if (gguf_get_strings(g, key, &strings, &n, NULL) == MP_OK)
        for (size_t i = 0; i < n; i++) sum += sum_of(strings[i].data, strings[i].len);
    if (gguf_get_i32s(g, key, &i32s, &n, NULL) == MP_OK) sum += sum_of(i32s, n * sizeof *i32s);
    if (gguf_get_f32s(g, key, &f32s, &n, NULL) == MP_OK) sum += sum_of(f32s, n * sizeof *f32s);
    if (gguf_get_f64s(g, key, &f64s, &n, NULL) == MP_OK) sum += sum_of(f64s, n * sizeof *f64s);
    free(strings);
    free(i32s);
    free(f32s);
    free(f64s);
    return sum;
}

static uint64_t ask_key(const gguf *g, size_t i)
{
    const char *key = gguf_key_name(g, i), *text;
    uint64_t sum = strlen(key) + gguf_key_type(g, i), u64;
    uint32_t u32;
    float f32;
    bool boolean;
    gguf_string string;
    size_t len;
    const void *raw = gguf_key_raw(g, i, &len);
    sum += sum_of(raw, len) + gguf_has(g, key);
    if (gguf_get_u32(g, key, &u32, NULL) == MP_OK) sum += u32;
    if (gguf_get_u64(g, key, &u64, NULL) == MP_OK) sum += u64;
    if (gguf_get_f32(g, key, &f32, NULL) == MP_OK) sum += f32 > 0;
    if (gguf_get_bool(g, key, &boolean, NULL) == MP_OK) sum += boolean;
    if (gguf_get_string(g, key, &string, NULL) == MP_OK) sum += sum_of(string.data, string.len);
    if (gguf_get_cstring(g, key, &text, NULL) == MP_OK) sum += strlen(text);
    return sum + ask_arrays(g, key);
}

/* Every query of every key, every byte of every tensor. */
static uint64_t SAMPLE_UNUSED ask_everything(const gguf *g)
{
    uint64_t sum = gguf_file_bytes(g) + gguf_alignment(g) + gguf_version(g) + strlen(gguf_path(g));
    for (size_t i = 0; i < gguf_n_keys(g); i++) sum += ask_key(g, i);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (gguf_find_tensor(g, t->name) != t) abort();
        sum += sum_of(t->data, t->bytes) + t->dims[0];
    }
    return sum;
}

/* ---- what the test programs share ---- */

static mp_error err;
static SAMPLE_UNUSED bytes b; /* the file at hand */
static char folder[64];

static int SAMPLE_UNUSED make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_gguf.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int SAMPLE_UNUSED remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command); /* NOLINT(cert-env33-c): a name of our own */
}

static const char *in_folder(const char *name)
{
    static char path[4][256]; /* the last four answers stay */
    static unsigned turn;
    char *out = path[turn++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void SAMPLE_UNUSED save(const char *name)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
    fclose(f);
}

static SAMPLE_UNUSED gguf *open_bytes(void)
{
    gguf *g;
    if (gguf_open_memory(b.data, b.len, &SAMPLE_TYPES, &g, &err) != MP_OK) fail_msg("%s", err.message);
    return g;
}

static void SAMPLE_UNUSED assert_message(mp_status status, mp_status expected, const char *part)
{
    if (status != expected || !strstr(err.message, part))
        fail_msg("expected '%s' (%s), got %s: '%s'", part, mp_status_text(expected), mp_status_text(status),
                 status ? err.message : "");
}

static void SAMPLE_UNUSED assert_refused(mp_status expected, const char *part)
{
    gguf *g = NULL;
    mp_status status = gguf_open_memory(b.data, b.len, &SAMPLE_TYPES, &g, &err);
    assert_message(status, expected, part);
    assert_null(g);
    assert_int_equal(strncmp(err.message, "(memory): ", 10), 0); /* names the file */
}

static void SAMPLE_UNUSED assert_open_fails(const char *name, mp_status expected, const char *part)
{
    gguf *g = NULL;
    assert_message(gguf_open(in_folder(name), &SAMPLE_TYPES, &g, &err), expected, part);
    assert_null(g);
    assert_non_null(strstr(err.message, folder));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

#endif
