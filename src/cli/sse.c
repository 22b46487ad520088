/* OpenAI's streams put one JSON text on one "data:" line and end events by an empty line, so a line is an event here.
 */
#include "cli/sse.h"

#include <stdlib.h>
#include <string.h>

void sse_clear(sse_reader *r)
{
    free(r->line);
    *r = (sse_reader){0};
}

static bool append(sse_reader *r, const char *bytes, size_t n)
{
    if (n > SSE_LINE_MAX - r->len) return false;
    if (r->len + n + 1 > r->cap) {
        const size_t cap = 2 * (r->len + n + 1);
        char *grown = realloc(r->line, cap);
        if (grown == NULL) return false;
        r->line = grown;
        r->cap = cap;
    }
    memcpy(r->line + r->len, bytes, n);
    r->len += n;
    r->line[r->len] = '\0';
    return true;
}

static bool line_ends(sse_reader *r, sse_fn fn, void *user)
{
    static const char field[] = "data:";
    size_t len = r->len;
    r->len = 0;
    if (len > 0 && r->line[len - 1] == '\r') r->line[--len] = '\0';
    if (len < sizeof field - 1 || memcmp(r->line, field, sizeof field - 1) != 0) return true;
    const size_t skip = sizeof field - 1 + (r->line[sizeof field - 1] == ' ');
    return fn(user, r->line + skip, len - skip);
}

bool sse_feed(sse_reader *r, const char *bytes, size_t n, sse_fn fn, void *user)
{
    for (const char *p = bytes, *end = bytes + n; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const size_t piece = (size_t)((newline != NULL ? newline : end) - p);
        if (!append(r, p, piece)) return false;
        if (newline == NULL) return true;
        if (!line_ends(r, fn, user)) return false;
        p = newline + 1;
    }
    return true;
}
