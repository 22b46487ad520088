/* interactive.h: the dialogue of `run` on a terminal. */
#ifndef CLI_INTERACTIVE_H
#define CLI_INTERACTIVE_H

#include "cli/conversation.h"

/* Reads lines until /exit or the end of input: they are messages to `chat`, or, where that is NULL, text that the model
 * goes on with. */
mp_status interactive(generator *g, conversation *chat, uint32_t max_tokens, mp_error *err);

#endif
