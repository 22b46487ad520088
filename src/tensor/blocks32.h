/* blocks32.h: tiles of quantized rows arranged block by block, as rows_accumulate of wide vectors likes to read them.
 *
 * A block is up to 32 rows of 256 elements, counted from a tile's first; it stands where its rows stood, in as many
 * bytes. First come the scales of its first 16 rows, field by field and unit by unit, a unit of each row after the
 * other as in rows16.h, then those of the rest; then the quants, four rows at a time: of 16 consecutive bytes of a
 * field byte 0 of the four rows, byte 1, ..., so that a load brings 16 columns (or 32, where a byte has two) of four
 * rows.
 *
 *     Q4_0   f16 d[8][rows]                          u8 q[8][16][4]
 *     Q8_0   f16 d[8][rows]                          i8 q[16][16][4]
 *     Q4_K   f16 d[rows], dmin[rows], u8 s[12][rows] u8 q[8][16][4]
 *     Q5_K   the same                                u8 high[2][16][4], q[8][16][4]
 *     Q6_K   f16 d[rows], i8 s[16][rows]             u8 low[8][16][4], high[4][16][4]
 *
 * It is a permutation of bytes: nothing is rounded. Such rows exist in memory only, as the types DTYPE_*_B32. */
#ifndef TENSOR_BLOCKS32_H
#define TENSOR_BLOCKS32_H

#include "tensor/dtype.h"

enum { BLOCK32_ROWS = 32, BLOCK32_WIDTH = 256, BLOCK32_GROUP = 4 };

/* The type of blocks of rows of `type`; DTYPE_NONE where they have no such form. */
dtype blocks32_type(dtype type);
/* Arranges a block of `rows` rows, a multiple of BLOCK32_GROUP up to BLOCK32_ROWS, in place; scratch: as many bytes. */
void blocks32_arrange(dtype type, size_t rows, uint8_t *block, uint8_t *scratch);
/* A row, F32 [BLOCK32_WIDTH], of a block of `rows` (type DTYPE_*_B32). */
void blocks32_to_f32(dtype type, size_t rows, const uint8_t *block, size_t row, float *out);

#endif
