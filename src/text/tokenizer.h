/* tokenizer.h: text to ids and back, by the rules in a GGUF's tokenizer.ggml.* keys.
 *
 * Byte-level BPE (tokenizer.ggml.model = "gpt2"): control tokens are cut out, the rest is split by the pre-tokenizer's
 * regular expressions (tokenizer.ggml.pre, one table row each, PCRE2 with Unicode classes), bytes become the printable
 * characters of GPT-2's table, and pairs merge lowest rank first. Built once, then read-only: any thread may use it.
 *
 * Special tokens are recognised leftmost, longest. Bytes that are not UTF-8 are words of their own; a byte that the
 * vocabulary has no token for is written as U+FFFD. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "gguf/gguf.h"

typedef struct tokenizer tokenizer;

/* Copies what it needs: g may be closed afterwards. */
mp_status tokenizer_new(const gguf *g, tokenizer **out, mp_error *err);
void tokenizer_free(tokenizer *t);

uint32_t tokenizer_n_tokens(const tokenizer *t);
int32_t tokenizer_bos(const tokenizer *t); /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);
bool tokenizer_ends_text(const tokenizer *t, int32_t id);
/* flags: MP_TOKENIZE_*. Semantics of mp_tokenize(). */
mp_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                           size_t *n, mp_error *err);
/* Semantics of mp_token_bytes(). */
size_t tokenizer_decode(const tokenizer *t, int32_t id, bool special, char *buf, size_t cap);

#endif
