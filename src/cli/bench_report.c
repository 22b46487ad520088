#include "cli/bench_report.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/status.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/table.h"

mp_status bench_report_reserve(bench_report *report, size_t cap, mp_error *err)
{
    report->results = calloc(cap > 0 ? cap : 1, sizeof *report->results);
    if (report->results == NULL) return status_no_memory(err, cap * sizeof *report->results, "results");
    report->cap = cap;
    return MP_OK;
}

bench_result *bench_report_add(bench_report *report)
{
    assert(report->n_results < report->cap);
    return &report->results[report->n_results++];
}

void bench_report_clear(bench_report *report)
{
    for (size_t i = 0; i < report->n_results; i++) free(report->results[i].samples_ns);
    free(report->results);
    report->results = NULL;
    report->n_results = report->cap = 0;
}

/* ---- figures ------------------------------------------------------------------------------------------------- */

typedef struct spread {
    double mean, deviation; /* of the sample: n - 1 */
} spread;

static double tokens_of(const bench_result *r)
{
    return r->test.n_prompt > 0 ? r->test.n_prompt : (double)r->test.n_gen * r->test.n_seqs;
}

static double sample(const bench_result *r, uint32_t i, bool speed)
{
    const double ns = (double)(r->samples_ns[i] > 0 ? r->samples_ns[i] : 1);
    return speed ? tokens_of(r) * 1e9 / ns : ns;
}

static spread spread_of(const bench_result *r, bool speed)
{
    spread s = {0, 0};
    for (uint32_t i = 0; i < r->n_samples; i++) s.mean += sample(r, i, speed) / r->n_samples;
    for (uint32_t i = 0; i < r->n_samples; i++) s.deviation += pow(sample(r, i, speed) - s.mean, 2);
    s.deviation = r->n_samples > 1 ? sqrt(s.deviation / (r->n_samples - 1)) : 0;
    return s;
}

/* The parts of a step's time, in the order of the columns. */
static const struct part {
    const char *name;
    size_t offset;
} parts[] = {
    {"attention", offsetof(mp_timings, attention_ns)}, {"router", offsetof(mp_timings, router_ns)},
    {"gate", offsetof(mp_timings, gate_ns)},           {"experts", offsetof(mp_timings, experts_ns)},
    {"dense", offsetof(mp_timings, dense_ns)},         {"head", offsetof(mp_timings, head_ns)},
};
enum { N_PARTS = sizeof parts / sizeof parts[0] };

static uint64_t part_ns(const mp_timings *timings, size_t i)
{
    return *(const uint64_t *)((const char *)timings + parts[i].offset);
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static void row(table *t, const bench_report *report, const bench_result *r, bool breakdown)
{
    const mp_model_info *info = mp_model_get_info(report->model);
    const spread speed = spread_of(r, true);
    char size[32];
    table_cell(t, "%s %s", info->architecture, info->type);
    table_cell(t, "%s", format_bytes(info->bytes_total, size, sizeof size));
    table_cell(t, "%.2f B", (double)info->n_params * 1e-9);
    table_cell(t, "CPU %s", report->machine.isa);
    table_cell(t, "%u", report->machine.threads);
    if (r->test.n_points == 1)
        table_cell(t, "%u", r->test.points[0]);
    else
        table_cell(t, "mixed");
    table_cell(t, "%.1f %%", r->compute_share * 100);
    table_cell(t, "%u", r->test.n_seqs);
    table_cell(t, "%s%u", r->test.n_prompt > 0 ? "pp" : "tg", r->test.n_prompt > 0 ? r->test.n_prompt : r->test.n_gen);
    table_cell(t, "%.2f ± %.2f", speed.mean, speed.deviation);
    const double total = (double)(r->timings.total_ns > 0 ? r->timings.total_ns : 1);
    double other = 100; /* norms before experts, residual stream, embedding */
    for (size_t i = 0; breakdown && i < N_PARTS; i++) {
        const double share = (double)part_ns(&r->timings, i) * 100 / total;
        other -= share;
        table_cell(t, "%.1f %%", share);
    }
    if (!breakdown) return;
    table_cell(t, "%.1f %%", fmax(0, other));
    if (r->test.n_gen > 0)
        table_cell(t, "+%.2f %%", (double)r->sampling_ns * 100 / total); /* beside the step */
    else
        table_cell(t, "-");
}

/* What the experts that were not in memory cost, in a table of its own. */
static void print_store(const bench_report *report, FILE *out)
{
    static const char *const headings[] = {
        "point", "seqs", "test", "hits", "wanted/token", "read/token", "waited", "reads at a time", "evicted"};
    table *t = table_new("rrrrrrrrr", headings);
    size_t rows = 0;
    for (size_t i = 0; i < report->n_results; i++) {
        const bench_result *r = &report->results[i];
        const mp_store_stats *s = &r->store;
        char size[32];
        if (r->n_samples == 0 || !r->has_store) continue;
        const double tokens = tokens_of(r) * r->n_samples, wanted = (double)(s->hits + s->misses);
        table_cell(t, r->test.n_points == 1 ? "%u" : "mixed", r->test.points[0]);
        table_cell(t, "%u", r->test.n_seqs);
        table_cell(t, "%s%u", r->test.n_prompt > 0 ? "pp" : "tg", r->test.n_prompt + r->test.n_gen);
        table_cell(t, "%.1f %%", wanted > 0 ? (double)s->hits * 100 / wanted : 0);
        table_cell(t, "%s", format_bytes((uint64_t)((double)s->bytes_wanted / tokens), size, sizeof size));
        table_cell(t, "%s", format_bytes((uint64_t)((double)s->bytes_read / tokens), size, sizeof size));
        table_cell(t, "%.1f %%", (double)s->stall_ns * 100 / (double)r->timings.total_ns);
        table_cell(t, "%.1f", s->depth_mean);
        table_cell(t, "%llu", (unsigned long long)s->evictions);
        rows++;
    }
    if (rows > 0) {
        const mp_store_stats *s = &report->results[0].store;
        char size[32];
        fprintf(out, "\nexperts from disk: %s held (%s, %s)\n", format_bytes(s->memory, size, sizeof size), s->eviction,
                s->backend);
        table_print_markdown(t, out);
    }
    table_free(t);
}

void bench_report_print(const bench_report *report, bool breakdown, FILE *out)
{
    static const char *const headings[] = {"model", "size",    "params", "backend", "threads",   "point",
                                           "share", "seqs",    "test",   "t/s",     "attention", "router",
                                           "gate",  "experts", "dense",  "head",    "other",     "sampling"};
    table *t = table_new(breakdown ? "lrrlrrrrrrrrrrrrrr" : "lrrlrrrrrr", headings);
    size_t rows = 0;
    for (size_t i = 0; i < report->n_results; i++) {
        if (report->results[i].n_samples == 0) continue;
        row(t, report, &report->results[i], breakdown);
        rows++;
    }
    if (rows > 0) table_print_markdown(t, out);
    table_free(t);
    print_store(report, out);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

static void set_integer(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, json_number(value));
}

static void set_machine(json_t *object, const bench_report *report)
{
    const mp_model_info *info = mp_model_get_info(report->model);
    char type[64];
    snprintf(type, sizeof type, "%s %s", info->architecture, info->type);
    json_object_set_new(object, "build_version", json_text(mp_version()));
    json_object_set_new(object, "cpu_info", json_text(report->machine.cpu));
    json_object_set_new(object, "backends", json_text("CPU"));
    json_object_set_new(object, "isa", json_text(report->machine.isa));
    json_object_set_new(object, "model_filename", json_text(info->path));
    json_object_set_new(object, "model_type", json_text(type));
    set_integer(object, "model_size", info->bytes_total);
    set_integer(object, "model_n_params", info->n_params);
    set_integer(object, "n_batch", BENCH_BATCH);
    set_integer(object, "n_threads", report->machine.threads);
    json_object_set_new(object, "type_k", json_text("f16"));
    json_object_set_new(object, "type_v", json_text("f16"));
}

static json_t *store_json(const mp_store_stats *s)
{
    json_t *object = json_object();
    set_integer(object, "memory", s->memory);
    set_integer(object, "hits", s->hits);
    set_integer(object, "misses", s->misses);
    set_integer(object, "bytes_wanted", s->bytes_wanted);
    set_integer(object, "bytes_read", s->bytes_read);
    set_integer(object, "evictions", s->evictions);
    set_integer(object, "ahead", s->ahead);
    set_integer(object, "ahead_used", s->ahead_used);
    set_integer(object, "stall_ns", s->stall_ns);
    set_integer(object, "swaps", s->swaps);
    set_number(object, "depth_mean", s->depth_mean);
    json_object_set_new(object, "eviction", json_text(s->eviction));
    json_object_set_new(object, "backend", json_text(s->backend));
    return object;
}

static json_t *result_json(const bench_report *report, const bench_result *r)
{
    const spread ns = spread_of(r, false), speed = spread_of(r, true);
    json_t *object = json_object(), *samples_ns = json_array(), *samples_ts = json_array(), *times = json_object();
    json_t *points = json_array();
    double gate_share = 0;
    for (size_t i = 0; i < r->test.n_points; i++) {
        const mp_point *point = mp_model_point(report->model, r->test.points[i]);
        gate_share += point->gate_share / (double)r->test.n_points;
        json_array_append_new(points, json_integer(r->test.points[i]));
    }
    for (uint32_t i = 0; i < r->n_samples; i++) {
        json_array_append_new(samples_ns, json_integer((json_int_t)r->samples_ns[i]));
        json_array_append_new(samples_ts, json_number(sample(r, i, true)));
    }
    set_machine(object, report);
    set_integer(object, "n_prompt", r->test.n_prompt);
    set_integer(object, "n_gen", r->test.n_gen);
    set_integer(object, "n_seqs", r->test.n_seqs);
    if (r->test.n_points == 1) set_integer(object, "point", r->test.points[0]);
    json_object_set_new(object, "points", points);
    set_number(object, "compute_share", r->compute_share);
    set_number(object, "gate_share", gate_share);
    set_number(object, "experts", r->compute_share * mp_model_get_info(report->model)->n_experts_used);
    json_object_set_new(object, "test_time", json_text(r->test_time));
    set_integer(object, "avg_ns", (uint64_t)ns.mean);
    set_integer(object, "stddev_ns", (uint64_t)ns.deviation);
    set_number(object, "avg_ts", speed.mean);
    set_number(object, "stddev_ts", speed.deviation);
    json_object_set_new(object, "samples_ns", samples_ns);
    json_object_set_new(object, "samples_ts", samples_ts);
    set_integer(times, "steps", r->timings.steps);
    set_integer(times, "total_ns", r->timings.total_ns);
    for (size_t i = 0; i < N_PARTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_ns", parts[i].name);
        set_integer(times, key, part_ns(&r->timings, i));
    }
    if (r->sampling_ns > 0) set_integer(times, "sampling_ns", r->sampling_ns);
    json_object_set_new(object, "timings", times);
    if (r->has_store) json_object_set_new(object, "store", store_json(&r->store));
    return object;
}

json_t *bench_report_json(const bench_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->n_results; i++)
        json_array_append_new(list, result_json(report, &report->results[i]));
    return list;
}
