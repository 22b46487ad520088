#include "cli/bench_run.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "cli/interrupt.h"

/* What a run adds up beside its time. */
typedef struct tally {
    double share_sum;
    uint64_t tokens, sampling_ns;
} tally;

mp_status bench_runner_open(bench_runner *runner, const mp_engine_params *params, mp_error *err)
{
    runner->params = *params;
    runner->batch = calloc(params->n_batch, sizeof *runner->batch);
    if (runner->batch == NULL) return status_no_memory(err, params->n_batch * sizeof *runner->batch, "a batch");
    if (runner->sampling) {
        const mp_sampler_params usual = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = 1};
        MP_TRY(mp_sampler_new(&usual, mp_model_get_info(runner->model)->n_vocab, &runner->sampler, err));
    }
    return mp_engine_open(runner->model, params, &runner->engine, err);
}

void bench_runner_close(bench_runner *runner)
{
    mp_engine_close(runner->engine);
    mp_sampler_free(runner->sampler);
    free(runner->batch);
    runner->engine = NULL;
    runner->sampler = NULL;
    runner->batch = NULL;
}

static mp_status step(bench_runner *runner, size_t n, tally *sum, mp_error *err)
{
    MP_TRY(mp_engine_step(runner->engine, runner->batch, n, err));
    for (size_t i = 0; i < n; i++) sum->share_sum += mp_engine_compute_share(runner->engine, i);
    sum->tokens += n;
    return interrupt_seen() ? status_fail(err, MP_E_INTERRUPTED, "interrupted") : MP_OK;
}

static int32_t random_token(const bench_runner *runner, rng *random)
{
    return (int32_t)rng_below(random, mp_model_get_info(runner->model)->n_vocab);
}

static mp_status prompt_test(bench_runner *runner, const bench_test *test, rng *random, tally *sum, mp_error *err)
{
    for (uint32_t pos = 0; pos < test->n_prompt;) {
        const uint32_t left = test->n_prompt - pos;
        const uint32_t n = left < runner->params.n_batch ? left : runner->params.n_batch;
        for (uint32_t i = 0; i < n; i++)
            runner->batch[i] = (mp_batch_token){.token = random_token(runner, random),
                                                .pos = pos + i,
                                                .point = test->points[(pos + i) % test->n_points],
                                                .logits = pos + i + 1 == test->n_prompt};
        MP_TRY(step(runner, n, sum, err));
        pos += n;
    }
    return MP_OK;
}

/* What a server does after a step; the tokens drawn are not used. */
static void draw_tokens(bench_runner *runner, size_t n, tally *sum)
{
    const uint64_t start = clock_now_ns();
    for (size_t i = 0; i < n; i++) mp_sampler_draw(runner->sampler, mp_engine_logits(runner->engine, i));
    sum->sampling_ns += clock_now_ns() - start;
}

static mp_status gen_test(bench_runner *runner, const bench_test *test, rng *random, tally *sum, mp_error *err)
{
    for (uint32_t pos = 0; pos < test->n_gen; pos++) {
        for (uint32_t s = 0; s < test->n_seqs; s++)
            runner->batch[s] = (mp_batch_token){.token = random_token(runner, random),
                                                .seq = s,
                                                .pos = pos,
                                                .point = test->points[s % test->n_points],
                                                .logits = true};
        MP_TRY(step(runner, test->n_seqs, sum, err));
        if (runner->sampler != NULL) draw_tokens(runner, test->n_seqs, sum);
    }
    return MP_OK;
}

/* Every run of a test draws the same tokens, unless what they left in a store would then help the next run. */
static mp_status one_run(bench_runner *runner, const bench_test *test, uint64_t *ns, tally *sum, mp_error *err)
{
    rng random;
    mp_store_stats unused;
    rng_init(&random, runner->seed + (mp_engine_store_stats(runner->engine, &unused) ? runner->runs++ : 0));
    for (uint32_t s = 0; s < test->n_seqs; s++) mp_engine_seq_truncate(runner->engine, s, 0);
    const uint64_t start = clock_now_ns(), sampling = sum->sampling_ns;
    const mp_status status =
        test->n_prompt > 0 ? prompt_test(runner, test, &random, sum, err) : gen_test(runner, test, &random, sum, err);
    *ns = clock_now_ns() - start - (sum->sampling_ns - sampling);
    for (uint32_t s = 0; s < test->n_seqs; s++) mp_engine_seq_truncate(runner->engine, s, 0);
    return status;
}

static mp_timings since(const mp_timings *now, const mp_timings *before)
{
    return (mp_timings){
        .steps = now->steps - before->steps,
        .tokens = now->tokens - before->tokens,
        .total_ns = now->total_ns - before->total_ns,
        .attention_ns = now->attention_ns - before->attention_ns,
        .router_ns = now->router_ns - before->router_ns,
        .gate_ns = now->gate_ns - before->gate_ns,
        .experts_ns = now->experts_ns - before->experts_ns,
        .dense_ns = now->dense_ns - before->dense_ns,
        .head_ns = now->head_ns - before->head_ns,
    };
}

static void stamp(char *buf, size_t cap)
{
    const time_t now = time(NULL);
    struct tm parts;
    if (gmtime_r(&now, &parts) == NULL || strftime(buf, cap, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) buf[0] = '\0';
}

/* The first run touches all memory and does not count; for generation one step does that, unless it must fill a store.
 */
static mp_status warm_up(bench_runner *runner, const bench_test *test, mp_error *err)
{
    bench_test warm = *test;
    tally unused = {0};
    uint64_t ns;
    mp_store_stats store;
    if (warm.n_gen > 1 && !mp_engine_store_stats(runner->engine, &store)) warm.n_gen = 1;
    return one_run(runner, &warm, &ns, &unused, err);
}

mp_status bench_run(bench_runner *runner, const bench_test *test, bench_result *result, mp_error *err)
{
    tally sum = {0};
    result->test = *test;
    result->samples_ns = calloc(runner->repetitions, sizeof *result->samples_ns);
    if (result->samples_ns == NULL) return status_no_memory(err, runner->repetitions, "samples");
    MP_TRY(warm_up(runner, test, err));
    stamp(result->test_time, sizeof result->test_time);
    const mp_timings before = mp_engine_timings(runner->engine);
    mp_store_stats store, store_before;
    mp_engine_store_stats(runner->engine, &store_before);
    for (uint32_t i = 0; i < runner->repetitions; i++) {
        MP_TRY(one_run(runner, test, &result->samples_ns[i], &sum, err));
        result->n_samples++;
    }
    const mp_timings after = mp_engine_timings(runner->engine);
    result->timings = since(&after, &before);
    result->has_store = mp_engine_store_stats(runner->engine, &store);
    result->store = mp_store_stats_since(&store, &store_before);
    result->sampling_ns = sum.sampling_ns;
    result->compute_share = sum.share_sum / (double)sum.tokens;
    return MP_OK;
}
