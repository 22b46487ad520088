/* The store of an engine: what of the file it reads, how much it may hold, and what it has done.
 *
 * A model that fits under its cap needs none, so that a cap costs nothing where it does not bind. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static uint32_t n_subs(const mp_model *m)
{
    return m->info.n_parts * m->hp.n_experts;
}

/* What one token at full needs of a layer; less than that would read a layer in pieces for every token. */
static uint32_t least_units(const mp_model *m)
{
    return m->info.n_parts * m->hp.n_used;
}

/* Where parts begin in the model's files; parts [n_moe_layers, n_parts]. */
static mp_status fill_parts(const mp_model *m, uint32_t n_parts, store_part *parts, mp_error *err)
{
    for (uint32_t l = 0; l < m->info.n_moe_layers; l++)
        for (uint32_t p = 0; p < n_parts; p++) {
            const tensor *w = moe_part(&m->moe[m->hp.n_dense + l], p);
            int file;
            uint64_t offset;
            if (!gguf_locate(m->file, w->data, &file, &offset))
                return status_fail(err, MP_E_INVALID, "%s: its experts are in no file", gguf_path(m->file));
            parts[l * n_parts + p] = (store_part){offset, (uint64_t)w->rows * w->row_bytes, (uint32_t)file};
        }
    return MP_OK;
}

static void free_shape(store_shape *shape)
{
    free((void *)shape->parts);
    free((void *)shape->files);
}

/* Ends with free_shape(), where it succeeds. */
static mp_status make_shape(const mp_model *m, store_shape *shape, mp_error *err)
{
    uint32_t n_parts = 0;
    while (n_parts < MOE_PARTS && moe_part(model_first_moe(m), n_parts)) n_parts++;
    const uint32_t n_files = (uint32_t)gguf_n_parts(m->file);
    store_part *parts = calloc((size_t)m->info.n_moe_layers * n_parts, sizeof *parts);
    store_file *files = calloc(n_files, sizeof *files);
    *shape = (store_shape){m->info.n_moe_layers, n_subs(m), n_parts, parts, n_files, files};
    mp_status status = MP_OK;
    if (!parts || !files)
        status = status_no_memory(err, (size_t)m->info.n_moe_layers * n_parts * sizeof *parts, "a store");
    for (uint32_t i = 0; i < n_files && !status; i++)
        files[i] = (store_file){gguf_part_path(m->file, (int)i), gguf_part_stamp(m->file, (int)i)};
    if (!status) status = fill_parts(m, n_parts, parts, err);
    if (status) free_shape(shape);
    return status;
}

static mp_status check_params(const mp_store_params *p, mp_error *err)
{
    if (!(p->prefer_resident >= 0 && p->prefer_resident < 1))
        return status_fail(err, MP_E_INVALID, "a bound of %g for resident sub-experts: choose one from 0 to below 1",
                           (double)p->prefer_resident);
    if (!(p->pin_share >= 0 && p->pin_share <= 1))
        return status_fail(err, MP_E_INVALID, "a share of %g to pin: choose one from 0 to 1", p->pin_share);
    return MP_OK;
}

mp_status disk_plan(const mp_model *m, const mp_store_params *params, bool *wanted, mp_plan *plan, mp_error *err)
{
    store_shape shape;
    *wanted = false;
    plan->weights_experts = m->info.bytes_experts;
    plan->experts_least = m->info.bytes_experts;
    MP_TRY(check_params(params, err));
    if (make_shape(m, &shape, NULL)) return MP_OK; /* cannot be capped: disk_open() says why where it matters */
    plan->experts_least = store_memory_for(&shape, least_units(m));
    *wanted = model_is_capped(m, params->memory);
    if (*wanted) plan->weights_experts = params->memory;
    free_shape(&shape);
    return MP_OK;
}

/* How often each unit ran in calibration, layer by layer; the caller frees. NULL where nothing is to be pinned. */
static mp_status collect_use(const mp_model *m, double pin_share, float **out, mp_error *err)
{
    const uint32_t subs = n_subs(m);
    *out = NULL;
    if (!(pin_share > 0)) return MP_OK;
    for (uint32_t l = 0; l < m->info.n_moe_layers; l++)
        if (!m->moe[m->hp.n_dense + l].w.use)
            return status_fail(err, MP_E_UNSUPPORTED,
                               "%s: does not say which sub-experts calibration used most, so none can be pinned: "
                               "refactor the model again, or leave out the share to pin",
                               gguf_path(m->file));
    float *use = malloc((size_t)m->info.n_moe_layers * subs * sizeof *use);
    if (!use) return status_no_memory(err, (size_t)m->info.n_moe_layers * subs * sizeof *use, "the use of sub-experts");
    for (uint32_t l = 0; l < m->info.n_moe_layers; l++)
        memcpy(use + (size_t)l * subs, m->moe[m->hp.n_dense + l].w.use, subs * sizeof *use);
    *out = use;
    return MP_OK;
}

/* Where resident sub-experts are preferred, what is asked for follows what is held: whichever policy leads, adaptive
 * would find that it misses less. */
static const char *policy_name(const mp_store_params *p)
{
    return p->eviction || !(p->prefer_resident > 0) ? p->eviction : "lfru";
}

static mp_status open_store(mp_engine *e, const store_shape *shape, mp_error *err)
{
    const mp_model *m = e->model;
    const mp_store_params *p = &e->params.store;
    float *use;
    MP_TRY(collect_use(m, p->pin_share, &use, err));
    const store_params params = {
        .memory = p->memory,
        .eviction = policy_name(p),
        .backend = p->backend,
        .depth = p->depth,
        .use = use,
        .pin_share = p->pin_share,
    };
    const mp_status status = store_open(shape, &params, least_units(m), &e->moe.disk.store, e->notice, err);
    free(use);
    return status;
}

mp_status disk_open(mp_engine *e, mp_error *err)
{
    const mp_model *m = e->model;
    const mp_store_params *p = &e->params.store;
    store_shape shape;
    MP_TRY(check_params(p, err));
    e->moe.disk.wanted = model_is_capped(m, p->memory);
    if (e->moe.disk.wanted) { /* first: it refuses a cap that is too small, before anything is read */
        MP_TRY(make_shape(m, &shape, err));
        const mp_status status = open_store(e, &shape, err);
        free_shape(&shape);
        MP_TRY(status);
        e->moe.disk.ahead.off = e->params.store.no_read_ahead;
        if (p->prefer_resident > 0) e->moe.disk.resident_margin = log1pf(-p->prefer_resident);
    }
    MP_TRY(model_settle(m, p->memory, e->x.k, e->x.pool, e->params.progress, e->params.user, err));
    if (e->moe.disk.wanted) e->moe.disk.proxies = model_proxies(m);
    return MP_OK;
}

void disk_close(mp_engine *e)
{
    store_close(e->moe.disk.store);
}

bool mp_engine_store_stats(const mp_engine *e, mp_store_stats *out)
{
    store *s = e->moe.disk.store;
    *out = (mp_store_stats){.notice = e->notice};
    if (!s) return false;
    const store_stats now = store_get_stats(s);
    *out = (mp_store_stats){
        .memory = now.slots * now.slot_bytes,
        .resident_bytes = now.resident * now.slot_bytes,
        .hits = now.hits,
        .misses = now.misses,
        .bytes_wanted = now.bytes_wanted,
        .bytes_read = now.bytes_read,
        .evictions = now.evictions,
        .ahead = now.ahead,
        .ahead_used = now.ahead_used,
        .stall_ns = now.stall_ns,
        .reads = now.reads,
        .depth_mean = now.reads ? (double)now.depth_sum / (double)now.reads : 0,
        .depth_max = now.depth_max,
        .dropped = e->moe.disk.dropped,
        .eviction = store_eviction(s),
        .backend = store_backend(s),
        .notice = e->notice,
    };
    for (unsigned i = 0; i < e->moe.threads; i++) out->swaps += e->moe.disk.swaps[i];
    return true;
}

mp_store_stats mp_store_stats_since(const mp_store_stats *now, const mp_store_stats *before)
{
    mp_store_stats d = *now;
    const double depths = now->depth_mean * (double)now->reads - before->depth_mean * (double)before->reads;
    d.hits -= before->hits;
    d.misses -= before->misses;
    d.bytes_wanted -= before->bytes_wanted;
    d.bytes_read -= before->bytes_read;
    d.evictions -= before->evictions;
    d.ahead -= before->ahead;
    d.ahead_used -= before->ahead_used;
    d.stall_ns -= before->stall_ns;
    d.reads -= before->reads;
    d.depth_mean = d.reads ? depths / (double)d.reads : 0;
    d.swaps -= before->swaps;
    d.dropped -= before->dropped;
    return d;
}

const char *mp_store_eviction(size_t i)
{
    const eviction *policy = eviction_at(i);
    return policy ? policy->name : NULL;
}

const char *mp_store_backend(size_t i)
{
    const io_class *io = io_at(i);
    return io ? io->name : NULL;
}
