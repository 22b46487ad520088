#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/interrupt.h"

static void drop_messages(conversation *c, size_t keep)
{
    while (c->n > keep) free((char *)c->messages[--c->n].content);
}

/* Takes `content` over, also when it fails; NULL is out of memory. */
static mp_status add_message(conversation *c, const char *role, char *content, mp_error *err)
{
    if (content != NULL && c->n == c->cap) {
        const size_t cap = c->cap > 0 ? 2 * c->cap : 16;
        mp_chat_message *grown = realloc(c->messages, cap * sizeof *grown);
        if (grown != NULL) {
            c->messages = grown;
            c->cap = cap;
        }
    }
    if (content == NULL || c->n == c->cap) {
        free(content);
        return status_no_memory(err, 0, "the conversation");
    }
    c->messages[c->n++] = (mp_chat_message){role, content};
    return MP_OK;
}

static mp_status begin(conversation *c, mp_error *err)
{
    drop_messages(c, 0);
    return c->system != NULL ? add_message(c, "system", strdup(c->system), err) : MP_OK;
}

mp_status conversation_open(conversation *c, generator *g, const char *family, const char *system, mp_error *err)
{
    char *text = NULL;
    *c = (conversation){.g = g, .family = family, .system = system};
    mp_status status = mp_chat_format(g->model, family, NULL, 0, true, &text, err);
    free(text);
    if (status == MP_OK) status = begin(c, err);
    if (status != MP_OK) conversation_close(c);
    g->skip_white = true;
    return status;
}

void conversation_close(conversation *c)
{
    drop_messages(c, 0);
    free(c->messages);
    *c = (conversation){0};
}

mp_status conversation_clear(conversation *c, mp_error *err)
{
    MP_TRY(generator_reset(c->g, err));
    return begin(c, err);
}

/* Runs the whole conversation up to where the reply begins. */
static mp_status run_prompt(conversation *c, mp_error *err)
{
    const mp_model *model = c->g->model;
    size_t n = 0;
    mp_status status = mp_chat_tokenize(model, c->family, c->messages, c->n, true, NULL, 0, &n, err);
    if (status != MP_OK && (status != MP_E_LIMIT || n == 0)) return status;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (ids == NULL) return status_no_memory(err, n * sizeof *ids, "the conversation's tokens");
    status = mp_chat_tokenize(model, c->family, c->messages, c->n, true, ids, n, &n, err);
    if (status == MP_OK && n >= c->g->n_ctx)
        status =
            status_fail(err, MP_E_LIMIT, "the conversation has %zu tokens, the context has room for %u (-c sets it)", n,
                        c->g->n_ctx);
    if (status == MP_OK && n == 0) status = status_fail(err, MP_E_INVALID, "the message is empty");
    if (status == MP_OK) status = generator_set(c->g, ids, n, err);
    free(ids);
    return status;
}

/* The text of what was drawn behind the first `from` tokens, without white space before it; to be freed. */
static char *reply_text(const generator *g, uint32_t from)
{
    const size_t n = g->n_past - from;
    const bool ended = g->pending < 0 || mp_token_ends_text(g->model, g->pending);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (ids == NULL) return NULL;
    memcpy(ids, g->tokens + from, n * sizeof *ids);
    ids[n] = g->pending;
    const size_t count = ended ? n : n + 1, len = mp_detokenize(g->model, ids, count, false, NULL, 0);
    char *text = malloc(len + 1);
    if (text != NULL) {
        mp_detokenize(g->model, ids, count, false, text, len);
        text[len] = '\0';
        const size_t white = strspn(text, " \t\r\n");
        memmove(text, text + white, len + 1 - white);
    }
    free(ids);
    return text;
}

mp_status conversation_ask(conversation *c, const char *question, uint32_t max_tokens, FILE *out, generate_end *end,
                           mp_error *err)
{
    const size_t before = c->n;
    generator_reset_stats(c->g);
    mp_status status = add_message(c, "user", strdup(question), err);
    if (status == MP_OK) status = run_prompt(c, err);
    const uint32_t from = c->g->n_past;
    if (status == MP_OK) status = generator_run(c->g, max_tokens, out, end, err);
    if (status == MP_OK) status = add_message(c, "assistant", reply_text(c->g, from), err);
    if (status != MP_OK) drop_messages(c, before);
    return status;
}

/* One line's question, its reply on a line of its own. */
static mp_status ask_line(conversation *c, const char *line, uint32_t max_tokens, mp_error *err)
{
    generate_end end;
    MP_TRY(conversation_ask(c, line, max_tokens, stdout, &end, err));
    puts("");
    MP_TRY(cli_flush(err));
    generator_print_stats(c->g, stderr);
    if (end == GENERATE_END_CONTEXT)
        fprintf(stderr, "stopped: the context of %u tokens is full (-c sets it)\n", c->g->n_ctx);
    return interrupt_seen() ? status_fail(err, MP_E_INTERRUPTED, "interrupted") : MP_OK;
}

mp_status conversation_lines(conversation *c, FILE *in, uint32_t max_tokens, mp_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    mp_status status = MP_OK;
    interrupt_catch(NULL);
    while (status == MP_OK && getline(&line, &cap, in) >= 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (strcmp(line, "/exit") == 0) break;
        if (strcmp(line, "/clear") == 0)
            status = conversation_clear(c, err);
        else if (line[0] != '\0')
            status = ask_line(c, line, max_tokens, err);
    }
    if (status == MP_OK && interrupt_seen()) status = status_fail(err, MP_E_INTERRUPTED, "interrupted");
    interrupt_release();
    free(line);
    return status;
}
