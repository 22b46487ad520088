/* vocab.h: the tokens of a GGUF: their texts, the bytes they stand for, their kinds, and the ids with a role.
 *
 * Everything is copied out of the file and checked by vocab_init(); read-only afterwards, any thread may ask.
 * The caller owns the struct: vocab_clear() frees what is in it, also after a failed vocab_init(). */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H

#include "gguf/gguf.h"

enum token_kind { /* the values of tokenizer.ggml.token_type */
                  TOKEN_UNDEFINED = 0,
                  TOKEN_NORMAL,
                  TOKEN_UNKNOWN,
                  TOKEN_CONTROL,
                  TOKEN_USER_DEFINED,
                  TOKEN_UNUSED,
                  TOKEN_BYTE,
};

enum vocab_style {
    VOCAB_BYTES, /* texts of GPT-2's characters for bytes */
    VOCAB_SPM,   /* texts with U+2581 for spaces, and byte tokens <0x00> to <0xFF> */
};

typedef struct vocab {
    uint32_t n;
    char *text;      /* all tokens as the file writes them, one after the other */
    size_t *text_at; /* [n + 1] */
    char *bytes;     /* what they decode to */
    size_t *bytes_at;
    uint8_t *kind;     /* [n] */
    bool *ends_text;   /* [n] */
    uint32_t *slots;   /* text to id: open addressing, id + 1, 0 is free */
    size_t n_slots;    /* a power of two */
    uint32_t *special; /* [n_special] ids of control, unknown and user-defined tokens in order of their text */
    size_t n_special;
    size_t special_from[257];  /* the first of those whose text begins with this byte or a larger one */
    int32_t bos, eos, unknown; /* -1: none */
    bool strips;               /* special tokens take the white space behind them */
} vocab;

mp_status vocab_init(vocab *v, const gguf *g, enum vocab_style style, mp_error *err);
void vocab_clear(vocab *v);

gguf_string vocab_text(const vocab *v, uint32_t id);
gguf_string vocab_bytes(const vocab *v, uint32_t id);
/* Id of the token written `text` in the file, -1: none. */
int32_t vocab_find(const vocab *v, const char *text, size_t len);
/* Id of the ordinary token for these bytes, -1: none. */
int32_t vocab_find_bytes(const vocab *v, const char *bytes, size_t len);
/* The longest special token that text [len > 0] begins with, its length into *matched; -1: none. Control and unknown
 * tokens only where they end within text [control_len]; where `guard`, user-defined ones that look like control tokens
 * too. */
int32_t vocab_match_special(const vocab *v, const char *text, size_t len, size_t control_len, bool guard,
                            size_t *matched);
/* White space behind this special token is part of it. */
bool vocab_strips_right(const vocab *v, int32_t id);

/* special.c: vocab_init()'s second half. */
mp_status vocab_init_roles(vocab *v, const gguf *g, mp_error *err);
mp_status vocab_init_strips(vocab *v, const gguf *g, mp_error *err);
mp_status vocab_init_special(vocab *v, mp_error *err);

#endif
