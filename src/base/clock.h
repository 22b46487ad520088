/* clock.h: the only place that reads time. Policy code takes `now` as an argument instead. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void);        /* monotonic */
uint64_t clock_thread_cpu_ns(void); /* CPU time of the calling thread */

#endif
