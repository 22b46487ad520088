/* watch.h: what happens to connections while the HTTP thread does not look at them.
 *
 * The HTTP thread puts a connection to sleep whose answer is not there yet; libmicrohttpd then takes its socket out of
 * its own event loop and notices nothing, not even that the client has gone. A `sleeper` stands for such a request:
 * jobs wake it from the loop's thread, and the main thread, which runs watch_wait(), wakes it when the client hangs up
 * or when a stream has been silent for so long that it should give a sign of life. A `visitor` stands for a connection,
 * which is closed when it lets the server wait past a deadline, however busily it trickles bytes.
 *
 * Sleepers are never freed before the watch is, only used again: a late wake finds either its request or another one,
 * which then looks for news in vain. One lock; nothing is called with it held but libmicrohttpd's suspend and resume.
 */
#ifndef SERVE_WATCH_H
#define SERVE_WATCH_H

#include <microhttpd.h>

#include "base/status.h"

typedef struct watch watch;
typedef struct sleeper sleeper;
typedef struct visitor visitor;

mp_status watch_new(watch **out, mp_error *err);
void watch_free(watch *w); /* NULL is fine; nobody may use it any more */

/* ---- the HTTP thread ---- */

/* A request whose answer takes time; `beats`: wake it after `beat_ns` of silence. NULL: out of memory. */
sleeper *sleeper_take(watch *w, struct MHD_Connection *connection, uint64_t beat_ns);
void sleeper_put(sleeper *s);
/* Suspends the connection, to be continued when there is news. False: there is news already, look again. */
bool sleeper_sleep(sleeper *s);
/* The client has hung up, or the server stops: give up. */
bool sleeper_gone(const sleeper *s);
/* The stream should give a sign of life (told once). */
bool sleeper_beat(sleeper *s);
/* Something was written. */
void sleeper_wrote(sleeper *s);

visitor *visitor_open(watch *w, int fd, uint64_t deadline_ns);
void visitor_close(visitor *v); /* NULL is fine */
/* Time (clock_now_ns()) by which the next request, or the rest of this one, must be there, or what there is of its
 * reply must have been read; 0: none. */
void visitor_deadline(visitor *v, uint64_t deadline_ns);

/* ---- any thread ---- */

void sleeper_wake(void *user); /* a sleeper; the type is job_params.wake's */

/* ---- the main thread ---- */

/* Another descriptor to wait for. */
mp_status watch_add(watch *w, int fd, mp_error *err);
enum { WATCH_TICK_MS = 1000 }; /* deadlines and signs of life are late by this much at most */

/* Waits up to `ms` <= WATCH_TICK_MS for `fd`s that were added, and looks after everybody meanwhile. Returns the
 * descriptor that is readable, -1: none. */
int watch_wait(watch *w, int ms);
size_t watch_sleepers(watch *w); /* requests under way */
/* Wakes everybody to give up, for good. */
void watch_close_all(watch *w);

#endif
