/* status.h: where an error is made. The message is written once, where the fault is known. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdarg.h>

#include "moeprism.h"

/* Fills err (may be NULL) and returns status, so that `return status_fail(err, MP_E_IO, ...)` is one line. */
mp_status status_fail(mp_error *err, mp_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
mp_status status_no_memory(mp_error *err, size_t bytes, const char *what);
/* MP_E_IO with the text of `errnum` and a hint where one helps (no space, no permission). */
mp_status status_fail_errno(mp_error *err, int errnum, const char *action, const char *path);
/* Puts "prefix: " before the message that is there already. */
mp_status status_prefix(mp_error *err, mp_status status, const char *prefix);

#define MP_TRY(expression)                                                                                             \
    do {                                                                                                               \
        mp_status status_ = (expression);                                                                              \
        if (status_ != MP_OK) return status_;                                                                          \
    } while (0)

/* a * b into *out; false on overflow. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
