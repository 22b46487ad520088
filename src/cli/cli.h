/* cli.h: what the program's files share: exit statuses, how a failure is told, and the list of commands.
 *
 * Standard output carries results only; messages, progress and timings go to standard error. Nothing but main()
 * ends the program, except the second Ctrl-C (interrupt.h). */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/options.h"
#include "moeprism.h"

enum {
    STATUS_OK = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_INTERRUPTED = 130, /* 128 + SIGINT, as shells report it */
    STATUS_PIPE = 141,        /* 128 + SIGPIPE: the reader of our output has gone; said to nobody */
};

/* "moeprism: MESSAGE" on stderr; returns the exit status that belongs to it. */
int cli_fail(const mp_error *err);
/* Flushes stdout and tells of what could not be written: MP_E_IO. */
mp_status cli_flush(mp_error *err);

/* Opens the model that the command names, with a line of progress where it is read into memory. */
mp_status cli_open_model(const cli_common *common, uint32_t override_experts, mp_model **out, mp_error *err);
/* The same for another one, whose weights are to be where those are. */
mp_status cli_open_file(const cli_common *common, const char *path, uint32_t override_experts, mp_model **out,
                        mp_error *err);

/* Tokens of context where none is asked for: the model's own, but no more than this. */
enum { CLI_DEFAULT_CTX = 4096 };
uint32_t cli_context(const mp_model *model, uint32_t asked);

extern const cli_command cmd_bench, cmd_cache_sim, cmd_completion, cmd_detokenize, cmd_eval, cmd_export, cmd_info,
    cmd_loadgen, cmd_logits, cmd_refactor, cmd_run, cmd_serve, cmd_simulate, cmd_synth, cmd_tokenize;
/* All commands in the order of the help text; ends with NULL. */
extern const cli_command *const cli_commands[];

#endif
