/* stops.h: text that comes in pieces of bytes, let out as whole UTF-8 sequences and without stop strings.
 *
 * Bytes that may begin a sequence wait for the rest; bytes that begin none become U+FFFD, one for each. Text that may
 * begin a stop string waits until it is known not to. The first stop string to be complete ends the text before it. No
 * I/O, no threads. */
#ifndef SERVE_STOPS_H
#define SERVE_STOPS_H

#include "base/status.h"

typedef struct stops {
    char *const *stop; /* [n_stop] the caller's, not empty strings */
    size_t n_stop;
    bool skip_white; /* nothing but white space has come yet, and it is left out */
    bool ended;
    char bytes[4]; /* [n_bytes] of an unfinished sequence */
    size_t n_bytes;
    char *text; /* [len] whole sequences, of which `ready` can go out; at least cap bytes */
    size_t len, ready, cap;
    size_t searched; /* no stop string ends before this */
} stops;

void stops_init(stops *s, char *const *stop, size_t n_stop, bool skip_white);
void stops_clear(stops *s);
/* Adds bytes. *stopped: the index of the stop string that ended the text, else n_stop. */
mp_status stops_add(stops *s, const char *bytes, size_t n, size_t *stopped, mp_error *err);
/* Nothing more comes: what waits is let out. */
mp_status stops_end(stops *s, mp_error *err);
/* What is ready, out of s: s->text [s->ready]; then stops_taken() forgets it. */
void stops_taken(stops *s);

#endif
