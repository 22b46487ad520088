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

/* Decoded scales of a tile, by type:
 *   Q8_0, Q4_0, Q5_0   [unit][row]
 *   Q4_1, Q5_1         [unit][row] the step and [8 + unit][row] the base of x = step q + base
 *   Q4_K, Q5_K         [row][unit] the step and [row][8 + unit] the base
 *   Q6_K               [row][run], two runs of 16 columns a unit */
typedef float tile_scales[16][16];

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
