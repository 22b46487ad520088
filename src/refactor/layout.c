/* The artifact's layout of an expert (DESIGN 2): gate and up rows move whole, so any type stays bit-exact; the down
 * matrix is transposed, cut in tiles of W outputs and requantized along them, once. */
#include <string.h>

#include "refactor/refactor.h"

static const moe_weights *source_weights(const refactor *r, uint32_t layer)
{
    return &r->source->moe[layer].w;
}

size_t layout_gate_up_bytes(const refactor *r, uint32_t layer)
{
    return 2 * (size_t)r->split.width * dtype_row_bytes(r->results[layer].gate_up_type, r->split.d);
}

size_t layout_down_bytes(const refactor *r, uint32_t layer)
{
    return (size_t)r->split.width * moe_tiles(&r->split) * dtype_row_bytes(r->results[layer].down_type, r->split.tile);
}

size_t layout_scratch(const refactor *r)
{
    return (size_t)r->split.width * r->split.d + r->split.width + r->split.d;
}

static uint8_t *put_row(dtype type, const tensor *w, uint32_t e, uint32_t row, float *buf, uint8_t *out)
{
    const uint8_t *from = tensor_row(w, e, row);
    if (w->type == type) {
        memcpy(out, from, w->row_bytes);
        return out + w->row_bytes;
    }
    dtype_to_f32(w->type, from, buf, w->cols);
    dtype_from_f32(type, buf, out, w->cols);
    return out + dtype_row_bytes(type, w->cols);
}

void layout_gate_up(const refactor *r, uint32_t layer, uint32_t e, const uint32_t *order, float *buf, uint8_t *out)
{
    const moe_weights *w = source_weights(r, layer);
    const dtype type = r->results[layer].gate_up_type;
    const uint32_t s = r->split.part_width;
    for (uint32_t n = 0; n < r->split.n_parts; n++) {
        for (uint32_t j = 0; j < s; j++) out = put_row(type, &w->gate, e, order[n * s + j], buf, out);
        for (uint32_t j = 0; j < s; j++) out = put_row(type, &w->up, e, order[n * s + j], buf, out);
    }
}

/* Columns [C, d] of expert e's down matrix, a neuron a row. */
static void down_columns(const tensor *w, uint32_t e, float *row, float *columns)
{
    for (uint32_t i = 0; i < w->rows; i++) {
        dtype_to_f32(w->type, tensor_row(w, e, i), row, w->cols);
        for (uint32_t c = 0; c < w->cols; c++) columns[(size_t)c * w->rows + i] = row[c];
    }
}

static void put_piece(dtype type, uint32_t w, const float *piece, float *back, uint8_t *out, double error[2])
{
    dtype_from_f32(type, piece, out, w);
    dtype_to_f32(type, out, back, w);
    for (uint32_t i = 0; i < w; i++) {
        const double diff = (double)back[i] - (double)piece[i];
        error[0] += diff * diff;
        error[1] += (double)piece[i] * (double)piece[i];
    }
}

void layout_down(const refactor *r, uint32_t layer, uint32_t e, const uint32_t *order, float *buf, uint8_t *out,
                 double error[2])
{
    const moe_shape *s = &r->split;
    const dtype type = r->results[layer].down_type;
    const size_t piece_bytes = dtype_row_bytes(type, s->tile);
    float *columns = buf, *row = columns + (size_t)s->width * s->d, *back = row + s->width;
    down_columns(&source_weights(r, layer)->down, e, row, columns);
    for (uint32_t n = 0; n < s->n_parts; n++)
        for (uint32_t tile = 0; tile < moe_tiles(s); tile++)
            for (uint32_t j = 0; j < s->part_width; j++, out += piece_bytes) {
                const uint32_t neuron = order[n * s->part_width + j];
                put_piece(type, s->tile, columns + (size_t)neuron * s->d + (size_t)tile * s->tile, back, out, error);
            }
}
