/* The expert work itself: pairs (sub-expert, token) are grouped so that a sub-expert's weights are read once for all
 * its tokens. Work items are row blocks (gate/up, whole down) or runs of outputs (transposed down), never parts of a
 * sum. */
#include "engine/moe_exec.h"

#include <string.h>

#include "base/clock.h"

/* Rows of gate and of up in a work item, where they are two products. */
#define HIDDEN_ROWS 32

/* A token's rows of a work item beside the hidden ones: of up, or of gate and up where they are one product. */
static size_t up_width(const moe_shape *s)
{
    const size_t both = moe_one_product(s) ? 2 * s->part_width : 0;
    return both > HIDDEN_ROWS ? both : HIDDEN_ROWS;
}

static size_t max_pairs(const moe_exec *m)
{
    return m->cap * moe_full_budget(&m->shape);
}

/* Tiles of down rows in a work item, at most: see run_down_tiles(). */
static size_t most_down_tiles(const moe_exec *m)
{
    const size_t tiles = moe_tiles(&m->shape);
    return tiles % m->threads == 0 ? tiles / m->threads : 1;
}

/* A token's sums stand a line further on than they are long: rows that are a power of two apart share few places in a
 * cache. */
static size_t sums_stride(size_t width)
{
    return width + 64 / sizeof(float);
}

void moe_exec_layout(arena *a, moe_exec *m, uint32_t max_rank, uint32_t proxy_neurons)
{
    const moe_shape *s = &m->shape;
    const size_t cap = m->cap, threads = m->threads, full = moe_full_budget(s),
                 subs = (size_t)s->n_parts * s->n_experts;
    m->router = arena_take(a, cap * s->n_experts, sizeof *m->router);
    m->choice = arena_take(a, threads * 2, s->n_experts * sizeof *m->choice);
    m->experts = arena_take(a, cap * s->n_used, sizeof *m->experts);
    m->mix = arena_take(a, cap * s->n_used, sizeof *m->mix);
    m->scores = arena_take(a, cap * full, sizeof *m->scores);
    m->proxy = arena_take(a, cap * full, proxy_neurons * sizeof *m->proxy);
    m->z = arena_take(a, cap, max_rank * sizeof *m->z);
    acts_layout(a, &m->gate_in, 0, cap);
    acts_layout(a, &m->z_acts, max_rank, cap);
    m->gated = arena_take(a, cap, sizeof *m->gated);
    m->proxy_up = arena_take(a, threads, proxy_neurons * sizeof *m->proxy_up);
    m->keep = arena_take(a, threads, full);
    m->sort = arena_take(a, threads * full, sizeof *m->sort);
    m->n_run = arena_take(a, cap, sizeof *m->n_run);
    m->run = arena_take(a, cap * full, sizeof *m->run);
    m->group_start = arena_take(a, subs + 1, sizeof *m->group_start);
    m->active = arena_take(a, subs, sizeof *m->active);
    for (unsigned part = 0; part < MOE_PARTS; part++) m->at[part] = arena_take(a, subs, sizeof *m->at[part]);
    m->pair_token = arena_take(a, max_pairs(m), sizeof *m->pair_token);
    m->pair_run = arena_take(a, max_pairs(m), sizeof *m->pair_run);
    m->hidden = arena_take(a, max_pairs(m), s->part_width * sizeof *m->hidden);
    m->up = arena_take(a, threads * cap, up_width(s) * sizeof *m->up);
    m->ptrs = arena_take(a, threads * 4 * cap, sizeof *m->ptrs);
    moe_disk_layout(a, m);
    if (s->tile) {
        m->sums = arena_take(a, threads * cap, sums_stride(most_down_tiles(m) * s->tile) * sizeof *m->sums);
        return;
    }
    acts_layout(a, &m->hidden_acts, s->width, max_pairs(m));
    m->down_tmp = arena_take(a, threads * cap, MOE_DOWN_ROWS * sizeof *m->down_tmp);
}

bool moe_wants_quantized(const moe_layer *layer)
{
    const moe_weights *w = &layer->w;
    return tensor_is_quantized(&w->router) || tensor_is_quantized(&w->gate) || tensor_is_quantized(&w->up) ||
           tensor_is_quantized(&w->gate_up) || tensor_is_quantized(&w->probe_in) ||
           (!w->probe_in.data && tensor_is_quantized(&w->probe));
}

/* Counting sort by sub-expert; token order is kept. */
static void group_pairs(moe_exec *m, size_t tokens)
{
    const moe_shape *s = &m->shape;
    const uint32_t full = moe_full_budget(s), subs = s->n_parts * s->n_experts;
    size_t *start = m->group_start;
    memset(start, 0, (subs + 1) * sizeof *start);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t t = 0; t < tokens; t++)
            for (uint32_t i = 0; i < m->n_run[t]; i++) {
                const uint32_t run = m->run[t * full + i];
                const uint32_t sub = m->experts[t * s->n_used + run / s->n_parts] * s->n_parts + run % s->n_parts;
                if (pass == 0) {
                    start[sub + 1]++;
                } else {
                    m->pair_token[start[sub]] = (uint32_t)t;
                    m->pair_run[start[sub]++] = run;
                }
            }
        if (pass == 0)
            for (uint32_t i = 0; i < subs; i++) start[i + 1] += start[i];
    }
    memmove(start + 1, start, subs * sizeof *start); /* filling moved every start to its end */
    start[0] = 0;
    m->n_active = 0;
    for (uint32_t i = 0; i < subs; i++)
        if (start[i + 1] > start[i]) m->active[m->n_active++] = i;
}

/* Where the weights of the active groups stand in the mapping. */
static void point_at_mapping(moe_exec *m, const moe_layer *layer)
{
    for (unsigned part = 0; part < MOE_PARTS && moe_part(layer, part); part++)
        for (size_t g = 0; g < m->n_active; g++) m->at[part][g] = moe_part_of(layer, part, m->active[g]);
}

typedef struct apply_job {
    moe_exec *m;
    const moe_pass *pass;
    const uint32_t *groups; /* of hidden items; NULL: all in order */
    size_t n_groups;
    uint32_t blocks;               /* of hidden rows */
    size_t first, end;             /* groups of the down product */
    uint32_t down_rows;            /* of whole experts, in an item */
    size_t ranges, tiles_per_item; /* ranges: of tokens */
} apply_job;

static size_t group_of(const apply_job *j, size_t i)
{
    return j->groups ? j->groups[i] : i;
}

/* ---- gate, up, SwiGLU ---- */

/* The proxy gate has computed the first r neurons of this group already, unless one of its tokens runs at full. */
static uint32_t reuse_proxies(const apply_job *j, size_t begin, size_t end)
{
    const moe_exec *m = j->m;
    const uint32_t r = j->pass->layer->proxy_neurons, full = moe_full_budget(&m->shape), width = m->shape.part_width;
    if (j->pass->layer->gate != MP_GATE_PROXY || r > HIDDEN_ROWS) return 0;
    for (size_t i = begin; i < end; i++)
        if (j->pass->points[m->pair_token[i]] == 0) return 0;
    for (size_t i = begin; i < end; i++) {
        const float *a = m->proxy + ((size_t)m->pair_token[i] * full + m->pair_run[i]) * r;
        memcpy(m->hidden + i * width, a, r * sizeof *a);
    }
    return r;
}

static void scale_rows(const apply_job *j, size_t begin, size_t end, uint32_t row, uint32_t rows)
{
    const moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    for (size_t i = begin; i < end; i++) {
        const uint32_t t = m->pair_token[i], k = m->pair_run[i] / s->n_parts;
        const float scale = m->mix[(size_t)t * s->n_used + k] * j->pass->layer->rungs[j->pass->points[t]].gain;
        float *h = m->hidden + i * s->part_width + row;
        for (uint32_t r = 0; r < rows; r++) h[r] *= scale;
    }
}

/* All of a sub-expert: gate and up rows in one product. `next`: the weights that this thread will most likely want
 * after these. */
static void hidden_whole_sub(const apply_job *j, size_t g, const void *next, unsigned thread)
{
    moe_exec *m = j->m;
    const tensor *w = &j->pass->layer->w.gate_up;
    const uint32_t width = m->shape.part_width, sub = m->active[g];
    const size_t begin = m->group_start[sub], stop = m->group_start[sub + 1], n = stop - begin;
    float **out = m->ptrs + (size_t)thread * 4 * m->cap, *rows = m->up + thread * m->cap * up_width(&m->shape);
    const void **in = (const void **)(out + m->cap);
    for (size_t i = 0; i < n; i++) {
        in[i] = acts_for(j->pass->in, w)[m->pair_token[begin + i]];
        out[i] = rows + i * 2 * width;
    }
    m->x->k->rows_dot(w->type, m->shape.d, m->at[0][g], w->row_bytes, 2 * width, in, out, n, next);
    for (size_t i = 0; i < n; i++) m->x->k->swiglu(out[i], out[i] + width, m->hidden + (begin + i) * width, width);
    scale_rows(j, begin, stop, 0, width);
}

static void hidden_sub_item(void *arg, size_t item, unsigned thread)
{
    const apply_job *j = arg;
    const moe_exec *m = j->m;
    const size_t next = item + 1;
    hidden_whole_sub(j, group_of(j, item), next < j->n_groups ? m->at[0][group_of(j, next)] : NULL, thread);
}

/* The first weights of an item of hidden_item(), NULL past the last. */
static const void *hidden_item_weights(const apply_job *j, size_t item)
{
    if (item >= j->n_groups * j->blocks) return NULL;
    return j->m->at[0][group_of(j, item / j->blocks)] +
           item % j->blocks * HIDDEN_ROWS * moe_part(j->pass->layer, 0)->row_bytes;
}

static void hidden_item(void *arg, size_t item, unsigned thread)
{
    const apply_job *j = arg;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const moe_weights *w = &j->pass->layer->w;
    const kernels *k = m->x->k;
    const size_t g = group_of(j, item / j->blocks);
    const uint32_t sub = m->active[g], first = (uint32_t)(item % j->blocks) * HIDDEN_ROWS;
    const uint32_t end = first + HIDDEN_ROWS < s->part_width ? first + HIDDEN_ROWS : s->part_width;
    const size_t begin = m->group_start[sub], stop = m->group_start[sub + 1], n = stop - begin;
    const tensor *gate = s->tile ? &w->gate_up : &w->gate, *up = s->tile ? &w->gate_up : &w->up;
    const uint32_t row = first + (first == 0 ? reuse_proxies(j, begin, stop) : 0),
                   up_row = s->tile ? s->part_width + row : row;
    float **out = m->ptrs + (size_t)thread * 4 * m->cap, **up_out = out + m->cap;
    float *rows = m->up + thread * m->cap * up_width(s);
    const void **in = (const void **)(out + 2 * m->cap), **up_in = in + m->cap;
    for (size_t i = 0; i < n; i++) {
        in[i] = acts_for(j->pass->in, gate)[m->pair_token[begin + i]];
        up_in[i] = acts_for(j->pass->in, up)[m->pair_token[begin + i]];
        out[i] = m->hidden + (begin + i) * s->part_width + row;
        up_out[i] = rows + i * HIDDEN_ROWS;
    }
    const uint8_t *gate_rows = m->at[0][g] + row * gate->row_bytes;
    const uint8_t *up_rows = m->at[s->tile ? 0 : 1][g] + up_row * up->row_bytes;
    k->rows_dot(gate->type, s->d, gate_rows, gate->row_bytes, end - row, in, out, n, up_rows);
    k->rows_dot(up->type, s->d, up_rows, up->row_bytes, end - row, up_in, up_out, n, hidden_item_weights(j, item + 1));
    for (size_t i = 0; i < n; i++) k->swiglu(out[i], up_out[i], out[i], end - row);
    scale_rows(j, begin, stop, first, end - first);
}

/* ---- down, transposed and tiled ---- */

static size_t first_pair_of(const moe_exec *m, size_t begin, size_t end, size_t token)
{
    while (begin < end) {
        const size_t mid = begin + (end - begin) / 2;
        if (m->pair_token[mid] < token)
            begin = mid + 1;
        else
            end = mid;
    }
    return begin;
}

/* The first weights that an item reads of group g, NULL past the last. */
static const void *down_tile_at(const apply_job *j, size_t first, size_t g)
{
    if (g >= j->end) return NULL;
    return j->m->at[1][g] + moe_down_offset(j->pass->layer, (uint32_t)first);
}

/* A few runs of W outputs, side by side, for one range of tokens. They are summed up in memory of the thread's own: in
 * y, where threads' outputs are neighbours, a core that reads ahead would take lines away from another that adds to
 * them. */
static void down_tile_item(void *arg, size_t item, unsigned thread)
{
    const apply_job *j = arg;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const tensor *w = &j->pass->layer->w.down_t;
    const size_t first = item / j->ranges * j->tiles_per_item, range = item % j->ranges;
    const size_t tokens = j->pass->tokens, t0 = tokens * range / j->ranges, t1 = tokens * (range + 1) / j->ranges;
    const size_t width = j->tiles_per_item * s->tile, bytes = width * sizeof(float), stride = sums_stride(width);
    float **y = m->ptrs + (size_t)thread * 4 * m->cap, *sums = m->sums + thread * m->cap * stride;
    float *const out = j->pass->y + first * s->tile;
    const float **a = (const float **)(y + m->cap);
    if (j->first == 0)
        memset(sums, 0, (t1 - t0) * stride * sizeof *sums);
    else
        for (size_t t = t0; t < t1; t++) memcpy(sums + (t - t0) * stride, out + t * s->d, bytes);
    for (size_t g = j->first; g < j->end; g++) {
        size_t begin = m->group_start[m->active[g]], end = m->group_start[m->active[g] + 1];
        if (j->ranges > 1) {
            begin = first_pair_of(m, begin, end, t0);
            end = first_pair_of(m, begin, end, t1);
            if (begin == end) continue;
        }
        for (size_t p = begin; p < end; p++) {
            a[p - begin] = m->hidden + p * s->part_width;
            y[p - begin] = sums + (m->pair_token[p] - t0) * stride;
        }
        m->x->k->rows_accumulate(w->type, s->tile, j->tiles_per_item, down_tile_at(j, first, g), w->row_bytes,
                                 s->part_width, a, y, end - begin, down_tile_at(j, first, g + 1));
    }
    for (size_t t = t0; t < t1; t++) memcpy(out + t * s->d, sums + (t - t0) * stride, bytes);
}

/* A thread takes neighbouring tiles of every sub-expert: memory is read faster in long pieces, and the hidden rows that
 * all tiles take come from a near cache. An item stays within tiles that stand together; where that does not come out
 * even, tiles are shared out one by one. */
static void run_down_tiles(apply_job *j)
{
    const size_t tiles = moe_tiles(&j->m->shape), together = moe_tiles_together(j->pass->layer),
                 threads = j->m->threads, most = most_down_tiles(j->m), wanted = 4 * threads, tokens = j->pass->tokens;
    j->tiles_per_item = 1;
    if (tiles % threads == 0 && together % most == 0)
        j->tiles_per_item = most;
    else if (tiles % threads == 0 && most % together == 0)
        j->tiles_per_item = together;
    else if (tiles < wanted)
        j->ranges = (wanted + tiles - 1) / tiles;
    if (j->ranges > tokens) j->ranges = tokens;
    pool_for(j->m->x->pool, tiles / j->tiles_per_item * j->ranges, down_tile_item, j);
}

/* ---- down, whole experts ---- */

static void down_rows_item(void *arg, size_t item, unsigned thread)
{
    const apply_job *j = arg;
    moe_exec *m = j->m;
    const moe_shape *s = &m->shape;
    const tensor *w = &j->pass->layer->w.down;
    const uint32_t row = (uint32_t)item * j->down_rows, left = s->d - row,
                   rows = left < j->down_rows ? left : j->down_rows;
    float **out = m->ptrs + (size_t)thread * 4 * m->cap, *tmp = m->down_tmp + (size_t)thread * m->cap * MOE_DOWN_ROWS;
    for (size_t i = 0; i < j->pass->tokens; i++) out[i] = tmp + i * j->down_rows;
    for (size_t t = 0; j->first == 0 && t < j->pass->tokens; t++)
        memset(j->pass->y + t * s->d + row, 0, rows * sizeof *tmp);
    for (size_t g = j->first; g < j->end; g++) {
        const uint32_t e = m->active[g];
        const size_t begin = m->group_start[e], n = m->group_start[e + 1] - begin;
        const uint8_t *next = g + 1 < j->end ? m->at[2][g + 1] + row * w->row_bytes : NULL;
        m->x->k->rows_dot(w->type, s->width, m->at[2][g] + row * w->row_bytes, w->row_bytes, rows,
                          acts_for(&m->hidden_acts, w) + begin, out, n, next);
        for (size_t i = 0; i < n; i++) {
            float *y = j->pass->y + m->pair_token[begin + i] * (size_t)s->d + row;
            for (uint32_t r = 0; r < rows; r++) y[r] += out[i][r];
        }
    }
}

/* Items go through all experts, so few tokens, which are computed faster than memory answers, want long ones. */
static void run_down_rows(apply_job *j)
{
    const moe_exec *m = j->m;
    const size_t d = m->shape.d, room = m->cap / j->pass->tokens * MOE_DOWN_ROWS;
    size_t rows = d / (4 * m->threads) / MOE_DOWN_ROWS * MOE_DOWN_ROWS;
    if (rows > MOE_MOST_DOWN_ROWS) rows = MOE_MOST_DOWN_ROWS;
    if (rows > room) rows = room;
    if (rows < MOE_DOWN_ROWS) rows = MOE_DOWN_ROWS;
    j->down_rows = (uint32_t)rows;
    pool_for(m->x->pool, (d + j->down_rows - 1) / j->down_rows, down_rows_item, j);
}

/* Hidden rows of pairs [begin, end) as activations. */
static void set_hidden_acts(moe_exec *m, const moe_layer *layer, size_t begin, size_t end)
{
    acts rows = m->hidden_acts;
    rows.f32 += begin;
    rows.quant += begin;
    rows.quant_rows += begin * rows.quant_stride;
    acts_set(m->x, &rows, m->hidden + begin * m->shape.width, end - begin, tensor_is_quantized(&layer->w.down));
}

/* ---- apply ---- */

void moe_exec_hidden(moe_exec *m, const moe_pass *pass, const uint32_t *groups, size_t n)
{
    const moe_shape *s = &m->shape;
    apply_job job = {.m = m, .pass = pass, .groups = groups, .n_groups = n};
    job.blocks = (s->part_width + HIDDEN_ROWS - 1) / HIDDEN_ROWS;
    if (moe_hidden_in_one(pass->layer))
        pool_for(m->x->pool, n, hidden_sub_item, &job);
    else
        pool_for(m->x->pool, n * job.blocks, hidden_item, &job);
}

void moe_exec_down(moe_exec *m, const moe_pass *pass, size_t first, size_t end)
{
    const moe_shape *s = &m->shape;
    apply_job job = {.m = m, .pass = pass, .first = first, .end = end, .ranges = 1};
    if (s->tile) {
        run_down_tiles(&job);
    } else {
        if (first < end)
            set_hidden_acts(m, pass->layer, m->group_start[m->active[first]], m->group_start[m->active[end - 1] + 1]);
        run_down_rows(&job);
    }
}

mp_status moe_exec_apply(moe_exec *m, const moe_pass *pass, mp_error *err)
{
    group_pairs(m, pass->tokens);
    if (m->disk.store) return moe_disk_apply(m, pass, err);
    point_at_mapping(m, pass->layer);
    moe_exec_hidden(m, pass, NULL, m->n_active);
    moe_exec_down(m, pass, 0, m->n_active);
    return MP_OK;
}

mp_status moe_exec_run(moe_exec *m, const moe_pass *pass, mp_error *err)
{
    const uint64_t start = clock_now_ns();
    moe_exec_route(m, pass->layer, pass->in, pass->tokens);
    const uint64_t routed = clock_now_ns();
    moe_exec_score(m, pass->layer, pass->in, pass->points, pass->tokens);
    moe_exec_select(m, pass->layer, pass->points, pass->tokens);
    const uint64_t gated = clock_now_ns();
    const mp_status status = moe_exec_apply(m, pass, err);
    m->router_ns += routed - start;
    m->gate_ns += gated - routed;
    m->experts_ns += clock_now_ns() - gated;
    return status;
}
