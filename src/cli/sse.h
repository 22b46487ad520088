/* sse.h: server-sent events, the client's side: bytes in, the data of events out. The reader owns its buffer. */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

enum { SSE_LINE_MAX = 1 << 20 };

/* data [len] of one line, terminated; valid during the call. False stops the reader. */
typedef bool (*sse_fn)(void *user, const char *data, size_t len);

typedef struct sse_reader {
    char *line; /* [len] what has come of the present line */
    size_t len, cap;
} sse_reader; /* starts as {0} */

void sse_clear(sse_reader *r);
/* Calls fn for every "data:" line that `bytes` completes; comments and other fields pass by. False: fn said so, a line
 * is longer than SSE_LINE_MAX, or memory ran out. */
bool sse_feed(sse_reader *r, const char *bytes, size_t n, sse_fn fn, void *user);

#endif
