#include "serve/stops.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* ---- stop strings ---- */

/* The text's next byte; whether the stop string ends with it. */
static bool match_byte(stop_match *m, char byte)
{
    while (m->matched > 0 && m->text[m->matched] != byte) m->matched = m->shorter[m->matched - 1];
    if (m->text[m->matched] == byte) m->matched++;
    return m->matched == m->len;
}

/* Finds the string in itself. */
static mp_status match_init(stop_match *m, const char *text, mp_error *err)
{
    *m = (stop_match){.text = text, .len = strlen(text)};
    m->shorter = calloc(m->len, sizeof *m->shorter);
    if (m->shorter == NULL) return status_no_memory(err, m->len, "a stop string");
    for (size_t i = 1; i < m->len; i++) {
        match_byte(m, text[i]);
        m->shorter[i] = (uint32_t)m->matched;
    }
    m->matched = 0;
    return MP_OK;
}

mp_status stops_init(stops *s, char *const *stop, size_t n_stop, bool skip_white, mp_error *err)
{
    *s = (stops){.skip_white = skip_white};
    if (n_stop == 0) return MP_OK;
    s->stop = calloc(n_stop, sizeof *s->stop);
    if (s->stop == NULL) return status_no_memory(err, n_stop, "stop strings");
    for (; s->n_stop < n_stop; s->n_stop++) MP_TRY(match_init(&s->stop[s->n_stop], stop[s->n_stop], err));
    return MP_OK;
}

void stops_clear(stops *s)
{
    for (size_t i = 0; i < s->n_stop; i++) free(s->stop[i].shorter);
    free(s->stop);
    free(s->text);
    *s = (stops){0};
}

/* Bytes at the end of the text that begin a stop string. */
static size_t unfinished_stop(const stops *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n_stop; i++)
        if (s->stop[i].matched > most) most = s->stop[i].matched;
    return most;
}

/* The stop string that is complete first, that is, ends first; of those the longest. Ends the text before it. */
static size_t find_stop(stops *s)
{
    while (s->searched < s->len) {
        const char byte = s->text[s->searched++];
        size_t found = s->n_stop, longest = 0;
        for (size_t i = 0; i < s->n_stop; i++) {
            if (!match_byte(&s->stop[i], byte) || s->stop[i].len <= longest) continue;
            found = i;
            longest = s->stop[i].len;
        }
        if (found == s->n_stop) continue;
        s->len = s->ready = s->searched - longest;
        s->n_bytes = 0;
        s->ended = true;
        return found;
    }
    return s->n_stop;
}

/* ---- text ---- */

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
