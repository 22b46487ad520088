/* Reading JSON that anybody may have sent.
 *
 * Jansson checks syntax, UTF-8 and the range of numbers, but takes memory by the number of values, not of bytes: eight
 * megabytes of "[[[[" or "[],[],[]," are hundreds of megabytes of arrays. So the text is first scanned for how deep it
 * goes and how many values it can have. */
#include "serve/fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The end of the string that begins behind the quote at `at`. */
static size_t skip_string(const char *body, size_t len, size_t at)
{
    for (at++; at < len && body[at] != '"'; at++)
        if (body[at] == '\\') at++;
    return at;
}

static bool check_size(const char *body, size_t len, api_error *err)
{
    size_t depth = 0, values = 1;
    for (size_t at = 0; at < len; at++) {
        const char c = body[at];
        if (c == '"') at = skip_string(body, len, at);
        if (c == '[' || c == '{') {
            depth++;
            values++;
        }
        if ((c == ']' || c == '}') && depth > 0) depth--;
        if (c == ',') values++;
        if (depth > FIELDS_MAX_DEPTH)
            return api_fail(err, 400, "invalid_json", "the JSON body nests deeper than %d levels", FIELDS_MAX_DEPTH);
        if (values > FIELDS_MAX_VALUES)
            return api_fail(err, 400, "invalid_json", "the JSON body has more than %d values", FIELDS_MAX_VALUES);
    }
    return true;
}

json_t *fields_parse(const char *body, size_t len, api_error *err)
{
    json_error_t at;
    if (len == 0) {
        api_fail(err, 400, "invalid_json", "the body is empty: a JSON object is expected");
        return NULL;
    }
    if (!check_size(body, len, err)) return NULL;
    json_t *root = json_loadb(body, len, JSON_ALLOW_NUL, &at);
    if (root == NULL) {
        api_fail(err, 400, "invalid_json", "the body is not valid JSON: %s (line %d, column %d)", at.text, at.line,
                 at.column);
        return NULL;
    }
    if (!json_is_object(root)) {
        api_fail(err, 400, "invalid_json", "the body is JSON, but not an object");
        json_decref(root);
        return NULL;
    }
    return root;
}

json_t *field_get(const fields *f, const char *name)
{
    json_t *value = json_object_get(f->object, name);
    return f->err->http != 0 || json_is_null(value) ? NULL : value;
}

bool field_fail(const fields *f, const char *name, const char *format, ...)
{
    char full[sizeof f->err->param], message[MP_ERROR_MAX];
    va_list args;
    snprintf(full, sizeof full, "%s%s%s", f->within != NULL ? f->within : "", f->within != NULL ? "." : "", name);
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return api_fail_field(f->err, full, "%s %s", full, message);
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {"an object", "an array",  "a string",  "a whole number",
                                        "a number",  "a boolean", "a boolean", "null"};
    return names[json_typeof(value)];
}

static void wrong_type(const fields *f, const char *name, const char *wanted, const json_t *value)
{
    field_fail(f, name, "must be %s, not %s", wanted, type_name(value));
}

void field_bool(const fields *f, const char *name, bool *out)
{
    const json_t *value = field_get(f, name);
    if (value == NULL) return;
    if (json_is_boolean(value))
        *out = json_is_true(value);
    else
        wrong_type(f, name, "a boolean", value);
}

void field_integer(const fields *f, const char *name, int64_t min, int64_t max, int64_t *out)
{
    const json_t *value = field_get(f, name);
    if (value == NULL) return;
    const double real = json_number_value(value);
    int64_t whole = json_integer_value(value);
    if (!json_is_number(value) || real != floor(real)) {
        wrong_type(f, name, "a whole number", value);
        return;
    }
    const bool fits = json_is_integer(value) || fabs(real) < 9.2e18; /* the conversion is defined */
    if (json_is_real(value) && fits) whole = (int64_t)real;
    if (!fits || whole < min || whole > max)
        field_fail(f, name, "must be from %" PRId64 " to %" PRId64, min, max);
    else
        *out = whole;
}

void field_u32(const fields *f, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    int64_t value = *out;
    field_integer(f, name, min, max, &value);
    *out = (uint32_t)value;
}

void field_number(const fields *f, const char *name, double min, double max, double *out)
{
    const json_t *value = field_get(f, name);
    if (value == NULL) return;
    const double number = json_number_value(value);
    if (!json_is_number(value))
        wrong_type(f, name, "a number", value);
    else if (!(number >= min && number <= max))
        field_fail(f, name, "must be from %g to %g, not %g", min, max, number);
    else
        *out = number;
}

void field_string(const fields *f, const char *name, const char **out)
{
    const json_t *value = field_get(f, name);
    if (value == NULL) return;
    if (!json_is_string(value))
        wrong_type(f, name, "a string", value);
    else if (strlen(json_string_value(value)) != json_string_length(value))
        field_fail(f, name, "must not contain the character U+0000");
    else
        *out = json_string_value(value);
}

bool field_object(const fields *f, const char *name, fields *out)
{
    const json_t *value = field_get(f, name);
    if (value == NULL) return false;
    if (!json_is_object(value)) {
        wrong_type(f, name, "an object", value);
        return false;
    }
    *out = (fields){.object = value, .within = name, .err = f->err};
    return true;
}

void field_ms(const fields *f, const char *name, uint64_t *ns)
{
    double ms = -1;
    field_number(f, name, 0, 1e9, &ms);
    if (ms >= 0) *ns = (uint64_t)(ms * 1e6);
}
