#include "engine/linear.h"

/* Rows per work item: a few items a thread, so that they finish together, of whole tiles of rows and long enough that
 * memory is read in long pieces. */
#define ROWS_PER_ITEM     32
#define MAX_ROWS_PER_ITEM 256
#define ITEMS_PER_THREAD  4

bool tensor_is_quantized(const tensor *t)
{
    return t->data && dtype_get(t->type)->quantized;
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
    const tensor *w;
    const void *const *in;
    float *out, **ptrs;
    size_t tokens, out_stride;
    uint32_t rows_per_item;
} linear_job;

static void linear_rows(void *arg, size_t item, unsigned thread)
{
    const linear_job *j = arg;
    const uint32_t row = (uint32_t)item * j->rows_per_item;
    const uint32_t left = j->w->rows - row, rows = left < j->rows_per_item ? left : j->rows_per_item;
    float **ptrs = j->ptrs + (size_t)thread * j->tokens;
    for (size_t t = 0; t < j->tokens; t++) ptrs[t] = j->out + t * j->out_stride + row;
    const uint32_t next = row + j->rows_per_item * pool_threads(j->x->pool);
    j->x->k->rows_dot(j->w->type, j->w->cols, tensor_row(j->w, 0, row), j->w->row_bytes, rows, j->in, ptrs, j->tokens,
                      next < j->w->rows ? tensor_row(j->w, 0, next) : NULL);
}

void linear(const exec *x, const tensor *w, const acts *in, size_t tokens, float *out, size_t out_stride, float **ptrs)
{
    linear_job job = {x, w, acts_for(in, w), out, ptrs, tokens, out_stride, ROWS_PER_ITEM};
    const uint32_t share = w->rows / (ITEMS_PER_THREAD * pool_threads(x->pool)) / ROWS_PER_ITEM * ROWS_PER_ITEM;
    if (share > job.rows_per_item) job.rows_per_item = share < MAX_ROWS_PER_ITEM ? share : MAX_ROWS_PER_ITEM;
    pool_for(x->pool, (w->rows + job.rows_per_item - 1) / job.rows_per_item, linear_rows, &job);
}
