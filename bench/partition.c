/* The partition solvers against each other: objective where they start and end, on held-out tokens, and CPU seconds.
 *
 *   partition [C N B [SEED]]            synthetic: neurons in groups that fire together, heavy-tailed, plus noise
 *   partition C N B FILE                w [any tokens, C] as raw F32; B to fit, the rest (at most 4 B) held out
 *
 * CSV on standard output: one row for each solver. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "refactor/partition.h"

/* Each group of C / (2 N) neurons fires on one token in eight; its neurons' sizes are log-normal. */
static void synthesise(float *w, size_t n_tokens, uint32_t c, uint32_t n, uint64_t seed)
{
    uint32_t groups = 2 * n < c ? 2 * n : c;
    float *size = malloc(c * sizeof *size);
    uint32_t *group = malloc(c * sizeof *group);
    bool *fires = malloc(groups * sizeof *fires);
    rng r;
    if (!size || !group || !fires) abort();
    rng_init(&r, seed);
    for (uint32_t j = 0; j < c; j++) size[j] = expf(rng_normal(&r)), group[j] = (uint32_t)rng_below(&r, groups);
    for (size_t b = 0; b < n_tokens; b++) {
        for (uint32_t g = 0; g < groups; g++) fires[g] = rng_below(&r, 8) == 0;
        for (uint32_t j = 0; j < c; j++)
            w[b * c + j] = fabsf(rng_normal(&r)) * size[j] * (fires[group[j]] ? 1.0f : 0.15f);
    }
    free(size);
    free(group);
    free(fires);
}

static size_t read_file(const char *path, float *w, size_t count)
{
    FILE *f = fopen(path, "rb");
    if (!f) perror(path), exit(1);
    size_t n = fread(w, sizeof *w, count, f);
    fclose(f);
    return n;
}

static mp_status run(int solver, const partition_problem *p, uint64_t seed, uint16_t *part, mp_error *err)
{
    if (solver == 0) return partition_sort(p, part, err);
    if (solver == 1) return partition_greedy(p, part, err);
    if (solver == 3) return partition_bcd(p, &(partition_bcd_params){.seed = seed}, part, err);
    MP_TRY(partition_greedy(p, part, err));
    return partition_anneal(p, &(partition_anneal_params){.seed = seed}, part, err);
}

static void compare(const partition_problem *fit, const partition_problem *held, uint64_t seed)
{
    static const char *const names[] = {"sort", "greedy", "anneal", "bcd"};
    static const int starts[] = {0, 1, 1, 0};
    uint16_t *part = malloc(fit->n_neurons * sizeof *part), *start = malloc(fit->n_neurons * sizeof *start);
    mp_error err;
    if (!part || !start) abort();
    printf("solver,neurons,parts,tokens,start,end,heldout_start,heldout_end,cpu_s\n");
    for (int solver = 0; solver < 4; solver++) {
        uint64_t t0 = clock_thread_cpu_ns();
        if (run(solver, fit, seed, part, &err) != MP_OK) fprintf(stderr, "%s\n", err.message), exit(1);
        double seconds = 1e-9 * (double)(clock_thread_cpu_ns() - t0);
        run(starts[solver], fit, seed, start, &err);
        printf("%s,%u,%u,%zu,%.6f,%.6f,%.6f,%.6f,%.4f\n", names[solver], fit->n_neurons, fit->n_parts, fit->n_tokens,
               partition_objective(fit, start), partition_objective(fit, part), partition_objective(held, start),
               partition_objective(held, part), seconds);
        fflush(stdout);
    }
    free(part);
    free(start);
}

int main(int argc, char **argv)
{
    openblas_set_num_threads(1);
    size_t c = argc > 1 ? strtoul(argv[1], NULL, 10) : 128, n = argc > 2 ? strtoul(argv[2], NULL, 10) : 32;
    size_t b = argc > 3 ? strtoul(argv[3], NULL, 10) : 4000, rows = 5 * b;
    uint64_t seed = 1;
    if (c < 1 || c > 65536 || n < 1 || c % n || b < 1 || b > 1000000) return fprintf(stderr, "bad C, N or B\n"), 2;
    float *w = malloc(rows * c * sizeof *w);
    if (!w) abort();
    if (argc > 4 && argv[4][strspn(argv[4], "0123456789")]) {
        rows = read_file(argv[4], w, rows * c) / c;
        if (b > rows * 4 / 5) b = rows * 4 / 5;
    } else {
        if (argc > 4) seed = strtoull(argv[4], NULL, 10);
        synthesise(w, rows, (uint32_t)c, (uint32_t)n, seed);
    }
    partition_problem fit = {.w = w, .n_tokens = b, .n_neurons = (uint32_t)c, .n_parts = (uint32_t)n}, held;
    partition_default_keeps(&fit);
    held = fit;
    held.w = w + b * c;
    held.n_tokens = rows - b;
    compare(&fit, &held, seed);
    free(w);
    return 0;
}
