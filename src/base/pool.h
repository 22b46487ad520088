/* pool.h: a fixed set of threads that run one job at a time.
 *
 * The thread that made the pool is its thread 0 and works too; only it may submit. Between jobs workers spin for a
 * moment, then sleep. A thread mostly takes neighbouring items, but which it takes is open, so an item's result must
 * depend on the item alone: then the number of threads cannot change any result. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/status.h"

typedef struct pool pool;

typedef void (*pool_item_fn)(void *arg, size_t item, unsigned thread);

/* threads = 0: pool_default_threads(). */
mp_status pool_new(unsigned threads, pool **out, mp_error *err);
void pool_free(pool *p);
unsigned pool_threads(const pool *p);
/* Gives each worker a core of its own for good, the first being left to the caller, which stays free. Returns how many
 * got one: none where there are more threads than cores. */
unsigned pool_pin(pool *p);
/* Runs fn for every item in [0, n); returns when all are done. Each thread takes the items of its share of [0, n) in
 * order, and then what others have not begun. No allocation. */
void pool_for(pool *p, size_t n, pool_item_fn fn, void *arg);
/* Physical cores this process may use, within its affinity mask and the cgroup's quota; at least 1. */
unsigned pool_default_threads(void);

#endif
