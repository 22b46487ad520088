/* Measuring what steps cost.
 *
 * The steps are random mixtures (how many sequences decode, how long a piece of prompt runs beside them, at which
 * operating points, how far into their texts), with the corners put in by hand: a fit is asked about mixtures, and
 * corners keep it from having to guess beyond them. Every round runs all steps in a new order, so that a machine that
 * slows down for a while does not speak against one kind of step. A step's time is its mean over the rounds: what
 * delays a step now and then delays a server's as often. But no round counts for more than twice the median, so that a
 * machine that did something else for a second does not make a step dear.
 *
 * Long contexts are cheap to come by: some texts are run once, and every sequence of a step begins with as many of
 * their pages as the step wants (mp_engine_seq_start), the next sequence with the pages behind those. What the pages
 * hold does not matter, but that sequences have pages of their own does: a page that several read comes from memory
 * once. Contexts are whole pages, so no page is copied within a step. */
#include "cli/cost_measure.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/stats.h"
#include "base/status.h"
#include "cli/cost_steps.h"
#include "cli/store_options.h"

enum {
    ROUNDS_MAX = 16,
    FOLDS = 10,
    PAGES_MAX = 128, /* of contexts */
    PAGES_MAX_QUICK = 48,
};

/* No new round after this, once there are enough of them: where steps are short, more rounds make better means. */
#define SECOND_NS  1000000000ull
#define QUICK_NS   (4 * SECOND_NS)
#define CAREFUL_NS (15 * SECOND_NS)

typedef struct bench {
    const mp_model *model;
    const cost_measure_params *params;
    mp_engine *engine;
    mp_engine_params engine_params; /* defaults filled in */
    cost_shape shape;
    mp_batch_token *batch; /* [n_batch] */
    cost_item *items;      /* [n_seqs] */
    uint32_t *pages;       /* [n_pages] held, of the texts that contexts are taken from */
    uint32_t n_pages, next_page;
    uint32_t *context; /* [pages of a sequence] */
    cost_plan *plans;  /* [n] */
    size_t n;
    double *times; /* [n, ROUNDS_MAX] */
    size_t *order; /* [n] */
    rng random;
    uint64_t start_ns;
} bench;

static mp_status tell(const bench *b, const char *stage, const char *unit, uint64_t done, uint64_t total, mp_error *err)
{
    const mp_progress now = {.stage = stage,
                             .unit = unit,
                             .done = done,
                             .total = total,
                             .elapsed_ns = clock_now_ns() - b->start_ns,
                             .layer = -1};
    const bool go_on = b->params->progress == NULL || b->params->progress(b->params->user, &now);
    return go_on ? MP_OK : status_fail(err, MP_E_INTERRUPTED, "interrupted");
}

static int32_t random_token(bench *b)
{
    return (int32_t)rng_below(&b->random, mp_model_get_info(b->model)->n_vocab);
}

/* ---- the texts whose pages are contexts ---- */

static uint32_t last_point(const mp_model *model)
{
    uint32_t n = 0;
    while (mp_model_point(model, n + 1) != NULL) n++;
    return n;
}

/* Runs one at the cheapest point, the first page of the first at full: that touches all weights. */
static mp_status run_text(bench *b, uint32_t n_tokens, mp_error *err)
{
    const uint32_t cheap = last_point(b->model);
    for (uint32_t pos = 0; pos < n_tokens;) {
        uint32_t n = n_tokens - pos < b->engine_params.n_batch ? n_tokens - pos : b->engine_params.n_batch;
        for (uint32_t i = 0; i < n; i++)
            b->batch[i] = (mp_batch_token){
                .token = random_token(b), .pos = pos + i, .point = b->n_pages == 0 && pos + i < MP_KV_PAGE ? 0 : cheap};
        MP_TRY(mp_engine_step(b->engine, b->batch, n, err));
        pos += n;
    }
    return MP_OK;
}

/* Pages that all sequences of a step may want, within reason. */
static uint32_t pages_wanted(const mp_engine_params *p, bool quick)
{
    const uint64_t all = (uint64_t)cost_plan_context(p, quick) / MP_KV_PAGE * p->n_seqs;
    const uint32_t most = quick ? PAGES_MAX_QUICK : PAGES_MAX, one = cost_plan_context(p, quick) / MP_KV_PAGE;
    const uint32_t bound = most > one ? most : one;
    return all < bound ? (uint32_t)all : bound;
}

static mp_status hold_pages(bench *b, mp_error *err)
{
    const uint32_t all = pages_wanted(&b->engine_params, b->params->quick);
    const uint32_t a_text = cost_plan_context(&b->engine_params, b->params->quick) / MP_KV_PAGE;
    if (all == 0) MP_TRY(run_text(b, 1, err));
    while (b->n_pages < all) {
        const uint32_t n = all - b->n_pages < a_text ? all - b->n_pages : a_text;
        MP_TRY(tell(b, "context", "pages", b->n_pages, all, err));
        MP_TRY(run_text(b, n * MP_KV_PAGE, err));
        for (uint32_t i = 0; i < n; i++) {
            b->pages[b->n_pages] = mp_engine_seq_page(b->engine, 0, i);
            mp_engine_page_hold(b->engine, b->pages[b->n_pages++]);
        }
        mp_engine_seq_truncate(b->engine, 0, 0);
    }
    mp_engine_seq_truncate(b->engine, 0, 0);
    return MP_OK;
}

/* A sequence begins with pages that the ones before it do not have, as long as there are such. */
static mp_status start_sequence(bench *b, uint32_t seq, uint32_t n, mp_error *err)
{
    if (n == 0) return MP_OK;
    for (uint32_t i = 0; i < n; i++) b->context[i] = b->pages[(b->next_page + i) % b->n_pages];
    b->next_page = (b->next_page + n) % b->n_pages;
    return mp_engine_seq_start(b->engine, seq, b->context, n, err);
}

/* ---- one step ---- */

static uint32_t fill_batch(bench *b, const cost_plan *plan)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < plan->n_seqs; s++) {
        const cost_part *part = &plan->parts[s];
        for (uint32_t i = 0; i < part->n_tokens; i++)
            b->batch[n++] = (mp_batch_token){.token = random_token(b),
                                             .seq = s,
                                             .pos = part->pages * MP_KV_PAGE + i,
                                             .point = part->point,
                                             .logits = part->logits && i + 1 == part->n_tokens};
    }
    return n;
}

static void describe(bench *b, const cost_plan *plan, cost_step *step)
{
    uint32_t at = 0;
    double shares = 0;
    *step = (cost_step){0};
    for (uint32_t s = 0; s < plan->n_seqs; s++) {
        const cost_part *part = &plan->parts[s];
        double share = 0;
        for (uint32_t i = 0; i < part->n_tokens; i++) share += mp_engine_compute_share(b->engine, at++);
        shares += share;
        b->items[s] = (cost_item){.n_tokens = part->n_tokens,
                                  .context = part->pages * MP_KV_PAGE,
                                  .logits = part->logits,
                                  .share = share / part->n_tokens};
        step->context += (double)b->items[s].context / plan->n_seqs;
        if (part->prompt)
            step->prompt_tokens = part->n_tokens;
        else
            step->decodes++;
    }
    step->share = shares / at;
    cost_features(&b->shape, b->items, plan->n_seqs, step->sample.features);
}

static mp_status run_step(bench *b, const cost_plan *plan, double *ns, mp_error *err)
{
    for (uint32_t s = 0; s < plan->n_seqs; s++) MP_TRY(start_sequence(b, s, plan->parts[s].pages, err));
    const uint32_t n = fill_batch(b, plan);
    const uint64_t start = clock_now_ns();
    const mp_status status = mp_engine_step(b->engine, b->batch, n, err);
    *ns = (double)(clock_now_ns() - start);
    for (uint32_t s = 0; s < plan->n_seqs; s++) mp_engine_seq_truncate(b->engine, s, 0);
    return status;
}

/* ---- all of them ---- */

/* Sorts the times [n]. */
static double mean_time(double *ns, size_t n)
{
    const double most = 2 * stats_median(ns, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ns[i] < most ? ns[i] : most;
    return sum / (double)n;
}

static void shuffle(bench *b)
{
    for (size_t i = b->n; i > 1; i--) {
        const size_t j = (size_t)rng_below(&b->random, i), kept = b->order[i - 1];
        b->order[i - 1] = b->order[j];
        b->order[j] = kept;
    }
}

static mp_status run_rounds(bench *b, cost_steps *out, mp_error *err)
{
    const size_t least = b->params->quick ? 1 : COST_ROUNDS;
    const uint64_t enough_ns = b->params->quick ? QUICK_NS : CAREFUL_NS;
    size_t rounds = 0;
    b->start_ns = clock_now_ns();
    for (size_t i = 0; i < b->n; i++) b->order[i] = i;
    for (; rounds < least || (rounds < ROUNDS_MAX && clock_now_ns() - b->start_ns < enough_ns); rounds++) {
        const size_t total = (rounds < least ? least : rounds + 1) * b->n;
        shuffle(b);
        for (size_t i = 0; i < b->n; i++) {
            const size_t k = b->order[i];
            MP_TRY(tell(b, "cost", "steps", rounds * b->n + i, total, err));
            MP_TRY(run_step(b, &b->plans[k], &b->times[k * ROUNDS_MAX + rounds], err));
            if (rounds == 0) describe(b, &b->plans[k], &out->steps[k]);
        }
    }
    for (size_t k = 0; k < b->n; k++) out->steps[k].sample.ns = mean_time(&b->times[k * ROUNDS_MAX], rounds);
    out->n = b->n;
    return MP_OK;
}

static mp_status take_memory(bench *b, cost_steps *out, mp_error *err)
{
    const mp_engine_params *p = &b->engine_params;
    b->n = b->params->quick ? COST_STEPS_QUICK : COST_STEPS;
    b->batch = calloc(p->n_batch, sizeof *b->batch);
    b->items = calloc(p->n_seqs, sizeof *b->items);
    b->pages = calloc((size_t)pages_wanted(p, b->params->quick) + 1, sizeof *b->pages);
    b->context = calloc((size_t)p->n_ctx / MP_KV_PAGE + 1, sizeof *b->context);
    b->times = calloc(b->n * ROUNDS_MAX, sizeof *b->times);
    b->order = calloc(b->n, sizeof *b->order);
    out->steps = calloc(b->n, sizeof *out->steps);
    if (!b->batch || !b->items || !b->pages || !b->context || !b->times || !b->order || !out->steps)
        return status_no_memory(err, p->n_batch * sizeof *b->batch, "measuring steps");
    return cost_plans_new(b->model, p, b->params->quick, b->n, &b->random, &b->plans, err);
}

static void close_bench(bench *b)
{
    for (uint32_t i = 0; i < b->n_pages; i++) mp_engine_page_release(b->engine, b->pages[i]);
    mp_engine_close(b->engine);
    cost_plans_free(b->plans, b->n);
    free(b->batch);
    free(b->items);
    free(b->pages);
    free(b->context);
    free(b->times);
    free(b->order);
}

/* The texts', and of every sequence those that a step adds: hardly more than a server needs. */
static uint32_t pages_needed(const mp_engine_params *p, bool quick)
{
    return pages_wanted(p, quick) + p->n_seqs + p->n_batch / MP_KV_PAGE + 1;
}

mp_status cost_measure(const mp_model *model, const cost_measure_params *params, cost_steps *out, mp_error *err)
{
    bench b = {.model = model, .params = params, .engine_params = params->engine, .start_ns = clock_now_ns()};
    *out = (cost_steps){0};
    b.shape = cost_shape_of(model);
    b.engine_params.n_pages = pages_needed(&b.engine_params, params->quick);
    b.engine_params.n_logits = b.engine_params.n_seqs;
    rng_init(&b.random, params->seed);
    mp_status status = take_memory(&b, out, err);
    if (status == MP_OK) status = mp_engine_open(model, &b.engine_params, &b.engine, err);
    if (status == MP_OK && !params->quick) store_notice_print(b.engine); /* a server tells of its own engine's store */
    if (status == MP_OK) status = hold_pages(&b, err);
    if (status == MP_OK) status = run_rounds(&b, out, err);
    close_bench(&b);
    return status;
}

void cost_steps_clear(cost_steps *s)
{
    free(s->steps);
    *s = (cost_steps){0};
}

mp_status cost_steps_fit(const cost_steps *s, cost_model *m, double *errors, mp_error *err)
{
    cost_sample *samples = calloc(s->n > 0 ? s->n : 1, sizeof *samples);
    if (samples == NULL) return status_no_memory(err, s->n * sizeof *samples, "samples");
    for (size_t i = 0; i < s->n; i++) samples[i] = s->steps[i].sample;
    mp_status status = cost_fit(samples, s->n, m, err);
    if (status == MP_OK) status = cost_cross_validate(samples, s->n, FOLDS, errors, &m->error_median, err);
    free(samples);
    return status;
}
