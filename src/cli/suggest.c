#include "cli/suggest.h"

#include <limits.h>
#include <string.h>

enum { WORD_MAX = 31 };

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned suggest_distance(const char *a, const char *b)
{
    const size_t la = strlen(a), lb = strlen(b);
    unsigned d[WORD_MAX + 1][WORD_MAX + 1];
    if (la > WORD_MAX || lb > WORD_MAX) return UINT_MAX;
    for (size_t i = 0; i <= la; i++) d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= lb; j++) d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        for (size_t j = 1; j <= lb; j++) {
            d[i][j] = min_u(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]), min_u(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = min_u(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[la][lb];
}

void suggest_offer(suggestion *s, const char *word, const char *candidate)
{
    const size_t len = strlen(word);
    unsigned distance = suggest_distance(word, candidate);
    if (len >= 2 && strncmp(word, candidate, len) == 0) distance = 1;
    if (distance > 1 + len / 4 || distance >= len) return;
    if (s->best != NULL && s->distance <= distance) return;
    *s = (suggestion){.best = candidate, .distance = distance};
}
