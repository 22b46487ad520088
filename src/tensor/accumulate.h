/* accumulate.h: the shapes that accumulate_<isa>.c and simd_accumulate.h agree on. Nothing is owned. */
#ifndef TENSOR_ACCUMULATE_H
#define TENSOR_ACCUMULATE_H

#include "tensor/dtype.h"

enum {
    UNIT = 32,   /* columns */
    STRIP = 256, /* columns */
    STRIP_UNITS = STRIP / UNIT,
    TILE_ROWS = 16,
};

/* A call of rows_accumulate. */
typedef struct accumulate_args {
    size_t width, tiles, stride, rows;
    const uint8_t *r;
    const float *const *a;
    float *const *y;
    size_t tokens;
    const uint8_t *next; /* what this thread reads soon after this call, or NULL */
} accumulate_args;

/* Strips are counted tile by tile. */
static inline size_t tile_strips(const accumulate_args *a)
{
    return (a->width + STRIP - 1) / STRIP;
}

/* Most tiles are one strip wide. */
static inline size_t strip_tile(const accumulate_args *a, size_t strip)
{
    return a->width <= STRIP ? strip : strip / tile_strips(a);
}

/* The first column of a strip in its tile, and in all. */
static inline size_t strip_in_tile(const accumulate_args *a, size_t strip)
{
    return a->width <= STRIP ? 0 : strip % tile_strips(a) * STRIP;
}

static inline size_t strip_column(const accumulate_args *a, size_t strip)
{
    return strip_tile(a, strip) * a->width + strip_in_tile(a, strip);
}

/* The first row of a strip's tile. */
static inline const uint8_t *strip_rows(const accumulate_args *a, size_t strip)
{
    return a->r + strip_tile(a, strip) * a->rows * a->stride;
}

/* Of tiles arranged in blocks (blocks32.h) of rows of `type`. */
void blocks32_accumulate_avx512(dtype type, const accumulate_args *args);

#endif
