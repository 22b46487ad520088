/* runs.h: what the integer kernels need to know of the quantized types. All come in runs of 32 elements that share a
 * scale, Q6_K in runs of 16; eight of 32 make a chunk. Kernels see the stored integers unsigned, Q6_K's 0 .. 63 too. */
#ifndef TENSOR_RUNS_H
#define TENSOR_RUNS_H

#include "tensor/kernels_impl.h"

/* Types that may be arranged in memory (fields.h), for functions of their own and the switch to them. */
#define ARRANGED_TYPES(X) X(Q4_0) X(Q8_0) X(Q4_K) X(Q5_K) X(Q6_K)

enum { RUN = 32, CHUNK = 256, CHUNK_RUNS = CHUNK / RUN };

/* Blocks of 256 */
static inline bool is_k(dtype type)
{
    return type == DTYPE_Q4_K || type == DTYPE_Q5_K || type == DTYPE_Q6_K;
}

static inline size_t chunk_bytes(dtype type)
{
    return block_bytes(type) * (is_k(type) ? 1 : CHUNK_RUNS);
}

/* A float per run is added, too. */
static inline bool has_min(dtype type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q5_1 || type == DTYPE_Q4_K || type == DTYPE_Q5_K;
}

/* Runs with a scale of their own in `runs` of 32. */
static inline size_t scaled_runs(dtype type, size_t runs)
{
    return type == DTYPE_Q6_K ? 2 * runs : runs;
}

#endif
