#include "serve/buffer.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* Room for `more` bytes and the 0 behind them. */
static bool make_room(buffer *b, size_t more)
{
    size_t need;
    if (b->failed || !size_add(b->len, more, &need) || !size_add(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap) return true;
    const size_t cap = need < 512 ? 512 : need + need / 2;
    char *grown = realloc(b->data, cap);
    if (grown == NULL) {
        b->failed = true;
        return false;
    }
    b->data = grown;
    b->cap = cap;
    return true;
}

void buffer_add(buffer *b, const void *data, size_t len)
{
    if (!make_room(b, len)) return;
    if (len > 0) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buffer_text(buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

static int add_dump(const char *data, size_t len, void *user)
{
    buffer *b = user;
    buffer_add(b, data, len);
    return b->failed ? -1 : 0;
}

void buffer_json(buffer *b, json_t *root)
{
    if (root == NULL || json_dump_callback(root, add_dump, b, JSON_COMPACT | JSON_REAL_PRECISION(10)) != 0)
        b->failed = true;
    json_decref(root);
}

size_t buffer_take(buffer *b, char *out, size_t cap)
{
    const size_t n = b->len < cap ? b->len : cap;
    if (n == 0) return 0;
    memcpy(out, b->data, n);
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
    return n;
}

void buffer_clear(buffer *b)
{
    free(b->data);
    *b = (buffer){0};
}
