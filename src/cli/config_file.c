#include "cli/config_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static const char blank[] = " \t\r";

static char *trim(char *text)
{
    text += strspn(text, blank);
    size_t n = strlen(text);
    while (n > 0 && strchr(blank, text[n - 1]) != NULL) n--;
    text[n] = '\0';
    return text;
}

/* A # begins a comment at the start of a line or behind white space: it may be part of a word. */
static void drop_comment(char *line)
{
    for (char *at = strchr(line, '#'); at != NULL; at = strchr(at + 1, '#'))
        if (at == line || strchr(blank, at[-1]) != NULL) {
            *at = '\0';
            return;
        }
}

static mp_status add_line(config_file *c, char *text, unsigned line, const char *path, mp_error *err)
{
    drop_comment(text);
    text = trim(text);
    if (*text == '\0') return MP_OK;
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text)
        return status_fail(err, MP_E_INVALID, "%s:%u: a line is 'name = value', not '%.60s'", path, line, text);
    *equals = '\0';
    config_line *grown = realloc(c->lines, (c->n + 1) * sizeof *grown);
    if (grown == NULL) return status_no_memory(err, sizeof *grown, "the configuration");
    c->lines = grown;
    c->lines[c->n++] = (config_line){trim(text), trim(equals + 1), line};
    return MP_OK;
}

mp_status config_file_read(const char *path, config_file *out, mp_error *err)
{
    size_t len;
    *out = (config_file){0};
    mp_status status = file_read(path, &out->text, &len, err);
    if (status == MP_OK && strlen(out->text) != len)
        status = status_fail(err, MP_E_INVALID, "%s is no text: it contains a zero byte", path);
    unsigned number = 0;
    for (char *line = out->text, *next; status == MP_OK && line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        status = add_line(out, line, ++number, path, err);
    }
    if (status != MP_OK) config_file_clear(out);
    return status;
}

void config_file_clear(config_file *c)
{
    free(c->text);
    free(c->lines);
    *c = (config_file){0};
}
