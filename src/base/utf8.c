#include "base/utf8.h"

#include <stdbool.h>

/* Length that a first byte announces; 0 for bytes that begin nothing. */
static size_t announced(unsigned char c)
{
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF) return 2;
    if (c >= 0xE0 && c <= 0xEF) return 3;
    if (c >= 0xF0 && c <= 0xF4) return 4;
    return 0;
}

/* Whether byte `i` of a sequence may follow: E0, ED, F0 and F4 limit the second byte (RFC 3629, section 4). */
static bool continues(const unsigned char *s, size_t i)
{
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
        if (s[0] == 0xE0) low = 0xA0;
        if (s[0] == 0xED) high = 0x9F;
        if (s[0] == 0xF0) low = 0x90;
        if (s[0] == 0xF4) high = 0x8F;
    }
    return s[i] >= low && s[i] <= high;
}

size_t utf8_sequence(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    const size_t n = len > 0 ? announced(s[0]) : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if (!continues(s, i)) return 0;
    return n;
}

size_t utf8_unfinished(const char *text, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        const unsigned char *s = (const unsigned char *)text + len - back;
        if (announced(s[0]) <= back) {
            if (announced(s[0]) != 0) return 0;
            continue;
        }
        for (size_t i = 1; i < back; i++)
            if (!continues(s, i)) return 0;
        return back;
    }
    return 0;
}
