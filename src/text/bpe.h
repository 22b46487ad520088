/* bpe.h: byte-pair merging by the file's list of merges, lowest index first.
 *
 * The caller owns the table; read-only once built. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "text/merge.h"
#include "text/vocab.h"

typedef struct bpe_pair {
    int32_t left, right;
    uint32_t rank; /* index among the file's merges */
    int32_t merged;
} bpe_pair;

typedef struct bpe {
    bpe_pair *pairs; /* open addressing, merged = -1 is free */
    size_t n_pairs;  /* a power of two */
    struct {
        int32_t ids[3];
        uint32_t n;
    } bytes[256]; /* what a text's bytes are before the first merge */
} bpe;

mp_status bpe_init(bpe *b, const vocab *v, const gguf *g, mp_error *err);
void bpe_clear(bpe *b);

/* Leaves the tokens of word [len <= MERGE_MAX_TEXT] in w. */
mp_status bpe_encode(const bpe *b, merge_work *w, const char *word, size_t len, mp_error *err);

#endif
