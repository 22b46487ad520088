/* suggest.h: the nearest of some known words, for "did you mean". */
#ifndef CLI_SUGGEST_H
#define CLI_SUGGEST_H

#include <stddef.h>

/* Changes, insertions, removals and exchanges of neighbours between two words (optimal string alignment); words
 * longer than 31 characters are far from everything. */
unsigned suggest_distance(const char *a, const char *b);

/* Keeps in *best the nearest candidate offered so far, with its distance; start with {NULL, 0}. Only candidates that
 * are near, or begin with the whole word, are kept. */
typedef struct suggestion {
    const char *best;
    unsigned distance;
} suggestion;
void suggest_offer(suggestion *s, const char *word, const char *candidate);

#endif
