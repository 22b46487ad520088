/* bench: speed, in the layout of llama-bench. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "cli/bench_cost.h"
#include "cli/bench_report.h"
#include "cli/bench_run.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/store_options.h"

typedef struct bench_options {
    cli_common common;
    option_list prompts, gens, seqs, points;
    uint32_t override_experts, repetitions, slots, context;
    uint64_t seed;
    int kv_type;
    const char *out;
    bool json, breakdown, mixed, cost;
    store_options store;
} bench_options;

static uint32_t largest(const option_list *list)
{
    uint32_t max = 0;
    for (size_t i = 0; i < list->n; i++) max = list->values[i] > max ? list->values[i] : max;
    return max;
}

/* One engine for all tests: `seqs` sequences as long as the longest of them. */
static mp_engine_params engine_params(const bench_options *o)
{
    const uint32_t prompt = largest(&o->prompts), gen = largest(&o->gens);
    const uint32_t n_ctx = prompt > gen ? prompt : gen, n_seqs = gen > 0 ? largest(&o->seqs) : 1;
    uint32_t n_batch = prompt < BENCH_BATCH ? prompt : BENCH_BATCH;
    if (n_batch < n_seqs) n_batch = n_seqs;
    return (mp_engine_params){.threads = o->common.threads,
                              .pin = o->common.pin,
                              .isa = o->common.isa,
                              .kv_type = (mp_kv_type)o->kv_type,
                              .n_ctx = n_ctx > 0 ? n_ctx : 1,
                              .n_seqs = n_seqs,
                              .n_batch = n_batch > 0 ? n_batch : 1,
                              .n_logits = n_seqs};
}

/* The ladder where `all` was asked for, else what was. */
static mp_status resolve_points(const mp_model *model, option_list *points, mp_error *err)
{
    if (points->all)
        for (points->n = 0; points->n < OPTION_LIST_MAX && mp_model_point(model, (uint32_t)points->n) != NULL;
             points->n++)
            points->values[points->n] = (uint32_t)points->n;
    for (size_t i = 0; i < points->n; i++)
        if (mp_model_point(model, points->values[i]) == NULL)
            return status_fail(err, MP_E_INVALID, "there is no operating point %u (see 'moeprism info')",
                               points->values[i]);
    return MP_OK;
}

/* Tests of an operating point or a mixture, each for every number of tokens and, where they decode, of sequences. */
static mp_status run_points(bench_runner *runner, bench_report *report, const bench_options *o, const uint32_t *points,
                            size_t n, mp_error *err)
{
    for (size_t i = 0; i < o->prompts.n; i++) {
        const bench_test test = {.n_prompt = o->prompts.values[i], .n_seqs = 1, .points = points, .n_points = n};
        if (test.n_prompt > 0) MP_TRY(bench_run(runner, &test, bench_report_add(report), err));
    }
    for (size_t i = 0; i < o->gens.n; i++) {
        for (size_t s = 0; s < o->seqs.n; s++) {
            const bench_test test = {
                .n_gen = o->gens.values[i], .n_seqs = o->seqs.values[s], .points = points, .n_points = n};
            if (test.n_gen > 0) MP_TRY(bench_run(runner, &test, bench_report_add(report), err));
        }
    }
    return MP_OK;
}

static mp_status bench(const mp_model *model, const bench_options *o, mp_error *err)
{
    option_list points = o->points;
    bench_runner runner = {.model = model, .repetitions = o->repetitions, .seed = o->seed, .sampling = o->breakdown};
    bench_report report = {.model = model};
    const uint64_t start = clock_now_ns();
    progress shown;
    mp_engine_params params = engine_params(o);
    MP_TRY(resolve_points(model, &points, err));
    MP_TRY(store_options_apply(&o->store, model, &params, err));
    if (o->store.plan) return store_options_print_plan(model, &params, err);
    mp_status status = bench_runner_open(&runner, &params, err);
    if (status == MP_OK) store_notice_print(runner.engine);
    if (status == MP_OK) status = machine_describe(&report.machine, &o->common, err);
    if (status == MP_OK) status = bench_report_reserve(&report, points.n * (o->prompts.n + o->gens.n * o->seqs.n), err);
    progress_begin(&shown, true);
    interrupt_catch(NULL);
    const size_t at_once = o->mixed ? points.n : 1;
    for (size_t i = 0; status == MP_OK && i < points.n; i += at_once) {
        const mp_progress now = {.stage = "bench",
                                 .unit = "points",
                                 .done = i,
                                 .total = points.n,
                                 .elapsed_ns = clock_now_ns() - start,
                                 .layer = -1};
        progress_update(&shown, &now);
        status = run_points(&runner, &report, o, points.values + i, at_once, err);
    }
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    if (status == MP_OK && o->json)
        status = output_json(bench_report_json(&report), NULL, err);
    else if (status == MP_OK || status == MP_E_INTERRUPTED)
        bench_report_print(&report, o->breakdown, stdout);
    bench_report_clear(&report);
    bench_runner_close(&runner);
    return status;
}

static mp_status cost(const mp_model *model, const bench_options *o, mp_error *err)
{
    bench_cost_params params = {.common = &o->common,
                                .slots = o->slots,
                                .context = o->context,
                                .kv_type = (mp_kv_type)o->kv_type,
                                .seed = o->seed,
                                .out = o->out,
                                .json = o->json};
    mp_engine_params engine = {.n_seqs = o->slots, .n_ctx = cli_context(model, o->context), .kv_type = params.kv_type};
    MP_TRY(store_options_apply(&o->store, model, &engine, err));
    if (o->store.plan) return store_options_print_plan(model, &engine, err);
    params.store = engine.store;
    return bench_cost(model, &params, err);
}

static int run(const cli_command *self, const void *options)
{
    const bench_options *o = options;
    mp_error err;
    mp_model *model;
    if (!o->cost && o->out != NULL) return cli_usage(self, "option '--output' goes with --cost");
    if (largest(&o->prompts) == 0 && largest(&o->gens) == 0)
        return cli_usage(self, "nothing to measure: --n-prompt and --n-gen are both 0");
    if (cli_open_model(&o->common, o->override_experts, &model, &err) != MP_OK) return cli_fail(&err);
    const mp_status status = o->cost ? cost(model, o, &err) : bench(model, o, &err);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(bench_options, member)

static const option_spec specs[] = {
    {.name = "n-prompt",
     .letter = 'p',
     .kind = OPTION_LIST,
     .offset = AT(prompts),
     .argument = "LIST",
     .max = 1 << 20,
     .help = "tokens of prompt to process, 0 for no such test (default 512)"},
    {.name = "n-gen",
     .letter = 'n',
     .kind = OPTION_LIST,
     .offset = AT(gens),
     .argument = "LIST",
     .max = 1 << 20,
     .help = "tokens to generate, 0 for no such test (default 128)"},
    {.name = "batch",
     .letter = 'b',
     .kind = OPTION_LIST,
     .offset = AT(seqs),
     .argument = "LIST",
     .min = 1,
     .max = 4096,
     .help = "sequences that generate together (default 1)"},
    {.name = "points",
     .kind = OPTION_POINTS,
     .offset = AT(points),
     .argument = "LIST",
     .help = "operating points, as 0,3,5-7 or all (default 0)"},
    {.name = "mixed",
     .kind = OPTION_FLAG,
     .offset = AT(mixed),
     .help = "the points of --points in one step: sequences, or tokens of a prompt, take them in turn"},
    CLI_OPTION_KV_TYPE(AT(kv_type)),
    CLI_OPTION_OVERRIDE_EXPERTS(AT(override_experts)),
    {.name = "repetitions",
     .letter = 'r',
     .kind = OPTION_U32,
     .offset = AT(repetitions),
     .argument = "R",
     .min = 1,
     .max = BENCH_REPETITIONS_MAX,
     .help = "times each test is repeated, after one that does not count"},
    {.name = "seed",
     .letter = 's',
     .kind = OPTION_U64,
     .offset = AT(seed),
     .argument = "N",
     .help = "seed of the random tokens (default 0)"},
    {.name = "breakdown",
     .kind = OPTION_FLAG,
     .offset = AT(breakdown),
     .help = "show what the time was spent on, and what sampling adds"},
    {.name = "json", .kind = OPTION_FLAG, .offset = AT(json), .help = "print JSON"},
    {.name = "Cost of a step, for servers and the simulator", .kind = OPTION_HEADING},
    {.name = "cost",
     .kind = OPTION_FLAG,
     .offset = AT(cost),
     .help = "measure what steps cost and write it beside the model, as MODEL.cost.json"},
    {.name = "slots",
     .kind = OPTION_U32,
     .offset = AT(slots),
     .argument = "N",
     .min = 1,
     .max = 1024,
     .help = "sequences that may run at once"},
    {.name = "ctx-size",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = AT(context),
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "tokens of context of each (default: the model's, at most 4096)"},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .argument = "FILE",
     .help = "write the cost there instead"},
    {.name = "Where it runs", .kind = OPTION_HEADING},
    CLI_OPTION_THREADS,
    CLI_OPTION_PIN,
    CLI_OPTION_ISA,
    CLI_OPTIONS_WEIGHTS,
    STORE_OPTIONS(AT(store)),
};

static const bench_options defaults = {
    .prompts = {.n = 1, .values = {512}},
    .gens = {.n = 1, .values = {128}},
    .seqs = {.n = 1, .values = {1}},
    .points = {.n = 1, .values = {0}},
    .repetitions = 5,
    .slots = 8,
};

const cli_command cmd_bench = {
    .name = "bench",
    .arguments = "MODEL [options]",
    .summary = "speed of prompt processing and generation, per operating point",
    .details =
        "Measures tokens per second on random tokens: ppN processes a prompt of N tokens, tgN generates N tokens "
        "in each of as many sequences as --batch says, counted together. The share is the part of the full "
        "expert compute really used. With --cost it measures steps of all kinds instead, fits a cost model to them "
        "and writes that for 'moeprism serve' and 'moeprism simulate'.",
    .example = "bench model-prism.gguf --points all -b 1,8 --breakdown",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
