/* quality.h: the options by which a user says how much of the experts to run, shared by commands. */
#ifndef CLI_QUALITY_H
#define CLI_QUALITY_H

#include "cli/cli.h"

typedef struct quality_options {
    uint32_t point;                            /* OPTION_UNSET_U32: not given */
    double experts, compute, max_ppl_increase; /* NAN: not given */
} quality_options;

#define QUALITY_UNSET                                                                                                  \
    {                                                                                                                  \
        .point = OPTION_UNSET_U32, .experts = NAN, .compute = NAN, .max_ppl_increase = NAN                             \
    }

/* Entries of an option table; `base` is the offset of the quality_options in the command's structure. */
#define QUALITY_OPTIONS(base)                                                                                          \
    {.name = "experts",                                                                                                \
     .kind = OPTION_F64,                                                                                               \
     .offset = (base) + offsetof(quality_options, experts),                                                            \
     .argument = "X",                                                                                                  \
     .help = "run at least X experts' worth per token, as 2.25"},                                                      \
        {.name = "compute",                                                                                            \
         .kind = OPTION_SHARE,                                                                                         \
         .offset = (base) + offsetof(quality_options, compute),                                                        \
         .argument = "SHARE",                                                                                          \
         .max = 1,                                                                                                     \
         .help = "run at least this share of the expert compute, as 0.28 or 28%"},                                     \
        {.name = "max-ppl-increase",                                                                                   \
         .kind = OPTION_SHARE,                                                                                         \
         .offset = (base) + offsetof(quality_options, max_ppl_increase),                                               \
         .argument = "P",                                                                                              \
         .max = 100,                                                                                                   \
         .help = "the cheapest point whose perplexity is at most this much above full's, as 0.02 or 2%"},              \
    {                                                                                                                  \
        .name = "point", .kind = OPTION_U32, .offset = (base) + offsetof(quality_options, point), .argument = "N",     \
        .help = "operating point N of the ladder; 0 is full, the default"                                              \
    }

/* How many of them were given: more than one is a usage error. */
unsigned quality_given(const quality_options *q);
/* The operating point they ask for, 0 where none does. */
mp_status quality_point(const mp_model *model, const quality_options *q, uint32_t *point, mp_error *err);

#endif
