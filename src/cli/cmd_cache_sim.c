/* cache-sim: what caps and policies make of a recorded run, without the model. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cache_report.h"
#include "cli/cli.h"
#include "cli/numbers.h"
#include "cli/output.h"

enum { CAPS_MAX = 64, POLICIES_MAX = 16 };
enum { UNITS_BOTH, UNITS_SUBS, UNITS_WHOLE };
enum { FORMAT_TEXT, FORMAT_CSV, FORMAT_JSON };

static const char *const unit_names[] = {"both", "sub-experts", "experts", NULL};
static const char *const format_names[] = {"text", "csv", "json", NULL};

typedef struct cache_sim_options {
    cli_common common;
    const char *trace, *memory, *policies, *bandwidth, *plot;
    double latency_us;
    int units, format;
} cache_sim_options;

/* What is to be simulated. */
typedef struct grid {
    uint64_t caps[CAPS_MAX];
    const eviction *policies[POLICIES_MAX];
    size_t n_caps, n_policies;
} grid;

/* ---- lists ---- */

/* The next piece of "a,b,c" at *at into name [cap], cut where it is longer; false after the last. */
static bool next_word(const char **at, char *name, size_t cap)
{
    if (*at == NULL) return false;
    const size_t len = strcspn(*at, ",");
    snprintf(name, cap, "%.*s", (int)(len < cap ? len : cap - 1), *at);
    *at = (*at)[len] == ',' ? *at + len + 1 : NULL;
    return true;
}

static int compare_caps(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* "25%,8GiB" */
static mp_status read_caps(const char *text, uint64_t all, grid *g, mp_error *err)
{
    char word[64];
    double share;
    while (next_word(&text, word, sizeof word)) {
        const size_t len = strlen(word);
        uint64_t *cap = &g->caps[g->n_caps];
        if (g->n_caps == CAPS_MAX) return status_fail(err, MP_E_LIMIT, "more than %d values of --memory", CAPS_MAX);
        if (len > 0 && word[len - 1] == '%' && number_share(word, &share) && share > 0 && share <= 1)
            *cap = (uint64_t)((double)all * share);
        else if (!number_bytes(word, cap) || *cap == 0)
            return status_fail(err, MP_E_INVALID,
                               "--memory takes sizes, as 4G or 512M, or shares of the experts, as 25%%, not '%s'",
                               word);
        g->n_caps++;
    }
    qsort(g->caps, g->n_caps, sizeof *g->caps, compare_caps);
    return MP_OK;
}

static mp_status add_policy(grid *g, const char *name, mp_error *err)
{
    const eviction *policy = &eviction_belady;
    mp_error why;
    if (strcmp(name, policy->name) != 0 && eviction_find(name, &policy, &why) != MP_OK)
        return status_fail(err, why.status, "%s; also belady, and all", why.message);
    for (size_t i = 0; i < g->n_policies; i++)
        if (g->policies[i] == policy) return MP_OK;
    if (g->n_policies == POLICIES_MAX) return status_fail(err, MP_E_LIMIT, "more than %d policies", POLICIES_MAX);
    g->policies[g->n_policies++] = policy;
    return MP_OK;
}

/* "lru,lfu" or "all" */
static mp_status read_policies(const char *text, grid *g, mp_error *err)
{
    char word[64];
    while (next_word(&text, word, sizeof word)) {
        if (strcmp(word, "all") != 0) {
            MP_TRY(add_policy(g, word, err));
            continue;
        }
        for (size_t i = 0; eviction_at(i) != NULL; i++) MP_TRY(add_policy(g, eviction_at(i)->name, err));
        MP_TRY(add_policy(g, eviction_belady.name, err));
    }
    return MP_OK;
}

/* ---- simulate and report ---- */

static mp_status simulate_grid(const cache_sim_options *o, const record_trace *t, const grid *g, cache_report *r,
                               mp_error *err)
{
    const bool both = o->units == UNITS_BOTH && t->shape.n_parts > 1;
    const bool whole_only = o->units == UNITS_WHOLE || t->shape.n_parts == 1;
    r->n_caps = g->n_caps;
    r->n_policies = g->n_policies;
    r->cells = calloc((size_t)2 * g->n_caps * g->n_policies, sizeof *r->cells);
    if (r->cells == NULL) return status_no_memory(err, 0, "results");
    for (int whole = whole_only ? 1 : 0; whole <= (both || whole_only ? 1 : 0); whole++)
        for (size_t cap = 0; cap < g->n_caps; cap++)
            for (size_t i = 0; i < g->n_policies; i++) {
                cache_cell *c = &r->cells[r->n++];
                *c = (cache_cell){.whole = whole, .memory = g->caps[cap], .policy = g->policies[i]};
                const cache_sim_params p = {.policy = c->policy,
                                            .whole = whole,
                                            .memory = c->memory,
                                            .bandwidth = r->bandwidth,
                                            .latency = r->latency};
                MP_TRY(cache_sim(t, &p, &c->result, err));
            }
    return MP_OK;
}

static mp_status print_report(const cache_report *r, int format, mp_error *err)
{
    output out;
    if (format == FORMAT_JSON) return output_json(cache_report_json(r), NULL, err);
    MP_TRY(output_begin(&out, err));
    mp_status status = MP_OK;
    if (format == FORMAT_CSV)
        cache_report_csv(r, out.stream);
    else
        status = cache_report_table(r, out.stream, err);
    if (status == MP_OK) return output_finish(&out, NULL, err);
    output_drop(&out);
    return status;
}

static mp_status write_plot(const cache_report *r, const char *path, mp_error *err)
{
    output out;
    if (path == NULL) return MP_OK;
    MP_TRY(output_begin(&out, err));
    const mp_status status = cache_report_plot(r, out.stream, err);
    if (status == MP_OK) return output_finish(&out, path, err);
    output_drop(&out);
    return status;
}

static mp_status simulate_record(const cache_sim_options *o, const record_trace *t, cache_report *r, mp_error *err)
{
    grid g = {0};
    uint64_t bandwidth;
    if (!number_bytes(o->bandwidth, &bandwidth) || bandwidth == 0)
        return status_fail(err, MP_E_INVALID, "--bandwidth takes bytes a second, as 3G, not '%s'", o->bandwidth);
    r->shape = t->shape;
    r->bandwidth = (double)bandwidth;
    r->latency = o->latency_us * 1e-6;
    MP_TRY(read_caps(o->memory, cache_sim_all_bytes(&t->shape), &g, err));
    MP_TRY(read_policies(o->policies, &g, err));
    MP_TRY(simulate_grid(o, t, &g, r, err));
    MP_TRY(write_plot(r, o->plot, err));
    return print_report(r, o->format, err);
}

static int run(const cli_command *self, const void *options)
{
    const cache_sim_options *o = options;
    record_trace trace;
    cache_report report = {0};
    mp_error err;
    (void)self;
    mp_status status = record_read(o->trace, &trace, &err);
    if (status == MP_OK) {
        status = simulate_record(o, &trace, &report, &err);
        record_free(&trace);
    }
    free(report.cells);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define MEMBER(member) offsetof(cache_sim_options, member)

static const option_spec specs[] = {
    {.name = "trace",
     .kind = OPTION_TEXT,
     .offset = MEMBER(trace),
     .argument = "FILE",
     .required = true,
     .help = "which experts a run used: made by 'moeprism run --record-trace'"},
    {.name = "memory",
     .kind = OPTION_TEXT,
     .offset = MEMBER(memory),
     .argument = "SIZE[,...]",
     .help = "memory for experts, as 4G or 25% of them (default 25%,50%,75%)"},
    {.name = "policy",
     .kind = OPTION_TEXT,
     .offset = MEMBER(policies),
     .argument = "NAME[,...]",
     .help =
         "which experts make room: adaptive (what 'moeprism run' does), lfru, lru, lfu, 2q, or belady, which knows the "
         "future and cannot be beaten (default all)"},
    {.name = "units",
     .kind = OPTION_CHOICE,
     .offset = MEMBER(units),
     .argument = "KIND",
     .choices = unit_names,
     .help = "what is kept and read: sub-experts, those that ran; experts, all that the router chose; or both"},
    {.name = "bandwidth",
     .kind = OPTION_TEXT,
     .offset = MEMBER(bandwidth),
     .argument = "SIZE",
     .help = "what the disk reads in a second (default 2G)"},
    {.name = "latency",
     .kind = OPTION_F64,
     .offset = MEMBER(latency_us),
     .argument = "US",
     .max = 1e9,
     .help = "microseconds that every read costs beside its bytes"},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_CHOICE,
     .offset = MEMBER(format),
     .argument = "FORMAT",
     .choices = format_names,
     .help = "text, csv or json"},
    {.name = "plot",
     .kind = OPTION_TEXT,
     .offset = MEMBER(plot),
     .argument = "FILE",
     .help = "write bytes read per token over memory as a chart to FILE, an SVG"},
};

static const cache_sim_options defaults = {
    .memory = "25%,50%,75%", .policies = "all", .bandwidth = "2G", .latency_us = 10};

const cli_command cmd_cache_sim = {
    .name = "cache-sim",
    .arguments = "--trace FILE [options]",
    .summary = "what a memory cap and a cache policy make of a recorded run",
    .details = "Replays which experts a run used against a cache, for each cap and policy, in sub-experts and in whole "
               "experts, and tells hit rate, bytes read per token and the stall they cost on a disk that is modelled. "
               "Needs no model; same input, same result.\n"
               "The cap must hold what one token uses in a layer.",
    .example = "cache-sim --trace run.trace --memory 25%,50%,75% --policy adaptive,lru,belady --plot cache.svg",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .run = run,
};
