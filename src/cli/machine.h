/* machine.h: what a measurement was made on. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <jansson.h>

#include "cli/options.h"
#include "moeprism.h"

typedef struct machine {
    char cpu[128];
    char isa[16];
    uint32_t threads;
} machine;

/* What an engine with these options runs on. */
mp_status machine_describe(machine *m, const cli_common *common, mp_error *err);
json_t *machine_json(const machine *m);

#endif
