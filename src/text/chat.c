#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a growing text ---- */

static mp_status reserve(chat_text *c, size_t more, mp_error *err)
{
    size_t need = 0;
    if (!size_add(c->len, more, &need) || !size_add(need, 1, &need) || need > SIZE_MAX / 2)
        return status_fail(err, MP_E_LIMIT, "the conversation is too long");
    if (need <= c->cap) return MP_OK;
    size_t cap = c->cap ? c->cap : 256;
    while (cap < need) cap *= 2;
    char *data = realloc(c->data, cap);
    if (!data) return status_no_memory(err, cap, "the conversation");
    c->data = data;
    c->cap = cap;
    return MP_OK;
}

static mp_status append(chat_text *c, const char *text, size_t len, mp_error *err)
{
    MP_TRY(reserve(c, len, err));
    if (len) memcpy(c->data + c->len, text, len);
    c->len += len;
    c->data[c->len] = 0;
    return MP_OK;
}

/* Marks what was appended since `from`; neighbours become one. */
static mp_status mark(chat_text *c, size_t from, mp_error *err)
{
    if (c->len == from) return MP_OK;
    if (c->n_marked && c->marked[c->n_marked - 1].to == from) {
        c->marked[c->n_marked - 1].to = c->len;
        return MP_OK;
    }
    if (c->n_marked == c->cap_marked) {
        size_t cap = c->cap_marked ? 2 * c->cap_marked : 16, bytes = 0;
        text_span *marked = size_mul(cap, sizeof *marked, &bytes) ? realloc(c->marked, bytes) : NULL;
        if (!marked) return status_no_memory(err, bytes, "the conversation");
        c->marked = marked;
        c->cap_marked = cap;
    }
    c->marked[c->n_marked++] = (text_span){from, c->len};
    return MP_OK;
}

void chat_text_clear(chat_text *c)
{
    free(c->data);
    free(c->marked);
    *c = (chat_text){0};
}

/* ---- rendering ---- */

typedef struct render_job {
    const tokenizer *t;
    const chat_family *family;
    chat_style style;
    chat_text *out;
    bool open; /* a user's turn has begun, by a system message inside it */
    size_t n_users;
} render_job;

/* What the family writes; {bos} and {eos} are the model's tokens. */
static mp_status write_markup(render_job *job, const char *markup, mp_error *err)
{
    const size_t from = job->out->len;
    while (*markup) {
        const bool bos = strncmp(markup, "{bos}", 5) == 0, eos = strncmp(markup, "{eos}", 5) == 0;
        if (bos || eos) {
            const gguf_string token = tokenizer_text(job->t, bos ? tokenizer_bos(job->t) : tokenizer_eos(job->t));
            MP_TRY(append(job->out, token.data, token.len, err));
            markup += 5;
            continue;
        }
        const size_t len = 1 + strcspn(markup + 1, "{");
        MP_TRY(append(job->out, markup, len, err));
        markup += len;
    }
    return mark(job->out, from, err);
}

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static mp_status write_content(render_job *job, const char *content, bool trim, mp_error *err)
{
    size_t len = strlen(content);
    while (trim && len && is_white(*content)) content++, len--;
    while (trim && len && is_white(content[len - 1])) len--;
    return append(job->out, content, len, err);
}

static mp_status write_turn(render_job *job, chat_turn turn, const char *content, bool trim, mp_error *err)
{
    MP_TRY(write_markup(job, turn.before, err));
    MP_TRY(write_content(job, content, trim, err));
    return write_markup(job, turn.after, err);
}

static mp_status open_user(render_job *job, mp_error *err)
{
    if (job->open) return MP_OK;
    job->open = true;
    if (job->n_users++ && job->style.bos_between) MP_TRY(write_markup(job, "{bos}", err));
    return write_markup(job, job->family->user.before, err);
}

static mp_status write_system(render_job *job, const char *content, mp_error *err)
{
    if (job->family->system_in_user) MP_TRY(open_user(job, err));
    return write_turn(job, job->family->system, content, job->style.trim, err);
}

static mp_status write_user(render_job *job, const char *content, mp_error *err)
{
    MP_TRY(open_user(job, err));
    job->open = false;
    return write_turn(job, (chat_turn){"", job->family->user.after}, content, job->style.trim, err);
}

/* What follows the model's reasoning, and its line ends. */
static const char *skip_reasoning(const char *content)
{
    static const char tag[] = "</think>";
    const char *end = NULL;
    for (const char *at = content; (at = strstr(at, tag)) != NULL;) end = at += sizeof tag - 1;
    if (!end) return content;
    return end + strspn(end, "\n");
}

static mp_status write_reply(render_job *job, const char *content, bool answered, mp_error *err)
{
    const chat_style *style = &job->style;
    if (style->drop_reasoning && answered) content = skip_reasoning(content);
    MP_TRY(write_markup(job, job->family->reply.before, err));
    if (style->space_before_reply) MP_TRY(write_markup(job, " ", err));
    MP_TRY(write_content(job, content, style->trim || style->trim_reply, err));
    if (style->space_after_reply) MP_TRY(write_markup(job, " ", err));
    return write_markup(job, job->family->reply.after, err);
}

static bool is_role(const mp_chat_message *m, const char *role)
{
    return m->role && strcmp(m->role, role) == 0;
}

static bool is_system(const mp_chat_message *m)
{
    return is_role(m, "system") || is_role(m, "developer");
}

static mp_status write_message(render_job *job, const mp_chat_message *m, bool answered, mp_error *err)
{
    const char *content = m->content ? m->content : "";
    if (is_system(m)) return write_system(job, content, err);
    if (is_role(m, "user")) return write_user(job, content, err);
    if (is_role(m, "assistant")) return write_reply(job, content, answered, err);
    return status_fail(err, MP_E_INVALID, "role \"%.64s\": expected system, user or assistant",
                       m->role ? m->role : "(none)");
}

static mp_status write_all(render_job *job, const mp_chat_message *messages, size_t n, mp_error *err)
{
    size_t last_question = 0;
    for (size_t i = 0; i < n; i++)
        if (is_role(&messages[i], "user")) last_question = i;
    for (size_t i = 0; i < n; i++) MP_TRY(write_message(job, &messages[i], i < last_question, err));
    return MP_OK;
}

/* ---- choosing ---- */

static mp_status fail_family(const char *what, mp_error *err)
{
    char names[320] = "";
    size_t used = 0;
    for (size_t i = 0; chat_family_at(i); i++) {
        const char *name = chat_family_at(i)->name;
        const size_t len = strlen(name);
        if (used + len + 3 > sizeof names) break;
        if (used) used = (size_t)(stpcpy(names + used, ", ") - names);
        used = (size_t)(stpcpy(names + used, name) - names);
    }
    return status_fail(err, MP_E_UNSUPPORTED, "%s; name one (--chat-template) of %s", what, names);
}

static mp_status choose(render_job *job, const char *family, mp_error *err)
{
    const chat_template *own = tokenizer_chat(job->t);
    job->family = family ? chat_family_find(family, strlen(family)) : own->family;
    if (!job->family) {
        char what[128];
        if (family) snprintf(what, sizeof what, "there is no chat template \"%.48s\"", family);
        return fail_family(family         ? what
                           : own->present ? "the model's chat template is of no known family"
                                          : "the model has no chat template",
                           err);
    }
    job->style = job->family == own->family ? own->style : job->family->style;
    return MP_OK;
}

mp_status chat_render(const tokenizer *t, const char *family, const mp_chat_message *messages, size_t n, bool ask,
                      chat_text *out, mp_error *err)
{
    render_job job = {.t = t, .out = out};
    *out = (chat_text){0};
    MP_TRY(choose(&job, family, err));
    out->bos = job.style.bos || (job.style.eos_first && tokenizer_bos(t) == tokenizer_eos(t));
    MP_TRY(append(out, "", 0, err));
    if (job.style.eos_first && !out->bos) MP_TRY(write_markup(&job, "{eos}", err));
    const chat_template *own = tokenizer_chat(t);
    if (own->system && job.family == own->family && !(n && is_system(&messages[0])))
        MP_TRY(write_system(&job, own->system, err));
    MP_TRY(write_all(&job, messages, n, err));
    return ask ? write_markup(&job, job.family->prompt, err) : MP_OK;
}
