/* run: goes on with a text, or chats. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/generate.h"
#include "cli/interactive.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/quality.h"
#include "cli/run_trace.h"
#include "cli/store_options.h"

typedef struct run_options {
    cli_common common;
    const char *prompt, *file, *chat_template, *system;
    quality_options quality;
    uint32_t override_experts, n_predict, n_ctx, top_k, repeat_last;
    int kv_type;
    double temperature, top_p, min_p, repeat_penalty;
    uint64_t seed;
    bool no_display_prompt, chat;
    store_options store;
    const char *trace;
} run_options;

static uint64_t random_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) seed = (uint32_t)clock_now_ns();
    return seed; /* 32 bits: short enough to type again */
}

/* The text of -p, -f or standard input. A file's last newline is its editor's, not the prompt's. */
static mp_status read_prompt(const run_options *o, char **text, size_t *len, mp_error *err)
{
    if (o->prompt != NULL) {
        *text = strdup(o->prompt);
        *len = strlen(o->prompt);
        return *text != NULL ? MP_OK : status_no_memory(err, *len + 1, "the prompt");
    }
    const mp_status status = input_read(o->file, text, len, err);
    if (status == MP_OK && *len > 0 && (*text)[*len - 1] == '\n') (*len)--;
    if (status == MP_OK && *len > 0 && (*text)[*len - 1] == '\r') (*len)--;
    return status;
}

/* What went to standard output is ended and flushed, and the rest is told. */
static mp_status finish(const generator *g, generate_end end, mp_error *err)
{
    puts("");
    MP_TRY(cli_flush(err));
    generator_print_stats(g, stderr);
    store_stats_print(g->engine, g->prompt_tokens + g->decode_steps, stderr);
    if (end == GENERATE_END_CONTEXT)
        fprintf(stderr, "stopped: the context of %u tokens is full (-c sets it)\n", g->n_ctx);
    return MP_OK;
}

static mp_status once(generator *g, conversation *chat, const run_options *o, mp_error *err)
{
    generate_end end;
    char *text = NULL;
    size_t len = 0;
    mp_status status = read_prompt(o, &text, &len, err);
    interrupt_catch(NULL);
    if (status == MP_OK && chat != NULL) {
        status = conversation_ask(chat, text, o->n_predict, stdout, &end, err);
    } else if (status == MP_OK) {
        status = generator_feed(g, text, len, err);
        if (status == MP_OK && !o->no_display_prompt) fwrite(text, 1, len, stdout);
        fflush(stdout);
        if (status == MP_OK) status = generator_run(g, o->n_predict, stdout, &end, err);
    }
    free(text);
    const bool stopped = interrupt_seen();
    interrupt_release();
    if (status == MP_OK) status = finish(g, end, err);
    if (status == MP_OK && stopped) status = status_fail(err, MP_E_INTERRUPTED, "interrupted");
    return status;
}

static mp_status run_chat(generator *g, const run_options *o, mp_error *err)
{
    conversation chat;
    MP_TRY(conversation_open(&chat, g, o->chat_template, o->system, err));
    mp_status status;
    if (o->prompt != NULL || o->file != NULL)
        status = once(g, &chat, o, err);
    else if (isatty(STDIN_FILENO))
        status = interactive(g, &chat, o->n_predict, err);
    else
        status = conversation_lines(&chat, stdin, o->n_predict, err);
    conversation_close(&chat);
    return status;
}

static mp_status run_text(generator *g, const run_options *o, mp_error *err)
{
    const bool dialogue = o->prompt == NULL && o->file == NULL && isatty(STDIN_FILENO);
    return dialogue ? interactive(g, NULL, o->n_predict, err) : once(g, NULL, o, err);
}

static mp_status run_model(const mp_model *model, const run_options *o, mp_error *err)
{
    generator g;
    uint32_t point;
    const uint64_t seed = o->seed != OPTION_UNSET_U64 ? o->seed : random_seed();
    const uint32_t n_ctx = cli_context(model, o->n_ctx);
    mp_engine_params engine = {.threads = o->common.threads,
                               .pin = o->common.pin,
                               .isa = o->common.isa,
                               .kv_type = (mp_kv_type)o->kv_type,
                               .n_ctx = n_ctx,
                               .n_batch = n_ctx < 512 ? n_ctx : 512,
                               .n_logits = 1};
    const mp_sampler_params sampling = {.temperature = (float)o->temperature,
                                        .top_k = o->top_k,
                                        .top_p = (float)o->top_p,
                                        .min_p = (float)o->min_p,
                                        .repeat_penalty = (float)o->repeat_penalty,
                                        .repeat_last = o->repeat_last,
                                        .seed = seed};
    run_trace trace;
    MP_TRY(quality_point(model, &o->quality, &point, err));
    MP_TRY(store_options_apply(&o->store, model, &engine, err));
    if (o->store.plan) return store_options_print_plan(model, &engine, err);
    MP_TRY(generator_open(&g, model, &engine, &sampling, err));
    store_notice_print(g.engine);
    g.point = point;
    g.floor = o->store.deadline_ms > 0 ? mp_model_get_info(model)->n_points - 1 : 0;
    mp_status status = run_trace_begin(&trace, o->trace, g.engine, model, err);
    if (status == MP_OK) status = o->chat ? run_chat(&g, o, err) : run_text(&g, o, err);
    if (o->trace != NULL) status = run_trace_end(&trace, status, err);
    generator_close(&g);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    const run_options *o = options;
    mp_error err;
    mp_model *model;
    if (o->prompt != NULL && o->file != NULL) return cli_usage(self, "give one of --prompt and --file");
    if (quality_given(&o->quality) > 1)
        return cli_usage(self, "give one of --experts, --compute, --max-ppl-increase and --point");
    if (!o->chat && (o->chat_template != NULL || o->system != NULL))
        return cli_usage(self, "option '--%s' needs --chat", o->system != NULL ? "system" : "chat-template");
    if (cli_open_model(&o->common, o->override_experts, &model, &err) != MP_OK) return cli_fail(&err);
    const mp_status status = run_model(model, o, &err);
    mp_model_close(model);
    if (status == MP_E_INTERRUPTED) return STATUS_INTERRUPTED; /* who pressed Ctrl-C knows */
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(run_options, member)

static const option_spec specs[] = {
    {.name = "prompt",
     .letter = 'p',
     .kind = OPTION_TEXT,
     .offset = AT(prompt),
     .argument = "TEXT",
     .help = "the text to go on with"},
    {.name = "file",
     .letter = 'f',
     .kind = OPTION_TEXT,
     .offset = AT(file),
     .argument = "FILE",
     .help = "read the text from FILE; - is standard input"},
    {.name = "predict",
     .letter = 'n',
     .kind = OPTION_COUNT,
     .offset = AT(n_predict),
     .argument = "N",
     .help = "tokens to generate (default -1: until the text ends or the context is full)"},
    {.name = "ctx-size",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = AT(n_ctx),
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "tokens of context (default: the model's, at most 4096)"},
    {.name = "chat",
     .kind = OPTION_FLAG,
     .offset = AT(chat),
     .help = "the text is a message, the model replies: one with -p or -f, else a conversation, line by line"},
    {.name = "system",
     .kind = OPTION_TEXT,
     .offset = AT(system),
     .argument = "TEXT",
     .help = "what a chat begins with, for the model only"},
    {.name = "chat-template",
     .kind = OPTION_TEXT,
     .offset = AT(chat_template),
     .argument = "NAME",
     .help = "write the chat as this family of models wants it (default: the model file's)"},
    {.name = "no-display-prompt",
     .kind = OPTION_FLAG,
     .offset = AT(no_display_prompt),
     .help = "do not print the prompt before the text"},
    CLI_OPTION_THREADS,
    CLI_OPTION_PIN,
    CLI_OPTION_ISA,
    CLI_OPTIONS_WEIGHTS,
    {.name = "How much of the experts (at most one of these)", .kind = OPTION_HEADING},
    QUALITY_OPTIONS(AT(quality)),
    CLI_OPTION_KV_TYPE(AT(kv_type)),
    CLI_OPTION_OVERRIDE_EXPERTS(AT(override_experts)),
    STORE_OPTIONS(AT(store)),
    STORE_OPTION_DEADLINE(AT(store)),
    {.name = "record-trace",
     .kind = OPTION_TEXT,
     .offset = AT(trace),
     .argument = "FILE",
     .help = "write to FILE which experts every token used, for 'moeprism cache-sim'"},
    {.name = "Sampling", .kind = OPTION_HEADING},
    {.name = "temp",
     .kind = OPTION_F64,
     .offset = AT(temperature),
     .argument = "T",
     .max = 100,
     .help = "temperature; 0 takes the likeliest token"},
    {.name = "top-k",
     .kind = OPTION_U32,
     .offset = AT(top_k),
     .argument = "K",
     .help = "draw from the K likeliest tokens; 0 is off"},
    {.name = "top-p",
     .kind = OPTION_F64,
     .offset = AT(top_p),
     .argument = "P",
     .max = 1,
     .help = "draw from the likeliest tokens that together reach probability P; 1 is off"},
    {.name = "min-p",
     .kind = OPTION_F64,
     .offset = AT(min_p),
     .argument = "P",
     .max = 1,
     .help = "leave out tokens less likely than P times the likeliest; 0 is off"},
    {.name = "repeat-penalty",
     .kind = OPTION_F64,
     .offset = AT(repeat_penalty),
     .argument = "X",
     .max = 100,
     .help = "penalty of tokens that were there lately; 1 is off"},
    {.name = "repeat-last-n",
     .kind = OPTION_U32,
     .offset = AT(repeat_last),
     .argument = "N",
     .min = 1,
     .max = MP_REPEAT_LAST_MAX,
     .help = "how many tokens back that looks"},
    {.name = "seed",
     .letter = 's',
     .kind = OPTION_U64,
     .offset = AT(seed),
     .argument = "N",
     .help = "seed of the sampling (default: a random one, printed)"},
};

static const run_options defaults = {
    .quality = QUALITY_UNSET,
    .n_predict = OPTION_UNLIMITED,
    .top_k = 40,
    .top_p = 0.95,
    .min_p = 0.05,
    .temperature = 0.8,
    .repeat_penalty = 1.0,
    .repeat_last = 64,
    .seed = OPTION_UNSET_U64,
};

const cli_command cmd_run = {
    .name = "run",
    .arguments = "MODEL [-p TEXT | -f FILE] [options]",
    .summary = "goes on with a text, or chats, at the quality asked for",
    .details = "Writes the prompt and what the model makes of it. Without -p and -f the prompt is read from standard "
               "input; where that is a terminal, a dialogue begins. With --chat the model replies to messages: -p or "
               "-f is one, else every line of standard input; /clear begins anew, /exit leaves, Ctrl-C stops a reply. "
               "Speed and the experts really used are told on standard error.",
    .example = "run model-prism.gguf --experts 2.25 -n 100 -p 'The old lighthouse'",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
