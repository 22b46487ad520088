/* chat_template.h: how a model wants a conversation written, known by families.
 *
 * A GGUF carries a program for that, in Jinja (tokenizer.chat_template). It is not run: a few texts in it tell which
 * family it belongs to, and a few more which of the family's variants. The family's own rules are the table in
 * chat_template.c; chat.h writes conversations by them. */
#ifndef TEXT_CHAT_TEMPLATE_H
#define TEXT_CHAT_TEMPLATE_H

#include "gguf/gguf.h"

/* Around the text of a message. "{bos}" and "{eos}" stand for the model's tokens. */
typedef struct chat_turn {
    const char *before, *after;
} chat_turn;

typedef struct chat_style {
    bool bos;              /* the whole begins with BOS, whatever add_bos_token says */
    bool eos_first;        /* it begins with EOS instead */
    bool bos_between;      /* every further user turn begins with BOS */
    bool trim, trim_reply; /* no white space around a message, around a reply */
    bool space_before_reply, space_after_reply;
    bool drop_reasoning; /* of replies before the last question, up to </think> */
} chat_style;

typedef struct chat_family {
    const char *name;
    const char *marks[3]; /* a template of this family has them all */
    chat_turn system, user, reply;
    const char *prompt;  /* what a reply is asked for with */
    bool system_in_user; /* the system message stands inside the user's turn */
    bool varies;         /* the [INST] family: its templates differ in spaces and BOS */
    chat_style style;    /* where there is no template to tell */
} chat_family;

/* The owner frees what is in it by chat_template_clear(); zeroed is a valid start. Read-only once built. */
typedef struct chat_template {
    bool present;              /* the file has one */
    const chat_family *family; /* NULL: none, or none we know */
    chat_style style;
    char *system; /* what stands for the system message where a conversation has none; NULL: nothing */
} chat_template;

mp_status chat_template_init(chat_template *t, const gguf *g, mp_error *err);
void chat_template_clear(chat_template *t);

/* The i-th family there is; NULL past the end. */
const chat_family *chat_family_at(size_t i);
const chat_family *chat_family_find(const char *name, size_t len); /* NULL: none */

#endif
