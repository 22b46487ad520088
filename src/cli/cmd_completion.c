/* completion: the command line's own tables as a completion script for bash. */
#include <stdio.h>

#include "cli/cli.h"

static void print_options(const cli_command *command)
{
    printf("    %s) words='--help", command->name);
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].kind != OPTION_HEADING) printf(" --%s", command->options[i].name);
    puts("' ;;");
}

/* "CMD:--option) words of its choices" for options with a fixed set of arguments. */
static void print_choices(const cli_command *command)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const option_spec *o = &command->options[i];
        if (o->kind != OPTION_CHOICE) continue;
        printf("    %s:--%s) words='", command->name, o->name);
        for (int c = 0; o->choices[c] != NULL; c++) printf("%s%s", c == 0 ? "" : " ", o->choices[c]);
        puts("' ;;");
    }
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    (void)options;
    puts("# bash completion for moeprism, printed by 'moeprism completion'\n"
         "_moeprism()\n"
         "{\n"
         "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}\n"
         "    local words=''\n"
         "    COMPREPLY=()");
    printf("    if [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$COMP_CWORD\" -eq 2 ] && [ \"$command\" = help ]; }; then\n"
           "        COMPREPLY=($(compgen -W 'help --help --version");
    for (size_t i = 0; cli_commands[i] != NULL; i++) printf(" %s", cli_commands[i]->name);
    puts("' -- \"$current\"))\n"
         "        return\n"
         "    fi\n"
         "    case $command:$previous in");
    for (size_t i = 0; cli_commands[i] != NULL; i++) print_choices(cli_commands[i]);
    puts("    esac\n"
         "    if [ -n \"$words\" ]; then\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "        return\n"
         "    fi\n"
         "    [[ $current == -* ]] || return\n"
         "    case $command in");
    for (size_t i = 0; cli_commands[i] != NULL; i++) print_options(cli_commands[i]);
    puts("    esac\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _moeprism moeprism");
    return STATUS_OK;
}

static const cli_common defaults;

const cli_command cmd_completion = {
    .name = "completion",
    .arguments = "",
    .summary = "prints a completion script for bash",
    .details = "Prints a completion script for bash. Load it with: source <(moeprism completion)",
    .example = "completion > /etc/bash_completion.d/moeprism",
    .options = NULL,
    .defaults = &defaults,
    .size = sizeof defaults,
    .run = run,
};
