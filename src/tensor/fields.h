/* fields.h: the fields that a block of a quantized format is made of, for the arrangements of rows in memory (rows16.h,
 * blocks32.h): permutations of these fields' units. */
#ifndef TENSOR_FIELDS_H
#define TENSOR_FIELDS_H

#include "tensor/dtype.h"

/* Where a field stands in a plain block and what of it stays together. Units of QUANTS_UNIT bytes are quants, of
 * which a block has a multiple of 16 bytes, smaller ones scales; scales come first. */
typedef struct field {
    uint16_t offset, bytes, unit;
} field;

enum { MAX_FIELDS = 4, QUANTS_UNIT = 4 };

typedef struct fields {
    dtype type;
    field of[MAX_FIELDS]; /* unused ones have no bytes */
    bool first_apart;     /* rows16.h: the first for the whole row, before the chunks of the others */
} fields;

/* NULL for types that have no other arrangement. */
const fields *fields_of(dtype type);

/* Writes a field of `blocks` blocks of each of `lanes` rows (16, of quants), one unit after the other of all rows;
 * `row` is that of the first row's first block. Returns what follows. */
uint8_t *fields_put(const field *f, const uint8_t *row, size_t stride, size_t blocks, size_t block_bytes, size_t lanes,
                    uint8_t *to);
/* The field of one row, as it was, from what fields_put() wrote. Returns what follows there. */
const uint8_t *fields_take(const field *f, const uint8_t *from, size_t blocks, size_t block_bytes, size_t lanes,
                           size_t lane, uint8_t *row);

#endif
