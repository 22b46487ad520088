/* Opening an engine: fill in the defaults, count the memory, take it. The plan is the count alone. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_BATCH 512

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

/* A head's part of a cached row is whole blocks. */
static mp_status check_kv_type(const mp_model *m, mp_kv_type type, mp_error *err)
{
    const cache_shape s = attention_cache_shape(&m->hp);
    if (type == MP_KV_F16 || type == MP_KV_F32) return MP_OK;
    if (type != MP_KV_Q8_0) return status_fail(err, MP_E_INVALID, "unknown key-value cache type");
    const uint32_t block = dtype_get(DTYPE_Q8_0)->block;
    if (s.key_dim % block == 0 && s.value_dim % block == 0) return MP_OK;
    return status_fail(
        err, MP_E_UNSUPPORTED,
        "a Q8_0 key-value cache needs heads of a multiple of %u elements, here they have %u and %u: use F16", block,
        s.key_dim, s.value_dim);
}

static mp_status fill_defaults(const mp_model *m, const mp_engine_params *params, mp_engine_params *p, mp_error *err)
{
    *p = params ? *params : (mp_engine_params){0};
    if (m->hp.n_layers == 0) return status_fail(err, MP_E_INVALID, "the model was opened for its vocabulary only");
    if (p->n_ctx > m->hp.n_ctx)
        return status_fail(err, MP_E_INVALID, "a context of %u is longer than the model's %u", p->n_ctx, m->hp.n_ctx);
    p->n_ctx = or_default(p->n_ctx, m->hp.n_ctx);
    p->n_seqs = or_default(p->n_seqs, 1);
    p->n_batch = or_default(p->n_batch, DEFAULT_BATCH);
    p->n_logits = or_default(p->n_logits, p->n_batch);
    if (p->n_logits > p->n_batch) p->n_logits = p->n_batch;
    if (p->kv_type == MP_KV_DEFAULT) p->kv_type = MP_KV_F16;
    MP_TRY(check_kv_type(m, p->kv_type, err));
    if (p->n_seqs > 1u << 16 || p->n_batch > 1u << 16)
        return status_fail(err, MP_E_LIMIT, "at most 65536 sequences and 65536 tokens a step");
    return MP_OK;
}

/* ---- memory ---- */

static void layout_scratch(arena *a, mp_engine *e)
{
    const mp_engine_params *p = &e->params;
    const size_t n = p->n_batch, d = e->model->hp.n_embd;
    e->batch = arena_take(a, n, sizeof *e->batch);
    e->points = arena_take(a, n, sizeof *e->points);
    if (p->store.deadline_ns) {
        e->floors = arena_take(a, n, sizeof *e->floors);
        e->moe.disk.lost = arena_take(a, n, sizeof *e->moe.disk.lost);
    }
    e->moe.disk.floors = e->floors;
    e->subs_run = arena_take(a, n, sizeof *e->subs_run);
    e->logit_row = arena_take(a, n, sizeof *e->logit_row);
    e->seq_len = arena_take(a, p->n_seqs, sizeof *e->seq_len);
    e->layer_run = arena_take(a, e->model->hp.n_layers, sizeof *e->layer_run);
    e->watched_experts = arena_take(a, e->model->hp.n_experts, sizeof *e->watched_experts);
    e->h = arena_take(a, n, d * sizeof *e->h);
    e->norm = arena_take(a, n, d * sizeof *e->norm);
    e->out = arena_take(a, n, d * sizeof *e->out);
    acts_layout(a, &e->in_acts, d, n);
    attention_layout(a, e);
    const moe_layer *first = model_first_moe(e->model);
    e->moe.x = &e->x;
    e->moe.shape = first->shape;
    e->moe.cap = n;
    e->moe.threads = p->threads;
    uint32_t rank = 0; /* layers may differ */
    for (uint32_t l = 0; l < e->model->hp.n_layers; l++)
        if (e->model->moe[l].w.probe_in.rows > rank) rank = e->model->moe[l].w.probe_in.rows;
    ffn_layout(a, e);
    moe_exec_layout(a, &e->moe, rank, first->gate == MP_GATE_PROXY ? first->proxy_neurons : 0);
}

static void layout(mp_engine *e)
{
    const hparams *hp = &e->model->hp;
    const mp_engine_params *p = &e->params;
    const cache_shape *s = &e->shape;
    e->shape = attention_cache_shape(hp);
    layout_scratch(&e->memory, e);
    e->kv = (kv_cache){
        .n_layers = hp->n_layers,
        .key_bytes = attention_row_bytes(p->kv_type, (size_t)s->heads * s->key_dim),
        .value_bytes = hp->kv_lora ? 0 : attention_row_bytes(p->kv_type, (size_t)s->heads * s->value_dim),
        .n_seqs = p->n_seqs,
        .n_pages = p->n_pages,
        .pages_per_seq = (p->n_ctx + MP_KV_PAGE - 1) / MP_KV_PAGE,
    };
    kv_layout(&e->kv_memory, &e->kv);
    e->logits = arena_take(&e->logits_memory, p->n_logits, hp->n_vocab * sizeof *e->logits);
}

static mp_status reserve(mp_engine *e, mp_error *err)
{
    MP_TRY(arena_reserve(&e->memory, "the engine's scratch memory", err));
    MP_TRY(arena_reserve(&e->kv_memory, "the key-value cache (shorten the context)", err));
    return arena_reserve(&e->logits_memory, "logits", err);
}

mp_status mp_engine_plan(const mp_model *m, const mp_engine_params *params, mp_plan *plan, mp_error *err)
{
    mp_engine e = {.model = m};
    MP_TRY(fill_defaults(m, params, &e.params, err));
    *plan = (mp_plan){0};
    MP_TRY(disk_plan(m, &e.params.store, &e.moe.disk.wanted, plan, err));
    if (!e.params.threads) e.params.threads = pool_default_threads();
    layout(&e);
    if (e.memory.overflow || e.kv_memory.overflow || e.logits_memory.overflow)
        return status_fail(err, MP_E_LIMIT,
                           "the engine's memory overflows; ask for a shorter context or fewer sequences");
    plan->weights_other = m->info.bytes_total - m->info.bytes_experts;
    if (e.moe.disk.wanted) plan->weights_other += proxies_bytes(m);
    plan->weights_mapped = model_stays_mapped(m, e.params.store.memory);
    plan->kv_cache = e.kv_memory.used;
    plan->scratch = e.memory.used;
    plan->logits = e.logits_memory.used;
    return MP_OK;
}

/* ---- lifecycle ---- */

static mp_status open_engine(mp_engine *e, const mp_engine_params *params, mp_error *err)
{
    MP_TRY(fill_defaults(e->model, params, &e->params, err));
    e->x.k = kernels_get(e->params.isa);
    if (!e->x.k)
        return status_fail(err, MP_E_UNSUPPORTED, "instruction set '%s' is unknown or this CPU lacks it",
                           e->params.isa);
    MP_TRY(pool_new(e->params.threads, &e->x.pool, err));
    if (e->params.pin) pool_pin(e->x.pool);
    e->params.threads = pool_threads(e->x.pool);
    MP_TRY(disk_open(e, err));
    layout(e);
    MP_TRY(reserve(e, err));
    layout(e);
    kv_start(&e->kv);
    attention_start(e);
    return MP_OK;
}

mp_status mp_engine_open(const mp_model *m, const mp_engine_params *params, mp_engine **out, mp_error *err)
{
    *out = NULL;
    mp_engine *e = calloc(1, sizeof *e);
    if (!e) return status_no_memory(err, sizeof *e, "an engine");
    e->model = m;
    mp_status status = open_engine(e, params, err);
    if (status) {
        mp_engine_close(e);
        return status;
    }
    *out = e;
    return MP_OK;
}

void mp_engine_close(mp_engine *e)
{
    if (!e) return;
    disk_close(e);
    pool_free(e->x.pool);
    arena_clear(&e->memory);
    arena_clear(&e->kv_memory);
    arena_clear(&e->logits_memory);
    free(e);
}

const char *mp_engine_isa(const mp_engine *e)
{
    return e->x.k->isa;
}

uint32_t mp_engine_threads(const mp_engine *e)
{
    return e->params.threads;
}
