#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *mp_status_text(mp_status status)
{
    switch (status) {
#define X(name, value, text)                                                                                           \
    case MP_##name:                                                                                                    \
        return text;
        MP_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

const char *mp_version(void)
{
    return MP_VERSION;
}

mp_status status_fail(mp_error *err, mp_status status, const char *format, ...)
{
    if (!err) return status;
    err->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    for (char *c = err->message; *c; c++) /* a name from a file may hold anything: keep it one clean line */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return status;
}

mp_status status_no_memory(mp_error *err, size_t bytes, const char *what)
{
    return status_fail(err, MP_E_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

mp_status status_fail_errno(mp_error *err, int errnum, const char *action, const char *path)
{
    const char *hint = "";
    if (errnum == ENOSPC || errnum == EDQUOT) hint = "; free some space or choose another place";
    if (errnum == EACCES || errnum == EPERM) hint = "; check the permissions";
    return status_fail(err, MP_E_IO, "cannot %s %s: %s%s", action, path, strerror(errnum), hint);
}

mp_status status_prefix(mp_error *err, mp_status status, const char *prefix)
{
    if (!err) return status;
    char old[MP_ERROR_MAX];
    memcpy(old, err->message, sizeof old);
    return status_fail(err, status, "%s: %s", prefix, old);
}
