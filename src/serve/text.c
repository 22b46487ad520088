#include "serve/text.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "serve/buffer.h"

static json_t *repaired(const char *text, size_t len)
{
    buffer b = {0};
    for (size_t at = 0; at < len;) {
        const size_t n = utf8_sequence(text + at, len - at);
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
