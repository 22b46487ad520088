/* merge.h: greedy merging of neighbours, what byte-pair and SentencePiece tokenizers have in common.
 *
 * Of all neighbours that together are a token, always the pair of the lowest rank is merged, the leftmost of equals,
 * until none is left. The caller owns the workspace; it belongs to one thread. */
#ifndef TEXT_MERGE_H
#define TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define MERGE_NONE UINT32_MAX
/* Bytes of text at once: even three symbols, or three bytes of U+2581, for each are counted in 32 bits. */
#define MERGE_MAX_TEXT ((size_t)1 << 30)

typedef struct merge_symbol {
    uint32_t from, len;  /* bytes of the caller's text */
    int32_t id;          /* -1: no token */
    int32_t made;        /* by merging with the next symbol */
    uint32_t rank;       /* of that, MERGE_NONE: no merge, or no longer a symbol */
    uint32_t prev, next; /* MERGE_NONE at the ends */
} merge_symbol;

typedef struct merge_work {
    merge_symbol *symbols; /* [n]; those that are left after merge_run() are linked from the first */
    uint64_t *queue;       /* rank << 32 | left symbol: a min-heap */
    size_t capacity;
    uint32_t n;
} merge_work;

/* Whether two neighbours make a token: which one, and its rank below MERGE_NONE. Equal neighbours, equal answer. */
typedef bool (*merge_fn)(const void *rules, const merge_symbol *left, const merge_symbol *right, int32_t *made,
                         uint32_t *rank);

/* Empties the workspace and makes room for n symbols, n < MERGE_NONE. */
mp_status merge_begin(merge_work *w, size_t n, mp_error *err);
/* Appends a symbol; there must be room. */
void merge_add(merge_work *w, int32_t id, uint32_t from, uint32_t len);
void merge_run(merge_work *w, const void *rules, merge_fn find);
void merge_clear(merge_work *w);

#endif
