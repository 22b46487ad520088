#include "serve/stops.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

void stops_init(stops *s, char *const *stop, size_t n_stop, bool skip_white)
{
    *s = (stops){.stop = stop, .n_stop = n_stop, .skip_white = skip_white};
}

void stops_clear(stops *s)
{
    free(s->text);
    *s = (stops){0};
}

static mp_status reserve(stops *s, size_t more, mp_error *err)
{
    size_t need, cap = s->cap > 0 ? s->cap : 64;
    if (!size_add(s->len, more, &need)) return status_no_memory(err, SIZE_MAX, "a reply");
    while (cap < need)
        if (!size_mul(cap, 2, &cap)) return status_no_memory(err, need, "a reply");
    if (cap == s->cap) return MP_OK;
    char *grown = realloc(s->text, cap);
    if (!grown) return status_no_memory(err, cap, "a reply");
    s->text = grown;
    s->cap = cap;
    return MP_OK;
}

static void put(stops *s, const char *sequence, size_t n)
{
    if (s->skip_white && n == 1 && strchr(" \t\r\n", *sequence) != NULL && *sequence != '\0') return;
    s->skip_white = false;
    memcpy(s->text + s->len, sequence, n);
    s->len += n;
}

/* One byte behind those that wait; there is room for all of them as U+FFFD. */
static void put_byte(stops *s, char byte)
{
    s->bytes[s->n_bytes++] = byte;
    while (s->n_bytes > 0 && utf8_unfinished(s->bytes, s->n_bytes) < s->n_bytes) {
        const size_t n = utf8_sequence(s->bytes, s->n_bytes), gone = n > 0 ? n : 1;
        if (n > 0)
            put(s, s->bytes, n);
        else
            put(s, REPLACEMENT, strlen(REPLACEMENT));
        s->n_bytes -= gone;
        memmove(s->bytes, s->bytes + gone, s->n_bytes);
    }
}

/* Bytes at the end of the text that begin a stop string. */
static size_t unfinished_stop(const stops *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n_stop; i++) {
        const size_t n = strlen(s->stop[i]);
        for (size_t back = n - 1 < s->len ? n - 1 : s->len; back > most; back--)
            if (memcmp(s->text + s->len - back, s->stop[i], back) == 0) most = back;
    }
    return most;
}

/* The stop string that is complete first, that is, ends first; of those the longest. Ends the text before it. */
static size_t find_stop(stops *s)
{
    for (size_t end = s->searched + 1; end <= s->len; end++) {
        size_t found = s->n_stop, longest = 0;
        for (size_t i = 0; i < s->n_stop; i++) {
            const size_t n = strlen(s->stop[i]);
            if (n <= longest || n > end || memcmp(s->text + end - n, s->stop[i], n) != 0) continue;
            found = i;
            longest = n;
        }
        if (found == s->n_stop) continue;
        s->len = s->ready = end - longest;
        s->n_bytes = 0;
        s->ended = true;
        return found;
    }
    s->searched = s->len;
    return s->n_stop;
}

mp_status stops_add(stops *s, const char *bytes, size_t n, size_t *stopped, mp_error *err)
{
    size_t most;
    *stopped = s->n_stop;
    if (s->ended) return MP_OK;
    if (!size_mul(n + sizeof s->bytes, strlen(REPLACEMENT), &most)) return status_no_memory(err, n, "a reply");
    MP_TRY(reserve(s, most, err));
    for (size_t i = 0; i < n; i++) put_byte(s, bytes[i]);
    *stopped = find_stop(s);
    if (!s->ended) s->ready = s->len - unfinished_stop(s);
    return MP_OK;
}

mp_status stops_end(stops *s, mp_error *err)
{
    if (s->ended) return MP_OK;
    MP_TRY(reserve(s, strlen(REPLACEMENT), err));
    if (s->n_bytes > 0) put(s, REPLACEMENT, strlen(REPLACEMENT)); /* one for what began as a single character */
    s->n_bytes = 0;
    s->ready = s->len;
    s->ended = true;
    return MP_OK;
}

void stops_taken(stops *s)
{
    memmove(s->text, s->text + s->ready, s->len - s->ready);
    s->len -= s->ready;
    s->searched -= s->searched < s->ready ? s->searched : s->ready;
    s->ready = 0;
}
