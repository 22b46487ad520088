/* moeprism: the program. Finds the command, reads its options, runs it; nothing else ends the process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/suggest.h"

const cli_command *const cli_commands[] = {
    &cmd_info,   &cmd_refactor, &cmd_eval,       &cmd_run,   &cmd_bench,      &cmd_export,
    &cmd_logits, &cmd_tokenize, &cmd_detokenize, &cmd_synth, &cmd_completion, NULL,
};

static bool pipe_closed; /* the reader of our output has gone */

int cli_fail(const mp_error *err)
{
    if (pipe_closed) return STATUS_PIPE;
    fprintf(stderr, "moeprism: %s\n", err->message);
    return err->status == MP_E_INTERRUPTED ? STATUS_INTERRUPTED : STATUS_FAILED;
}

mp_status cli_flush(mp_error *err)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return MP_OK;
    if (errno == EPIPE) pipe_closed = true;
    return status_fail_errno(err, errno != 0 ? errno : EIO, "write to", "standard output");
}

mp_status cli_open_model(const cli_common *common, uint32_t override_experts, mp_model **out, mp_error *err)
{
    progress shown;
    const mp_model_params params = {
        .override_experts = override_experts, .no_mmap = common->no_mmap, .progress = progress_update, .user = &shown};
    progress_begin(&shown, true);
    interrupt_catch(NULL);
    const mp_status status = mp_model_open(common->args[0], &params, out, err);
    interrupt_release();
    progress_end(&shown, status == MP_OK);
    return status;
}

uint32_t cli_context(const mp_model *model, uint32_t asked)
{
    const uint32_t trained = mp_model_get_info(model)->n_ctx_train;
    if (asked != 0) return asked;
    return trained != 0 && trained < CLI_DEFAULT_CTX ? trained : CLI_DEFAULT_CTX;
}

static int print_help(void)
{
    puts("moeprism " MP_VERSION ": elastic mixture-of-experts inference\n\n"
         "Usage: moeprism COMMAND [arguments]\n\nCommands:");
    for (size_t i = 0; cli_commands[i] != NULL; i++)
        printf("  %-12s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    puts("\n'moeprism COMMAND --help' tells the options of a command, 'moeprism --version' the version.");
    return STATUS_OK;
}

static const cli_command *find_command(const char *name)
{
    suggestion near = {NULL, 0};
    for (size_t i = 0; cli_commands[i] != NULL; i++) {
        if (strcmp(cli_commands[i]->name, name) == 0) return cli_commands[i];
        suggest_offer(&near, name, cli_commands[i]->name);
    }
    suggest_offer(&near, name, "--version");
    suggest_offer(&near, name, "--help");
    suggest_offer(&near, name, "help");
    const char *what = name[0] == '-' ? "option" : "command";
    if (near.best != NULL)
        cli_usage(NULL, "unknown %s '%s'; did you mean '%s'?", what, name, near.best);
    else
        cli_usage(NULL, "unknown %s '%s'", what, name);
    return NULL;
}

static int run_command(const cli_command *command, int argc, char **argv)
{
    void *values = malloc(command->size);
    int status = STATUS_USAGE;
    if (values == NULL) {
        fputs("moeprism: out of memory\n", stderr);
        return STATUS_FAILED;
    }
    memcpy(values, command->defaults, command->size);
    switch (options_parse(command, argc, argv, values)) {
    case OPTIONS_OK:
        status = command->run(command, values);
        break;
    case OPTIONS_HELP:
        options_help(command, stdout);
        status = STATUS_OK;
        break;
    case OPTIONS_ERROR:
        break;
    }
    free(values);
    return status;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        cli_usage(NULL, "no command given");
        return STATUS_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("moeprism %s\n", mp_version());
        return STATUS_OK;
    }
    const bool help = strcmp(word, "help") == 0;
    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0 || (help && argc == 2)) return print_help();
    const cli_command *command = find_command(help ? argv[2] : word);
    if (command == NULL) return STATUS_USAGE;
    if (help) {
        options_help(command, stdout);
        return STATUS_OK;
    }
    return run_command(command, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    mp_error err;
    interrupt_setup();
    int status = dispatch(argc, argv);
    /* What was buffered may fail only now: a full disk must not pass for success. */
    if (cli_flush(&err) != MP_OK && status == STATUS_OK) status = cli_fail(&err);
    return status;
}
