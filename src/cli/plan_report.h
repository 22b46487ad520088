/* plan_report.h: the memory that running a model takes, as text and JSON. */
#ifndef CLI_PLAN_REPORT_H
#define CLI_PLAN_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "moeprism.h"

void plan_print(const mp_model_info *info, const mp_plan *plan, uint32_t n_ctx, FILE *out);
json_t *plan_json(const mp_plan *plan, uint32_t n_ctx);
uint64_t plan_total(const mp_plan *plan);

#endif
