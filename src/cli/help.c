/* The --help text of a command, printed from its option table. */
#include <math.h>
#include <string.h>

#include "cli/options.h"

enum { LEFT = 30, WIDTH = 100 };

/* Words of `text` from column `column`, later lines indented by `indent`; ends the line. */
static void print_wrapped(const char *text, int column, int indent, FILE *out)
{
    while (*text != '\0') {
        const int len = (int)strcspn(text, " \n");
        if (column + 1 + len > WIDTH && column > indent) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", len, text);
        column += len;
        text += len;
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        if (*text != '\0') text++;
    }
    fputc('\n', out);
}

/* " (default X)", or nothing where the default says nothing. */
static void describe_default(const cli_command *command, const option_spec *o, char *buf, size_t cap)
{
    const void *value = (const char *)command->defaults + o->offset;
    buf[0] = '\0';
    switch (o->kind) {
    case OPTION_U32: {
        const uint32_t v = *(const uint32_t *)value;
        if (v != 0 && v != OPTION_UNSET_U32) snprintf(buf, cap, " (default %u)", v);
        break;
    }
    case OPTION_U64: {
        const uint64_t v = *(const uint64_t *)value;
        if (v != 0 && v != OPTION_UNSET_U64) snprintf(buf, cap, " (default %llu)", (unsigned long long)v);
        break;
    }
    case OPTION_F64:
    case OPTION_SHARE: {
        const double v = *(const double *)value;
        if (v != 0 && !isnan(v)) snprintf(buf, cap, " (default %g)", v);
        break;
    }
    case OPTION_CHOICE:
        snprintf(buf, cap, " (default %s)", o->choices[*(const int *)value]);
        break;
    default:
        break;
    }
}

static void print_option(const cli_command *command, const option_spec *o, FILE *out)
{
    char left[80], fallback[64], help[1024];
    int n = o->letter != 0 ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                           : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->kind == OPTION_OPTIONAL_TEXT)
        n += snprintf(left + n, sizeof left - (size_t)n, " [%s]", o->argument);
    else if (o->kind != OPTION_FLAG)
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->argument);
    describe_default(command, o, fallback, sizeof fallback);
    snprintf(help, sizeof help, "%s%s%s", o->help, fallback, o->required ? " (required)" : "");
    fputs(left, out);
    if (n >= LEFT - 1)
        fprintf(out, "\n%*s", LEFT, "");
    else
        fprintf(out, "%*s", LEFT - n, "");
    print_wrapped(help, LEFT, LEFT, out);
}

static void print_help_option(FILE *out)
{
    fprintf(out, "%-*sthis text\n", LEFT, "  -h, --help");
}

void options_help(const cli_command *command, FILE *out)
{
    bool helped = false; /* --help ends the first group */
    fprintf(out, "Usage: moeprism %s%s%s\n\n", command->name, command->arguments[0] != '\0' ? " " : "",
            command->arguments);
    print_wrapped(command->details != NULL ? command->details : command->summary, 0, 0, out);
    fputs("\nOptions:\n", out);
    for (size_t i = 0; i < command->n_options; i++) {
        const option_spec *o = &command->options[i];
        if (o->kind != OPTION_HEADING) {
            print_option(command, o, out);
            continue;
        }
        if (!helped) print_help_option(out);
        helped = true;
        fprintf(out, "\n%s:\n", o->name);
    }
    if (!helped) print_help_option(out);
    fprintf(out, "\nExample:\n  moeprism %s\n", command->example);
}
