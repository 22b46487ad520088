/* gate_fit.h: what predicts, at run time, how much each sub-expert of a chosen expert matters (DESIGN 2.3, paper 4.3).
 *
 * Pure numeric code on top of OpenBLAS and LAPACK; no I/O, no globals; any thread, several at once. Parallelism is over
 * experts and belongs to the caller, who calls openblas_set_num_threads(1) once before the first of these functions:
 * they do not, since that is a setting of the whole process, but the same bits on any machine load depend on it.
 * The caller owns every array. Non-finite input is MP_E_INVALID. */
#ifndef REFACTOR_GATE_FIT_H
#define REFACTOR_GATE_FIT_H

#include "base/status.h"

/* ---- probe: ridge regression from the layer input to log ||y_{e,n}|| ---- */

typedef struct probe_data {
    const float *x;      /* [n_tokens, d] layer inputs of the tokens routed to this expert */
    const float *g;      /* [n_tokens] router weights; a token counts g^2 */
    const float *target; /* [n_tokens, n_parts] log of the sub-experts' output norms */
    size_t n_tokens;
    size_t n_fit; /* the first n_fit are fitted, the rest only measured */
    uint32_t d, n_parts;
} probe_data;

typedef struct probe_fit {
    double r2; /* on the tokens past n_fit (on the fitted ones where there are none): 1 - weighted squared error over
                  weighted variance around each part's weighted mean */
    double lambda; /* chosen */
} probe_fit;

/* Chooses lambda (a multiple of the Gram's mean diagonal) among `lambdas` [n_lambdas] by error on the tokens past n_fit
 * (the largest where there are none or n_fit < 2), then fits on all tokens. rows [n_parts, d], bias [n_parts]:
 * prediction = rows . x + bias. With fewer tokens than 2: rows are 0 and bias is the mean (or 0). */
mp_status probe_fit_expert(const probe_data *data, const double *lambdas, size_t n_lambdas, float *rows, float *bias,
                           probe_fit *fit, mp_error *err);

/* `rank` directions shared by a layer: the best approximation of all experts' rows [n_rows, d] in the norm of the
 * inputs' second moment cov [d, d] (uncentred, symmetric): in [rank, d], so that rows ~= out * in; out [n_rows, rank].
 * The squared error of row r counts row_weight[r] >= 0 times (NULL: 1). Rank 1 to d. The coordinates in . x have unit
 * second moment. */
mp_status probe_factorise(const float *rows, size_t n_rows, uint32_t d, const double *cov, const float *row_weight,
                          uint32_t rank, float *in, float *out, mp_error *err);

/* ---- proxy: r gate neurons per sub-expert (paper 4.3.1) ---- */

/* a [n_tokens, C]: |activation|; order [C]: neurons by set (partition.h), changed in place so that the r most central
 * neurons of each set come first: B = indicator of each token's top keep_share (paper: 3/4) neurons, C_co = B^T B,
 * centrality = row sum inside the set, self included. Ties: the order given. Of neurons equally active the lower index
 * is in the top. The other neurons of a set keep their order. */
mp_status proxy_order(const float *a, size_t n_tokens, uint32_t n_neurons, uint32_t n_parts, uint32_t r,
                      double keep_share, uint32_t *order, mp_error *err);

#endif
