/* spm.h: SentencePiece's merging by score.
 *
 * A space becomes U+2581, with one more in front of a text that begins the whole or follows a special token; the
 * characters merge to tokens, best score first, leftmost of equals; what is no token even then is written as its bytes,
 * <0x00> to <0xFF>. The caller owns the struct; read-only once built. */
#ifndef TEXT_SPM_H
#define TEXT_SPM_H

#include "text/merge.h"
#include "text/vocab.h"

typedef struct spm {
    uint32_t *rank;      /* [vocab.n] place in the order of scores, equals share one; MERGE_NONE: text never makes it */
    size_t longest;      /* bytes of the longest token that text can make */
    int32_t bytes[256];  /* -1: no such token */
    bool add_space;      /* in front */
    bool remove_extra;   /* spaces at both ends, and all but one of a run */
    bool separate_words; /* no token has U+2581 behind another character: words can be merged one by one */
} spm;

mp_status spm_init(spm *s, const vocab *v, const gguf *g, mp_error *err);
void spm_clear(spm *s);

typedef void (*spm_emit)(void *user, int32_t id);

/* Gives the tokens of text [len <= MERGE_MAX_TEXT] to emit, in order. begins: the text is the first, or follows a
 * special token. */
mp_status spm_encode(const spm *s, const vocab *v, merge_work *w, const char *text, size_t len, bool begins,
                     spm_emit emit, void *user, mp_error *err);

#endif
