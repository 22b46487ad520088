/* Perplexity and distance to a reference at every operating point, a group of chunks at a time: first the reference
 * runs, then every point, and what the reference predicted is kept only until the group is done.
 *
 * With z the logits of a point, z' and p' those of the reference and its probabilities, L = log sum exp z:
 *   KL(p' || p) = sum p' ((z' - L') - (z - L)) = sum p' z' - sum p' z + sum p' (L - L')
 * so p', kept in F32, and the scalars sum p' z', sum p' and L' are all a point needs: a product with its logits instead
 * of another exponential per element. All sums are F64 over the same rounded p': equal logits give exactly 0. */
#include "refactor/curve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"

#define STEP_TOKENS 512

/* What one scored token of the text came to. */
typedef struct token_score {
    double nll, kl; /* nats */
    bool same_top;
} token_score;

/* What the reference said of a token of the group at hand. */
typedef struct ref_token {
    double log_sum, mean_logit, sum; /* L', sum p' z', sum p' */
    size_t top;
} ref_token;

/* What steps asked of a store. */
typedef struct store_use {
    uint64_t hits, wanted, bytes_read, swaps, dropped;
} store_use;

/* One model at one point, over the whole text. */
typedef struct run {
    mp_engine *engine;
    uint32_t point;
    bool is_ref;
    token_score *scores; /* [n_chunks, scored] */
    double share_sum;    /* over all tokens */
    uint64_t ns;
    store_use scored; /* steps with scored tokens */
} run;

typedef struct measure {
    arena memory;
    const curve_params *p;
    const mp_model *model;
    mp_engine *engine, *ref_engine; /* the same where the model is its own reference */
    size_t n_vocab, n_chunks;
    uint32_t first, scored; /* the positions of a chunk that are scored: the first, how many */
    uint32_t group;         /* chunks that run together, a sequence each */
    uint32_t piece;         /* most tokens of a sequence in a step */
    mp_batch_token *batch;  /* [group, piece] */
    float *ref_probs;       /* [group, scored, n_vocab] */
    ref_token *ref;         /* [group, scored] */
    token_score *scores;    /* [n_runs, n_chunks, scored] */
    run *runs;              /* [n_runs]: the reference, then the points, those aside that are the reference */
    size_t n_runs;
    uint64_t done, start_ns; /* progress, tokens */
} measure;

/* One step: positions [begin, begin + len) of chunks [chunk, chunk + seqs). */
typedef struct step {
    const measure *c;
    const run *r;
    size_t chunk;
    uint32_t seqs, begin, len;
    uint32_t from, to; /* positions scored */
} step;

/* ---- one token ---- */

static size_t largest(const float *x, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[top]) top = i;
    return top;
}

/* logits [n] -> probs [n] */
static ref_token keep_reference(const float *logits, size_t n, double log_sum, float *probs)
{
    ref_token t = {.log_sum = log_sum, .top = largest(logits, n)};
    for (size_t i = 0; i < n; i++) {
        probs[i] = (float)exp((double)logits[i] - log_sum);
        t.sum += (double)probs[i];
        t.mean_logit += (double)probs[i] * (double)logits[i];
    }
    return t;
}

static double divergence(const ref_token *ref, const float *probs, const float *logits, size_t n, double log_sum)
{
    double mean_logit = 0;
    for (size_t i = 0; i < n; i++) mean_logit += (double)probs[i] * (double)logits[i];
    const double kl = ref->mean_logit - mean_logit + ref->sum * (log_sum - ref->log_sum);
    return kl < 0 ? 0 : kl; /* rounding; NaN stays */
}

static void score_token(void *arg, size_t item, unsigned thread)
{
    (void)thread;
    const step *s = arg;
    const measure *c = s->c;
    const uint32_t scored = s->to - s->from, seq = (uint32_t)(item / scored), pos = s->from + (uint32_t)(item % scored);
    const size_t at = (size_t)seq * c->scored + (pos - c->first); /* within the group */
    const size_t next = (s->chunk + seq) * c->p->n_ctx + pos + 1;
    const float *logits = mp_engine_logits(s->r->engine, (size_t)seq * s->len + (pos - s->begin));
    const double log_sum = s->r->engine->x.k->log_sum_exp(logits, c->n_vocab);
    float *probs = c->ref_probs + at * c->n_vocab;
    token_score *out = &s->r->scores[s->chunk * c->scored + at];
    *out = (token_score){.nll = log_sum - (double)logits[c->p->tokens[next]], .same_top = true};
    if (s->r->is_ref) {
        c->ref[at] = keep_reference(logits, c->n_vocab, log_sum, probs);
    } else {
        out->kl = divergence(&c->ref[at], probs, logits, c->n_vocab, log_sum);
        out->same_top = largest(logits, c->n_vocab) == c->ref[at].top;
    }
}

/* ---- running ---- */

static mp_status report_progress(measure *c, uint64_t tokens, mp_error *err)
{
    const uint64_t now = clock_now_ns();
    c->done += tokens;
    if (!c->p->progress) return MP_OK;
    const mp_progress progress = {
        .stage = c->p->stage ? c->p->stage : "evaluate",
        .unit = "tokens",
        .done = c->done,
        .total = (uint64_t)c->n_runs * c->n_chunks * c->p->n_ctx,
        .elapsed_ns = now - c->start_ns,
        .layer = -1,
        .n_layers = -1,
    };
    if (c->p->progress(c->p->user, &progress)) return MP_OK;
    return status_fail(err, MP_E_INTERRUPTED, "interrupted");
}

static size_t fill_batch(const step *s)
{
    const measure *c = s->c;
    const bool may_lose = c->p->store.deadline_ns && !s->r->is_ref;
    size_t n = 0;
    for (uint32_t seq = 0; seq < s->seqs; seq++)
        for (uint32_t pos = s->begin; pos < s->begin + s->len; pos++) {
            const int32_t token = c->p->tokens[(s->chunk + seq) * c->p->n_ctx + pos];
            c->batch[n++] = (mp_batch_token){
                .token = pos == 0 && c->p->bos >= 0 ? c->p->bos : token,
                .seq = seq,
                .pos = pos,
                .point = s->r->point,
                .logits = pos >= s->from && pos < s->to,
                .floor = may_lose ? c->model->info.n_points - 1 : 0,
            };
        }
    return n;
}

/* A choice that depends on what is in memory, and when, is judged as it is made when a text is generated. */
static bool is_token_by_token(const curve_params *p)
{
    return p->store.prefer_resident > 0 || p->store.deadline_ns;
}

static void add_use(store_use *sum, const mp_engine *e, const mp_store_stats *before)
{
    mp_store_stats now;
    mp_engine_store_stats(e, &now);
    const mp_store_stats add = mp_store_stats_since(&now, before);
    sum->hits += add.hits;
    sum->wanted += add.hits + add.misses;
    sum->bytes_read += add.bytes_read;
    sum->swaps += add.swaps;
    sum->dropped += add.dropped;
}

static mp_status run_step(measure *c, run *r, step *s, mp_error *err)
{
    const uint32_t end = s->begin + s->len;
    s->from = s->begin > c->first ? s->begin : c->first;
    s->to = end < c->first + c->scored ? end : c->first + c->scored;
    if (s->to < s->from) s->to = s->from;
    const size_t n = fill_batch(s);
    mp_store_stats before;
    mp_engine_store_stats(r->engine, &before);
    const uint64_t start = clock_now_ns();
    MP_TRY(mp_engine_step(r->engine, c->batch, n, err));
    r->ns += clock_now_ns() - start;
    if (s->from < s->to) add_use(&r->scored, r->engine, &before);
    for (size_t i = 0; i < n; i++) r->share_sum += mp_engine_compute_share(r->engine, i);
    pool_for(r->engine->x.pool, (size_t)s->seqs * (s->to - s->from), score_token, s);
    return report_progress(c, n, err);
}

static mp_status run_group(measure *c, run *r, size_t chunk, mp_error *err)
{
    step s = {.c = c, .r = r, .chunk = chunk};
    s.seqs = c->n_chunks - chunk < c->group ? (uint32_t)(c->n_chunks - chunk) : c->group;
    const uint32_t piece = is_token_by_token(c->p) && !r->is_ref ? 1 : c->piece;
    for (uint32_t seq = 0; seq < s.seqs; seq++) mp_engine_seq_truncate(r->engine, seq, 0);
    for (; s.begin < c->p->n_ctx; s.begin += s.len) {
        s.len = c->p->n_ctx - s.begin < piece ? c->p->n_ctx - s.begin : piece;
        MP_TRY(run_step(c, r, &s, err));
    }
    return MP_OK;
}

static mp_status run_all(measure *c, mp_error *err)
{
    c->start_ns = clock_now_ns();
    for (size_t chunk = 0; chunk < c->n_chunks; chunk += c->group)
        for (size_t i = 0; i < c->n_runs; i++) MP_TRY(run_group(c, &c->runs[i], chunk, err));
    return MP_OK;
}

/* ---- summing up ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* values [n] are sorted in place; between two of them the line that joins them. */
static double percentile(double *values, size_t n, double share)
{
    qsort(values, n, sizeof *values, ascending);
    const double at = share * (double)(n - 1);
    const size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return values[below] + (at - (double)below) * (values[above] - values[below]);
}

/* Perplexity and its standard error; false where logits were not numbers. */
static bool perplexity(const token_score *scores, size_t n, double *ppl, double *ppl_se)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++) mean += scores[i].nll;
    mean /= (double)n;
    for (size_t i = 0; i < n; i++) squares += (scores[i].nll - mean) * (scores[i].nll - mean);
    *ppl = exp(mean);
    *ppl_se = n > 1 ? *ppl * sqrt(squares / (double)n / (double)(n - 1)) : 0;
    return isfinite(*ppl) && isfinite(*ppl_se);
}

/* kl [n] is scratch. */
static mp_status summarize(const measure *c, const run *r, double *kl, mp_eval_point *out, mp_error *err)
{
    const size_t n = c->n_chunks * c->scored, tokens = c->n_chunks * c->p->n_ctx;
    size_t same = 0;
    if (!perplexity(r->scores, n, &out->ppl, &out->ppl_se))
        return status_fail(err, MP_E_FORMAT,
                           "%s: the logits at operating point %u are not numbers; is the file damaged?",
                           r->engine->model->info.path, r->point);
    for (size_t i = 0; i < n; i++) {
        kl[i] = r->scores[i].kl;
        out->kl_mean += kl[i];
        same += r->scores[i].same_top;
    }
    out->kl_mean /= (double)n;
    out->kl_p99 = percentile(kl, n, 0.99);
    out->same_top = (double)same / (double)n;
    out->compute_share = r->share_sum / (double)tokens;
    out->tokens_per_s = r->ns ? (double)tokens * 1e9 / (double)r->ns : 0;
    const double wanted = (double)(r->scored.wanted ? r->scored.wanted : 1);
    out->hit_rate = (double)r->scored.hits / wanted;
    out->swap_share = (double)r->scored.swaps / wanted;
    out->drop_share = (double)r->scored.dropped / wanted;
    out->dropped = r->scored.dropped;
    out->bytes_read = (double)r->scored.bytes_read / (double)n;
    return MP_OK;
}

/* A model's own full is its reference, unless a deadline may take something from the one and not the other. */
static bool is_reference(const measure *c, uint32_t point)
{
    return point == 0 && c->engine == c->ref_engine && !c->p->store.deadline_ns;
}

static mp_status fill_result(const measure *c, mp_eval_result *out, mp_error *err)
{
    const size_t n = c->n_chunks * c->scored;
    const run *r = c->runs;
    mp_eval_point ref = {0};
    mp_status status = MP_OK;
    double *kl = malloc(n * sizeof *kl);
    if (!kl) return status_no_memory(err, n * sizeof *kl, "divergences");
    status = summarize(c, c->runs, kl, &ref, err);
    for (size_t i = 0; i < c->p->n_points && !status; i++) {
        mp_eval_point *point = &out->points[i];
        const mp_point *rung = mp_model_point(c->model, c->p->points[i]);
        if (is_reference(c, c->p->points[i]))
            *point = ref;
        else
            status = summarize(c, ++r, kl, point, err);
        point->point = c->p->points[i];
        point->gate_share = rung->gate_share;
        point->experts = point->compute_share * c->model->hp.n_used;
    }
    free(kl);
    out->tokens = n;
    out->n_ctx = c->p->n_ctx;
    out->n_chunks = (uint32_t)c->n_chunks;
    out->against_ppl = ref.ppl;
    out->against_ppl_se = ref.ppl_se;
    memcpy(out->notice, c->engine->notice, sizeof out->notice);
    return status;
}

/* ---- setting up ---- */

static mp_status check_against(const mp_model *m, const mp_model *against, mp_error *err)
{
    if (m->hp.n_vocab != against->hp.n_vocab)
        return status_fail(err, MP_E_INVALID, "%s has a vocabulary of %u, %s one of %u: they cannot be compared",
                           m->info.path, m->hp.n_vocab, against->info.path, against->hp.n_vocab);
    if (m->tok && against->tok && tokenizer_n_tokens(m->tok) != tokenizer_n_tokens(against->tok))
        return status_fail(err, MP_E_INVALID,
                           "the tokenizers of %s and %s have %u and %u tokens: they cannot be compared", m->info.path,
                           against->info.path, tokenizer_n_tokens(m->tok), tokenizer_n_tokens(against->tok));
    return MP_OK;
}

static mp_status check(const mp_model *m, const mp_model *ref, const curve_params *p, mp_error *err)
{
    const uint32_t longest = m->hp.n_ctx < ref->hp.n_ctx ? m->hp.n_ctx : ref->hp.n_ctx;
    if (p->n_ctx < CURVE_MIN_CTX || p->n_ctx > longest)
        return status_fail(err, MP_E_INVALID, "chunks of %u tokens: choose %u to %u", p->n_ctx, CURVE_MIN_CTX, longest);
    if (p->n_tokens / p->n_ctx == 0 || p->n_tokens / p->n_ctx > UINT32_MAX)
        return status_fail(err, MP_E_INVALID, "%zu tokens are too %s for chunks of %u", p->n_tokens,
                           p->n_tokens < p->n_ctx ? "few" : "many", p->n_ctx);
    for (size_t i = 0; i < p->n_points; i++)
        if (p->points[i] >= m->info.n_points)
            return status_fail(err, MP_E_INVALID, "operating point %u does not exist: choose 0 to %u", p->points[i],
                               m->info.n_points - 1);
    for (size_t i = 0; i < p->n_tokens; i++) /* as targets they index the logits */
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= m->hp.n_vocab)
            return status_fail(err, MP_E_INVALID, "token %zu: id %d is not in the vocabulary of %u", i, p->tokens[i],
                               m->hp.n_vocab);
    return check_against(m, ref, err);
}

/* Run twice: to count, then to carve (base/arena.h). */
static void layout(measure *c)
{
    const size_t rows = (size_t)c->group * c->scored, n_runs = c->p->n_points + 1;
    arena *a = &c->memory;
    c->batch = arena_take(a, (size_t)c->group * c->piece, sizeof *c->batch);
    c->ref = arena_take(a, rows, sizeof *c->ref);
    c->ref_probs = arena_take(a, rows, c->n_vocab * sizeof *c->ref_probs);
    c->runs = arena_take(a, n_runs, sizeof *c->runs);
    c->scores = arena_take(a, n_runs, c->n_chunks * c->scored * sizeof *c->scores);
}

static void add_run(measure *c, mp_engine *engine, uint32_t point)
{
    run *r = &c->runs[c->n_runs];
    r->engine = engine;
    r->point = point;
    r->is_ref = c->n_runs == 0;
    r->scores = c->scores + c->n_runs++ * c->n_chunks * c->scored;
}

static mp_status open_engines(measure *c, const mp_model *ref, mp_error *err)
{
    mp_engine_params params = {
        .threads = c->p->threads,
        .isa = c->p->isa,
        .kv_type = c->p->kv_type,
        .store = c->p->store,
        .n_ctx = c->p->n_ctx,
        .n_seqs = c->group,
        .n_batch = c->group * c->piece,
        .n_logits = c->group * (c->scored < c->piece ? c->scored : c->piece),
        .progress = c->p->progress,
        .user = c->p->user,
    };
    MP_TRY(mp_engine_open(c->model, &params, &c->engine, err));
    c->ref_engine = c->engine;
    if (ref == c->model) return MP_OK;
    params.store = (mp_store_params){0}; /* a share of one model says nothing of another */
    return mp_engine_open(ref, &params, &c->ref_engine, err);
}

static mp_status prepare(measure *c, const mp_model *ref, mp_error *err)
{
    const uint32_t n_ctx = c->p->n_ctx;
    c->n_vocab = c->model->hp.n_vocab;
    c->n_chunks = c->p->n_tokens / n_ctx;
    c->first = n_ctx / 2;
    c->scored = n_ctx - 1 - c->first;
    c->piece = n_ctx < STEP_TOKENS ? n_ctx : STEP_TOKENS;
    c->group = is_token_by_token(c->p) ? 1 : STEP_TOKENS / c->piece;
    if (c->group > c->n_chunks) c->group = (uint32_t)c->n_chunks;
    layout(c);
    MP_TRY(arena_reserve(&c->memory, "the measurement (shorten the chunks or the text)", err));
    layout(c);
    MP_TRY(open_engines(c, ref, err));
    add_run(c, c->ref_engine, 0);
    for (size_t i = 0; i < c->p->n_points; i++)
        if (!is_reference(c, c->p->points[i])) add_run(c, c->engine, c->p->points[i]);
    return MP_OK;
}

static void measure_clear(measure *c)
{
    if (c->ref_engine != c->engine) mp_engine_close(c->ref_engine);
    mp_engine_close(c->engine);
    arena_clear(&c->memory);
}

static mp_status measure_points(const mp_model *m, const curve_params *p, mp_eval_result *out, mp_error *err)
{
    const mp_model *ref = p->against ? p->against : m;
    measure c = {.p = p, .model = m};
    MP_TRY(check(m, ref, p, err));
    out->points = calloc(p->n_points, sizeof *out->points);
    if (!out->points) return status_no_memory(err, p->n_points * sizeof *out->points, "operating points");
    out->n_points = p->n_points;
    mp_status status = prepare(&c, ref, err);
    if (!status) status = run_all(&c, err);
    if (!status) status = fill_result(&c, out, err);
    measure_clear(&c);
    return status;
}

mp_status curve_measure(const mp_model *m, const curve_params *p, mp_eval_result *out, mp_error *err)
{
    curve_params all = *p;
    uint32_t *ladder = NULL;
    *out = (mp_eval_result){0};
    if (!p->points || p->n_points == 0) {
        ladder = malloc(m->info.n_points * sizeof *ladder);
        if (!ladder) return status_no_memory(err, m->info.n_points * sizeof *ladder, "operating points");
        for (uint32_t i = 0; i < m->info.n_points; i++) ladder[i] = i;
        all.points = ladder;
        all.n_points = m->info.n_points;
    }
    const mp_status status = measure_points(m, &all, out, err);
    free(ladder);
    if (status) mp_eval_result_clear(out);
    return status;
}

void mp_eval_result_clear(mp_eval_result *result)
{
    free(result->points);
    *result = (mp_eval_result){0};
}

mp_status curve_begin_token(const mp_model *m, int32_t *bos, mp_error *err)
{
    size_t n;
    *bos = -1;
    return mp_tokenize(m, "", 0, MP_TOKENIZE_BOS, bos, 1, &n, err);
}
