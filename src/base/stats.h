/* stats.h: order statistics. Pure; any thread. */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include <stddef.h>

/* Ascending; NaN last. */
void stats_sort(double *values, size_t n);
/* Of sorted values, linear between neighbours (type 7 of Hyndman and Fan, as numpy does); q in [0, 1]. NaN where n = 0.
 */
double stats_quantile(const double *sorted, size_t n, double q);
/* Sorts the values. NaN where n = 0. */
double stats_median(double *values, size_t n);

#endif
