/* accumulate.h: the shapes that accumulate_<isa>.c and simd_accumulate.h agree on. Nothing is owned. */
#ifndef TENSOR_ACCUMULATE_H
#define TENSOR_ACCUMULATE_H

enum {
    UNIT = 32,   /* columns */
    STRIP = 256, /* columns */
    STRIP_UNITS = STRIP / UNIT,
    STRIP_RUNS = 16, /* scales of a strip, at most */
    TILE_ROWS = 16,
};

/* Decoded scales of a tile; a type fills what it uses. */
typedef struct tile_scales {
    float factor[STRIP_RUNS][TILE_ROWS];                              /* Q8_0, Q4_0: a unit is a run; Q6_K: two */
    float step[TILE_ROWS][STRIP_UNITS], base[TILE_ROWS][STRIP_UNITS]; /* Q4_K: x = step q + base */
} tile_scales;

#endif
