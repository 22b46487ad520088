/* options.h: one table-driven reader of command lines for all subcommands.
 *
 * A command describes its options in a constant table; the reader fills the command's option structure from it, the
 * help text and the shell completion are printed from it. Nothing here exits or keeps state between calls; the
 * structures that are filled point into argv. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum option_kind {
    OPTION_HEADING,       /* no option: a line between groups in the help text */
    OPTION_FLAG,          /* bool */
    OPTION_TEXT,          /* const char * */
    OPTION_OPTIONAL_TEXT, /* option_text: the argument may be left out */
    OPTION_U32,           /* uint32_t, min..max */
    OPTION_U64,           /* uint64_t, min..max */
    OPTION_COUNT,         /* uint32_t, as U32; -1 is OPTION_UNLIMITED */
    OPTION_F64,           /* double, min..max */
    OPTION_SHARE,         /* double, min..max; "25%" is 0.25 */
    OPTION_CHOICE,        /* int, the index in choices */
    OPTION_LIST,          /* option_list: "1,3,5-8" */
    OPTION_POINTS,        /* as LIST, or "all" */
    OPTION_CONFIG,        /* const char *, a file (config_file.h) with what the command line leaves out */
} option_kind;

#define OPTION_UNLIMITED UINT32_MAX
/* What a number holds that was not given and has no default; a default of this kind is not shown in the help. */
#define OPTION_UNSET_U32 UINT32_MAX
#define OPTION_UNSET_U64 UINT64_MAX

typedef struct option_text {
    bool given;
    const char *text; /* NULL: given without an argument */
} option_text;

enum { OPTION_LIST_MAX = 256 };

typedef struct option_list {
    bool all;
    size_t n; /* 0 and not all: not given */
    uint32_t values[OPTION_LIST_MAX];
} option_list;

typedef struct option_spec {
    const char *name; /* of the long option, without dashes; of a heading, its text */
    char letter;      /* of the short option, 0: none */
    option_kind kind;
    size_t offset;        /* of the field in the command's structure */
    const char *argument; /* its name in the help text */
    const char *help;
    double min, max;            /* of numbers; both 0: the whole range of the type (floats: >= 0) */
    const char *const *choices; /* ends with NULL */
    bool required;
} option_spec;

enum { CLI_MAX_ARGS = 2 };

/* Every command's structure begins with this. */
typedef struct cli_common {
    const char *args[CLI_MAX_ARGS];
    unsigned n_args;
    uint32_t threads; /* 0: the library's choice */
    const char *isa;
    bool mmap, no_mmap, pin;
    char *config_text; /* what options from a file point into; main() frees it */
} cli_common;

typedef struct cli_command {
    const char *name, *arguments; /* "info", "MODEL [options]" */
    const char *summary;          /* one line, no full stop */
    const char *details;          /* paragraphs for --help, or NULL */
    const char *example;          /* what follows "moeprism " */
    const option_spec *options;
    size_t n_options;
    const void *defaults; /* [size]; the structure before any option */
    size_t size;
    unsigned min_args, max_args;
    const char *missing; /* what the first argument is, for the message when there is none */
    int (*run)(const struct cli_command *self, const void *options);
} cli_command;

/* The options of (nearly) all commands. */
#define CLI_OPTION_THREADS                                                                                             \
    {                                                                                                                  \
        "threads", 't', OPTION_U32, offsetof(cli_common, threads), "N",                                                \
            "threads to run on (default: the physical cores this process may use)", 1, 4096, NULL, false               \
    }
#define CLI_OPTION_ISA                                                                                                 \
    {                                                                                                                  \
        "isa", 0, OPTION_TEXT, offsetof(cli_common, isa), "NAME",                                                      \
            "kernels: ref, avx2, avxvnni or avx512 (default: the best this CPU has)", 0, 0, NULL, false                \
    }
#define CLI_OPTIONS_WEIGHTS                                                                                            \
    {.name = "no-mmap",                                                                                                \
     .kind = OPTION_FLAG,                                                                                              \
     .offset = offsetof(cli_common, no_mmap),                                                                          \
     .help = "read the model into memory, arranged for this CPU, instead of mapping it: starts later, runs faster "    \
             "(default where it takes at most half of the free memory)"},                                              \
    {                                                                                                                  \
        .name = "mmap", .kind = OPTION_FLAG, .offset = offsetof(cli_common, mmap),                                     \
        .help =                                                                                                        \
            "leave the model mapped, but for what a cap keeps: starts at once, and memory that others need is given "  \
            "back"                                                                                                     \
    }

#define CLI_OPTION_PIN                                                                                                 \
    {                                                                                                                  \
        "pin", 0, OPTION_FLAG, offsetof(cli_common, pin), NULL,                                                        \
            "keep each thread on a core of its own: steadier where the machine is yours alone", 0, 0, NULL, false      \
    }

/* Index = value of mp_kv_type. */
extern const char *const cli_kv_types[];
#define CLI_OPTION_KV_TYPE(offset)                                                                                     \
    {                                                                                                                  \
        "kv-type", 0, OPTION_CHOICE, offset, "TYPE", "type of the KV cache: f16, f32 or q8_0", 0, 0, cli_kv_types,     \
            false                                                                                                      \
    }

/* A command's own field. */
#define CLI_OPTION_OVERRIDE_EXPERTS(offset)                                                                            \
    {                                                                                                                  \
        "override-experts", 0, OPTION_U32, offset, "K",                                                                \
            "run K experts per token instead of the model's number; whole models only", 1, 65536, NULL, false          \
    }

#define CLI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef enum options_result { OPTIONS_OK, OPTIONS_HELP, OPTIONS_ERROR } options_result;

/* Reads argv[1..] of `command` into `values` [command->size], which holds the defaults. argv is not reordered.
 * On OPTIONS_ERROR the message has been printed. */
options_result options_parse(const cli_command *command, int argc, char **argv, void *values);

/* The --help text. */
void options_help(const cli_command *command, FILE *out);

/* "moeprism: MESSAGE (see 'moeprism NAME --help')" on stderr, in one line; returns the exit status of usage errors. */
int cli_usage(const cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
