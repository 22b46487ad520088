#include "tensor/rows16.h"

#include <assert.h>

#include "tensor/quant.h"

/* A field of a block: where it stands in the plain format and what of it stays together. */
typedef struct field {
    uint16_t offset, bytes, unit;
} field;

enum { MAX_FIELDS = 4, CHUNK = 256 };

typedef struct layout {
    dtype type;
    field fields[MAX_FIELDS]; /* in the order of the interleaved format */
    bool first_apart;         /* the first for the whole row, before the chunks of the others */
} layout;

static const layout LAYOUTS[] = {
    {DTYPE_Q4_0, {{0, 2, 2}, {2, 16, 4}}, false},
    {DTYPE_Q8_0, {{0, 2, 2}, {2, 32, 4}}, false},
    {DTYPE_Q4_K, {{0, 4, 2}, {Q4_K_SCALES, 12, 1}, {Q4_K_QUANTS, 128, 4}}, false},
    {DTYPE_Q5_K, {{0, 4, 2}, {Q4_K_SCALES, 12, 1}, {Q5_K_HIGH, 32, 4}, {Q5_K_QUANTS, 128, 4}}, false},
    {DTYPE_Q6_K, {{Q6_K_D, 2, 2}, {Q6_K_SCALES, 16, 1}, {0, 128, 4}, {Q6_K_HIGH, 64, 4}}, true},
};
enum { N_LAYOUTS = sizeof LAYOUTS / sizeof *LAYOUTS };

static const layout *layout_of(dtype type)
{
    for (size_t i = 0; i < N_LAYOUTS; i++)
        if (LAYOUTS[i].type == type) return &LAYOUTS[i];
    return NULL;
}

dtype rows16_type(dtype type)
{
    return layout_of(type) ? (dtype)(type + DTYPE_R16) : DTYPE_NONE;
}

/* One unit after the other of all rows of a field; `row` is that of the first row's first block. */
static uint8_t *put_field(const field *f, const uint8_t *row, size_t stride, size_t blocks, size_t block_bytes,
                          uint8_t *to)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit) {
            const uint8_t *from = row + b * block_bytes + f->offset + at;
            for (size_t lane = 0; lane < ROWS16; lane++, from += stride, to += f->unit) {
                if (f->unit == 4)
                    memcpy(to, from, 4);
                else if (f->unit == 2)
                    memcpy(to, from, 2);
                else
                    *to = *from;
            }
        }
    return to;
}

void rows16_interleave(dtype type, size_t n, uint8_t *rows, uint8_t *scratch)
{
    const layout *l = layout_of(type);
    const dtype_traits *traits = dtype_get(type);
    const size_t stride = dtype_row_bytes(type, n), blocks = n / traits->block, in_chunk = CHUNK / traits->block;
    uint8_t *to = rows;
    assert(l);
    memcpy(scratch, rows, ROWS16 * stride);
    if (l->first_apart) to = put_field(l->fields, scratch, stride, blocks, traits->block_bytes, to);
    for (size_t b = 0; b < blocks; b += in_chunk) {
        const size_t here = blocks - b < in_chunk ? blocks - b : in_chunk;
        for (const field *f = l->fields + l->first_apart; f < l->fields + MAX_FIELDS && f->bytes; f++)
            to = put_field(f, scratch + b * traits->block_bytes, stride, here, traits->block_bytes, to);
    }
}

/* One field of some blocks of one row, as it was; `from` in the interleaved rows. Returns what follows there. */
static const uint8_t *take_field(const field *f, const uint8_t *from, size_t blocks, size_t block_bytes, size_t lane,
                                 uint8_t *row)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit, from += ROWS16 * f->unit)
            memcpy(row + b * block_bytes + f->offset + at, from + lane * f->unit, f->unit);
    return from;
}

void rows16_to_f32(dtype type, size_t n, const uint8_t *rows, size_t lane, size_t from, float *out, size_t count)
{
    const dtype plain = dtype_plain(type);
    const layout *l = layout_of(plain);
    const dtype_traits *traits = dtype_get(plain);
    const size_t apart = l->first_apart ? ROWS16 * l->fields[0].bytes : 0; /* of every block */
    uint8_t row[CHUNK / 32 * Q8_0_BYTES];
    assert(l && from % CHUNK == 0 && (count % CHUNK == 0 || from + count == n));
    const uint8_t *heads = rows + from / traits->block * apart;
    const uint8_t *at =
        rows + n / traits->block * apart + from / traits->block * (ROWS16 * traits->block_bytes - apart);
    for (size_t i = 0; i < count; i += CHUNK) {
        const size_t here = count - i < CHUNK ? count - i : CHUNK, blocks = here / traits->block;
        if (l->first_apart) heads = take_field(l->fields, heads, blocks, traits->block_bytes, lane, row);
        for (const field *f = l->fields + l->first_apart; f < l->fields + MAX_FIELDS && f->bytes; f++)
            at = take_field(f, at, blocks, traits->block_bytes, lane, row);
        dtype_to_f32(plain, row, out + i, here);
    }
}
