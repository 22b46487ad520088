/* moeprism: the program. Finds the command, reads its options, runs it; nothing else ends the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/suggest.h"

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
    free(((cli_common *)values)->config_text);
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
