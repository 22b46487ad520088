/* buffer.h: bytes that grow at the end and are taken from the front. Plain value, owned by who holds it; `{0}` is
 * empty.
 *
 * Running out of memory is remembered in `failed` and makes every later call do nothing, so that whoever composes a
 * text asks once, at the end. */
#ifndef SERVE_BUFFER_H
#define SERVE_BUFFER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct buffer {
    char *data; /* terminated by a 0 that is not counted; NULL while nothing was added */
    size_t len, cap;
    bool failed;
} buffer;

void buffer_add(buffer *b, const void *data, size_t len);
void buffer_text(buffer *b, const char *text);
/* The compact text of `root`, whose reference is taken over; NULL counts as out of memory. */
void buffer_json(buffer *b, json_t *root);
/* Moves up to cap bytes from the front to `out`; returns how many. */
size_t buffer_take(buffer *b, char *out, size_t cap);
void buffer_clear(buffer *b); /* frees, and is empty again */

#endif
