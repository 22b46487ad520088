/* trace_options.h: the options by which a user says what arrives when, shared by `simulate` and `loadgen`: a trace
 * file, or what the generator shall make. */
#ifndef CLI_TRACE_OPTIONS_H
#define CLI_TRACE_OPTIONS_H

#include "cli/cli.h"
#include "sched/trace.h"

typedef struct trace_options {
    const char *path, *save;
    int arrivals;
    double rate, step, duration_s; /* NAN: not given */
    uint32_t requests;             /* OPTION_UNSET_U32: not given */
    const char *floors, *prompt_tokens, *output_tokens;
    double ttft_ms, tpot_ms; /* 0: none */
    uint64_t seed;
} trace_options;

extern const char *const trace_arrivals_names[]; /* index = trace_arrivals */

#define TRACE_OPTIONS_UNSET                                                                                            \
    {                                                                                                                  \
        .rate = NAN, .step = 4, .duration_s = NAN, .requests = OPTION_UNSET_U32, .floors = "full",                     \
        .prompt_tokens = "64-512", .output_tokens = "32-128"                                                           \
    }

/* Entries of an option table; `base` is the offset of the trace_options in the command's structure. */
#define TRACE_OPTIONS(base)                                                                                            \
    {.name = "What arrives: a trace, or one that is made up", .kind = OPTION_HEADING},                                 \
        {.name = "trace",                                                                                              \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(trace_options, path),                                                             \
         .argument = "FILE",                                                                                           \
         .help = "CSV: arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms"},                                  \
        {.name = "rate",                                                                                               \
         .letter = 'r',                                                                                                \
         .kind = OPTION_F64,                                                                                           \
         .offset = (base) + offsetof(trace_options, rate),                                                             \
         .argument = "R",                                                                                              \
         .help = "requests a second"},                                                                                 \
        {.name = "requests",                                                                                           \
         .letter = 'n',                                                                                                \
         .kind = OPTION_U32,                                                                                           \
         .offset = (base) + offsetof(trace_options, requests),                                                         \
         .argument = "N",                                                                                              \
         .min = 1,                                                                                                     \
         .max = TRACE_REQUESTS_MAX,                                                                                    \
         .help = "how many (default: 100, or as many as come in --duration)"},                                         \
        {.name = "duration",                                                                                           \
         .kind = OPTION_F64,                                                                                           \
         .offset = (base) + offsetof(trace_options, duration_s),                                                       \
         .argument = "S",                                                                                              \
         .max = 1e9,                                                                                                   \
         .help = "seconds in which they arrive"},                                                                      \
        {.name = "arrivals",                                                                                           \
         .kind = OPTION_CHOICE,                                                                                        \
         .offset = (base) + offsetof(trace_options, arrivals),                                                         \
         .argument = "KIND",                                                                                           \
         .choices = trace_arrivals_names,                                                                              \
         .help = "poisson, bursty (gamma, deviation 4 times the mean) or step"},                                       \
        {.name = "step",                                                                                               \
         .kind = OPTION_F64,                                                                                           \
         .offset = (base) + offsetof(trace_options, step),                                                             \
         .argument = "F",                                                                                              \
         .help = "with --arrivals step: in the middle third F times the rate"},                                        \
        {.name = "floors",                                                                                             \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(trace_options, floors),                                                           \
         .argument = "F",                                                                                              \
         .help = "full; uniform:1,0.75,50%,point:9; bimodal:1,0.25[,SHARE OF THE FIRST] (default full)"},              \
        {.name = "prompt-tokens",                                                                                      \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(trace_options, prompt_tokens),                                                    \
         .argument = "A-B",                                                                                            \
         .help = "tokens of a prompt (default 64-512)"},                                                               \
        {.name = "output-tokens",                                                                                      \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(trace_options, output_tokens),                                                    \
         .argument = "A-B",                                                                                            \
         .help = "tokens of a reply (default 32-128)"},                                                                \
        {.name = "ttft-ms",                                                                                            \
         .kind = OPTION_F64,                                                                                           \
         .offset = (base) + offsetof(trace_options, ttft_ms),                                                          \
         .argument = "MS",                                                                                             \
         .max = 1e9,                                                                                                   \
         .help = "deadline of the first token (default none)"},                                                        \
        {.name = "tpot-ms",                                                                                            \
         .kind = OPTION_F64,                                                                                           \
         .offset = (base) + offsetof(trace_options, tpot_ms),                                                          \
         .argument = "MS",                                                                                             \
         .max = 1e9,                                                                                                   \
         .help = "deadline of each further token, in the mean (default none)"},                                        \
        {.name = "seed",                                                                                               \
         .letter = 's',                                                                                                \
         .kind = OPTION_U64,                                                                                           \
         .offset = (base) + offsetof(trace_options, seed),                                                             \
         .argument = "N",                                                                                              \
         .help = "same seed, same trace (default 0)"},                                                                 \
    {                                                                                                                  \
        .name = "save-trace", .kind = OPTION_TEXT, .offset = (base) + offsetof(trace_options, save),                   \
        .argument = "FILE", .help = "write the trace there"                                                            \
    }

/* Reads or makes the trace, and saves it where that was asked for. The caller clears it. */
mp_status trace_options_load(const trace_options *o, trace *out, mp_error *err);

#endif
