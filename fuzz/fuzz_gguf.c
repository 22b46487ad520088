/* Any bytes as a GGUF file: the reader opens it or says why not, and every query of what it opened holds. A
 * writer must take every key and tensor that the reader lets through. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"
#include "tensor/dtype.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static volatile uint64_t sink; /* keeps the reads of bytes that nobody uses */

static void touch(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) sum += p[i];
    sink += sum;
}

static void ask_arrays(const gguf *g, const char *key)
{
    size_t n = 0;
    enum gguf_type type;
    gguf_string *strings;
    int32_t *i32s;
    float *f32s;
    double *f64s;
    mp_error err;
    if (gguf_array_len(g, key, &type, &n, &err) == MP_OK) sink += n;
    if (gguf_get_strings(g, key, &strings, &n, &err) == MP_OK)
        for (size_t i = 0; i < n; i++) touch(strings[i].data, strings[i].len);
    if (gguf_get_i32s(g, key, &i32s, &n, &err) == MP_OK) touch(i32s, n * sizeof *i32s);
    if (gguf_get_f32s(g, key, &f32s, &n, &err) == MP_OK) touch(f32s, n * sizeof *f32s);
    if (gguf_get_f64s(g, key, &f64s, &n, &err) == MP_OK) touch(f64s, n * sizeof *f64s);
    free(strings);
    free(i32s);
    free(f32s);
    free(f64s);
}

static void ask_key(const gguf *g, const char *key)
{
    uint32_t u32;
    uint64_t u64;
    float f32;
    bool boolean;
    gguf_string string;
    const char *text;
    mp_error err;
    if (!gguf_has(g, key)) abort();
    if (gguf_get_u32(g, key, &u32, &err) == MP_OK && (gguf_get_u64(g, key, &u64, &err) != MP_OK || u64 != u32)) abort();
    if (gguf_get_f32(g, key, &f32, &err) == MP_OK && f32 - f32 != 0) abort();
    if (gguf_get_bool(g, key, &boolean, &err) == MP_OK) sink += boolean;
    if (gguf_get_string(g, key, &string, &err) == MP_OK) touch(string.data, string.len);
    if (gguf_get_cstring(g, key, &text, &err) == MP_OK && strlen(text) != string.len) abort();
    ask_arrays(g, key);
}

static void ask_tensors(const gguf *g)
{
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (gguf_find_tensor(g, t->name) != t || t->offset % gguf_alignment(g)) abort();
        touch(t->data, t->bytes);
    }
}

/* The writer's own checks; no file is made. */
static void declare(const gguf *g)
{
    gguf_writer *w;
    mp_error err;
    if (gguf_writer_new(32, &w, &err) != MP_OK) return;
    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        size_t len;
        const void *raw = gguf_key_raw(g, i, &len);
        touch(raw, len);
        if (gguf_set_raw(w, gguf_key_name(g, i), gguf_key_type(g, i), raw, len, &err) != MP_OK) abort();
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (gguf_add_tensor(w, t->name, t->dtype, t->n_dims, t->dims, t->bytes, &err) != MP_OK) abort();
    }
    gguf_writer_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const gguf_types types = {dtype_row_bytes, dtype_list()};
    uint8_t *copy = malloc(len ? len : 1); /* aligned, and of exactly this size for the sanitizer */
    gguf *g = NULL;
    mp_error err = {0};
    if (!copy) return 0;
    if (len) memcpy(copy, data, len);
    if (gguf_open_memory(copy, len, &types, &g, &err) == MP_OK) {
        for (size_t i = 0; i < gguf_n_keys(g); i++) ask_key(g, gguf_key_name(g, i));
        ask_tensors(g);
        declare(g);
    } else if (g || !err.message[0] || err.status == MP_OK) {
        abort();
    }
    gguf_close(g);
    free(copy);
    return 0;
}
