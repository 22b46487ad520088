#include "tensor/fields.h"

#include <assert.h>
#include <string.h>

#include "tensor/quant.h"

enum { LANES = 16 };

static const fields ALL[] = {
    {DTYPE_Q4_0, {{0, 2, 2}, {2, 16, 4}}, false},
    {DTYPE_Q8_0, {{0, 2, 2}, {2, 32, 4}}, false},
    {DTYPE_Q4_K, {{0, 4, 2}, {Q4_K_SCALES, 12, 1}, {Q4_K_QUANTS, 128, 4}}, false},
    {DTYPE_Q5_K, {{0, 4, 2}, {Q4_K_SCALES, 12, 1}, {Q5_K_HIGH, 32, 4}, {Q5_K_QUANTS, 128, 4}}, false},
    {DTYPE_Q6_K, {{Q6_K_D, 2, 2}, {Q6_K_SCALES, 16, 1}, {0, 128, 4}, {Q6_K_HIGH, 64, 4}}, true},
};

const fields *fields_of(dtype type)
{
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++)
        if (ALL[i].type == type) return &ALL[i];
    return NULL;
}

typedef uint32_t words __attribute__((vector_size(16))); /* four units of quants */

static words load_words(const uint8_t *from)
{
    words w;
    memcpy(&w, from, sizeof w);
    return w;
}

/* Four units of each of four rows, a unit of each row after the other; rows of units begin 16 lanes apart. */
static void put_four_by_four(const uint8_t *from, size_t stride, uint8_t *to)
{
    const words a = load_words(from), b = load_words(from + stride), c = load_words(from + 2 * stride),
                d = load_words(from + 3 * stride);
    const words ab[2] = {__builtin_shufflevector(a, b, 0, 4, 1, 5), __builtin_shufflevector(a, b, 2, 6, 3, 7)};
    const words cd[2] = {__builtin_shufflevector(c, d, 0, 4, 1, 5), __builtin_shufflevector(c, d, 2, 6, 3, 7)};
    for (size_t i = 0; i < 2; i++) {
        const words even = __builtin_shufflevector(ab[i], cd[i], 0, 1, 4, 5),
                    odd = __builtin_shufflevector(ab[i], cd[i], 2, 3, 6, 7);
        memcpy(to + 2 * i * LANES * QUANTS_UNIT, &even, sizeof even);
        memcpy(to + (2 * i + 1) * LANES * QUANTS_UNIT, &odd, sizeof odd);
    }
}

/* fields_put() for quants of 16 rows. */
static uint8_t *put_quants(const field *f, const uint8_t *row, size_t stride, size_t blocks, size_t block_bytes,
                           uint8_t *to)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += sizeof(words), to += LANES * sizeof(words))
            for (size_t lane = 0; lane < LANES; lane += 4)
                put_four_by_four(row + b * block_bytes + f->offset + at + lane * stride, stride,
                                 to + lane * QUANTS_UNIT);
    return to;
}

uint8_t *fields_put(const field *f, const uint8_t *row, size_t stride, size_t blocks, size_t block_bytes, size_t lanes,
                    uint8_t *to)
{
    if (f->unit == QUANTS_UNIT) {
        assert(lanes == LANES);
        return put_quants(f, row, stride, blocks, block_bytes, to);
    }
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit) {
            const uint8_t *from = row + b * block_bytes + f->offset + at;
            for (size_t lane = 0; lane < lanes; lane++, from += stride, to += f->unit) {
                if (f->unit == 2)
                    memcpy(to, from, 2);
                else
                    *to = *from;
            }
        }
    return to;
}

const uint8_t *fields_take(const field *f, const uint8_t *from, size_t blocks, size_t block_bytes, size_t lanes,
                           size_t lane, uint8_t *row)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit, from += lanes * f->unit)
            memcpy(row + b * block_bytes + f->offset + at, from + lane * f->unit, f->unit);
    return from;
}
