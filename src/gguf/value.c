/* Typed queries. A number is first widened to the largest type of its kind (int64 or uint64, double), then narrowed to
 * the one asked for, with the range checked on the way. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_impl.h"

#define SHOWN_NAME 80

typedef struct number {
    enum { NUMBER_NONE, NUMBER_SIGNED, NUMBER_UNSIGNED, NUMBER_REAL } kind;
    int64_t i;
    uint64_t u;
    double f;
} number;

#define LOAD(type, kind_, member)                                                                                      \
    do {                                                                                                               \
        type loaded;                                                                                                   \
        memcpy(&loaded, at, sizeof loaded);                                                                            \
        return (number){.kind = (kind_), .member = loaded};                                                            \
    } while (0)

/* `at` need not be aligned. */
static number load_number(enum gguf_type type, const uint8_t *at)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        LOAD(uint8_t, NUMBER_UNSIGNED, u);
    case GGUF_I8:
        LOAD(int8_t, NUMBER_SIGNED, i);
    case GGUF_U16:
        LOAD(uint16_t, NUMBER_UNSIGNED, u);
    case GGUF_I16:
        LOAD(int16_t, NUMBER_SIGNED, i);
    case GGUF_U32:
        LOAD(uint32_t, NUMBER_UNSIGNED, u);
    case GGUF_I32:
        LOAD(int32_t, NUMBER_SIGNED, i);
    case GGUF_U64:
        LOAD(uint64_t, NUMBER_UNSIGNED, u);
    case GGUF_I64:
        LOAD(int64_t, NUMBER_SIGNED, i);
    case GGUF_F32:
        LOAD(float, NUMBER_REAL, f);
    case GGUF_F64:
        LOAD(double, NUMBER_REAL, f);
    case GGUF_STRING:
    case GGUF_ARRAY:
        break;
    }
    return (number){.kind = NUMBER_NONE};
}

static bool number_to_i64(const number *x, int64_t *out)
{
    if (x->kind == NUMBER_SIGNED) *out = x->i;
    if (x->kind == NUMBER_UNSIGNED && x->u <= INT64_MAX) *out = (int64_t)x->u;
    return x->kind == NUMBER_SIGNED || (x->kind == NUMBER_UNSIGNED && x->u <= INT64_MAX);
}

static bool number_to_u64(const number *x, uint64_t *out)
{
    if (x->kind == NUMBER_UNSIGNED) *out = x->u;
    if (x->kind == NUMBER_SIGNED && x->i >= 0) *out = (uint64_t)x->i;
    return x->kind == NUMBER_UNSIGNED || (x->kind == NUMBER_SIGNED && x->i >= 0);
}

static double number_to_f64(const number *x)
{
    return x->kind == NUMBER_REAL ? x->f : x->kind == NUMBER_SIGNED ? (double)x->i : (double)x->u;
}

static bool is_integer(enum gguf_type type)
{
    return gguf_type_bytes(type) && type != GGUF_F32 && type != GGUF_F64 && type != GGUF_BOOL;
}

bool gguf_value_i64(const gguf_value *value, int64_t *out)
{
    if (!is_integer(value->type)) return false;
    number x = load_number(value->type, value->first);
    return number_to_i64(&x, out);
}

/* ---- one value ---- */

static mp_status need(const gguf *g, const char *key, const gguf_value **out, mp_error *err)
{
    const gguf_key *found = gguf_header_find(&g->head, key);
    if (!found) return status_fail(err, MP_E_FORMAT, "%s: key '%s' is missing", gguf_path(g), key);
    *out = &found->value;
    return MP_OK;
}

static mp_status unfit(const gguf *g, const char *key, const gguf_value *value, const char *wanted, mp_error *err)
{
    bool array = value->type == GGUF_ARRAY;
    return status_fail(err, MP_E_FORMAT, "%s: key '%.*s' is %s%s, not %s", gguf_path(g), SHOWN_NAME, key,
                       array ? "an array of " : "of type ", gguf_type_name(value->element), wanted);
}

static mp_status out_of_range(const gguf *g, const char *key, const char *wanted, mp_error *err)
{
    return status_fail(err, MP_E_FORMAT, "%s: key '%.*s' is out of range, not %s", gguf_path(g), SHOWN_NAME, key,
                       wanted);
}

mp_status gguf_get_u64(const gguf *g, const char *key, uint64_t *out, mp_error *err)
{
    const gguf_value *value = NULL;
    MP_TRY(need(g, key, &value, err));
    if (!is_integer(value->type)) return unfit(g, key, value, "an integer", err);
    number x = load_number(value->type, value->first);
    return number_to_u64(&x, out) ? MP_OK : out_of_range(g, key, "a number from 0 on", err);
}

mp_status gguf_get_u32(const gguf *g, const char *key, uint32_t *out, mp_error *err)
{
    uint64_t wide;
    MP_TRY(gguf_get_u64(g, key, &wide, err));
    if (wide > UINT32_MAX) return out_of_range(g, key, "a number of 32 bits", err);
    *out = (uint32_t)wide;
    return MP_OK;
}

mp_status gguf_get_f32(const gguf *g, const char *key, float *out, mp_error *err)
{
    const gguf_value *value = NULL;
    MP_TRY(need(g, key, &value, err));
    if (value->type != GGUF_F32 && value->type != GGUF_F64) return unfit(g, key, value, "a real number", err);
    number x = load_number(value->type, value->first);
    float narrow = (float)x.f;
    if (!isfinite(narrow)) return out_of_range(g, key, "a finite number", err);
    *out = narrow;
    return MP_OK;
}

mp_status gguf_get_bool(const gguf *g, const char *key, bool *out, mp_error *err)
{
    const gguf_value *value = NULL;
    MP_TRY(need(g, key, &value, err));
    if (value->type != GGUF_BOOL) return unfit(g, key, value, "a bool", err);
    if (*value->first > 1) return out_of_range(g, key, "0 or 1", err);
    *out = *value->first == 1;
    return MP_OK;
}

/* The string at *at, which was proven when the file was opened; *at moves past it. */
static gguf_string load_string(const uint8_t **at)
{
    uint64_t len;
    memcpy(&len, *at, sizeof len);
    gguf_string s = {(const char *)*at + sizeof len, len};
    *at += sizeof len + len;
    return s;
}

mp_status gguf_get_string(const gguf *g, const char *key, gguf_string *out, mp_error *err)
{
    const gguf_value *value = NULL;
    MP_TRY(need(g, key, &value, err));
    if (value->type != GGUF_STRING) return unfit(g, key, value, "a string", err);
    const uint8_t *at = value->first;
    *out = load_string(&at);
    return MP_OK;
}

mp_status gguf_get_cstring(const gguf *g, const char *key, const char **out, mp_error *err)
{
    gguf_string ignored;
    MP_TRY(gguf_get_string(g, key, &ignored, err));
    *out = gguf_header_find(&g->head, key)->text;
    if (*out) return MP_OK;
    return status_fail(err, MP_E_FORMAT, "%s: key '%.*s' is too long or holds a zero byte", gguf_path(g), SHOWN_NAME,
                       key);
}

/* ---- arrays ---- */

static mp_status need_array(const gguf *g, const char *key, const gguf_value **out, mp_error *err)
{
    MP_TRY(need(g, key, out, err));
    return (*out)->type == GGUF_ARRAY ? MP_OK : unfit(g, key, *out, "an array", err);
}

mp_status gguf_array_len(const gguf *g, const char *key, enum gguf_type *type, size_t *n, mp_error *err)
{
    const gguf_value *value = NULL;
    MP_TRY(need_array(g, key, &value, err));
    if (type) *type = value->element;
    *n = value->n;
    return MP_OK;
}

/* Never NULL for success, also where n is 0. */
static mp_status allocate(size_t n, size_t element_bytes, const char *key, void **out, mp_error *err)
{
    *out = calloc(n ? n : 1, element_bytes);
    return *out ? MP_OK : status_no_memory(err, n, key);
}

mp_status gguf_get_strings(const gguf *g, const char *key, gguf_string **out, size_t *n, mp_error *err)
{
    const gguf_value *value = NULL;
    void *memory = NULL;
    *out = NULL;
    MP_TRY(need_array(g, key, &value, err));
    if (value->element != GGUF_STRING) return unfit(g, key, value, "an array of strings", err);
    MP_TRY(allocate(value->n, sizeof **out, key, &memory, err));
    *out = memory;
    *n = value->n;
    const uint8_t *at = value->first;
    for (size_t i = 0; i < value->n; i++) (*out)[i] = load_string(&at);
    return MP_OK;
}

typedef bool (*store_fn)(const number *x, void *to);

static bool store_i32(const number *x, void *to)
{
    int64_t wide;
    if (!number_to_i64(x, &wide) || wide < INT32_MIN || wide > INT32_MAX) return false;
    *(int32_t *)to = (int32_t)wide;
    return true;
}

static bool store_f32(const number *x, void *to)
{
    double wide = number_to_f64(x);
    *(float *)to = (float)wide;
    return !isnan(wide) && isinf(*(float *)to) == isinf(wide);
}

static bool store_f64(const number *x, void *to)
{
    *(double *)to = number_to_f64(x);
    return !isnan(*(double *)to);
}

static mp_status get_numbers(const gguf *g, const char *key, bool integers, store_fn store, size_t element_bytes,
                             void **out, size_t *n, mp_error *err)
{
    const gguf_value *value = NULL;
    *out = NULL;
    MP_TRY(need_array(g, key, &value, err));
    size_t stride = gguf_type_bytes(value->element);
    if (integers ? !is_integer(value->element) : !stride || value->element == GGUF_BOOL)
        return unfit(g, key, value, integers ? "an array of integers" : "an array of numbers", err);
    MP_TRY(allocate(value->n, element_bytes, key, out, err));
    *n = value->n;
    for (size_t i = 0; i < value->n; i++) {
        number x = load_number(value->element, value->first + i * stride);
        if (store(&x, (char *)*out + i * element_bytes)) continue;
        free(*out);
        *out = NULL;
        return status_fail(err, MP_E_FORMAT, "%s: key '%.*s': element %zu is out of range", gguf_path(g), SHOWN_NAME,
                           key, i);
    }
    return MP_OK;
}

mp_status gguf_get_i32s(const gguf *g, const char *key, int32_t **out, size_t *n, mp_error *err)
{
    void *memory;
    mp_status status = get_numbers(g, key, true, store_i32, sizeof **out, &memory, n, err);
    *out = memory;
    return status;
}

mp_status gguf_get_f32s(const gguf *g, const char *key, float **out, size_t *n, mp_error *err)
{
    void *memory;
    mp_status status = get_numbers(g, key, false, store_f32, sizeof **out, &memory, n, err);
    *out = memory;
    return status;
}

mp_status gguf_get_f64s(const gguf *g, const char *key, double **out, size_t *n, mp_error *err)
{
    void *memory;
    mp_status status = get_numbers(g, key, false, store_f64, sizeof **out, &memory, n, err);
    *out = memory;
    return status;
}
