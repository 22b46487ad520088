/* Where a model's weights are. They begin as the mapped pages of the file, which cost nothing to open, but go when
 * memory is short and kill the process when the file is cut. Of a model opened to be copied, the first engine brings
 * all of them into memory of our own. Under a cap on the experts, which are then read from the file piece by piece,
 * everything else is brought there in any case: whatever becomes of the file, a read can fail and be told, a page
 * cannot.
 *
 * Views of weights stay valid: what moves, moves beneath them. */
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "model/model.h"

struct model_residence {
    pthread_mutex_t lock;
    bool mapped;           /* under the lock: an engine was opened on the file's pages */
    bool others, experts;  /* these are in memory of our own, */
    bool rows16, blocks32; /* and some of it arranged for kernels that take such rows, such tiles */
    proxy_rows proxies;    /* once others are and experts are not */
};

mp_status residence_new(model_residence **out, mp_error *err)
{
    model_residence *r = *out = calloc(1, sizeof *r);
    if (!r) return status_no_memory(err, sizeof *r, "a model");
    pthread_mutex_init(&r->lock, NULL);
    return MP_OK;
}

void residence_free(model_residence *r)
{
    if (!r) return;
    pthread_mutex_destroy(&r->lock);
    proxies_clear(&r->proxies);
    free(r);
}

static int by_address(const void *a, const void *b)
{
    const file_bytes *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* Where experts stand, in ascending order; the caller frees. */
static mp_status list_experts(const mp_model *m, file_bytes **out, size_t *n, mp_error *err)
{
    enum { PER_LAYER = 5 };
    file_bytes *list = malloc((size_t)m->hp.n_layers * PER_LAYER * sizeof *list);
    if (!list) return status_no_memory(err, (size_t)m->hp.n_layers * PER_LAYER * sizeof *list, "a list of experts");
    *n = 0;
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        const moe_weights *w = &m->moe[l].w;
        const tensor *const parts[PER_LAYER] = {&w->gate, &w->up, &w->down, &w->gate_up, &w->down_t};
        for (size_t i = 0; i < PER_LAYER; i++)
            if (parts[i]->data) list[(*n)++] = (file_bytes){parts[i]->data, tensor_bytes(parts[i])};
    }
    qsort(list, *n, sizeof *list, by_address);
    *out = list;
    return MP_OK;
}

typedef struct load_job {
    mp_progress_fn progress;
    void *user;
    uint64_t start_ns;
} load_job;

static bool tell_loaded(void *user, uint64_t done, uint64_t total)
{
    const load_job *job = user;
    const mp_progress now = {.stage = "load",
                             .unit = "bytes",
                             .done = done,
                             .total = total,
                             .elapsed_ns = clock_now_ns() - job->start_ns,
                             .layer = -1};
    return !job->progress || job->progress(job->user, &now);
}

/* What was just brought to memory, where no engine looks at it yet, so that views may change with what they view. */
static mp_status arrange(const mp_model *m, const file_pick *pick, bool capped, const kernels *k, pool *p,
                         mp_error *err)
{
    model_residence *r = m->residence;
    r->rows16 = k->rows16;
    r->blocks32 = k->blocks32 && !capped;
    if (!r->rows16 && !r->blocks32) return MP_OK;
    MP_TRY(gguf_write_protect(m->file, pick, false, err));
    const mp_status status = model_arrange((mp_model *)(uintptr_t)m, !capped, k, p, err);
    const mp_status protect = gguf_write_protect(m->file, pick, true, status ? NULL : err);
    return status ? status : protect;
}

/* With the lock held. What comes first is arranged; the experts, if they come later, stay as they are. */
static mp_status bring(const mp_model *m, bool capped, const kernels *k, pool *p, load_job *job, mp_error *err)
{
    model_residence *r = m->residence;
    const bool first = !r->others && !r->mapped;
    file_bytes *experts = NULL;
    file_pick pick = {.only = r->others};
    if (capped || r->others) MP_TRY(list_experts(m, &experts, &pick.n, err));
    pick.ranges = experts;
    mp_status status = capped ? proxies_read(m, &r->proxies, err) : MP_OK;
    if (!status) status = gguf_copy_to_memory(m->file, &pick, p, tell_loaded, job, err); /* tells files that changed */
    if (status) {
        if (capped) proxies_clear(&r->proxies);
    } else {
        r->others = true;
        r->experts = !capped;
        if (first) status = arrange(m, &pick, capped, k, p, err);
    }
    free(experts);
    return status;
}

static mp_status check_arranged(const mp_model *m, const kernels *k, mp_error *err)
{
    const model_residence *r = m->residence;
    if (k->rows16 >= r->rows16 && k->blocks32 >= r->blocks32) return MP_OK;
    return status_fail(err, MP_E_INVALID,
                       "%s: its weights were arranged in memory for another engine's kernels, which '%s' cannot read",
                       gguf_path(m->file), k->isa);
}

mp_status model_settle(const mp_model *m, uint64_t memory, const kernels *k, pool *p, mp_progress_fn progress,
                       void *user, mp_error *err)
{
    model_residence *r = m->residence;
    const bool capped = model_is_capped(m, memory);
    load_job job = {progress, user, clock_now_ns()};
    mp_status status = MP_OK;
    pthread_mutex_lock(&r->lock);
    if (model_stays_mapped(m, memory))
        r->mapped = true;
    else if (capped && r->experts)
        status = status_fail(err, MP_E_INVALID,
                             "%s: its experts are in memory already, for another engine: a cap would save nothing",
                             gguf_path(m->file));
    else if (capped ? !r->others : !r->experts)
        status = bring(m, capped, k, p, &job, err);
    if (!status) status = check_arranged(m, k, err);
    pthread_mutex_unlock(&r->lock);
    return status;
}

const uint8_t *const *model_proxies(const mp_model *m)
{
    return m->residence->proxies.layers;
}
