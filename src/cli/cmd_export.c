/* export: an artifact as a file that other engines run. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "moeprism.h"

#define LLAMA_CPP_MAX_EXPERTS 512

typedef struct export_options {
    cli_common common;
    const char *out, *source, *type, *json;
    uint32_t parts;
    int to;
    bool force;
} export_options;

static json_t *layers_json(const mp_export_report *r)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < r->n_layers; i++) json_array_append_new(layers, json_number(r->requant_rmse[i]));
    return layers;
}

static json_t *report_json(const mp_export_report *r)
{
    json_t *root = json_object();
    json_object_set_new(root, "parts", json_integer(r->parts));
    json_object_set_new(root, "experts", json_integer(r->experts));
    json_object_set_new(root, "experts_used", json_integer(r->experts_used));
    json_object_set_new(root, "down_type", json_text(r->down_type));
    json_object_set_new(root, "requant_rmse", layers_json(r));
    json_object_set_new(root, "check_tokens", json_integer(r->check_tokens));
    json_object_set_new(root, "max_difference", json_number(r->max_difference));
    json_object_set_new(root, "kl_mean", json_number(r->kl_mean));
    return root;
}

static void print_report(const export_options *o, const mp_export_report *r)
{
    double worst = 0;
    for (size_t i = 0; i < r->n_layers; i++) worst = r->requant_rmse[i] > worst ? r->requant_rmse[i] : worst;
    printf("%s: every expert cut in %u; %u experts, of which %u run\n", o->out, r->parts, r->experts, r->experts_used);
    const char *widened = o->type ? " (the type asked for does not fit the narrower rows)"
                                  : " (the source's type does not fit the narrower rows)";
    printf("down matrices        %s%s, requantized once: relative error at most %.2e\n", r->down_type,
           r->widened ? widened : "", worst);
    printf("beside the source    largest difference %.2e of the largest logit, mean KL %.2e nats (%u tokens, full)\n",
           r->max_difference, r->kl_mean, r->check_tokens);
    if (r->experts > LLAMA_CPP_MAX_EXPERTS)
        printf("note                 llama.cpp loads at most %d experts: choose fewer --parts for it\n",
               LLAMA_CPP_MAX_EXPERTS);
}

static mp_status show(const export_options *o, const mp_export_report *report, mp_error *err)
{
    if (o->json == NULL || strcmp(o->json, "-") != 0) {
        print_report(o, report);
        MP_TRY(cli_flush(err));
    }
    return o->json ? output_json(report_json(report), o->json, err) : MP_OK;
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const export_options *o = options;
    progress shown;
    mp_error err;
    mp_export_report report = {0};
    const mp_export_params params = {
        .source = o->source,
        .parts = o->parts,
        .type = o->type,
        .force = o->force,
        .progress = progress_update,
        .user = &shown,
    };
    progress_begin(&shown, false);
    interrupt_catch("\nstopping after this piece of work; Ctrl-C again ends at once\n");
    mp_status status = mp_export(o->common.args[0], o->out, &params, &report, &err);
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    if (status == MP_OK) status = show(o, &report, &err);
    mp_export_report_clear(&report);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

static const char *const targets[] = {"gguf", NULL};

#define AT(member) offsetof(export_options, member)

static const option_spec specs[] = {
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .argument = "FILE",
     .required = true,
     .help = "the file to write"},
    {.name = "source",
     .kind = OPTION_TEXT,
     .offset = AT(source),
     .argument = "MODEL",
     .required = true,
     .help = "the model the artifact was made from: weights are taken from it, so they are requantized once"},
    {.name = "parts",
     .kind = OPTION_U32,
     .offset = AT(parts),
     .argument = "N",
     .min = 1,
     .max = 4096,
     .help = "experts that an expert becomes, a divisor of the artifact's sets (default: 4, or the nearest below)"},
    {.name = "to",
     .kind = OPTION_CHOICE,
     .offset = AT(to),
     .argument = "FORMAT",
     .choices = targets,
     .help = "gguf: the source's architecture, for llama.cpp and its kin"},
    {.name = "type",
     .kind = OPTION_TEXT,
     .offset = AT(type),
     .argument = "TYPE",
     .help = "type of the expert weights, as Q8_0, or llama.cpp's mixtures Q4_K_M and Q5_K_M (default: the source's "
             "where it fits the narrower rows)"},
    {.name = "force", .kind = OPTION_FLAG, .offset = AT(force), .help = "replace an existing file"},
    {.name = "json",
     .kind = OPTION_TEXT,
     .offset = AT(json),
     .argument = "FILE",
     .help = "write the report to FILE as JSON; - is standard output, in place of the text"},
};

static const export_options defaults;

const cli_command cmd_export = {
    .name = "export",
    .arguments = "ARTIFACT --source MODEL -o FILE [options]",
    .summary = "writes an artifact's split as a standard GGUF that other engines run",
    .details = "Every expert becomes N narrower ones with the same router row, so that running N times as many is the "
               "original model, and running fewer keeps each expert's most important sets. Both models are run at "
               "full before the file gets its name. In llama.cpp, choose how many run with "
               "--override-kv ARCH.expert_used_count=int:K.",
    .example = "export model-prism.gguf --source model.gguf --parts 4 -o model-x4.gguf",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "artifact",
    .run = run,
};
