/* conversation.h: a chat with the model: messages go in, replies are written as they come. The conversation owns its
 * messages; the generator must outlive it. Between turns the engine keeps what the next prompt has in common with the
 * last one. One thread. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "cli/generate.h"

typedef struct conversation {
    generator *g;
    const char *family; /* of the chat template; NULL: the model's own */
    const char *system; /* NULL: none */
    mp_chat_message *messages;
    size_t n, cap;
} conversation;

/* Fails where there is no chat template to write by. family and system are kept. */
mp_status conversation_open(conversation *c, generator *g, const char *family, const char *system, mp_error *err);
void conversation_close(conversation *c);
/* Forgets everything but the system message. */
mp_status conversation_clear(conversation *c, mp_error *err);

/* Adds a question and the reply to it, which goes to `out`; a reply that Ctrl-C stopped counts as far as it came. After
 * a failure the question is forgotten again. */
mp_status conversation_ask(conversation *c, const char *question, uint32_t max_tokens, FILE *out, generate_end *end,
                           mp_error *err);

/* Asks every line of `in`, a conversation told apart by "/clear" and ended by "/exit" or the end of input. */
mp_status conversation_lines(conversation *c, FILE *in, uint32_t max_tokens, mp_error *err);

#endif
