/* eval: perplexity and distance to the full model, at each operating point. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/eval_report.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/store_options.h"

typedef struct eval_options {
    cli_common common;
    const char *text, *against, *html;
    option_text json;
    option_list points;
    uint32_t n_ctx, override_experts;
    int kv_type;
    uint64_t max_tokens;
    store_options store;
} eval_options;

static bool is_whole(const mp_model *model)
{
    return mp_model_get_info(model)->n_parts <= 1;
}

/* Numbers of whole experts worth comparing with: k0, 3/4, 1/2, 3/8, 1/4, 1/8 of it and 1; at most 7, falling. */
static size_t choose_experts(uint32_t k0, uint32_t experts[7])
{
    static const uint32_t eighths[] = {8, 6, 4, 3, 2, 1, 0};
    size_t n = 0;
    for (size_t i = 0; i < CLI_COUNT(eighths); i++) {
        const uint32_t k = eighths[i] * k0 / 8 > 1 ? eighths[i] * k0 / 8 : 1;
        if (n == 0 || k < experts[n - 1]) experts[n++] = k;
    }
    return n;
}

/* The whole model `report->against` with fewer experts: rung p of its ladder runs k0 - p of them. */
static mp_status eval_whole(eval_report *report, const mp_eval_params *params, mp_error *err)
{
    uint32_t experts[7], points[7];
    mp_eval_params whole = *params;
    mp_eval_result result = {0};
    const uint32_t k0 = mp_model_get_info(report->against)->n_experts_used;
    const size_t n = choose_experts(k0, experts);
    for (size_t i = 0; i < n; i++) points[i] = k0 - experts[i];
    whole.points = points;
    whole.n_points = n;
    whole.against = NULL;
    MP_TRY(mp_eval(report->against, &whole, &result, err));
    report->whole = result.points; /* the report owns them now */
    report->n_whole = n;
    result.points = NULL;
    mp_eval_result_clear(&result);
    for (size_t i = 0; i < n; i++) report->whole[i].point = experts[i];
    return MP_OK;
}

static mp_status check_points(const mp_model *model, const option_list *points, mp_error *err)
{
    for (size_t i = 0; i < points->n; i++)
        if (mp_model_point(model, points->values[i]) == NULL)
            return status_fail(err, MP_E_INVALID, "there is no operating point %u (see 'moeprism info')",
                               points->values[i]);
    return MP_OK;
}

/* The store that --memory asks for, judged on an engine such as mp_eval() opens. */
static mp_status choose_store(const mp_model *model, const eval_options *o, mp_store_params *out, mp_error *err)
{
    const uint32_t n_ctx = o->n_ctx ? o->n_ctx : 512, longest = mp_model_get_info(model)->n_ctx_train;
    mp_engine_params engine = {.n_ctx = n_ctx < longest ? n_ctx : longest, .kv_type = (mp_kv_type)o->kv_type};
    MP_TRY(store_options_apply(&o->store, model, &engine, err));
    const bool deadline = o->store.deadline_ms > 0, capped = store_is_capped(model, &engine.store);
    if ((o->store.prefer_resident > 0 || deadline) && !capped)
        return status_fail(err, MP_E_INVALID, "%s changes nothing where everything is in memory: give --memory too",
                           deadline ? "--token-deadline" : "--prefer-resident");
    *out = engine.store;
    return o->store.plan ? store_options_print_plan(model, &engine, err) : MP_OK;
}

static mp_status measure(eval_report *report, const eval_options *o, const mp_store_params *store, const char *text,
                         size_t len, mp_error *err)
{
    static const uint32_t full = 0;
    progress shown;
    mp_eval_params params = {
        .text = text,
        .len = len,
        .n_ctx = o->n_ctx,
        .max_tokens = o->max_tokens,
        .points = o->points.values,
        .n_points = o->points.n,
        .against = report->against,
        .threads = o->common.threads,
        .isa = o->common.isa,
        .kv_type = (mp_kv_type)o->kv_type,
        .progress = progress_update,
        .user = &shown,
    };
    if (o->points.all || (o->points.n == 0 && !is_whole(report->model))) {
        params.points = NULL;
        params.n_points = 0;
    } else if (o->points.n == 0) {
        params.points = &full;
        params.n_points = 1;
    }
    MP_TRY(check_points(report->model, &o->points, err));
    params.store = report->store = *store;
    MP_TRY(machine_describe(&report->machine, &o->common, err));
    progress_begin(&shown, true);
    interrupt_catch(NULL);
    mp_status status = mp_eval(report->model, &params, &report->result, err);
    if (status == MP_OK && report->against != NULL && is_whole(report->against) && !is_whole(report->model))
        status = eval_whole(report, &params, err);
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    if (report->result.notice[0] != '\0') fprintf(stderr, "moeprism: %s\n", report->result.notice);
    return status;
}

static mp_status deliver(const eval_report *report, const eval_options *o, mp_error *err)
{
    const bool json_only = o->json.given && (o->json.text == NULL || strcmp(o->json.text, "-") == 0);
    if (json_only)
        MP_TRY(output_json(eval_report_json(report), NULL, err));
    else
        eval_report_print(report, stdout);
    MP_TRY(cli_flush(err));
    if (o->json.given && !json_only) MP_TRY(output_json(eval_report_json(report), o->json.text, err));
    if (o->html == NULL) return MP_OK;
    output page;
    MP_TRY(output_begin(&page, err));
    const mp_status status = eval_report_html(report, page.stream, err);
    if (status == MP_OK) return output_finish(&page, o->html, err);
    output_drop(&page);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const eval_options *o = options;
    mp_error err;
    eval_report report = {0};
    mp_model *model = NULL, *against = NULL;
    char *text = NULL;
    size_t len = 0;
    mp_store_params store;
    mp_status status = cli_open_model(&o->common, o->override_experts, &model, &err);
    if (status == MP_OK) status = choose_store(model, o, &store, &err);
    const bool go_on = status == MP_OK && !o->store.plan;
    if (go_on && o->against != NULL) status = cli_open_file(&o->common, o->against, 0, &against, &err);
    if (go_on && status == MP_OK) status = input_read(o->text, &text, &len, &err);
    report.model = model;
    report.against = against;
    if (go_on && status == MP_OK) status = measure(&report, o, &store, text, len, &err);
    if (go_on && status == MP_OK) status = deliver(&report, o, &err);
    eval_report_clear(&report);
    free(text);
    mp_model_close(against);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(eval_options, member)

static const option_spec specs[] = {
    {.name = "text",
     .kind = OPTION_TEXT,
     .offset = AT(text),
     .argument = "FILE",
     .required = true,
     .help = "the text to evaluate on; - is standard input"},
    {.name = "ctx-size",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = AT(n_ctx),
     .argument = "N",
     .min = 2,
     .max = 1 << 24,
     .help = "tokens of a chunk (default: 512, or the model's context if smaller)"},
    {.name = "points",
     .kind = OPTION_POINTS,
     .offset = AT(points),
     .argument = "LIST",
     .help = "operating points, as 0,3,5-7 or all (default: all of an artifact, 0 of a whole model)"},
    CLI_OPTION_KV_TYPE(AT(kv_type)),
    CLI_OPTION_OVERRIDE_EXPERTS(AT(override_experts)),
    {.name = "against",
     .kind = OPTION_TEXT,
     .offset = AT(against),
     .argument = "MODEL",
     .help = "take the KL to this model at full instead; a whole model is also run with fewer of its experts"},
    {.name = "max-tokens",
     .kind = OPTION_U64,
     .offset = AT(max_tokens),
     .argument = "N",
     .min = 1,
     .max = 1e12,
     .help = "use N tokens, evenly spread over the text (default: all of it)"},
    {.name = "json",
     .kind = OPTION_OPTIONAL_TEXT,
     .offset = AT(json),
     .argument = "FILE",
     .help = "write JSON to FILE; without FILE, to standard output in place of the table"},
    {.name = "html",
     .kind = OPTION_TEXT,
     .offset = AT(html),
     .argument = "FILE",
     .help = "write a page with a chart to FILE"},
    CLI_OPTION_THREADS,
    CLI_OPTION_ISA,
    CLI_OPTIONS_WEIGHTS,
    STORE_OPTIONS(AT(store)),
    STORE_OPTION_DEADLINE(AT(store)),
};

static const eval_options defaults;

const cli_command cmd_eval = {
    .name = "eval",
    .arguments = "MODEL --text FILE [options]",
    .summary = "perplexity and KL of the operating points on a text",
    .details = "Cuts a text into chunks, scores the second half of each and prints, for every operating point, the "
               "share of the expert compute used, the perplexity with its standard error, mean and 99th percentile "
               "of the KL divergence to the full model and how often the likeliest token is the same.",
    .example = "eval model-prism.gguf --text heldout.txt --against model.gguf --html curve.html",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
