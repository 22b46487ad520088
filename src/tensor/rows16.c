#include "tensor/rows16.h"

#include <assert.h>

#include "tensor/fields.h"
#include "tensor/quant.h"

enum { CHUNK = 256 };

dtype rows16_type(dtype type)
{
    return fields_of(type) ? (dtype)(type + DTYPE_R16) : DTYPE_NONE;
}

void rows16_interleave(dtype type, size_t n, uint8_t *rows, uint8_t *scratch)
{
    const fields *l = fields_of(type);
    const dtype_traits *traits = dtype_get(type);
    const size_t stride = dtype_row_bytes(type, n), blocks = n / traits->block, in_chunk = CHUNK / traits->block;
    uint8_t *to = rows;
    assert(l);
    memcpy(scratch, rows, ROWS16 * stride);
    if (l->first_apart) to = fields_put(l->of, scratch, stride, blocks, traits->block_bytes, ROWS16, to);
    for (size_t b = 0; b < blocks; b += in_chunk) {
        const size_t here = blocks - b < in_chunk ? blocks - b : in_chunk;
        for (const field *f = l->of + l->first_apart; f < l->of + MAX_FIELDS && f->bytes; f++)
            to = fields_put(f, scratch + b * traits->block_bytes, stride, here, traits->block_bytes, ROWS16, to);
    }
}

void rows16_to_f32(dtype type, size_t n, const uint8_t *rows, size_t lane, size_t from, float *out, size_t count)
{
    const dtype plain = dtype_plain(type);
    const fields *l = fields_of(plain);
    const dtype_traits *traits = dtype_get(plain);
    const size_t apart = l->first_apart ? ROWS16 * l->of[0].bytes : 0; /* of every block */
    uint8_t row[CHUNK / 32 * Q8_0_BYTES];
    assert(l && from % CHUNK == 0 && (count % CHUNK == 0 || from + count == n));
    const uint8_t *heads = rows + from / traits->block * apart;
    const uint8_t *at =
        rows + n / traits->block * apart + from / traits->block * (ROWS16 * traits->block_bytes - apart);
    for (size_t i = 0; i < count; i += CHUNK) {
        const size_t here = count - i < CHUNK ? count - i : CHUNK, blocks = here / traits->block;
        if (l->first_apart) heads = fields_take(l->of, heads, blocks, traits->block_bytes, ROWS16, lane, row);
        for (const field *f = l->of + l->first_apart; f < l->of + MAX_FIELDS && f->bytes; f++)
            at = fields_take(f, at, blocks, traits->block_bytes, ROWS16, lane, row);
        dtype_to_f32(plain, row, out + i, here);
    }
}
