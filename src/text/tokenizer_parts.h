/* tokenizer_parts.h: what a tokenizer is made of; for tokenizer.c, which builds and frees it, and encode.c. */
#ifndef TEXT_TOKENIZER_PARTS_H
#define TEXT_TOKENIZER_PARTS_H

#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/spm.h"
#include "text/tokenizer.h"

struct tokenizer {
    vocab vocab;
    enum vocab_style style; /* VOCAB_BYTES: bpe and pre, VOCAB_SPM: spm */
    bpe bpe;
    pretokenizer *pre;
    spm spm;
    chat_template chat;
    bool add_bos, add_eos;
};

#endif
