#include "text/utf8.h"

#include <stdbool.h>

size_t utf8_next(const char *text, size_t len, uint32_t *character)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *s = (const uint8_t *)text;
    if (s[0] < 0x80) {
        *character = s[0];
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > len) return 0;
    uint32_t c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *character = c;
    return n;
}

size_t utf8_valid(const char *text, size_t len)
{
    uint32_t c;
    size_t at = 0;
    while (at < len) {
        size_t n = utf8_next(text + at, len - at, &c);
        if (n == 0) break;
        at += n;
    }
    return at;
}

size_t utf8_invalid(const char *text, size_t len)
{
    uint32_t c;
    size_t at = 0;
    while (at < len && utf8_next(text + at, len - at, &c) == 0) at++;
    return at;
}

static bool is_printable(uint32_t c)
{
    return (c > 0x20 && c < 0x7f) || (c > 0xa0 && c < 0x100 && c != 0xad);
}

size_t byte_to_text(uint8_t byte, char out[2])
{
    uint32_t c = byte;
    if (!is_printable(c)) /* 0x00-0x20, 0x7f-0xa0, 0xad */
        c = 0x100 + (c <= 0x20 ? c : c <= 0xa0 ? c - 0x7f + 0x21 : 0x43);
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

int byte_of_character(uint32_t character)
{
    if (is_printable(character)) return (int)character;
    if (character < 0x100 || character > 0x143) return -1;
    uint32_t n = character - 0x100;
    return (int)(n <= 0x20 ? n : n <= 0x42 ? n - 0x21 + 0x7f : 0xad);
}
