/* moe_exec.h: runs one mixture-of-experts layer for a batch of tokens, each at its own operating point.
 *
 * route -> score -> select -> group by sub-expert -> gate/up products -> SwiGLU -> down products. Whole experts are
 * sub-experts with N = 1. Cost follows the sum of the tokens' budgets. A token's result has the same bits whatever
 * shares the batch: its own sub-experts are summed in ascending order, by one thread. */
#ifndef ENGINE_MOE_EXEC_H
#define ENGINE_MOE_EXEC_H

#include "engine/linear.h"

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
    uint32_t *pair_token; /* [cap * k0 * N] */
    uint32_t *pair_run;   /* [cap * k0 * N] slot * N + n */
    float *hidden;        /* [cap * k0 * N, S] */
    float *up;            /* the same; of sub-experts [cap * k0 * N, 2 S], gate and up */
    acts hidden_acts;     /* whole experts: hidden rows as activations */
    float **ptrs;         /* [threads, 4, cap] */
    float *down_tmp;      /* [threads, cap, MOE_DOWN_ROWS], whole experts */

    uint64_t router_ns, gate_ns, experts_ns;
} moe_exec;

#define MOE_DOWN_ROWS 32

/* max_rank, proxy_neurons: of the widest gate that will run here. Set x, shape, cap and threads first. */
void moe_exec_layout(arena *a, moe_exec *m, uint32_t max_rank, uint32_t proxy_neurons);

/* y [T, d] = the layer's output for x [T, d]; in: the same rows as acts (quantized where any weight is). points [T]. */
void moe_exec_run(moe_exec *m, const moe_layer *layer, const acts *in, const uint32_t *points, size_t tokens, float *y);

/* The same in steps, for callers that look between. route fills experts and mix; score the scores of tokens whose rung
 * is not full; select n_run and run; apply computes y from them. */
void moe_exec_route(moe_exec *m, const moe_layer *layer, const acts *in, size_t tokens);
void moe_exec_score(moe_exec *m, const moe_layer *layer, const acts *in, const uint32_t *points, size_t tokens);
void moe_exec_select(moe_exec *m, const moe_layer *layer, const uint32_t *points, size_t tokens);
void moe_exec_apply(moe_exec *m, const moe_layer *layer, const acts *in, const uint32_t *points, size_t tokens,
                    float *y);

bool moe_wants_quantized(const moe_layer *layer);

#endif
