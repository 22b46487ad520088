/* partition.h: cut the C neurons of one expert into N equal sets (paper 4.2, eq. 2).
 *
 * Given the weight w[b][j] >= 0 that neuron j carries for token b, and L[b][n] = sum of w[b][j] over the set n, the
 * loss of keeping the k heaviest sets is sum_b of the N - k smallest L[b][n], over sum_b sum_n L[b][n]; the objective
 * is the weighted mean of that over several k. Lower is better; 0 loses nothing.
 *
 * Pure: no I/O, no clock, no globals; one expert at a time, any thread. Same input and seed, same answer, whoever else
 * runs: the caller sets openblas_set_num_threads(1) once. Every array is the caller's. NULL params are not allowed, {0}
 * are the defaults. */
#ifndef REFACTOR_PARTITION_H
#define REFACTOR_PARTITION_H

#include "base/status.h"

#define PARTITION_MAX_KEEPS 8

typedef struct partition_problem {
    const float *w;                          /* [n_tokens, n_neurons], row-major, >= 0 */
    size_t n_tokens;                         /* B, may be 0: any balanced partition then */
    uint32_t n_neurons;                      /* C */
    uint32_t n_parts;                        /* N, divides C */
    uint32_t n_keeps;                        /* how many k the objective weighs */
    uint32_t keeps[PARTITION_MAX_KEEPS];     /* 1 .. N-1 (ignored where N = 1) */
    float keep_weights[PARTITION_MAX_KEEPS]; /* > 0 */
} partition_problem;

/* A spread of keeps for N parts: 1/8, 1/4, 1/2 and 3/4 of N, rounded, distinct, equal weights. */
void partition_default_keeps(partition_problem *p);

/* part[j] in [0, N) for each neuron; a checked problem. NAN when memory is short. */
double partition_objective(const partition_problem *p, const uint16_t *part);

/* Neurons by total weight, heaviest first, cut in runs: the simplest start, and `--solver sort`. */
mp_status partition_sort(const partition_problem *p, uint16_t *part, mp_error *err);
/* The paper's start: heaviest first, each to the set with the least weight so far that has room. */
mp_status partition_greedy(const partition_problem *p, uint16_t *part, mp_error *err);
/* The paper's refinement of `part` in place: simulated annealing on swaps. Keeps the start where the end is worse. */
typedef struct partition_anneal_params {
    double t0, alpha;    /* 0: 100 and 0.995; T in units of the unnormalised objective */
    uint32_t iterations; /* 0: 100,000 */
    uint64_t seed;
} partition_anneal_params;
mp_status partition_anneal(const partition_problem *p, const partition_anneal_params *params, uint16_t *part,
                           mp_error *err);
/* Block coordinate descent from several starts, exact balanced transport within, then improving swaps and kicks, all
 * within a fixed number of evaluations. Never worse than partition_sort(). */
typedef struct partition_bcd_params {
    uint32_t random_starts; /* beside importance order and co-activation clusters; default 1 */
    uint32_t max_rounds;    /* default 50 */
    uint64_t seed;
} partition_bcd_params;
mp_status partition_bcd(const partition_problem *p, const partition_bcd_params *params, uint16_t *part, mp_error *err);

/* order [C]: the neurons by set, most important set first (total weight), heaviest neuron first within a set; set n
 * of the result is order[n * S .. n * S + S). */
mp_status partition_order(const partition_problem *p, const uint16_t *part, uint32_t *order, mp_error *err);

/* Least-cost balanced assignment: cost [C, N], C = N * S, every part gets S. Exact. */
mp_status partition_transport(const double *cost, uint32_t n_neurons, uint32_t n_parts, uint16_t *part, mp_error *err);

#endif
