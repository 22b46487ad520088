/* cost_file.h: a measured cost model beside its model: MODEL.gguf -> MODEL.cost.json.
 *
 * It also holds the ladder (shares and losses), so that the simulator needs no model, and what it was measured with: on
 * another machine, with other threads or of another model it does not count. Plain values; nothing to free. */
#ifndef CLI_COST_FILE_H
#define CLI_COST_FILE_H

#include <jansson.h>

#include "cli/cli.h"
#include "cli/machine.h"
#include "sched/sched.h"

enum { COST_FILE_POINTS_MAX = 256 };

typedef struct cost_file {
    char model_file[256], model_name[128]; /* without folders; general.name */
    uint64_t model_bytes;
    machine machine;
    bool in_memory;  /* the weights were in memory, not mapped */
    uint64_t memory; /* cap on the experts (--memory); 0: none */
    bool quick;      /* measured briefly */
    char date[32];   /* ISO 8601, UTC */
    mp_kv_type kv_type;
    uint32_t slots, step_tokens, context; /* of the engine */
    cost_model cost;
    sched_point points[COST_FILE_POINTS_MAX];
    uint32_t n_points;
} cost_file;

/* "dir/model.gguf" -> "dir/model.cost.json"; the caller frees. NULL: out of memory. */
char *cost_file_path(const char *model_path);

/* Everything but the cost itself, for a measurement that begins now. `engine` has its defaults filled in. */
mp_status cost_file_begin(cost_file *f, const mp_model *model, const cli_common *common, const mp_engine_params *engine,
                          mp_error *err);

mp_status cost_file_read(const char *path, cost_file *out, mp_error *err);
/* `samples` (an array, for those who want to look; may be NULL) is taken over. Replaces the file atomically. */
mp_status cost_file_write(const cost_file *f, json_t *samples, const char *path, mp_error *err);

/* Why `have` does not tell about what `want` describes, NULL where it does. Static text. */
const char *cost_file_mismatch(const cost_file *have, const cost_file *want);

#endif
