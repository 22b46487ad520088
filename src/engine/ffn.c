/* The feed-forward half of a layer: a dense block, or routed experts with the shared ones beside them. What is dense
 * or shared runs whole for every token, whatever its operating point. */
#include <math.h>

#include "base/clock.h"
#include "engine/engine.h"

void ffn_layout(arena *a, mp_engine *e)
{
    const mp_model *m = e->model;
    const size_t n = e->params.n_batch, d = m->hp.n_embd;
    size_t widest = 0;
    for (uint32_t l = 0; l < m->hp.n_layers; l++)
        if (m->layers[l].ffn.gate.rows > widest) widest = m->layers[l].ffn.gate.rows;
    if (widest == 0) return;
    e->ffn_gate = arena_take(a, n, widest * sizeof *e->ffn_gate);
    e->ffn_up = arena_take(a, n, widest * sizeof *e->ffn_up);
    e->ffn_out = arena_take(a, n, d * sizeof *e->ffn_out);
    e->ffn_mix = arena_take(a, n, sizeof *e->ffn_mix);
    acts_layout(a, &e->ffn_acts, widest, n);
}

void engine_ffn_input(mp_engine *e, uint32_t layer, const float *x)
{
    const ffn_weights *w = &e->model->layers[layer].ffn;
    acts_set(&e->x, &e->in_acts, x, e->n,
             moe_wants_quantized(&e->model->moe[layer]) || tensor_is_quantized(&w->gate) ||
                 tensor_is_quantized(&w->up) || tensor_is_quantized(&w->mix));
}

void engine_ffn_norm(mp_engine *e, uint32_t layer, const float *h, float *x)
{
    engine_norm(e, &e->model->layers[layer].ffn_norm, h, x);
    engine_ffn_input(e, layer, x);
}

static void swiglu_token(void *arg, size_t t, unsigned thread)
{
    (void)thread;
    mp_engine *e = arg;
    const size_t width = e->ffn_acts.n;
    float *gate = e->ffn_gate + t * width;
    e->x.k->swiglu(gate, e->ffn_up + t * width, gate, width);
}

/* out [n, d] */
static void run_block(mp_engine *e, const ffn_weights *w, float *out)
{
    const size_t width = w->gate.rows;
    e->ffn_acts.n = width;
    const linear_product products[] = {{&w->gate, e->ffn_gate, width}, {&w->up, e->ffn_up, width}};
    linear_several(&e->x, products, 2, &e->in_acts, e->n, e->moe.ptrs);
    pool_for(e->x.pool, e->n, swiglu_token, e);
    acts_set(&e->x, &e->ffn_acts, e->ffn_gate, e->n, tensor_is_quantized(&w->down));
    linear(&e->x, &w->down, &e->ffn_acts, e->n, out, e->model->hp.n_embd, e->moe.ptrs);
}

static void add_shared(mp_engine *e, const ffn_weights *w, float *y)
{
    const size_t d = e->model->hp.n_embd;
    run_block(e, w, e->ffn_out);
    if (w->mix.data) linear(&e->x, &w->mix, &e->in_acts, e->n, e->ffn_mix, 1, e->moe.ptrs);
    for (size_t t = 0; t < e->n; t++) {
        const float scale = w->mix.data ? 1 / (1 + expf(-e->ffn_mix[t])) : 1;
        for (size_t i = 0; i < d; i++) y[t * d + i] += scale * e->ffn_out[t * d + i];
    }
}

mp_status engine_ffn(mp_engine *e, uint32_t layer, float *y, mp_error *err)
{
    const ffn_weights *w = &e->model->layers[layer].ffn;
    const bool experts = model_has_experts(e->model, layer);
    if (experts) {
        const moe_pass pass = {&e->model->moe[layer], &e->in_acts, e->points, e->n, y};
        MP_TRY(moe_exec_run(&e->moe, &pass, err));
    }
    const uint64_t start = clock_now_ns();
    if (!experts)
        run_block(e, w, y);
    else if (w->gate.data)
        add_shared(e, w, y);
    e->times.dense_ns += clock_now_ns() - start;
    return MP_OK;
}
