/* bpe.h: byte-pair merging.
 *
 * The caller owns both structs: the merge table is read-only once built, a workspace belongs to one call. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "text/vocab.h"

typedef struct bpe_pair {
    int32_t left, right;
    uint32_t rank; /* index among the file's merges */
    int32_t merged;
} bpe_pair;

typedef struct bpe {
    bpe_pair *pairs; /* open addressing, merged = -1 is free */
    size_t n_pairs;  /* a power of two */
    int32_t *merged; /* [merges] the token that a rank makes */
    struct {
        int32_t ids[3];
        uint32_t n;
    } bytes[256]; /* what a text's bytes are before the first merge */
} bpe;

typedef struct bpe_symbol {
    int32_t id;
    uint32_t prev, next; /* BPE_NONE at the ends */
    uint32_t rank;       /* of the merge with the next symbol, BPE_NONE: no merge, or no longer a symbol */
} bpe_symbol;

#define BPE_NONE     UINT32_MAX
#define BPE_MAX_WORD ((size_t)1 << 30) /* bytes: their symbols are counted in 32 bits */

typedef struct bpe_work {
    bpe_symbol *symbols;
    uint64_t *queue; /* rank << 32 | left symbol: a min-heap */
    int32_t *ids;    /* the result of bpe_encode() */
    size_t capacity; /* symbols */
} bpe_work;

mp_status bpe_init(bpe *b, const vocab *v, const gguf *g, mp_error *err);
void bpe_clear(bpe *b);

/* Tokens of word [len <= BPE_MAX_WORD] into w->ids, which lasts until the next call; *n of them. */
mp_status bpe_encode(const bpe *b, bpe_work *w, const char *word, size_t len, size_t *n, mp_error *err);
void bpe_work_clear(bpe_work *w);

#endif
