/* tokenizer.h: text to ids and back, by the rules in a GGUF's tokenizer.ggml.* keys.
 *
 * Special tokens are cut out first: user-defined ones always, control tokens where the caller says so. Then
 * - byte-level BPE (tokenizer.ggml.model = "gpt2"): the rest is split by the pre-tokenizer's regular expressions
 *   (tokenizer.ggml.pre, one table row each, PCRE2 with Unicode classes), bytes become the printable characters of
 *   GPT-2's table, and pairs merge lowest rank first;
 * - SentencePiece ("llama"): see spm.h.
 * Built once, then read-only: any thread may use it.
 *
 * Special tokens are recognised leftmost, longest. Bytes that are not UTF-8 are words of their own; a byte that the
 * vocabulary has no token for is written as U+FFFD, or by SentencePiece's unknown token. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "gguf/gguf.h"
#include "text/chat_template.h"

typedef struct tokenizer tokenizer;

/* Copies what it needs: g may be closed afterwards. */
mp_status tokenizer_new(const gguf *g, tokenizer **out, mp_error *err);
void tokenizer_free(tokenizer *t);

uint32_t tokenizer_n_tokens(const tokenizer *t);
int32_t tokenizer_bos(const tokenizer *t); /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);
gguf_string tokenizer_text(const tokenizer *t, int32_t id); /* as the file writes it; empty for no token */
bool tokenizer_ends_text(const tokenizer *t, int32_t id);
const chat_template *tokenizer_chat(const tokenizer *t);

/* flags: MP_TOKENIZE_*. Semantics of mp_tokenize(). */
mp_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                           size_t *n, mp_error *err);

/* A stretch of text, bytes [from, to). */
typedef struct text_span {
    size_t from, to;
} text_span;

/* As tokenizer_encode(), with control tokens recognised only inside spans [n_spans], which are in order and apart;
 * outside, user-defined tokens that look like control tokens are plain text too. bos: begin with BOS whatever the
 * file's rules say, where there is one. */
mp_status tokenizer_encode_marked(const tokenizer *t, const char *text, size_t len, const text_span *spans,
                                  size_t n_spans, bool bos, int32_t *ids, size_t cap, size_t *n, mp_error *err);

/* Semantics of mp_token_bytes(). */
size_t tokenizer_decode(const tokenizer *t, int32_t id, bool special, char *buf, size_t cap);
/* Semantics of mp_detokenize(). */
size_t tokenizer_decode_all(const tokenizer *t, const int32_t *ids, size_t n, bool special, char *buf, size_t cap);

#endif
