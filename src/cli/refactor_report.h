/* refactor_report.h: what each stage of a refactoring gained, for people and as JSON. */
#ifndef CLI_REFACTOR_REPORT_H
#define CLI_REFACTOR_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "moeprism.h"

/* `artifact` is the model that was written. */
void refactor_report_print(const mp_refactor_report *report, const mp_model *artifact, FILE *out);
json_t *refactor_report_json(const mp_refactor_report *report, const mp_model *artifact);

#endif
