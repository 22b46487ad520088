/* The dialogue. A line is a message of a chat, or text that the model goes on with; a line that begins with "/" is a
 * command. Chat and text grow until /clear; every line of text begins on a line of its own. Line editing and history
 * are libedit's; Ctrl-C at the prompt gives a new prompt, while text is coming it stops the text. */
#include "cli/interactive.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/numbers.h"
#include "cli/quality.h"
#include "cli/suggest.h"

enum { HISTORY_LINES = 1000, PATH_BYTES = 4096 };

typedef struct dialogue {
    generator *g;
    conversation *chat; /* NULL: plain text */
    uint32_t max_tokens;
    EditLine *edit;
    History *history;
    char history_path[PATH_BYTES]; /* empty: kept in memory only */
    bool quit;
} dialogue;

/* ---- reading ------------------------------------------------------------------------------------------------- */

static char *prompt_text(EditLine *edit)
{
    static char text[] = "> ";
    (void)edit;
    return text;
}

static pthread_t reader;

/* SIGCONT and SIGWINCH only have to end the reader's read. While all threads are stopped the kernel may give SIGCONT to
 * any that does not block it, such as those of the linear algebra library: pass it on. */
static void wake(int number)
{
    if (!pthread_equal(pthread_self(), reader)) pthread_kill(reader, number);
}

/* libedit's own reader tries again after a signal; here Ctrl-C ends the line, and after a stop or a change of size the
 * line is drawn anew. */
static int read_key(EditLine *edit, wchar_t *key)
{
    mbstate_t state = {0};
    for (;;) {
        char byte;
        const ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR && !interrupt_seen()) {
            el_set(edit, EL_PREP_TERM, 0);
            el_set(edit, EL_PREP_TERM, 1);
            el_resize(edit);
            el_set(edit, EL_REFRESH);
            continue;
        }
        if (n <= 0) return (int)n;
        const size_t used = mbrtowc(key, &byte, 1, &state);
        if (used <= 1) return 1;
        if (used == (size_t)-1) state = (mbstate_t){0}; /* not a character of this locale: skip */
    }
}

/* The next line, to be freed, NULL at the end of input. An interrupted line is an empty one. */
static char *read_line(dialogue *d)
{
    int n;
    interrupt_catch(NULL);
    const char *typed = el_gets(d->edit, &n);
    const bool interrupted = interrupt_seen();
    interrupt_release();
    if (interrupted) {
        puts("^C");
        return strdup("");
    }
    if (typed == NULL || n <= 0) {
        puts("");
        return NULL;
    }
    return strndup(typed, strcspn(typed, "\r\n"));
}

/* $XDG_STATE_HOME/moeprism/history or ~/.local/state/moeprism/history; the folders are made. */
static void find_history(char *path, size_t cap)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;
    if (state != NULL && state[0] == '/')
        n = snprintf(path, cap, "%s/moeprism/history", state);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, cap, "%s/.local/state/moeprism/history", home);
    else
        n = -1;
    if (n < 0 || (size_t)n >= cap) {
        path[0] = '\0';
        return;
    }
    for (char *p = strchr(path + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
        *p = '\0';
        const bool failed = mkdir(path, 0700) != 0 && errno != EEXIST;
        *p = '/';
        if (failed) {
            path[0] = '\0';
            return;
        }
    }
}

static mp_status open_editor(dialogue *d, mp_error *err)
{
    HistEvent event;
    const struct sigaction waking = {.sa_handler = wake}; /* without SA_RESTART */
    reader = pthread_self();
    sigaction(SIGCONT, &waking, NULL);
    sigaction(SIGWINCH, &waking, NULL);
    setlocale(LC_CTYPE, ""); /* for libedit; numbers stay as they are */
    d->edit = el_init("moeprism", stdin, stdout, stderr);
    d->history = history_init();
    if (d->edit == NULL || d->history == NULL) return status_no_memory(err, 0, "line editing");
    el_set(d->edit, EL_PROMPT, prompt_text);
    el_set(d->edit, EL_EDITOR, "emacs");
    el_set(d->edit, EL_HIST, history, d->history);
    el_set(d->edit, EL_GETCFN, read_key);
    el_set(d->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(d->edit, NULL);
    history(d->history, &event, H_SETSIZE, HISTORY_LINES);
    history(d->history, &event, H_SETUNIQUE, 1);
    find_history(d->history_path, sizeof d->history_path);
    if (d->history_path[0] != '\0') history(d->history, &event, H_LOAD, d->history_path);
    return MP_OK;
}

static void close_editor(dialogue *d)
{
    HistEvent event;
    if (d->history != NULL && d->history_path[0] != '\0') {
        const mode_t mask = umask(077); /* what was typed is nobody else's business */
        history(d->history, &event, H_SAVE, d->history_path);
        umask(mask);
    }
    if (d->history != NULL) history_end(d->history);
    if (d->edit != NULL) el_end(d->edit);
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

static mp_status set_quality(dialogue *d, mp_quality_kind kind, const char *argument, mp_error *err)
{
    double value;
    uint32_t point;
    if (!number_share(argument, &value)) return status_fail(err, MP_E_INVALID, "'%s' is not a number", argument);
    MP_TRY(mp_model_find_point(d->g->model, kind, value, &point, err));
    const mp_point *p = mp_model_point(d->g->model, point);
    d->g->point = point;
    printf("point %u: %.2f experts, %.0f %% of the expert compute", point, p->experts, p->compute_share * 100);
    if (p->measured) printf(", perplexity %.3f", p->ppl);
    puts("");
    return MP_OK;
}

static mp_status say_experts(dialogue *d, const char *argument, mp_error *err)
{
    return set_quality(d, MP_QUALITY_EXPERTS, argument, err);
}

static mp_status say_compute(dialogue *d, const char *argument, mp_error *err)
{
    return set_quality(d, MP_QUALITY_COMPUTE, argument, err);
}

static mp_status say_point(dialogue *d, const char *argument, mp_error *err)
{
    return set_quality(d, MP_QUALITY_POINT, argument, err);
}

static mp_status say_stats(dialogue *d, const char *argument, mp_error *err)
{
    (void)argument;
    (void)err;
    printf("context %u of %u tokens\n", d->g->n_past + (d->g->pending >= 0), d->g->n_ctx);
    generator_print_stats(d->g, stdout);
    return MP_OK;
}

static mp_status say_clear(dialogue *d, const char *argument, mp_error *err)
{
    (void)argument;
    MP_TRY(d->chat != NULL ? conversation_clear(d->chat, err) : generator_reset(d->g, err));
    puts(d->chat != NULL ? "the conversation is forgotten" : "the text is forgotten");
    return MP_OK;
}

static mp_status say_exit(dialogue *d, const char *argument, mp_error *err)
{
    (void)argument;
    (void)err;
    d->quit = true;
    return MP_OK;
}

static mp_status say_help(dialogue *d, const char *argument, mp_error *err);

static const struct saying {
    const char *name, *argument, *help; /* no help: another name of the one before */
    mp_status (*say)(dialogue *d, const char *argument, mp_error *err);
} sayings[] = {
    {"/experts", "X", "run at least X experts' worth per token", say_experts},
    {"/compute", "S", "run at least the share S of the expert compute, as 0.28 or 28%", say_compute},
    {"/point", "N", "operating point N of the ladder; 0 is full", say_point},
    {"/stats", NULL, "speed and experts used by the last text", say_stats},
    {"/clear", NULL, "forget what was said and begin anew (also /reset)", say_clear},
    {"/reset", NULL, NULL, say_clear},
    {"/help", NULL, "this list", say_help},
    {"/exit", NULL, "leave (also /quit and Ctrl-D)", say_exit},
    {"/quit", NULL, NULL, say_exit},
};

static mp_status say_help(dialogue *d, const char *argument, mp_error *err)
{
    (void)argument;
    (void)err;
    puts(d->chat != NULL ? "Type a message to the model; Ctrl-C stops its reply."
                         : "Type text for the model to go on with; Ctrl-C stops it.");
    for (size_t i = 0; i < CLI_COUNT(sayings); i++)
        if (sayings[i].help != NULL)
            printf("  %-10s %-2s %s\n", sayings[i].name, sayings[i].argument != NULL ? sayings[i].argument : "",
                   sayings[i].help);
    return MP_OK;
}

static mp_status obey(dialogue *d, char *line, mp_error *err)
{
    char *argument = line + strcspn(line, " \t");
    if (*argument != '\0') *argument++ = '\0';
    argument += strspn(argument, " \t");
    for (size_t n = strlen(argument); n > 0 && strchr(" \t", argument[n - 1]) != NULL; n--) argument[n - 1] = '\0';
    suggestion near = {NULL, 0};
    for (size_t i = 0; i < CLI_COUNT(sayings); i++) {
        const struct saying *s = &sayings[i];
        suggest_offer(&near, line, s->name);
        if (strcmp(line, s->name) != 0) continue;
        if ((*argument != '\0') == (s->argument != NULL)) return s->say(d, argument, err);
        return status_fail(err, MP_E_INVALID, "%s takes %s", s->name, s->argument != NULL ? "a number" : "no argument");
    }
    return status_fail(err, MP_E_INVALID, "unknown command %s; did you mean %s?", line,
                       near.best != NULL ? near.best : "/help");
}

/* ---- text ---------------------------------------------------------------------------------------------------- */

/* Goes on with the text, which grows by the line. */
static mp_status continue_text(dialogue *d, const char *line, generate_end *end, mp_error *err)
{
    char *text;
    if (asprintf(&text, "%s%s", d->g->n_past > 0 ? "\n" : "", line) < 0) return status_no_memory(err, 0, "a line");
    generator_reset_stats(d->g);
    const mp_status status = generator_feed(d->g, text, strlen(text), err);
    free(text);
    if (status != MP_OK) return status;
    fputs(line, stdout);
    return generator_run(d->g, d->max_tokens, stdout, end, err);
}

static mp_status answer(dialogue *d, const char *line, mp_error *err)
{
    generate_end end = GENERATE_END_LIMIT;
    interrupt_catch(NULL);
    const mp_status status = d->chat != NULL ? conversation_ask(d->chat, line, d->max_tokens, stdout, &end, err)
                                             : continue_text(d, line, &end, err);
    interrupt_release();
    puts("");
    fflush(stdout);
    if (status == MP_OK) generator_print_stats(d->g, stderr);
    if (end == GENERATE_END_CONTEXT) fputs("the context is full; /clear begins anew\n", stderr);
    return status == MP_E_INTERRUPTED ? MP_OK : status;
}

mp_status interactive(generator *g, conversation *chat, uint32_t max_tokens, mp_error *err)
{
    dialogue d = {.g = g, .chat = chat, .max_tokens = max_tokens};
    mp_status status = open_editor(&d, err);
    if (status == MP_OK) fputs("/help lists the commands, Ctrl-D leaves\n", stderr);
    while (status == MP_OK && !d.quit) {
        HistEvent event;
        char *line = read_line(&d);
        if (line == NULL) break;
        if (line[0] != '\0') {
            history(d.history, &event, H_ENTER, line);
            mp_error failed; /* of this line; the dialogue goes on */
            if ((line[0] == '/' ? obey(&d, line, &failed) : answer(&d, line, &failed)) != MP_OK)
                fprintf(stderr, "%s\n", failed.message);
        }
        free(line);
        if (ferror(stdout)) d.quit = true;
    }
    close_editor(&d);
    return status;
}
