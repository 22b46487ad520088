/* moe_exec.h: runs one mixture-of-experts layer for a batch of tokens, each at its own operating point.
 *
 * route -> score -> select -> group by sub-expert -> gate/up products -> SwiGLU -> down products. Whole experts are
 * sub-experts with N = 1. Cost follows the sum of the tokens' budgets. A token's result has the same bits whatever
 * shares the batch: its own sub-experts are summed in ascending order, by one thread. */
#ifndef ENGINE_MOE_EXEC_H
#define ENGINE_MOE_EXEC_H

#include <string.h>

#include "engine/linear.h"
#include "store/store.h"

enum { MOE_PARTS = STORE_MAX_PARTS };

/* Reading ahead (moe_ahead.c): the next expert layer's choice, guessed. */
typedef struct moe_ahead {
    bool off;
    const moe_layer *layer; /* the one that comes next; NULL: it has no experts */
    const float *norm, *h;  /* its norm [d]; the residual stream before the experts of the layer at hand [tokens, d] */
    float eps;
    float *x;          /* [a few tokens, d] h, normalised */
    acts in;           /* the same */
    uint32_t *experts; /* these five as moe_exec has them */
    float *mix, *scores;
    uint32_t *n_run, *run;
    float *best;     /* [N * E] score of each sub-expert */
    uint64_t *keys;  /* [N * E] to sort by */
    uint32_t *units; /* [N * E] of the store, the likeliest first, */
    uint32_t n;      /* so many */
} moe_ahead;

/* Experts from disk (moe_disk.c): what is added where a store holds the weights in place of the mapping. */
typedef struct moe_disk {
    bool wanted;           /* there will be a store */
    store *store;          /* NULL: the weights are mapped */
    store_claim claims[2]; /* the wave at work and the one that is being read */
    uint32_t *order;       /* [N * E] groups in the order in which they are claimed */
    uint32_t *units;       /* [N * E] theirs */
    uint64_t *keys;        /* [N * E] to sort by */
    uint32_t *todo;        /* [N * E] groups that have arrived, in that order */
    uint8_t *required;     /* [N * E] sub-experts that no token may lose */
    float
        resident_margin; /* log of the least score, relative to that of a missing one, that takes its place; 0: none */
    uint64_t *swaps;     /* [threads] sub-experts so replaced */
    const uint8_t *const *proxies; /* [n_moe_layers] the rows that a proxy gate looks at; NULL: those of the weights */
    const uint32_t *floors; /* [cap] points down to which a token may lose what has not arrived in time; 0: nothing */
    uint64_t until_ns;      /* when that time is up; 0: never */
    uint32_t *lost;         /* [cap] how many it lost, over the step's layers */
    moe_ahead ahead;
    uint64_t dropped; /* sub-experts, over all tokens */
} moe_disk;

/* Scratch of the largest batch, and after a run what was chosen. "Slot" is the rank of a chosen expert, 0 .. k0-1. */
typedef struct moe_exec {
    const exec *x;
    moe_shape shape;
    size_t cap; /* tokens */
    unsigned threads;

    /* choose: router, gate, selection */
    float *router;     /* [cap, E] logits, then probabilities */
    float *choice;     /* [threads, 2, E] */
    uint32_t *experts; /* [cap, k0] chosen, best first */
    float *mix;        /* [cap, k0] their mixing weights */
    float *scores;     /* [cap, k0 * N] log of the score, by slot */
    float *proxy;      /* [cap, k0 * N, r] activations computed while scoring, where the gate is a proxy */
    float *z;          /* [cap, r] probe input, of the tokens that need a gate */
    acts gate_in, z_acts;
    uint32_t *gated; /* [cap] the tokens that need a gate */
    float *proxy_up; /* [threads, r] */
    uint64_t *sort;  /* [threads, k0 * N] */
    uint8_t *keep;   /* [threads, k0 * N] */
    uint32_t *n_run; /* [cap] sub-experts run */
    uint32_t *run;   /* [cap, k0 * N] slot * N + n, ascending by sub-expert e * N + n */

    /* apply: pairs (sub-expert, token), grouped by sub-expert, tokens ascending */
    size_t *group_start; /* [N * E + 1] */
    uint32_t *active;    /* [N * E] sub-experts that run */
    size_t n_active;
    const uint8_t **at[MOE_PARTS]; /* [N * E] where the weights of the active ones stand, by part: see moe_part() */
    uint32_t *pair_token;          /* [cap * k0 * N] */
    uint32_t *pair_run;            /* [cap * k0 * N] slot * N + n */
    float *hidden;                 /* [cap * k0 * N, S] */
    float *up;                     /* [threads, cap, rows of a work item]: up, or gate and up */
    acts hidden_acts;              /* whole experts: hidden rows as activations */
    float **ptrs;                  /* [threads, 4, cap] */
    float *sums;                   /* [threads, cap, outputs of a work item and a line] of down products, sub-experts */
    float *down_tmp;               /* [threads, cap, MOE_DOWN_ROWS] or fewer tokens of more rows, whole experts */

    moe_disk disk;
    uint64_t router_ns, gate_ns, experts_ns;
} moe_exec;

/* Rows of a whole expert's down matrix in a work item: with a full batch, and at most, with few tokens. */
#define MOE_DOWN_ROWS      32
#define MOE_MOST_DOWN_ROWS 256

/* The matrices of an expert: gate, up and down, or of a sub-expert: gate with up, and down. NULL past the last. */
static inline const tensor *moe_part(const moe_layer *l, unsigned part)
{
    const moe_weights *w = &l->w;
    const tensor *const split[MOE_PARTS] = {&w->gate_up, &w->down_t, NULL};
    const tensor *const whole[MOE_PARTS] = {&w->gate, &w->up, &w->down};
    return l->shape.tile ? split[part] : whole[part];
}

/* Where a part of an expert or sub-expert begins. */
static inline const uint8_t *moe_part_of(const moe_layer *l, unsigned part, uint32_t sub)
{
    const tensor *w = moe_part(l, part);
    return w == &l->w.down_t ? moe_down_first(l, sub) : tensor_row(w, sub, 0);
}

/* max_rank, proxy_neurons: of the widest gate that will run here. Set x, shape, cap and threads first; disk.store too.
 */
void moe_exec_layout(arena *a, moe_exec *m, uint32_t max_rank, uint32_t proxy_neurons);

/* One layer's work on one batch. */
typedef struct moe_pass {
    const moe_layer *layer;
    const acts *in;         /* [tokens] quantized where any weight is */
    const uint32_t *points; /* [tokens] */
    size_t tokens;
    float *y; /* [tokens, d] the layer's output */
} moe_pass;

/* Only a store can fail. */
mp_status moe_exec_run(moe_exec *m, const moe_pass *pass, mp_error *err);

/* The same in steps, for callers that look between. route fills experts and mix; score the scores of tokens whose rung
 * is not full; select n_run and run; apply computes y from them. */
void moe_exec_route(moe_exec *m, const moe_layer *layer, const acts *in, size_t tokens);
void moe_exec_score(moe_exec *m, const moe_layer *layer, const acts *in, const uint32_t *points, size_t tokens);
void moe_exec_select(moe_exec *m, const moe_layer *layer, const uint32_t *points, size_t tokens);
mp_status moe_exec_apply(moe_exec *m, const moe_pass *pass, mp_error *err);

/* The two halves of apply, for groups whose weights stand where `at` says: hidden rows of any groups [n], in any order
 * (NULL: all); then down for a range of groups, ranges ascending from 0. */
void moe_exec_hidden(moe_exec *m, const moe_pass *pass, const uint32_t *groups, size_t n);
void moe_exec_down(moe_exec *m, const moe_pass *pass, size_t first, size_t end);

/* Orders by score, best first, then by index: the float's bits made monotone, inverted, over the index. */
static inline uint64_t moe_score_key(float score, uint32_t index)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)~bits << 32 | index;
}

/* Keys ascending; nothing is allocated. */
void moe_sort_keys(uint64_t *keys, size_t n);

/* Whether the rung of a token leaves anything to choose, so that it has scores. */
bool moe_exec_is_scored(const moe_exec *m, const uint32_t *points, size_t token);
/* Marks in keep [full] the slots of a scored token that a rung runs; keys [full] is scratch. */
void moe_exec_mark(const moe_exec *m, const moe_layer *layer, size_t token, uint32_t rung, uint64_t *keys,
                   uint8_t *keep);

bool moe_wants_quantized(const moe_layer *layer);

/* Log of the score of a sub-expert (slot * N + n) that a token runs. Tokens that have no scores, being at full, rank
 * sub-experts by their experts' mixing weights. */
float moe_exec_run_score(const moe_exec *m, const uint32_t *points, size_t token, uint32_t run);

/* moe_ahead.c. guess chooses for the layer that disk.ahead names, start begins to read what was chosen. */
void moe_ahead_layout(arena *memory, moe_exec *m);
void moe_ahead_guess(moe_exec *m, const moe_pass *pass);
void moe_ahead_start(moe_exec *m);

/* moe_disk.c */
void moe_disk_layout(arena *a, moe_exec *m);
/* Groups into disk.order, those with the best score of any token first. */
void moe_disk_order(moe_exec *m, const uint32_t *points);
mp_status moe_disk_apply(moe_exec *m, const moe_pass *pass, mp_error *err);
/* Lets resident sub-experts take the places of missing ones whose scores are near, in a token's keep [full]. */
void moe_disk_prefer_resident(const moe_exec *m, const moe_layer *layer, size_t token, uint8_t *keep, unsigned thread);

#endif
