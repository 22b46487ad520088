#include "engine/linear.h"

#include <assert.h>

/* Rows per work item: a few items a thread, so that they finish together, of whole tiles of rows and long enough that
 * memory is read in long pieces. */
#define ROWS_PER_ITEM     32
#define MAX_ROWS_PER_ITEM 256
#define ITEMS_PER_THREAD  4

bool tensor_is_quantized(const tensor *t)
{
    return t->data && dtype_get(dtype_plain(t->type))->quantized;
}

void acts_layout(arena *a, acts *x, size_t width, size_t cap)
{
    x->n = width;
    x->quant_stride = (kernels_act_bytes((width + 31) / 32 * 32) + 63) / 64 * 64;
    x->f32 = arena_take(a, cap, sizeof *x->f32);
    x->quant = arena_take(a, cap, sizeof *x->quant);
    x->quant_rows = arena_take(a, cap, x->quant_stride);
}

typedef struct quantize_job {
    const exec *x;
    acts *a;
} quantize_job;

static void quantize_one(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    const quantize_job *job = arg;
    acts *a = job->a;
    job->x->k->quantize_act(a->f32[t], a->n, a->quant_rows + t * a->quant_stride);
}

void acts_set(const exec *x, acts *a, const float *rows, size_t tokens, bool quantize)
{
    for (size_t t = 0; t < tokens; t++) {
        a->f32[t] = rows + t * a->n;
        a->quant[t] = a->quant_rows + t * a->quant_stride;
    }
    if (quantize) pool_for(x->pool, tokens, quantize_one, &(quantize_job){x, a});
}

typedef struct linear_job {
    const exec *x;
    const linear_product *products;
    const acts *in;
    float **ptrs;
    size_t tokens;
    size_t n, end[LINEAR_PRODUCTS]; /* products; items of those up to each */
    uint32_t rows_per_item[LINEAR_PRODUCTS];
} linear_job;

/* The first weights of the item that begins with this row of product i, or follows its last. */
static const void *item_weights(const linear_job *j, size_t i, uint32_t row)
{
    const tensor *w = j->products[i].w;
    if (row < w->rows) return tensor_row(w, 0, row);
    return i + 1 < j->n ? tensor_row(j->products[i + 1].w, 0, 0) : NULL;
}

static void linear_rows(void *arg, size_t item, unsigned thread)
{
    const linear_job *j = arg;
    size_t i = 0;
    while (item >= j->end[i]) i++;
    const linear_product *p = &j->products[i];
    const tensor *w = p->w;
    const uint32_t per_item = j->rows_per_item[i], row = (uint32_t)(item - (i ? j->end[i - 1] : 0)) * per_item;
    const uint32_t left = w->rows - row, rows = left < per_item ? left : per_item;
    float **ptrs = j->ptrs + (size_t)thread * j->tokens;
    for (size_t t = 0; t < j->tokens; t++) ptrs[t] = p->out + t * p->out_stride + row;
    j->x->k->rows_dot(w->type, w->cols, tensor_row(w, 0, row), w->row_bytes, rows, acts_for(j->in, w), ptrs, j->tokens,
                      item_weights(j, i, row + per_item));
}

static uint32_t rows_per_item(const exec *x, const tensor *w)
{
    const uint32_t share = w->rows / (ITEMS_PER_THREAD * pool_threads(x->pool)) / ROWS_PER_ITEM * ROWS_PER_ITEM;
    return share <= ROWS_PER_ITEM ? ROWS_PER_ITEM : share < MAX_ROWS_PER_ITEM ? share : MAX_ROWS_PER_ITEM;
}

void linear_several(const exec *x, const linear_product *products, size_t n, const acts *in, size_t tokens,
                    float **ptrs)
{
    assert(n <= LINEAR_PRODUCTS);
    linear_job job = {.x = x, .products = products, .in = in, .ptrs = ptrs, .tokens = tokens, .n = n};
    size_t items = 0;
    for (size_t i = 0; i < n; i++) {
        job.rows_per_item[i] = rows_per_item(x, products[i].w);
        job.end[i] = items += (products[i].w->rows + job.rows_per_item[i] - 1) / job.rows_per_item[i];
    }
    pool_for(x->pool, items, linear_rows, &job);
}

void linear(const exec *x, const tensor *w, const acts *in, size_t tokens, float *out, size_t out_stride, float **ptrs)
{
    linear_several(x, &(linear_product){w, out, out_stride}, 1, in, tokens, ptrs);
}
