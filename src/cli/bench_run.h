/* bench_run.h: runs one test and measures it. The runner owns its engine and buffers. */
#ifndef CLI_BENCH_RUN_H
#define CLI_BENCH_RUN_H

#include "moeprism.h"

enum {
    BENCH_BATCH = 512, /* prompt tokens in one step */
    BENCH_REPETITIONS_MAX = 1000,
};

typedef struct bench_runner {
    const mp_model *model;
    uint32_t repetitions;
    uint64_t seed;
    mp_engine *engine;
    mp_engine_params params;
    mp_batch_token *batch; /* [params.n_batch] */
    bool sampling;         /* decode steps end with a draw a sequence, timed apart */
    mp_sampler *sampler;
    uint64_t runs; /* so far */
} bench_runner;

/* One of n_prompt and n_gen is 0. Of several points, tokens of a prompt or sequences take them in turn. */
typedef struct bench_test {
    uint32_t n_prompt, n_gen, n_seqs;
    const uint32_t *points; /* borrowed */
    size_t n_points;
} bench_test;

typedef struct bench_result {
    bench_test test;
    uint64_t *samples_ns; /* [n_samples], owned */
    uint32_t n_samples;
    double compute_share; /* mean over the tokens of all samples */
    mp_timings timings;   /* of all samples together */
    bool has_store;
    mp_store_stats store; /* counts of all samples together */
    uint64_t sampling_ns; /* in none of the other times */
    char test_time[32];   /* ISO 8601, UTC, of the first sample */
} bench_result;

mp_status bench_runner_open(bench_runner *runner, const mp_engine_params *params, mp_error *err);
void bench_runner_close(bench_runner *runner);
/* `result` is all zero before; its owner frees the samples. */
mp_status bench_run(bench_runner *runner, const bench_test *test, bench_result *result, mp_error *err);

#endif
