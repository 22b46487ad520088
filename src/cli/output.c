#include "cli/output.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/utf8.h"

mp_status output_begin(output *out, mp_error *err)
{
    *out = (output){0};
    out->stream = open_memstream(&out->data, &out->len);
    return out->stream != NULL ? MP_OK : status_no_memory(err, 0, "a report");
}

void output_drop(output *out)
{
    if (out->stream != NULL) fclose(out->stream);
    free(out->data);
    *out = (output){0};
}

static mp_status write_file(const char *path, const char *data, size_t len, mp_error *err)
{
    file_atomic *file;
    MP_TRY(file_atomic_open(path, true, &file, err));
    const mp_status status = file_atomic_write(file, data, len, err);
    if (status != MP_OK) {
        file_atomic_abort(file);
        return status;
    }
    return file_atomic_commit(file, err);
}

mp_status output_finish(output *out, const char *path, mp_error *err)
{
    mp_status status = MP_OK;
    const bool bad = ferror(out->stream) != 0;
    if (fclose(out->stream) != 0 || bad) status = status_no_memory(err, 0, "a report");
    out->stream = NULL;
    if (status == MP_OK && path != NULL && strcmp(path, "-") != 0) {
        status = write_file(path, out->data, out->len, err);
    } else if (status == MP_OK) {
        fwrite(out->data, 1, out->len, stdout);
        status = cli_flush(err);
    }
    output_drop(out);
    return status;
}

mp_status output_json(json_t *root, const char *path, mp_error *err)
{
    output out;
    if (root == NULL) return status_no_memory(err, 0, "a report");
    mp_status status = output_begin(&out, err);
    if (status == MP_OK) {
        /* Nine digits hold any F32 measurement; 17 would show noise such as 0.10000000000000001. */
        if (json_dumpf(root, out.stream, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
            output_drop(&out);
            status = status_no_memory(err, 0, "a report");
        } else {
            fputc('\n', out.stream);
            status = output_finish(&out, path, err);
        }
    }
    json_decref(root);
    return status;
}

json_t *json_text(const char *text)
{
    if (text == NULL) return json_null();
    json_t *string = json_string(text);
    if (string != NULL) return string;
    const size_t len = strlen(text);
    char *clean = malloc(3 * len + 1), *p = clean;
    if (clean == NULL) return NULL;
    for (size_t i = 0; i < len;) {
        const size_t n = utf8_sequence(text + i, len - i);
        memcpy(p, n > 0 ? text + i : "\xEF\xBF\xBD", n > 0 ? n : 3);
        p += n > 0 ? n : 3;
        i += n > 0 ? n : 1;
    }
    *p = '\0';
    string = json_string(clean);
    free(clean);
    return string;
}

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

mp_status input_read_stdin(char **data, size_t *len, mp_error *err)
{
    size_t cap = 1 << 16, n = 0;
    char *buf = malloc(cap);
    while (buf != NULL) {
        const size_t got = fread(buf + n, 1, cap - n - 1, stdin);
        n += got;
        if (got == 0) break;
        if (cap - n > 1) continue;
        char *grown = cap <= SIZE_MAX / 2 ? realloc(buf, cap * 2) : NULL;
        if (grown == NULL) free(buf);
        buf = grown;
        cap *= 2;
    }
    if (buf == NULL) return status_no_memory(err, cap, "standard input");
    if (ferror(stdin)) {
        const int reason = errno;
        free(buf);
        return status_fail_errno(err, reason, "read", "standard input");
    }
    buf[n] = '\0';
    *data = buf;
    *len = n;
    return MP_OK;
}

mp_status input_read(const char *path, char **data, size_t *len, mp_error *err)
{
    if (path == NULL || strcmp(path, "-") == 0) return input_read_stdin(data, len, err);
    return file_read(path, data, len, err);
}
