/* interrupt.h: signals. A signal that ends the program first removes what was being written under a temporary name.
 * The flag is process-wide, as signals are; only the main thread calls these. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* At the start: SIGINT, SIGTERM and SIGHUP clean up and end the program; SIGPIPE becomes a write error. */
void interrupt_setup(void);
/* From here to interrupt_release() the first Ctrl-C only raises a flag and writes `say` (static, may be NULL) to
 * stderr; the second ends the program. */
void interrupt_catch(const char *say);
/* From here to interrupt_release() SIGINT and SIGTERM write a byte each to `fd`, which must not block (-1: nowhere);
 * the third ends the program. */
void interrupt_forward(int fd);
void interrupt_release(void);
bool interrupt_seen(void);

#endif
