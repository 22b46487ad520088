/* rows16_read.h: where the kernels find the fields of interleaved rows (rows16.h); for files that include a
 * simd_<isa>.h, and the same for all of them. */
#ifndef TENSOR_ROWS16_READ_H
#define TENSOR_ROWS16_READ_H

#include "tensor/rows16.h"
#include "tensor/runs.h"

/* Where the fields of a chunk begin; those that a format has not point anywhere. */
typedef struct r16_chunk {
    const uint8_t *d, *levels, *high, *quants;
} r16_chunk;

/* The chunk of 16 rows of n elements that begins at element k; rows: as interleaved, at their first byte. */
INLINE r16_chunk r16_at(dtype type, const uint8_t *rows, size_t n, size_t k)
{
    const uint8_t *p = rows + k / CHUNK * ROWS16 * chunk_bytes(type);
    const size_t runs = n - k < CHUNK ? (n - k) / RUN : CHUNK_RUNS;
    switch (type) {
    case DTYPE_Q4_K:
        return (r16_chunk){p, p + 64, p, p + 64 + 12 * ROWS16};
    case DTYPE_Q5_K:
        return (r16_chunk){p, p + 64, p + 64 + 12 * ROWS16, p + 64 + 12 * ROWS16 + 32 * ROWS16};
    case DTYPE_Q6_K:
        p += (n - k) / CHUNK * 2 * ROWS16; /* chunks are less by the d that stand before them all */
        return (r16_chunk){rows + k / CHUNK * 2 * ROWS16, p, p + 16 * ROWS16 + 128 * ROWS16, p + 16 * ROWS16};
    default:
        return (r16_chunk){p, p, p, p + runs * 2 * ROWS16};
    }
}

/* Runs that share bytes: each byte has elements of all of them. */
INLINE size_t runs_together(dtype type)
{
    return type == DTYPE_Q6_K ? 4 : type == DTYPE_Q4_K || type == DTYPE_Q5_K ? 2 : 1;
}

/* Memory is asked for this far ahead, into the level-1 cache: from where on more gains nothing. */
INLINE size_t r16_ahead(dtype type)
{
    return (type == DTYPE_Q6_K ? 24 : 6) * 1024;
}

#endif
