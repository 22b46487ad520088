#include "cli/utf8.h"

#include <string.h>

size_t utf8_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

void utf8_print_escaped(const char *text, size_t len, FILE *out)
{
    for (size_t i = 0; i < len;) {
        const unsigned char c = (unsigned char)text[i];
        const size_t n = utf8_sequence(text + i, len - i);
        if (c != 0 && strchr("\n\t\r\\'", c) != NULL) {
            fprintf(out, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : c == '\r' ? 'r' : c);
        } else if (n == 0 || c < 0x20 || c == 0x7F) {
            fprintf(out, "\\x%02x", c);
        } else {
            fwrite(text + i, 1, n, out);
        }
        i += n > 0 ? n : 1;
    }
}

void utf8_print_html(const char *text, FILE *out)
{
    const size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        const size_t n = utf8_sequence(text + i, len - i);
        const char c = text[i];
        if (n == 0)
            fputs("\xEF\xBF\xBD", out);
        else if (c == '&')
            fputs("&amp;", out);
        else if (c == '<')
            fputs("&lt;", out);
        else if (c == '>')
            fputs("&gt;", out);
        else if (c == '"')
            fputs("&quot;", out);
        else if (c == '\'')
            fputs("&#39;", out);
        else
            fwrite(text + i, 1, n, out);
        i += n > 0 ? n : 1;
    }
}
