/* draw.h: choosing a token of a row of logits: the best, or by chance after cuts. No history: see sampler.c.
 *
 * A row has tens of thousands of logits and a step draws many tokens, so a pass over a row does no more than a vector
 * can (row.h): the largest of every block, and where the whole mass is wanted their weights. The largest ones bound
 * what top-k can keep (of the k blocks with the largest ones each has a logit that reaches the least of those), and
 * only what reaches the bound is selected from. Top-p and min-p keep what ranks before some logit: top-p's is found by
 * the mass of bins of logits and then exactly within one bin. A draw finds its block by the blocks' weights, then its
 * token. Equal logits rank by id, so that the same seed gives the same text everywhere. */
#ifndef TEXT_DRAW_H
#define TEXT_DRAW_H

#include "base/rng.h"
#include "base/status.h"
#include "text/row.h"

/* Scratch for rows of n logits; owned, cleared by draw_clear(). */
typedef struct draw {
    uint32_t n, n_blocks;
    float *row;            /* [n] the row with strange values replaced, where it has any */
    float *largest;        /* [n_blocks] of every block */
    double *sums;          /* [n_blocks] of weights */
    double *bins;          /* [ROW_BINS_ROOM] of weights */
    candidate *candidates; /* [n] */
} draw;

typedef struct draw_cuts {
    uint32_t top_k;     /* 0: off */
    float top_p, min_p; /* 0, and top_p 1: off */
    float temperature;  /* > 0 */
} draw_cuts;

mp_status draw_init(draw *d, uint32_t n, mp_error *err);
void draw_clear(draw *d);

/* NaN counts as -inf, +inf as the largest float; where every logit is -inf all are equal. */
int32_t draw_best(draw *d, const float *logits);
int32_t draw_random(draw *d, const float *logits, const draw_cuts *asked, rng *r);

#endif
