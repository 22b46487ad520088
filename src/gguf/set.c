#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_write_impl.h"

#define SHOWN_NAME 80

static gguf_written_key *find(const gguf_writer *w, const char *name)
{
    for (size_t i = 0; i < w->n_keys; i++)
        if (!strcmp(w->keys[i].name, name)) return &w->keys[i];
    return NULL;
}

static mp_status add(gguf_writer *w, const char *name, gguf_written_key **out, mp_error *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > GGUF_MAX_NAME)
        return status_fail(err, MP_E_INVALID, "key '%.*s': a name must have 1 to %u bytes", SHOWN_NAME, name,
                           GGUF_MAX_NAME);
    MP_TRY(gguf_grow((void **)&w->keys, &w->key_capacity, w->n_keys, sizeof *w->keys, err));
    char *copy = strdup(name);
    if (!copy) return status_no_memory(err, len, name);
    *out = &w->keys[w->n_keys++];
    **out = (gguf_written_key){.name = copy};
    return MP_OK;
}

/* Takes `raw`, of malloc, in any case. */
static mp_status set_owned(gguf_writer *w, const char *name, enum gguf_type type, uint8_t *raw, size_t bytes,
                           mp_error *err)
{
    gguf_written_key *key = find(w, name);
    mp_status status = key ? MP_OK : add(w, name, &key, err);
    if (status != MP_OK) {
        free(raw);
        return status;
    }
    free(key->raw);
    key->type = type;
    key->raw = raw;
    key->bytes = bytes;
    return MP_OK;
}

static mp_status allocate(const char *name, size_t bytes, uint8_t **out, mp_error *err)
{
    *out = malloc(bytes ? bytes : 1);
    return *out ? MP_OK : status_no_memory(err, bytes, name);
}

static mp_status set_copy(gguf_writer *w, const char *name, enum gguf_type type, const void *raw, size_t bytes,
                          mp_error *err)
{
    uint8_t *copy = NULL;
    MP_TRY(allocate(name, bytes, &copy, err));
    if (bytes) memcpy(copy, raw, bytes);
    return set_owned(w, name, type, copy, bytes, err);
}

mp_status gguf_set_u32(gguf_writer *w, const char *key, uint32_t value, mp_error *err)
{
    return set_copy(w, key, GGUF_U32, &value, sizeof value, err);
}

mp_status gguf_set_u64(gguf_writer *w, const char *key, uint64_t value, mp_error *err)
{
    return set_copy(w, key, GGUF_U64, &value, sizeof value, err);
}

mp_status gguf_set_f32(gguf_writer *w, const char *key, float value, mp_error *err)
{
    return set_copy(w, key, GGUF_F32, &value, sizeof value, err);
}

mp_status gguf_set_f64(gguf_writer *w, const char *key, double value, mp_error *err)
{
    return set_copy(w, key, GGUF_F64, &value, sizeof value, err);
}

mp_status gguf_set_bool(gguf_writer *w, const char *key, bool value, mp_error *err)
{
    uint8_t byte = value;
    return set_copy(w, key, GGUF_BOOL, &byte, sizeof byte, err);
}

static uint8_t *put(uint8_t *to, const void *from, size_t bytes)
{
    if (bytes) memcpy(to, from, bytes);
    return to + bytes;
}

static uint8_t *put_string(uint8_t *to, gguf_string s)
{
    uint64_t len = s.len;
    return put(put(to, &len, sizeof len), s.data, s.len);
}

static uint8_t *put_array_head(uint8_t *to, enum gguf_type type, size_t n)
{
    uint32_t type_word = type;
    uint64_t count = n;
    return put(put(to, &type_word, sizeof type_word), &count, sizeof count);
}

#define ARRAY_HEAD (sizeof(uint32_t) + sizeof(uint64_t))

mp_status gguf_set_string(gguf_writer *w, const char *key, const char *value, mp_error *err)
{
    gguf_string s = {value, strlen(value)};
    size_t bytes = sizeof(uint64_t) + s.len;
    uint8_t *raw = NULL;
    MP_TRY(allocate(key, bytes, &raw, err));
    put_string(raw, s);
    return set_owned(w, key, GGUF_STRING, raw, bytes, err);
}

mp_status gguf_set_array(gguf_writer *w, const char *key, enum gguf_type type, const void *values, size_t n,
                         mp_error *err)
{
    size_t element = gguf_type_bytes(type), bytes;
    uint8_t *raw = NULL;
    if (!element)
        return status_fail(err, MP_E_INVALID, "key '%.*s': an array of type %s cannot be set from memory", SHOWN_NAME,
                           key, gguf_type_name(type));
    if (!size_mul(n, element, &bytes) || !size_add(bytes, ARRAY_HEAD, &bytes)) return status_no_memory(err, n, key);
    MP_TRY(allocate(key, bytes, &raw, err));
    put(put_array_head(raw, type, n), values, n * element);
    return set_owned(w, key, GGUF_ARRAY, raw, bytes, err);
}

mp_status gguf_set_strings(gguf_writer *w, const char *key, const gguf_string *values, size_t n, mp_error *err)
{
    size_t bytes = ARRAY_HEAD;
    uint8_t *raw = NULL;
    for (size_t i = 0; i < n; i++)
        if (!size_add(bytes, sizeof(uint64_t), &bytes) || !size_add(bytes, values[i].len, &bytes))
            return status_no_memory(err, n, key);
    MP_TRY(allocate(key, bytes, &raw, err));
    uint8_t *to = put_array_head(raw, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) to = put_string(to, values[i]);
    return set_owned(w, key, GGUF_ARRAY, raw, bytes, err);
}

/* Parsed as a reader would: what is refused on reading must not be written. */
mp_status gguf_set_raw(gguf_writer *w, const char *key, enum gguf_type type, const void *raw, size_t bytes,
                       mp_error *err)
{
    if (!raw) raw = "";
    gguf_cursor c = {.path = "(key)", .data = raw, .len = bytes, .err = err};
    gguf_value value;
    MP_TRY(gguf_parse_value(&c, key, type, &value));
    if (c.pos != bytes)
        return status_fail(err, MP_E_INVALID, "key '%.*s': %zu bytes are not one value of type %s", SHOWN_NAME, key,
                           bytes, gguf_type_name(type));
    return set_copy(w, key, type, raw, bytes, err);
}

mp_status gguf_remove(gguf_writer *w, const char *key)
{
    gguf_written_key *found = find(w, key);
    if (!found) return MP_E_INVALID;
    free(found->name);
    free(found->raw);
    size_t after = (size_t)(w->keys + w->n_keys - found) - 1;
    memmove(found, found + 1, after * sizeof *found);
    w->n_keys--;
    return MP_OK;
}

size_t gguf_written_keys_bytes(const gguf_writer *w)
{
    size_t bytes = 0;
    for (size_t i = 0; i < w->n_keys; i++)
        bytes += sizeof(uint64_t) + strlen(w->keys[i].name) + sizeof(uint32_t) + w->keys[i].bytes;
    return bytes;
}
