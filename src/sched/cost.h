/* cost.h: how long a step takes, as a function of what it holds (the paper's C, section 5).
 *
 * Time is a sum of a few features of the batch with non-negative coefficients, fitted by non-negative least squares to
 * measured steps (`moeprism bench --cost`), and corrected by one slowly moving factor while it serves. Plain values;
 * the caller owns everything. */
#ifndef SCHED_COST_H
#define SCHED_COST_H

#include "base/status.h"

enum {
    COST_STEP,    /* 1: weights that every step reads, barriers */
    COST_TOKENS,  /* tokens: attention projections, dense blocks, router, gate */
    COST_EXPERTS, /* sum over tokens of the share of the expert compute: multiply-adds */
    COST_TOUCHED, /* share of all sub-experts that at least one token needs, expected: bytes read */
    COST_CONTEXT, /* sum over tokens of the positions they attend to: multiply-adds */
    COST_LOGITS,  /* rows of logits */
    COST_CACHE,   /* sum over sequences of their positions: bytes of keys and values read */
    COST_FEATURES,
};

/* What the features are computed with: of the model. */
typedef struct cost_shape {
    double used; /* k0 / E: share of the experts that a token's router picks */
} cost_shape;

/* A run of tokens of one sequence at one point. */
typedef struct cost_item {
    uint32_t n_tokens;
    uint32_t context; /* positions before the first of them */
    uint32_t logits;  /* rows */
    double share;     /* of the full expert compute */
} cost_item;

typedef struct cost_model {
    cost_shape shape;
    double ns[COST_FEATURES]; /* nanoseconds a unit of each feature, >= 0 */
    double correction;        /* factor, 1 at first */
    double error_median;      /* relative, on steps it was not fitted on; 0: not measured */
} cost_model;

/* `features` of a batch become those of the batch with one more item; an empty batch has {[COST_STEP] = 1}. */
void cost_add(const cost_shape *shape, const cost_item *item, double features[COST_FEATURES]);
void cost_features(const cost_shape *shape, const cost_item *items, size_t n, double out[COST_FEATURES]);
/* With the correction. */
double cost_predict_ns(const cost_model *m, const double features[COST_FEATURES]);
/* A step that was predicted (with the correction) to take `predicted_ns` took `took_ns`: moves the correction a little
 * towards what would have been right. One outlier, however far out, moves it by about 1 %. */
void cost_observe(cost_model *m, double predicted_ns, double took_ns);

#endif
