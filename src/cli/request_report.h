/* request_report.h: reports about requests (sched/report.h) side by side as a table, and as JSON. */
#ifndef CLI_REQUEST_REPORT_H
#define CLI_REQUEST_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "sched/report.h"

/* One column per report, headed by its name. */
mp_status request_report_print(const report *reports, const char *const *names, size_t n, FILE *out, mp_error *err);
/* NULL: out of memory. */
json_t *request_report_json(const report *r);

#endif
