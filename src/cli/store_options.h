/* store_options.h: the options on how much of a model's experts to hold in memory, shared by commands. */
#ifndef CLI_STORE_OPTIONS_H
#define CLI_STORE_OPTIONS_H

#include "cli/cli.h"

typedef struct store_options {
    const char *memory, *eviction, *backend; /* NULL: not given */
    uint32_t depth;
    double pin_share, prefer_resident, deadline_ms;
    bool no_read_ahead, plan;
} store_options;

/* Entries of an option table; `base` is the offset of the store_options in the command's structure. */
#define STORE_OPTIONS(base)                                                                                            \
    {.name = "Models larger than memory", .kind = OPTION_HEADING},                                                     \
        {.name = "memory",                                                                                             \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(store_options, memory),                                                           \
         .argument = "SIZE",                                                                                           \
         .help = "hold no more than SIZE of the expert weights, as 4G or 25% of them, and read the rest from disk "    \
                 "when it is wanted (default: all of them, or what fits in free memory)"},                             \
        {.name = "eviction",                                                                                           \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(store_options, eviction),                                                         \
         .argument = "NAME",                                                                                           \
         .help = "which experts make room for others ('moeprism cache-sim --help' has the names)"},                    \
        {.name = "pin-experts",                                                                                        \
         .kind = OPTION_SHARE,                                                                                         \
         .offset = (base) + offsetof(store_options, pin_share),                                                        \
         .argument = "SHARE",                                                                                          \
         .max = 1,                                                                                                     \
         .help = "keep the sub-experts used most in calibration for good, in this share of the memory"},               \
        {.name = "prefer-resident",                                                                                    \
         .kind = OPTION_SHARE,                                                                                         \
         .offset = (base) + offsetof(store_options, prefer_resident),                                                  \
         .argument = "BOUND",                                                                                          \
         .max = 0.999,                                                                                                 \
         .help = "take a sub-expert in memory in place of one on disk if its score is at most BOUND lower, as 0.2; "   \
                 "changes results: 'moeprism eval' prices it"},                                                        \
        {.name = "io",                                                                                                 \
         .kind = OPTION_TEXT,                                                                                          \
         .offset = (base) + offsetof(store_options, backend),                                                          \
         .argument = "NAME",                                                                                           \
         .help = "how to read: io_uring or threads (default: the first that works here)"},                             \
        {.name = "io-depth",                                                                                           \
         .kind = OPTION_U32,                                                                                           \
         .offset = (base) + offsetof(store_options, depth),                                                            \
         .argument = "N",                                                                                              \
         .min = 1,                                                                                                     \
         .max = 1024,                                                                                                  \
         .help = "reads in flight at once"},                                                                           \
        {.name = "no-read-ahead",                                                                                      \
         .kind = OPTION_FLAG,                                                                                          \
         .offset = (base) + offsetof(store_options, no_read_ahead),                                                    \
         .help = "read no experts before a layer wants them"},                                                         \
    {                                                                                                                  \
        .name = "plan", .kind = OPTION_FLAG, .offset = (base) + offsetof(store_options, plan),                         \
        .help = "print the memory this would take, and end"                                                            \
    }

/* One more, of commands that run token by token. */
#define STORE_OPTION_DEADLINE(base)                                                                                    \
    {                                                                                                                  \
        .name = "token-deadline", .kind = OPTION_F64, .offset = (base) + offsetof(store_options, deadline_ms),         \
        .argument = "MS", .max = 1e6,                                                                                  \
        .help = "leave out what has not come from disk when a token takes that long, down to the cheapest point; "     \
                "changes results: what was lost is told, 'moeprism eval' prices it"                                    \
    }

/* Fills engine->store, and has the loading of weights shown. Where --memory was not given and the experts do not fit in
 * free memory, the cap is chosen and told in a line on standard error. engine's other fields must be final. */
mp_status store_options_apply(const store_options *o, const mp_model *model, mp_engine_params *engine, mp_error *err);
/* Whether some of the experts stay on disk. */
bool store_is_capped(const mp_model *model, const mp_store_params *store);
/* --plan: prints it. */
mp_status store_options_print_plan(const mp_model *model, const mp_engine_params *engine, mp_error *err);

/* What the system refused the store, and what is done instead, on standard error; nothing where it refused nothing. */
void store_notice_print(const mp_engine *engine);
/* "memory: ..." in one line: hits, bytes and waiting; nothing for a mapped model. `tokens`: what was run. */
void store_stats_print(const mp_engine *engine, uint64_t tokens, FILE *out);

#endif
