/* What a recorded run costs in reads, on a real disk and without computing: its routing is replayed through the store,
 * on the sub-experts of a model of real shape. So the skew of a trained model's routing meets the sizes of a real one,
 * where models with random weights choose more evenly.
 *
 *   replay --record FILE --memory SHARE [--whole] [--eviction NAME] MODEL      prints one line of CSV
 *
 * The record's experts and layers must be no more than the model's, its parts the same; only those of the model are
 * used that the record has, and SHARE is of their bytes. --whole claims whole experts, all that the router chose. Steps
 * of several tokens (prompts) fill the store and do not count. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/moe_exec.h"
#include "model/model.h"
#include "store/record.h"

typedef struct options {
    const char *record, *eviction, *model;
    double share;
    bool whole;
} options;

typedef struct replay {
    const options *o;
    mp_model *model;
    record_trace trace;
    store_shape shape;
    store *store;
    store_claim claim;
    uint32_t *units;
    uint64_t tokens, ns;
} replay;

static void *must_alloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p) abort();
    return p;
}

static int refuse(const char *why)
{
    fprintf(stderr, "replay: %s\n", why);
    return 1;
}

/* The first layers and experts of the model, in the record's numbers. */
static const char *make_shape(replay *r)
{
    const record_shape *rec = &r->trace.shape;
    const mp_model *m = r->model;
    if (rec->n_parts != m->info.n_parts || m->info.n_parts < 2) return "the model is not split as the record's was";
    if (rec->n_layers > m->info.n_moe_layers || rec->n_experts > m->hp.n_experts) return "the model is too small";
    store_part *parts = must_alloc((size_t)rec->n_layers * 2, sizeof *parts);
    const uint32_t per_unit = r->o->whole ? rec->n_parts : 1;
    for (uint32_t l = 0; l < rec->n_layers; l++)
        for (unsigned p = 0; p < 2; p++) {
            const tensor *w = moe_part(&m->moe[m->hp.n_dense + l], p);
            int file;
            store_part *part = &parts[l * 2 + p];
            if (!gguf_locate(m->file, w->data, &file, &part->offset)) return "the model is in no file";
            part->file = (uint32_t)file;
            part->bytes = (uint64_t)w->rows * w->row_bytes * per_unit;
        }
    const int n_files = gguf_n_parts(m->file);
    store_file *files = must_alloc((size_t)n_files, sizeof *files);
    for (int i = 0; i < n_files; i++) files[i] = (store_file){gguf_part_path(m->file, i), gguf_part_stamp(m->file, i)};
    r->shape =
        (store_shape){rec->n_layers, rec->n_experts * rec->n_parts / per_unit, 2, parts, (uint32_t)n_files, files};
    return NULL;
}

static mp_status open_store(replay *r, mp_error *err)
{
    char notice[MP_ERROR_MAX];
    const uint32_t all = r->shape.n_layers * r->shape.n_subs;
    const store_params params = {.memory = (uint64_t)((double)store_memory_for(&r->shape, all) * r->o->share),
                                 .eviction = r->o->eviction};
    r->claim.cap = r->shape.n_subs;
    r->claim.slot = must_alloc(r->claim.cap, sizeof *r->claim.slot);
    r->claim.ready = must_alloc(r->claim.cap, sizeof *r->claim.ready);
    r->units = must_alloc(r->claim.cap, sizeof *r->units);
    return store_open(&r->shape, &params, 1, &r->store, notice, err);
}

/* All units of a layer and step, in as many claims as the cap makes of them. */
static mp_status replay_step(replay *r, const record_step *step, mp_error *err)
{
    const uint32_t *ids = r->o->whole ? step->experts : step->subs, n = r->o->whole ? step->n_experts : step->n_subs;
    for (uint32_t i = 0; i < n; i++) r->units[i] = step->layer * r->shape.n_subs + ids[i];
    for (uint32_t done = 0; done < n;) {
        const uint32_t got = store_claim_begin(r->store, &r->claim, r->units + done, n - done, true);
        mp_status status = MP_OK;
        while (!status && r->claim.n_ready < got)
            status = store_claim_wait(r->store, &r->claim, r->claim.n_ready, 0, err);
        store_claim_end(r->store, &r->claim);
        if (status) return status;
        done += got;
    }
    return MP_OK;
}

static mp_status replay_all(replay *r, mp_error *err)
{
    const record_trace *t = &r->trace;
    store_stats sum = {0};
    for (size_t i = 0; i < t->n; i++) {
        const store_stats before = store_get_stats(r->store);
        const uint64_t start = clock_now_ns();
        MP_TRY(replay_step(r, &t->steps[i], err));
        if (t->steps[i].tokens > 1) continue;
        const uint64_t took = clock_now_ns() - start;
        const store_stats after = store_get_stats(r->store);
        r->ns += took;
        r->tokens += t->steps[i].layer == 0;
        sum.hits += after.hits - before.hits;
        sum.misses += after.misses - before.misses;
        sum.bytes_read += after.bytes_read - before.bytes_read;
    }
    if (r->tokens == 0) return MP_E_INVALID;
    printf("%s,%g,%s,%llu,%.4f,%.0f,%.3f\n", r->o->whole ? "experts" : "sub-experts", r->o->share,
           store_eviction(r->store), (unsigned long long)r->tokens, (double)sum.hits / (double)(sum.hits + sum.misses),
           (double)sum.bytes_read / (double)r->tokens, (double)r->ns * 1e-6 / (double)r->tokens);
    return MP_OK;
}

static bool read_options(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--whole"))
            o->whole = true;
        else if (more && !strcmp(argv[i], "--record"))
            o->record = argv[++i];
        else if (more && !strcmp(argv[i], "--eviction"))
            o->eviction = argv[++i];
        else if (more && !strcmp(argv[i], "--memory"))
            o->share = atof(argv[++i]);
        else
            o->model = argv[i];
    }
    return o->record && o->model && o->share > 0 && o->share <= 1;
}

int main(int argc, char **argv)
{
    options o = {0};
    replay r = {.o = &o};
    mp_error err = {.message = "the record has no token of its own"};
    if (!read_options(argc, argv, &o))
        return refuse("usage: replay --record FILE --memory SHARE [--whole] [--eviction NAME] MODEL");
    if (record_read(o.record, &r.trace, &err) || mp_model_open(o.model, NULL, &r.model, &err))
        return refuse(err.message);
    const char *why = make_shape(&r);
    if (why) return refuse(why);
    if (open_store(&r, &err) || replay_all(&r, &err)) return refuse(err.message);
    store_close(r.store);
    mp_model_close(r.model);
    record_free(&r.trace);
    free((void *)r.shape.parts);
    free((void *)r.shape.files);
    free(r.claim.slot);
    free(r.claim.ready);
    free(r.units);
    return 0;
}
