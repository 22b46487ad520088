/* Weights in memory of our own, arranged for the kernels and threads that run them: rows that kernels like interleaved
 * (tensor/rows16.h) and down tiles that they like in blocks (tensor/blocks32.h) are arranged where they stand, and the
 * tiles that one thread takes are brought together. Beside some scratch meanwhile no memory is added; results keep
 * their bits. */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "tensor/blocks32.h"
#include "tensor/kernels.h"
#include "tensor/rows16.h"

typedef struct arrange_job {
    pool *pool;
    tensor *w;
    size_t tile_rows;
    uint8_t *scratch; /* [threads, scratch_bytes] */
    size_t scratch_bytes;
} arrange_job;

static void arrange_group(void *arg, size_t group, unsigned thread)
{
    const arrange_job *j = arg;
    const size_t bytes = ROWS16 * j->w->row_bytes;
    rows16_interleave(j->w->type, j->w->cols, (uint8_t *)(uintptr_t)j->w->data + group * bytes,
                      j->scratch + thread * j->scratch_bytes);
}

static mp_status reserve_scratch(arrange_job *j, size_t bytes, mp_error *err)
{
    if (bytes <= j->scratch_bytes) return MP_OK;
    free(j->scratch);
    j->scratch_bytes = 0;
    j->scratch = calloc(pool_threads(j->pool), bytes);
    if (!j->scratch) return status_no_memory(err, bytes, "arranging weights");
    j->scratch_bytes = bytes;
    return MP_OK;
}

static mp_status arrange_tensor(arrange_job *j, tensor *w, mp_error *err)
{
    if (!w->data || rows16_type(w->type) == DTYPE_NONE || w->rows % ROWS16 != 0) return MP_OK;
    MP_TRY(reserve_scratch(j, ROWS16 * w->row_bytes, err));
    j->w = w;
    pool_for(j->pool, (size_t)w->rows / ROWS16 * w->mats, arrange_group, j);
    w->type = rows16_type(w->type);
    return MP_OK;
}

static void arrange_tile(void *arg, size_t tile, unsigned thread)
{
    const arrange_job *j = arg;
    uint8_t *rows = (uint8_t *)(uintptr_t)j->w->data + tile * j->tile_rows * j->w->row_bytes;
    for (size_t row = 0; row < j->tile_rows; row += BLOCK32_ROWS) {
        const size_t left = j->tile_rows - row;
        blocks32_arrange(j->w->type, left < BLOCK32_ROWS ? left : BLOCK32_ROWS, rows + row * j->w->row_bytes,
                         j->scratch + thread * j->scratch_bytes);
    }
}

/* The down tiles of sub-experts. */
static mp_status arrange_tiles(arrange_job *j, const moe_shape *shape, tensor *w, mp_error *err)
{
    if (!w->data || blocks32_type(w->type) == DTYPE_NONE) return MP_OK;
    if (w->cols != BLOCK32_WIDTH || shape->part_width % BLOCK32_GROUP != 0) return MP_OK;
    MP_TRY(reserve_scratch(j, BLOCK32_ROWS * w->row_bytes, err));
    j->w = w;
    j->tile_rows = shape->part_width;
    pool_for(j->pool, (size_t)w->rows / j->tile_rows * w->mats, arrange_tile, j);
    w->type = blocks32_type(w->type);
    return MP_OK;
}

typedef struct regroup_job {
    const arrange_job *arrange;
    const moe_layer *layer;
    uint32_t together;
} regroup_job;

static void regroup_expert(void *arg, size_t expert, unsigned thread)
{
    const regroup_job *j = arg;
    const moe_layer *l = j->layer;
    const uint32_t parts = l->shape.n_parts, tiles = moe_tiles(&l->shape);
    const size_t tile_bytes = moe_down_tile_bytes(l), bytes = tile_bytes * tiles * parts;
    uint8_t *down = (uint8_t *)(uintptr_t)l->w.down_t.data + expert * bytes;
    uint8_t *scratch = j->arrange->scratch + thread * j->arrange->scratch_bytes;
    memcpy(scratch, down, bytes);
    for (uint32_t n = 0; n < parts; n++)
        for (uint32_t tile = 0; tile < tiles; tile += j->together)
            memcpy(down + ((size_t)tile * parts + (size_t)n * j->together) * tile_bytes,
                   scratch + ((size_t)n * tiles + tile) * tile_bytes, j->together * tile_bytes);
}

/* The tiles that each thread takes of a layer's sub-experts, one after the other (moe.h); as they are where there is no
 * memory for an expert's down matrix a thread. */
static void regroup_tiles(arrange_job *j, moe_layer *l)
{
    const moe_shape *s = &l->shape;
    const uint32_t threads = pool_threads(j->pool);
    if (!l->w.down_t.data || threads == 1 || moe_tiles(s) % threads != 0) return;
    regroup_job job = {.arrange = j, .layer = l, .together = moe_tiles(s) / threads};
    if (reserve_scratch(j, tensor_bytes(&l->w.down_t) / s->n_experts, NULL) != MP_OK) return;
    pool_for(j->pool, s->n_experts, regroup_expert, &job);
    l->w.down_tiles = job.together;
}

/* What is multiplied by whole sixteens of rows. */
static mp_status interleave_layer(arrange_job *j, mp_model *m, uint32_t l, mp_error *err)
{
    layer_weights *w = &m->layers[l];
    moe_layer *moe = &m->moe[l];
    tensor *const list[] = {&w->q.w,  &w->k.w,      &w->v.w,    &w->o.w,      &w->q_a,
                            &w->kv_a, &w->ffn.gate, &w->ffn.up, &w->ffn.down, &moe->w.probe_in};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) MP_TRY(arrange_tensor(j, list[i], err));
    /* a token takes the probes of its experts only */
    return moe->shape.n_parts % ROWS16 == 0 ? arrange_tensor(j, &moe->w.probe, err) : MP_OK;
}

static mp_status interleave_experts(arrange_job *j, moe_layer *moe, mp_error *err)
{
    tensor *const list[] = {&moe->w.gate, &moe->w.up, &moe->w.down};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) MP_TRY(arrange_tensor(j, list[i], err));
    /* of sub-experts the up rows begin in the middle */
    const uint32_t together = moe_hidden_in_one(moe) ? 2 * moe->shape.part_width : moe->shape.part_width;
    const bool sixteens = together % ROWS16 == 0 && moe->gate != MP_GATE_PROXY;
    return sixteens ? arrange_tensor(j, &moe->w.gate_up, err) : MP_OK;
}

static mp_status arrange_experts(arrange_job *j, moe_layer *l, const kernels *k, mp_error *err)
{
    if (k->rows16) MP_TRY(interleave_experts(j, l, err));
    if (k->blocks32) MP_TRY(arrange_tiles(j, &l->shape, &l->w.down_t, err));
    regroup_tiles(j, l);
    return MP_OK;
}

static mp_status arrange_all(arrange_job *j, mp_model *m, bool experts, const kernels *k, mp_error *err)
{
    const bool tied = m->output.data == m->embed.data;
    if (k->rows16) MP_TRY(arrange_tensor(j, &m->output, err));
    if (tied) m->embed.type = m->output.type;
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        if (k->rows16) MP_TRY(interleave_layer(j, m, l, err));
        if (experts) MP_TRY(arrange_experts(j, &m->moe[l], k, err));
    }
    return MP_OK;
}

mp_status model_arrange(mp_model *m, bool experts, const kernels *k, pool *p, mp_error *err)
{
    arrange_job job = {.pool = p};
    const mp_status status = arrange_all(&job, m, experts, k, err);
    free(job.scratch);
    return status;
}
