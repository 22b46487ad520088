/* fields.h: reading a JSON request: what may be read at all, and typed fields with errors that name them.
 *
 * Every reader leaves *out alone where the field is absent or null, and does nothing once an error has been found, so
 * that a parser is a flat list of calls with one question at the end: fields.err->http == 0? */
#ifndef SERVE_FIELDS_H
#define SERVE_FIELDS_H

#include <jansson.h>

#include "serve/api_error.h"

enum {
    FIELDS_MAX_DEPTH = 64,      /* brackets within brackets */
    FIELDS_MAX_VALUES = 400000, /* in one body: a few bytes of text cost a hundred bytes of memory each */
};

/* The object that body [len] is, to be released by json_decref(); NULL: err says what is wrong and where. */
json_t *fields_parse(const char *body, size_t len, api_error *err);

typedef struct fields {
    const json_t *object;
    const char *within; /* "moeprism": fields are called moeprism.NAME; NULL: the body itself */
    api_error *err;
} fields;

/* The value, NULL where it is absent or null. */
json_t *field_get(const fields *f, const char *name);
/* 400 about field `name`; the message begins with the field's name. */
bool field_fail(const fields *f, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

void field_bool(const fields *f, const char *name, bool *out);
/* Whole numbers; 3.0 is one. */
void field_integer(const fields *f, const char *name, int64_t min, int64_t max, int64_t *out);
void field_u32(const fields *f, const char *name, uint32_t min, uint32_t max, uint32_t *out);
void field_number(const fields *f, const char *name, double min, double max, double *out);
/* A string without U+0000; the document's. */
void field_string(const fields *f, const char *name, const char **out);
/* An object of fields of its own: true where it is there. */
bool field_object(const fields *f, const char *name, fields *out);
/* Milliseconds into nanoseconds. */
void field_ms(const fields *f, const char *name, uint64_t *ns);

#endif
