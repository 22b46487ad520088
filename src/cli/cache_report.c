#include "cli/cache_report.h"

#include <stdlib.h>

#include "base/status.h"
#include "cli/line_chart.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/table.h"

#define MIB ((double)(1 << 20))

static const char *units_of(const cache_cell *c)
{
    return c->whole ? "experts" : "sub-experts";
}

static double share_of(const cache_report *r, const cache_cell *c)
{
    return (double)c->memory / (double)cache_sim_all_bytes(&r->shape);
}

/* ---- text ---- */

mp_status cache_report_table(const cache_report *r, FILE *out, mp_error *err)
{
    static const char *const headings[] = {"units",    "memory",      "of all",        "policy",
                                           "hit rate", "MiB a token", "reads a token", "stall, ms"};
    char size[32];
    table *t = table_new("lrrlrrrr", headings);
    for (size_t i = 0; i < r->n; i++) {
        const cache_cell *c = &r->cells[i];
        const double tokens = c->result.tokens ? (double)c->result.tokens : 1;
        table_cell(t, "%s", units_of(c));
        table_cell(t, "%s", format_bytes(c->memory, size, sizeof size));
        table_cell(t, "%.1f %%", 100 * share_of(r, c));
        table_cell(t, "%s", c->policy->name);
        table_cell(t, "%.2f %%", 100 * c->result.hit_rate);
        table_cell(t, "%.4g", c->result.bytes_per_token / MIB);
        table_cell(t, "%.1f", (double)c->result.misses / tokens);
        table_cell(t, "%.3g", 1e3 * c->result.stall_per_token);
    }
    const bool failed = t == NULL || table_failed(t);
    if (!failed) {
        fprintf(out, "%llu tokens; stall: bytes at %s/s and %g us a read, nothing overlapped\n",
                (unsigned long long)r->cells[0].result.tokens, format_bytes((uint64_t)r->bandwidth, size, sizeof size),
                1e6 * r->latency);
        table_print(t, out);
    }
    table_free(t);
    return failed ? status_no_memory(err, 0, "a table") : MP_OK;
}

void cache_report_csv(const cache_report *r, FILE *out)
{
    fputs("units,memory_bytes,memory_share,policy,slots,tokens,claimed,misses,hit_rate,bytes_per_token,"
          "stall_ms_per_token\n",
          out);
    for (size_t i = 0; i < r->n; i++) {
        const cache_cell *c = &r->cells[i];
        fprintf(out, "%s,%llu,%.4f,%s,%u,%llu,%llu,%llu,%.6f,%.1f,%.6g\n", units_of(c), (unsigned long long)c->memory,
                share_of(r, c), c->policy->name, c->result.slots, (unsigned long long)c->result.tokens,
                (unsigned long long)c->result.claimed, (unsigned long long)c->result.misses, c->result.hit_rate,
                c->result.bytes_per_token, 1e3 * c->result.stall_per_token);
    }
}

json_t *cache_report_json(const cache_report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const cache_cell *c = &r->cells[i];
        json_array_append_new(list, json_pack("{s:s s:I s:f s:s s:I s:I s:I s:I s:f s:f s:f}", "units", units_of(c),
                                              "memory_bytes", (json_int_t)c->memory, "memory_share", share_of(r, c),
                                              "policy", c->policy->name, "slots", (json_int_t)c->result.slots, "tokens",
                                              (json_int_t)c->result.tokens, "claimed", (json_int_t)c->result.claimed,
                                              "misses", (json_int_t)c->result.misses, "hit_rate", c->result.hit_rate,
                                              "bytes_per_token", c->result.bytes_per_token, "stall_ms_per_token",
                                              1e3 * c->result.stall_per_token));
    }
    return json_pack("{s:I s:f s:f s:o}", "expert_bytes", (json_int_t)cache_sim_all_bytes(&r->shape), "bandwidth",
                     r->bandwidth, "latency_us", 1e6 * r->latency, "results", list);
}

/* ---- plot ---- */

/* values [2, n]: the x of all points, by line, then their y; labels [n_lines, 64] */
static void fill_lines(const cache_report *r, line_chart_line *lines, double *values, char (*labels)[64])
{
    for (size_t i = 0; i < r->n; i++) {
        const cache_cell *c = &r->cells[i];
        const size_t policy = i % r->n_policies, cap = i / r->n_policies % r->n_caps;
        const size_t line = i / (r->n_policies * r->n_caps) * r->n_policies + policy, at = line * r->n_caps + cap;
        values[at] = 100 * share_of(r, c);
        values[r->n + at] = c->result.bytes_per_token / MIB;
        snprintf(labels[line], sizeof labels[line], "%s, %s", c->policy->name, units_of(c));
        lines[line] = (line_chart_line){.label = labels[line],
                                        .colour = (unsigned)policy,
                                        .dashed = c->whole,
                                        .x = values + line * r->n_caps,
                                        .y = values + r->n + line * r->n_caps,
                                        .n = r->n_caps};
    }
}

mp_status cache_report_plot(const cache_report *r, FILE *out, mp_error *err)
{
    const size_t n_lines = r->n / r->n_caps;
    line_chart_line *lines = calloc(n_lines, sizeof *lines);
    double *values = calloc(r->n, 2 * sizeof *values);
    char(*labels)[64] = calloc(n_lines, sizeof *labels);
    const bool failed = !lines || !values || !labels;
    if (!failed) {
        fill_lines(r, lines, values, labels);
        line_chart_write(&(line_chart){.title = "Read from disk, per token",
                                       .x_title = "memory, % of the experts",
                                       .y_title = "MiB a token",
                                       .lines = lines,
                                       .n_lines = n_lines},
                         out);
    }
    free(lines);
    free(values);
    free(labels);
    return failed ? status_no_memory(err, 0, "a plot") : MP_OK;
}
