/* nnls.h: least squares with coefficients that must not be negative, for a handful of columns. Pure; any thread. */
#ifndef SCHED_NNLS_H
#define SCHED_NNLS_H

#include <stddef.h>

enum { NNLS_MAX = 16 };

/* The x [n] >= 0 that minimises |A x - b|^2, given gram [n,n] = A^T A and rhs [n] = A^T b; n <= NNLS_MAX. Columns that
 * depend on others get 0. */
void nnls_solve(const double *gram, const double *rhs, size_t n, double *x);

#endif
