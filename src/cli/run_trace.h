/* run_trace.h: a file of which experts the steps of an engine use (store/record.h), written while it runs. */
#ifndef CLI_RUN_TRACE_H
#define CLI_RUN_TRACE_H

#include "cli/output.h"
#include "moeprism.h"

typedef struct run_trace {
    output text;
    const char *path;
    mp_engine *engine;
    mp_status status; /* of writing, until it is told */
} run_trace;

/* path NULL: nothing is written. `trace` must stay where it is until run_trace_end(). */
mp_status run_trace_begin(run_trace *trace, const char *path, mp_engine *engine, const mp_model *model, mp_error *err);
/* Writes the file, unless what was traced failed: returns that status, or that of the writing. */
mp_status run_trace_end(run_trace *trace, mp_status traced, mp_error *err);

#endif
