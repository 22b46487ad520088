/* cache_report.h: what cache-sim found, for every kind of unit, cap and policy, and the ways to print it. */
#ifndef CLI_CACHE_REPORT_H
#define CLI_CACHE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "store/cache_sim.h"

typedef struct cache_cell {
    bool whole;
    uint64_t memory;
    const eviction *policy;
    cache_sim_result result;
} cache_cell;

typedef struct cache_report {
    record_shape shape;
    double bandwidth, latency; /* bytes a second, seconds */
    cache_cell *cells;         /* [n] by kind of unit, then cap, ascending, then policy; the caller frees */
    size_t n, n_caps, n_policies;
} cache_report;

mp_status cache_report_table(const cache_report *r, FILE *out, mp_error *err);
void cache_report_csv(const cache_report *r, FILE *out);
json_t *cache_report_json(const cache_report *r);
/* Bytes read per token over the cap, a line for each kind of unit and policy, as SVG. */
mp_status cache_report_plot(const cache_report *r, FILE *out, mp_error *err);

#endif
