/* chat.h: conversations written as a model's family wants them.
 *
 * A rendered conversation is one text and the stretches of it that the family wrote, apart from what people wrote:
 * only there are control tokens recognised, so that no message can end its turn or begin another. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "text/tokenizer.h"

typedef struct chat_text {
    char *data; /* [len], and a terminator */
    size_t len, cap;
    text_span *marked; /* [n_marked] in order, apart */
    size_t n_marked, cap_marked;
    bool bos; /* it begins with BOS, which is not in the text */
} chat_text;

/* family: a name, or NULL for the file's own. The caller clears *out, also after a failure. */
mp_status chat_render(const tokenizer *t, const char *family, const mp_chat_message *messages, size_t n, bool ask,
                      chat_text *out, mp_error *err);
void chat_text_clear(chat_text *c);

#endif
