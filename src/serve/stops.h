/* stops.h: text that comes in pieces of bytes, let out as whole UTF-8 sequences and without stop strings.
 *
 * Bytes that may begin a sequence wait for the rest; bytes that begin none become U+FFFD, one for each. Text that may
 * begin a stop string waits until it is known not to. The first stop string to be complete ends the text before it.
 * What a byte costs depends on how many stop strings there are, not on how long they are. No I/O, no threads. */
#ifndef SERVE_STOPS_H
#define SERVE_STOPS_H

#include "base/status.h"

/* A stop string and how much of its beginning the text ends with (Knuth, Morris and Pratt). */
typedef struct stop_match {
    const char *text; /* [len] the caller's */
    size_t len, matched;
    uint32_t *shorter; /* [len] of each beginning of i + 1 bytes: its longest other beginning that it ends with */
} stop_match;

typedef struct stops {
    stop_match *stop; /* [n_stop] */
    size_t n_stop;
    bool skip_white; /* nothing but white space has come yet, and it is left out */
    bool ended;
    char bytes[4]; /* [n_bytes] of an unfinished sequence */
    size_t n_bytes;
    char *text; /* [len] whole sequences, of which `ready` can go out; at least cap bytes */
    size_t len, ready, cap;
    size_t searched; /* no stop string ends before this, and what is matched is so here */
} stops;

/* stop [n_stop]: strings that are not empty, below 4 GiB, and outlive s. */
mp_status stops_init(stops *s, char *const *stop, size_t n_stop, bool skip_white, mp_error *err);
void stops_clear(stops *s);
/* Adds bytes. *stopped: the index of the stop string that ended the text, else n_stop. */
mp_status stops_add(stops *s, const char *bytes, size_t n, size_t *stopped, mp_error *err);
/* Nothing more comes: what waits is let out. */
mp_status stops_end(stops *s, mp_error *err);
/* What is ready, out of s: s->text [s->ready]; then stops_taken() forgets it. */
void stops_taken(stops *s);

#endif
