/* refactor: a model in, its artifact out. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/ladder_table.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/refactor_report.h"

typedef struct refactor_options {
    cli_common common;
    const char *out, *calibration, *eval, *type, *json;
    int solver, gate, select;
    uint32_t n_parts, gate_rank, max_tokens_per_expert, eval_ctx;
    uint64_t max_tokens, max_eval_tokens, seed;
    bool no_gain, resume, force;
} refactor_options;

static mp_status show_result(const refactor_options *o, const mp_refactor_report *report, mp_error *err)
{
    mp_model *model;
    MP_TRY(mp_model_open(o->out, NULL, &model, err));
    mp_status status = MP_OK;
    const bool to_stdout = o->json != NULL && strcmp(o->json, "-") == 0;
    if (!to_stdout) {
        refactor_report_print(report, model, stdout);
        status = cli_flush(err);
    }
    if (status == MP_OK && o->json != NULL) status = output_json(refactor_report_json(report, model), o->json, err);
    mp_model_close(model);
    return status;
}

static mp_status refactor(const refactor_options *o, mp_refactor_params *params, mp_error *err)
{
    progress shown;
    mp_refactor_report report = {0};
    params->progress = progress_update;
    params->user = &shown;
    progress_begin(&shown, false);
    interrupt_catch("\nstopping after this piece of work; Ctrl-C again ends at once\n");
    mp_status status = mp_refactor(o->common.args[0], o->out, params, &report, err);
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    if (status == MP_E_INTERRUPTED)
        status =
            status_fail(err, status, "interrupted; the same command with --resume goes on from the last layer done");
    if (status == MP_OK) status = show_result(o, &report, err);
    mp_refactor_report_clear(&report);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const refactor_options *o = options;
    mp_error err;
    char *calibration = NULL, *eval = NULL;
    mp_refactor_params params = {
        .n_parts = o->n_parts,
        .solver = (mp_solver)o->solver,
        .gate = (mp_gate)o->gate,
        .gate_rank = o->gate_rank,
        .select = (mp_select)o->select,
        .no_gain = o->no_gain,
        .type = o->type,
        .max_tokens = o->max_tokens,
        .max_tokens_per_expert = o->max_tokens_per_expert,
        .max_eval_tokens = o->max_eval_tokens,
        .eval_ctx = o->eval_ctx,
        .seed = o->seed,
        .threads = o->common.threads,
        .force = o->force,
        .resume = o->resume,
    };
    mp_status status = file_read(o->calibration, &calibration, &params.calibration_len, &err);
    if (status == MP_OK && o->eval != NULL) status = file_read(o->eval, &eval, &params.eval_len, &err);
    params.calibration = calibration;
    params.eval = eval;
    if (status == MP_OK) status = refactor(o, &params, &err);
    free(calibration);
    free(eval);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

/* In the order of mp_solver, mp_gate and mp_select. */
static const char *const solvers[] = {"bcd", "anneal", "sort", NULL};
static const char *const gates[] = {"probe", "proxy", "linear", NULL};
static const char *const selects[] = {"threshold", "topk", NULL};

#define AT(member) offsetof(refactor_options, member)

static const option_spec specs[] = {
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .argument = "FILE",
     .required = true,
     .help = "the artifact to write"},
    {.name = "calibration",
     .kind = OPTION_TEXT,
     .offset = AT(calibration),
     .argument = "TEXT",
     .required = true,
     .help = "a text file like what the model will be used for; experts are split by what they do on it"},
    {.name = "eval",
     .kind = OPTION_TEXT,
     .offset = AT(eval),
     .argument = "TEXT",
     .help = "another text file, on which the quality of the operating points is measured (default: not measured)"},
    {.name = "force", .kind = OPTION_FLAG, .offset = AT(force), .help = "replace an existing artifact"},
    {.name = "resume",
     .kind = OPTION_FLAG,
     .offset = AT(resume),
     .help = "go on after the last finished layer of an interrupted run"},
    {.name = "json",
     .kind = OPTION_TEXT,
     .offset = AT(json),
     .argument = "FILE",
     .help = "write the report to FILE as JSON; - is standard output, in place of the tables"},
    CLI_OPTION_THREADS,
    {.name = "Splitting", .kind = OPTION_HEADING},
    {.name = "parts",
     .kind = OPTION_U32,
     .offset = AT(n_parts),
     .argument = "N",
     .min = 1,
     .max = 4096,
     .help = "sub-experts per expert, a divisor of its neurons (default: the divisor nearest 32)"},
    {.name = "solver",
     .kind = OPTION_CHOICE,
     .offset = AT(solver),
     .argument = "NAME",
     .choices = solvers,
     .help = "bcd: block coordinate descent; anneal: the paper's simulated annealing; sort: by importance only"},
    {.name = "seed",
     .letter = 's',
     .kind = OPTION_U64,
     .offset = AT(seed),
     .argument = "N",
     .help = "same seed, same artifact (default 0)"},
    {.name = "type",
     .kind = OPTION_TEXT,
     .offset = AT(type),
     .argument = "TYPE",
     .help = "type of the expert weights, as Q8_0, or llama.cpp's mixtures Q4_K_M and Q5_K_M (default: the source's)"},
    {.name = "Choosing at run time", .kind = OPTION_HEADING},
    {.name = "gate",
     .kind = OPTION_CHOICE,
     .offset = AT(gate),
     .argument = "NAME",
     .choices = gates,
     .help = "what scores sub-experts: probe: fitted output norms; proxy: the paper's gate neurons; linear: the "
             "router's weight"},
    {.name = "gate-rank",
     .kind = OPTION_U32,
     .offset = AT(gate_rank),
     .argument = "R",
     .min = 1,
     .max = 1 << 20,
     .help = "probe: directions shared by a layer, the model's width for all (default: by cost); proxy: gate neurons "
             "per sub-expert (default 1)"},
    {.name = "select",
     .kind = OPTION_CHOICE,
     .offset = AT(select),
     .argument = "NAME",
     .choices = selects,
     .help = "threshold: all sub-experts that score enough; topk: as many for every token"},
    {.name = "no-gain",
     .kind = OPTION_FLAG,
     .offset = AT(no_gain),
     .help = "do not scale reduced outputs to their full size"},
    {.name = "How much text", .kind = OPTION_HEADING},
    {.name = "max-tokens",
     .kind = OPTION_U64,
     .offset = AT(max_tokens),
     .argument = "N",
     .min = 1,
     .max = 1e12,
     .help = "calibration tokens (default 98304)"},
    {.name = "max-tokens-per-expert",
     .kind = OPTION_U32,
     .offset = AT(max_tokens_per_expert),
     .argument = "N",
     .min = 1,
     .max = 1 << 30,
     .help = "of which each expert keeps at most N (default 32768)"},
    {.name = "eval-tokens",
     .kind = OPTION_U64,
     .offset = AT(max_eval_tokens),
     .argument = "N",
     .min = 1,
     .max = 1e12,
     .help = "tokens of the evaluation text, spread over it (default 32768)"},
    {.name = "eval-ctx",
     .kind = OPTION_U32,
     .offset = AT(eval_ctx),
     .argument = "N",
     .min = 2,
     .max = 1 << 24,
     .help = "context of the evaluation (default: 512, or the model's if smaller)"},
};

static const refactor_options defaults;

const cli_command cmd_refactor = {
    .name = "refactor",
    .arguments = "MODEL -o FILE --calibration TEXT [--eval TEXT] [options]",
    .summary = "splits the experts of a model into sub-experts and writes an artifact",
    .details = "Splits every expert into sub-experts, fits the gate that chooses among them, measures a ladder of "
               "operating points and writes all of it as one GGUF file. The source model is not changed. An "
               "interrupted run can go on with --resume.",
    .example = "refactor model.gguf -o model-prism.gguf --calibration calibration.txt --eval heldout.txt",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
