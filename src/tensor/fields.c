#include "tensor/fields.h"

#include "tensor/quant.h"

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

uint8_t *fields_put(const field *f, const uint8_t *row, size_t stride, size_t blocks, size_t block_bytes, size_t lanes,
                    uint8_t *to)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit) {
            const uint8_t *from = row + b * block_bytes + f->offset + at;
            for (size_t lane = 0; lane < lanes; lane++, from += stride, to += f->unit) {
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

const uint8_t *fields_take(const field *f, const uint8_t *from, size_t blocks, size_t block_bytes, size_t lanes,
                           size_t lane, uint8_t *row)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t at = 0; at < f->bytes; at += f->unit, from += lanes * f->unit)
            memcpy(row + b * block_bytes + f->offset + at, from + lane * f->unit, f->unit);
    return from;
}
