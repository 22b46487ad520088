/* pretokenizer.h: cuts text into words, the pieces that byte-pair merging never crosses.
 *
 * A pre-tokenizer is one to six regular expressions, applied one after the other: each cuts every piece that the ones
 * before it left into its matches and what lies between them, and sees nothing beyond the piece. */
#ifndef TEXT_PRETOKENIZER_H
#define TEXT_PRETOKENIZER_H

#include "base/status.h"

typedef struct pretokenizer pretokenizer;

/* name: a value of tokenizer.ggml.pre [len]. The compiled expressions may be used by any thread. */
mp_status pretokenizer_new(const char *name, size_t len, pretokenizer **out, mp_error *err);
void pretokenizer_free(pretokenizer *p);

/* A word that is a token as a whole is that token, whatever the merges say. */
bool pretokenizer_whole_words(const pretokenizer *p);
/* Text begins with BOS unless the file says otherwise. */
bool pretokenizer_adds_bos(const pretokenizer *p);

typedef mp_status (*pretokenizer_fn)(void *user, const char *word, size_t len, mp_error *err);

/* Scratch of one thread; pretokenizer_scratch_free() takes NULL. */
typedef struct pretokenizer_scratch pretokenizer_scratch;
mp_status pretokenizer_scratch_new(pretokenizer_scratch **out, mp_error *err);
void pretokenizer_scratch_free(pretokenizer_scratch *scratch);

/* Gives the words of text [len], valid UTF-8, to emit, in order; together they are the text. */
mp_status pretokenizer_split(const pretokenizer *p, pretokenizer_scratch *scratch, const char *text, size_t len,
                             pretokenizer_fn emit, void *user, mp_error *err);

#endif
