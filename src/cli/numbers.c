#include "cli/numbers.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool number_u64(const char *text, uint64_t *out)
{
    if (*text == '\0') return false;
    uint64_t value = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') return false;
        if (__builtin_mul_overflow(value, (uint64_t)10, &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) return false;
    }
    *out = value;
    return true;
}

bool number_f64(const char *text, double *out)
{
    /* strtod would also take leading spaces, "nan", "inf" and hexadecimal. */
    if (*text == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0') return false;
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value)) return false;
    *out = value;
    return true;
}

bool number_share(const char *text, double *out)
{
    char digits[64];
    const size_t len = strlen(text);
    if (len == 0 || text[len - 1] != '%') return number_f64(text, out);
    if (len > sizeof digits) return false;
    memcpy(digits, text, len - 1);
    digits[len - 1] = '\0';
    if (!number_f64(digits, out)) return false;
    *out /= 100;
    return true;
}

bool number_bytes(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char digits[64];
    double value;
    const size_t len = strcspn(text, units);
    if (text[len] == '\0') return number_u64(text, out);
    const char *unit = strchr(units, text[len]), *rest = text + len + 1;
    if (len >= sizeof digits || (*rest != '\0' && strcmp(rest, "B") != 0 && strcmp(rest, "iB") != 0)) return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    if (!number_f64(digits, &value)) return false;
    value = ldexp(value, 10 * (int)(unit - units + 1));
    if (value < 0 || value >= (double)INT64_MAX) return false;
    *out = (uint64_t)value;
    return true;
}

/* One decimal number at *p, which moves past it. */
static bool take_u32(const char **p, uint32_t *out)
{
    const size_t len = strspn(*p, "0123456789");
    char digits[16];
    uint64_t value;
    if (len == 0 || len >= sizeof digits) return false;
    memcpy(digits, *p, len);
    digits[len] = '\0';
    if (!number_u64(digits, &value) || value >= UINT32_MAX) return false;
    *p += len;
    *out = (uint32_t)value;
    return true;
}

bool number_list(const char *text, uint32_t *values, size_t cap, size_t *n)
{
    *n = 0;
    for (const char *p = text;; p++) {
        uint32_t first, last;
        if (!take_u32(&p, &first)) return false;
        last = first;
        if (*p == '-') {
            p++;
            if (!take_u32(&p, &last) || last < first) return false;
        }
        for (uint64_t value = first; value <= last; value++) {
            if (*n == cap) return false;
            values[(*n)++] = (uint32_t)value;
        }
        if (*p == '\0') return true;
        if (*p != ',') return false;
    }
}
