/* bench_report.h: measured tests as llama-bench prints them: a Markdown table or a JSON array with its field names.
 * The report owns its results and borrows the model. */
#ifndef CLI_BENCH_REPORT_H
#define CLI_BENCH_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/bench_run.h"
#include "cli/machine.h"

typedef struct bench_report {
    const mp_model *model;
    machine machine;
    bench_result *results; /* [n_results] */
    size_t n_results, cap;
} bench_report;

/* Room for `cap` results: once, before the first bench_report_add(). */
mp_status bench_report_reserve(bench_report *report, size_t cap, mp_error *err);
/* An empty result, to be filled by bench_run(); within what was reserved. */
bench_result *bench_report_add(bench_report *report);
void bench_report_clear(bench_report *report);

/* Tests without a sample are left out. */
void bench_report_print(const bench_report *report, bool breakdown, FILE *out);
json_t *bench_report_json(const bench_report *report);

#endif
