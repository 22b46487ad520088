/* synth: models of a real shape with random weights. */
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

typedef struct synth_options {
    cli_common common;
    int like;
    const char *type, *out;
    uint32_t n_layers, n_parts;
    uint64_t seed;
    bool force;
} synth_options;

static const char *const likes[] = {"olmoe-1b-7b", "qwen3-30b-a3b", "deepseek-v2-lite", NULL};

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const synth_options *o = options;
    progress shown;
    mp_error err;
    const mp_synth_params params = {
        .like = likes[o->like],
        .type = o->type,
        .n_layers = o->n_layers,
        .n_parts = o->n_parts,
        .seed = o->seed,
        .force = o->force,
        .progress = progress_update,
        .user = &shown,
    };
    progress_begin(&shown, true);
    interrupt_catch(NULL);
    const mp_status status = mp_synth(o->out, &params, &err);
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(synth_options, member)

static const option_spec specs[] = {
    {.name = "like",
     .kind = OPTION_CHOICE,
     .offset = AT(like),
     .argument = "SHAPE",
     .choices = likes,
     .help = "the model whose shape it gets: olmoe-1b-7b, qwen3-30b-a3b or deepseek-v2-lite",
     .required = true},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .argument = "FILE",
     .required = true,
     .help = "the file to write"},
    {.name = "layers",
     .kind = OPTION_U32,
     .offset = AT(n_layers),
     .argument = "N",
     .min = 1,
     .max = 1024,
     .help = "layers (default: as many as the real model)"},
    {.name = "type",
     .kind = OPTION_TEXT,
     .offset = AT(type),
     .argument = "TYPE",
     .help = "type of the matrices, as Q8_0 (default Q4_0)"},
    {.name = "split",
     .kind = OPTION_U32,
     .offset = AT(n_parts),
     .argument = "N",
     .min = 1,
     .max = 4096,
     .help = "split every expert into N sub-experts (default: whole experts)"},
    {.name = "seed",
     .letter = 's',
     .kind = OPTION_U64,
     .offset = AT(seed),
     .argument = "N",
     .help = "seed of the weights (default 0)"},
    {.name = "force", .kind = OPTION_FLAG, .offset = AT(force), .help = "replace an existing file"},
};

static const synth_options defaults;

const cli_command cmd_synth = {
    .name = "synth",
    .arguments = "--like SHAPE -o FILE [options]",
    .summary = "a model of a real shape with random weights, for benchmarks",
    .example = "synth --like olmoe-1b-7b --layers 4 --split 32 -o synthetic.gguf",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .run = run,
};
