/* interactive.h: the dialogue of `run` on a terminal. */
#ifndef CLI_INTERACTIVE_H
#define CLI_INTERACTIVE_H

#include "cli/generate.h"

/* Reads lines and lets the model go on with the text until /quit or the end of input. */
mp_status interactive(generator *g, uint32_t max_tokens, mp_error *err);

#endif
