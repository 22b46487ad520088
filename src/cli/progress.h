/* progress.h: shows how far a long operation is, on stderr. On a terminal one line that is rewritten; elsewhere
 * plain lines, when a stage begins and ends and every ten seconds between. Owned by the caller; one at a time. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "moeprism.h"

enum { PROGRESS_STAGES = 16 };

typedef struct progress {
    bool terminal;
    bool quiet_stages; /* do not tell when stages begin and end */
    bool line_open;    /* something stands in the terminal's current line */
    uint64_t shown_ns; /* when the last line was shown, 0: never */
    mp_progress last;  /* stage NULL: none yet */
    const char *seen[PROGRESS_STAGES];
    size_t n_seen;
} progress;

void progress_begin(progress *p, bool quiet_stages);
/* An mp_progress_fn; `user` is the progress. False once Ctrl-C was pressed (interrupt_catch). */
bool progress_update(void *user, const mp_progress *now);
/* Clears the line, tells the last stage's end. Harmless when nothing was shown, or twice. */
void progress_end(progress *p, bool finished);

/* An mp_progress_fn for an engine that opens: begins and ends by itself, and needs no `user`. One engine at a time. */
bool progress_load(void *user, const mp_progress *now);

/* "850 ms", "12 s", "3 min 20 s", "2 h 05 min". Returns buf. */
const char *format_duration(double seconds, char *buf, size_t cap);
/* "1.23 GiB". Returns buf. */
const char *format_bytes(uint64_t bytes, char *buf, size_t cap);

#endif
