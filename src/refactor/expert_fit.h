/* expert_fit.h: one expert's share of splitting a layer: its tokens, their activations, the partition, what the gate
 * should predict. Owned by split.c; one thread works on one expert. */
#ifndef REFACTOR_EXPERT_FIT_H
#define REFACTOR_EXPERT_FIT_H

#include "refactor/refactor.h"

/* The tokens routed to each expert, at most max_tokens_per_expert each, ascending. */
typedef struct expert_tokens {
    size_t *start;   /* [E + 1] */
    uint32_t *token; /* [start[E]] */
    uint8_t *slot;   /* rank of the expert among the token's chosen ones */
} expert_tokens;

mp_status expert_tokens_build(const refactor *r, expert_tokens *out, mp_error *err);
void expert_tokens_clear(expert_tokens *l);

/* Memory of one thread, for experts of at most `cap` tokens. */
typedef struct expert_work {
    arena memory;
    float *x;              /* [cap, d] inputs */
    float *g;              /* [cap] mixing weights */
    float *a, *up;         /* [cap, C] activations */
    float *gate_w, *up_w;  /* [C, d] */
    float *columns;        /* [C, d] down columns */
    float *column_norm;    /* [C] */
    float *weights, *held; /* [partition tokens, C] importance, fitted and held out */
    float *set;            /* [cap, 2S] activations of a set and their product with its Gram matrix */
    float *gram;           /* [S, S] */
    float *row;            /* [max(C, d)] */
    uint16_t *part;        /* [C] */
} expert_work;

void expert_work_layout(const refactor *r, size_t cap, expert_work *w);

typedef struct expert_summary {
    double start, end, held_start, held_end; /* objectives */
    size_t held_tokens;
    uint64_t solver_ns;
} expert_summary;

/* Loads the tokens of expert e (inputs, mixing weights) and computes their activations. Returns how many of them are to
 * be fitted; the rest judge. */
size_t expert_load(const refactor *r, const expert_tokens *l, uint32_t e, expert_work *w);
/* Partitions its neurons into order [C]. */
mp_status expert_partition(const refactor *r, uint32_t e, size_t n, size_t n_fit, expert_work *w, uint32_t *order,
                           expert_summary *summary, mp_error *err);
/* target [n, N]: log of the output norm of every sub-expert. */
void expert_targets(const refactor *r, const uint32_t *order, size_t n, expert_work *w, float *target);

#endif
