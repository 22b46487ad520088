/* simulate.h: replays a trace in virtual time against a cost model, with the scheduler that serves (sched.h). Pure:
 * same input, same result, on any machine. */
#ifndef SCHED_SIMULATE_H
#define SCHED_SIMULATE_H

#include "sched/report.h"
#include "sched/trace.h"

typedef struct simulate_params {
    sched_config config;  /* its cost model is also what steps really take, times `slower` */
    double slower;        /* 0: 1; what the scheduler has to find out by itself */
    uint64_t overhead_ns; /* of a step, beside the model: drawing tokens, sending text */
} simulate_params;

typedef struct simulate_totals {
    uint64_t steps, tokens; /* prompts and replies */
    uint64_t busy_ns;       /* sum of the steps' times */
    uint64_t end_ns;        /* when the last step was over */
    uint64_t work_end_ns;   /* when a server that is never idle could be done, everybody at the floor (work.h) */
} simulate_totals;

/* requests [t->n], in the trace's order; clock 0 is the trace's. Floors that the ladder does not have are refused with
 * MP_E_INVALID, a policy that stops while requests wait is MP_E_LIMIT. */
mp_status simulate(const simulate_params *params, const trace *t, report_request *requests, simulate_totals *totals,
                   mp_error *err);

#endif
