/* accumulate.h: the shapes that accumulate_<isa>.c and simd_accumulate.h agree on. Nothing is owned. */
#ifndef TENSOR_ACCUMULATE_H
#define TENSOR_ACCUMULATE_H

#include <stddef.h>
#include <stdint.h>

enum {
    UNIT = 32,   /* columns */
    STRIP = 256, /* columns */
    STRIP_UNITS = STRIP / UNIT,
    TILE_ROWS = 16,
};

/* A call of rows_accumulate. */
typedef struct accumulate_args {
    size_t width, stride, rows;
    const uint8_t *r;
    const float *const *a;
    float *const *y;
    size_t tokens;
    const uint8_t *next; /* what this thread reads soon after this call, or NULL */
} accumulate_args;

#endif
