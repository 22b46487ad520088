/* Bytes of one file to keys and tensor entries. Every read goes through take(), which is the one place that compares
 * with the bytes left; arrays of the result grow with what was really found, never with what a count claims. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_impl.h"

#define MAX_TEXT     ((size_t)16 << 20) /* of a string that is kept as a terminated copy too */
#define LEAST_KEY    14u                /* name of 1 byte with its length, type, 1 byte of value */
#define LEAST_TENSOR 25u                /* name of 1 byte with its length, n_dims, no dims, type, offset */
#define LEAST_STRING 8u                 /* its length */
#define SHOWN_NAME   80                 /* bytes of a name in a message */

void gguf_describe_damage(const char *path, size_t offset, mp_error *err, const char *format, ...)
{
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    status_fail(err, MP_E_FORMAT, "%s: at byte %zu: %s; the file is damaged or incomplete, get it again", path, offset,
                what);
}

static mp_status take(gguf_cursor *c, size_t n, const char *what, const uint8_t **out)
{
    size_t left = c->len - c->pos;
    if (n > left)
        return gguf_damaged(c->path, c->pos, c->err, "%s takes %zu bytes, but the file ends after %zu", what, n, left);
    *out = c->data + c->pos;
    c->pos += n;
    return MP_OK;
}

static mp_status take_u32(gguf_cursor *c, const char *what, uint32_t *out)
{
    const uint8_t *bytes = NULL;
    MP_TRY(take(c, sizeof *out, what, &bytes));
    memcpy(out, bytes, sizeof *out);
    return MP_OK;
}

static mp_status take_u64(gguf_cursor *c, const char *what, uint64_t *out)
{
    const uint8_t *bytes = NULL;
    MP_TRY(take(c, sizeof *out, what, &bytes));
    memcpy(out, bytes, sizeof *out);
    return MP_OK;
}

/* Length and bytes; the length may be anything. */
static mp_status take_string(gguf_cursor *c, const char *what, gguf_string *out)
{
    uint64_t len = 0;
    const uint8_t *bytes = NULL;
    MP_TRY(take_u64(c, what, &len));
    MP_TRY(take(c, len, what, &bytes));
    *out = (gguf_string){(const char *)bytes, len};
    return MP_OK;
}

static mp_status take_name(gguf_cursor *c, const char *what, const char **out)
{
    size_t at = c->pos;
    gguf_string s = {0};
    MP_TRY(take_string(c, what, &s));
    if (s.len == 0) return gguf_damaged(c->path, at, c->err, "%s is empty", what);
    if (s.len > GGUF_MAX_NAME)
        return gguf_damaged(c->path, at, c->err, "%s has %zu bytes, more than %u", what, s.len, GGUF_MAX_NAME);
    if (memchr(s.data, 0, s.len)) return gguf_damaged(c->path, at, c->err, "%s holds a zero byte", what);
    *out = strndup(s.data, s.len);
    return *out ? MP_OK : status_no_memory(c->err, s.len, what);
}

static mp_status parse_array(gguf_cursor *c, const char *name, gguf_value *value)
{
    size_t at = c->pos;
    uint32_t element = 0;
    uint64_t n = 0;
    MP_TRY(take_u32(c, "an array's type", &element));
    MP_TRY(take_u64(c, "an array's length", &n));
    size_t left = c->len - c->pos, bytes, least = element == GGUF_STRING ? LEAST_STRING : gguf_type_bytes(element);
    if (element == GGUF_ARRAY)
        return status_fail(c->err, MP_E_UNSUPPORTED,
                           "%s: at byte %zu: key '%.*s' is an array of arrays, which is not "
                           "supported",
                           c->path, at, SHOWN_NAME, name);
    if (!least)
        return gguf_damaged(c->path, at, c->err, "key '%.*s' is an array of the unknown type %u", SHOWN_NAME, name,
                            element);
    if (!size_mul(n, least, &bytes) || bytes > left)
        return gguf_damaged(c->path, at, c->err,
                            "key '%.*s' claims %llu elements of type %s, but the file ends after "
                            "%zu bytes",
                            SHOWN_NAME, name, (unsigned long long)n, gguf_type_name(element), left);
    value->element = element;
    value->n = n;
    value->first = c->data + c->pos;
    if (element != GGUF_STRING) {
        c->pos += bytes;
        return MP_OK;
    }
    gguf_string ignored;
    for (size_t i = 0; i < n; i++) MP_TRY(take_string(c, "a string of an array", &ignored));
    return MP_OK;
}

mp_status gguf_parse_value(gguf_cursor *c, const char *name, enum gguf_type type, gguf_value *out)
{
    size_t at = c->pos, fixed = gguf_type_bytes(type);
    gguf_string ignored;
    *out = (gguf_value){.type = type, .element = type, .n = 1, .raw = c->data + at, .first = c->data + at};
    if (fixed)
        MP_TRY(take(c, fixed, "a key's value", &out->first));
    else if (type == GGUF_STRING)
        MP_TRY(take_string(c, "a string", &ignored));
    else if (type == GGUF_ARRAY)
        MP_TRY(parse_array(c, name, out));
    else
        return gguf_damaged(c->path, at, c->err, "key '%.*s' has the unknown type %u", SHOWN_NAME, name,
                            (unsigned)type);
    out->bytes = c->pos - at;
    return MP_OK;
}

/* Queries may come from any thread, so terminated copies are made now rather than when asked for. */
static mp_status keep_text(gguf_key *key, mp_error *err)
{
    const char *bytes = (const char *)key->value.first + LEAST_STRING;
    size_t len = key->value.bytes - LEAST_STRING;
    if (len > MAX_TEXT || memchr(bytes, 0, len)) return MP_OK;
    key->text = strndup(bytes, len);
    return key->text ? MP_OK : status_no_memory(err, len, key->name);
}

static mp_status parse_key(gguf_cursor *c, gguf_key *key)
{
    uint32_t type = 0;
    MP_TRY(take_name(c, "a key's name", &key->name));
    MP_TRY(take_u32(c, "a key's type", &type));
    MP_TRY(gguf_parse_value(c, key->name, type, &key->value));
    return type == GGUF_STRING ? keep_text(key, c->err) : MP_OK;
}

static mp_status parse_keys(gguf_cursor *c, size_t n, gguf_header *out)
{
    size_t capacity = 0;
    while (out->n_keys < n) {
        MP_TRY(gguf_grow((void **)&out->keys, &capacity, out->n_keys, sizeof *out->keys, c->err));
        gguf_key *key = &out->keys[out->n_keys++];
        *key = (gguf_key){0};
        MP_TRY(parse_key(c, key));
    }
    const char *repeated;
    MP_TRY(gguf_names_build(out->keys, sizeof *out->keys, out->n_keys, &out->key_names, &repeated, c->err));
    if (!repeated) return MP_OK;
    return gguf_damaged(c->path, c->pos, c->err, "key '%.*s' stands there twice", SHOWN_NAME, repeated);
}

static mp_status parse_tensor(gguf_cursor *c, gguf_tensor *tensor)
{
    uint32_t type = 0;
    tensor->data = c->data + c->pos;
    MP_TRY(take_name(c, "a tensor's name", &tensor->name));
    size_t at = c->pos;
    MP_TRY(take_u32(c, "a tensor's number of dimensions", &tensor->n_dims));
    if (tensor->n_dims > GGUF_MAX_DIMS)
        return gguf_damaged(c->path, at, c->err, "tensor '%.*s' has %u dimensions, more than %d", SHOWN_NAME,
                            tensor->name, tensor->n_dims, GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        if (i < tensor->n_dims) MP_TRY(take_u64(c, "a tensor's dimension", &tensor->dims[i]));
    }
    MP_TRY(take_u32(c, "a tensor's type", &type));
    tensor->dtype = (int)type; /* beyond INT_MAX: negative, and no type has such a number */
    return take_u64(c, "a tensor's offset", &tensor->offset);
}

static mp_status parse_tensors(gguf_cursor *c, size_t n, gguf_header *out)
{
    size_t capacity = 0;
    while (out->n_tensors < n) {
        MP_TRY(gguf_grow((void **)&out->tensors, &capacity, out->n_tensors, sizeof *out->tensors, c->err));
        gguf_tensor *tensor = &out->tensors[out->n_tensors++];
        *tensor = (gguf_tensor){0};
        MP_TRY(parse_tensor(c, tensor));
    }
    return MP_OK;
}

static mp_status refuse_magic(gguf_cursor *c)
{
    static const char lfs[] = "version https://git-lfs";
    if (c->len == 0) return status_fail(c->err, MP_E_FORMAT, "%s: the file is empty; get it again", c->path);
    if (c->len >= sizeof lfs - 1 && !memcmp(c->data, lfs, sizeof lfs - 1))
        return status_fail(c->err, MP_E_FORMAT, "%s: a Git LFS pointer, not the file itself; run 'git lfs pull'",
                           c->path);
    return status_fail(c->err, MP_E_FORMAT,
                       "%s: at byte 0: not a GGUF file, which begins with \"GGUF\"; name a model "
                       "in GGUF format",
                       c->path);
}

static mp_status check_version(const gguf_cursor *c, uint32_t version)
{
    if (version == 2 || version == 3) return MP_OK;
    if (version == 1)
        return status_fail(c->err, MP_E_UNSUPPORTED,
                           "%s: at byte 4: GGUF version 1 is not supported, only 2 and 3; "
                           "convert the model again with a current tool",
                           c->path);
    if (__builtin_bswap32(version) <= 0xffff)
        return status_fail(c->err, MP_E_UNSUPPORTED,
                           "%s: at byte 4: a big-endian GGUF, which is not supported; convert "
                           "it to little-endian",
                           c->path);
    return status_fail(c->err, MP_E_UNSUPPORTED, "%s: at byte 4: GGUF version %u is not supported, only 2 and 3",
                       c->path, version);
}

static mp_status check_count(const gguf_cursor *c, size_t at, uint64_t n, size_t least, const char *what)
{
    size_t left = c->len - c->pos;
    if (n <= left / least) return MP_OK;
    return gguf_damaged(c->path, at, c->err, "%llu %s are more than %zu bytes can hold", (unsigned long long)n, what,
                        left);
}

mp_status gguf_parse(const char *path, const uint8_t *data, size_t len, gguf_header *out, mp_error *err)
{
    gguf_cursor c = {.path = path, .data = data, .len = len, .err = err};
    const uint8_t *magic;
    uint64_t n_tensors = 0, n_keys = 0;
    *out = (gguf_header){0};
    if (len < 4 || memcmp(data, GGUF_MAGIC, 4)) return refuse_magic(&c);
    MP_TRY(take(&c, 4, "the magic number", &magic));
    MP_TRY(take_u32(&c, "the version", &out->version));
    MP_TRY(check_version(&c, out->version));
    MP_TRY(take_u64(&c, "the number of tensors", &n_tensors));
    MP_TRY(take_u64(&c, "the number of keys", &n_keys));
    MP_TRY(check_count(&c, 8, n_tensors, LEAST_TENSOR, "tensors"));
    MP_TRY(check_count(&c, 16, n_keys, LEAST_KEY, "keys"));
    MP_TRY(parse_keys(&c, n_keys, out));
    MP_TRY(parse_tensors(&c, n_tensors, out));
    out->end = c.pos;
    return MP_OK;
}

const gguf_key *gguf_header_find(const gguf_header *header, const char *name)
{
    size_t i = gguf_names_find(&header->key_names, name);
    return i == GGUF_NONE ? NULL : &header->keys[i];
}

void gguf_header_clear(gguf_header *header)
{
    gguf_names_clear(&header->key_names);
    for (size_t i = 0; i < header->n_keys; i++) {
        free((char *)header->keys[i].name);
        free(header->keys[i].text);
    }
    free(header->keys);
    for (size_t i = 0; i < header->n_tensors; i++) free((char *)header->tensors[i].name);
    free(header->tensors);
    *header = (gguf_header){0};
}
