/* rows16.h: quantized rows interleaved by sixteen, as the kernels of wide vectors like to read them.
 *
 * Sixteen rows of n elements stand where they stood before, in as many bytes, but in chunks of 256 elements (8 blocks
 * of 32, 1 of 256; the last chunk may be shorter) and within a chunk field by field. Every unit of a field is there
 * sixteen times, once a row, so that 16 rows are the lanes of one load:
 *
 *     Q4_0   f16 d[blocks][16], u32 q[blocks][4][16]        u32: four consecutive bytes of the plain format
 *     Q8_0   f16 d[blocks][16], u32 q[blocks][8][16]
 *     Q4_K   f16 d[16], f16 dmin[16], u8 s[12][16], u32 q[32][16]
 *     Q5_K   f16 d[16], f16 dmin[16], u8 s[12][16], u32 high[8][16], u32 q[32][16]
 *     Q6_K   i8 s[16][16], u32 low[32][16], u32 high[16][16]; f16 d[blocks][16] before all chunks, so that they are
 *            whole cache lines
 *
 * It is a permutation of bytes: nothing is rounded. Such rows exist in memory only, as the types DTYPE_*_R16, and are
 * used by whole sixteens. Row r, a multiple of 16, stands at its plain address. */
#ifndef TENSOR_ROWS16_H
#define TENSOR_ROWS16_H

#include "tensor/dtype.h"

enum { ROWS16 = 16 };

/* The type of interleaved rows of `type`; DTYPE_NONE where they have no such form. */
dtype rows16_type(dtype type);
/* Interleaves 16 rows of n elements of `type` (plain), in place; scratch: as many bytes. */
void rows16_interleave(dtype type, size_t n, uint8_t *rows, uint8_t *scratch);
/* Elements from .. from + count of row `lane` of 16 interleaved ones (type DTYPE_*_R16); from a multiple of 256, count
 * up to the row's end or a multiple of 256, too. */
void rows16_to_f32(dtype type, size_t n, const uint8_t *rows, size_t lane, size_t from, float *out, size_t count);

#endif
