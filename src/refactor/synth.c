/* mp_synth: keys, list of tensors, header, then every tensor in pieces of about a megabyte. A tensor draws from the
 * stream of the seed that its name says, so that the same parameters give the same file, and a split model routes much
 * as the whole one does: all is the same in both but the down matrices, whose blocks lie the other way. */
#include <stdlib.h>

#include "base/clock.h"
#include "refactor/refactor.h"
#include "refactor/synth.h"

#define PIECE_BYTES        ((size_t)1 << 20)
#define ARTIFACT_ALIGNMENT 4096
#define WHOLE_ALIGNMENT    32
#define MAX_LAYERS         1024

typedef struct synth {
    const mp_synth_params *p;
    const synth_shape *shape;
    uint32_t n_layers;
    dtype type;
    synth_split split;
    synth_list list;
    synth_pools pools;
    gguf_writer *w;
    uint8_t *piece; /* [PIECE_BYTES, or the longest row] */
    size_t piece_bytes;
    uint64_t done, start_ns;
} synth;

/* ---- parameters ---- */

static mp_status choose_split(synth *s, mp_error *err)
{
    const synth_shape *shape = s->shape;
    const uint32_t n = s->p->n_parts ? s->p->n_parts : 1;
    if (shape->width % n)
        return status_fail(err, MP_E_INVALID, "%u parts do not divide the experts' %u neurons", n, shape->width);
    const moe_shape split = {.d = shape->d,
                             .n_experts = shape->n_experts,
                             .n_used = shape->n_used,
                             .width = shape->width,
                             .n_parts = n,
                             .part_width = shape->width / n};
    s->split = (synth_split){.n_parts = n, .rank = n > 1 ? split_default_rank(&split) : 0, .seed = s->p->seed};
    return MP_OK;
}

static mp_status choose(synth *s, mp_error *err)
{
    const char *type = s->p->type ? s->p->type : "Q4_0";
    s->type = dtype_by_name(type);
    if (s->type == DTYPE_NONE)
        return status_fail(err, MP_E_INVALID, "type '%s' is not supported: choose one of %s", type, dtype_list());
    s->n_layers = s->p->n_layers ? s->p->n_layers : s->shape->n_layers;
    if (s->n_layers <= s->shape->n_dense || s->n_layers > MAX_LAYERS)
        return status_fail(err, MP_E_INVALID, "%u layers of %s: choose %u to %u", s->n_layers, s->shape->like,
                           s->shape->n_dense + 1, MAX_LAYERS);
    s->pools.seed = s->p->seed;
    return choose_split(s, err);
}

/* ---- header ---- */

static mp_status declare(synth *s, mp_error *err)
{
    const bool split = s->split.n_parts > 1;
    MP_TRY(gguf_writer_new(split ? ARTIFACT_ALIGNMENT : WHOLE_ALIGNMENT, &s->w, err));
    MP_TRY(synth_shape_keys(s->shape, s->n_layers, s->type, s->w, err));
    MP_TRY(synth_vocab_keys(s->shape, s->w, err));
    if (split) MP_TRY(synth_artifact_keys(s->shape, s->n_layers, &s->split, s->w, err));
    MP_TRY(synth_list_build(s->shape, s->n_layers, s->type, &s->split, &s->list, err));
    s->piece_bytes = PIECE_BYTES;
    for (size_t i = 0; i < s->list.n; i++) {
        const synth_tensor *t = &s->list.tensors[i];
        MP_TRY(gguf_add_tensor(s->w, t->name, t->type, t->n_dims, t->dims, t->rows * t->row_bytes, err));
        if (t->row_bytes > s->piece_bytes) s->piece_bytes = t->row_bytes;
    }
    s->piece = malloc(s->piece_bytes);
    return s->piece ? MP_OK : status_no_memory(err, s->piece_bytes, "rows");
}

/* ---- data ---- */

static mp_status report_progress(synth *s, size_t bytes, mp_error *err)
{
    s->done += bytes;
    if (!s->p->progress) return MP_OK;
    const mp_progress progress = {
        .stage = "write",
        .unit = "bytes",
        .done = s->done,
        .total = s->list.bytes,
        .elapsed_ns = clock_now_ns() - s->start_ns,
        .layer = -1,
        .n_layers = -1,
    };
    if (s->p->progress(s->p->user, &progress)) return MP_OK;
    return status_fail(err, MP_E_INTERRUPTED, "interrupted");
}

/* Rows from number `first` on, of one stream, or of two that take turns. */
static void normal_rows(const synth_tensor *t, const synth_pool *from, rng streams[2], size_t first, size_t rows,
                        uint8_t *out)
{
    const size_t turn = t->turn ? t->turn : t->rows;
    for (size_t end = first + rows; first < end;) {
        const size_t left = turn - first % turn, n = left < end - first ? left : end - first;
        synth_pool_rows(from, &streams[first / turn % 2], (size_t)t->dims[0], n, out);
        out += n * t->row_bytes;
        first += n;
    }
}

static void fill_rows(const synth_tensor *t, const synth_pool *from, rng streams[2], size_t first, size_t rows,
                      void *out)
{
    const size_t cols = (size_t)t->dims[0], n = rows * cols;
    switch (t->fill) {
    case SYNTH_NORMAL:
        normal_rows(t, from, streams, first, rows, out);
        break;
    case SYNTH_ONES:
    case SYNTH_ZEROS:
        for (size_t i = 0; i < n; i++) ((float *)out)[i] = t->fill == SYNTH_ONES ? 1 : 0;
        break;
    case SYNTH_INDICES:
        for (size_t i = 0; i < n; i++) ((int32_t *)out)[i] = (int32_t)(i % cols);
        break;
    }
}

static mp_status write_tensor(synth *s, size_t i, mp_error *err)
{
    const synth_tensor *t = &s->list.tensors[i];
    const size_t most = s->piece_bytes / t->row_bytes;
    const synth_pool *from = NULL;
    rng streams[2];
    for (int k = 0; k < 2; k++) rng_init_stream(&streams[k], s->p->seed, t->streams[k]);
    if (t->fill == SYNTH_NORMAL) MP_TRY(synth_pools_get(&s->pools, (dtype)t->type, t->deviation, &from, err));
    for (size_t row = 0; row < t->rows;) {
        const size_t rows = t->rows - row < most ? t->rows - row : most;
        fill_rows(t, from, streams, row, rows, s->piece);
        MP_TRY(gguf_writer_data(s->w, s->piece, rows * t->row_bytes, err));
        MP_TRY(report_progress(s, rows * t->row_bytes, err));
        row += rows;
    }
    return MP_OK;
}

static mp_status write_model(synth *s, const char *out, mp_error *err)
{
    MP_TRY(choose(s, err));
    MP_TRY(declare(s, err));
    MP_TRY(gguf_writer_begin(s->w, out, s->p->force, 0, err));
    s->start_ns = clock_now_ns();
    for (size_t i = 0; i < s->list.n; i++) MP_TRY(write_tensor(s, i, err));
    return gguf_writer_commit(s->w, err);
}

mp_status synth_write(const char *out, const synth_shape *shape, const mp_synth_params *params, mp_error *err)
{
    synth s = {.p = params, .shape = shape};
    const mp_status status = write_model(&s, out, err);
    gguf_writer_free(s.w);
    synth_list_clear(&s.list);
    synth_pools_clear(&s.pools);
    free(s.piece);
    return status;
}

mp_status mp_synth(const char *out, const mp_synth_params *params, mp_error *err)
{
    const synth_shape *shape;
    MP_TRY(synth_shape_find(params->like, &shape, err));
    return synth_write(out, shape, params, err);
}
