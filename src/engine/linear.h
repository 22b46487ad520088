/* linear.h: dense products of a step, rows split over threads.
 *
 * Activations travel as an `acts`: pointers to F32 rows and, where the weights are quantized, to the same rows
 * quantized once and shared by every product that reads them. */
#ifndef ENGINE_LINEAR_H
#define ENGINE_LINEAR_H

#include "base/arena.h"
#include "base/pool.h"
#include "model/moe.h"
#include "tensor/kernels.h"

typedef struct exec {
    const kernels *k;
    pool *pool;
} exec;

typedef struct acts {
    size_t n;            /* width */
    size_t quant_stride; /* bytes */
    const void **f32;    /* [cap] */
    const void **quant;  /* [cap] */
    uint8_t *quant_rows; /* [cap, quant_stride] */
} acts;

void acts_layout(arena *a, acts *x, size_t width, size_t cap);
/* Points at rows [tokens, width] and, where `quantize`, quantizes them. */
void acts_set(const exec *x, acts *a, const float *rows, size_t tokens, bool quantize);

/* Whether products with t read quantized activations. */
bool tensor_is_quantized(const tensor *t);

/* The pointers that rows_dot wants for these weights. */
static inline const void *const *acts_for(const acts *a, const tensor *w)
{
    return tensor_is_quantized(w) ? a->quant : a->f32;
}

enum { LINEAR_PRODUCTS = 3 };

typedef struct linear_product {
    const tensor *w;
    float *out; /* [tokens, out_stride] */
    size_t out_stride;
} linear_product;

/* Products of the same activations, at most LINEAR_PRODUCTS, shared out as one piece of work. */
void linear_several(const exec *x, const linear_product *products, size_t n, const acts *in, size_t tokens,
                    float **ptrs);
/* One: out[t][r] = w[r] . x[t] for t in [0, tokens): out [tokens, out_stride], ptrs [threads, tokens] scratch. */
void linear(const exec *x, const tensor *w, const acts *in, size_t tokens, float *out, size_t out_stride, float **ptrs);

#endif
