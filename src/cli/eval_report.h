/* eval_report.h: the results of an evaluation as tables, JSON and an HTML page. The report borrows its models and owns
 * its rows. */
#ifndef CLI_EVAL_REPORT_H
#define CLI_EVAL_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/machine.h"
#include "cli/table.h"
#include "moeprism.h"

typedef struct eval_report {
    const mp_model *model;
    mp_eval_result result;
    const mp_model *against; /* NULL: KL is to the model's own full */
    mp_eval_point *whole;    /* [n_whole] `against` with fewer whole experts; `point` is how many run */
    size_t n_whole;
    machine machine;
    mp_store_params store; /* memory 0: the model is not capped */
} eval_report;

void eval_report_clear(eval_report *report);

/* NULL: out of memory. */
table *eval_report_points(const eval_report *report);
table *eval_report_whole(const eval_report *report);

void eval_report_print(const eval_report *report, FILE *out);
json_t *eval_report_json(const eval_report *report);
/* One page that needs no network. */
mp_status eval_report_html(const eval_report *report, FILE *out, mp_error *err);

#endif
