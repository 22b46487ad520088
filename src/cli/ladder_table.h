/* ladder_table.h: a model's operating points as a table and as JSON. */
#ifndef CLI_LADDER_TABLE_H
#define CLI_LADDER_TABLE_H

#include <jansson.h>

#include "cli/table.h"
#include "moeprism.h"

/* NULL: out of memory. The caller frees. */
table *ladder_table(const mp_model *model);
json_t *ladder_json(const mp_model *model);

#endif
