/* partition_impl.h: what the solvers of partition.h share; nobody else includes it.
 *
 * A partition_state belongs to one solver call. It holds the weights transposed (a neuron's tokens contiguous), so
 * that everything below is a sweep over tokens in vectors of floats: loads are sums of rows, sorting is a network of
 * minima and maxima, a swap touches two rows. Rows are `stride` floats apart; the tokens between n_tokens and stride
 * weigh nothing and add nothing to any sum. */
#ifndef REFACTOR_PARTITION_IMPL_H
#define REFACTOR_PARTITION_IMPL_H

#include "refactor/partition.h"

typedef struct partition_state {
    size_t n_tokens, stride;            /* B; B rounded up, and off the powers of two that would collide in cache */
    uint32_t n_neurons, n_parts;        /* C, N */
    uint32_t n_keeps;                   /* after merging equal keeps */
    uint32_t drop[PARTITION_MAX_KEEPS]; /* N - k */
    float weight[PARTITION_MAX_KEEPS];  /* sums to 1 */
    double total;                       /* of w as given */
    double scale;                       /* wt = w * scale; the mean of wt is 1, so no sum of floats can overflow */
    float *wt;                          /* [C, stride] */
    float *load;                        /* [N, stride] L of each set */
    float *sorted; /* [1 + N + 1, stride] a row of 0, the loads of each token ascending, a row of infinity */
    float *rate;   /* [N, stride] share of the keeps that drop the set: the supergradient of the loss */
    float *pair;   /* [2 * n_keeps + 3, stride] see partition_pair_begin() */
    float *spare;  /* [2, stride] scratch of an update */
    float *block;  /* [N, 16] scratch of the sort */
    uint32_t pair_n, pair_m;
    size_t pair_ready; /* tokens prepared */
    uint64_t visited;  /* tokens evaluated in swaps: the measure of effort */
    uint16_t *network; /* [n_network, 2] comparators */
    size_t n_network;
} partition_state;

/* NULL pointers, sizes, keeps, weights: everything that can be wrong with a problem, weights included. */
mp_status partition_check(const partition_problem *p, mp_error *err);

/* Every neuron in a set and every set full. */
mp_status partition_check_balance(const partition_problem *p, const uint16_t *part, mp_error *err);

mp_status partition_state_init(partition_state *s, const partition_problem *p, mp_error *err);
void partition_state_clear(partition_state *s);

/* Loads and their order from scratch; returns the objective of partition.h. */
double partition_state_set(partition_state *s, const uint16_t *part);
double partition_state_objective(const partition_state *s);
/* The loads and their order after only the sets n and m changed. */
void partition_state_update(partition_state *s, const uint16_t *part, uint32_t n, uint32_t m);
/* Fills rate from the sorted loads. Ties share what is to be dropped equally. */
void partition_state_rates(partition_state *s);

/* Swaps between the sets n and m: what depends on the pair alone is found once, as far as tokens are asked for. */
typedef struct partition_swap {
    uint32_t j, i; /* neurons of n and of m */
    double delta;  /* change of the unnormalised objective in units of wt, over the tokens seen so far */
    double square; /* sum of the squares of the tokens' changes */
} partition_swap;

void partition_pair_begin(partition_state *s, uint32_t n, uint32_t m);
/* Adds tokens [begin, end), multiples of 4 up to stride. */
void partition_swap_add(partition_state *s, partition_swap *swap, size_t begin, size_t end);
double partition_swap_delta(partition_state *s, uint32_t j, uint32_t i); /* over all tokens */

/* Exact balanced transport with memory: prices and assignment of the last solve start the next one. */
typedef struct transport {
    uint32_t n_neurons, n_parts;
    double *price;         /* [N] added to the cost of a set */
    uint32_t *head;        /* [N] first neuron of the set */
    uint32_t *next, *prev; /* [C] */
    uint32_t *count;       /* [N] */
    uint32_t *best;        /* [N, N] the neuron of n that moves to m at the least cost */
    double *edge;          /* [N, N] that cost */
    double *dist;          /* [N] */
    uint32_t *from;        /* [N] */
    uint32_t *stale;       /* [N] */
    bool *done;            /* [N] */
} transport;

mp_status transport_init(transport *t, uint32_t n_neurons, uint32_t n_parts, mp_error *err);
void transport_clear(transport *t);
/* cost [C, N] finite. `part` is read as the assignment to prefer among equals and replaced by an optimal one. */
void transport_solve(transport *t, const double *cost, uint16_t *part);

#endif
