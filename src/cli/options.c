/* Reading a command line.
 *
 * getopt_long does the splitting, told to hand over plain arguments where they stand: only so can an option whose
 * argument may be left out be told apart from a plain argument behind it. `--json FILE` and `--json MODEL` look the
 * same; the word behind such an option is taken as a plain argument first and, when there turn out to be more plain
 * arguments than the command has, given back to the option. */
#include "cli/options.h"

#include <assert.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/config_file.h"
#include "cli/numbers.h"
#include "cli/suggest.h"

const char *const cli_kv_types[] = {"auto", "f16", "f32", "q8_0", NULL};

enum {
    LONG_BASE = 256, /* getopt value of the first long option: above any letter */
    MAX_OPTIONS = 64,
    MAX_WORDS = 16,
};

typedef struct parser {
    const cli_command *command;
    void *values;
    bool seen[MAX_OPTIONS];
    const char *words[MAX_WORDS];         /* plain arguments in order */
    const option_spec *before[MAX_WORDS]; /* the option without its argument right before the word */
    size_t n_words;
    const option_spec *pending;
    const char *config;           /* the file that was named, NULL: none */
    char where[MP_ERROR_MAX / 2]; /* "FILE:LINE: " while that is read, else "" */
} parser;

int cli_usage(const cli_command *command, const char *format, ...)
{
    char message[MP_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    for (char *c = message; *c != '\0'; c++) /* an argument may hold anything: keep it one clean line */
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    fprintf(stderr, "moeprism: %s (see 'moeprism %s%s--help')\n", message, command != NULL ? command->name : "",
            command != NULL ? " " : "");
    return STATUS_USAGE;
}

/* ---- one option's value -------------------------------------------------------------------------------------- */

static void *field(const parser *p, const option_spec *option)
{
    return (char *)p->values + option->offset;
}

static void range_of(const option_spec *option, double *min, double *max)
{
    *min = option->min;
    *max = option->max;
    if (option->min != 0 || option->max != 0) return;
    const bool real = option->kind == OPTION_F64 || option->kind == OPTION_SHARE;
    *max = real ? HUGE_VAL : option->kind == OPTION_U64 ? (double)INT64_MAX : (double)(UINT32_MAX - 1);
}

static bool bad_value(const parser *p, const option_spec *option, const char *text, const char *what)
{
    cli_usage(p->command, "%soption '--%s' takes %s, not '%s'", p->where, option->name, what, text);
    return false;
}

static bool bad_number(const parser *p, const option_spec *option, const char *text, const char *noun)
{
    char what[128];
    double min, max;
    range_of(option, &min, &max);
    if (max >= (double)(UINT32_MAX - 1))
        snprintf(what, sizeof what, "%s of at least %g", noun, min);
    else
        snprintf(what, sizeof what, "%s from %.12g to %.12g", noun, min, max);
    return bad_value(p, option, text, what);
}

static bool set_integer(const parser *p, const option_spec *option, const char *text)
{
    uint64_t value;
    double min, max;
    range_of(option, &min, &max);
    if (option->kind == OPTION_COUNT && strcmp(text, "-1") == 0) {
        *(uint32_t *)field(p, option) = OPTION_UNLIMITED;
        return true;
    }
    /* Limits are exact as doubles; INT64_MAX is not, hence the second test. */
    if (!number_u64(text, &value) || value > (uint64_t)INT64_MAX || (double)value < min || (double)value > max)
        return bad_number(p, option, text, "a whole number");
    if (option->kind == OPTION_U64)
        *(uint64_t *)field(p, option) = value;
    else
        *(uint32_t *)field(p, option) = (uint32_t)value;
    return true;
}

static bool set_real(const parser *p, const option_spec *option, const char *text)
{
    const bool share = option->kind == OPTION_SHARE;
    double value, min, max;
    range_of(option, &min, &max);
    if (!(share ? number_share(text, &value) : number_f64(text, &value)) || value < min || value > max)
        return bad_number(p, option, text, share ? "a number (or a percentage, as 25%)" : "a number");
    *(double *)field(p, option) = value;
    return true;
}

static bool set_choice(const parser *p, const option_spec *option, const char *text)
{
    char what[128] = "one of";
    suggestion near = {NULL, 0};
    for (int i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *(int *)field(p, option) = i;
            return true;
        }
        suggest_offer(&near, text, option->choices[i]);
        const size_t len = strlen(what);
        snprintf(what + len, sizeof what - len, "%s %s", i == 0 ? "" : ",", option->choices[i]);
    }
    return bad_value(p, option, text, what);
}

static bool set_list(const parser *p, const option_spec *option, const char *text)
{
    option_list *list = field(p, option);
    double min, max;
    range_of(option, &min, &max);
    list->all = option->kind == OPTION_POINTS && strcmp(text, "all") == 0;
    list->n = 0;
    if (list->all) return true;
    bool good = number_list(text, list->values, OPTION_LIST_MAX, &list->n);
    for (size_t i = 0; good && i < list->n; i++) good = list->values[i] >= min && list->values[i] <= max;
    return good || bad_number(p, option, text, "numbers and ranges (as 0,2,4-6), each");
}

static bool set_value(parser *p, const option_spec *option, const char *text)
{
    switch (option->kind) {
    case OPTION_HEADING:
        return true;
    case OPTION_FLAG:
        *(bool *)field(p, option) = true;
        return true;
    case OPTION_TEXT:
        if (*text == '\0') return bad_value(p, option, text, "a text that is not empty");
        *(const char **)field(p, option) = text;
        return true;
    case OPTION_OPTIONAL_TEXT:
        *(option_text *)field(p, option) = (option_text){.given = true, .text = text};
        if (text == NULL) p->pending = option;
        return true;
    case OPTION_U32:
    case OPTION_U64:
    case OPTION_COUNT:
        return set_integer(p, option, text);
    case OPTION_F64:
    case OPTION_SHARE:
        return set_real(p, option, text);
    case OPTION_CHOICE:
        return set_choice(p, option, text);
    case OPTION_LIST:
    case OPTION_POINTS:
        return set_list(p, option, text);
    case OPTION_CONFIG:
        p->config = text;
        return true;
    }
    return false;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static void build_tables(const cli_command *command, char *letters, struct option *longs)
{
    size_t n = 0;
    letters = stpcpy(letters, "-:h");
    longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
    for (size_t i = 0; i < command->n_options; i++) {
        const option_spec *o = &command->options[i];
        if (o->kind == OPTION_HEADING) continue;
        const int has = o->kind == OPTION_FLAG            ? no_argument
                        : o->kind == OPTION_OPTIONAL_TEXT ? optional_argument
                                                          : required_argument;
        longs[n++] = (struct option){o->name, has, NULL, LONG_BASE + (int)i};
        if (o->letter == 0) continue;
        *letters++ = o->letter;
        if (has != no_argument) *letters++ = ':';
    }
    longs[n] = (struct option){0};
    *letters = '\0';
}

static const option_spec *find_option(const cli_command *command, int value)
{
    if (value >= LONG_BASE) return &command->options[value - LONG_BASE];
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].letter == value && value != 0) return &command->options[i];
    return NULL;
}

/* `dashes` as the user writes options there. */
static void unknown_name(const parser *p, const char *dashes, const char *name)
{
    const cli_command *command = p->command;
    suggestion near = {NULL, 0};
    suggest_offer(&near, name, "help");
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].kind != OPTION_HEADING) suggest_offer(&near, name, command->options[i].name);
    if (near.best != NULL)
        cli_usage(command, "%sunknown option '%s%s'; did you mean '%s%s'?", p->where, dashes, name, dashes, near.best);
    else
        cli_usage(command, "%sunknown option '%s%s'", p->where, dashes, name);
}

static void unknown_option(const parser *p, const char *word)
{
    const cli_command *command = p->command;
    if (optopt > 0 && optopt < LONG_BASE) {
        cli_usage(command, "unknown option '-%c'", optopt);
        return;
    }
    if (optopt >= LONG_BASE) {
        cli_usage(command, "option '--%s' takes no argument", command->options[optopt - LONG_BASE].name);
        return;
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    unknown_name(p, "--", name);
}

static options_result add_word(parser *p, const char *word)
{
    if (p->n_words == MAX_WORDS) {
        cli_usage(p->command, "unexpected argument '%s'", word);
        return OPTIONS_ERROR;
    }
    p->before[p->n_words] = p->pending;
    p->words[p->n_words++] = word;
    p->pending = NULL;
    return OPTIONS_OK;
}

static options_result one_option(parser *p, int value, char **argv)
{
    if (value == 1) return add_word(p, optarg);
    if (value == 'h') return OPTIONS_HELP;
    p->pending = NULL;
    if (value == '?') {
        unknown_option(p, argv[optind - 1]);
        return OPTIONS_ERROR;
    }
    const option_spec *option = find_option(p->command, value == ':' ? optopt : value);
    if (value == ':') {
        cli_usage(p->command, "option '--%s' needs an argument: %s", option->name, option->argument);
        return OPTIONS_ERROR;
    }
    p->seen[option - p->command->options] = true;
    return set_value(p, option, optarg) ? OPTIONS_OK : OPTIONS_ERROR;
}

/* Words that are one too many go to the option they stand behind. */
static void give_back_words(parser *p)
{
    for (size_t i = 0; i < p->n_words && p->n_words > p->command->max_args;) {
        if (p->before[i] == NULL) {
            i++;
            continue;
        }
        set_value(p, p->before[i], p->words[i]);
        p->n_words--;
        memmove(&p->words[i], &p->words[i + 1], (p->n_words - i) * sizeof p->words[0]);
        memmove(&p->before[i], &p->before[i + 1], (p->n_words - i) * sizeof p->before[0]);
    }
}

/* ---- the configuration file ---------------------------------------------------------------------------------- */

static const option_spec *find_name(const cli_command *command, const char *name)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const option_spec *o = &command->options[i];
        if (o->kind != OPTION_HEADING && o->kind != OPTION_CONFIG && strcmp(o->name, name) == 0) return o;
    }
    return NULL;
}

static bool set_flag(const parser *p, const option_spec *option, const char *text)
{
    const bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "no") != 0)
        return bad_value(p, option, text, "true or false here");
    *(bool *)field(p, option) = yes;
    return true;
}

/* What the command line gave wins. */
static bool apply_line(parser *p, const config_line *line)
{
    const option_spec *option = find_name(p->command, line->name);
    if (option == NULL) {
        unknown_name(p, "", line->name);
        return false;
    }
    if (p->seen[option - p->command->options]) return true;
    return option->kind == OPTION_FLAG ? set_flag(p, option, line->value) : set_value(p, option, line->value);
}

static options_result apply_config(parser *p)
{
    config_file c;
    mp_error err;
    if (config_file_read(p->config, &c, &err) != MP_OK) {
        cli_usage(p->command, "%s", err.message);
        return OPTIONS_ERROR;
    }
    bool good = true;
    for (size_t i = 0; good && i < c.n; i++) {
        snprintf(p->where, sizeof p->where, "%s:%u: ", p->config, c.lines[i].line);
        good = apply_line(p, &c.lines[i]);
    }
    p->where[0] = '\0';
    cli_common *common = p->values;
    common->config_text = c.text;
    c.text = NULL;
    config_file_clear(&c);
    return good ? OPTIONS_OK : OPTIONS_ERROR;
}

static options_result finish(parser *p)
{
    const cli_command *command = p->command;
    cli_common *common = p->values;
    give_back_words(p);
    if (p->config != NULL && apply_config(p) != OPTIONS_OK) return OPTIONS_ERROR;
    if (p->n_words > command->max_args) {
        cli_usage(command, "unexpected argument '%s'", p->words[command->max_args]);
        return OPTIONS_ERROR;
    }
    if (p->n_words < command->min_args) {
        cli_usage(command, "no %s given", command->missing);
        return OPTIONS_ERROR;
    }
    for (size_t i = 0; i < command->n_options; i++) {
        if (!command->options[i].required || p->seen[i]) continue;
        cli_usage(command, "option '--%s' is required", command->options[i].name);
        return OPTIONS_ERROR;
    }
    for (size_t i = 0; i < p->n_words; i++) common->args[i] = p->words[i];
    common->n_args = (unsigned)p->n_words;
    return OPTIONS_OK;
}

options_result options_parse(const cli_command *command, int argc, char **argv, void *values)
{
    char letters[3 * MAX_OPTIONS];
    struct option longs[MAX_OPTIONS + 2];
    parser p = {.command = command, .values = values};
    assert(command->n_options <= MAX_OPTIONS);
    build_tables(command, letters, longs);
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    for (;;) {
        const int value = getopt_long(argc, argv, letters, longs, NULL);
        if (value == -1) break;
        const options_result result = one_option(&p, value, argv);
        if (result != OPTIONS_OK) return result;
    }
    for (int i = optind; i < argc; i++) /* behind "--" */
        if (add_word(&p, argv[i]) != OPTIONS_OK) return OPTIONS_ERROR;
    return finish(&p);
}
