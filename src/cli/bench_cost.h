/* bench_cost.h: `bench --cost`: measures what steps cost and writes it beside the model. */
#ifndef CLI_BENCH_COST_H
#define CLI_BENCH_COST_H

#include "cli/cli.h"

typedef struct bench_cost_params {
    const cli_common *common;
    uint32_t slots, context;
    mp_kv_type kv_type;
    mp_store_params store;
    uint64_t seed;
    const char *out; /* NULL: beside the model */
    bool json;       /* the report on standard output as JSON: what the file holds */
} bench_cost_params;

mp_status bench_cost(const mp_model *model, const bench_cost_params *params, mp_error *err);

#endif
