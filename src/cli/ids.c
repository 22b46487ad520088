#include "cli/ids.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

mp_status ids_of_text(const mp_model *model, const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n,
                      mp_error *err)
{
    size_t cap = len / 2 + 16; /* most texts need fewer; the second try knows */
    for (int tries = 0; tries < 2; tries++) {
        int32_t *buf = calloc(cap, sizeof *buf);
        if (buf == NULL) return status_no_memory(err, cap * sizeof *buf, "tokens");
        const mp_status status = mp_tokenize(model, text, len, flags, buf, cap, n, err);
        if (status == MP_OK) {
            *ids = buf;
            return MP_OK;
        }
        free(buf);
        if (status != MP_E_LIMIT) return status;
        cap = *n;
    }
    return MP_E_LIMIT;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* One id at *p, which moves past it; -1 where there is none below n_vocab. */
static int64_t take_id(const char **p, const char *end, uint32_t n_vocab)
{
    uint64_t value = 0;
    const char *start = *p;
    while (*p < end && **p >= '0' && **p <= '9' && value < n_vocab) value = value * 10 + (uint64_t)(*(*p)++ - '0');
    const bool whole = *p > start && (*p == end || is_space(**p));
    return whole && value < n_vocab && value <= INT32_MAX ? (int64_t)value : -1;
}

mp_status ids_parse(const char *text, size_t len, const char *from, uint32_t n_vocab, int32_t **ids, size_t *n,
                    mp_error *err)
{
    const char *p = text, *const end = text + len;
    int32_t *buf = calloc(len / 2 + 1, sizeof *buf); /* an id takes two bytes at least, but for the last */
    if (buf == NULL) return status_no_memory(err, (len / 2 + 1) * sizeof *buf, "tokens");
    *n = 0;
    for (;;) {
        while (p < end && is_space(*p)) p++;
        if (p == end) break;
        const char *word = p;
        const int64_t id = take_id(&p, end, n_vocab);
        if (id < 0) {
            size_t shown = 0;
            while (word + shown < end && shown < 20 && !is_space(word[shown]) && word[shown] != '\0') shown++;
            free(buf);
            return status_fail(err, MP_E_INVALID, "%s: token %zu, '%.*s', is not an id from 0 to %u", from, *n + 1,
                               (int)shown, word, n_vocab - 1);
        }
        buf[(*n)++] = (int32_t)id;
    }
    *ids = buf;
    return MP_OK;
}
