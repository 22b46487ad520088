/* work.h: how soon all that a trace asks for could be done. A measure to hold policies against, not a policy: nothing
 * in it is ever late, and no slot is empty. Pure; nothing to free. */
#ifndef SCHED_WORK_H
#define SCHED_WORK_H

#include "sched/trace.h"

/* On the trace's clock, by the cost model: when a server is done that takes everybody at its floor and never stands
 * idle while there is work. `c` names slots, step_tokens, ladder and cost; the ladder has all floors of the trace. */
double work_end_ns(const sched_config *c, const trace *t);

#endif
