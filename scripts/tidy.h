/* tidy.h: put before every file that clang-tidy reads, never compiled. The analyzer sees one file at a time, so it
 * takes a failing status_fail() for one that may return MP_OK, and follows paths that do not exist. */
#include "base/status.h"

#define status_fail(err, status, ...)       ((void)(status_fail)(err, status, __VA_ARGS__), (status))
#define status_no_memory(err, bytes, what)  ((void)(status_no_memory)(err, bytes, what), MP_E_MEMORY)
#define status_fail_errno(err, errnum, ...) ((void)(status_fail_errno)(err, errnum, __VA_ARGS__), MP_E_IO)
