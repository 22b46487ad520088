/* simulate: what a policy would make of a load, in virtual time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cost_file.h"
#include "cli/output.h"
#include "cli/request_report.h"
#include "cli/suggest.h"
#include "cli/trace_options.h"
#include "sched/simulate.h"

enum { POLICIES_MAX = 16 };

typedef struct simulate_options {
    cli_common common;
    trace_options trace;
    const char *cost, *policies;
    uint32_t slots, queue, step_tokens, context; /* 0: the cost file's */
    double max_wait_ms, slower, overhead_ms;
    option_text json;
} simulate_options;

/* What was simulated: one of each per policy. */
typedef struct results {
    sched_policy policies[POLICIES_MAX];
    const char *names[POLICIES_MAX];
    report reports[POLICIES_MAX];
    simulate_totals totals[POLICIES_MAX];
    size_t n;
} results;

/* ---- policies by name ---- */

static mp_status unknown_policy(const char *name, mp_error *err)
{
    char known[256] = "";
    suggestion near = {NULL, 0};
    for (size_t i = 0; sched_policy_names[i] != NULL; i++) {
        const size_t len = strlen(known);
        snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", sched_policy_names[i]);
        suggest_offer(&near, name, sched_policy_names[i]);
    }
    return status_fail(err, MP_E_INVALID, "there is no policy '%s'%s%s%s; there are %s, and all", name,
                       near.best != NULL ? "; did you mean '" : "", near.best != NULL ? near.best : "",
                       near.best != NULL ? "'?" : "", known);
}

static mp_status add_policy(results *r, const char *name, mp_error *err)
{
    if (r->n == POLICIES_MAX) return status_fail(err, MP_E_LIMIT, "more than %d policies", POLICIES_MAX);
    if (!sched_policy_find(name, &r->policies[r->n])) return unknown_policy(name, err);
    r->names[r->n] = sched_policy_names[r->policies[r->n]];
    r->n++;
    return MP_OK;
}

/* "fifo,elastic" or "all" */
static mp_status find_policies(const char *text, results *r, mp_error *err)
{
    if (strcmp(text, "all") == 0) {
        for (size_t i = 0; sched_policy_names[i] != NULL; i++) MP_TRY(add_policy(r, sched_policy_names[i], err));
        return MP_OK;
    }
    for (const char *p = text;;) {
        char name[64];
        const size_t len = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1), p);
        MP_TRY(add_policy(r, name, err));
        if (p[len] == '\0') return MP_OK;
        p += len + 1;
    }
}

/* ---- one policy ---- */

static sched_config config_of(const simulate_options *o, const cost_file *f)
{
    const uint32_t slots = o->slots > 0 ? o->slots : f->slots, context = o->context > 0 ? o->context : f->context;
    const uint32_t step = o->step_tokens > 0 ? o->step_tokens : f->step_tokens;
    const uint32_t pages = context / MP_KV_PAGE + (context % MP_KV_PAGE > 0);
    const uint64_t all = (uint64_t)pages * slots;
    return (sched_config){.slots = slots,
                          .queue = o->queue,
                          .step_tokens = step < slots ? slots : step,
                          .kv_pages = all < UINT32_MAX ? (uint32_t)all : UINT32_MAX,
                          .page_tokens = MP_KV_PAGE,
                          .max_wait_ns = (uint64_t)(o->max_wait_ms * 1e6),
                          .points = f->points,
                          .n_points = f->n_points,
                          .cost = f->cost};
}

static mp_status run_policies(const simulate_options *o, const cost_file *f, const trace *t, results *r, mp_error *err)
{
    simulate_params params = {
        .config = config_of(o, f), .slower = o->slower, .overhead_ns = (uint64_t)(o->overhead_ms * 1e6)};
    report_request *requests = calloc(t->n, sizeof *requests);
    if (requests == NULL) return status_no_memory(err, t->n * sizeof *requests, "requests");
    mp_status status = MP_OK;
    for (size_t i = 0; i < r->n && status == MP_OK; i++) {
        params.config.policy = r->policies[i];
        status = simulate(&params, t, requests, &r->totals[i], err);
        if (status == MP_OK) status = report_make(requests, t->n, &r->reports[i], err);
    }
    free(requests);
    return status;
}

/* ---- results ---- */

/* Requests a second that the work allows, the same for every policy: what it is worth to be never idle. */
static double allowed_s(const results *r, const trace *t)
{
    const double seconds = ((double)r->totals[0].work_end_ns - (double)t->requests[0].arrival_ns) * 1e-9;
    return seconds > 0 ? (double)t->n / seconds : NAN;
}

static json_t *results_json(const results *r, const cost_file *f, const sched_config *c, double allowed)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n; i++) {
        json_t *object = request_report_json(&r->reports[i]);
        json_object_set_new(object, "policy", json_text(r->names[i]));
        json_object_set_new(object, "steps", json_integer((json_int_t)r->totals[i].steps));
        json_object_set_new(object, "tokens", json_integer((json_int_t)r->totals[i].tokens));
        json_object_set_new(object, "busy_seconds", json_number((double)r->totals[i].busy_ns * 1e-9));
        json_array_append_new(list, object);
    }
    return json_pack("{s:o s:I s:I s:I s:o s:o}", "model", json_text(f->model_file), "slots", (json_int_t)c->slots,
                     "queue", (json_int_t)c->queue, "step_tokens", (json_int_t)c->step_tokens, "allowed_requests_per_s",
                     json_number(allowed), "policies", list);
}

static mp_status simulate_all(const simulate_options *o, mp_error *err)
{
    cost_file file;
    trace t;
    results r = {0};
    MP_TRY(find_policies(o->policies, &r, err));
    MP_TRY(cost_file_read(o->cost, &file, err));
    MP_TRY(trace_options_load(&o->trace, &t, err));
    const sched_config c = config_of(o, &file);
    mp_status status = run_policies(o, &file, &t, &r, err);
    const double allowed = status == MP_OK ? allowed_s(&r, &t) : NAN;
    trace_clear(&t);
    if (status != MP_OK) return status;
    if (o->json.given) return output_json(results_json(&r, &file, &c, allowed), o->json.text, err);
    printf("%s, %u slots, a queue of %u; virtual time\n", file.model_file, c.slots, c.queue);
    printf("the work at the floors allows %.3f requests/s\n", allowed);
    return request_report_print(r.reports, r.names, r.n, stdout, err);
}

static int run(const cli_command *self, const void *options)
{
    const simulate_options *o = options;
    mp_error err;
    if (o->trace.path == NULL && isnan(o->trace.rate))
        return cli_usage(self, "nothing arrives: give --trace FILE, or --rate R for a trace that is made up");
    return simulate_all(o, &err) == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define MEMBER(member) offsetof(simulate_options, member)

static const option_spec specs[] = {
    {.name = "cost",
     .kind = OPTION_TEXT,
     .offset = MEMBER(cost),
     .argument = "FILE",
     .required = true,
     .help = "what steps cost, and the ladder: made by 'moeprism bench --cost'"},
    {.name = "policy",
     .kind = OPTION_TEXT,
     .offset = MEMBER(policies),
     .argument = "NAME[,...]",
     .help = "scheduling to try, or all (default elastic)"},
    TRACE_OPTIONS(MEMBER(trace)),
    {.name = "The server", .kind = OPTION_HEADING},
    {.name = "slots",
     .kind = OPTION_U32,
     .offset = MEMBER(slots),
     .argument = "N",
     .min = 1,
     .max = 4096,
     .help = "requests that run at once (default: as measured)"},
    {.name = "queue",
     .kind = OPTION_U32,
     .offset = MEMBER(queue),
     .argument = "N",
     .min = 1,
     .max = 1 << 20,
     .help = "requests that may wait; more are refused"},
    {.name = "step-tokens",
     .kind = OPTION_U32,
     .offset = MEMBER(step_tokens),
     .argument = "N",
     .min = 1,
     .max = 1 << 20,
     .help = "tokens a step may hold (default: as measured)"},
    {.name = "ctx-size",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = MEMBER(context),
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "tokens of context of a slot (default: as measured)"},
    {.name = "max-wait-ms",
     .kind = OPTION_F64,
     .offset = MEMBER(max_wait_ms),
     .argument = "MS",
     .max = 1e9,
     .help = "how long others may come first: a better batch (fullbatch, virtual-queues), smaller requests (elastic), "
             "streams with a target per token (all policies) (default 5000)"},
    {.name = "slower",
     .kind = OPTION_F64,
     .offset = MEMBER(slower),
     .argument = "F",
     .min = 0.01,
     .max = 100,
     .help = "steps take F times what the cost model says; the policy must find out"},
    {.name = "overhead-ms",
     .kind = OPTION_F64,
     .offset = MEMBER(overhead_ms),
     .argument = "MS",
     .max = 1e6,
     .help = "time of a step beside the model (default 0)"},
    {.name = "json",
     .kind = OPTION_OPTIONAL_TEXT,
     .offset = MEMBER(json),
     .argument = "FILE",
     .help = "print JSON, or write it to FILE"},
};

static const simulate_options defaults = {
    .trace = TRACE_OPTIONS_UNSET, .policies = "elastic", .queue = 256, .slower = 1};

const cli_command cmd_simulate = {
    .name = "simulate",
    .arguments = "--cost FILE (--trace FILE | --rate R) [options]",
    .summary = "what a scheduling policy would make of a load, in virtual time",
    .details = "Replays a trace against a measured cost model with the very scheduler that 'moeprism serve' runs, and "
               "tells throughput, latencies, quality and what was refused. Needs no model and takes moments; same "
               "input, same result.",
    .example = "simulate --cost model-prism.cost.json --policy fifo,elastic --rate 1.5 --duration 300 "
               "--floors uniform:1,0.75,0.5,0.25",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .run = run,
};
