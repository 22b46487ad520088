#include "serve/text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "serve/buffer.h"

/* Bytes of the well-formed sequence that s [len > 0] begins with (Unicode, table 3-7), 0 where there is none. */
static size_t sequence(const uint8_t *s, size_t len)
{
    if (s[0] < 0x80) return 1;
    const size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || n > len) return 0;
    const uint8_t low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;  /* overlong forms begin lower */
    const uint8_t high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF; /* surrogates, past U+10FFFF */
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if (s[i] < 0x80 || s[i] > 0xBF) return 0;
    return n;
}

static json_t *repaired(const char *text, size_t len)
{
    buffer b = {0};
    for (size_t at = 0; at < len;) {
        const size_t n = sequence((const uint8_t *)text + at, len - at);
        if (n > 0)
            buffer_add(&b, text + at, n);
        else
            buffer_text(&b, "\xEF\xBF\xBD");
        at += n > 0 ? n : 1;
    }
    json_t *out = b.failed || b.data == NULL ? NULL : json_stringn(b.data, b.len);
    buffer_clear(&b);
    return out;
}

json_t *text_json_n(const char *text, size_t len)
{
    json_t *out = json_stringn(len > 0 ? text : "", len);
    return out != NULL ? out : repaired(text, len);
}

json_t *text_json(const char *text)
{
    return text_json_n(text, strlen(text));
}

json_t *number_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
