#include "tensor/blocks32.h"

#include <assert.h>
#include <string.h>

#include "tensor/fields.h"
#include "tensor/quant.h"

enum { HALF = 16 };

dtype blocks32_type(dtype type)
{
    return fields_of(type) ? (dtype)(type + DTYPE_B32) : DTYPE_NONE;
}

static bool is_quants(const field *f)
{
    return f->unit == QUANTS_UNIT;
}

typedef uint8_t sixteen __attribute__((vector_size(16)));

static sixteen load_bytes(const uint8_t *from)
{
    sixteen x;
    memcpy(&x, from, sizeof x);
    return x;
}

static sixteen zip_low(sixteen a, sixteen b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

static sixteen zip_high(sixteen a, sixteen b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* Four rows of a field of quants, byte by byte: first of rows 0 and 2 and of 1 and 3, then of both. */
static uint8_t *put_quants(const field *f, const uint8_t *rows, size_t stride, size_t blocks, size_t block_bytes,
                           uint8_t *to)
{
    for (size_t b = 0; b < blocks; b++)
        for (const uint8_t *from = rows + b * block_bytes + f->offset, *end = from + f->bytes; from < end;
             from += sizeof(sixteen), to += BLOCK32_GROUP * sizeof(sixteen)) {
            const sixteen r0 = load_bytes(from), r1 = load_bytes(from + stride), r2 = load_bytes(from + 2 * stride),
                          r3 = load_bytes(from + 3 * stride);
            const sixteen even[2] = {zip_low(r0, r2), zip_high(r0, r2)}, odd[2] = {zip_low(r1, r3), zip_high(r1, r3)};
            const sixteen all[BLOCK32_GROUP] = {zip_low(even[0], odd[0]), zip_high(even[0], odd[0]),
                                                zip_low(even[1], odd[1]), zip_high(even[1], odd[1])};
            memcpy(to, all, sizeof all);
        }
    return to;
}

static const uint8_t *take_quants(const field *f, const uint8_t *from, size_t blocks, size_t block_bytes, size_t lane,
                                  uint8_t *row)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at++, from += BLOCK32_GROUP)
            row[b * block_bytes + f->offset + at] = from[lane];
    return from;
}

void blocks32_arrange(dtype type, size_t rows, uint8_t *block, uint8_t *scratch)
{
    const fields *all = fields_of(type);
    const dtype_traits *traits = dtype_get(type);
    const size_t stride = dtype_row_bytes(type, BLOCK32_WIDTH), blocks = BLOCK32_WIDTH / traits->block;
    uint8_t *to = block;
    assert(all && rows % BLOCK32_GROUP == 0 && rows <= BLOCK32_ROWS);
    memcpy(scratch, block, rows * stride);
    for (size_t row = 0; row < rows; row += HALF)
        for (const field *f = all->of; !is_quants(f); f++)
            to = fields_put(f, scratch + row * stride, stride, blocks, traits->block_bytes,
                            rows - row < HALF ? rows - row : HALF, to);
    for (size_t row = 0; row < rows; row += BLOCK32_GROUP)
        for (const field *f = all->of; f < all->of + MAX_FIELDS; f++)
            if (is_quants(f)) to = put_quants(f, scratch + row * stride, stride, blocks, traits->block_bytes, to);
}

void blocks32_to_f32(dtype type, size_t rows, const uint8_t *block, size_t row, float *out)
{
    const dtype plain = dtype_plain(type);
    const fields *all = fields_of(plain);
    const dtype_traits *traits = dtype_get(plain);
    const size_t blocks = BLOCK32_WIDTH / traits->block, half = row / HALF * HALF;
    uint8_t bytes[BLOCK32_WIDTH / 32 * Q8_0_BYTES];
    size_t scales = 0;
    for (const field *f = all->of; !is_quants(f); f++) scales += blocks * f->bytes; /* of a row */
    const uint8_t *at = block + half * scales;
    for (const field *f = all->of; !is_quants(f); f++)
        at =
            fields_take(f, at, blocks, traits->block_bytes, rows - half < HALF ? rows - half : HALF, row - half, bytes);
    at = block + rows * scales + row / BLOCK32_GROUP * BLOCK32_GROUP * (blocks * traits->block_bytes - scales);
    for (const field *f = all->of; f < all->of + MAX_FIELDS; f++)
        if (is_quants(f)) at = take_quants(f, at, blocks, traits->block_bytes, row % BLOCK32_GROUP, bytes);
    dtype_to_f32(plain, bytes, out, BLOCK32_WIDTH);
}
