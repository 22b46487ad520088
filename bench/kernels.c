/* The two products of an expert at real shapes, on one thread, beside the speed at which this machine reads memory.
 *
 *   kernels [--csv] [--isa NAME] [--type NAME] [--megabytes N]
 *
 * A sub-expert is 32 neurons of a model with d = 2048: rows_dot takes its 64 gate and up rows, rows_accumulate its 32
 * down rows in tiles of 256 columns. Sub-experts are visited in random order in a buffer of N MB (default 1024: far
 * larger than a cache). GB/s are bytes of weights, counted once however many tokens share them. Times are the thread's
 * CPU time, so that other programs on the machine only disturb through caches and memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tensor/kernels.h"

enum { D = 2048, NEURONS = 32, WIDTH = 256, MAX_TOKENS = 32 };
static const double SECONDS = 0.2; /* of each measurement */

typedef struct bench {
    const kernels *k;
    const dtype_traits *traits;
    uint8_t *memory;
    size_t bytes, part_bytes, parts; /* a part: what one kernel call works on */
    uint32_t *order;
    const void *x[MAX_TOKENS];
    float *y[MAX_TOKENS];
    bool csv;
} bench;

static void *must_alloc(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p) abort();
    return p;
}

/* One thread reading the buffer from end to end, as four streams within windows of 16 KB, asking ahead; best of five.
 */
static double read_bandwidth(const uint8_t *memory, size_t bytes)
{
    typedef uint64_t wide __attribute__((vector_size(64), aligned(1), may_alias));
    enum { STREAM = 4096, WINDOW = 4 * STREAM };
    double best = 0;
    for (int round = 0; round < 5; round++) {
        wide sum[4] = {{0}};
        const uint64_t start = clock_thread_cpu_ns();
        for (size_t w = 0; w + WINDOW <= bytes; w += WINDOW) {
            for (size_t i = 0; i < STREAM; i += sizeof(wide)) {
                for (size_t k = 0; k < 4; k++) {
                    const uint8_t *p = memory + w + k * STREAM + i;
                    __builtin_prefetch(p + WINDOW);
                    sum[k] += *(const wide *)(const void *)p;
                }
            }
        }
        const double rate = (double)bytes / (double)(clock_thread_cpu_ns() - start);
        const wide all = sum[0] + sum[1] + sum[2] + sum[3];
        volatile uint64_t sink = all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
        (void)sink;
        best = rate > best ? rate : best;
    }
    return best;
}

/* Fills the buffer with copies of one quantized part of `count` elements and shuffles the order of visits. */
static void prepare(bench *b, size_t count)
{
    rng r;
    rng_init(&r, 1);
    float *part = must_alloc(count * sizeof *part);
    for (size_t i = 0; i < count; i++) part[i] = rng_normal(&r);
    b->part_bytes = dtype_row_bytes(b->traits->type, count);
    b->parts = b->bytes / b->part_bytes;
    dtype_from_f32(b->traits->type, part, b->memory, count);
    for (size_t i = 1; i < b->parts; i++) memcpy(b->memory + i * b->part_bytes, b->memory, b->part_bytes);
    b->order = must_alloc(b->parts * sizeof *b->order);
    for (size_t i = 0; i < b->parts; i++) b->order[i] = (uint32_t)i;
    for (size_t i = b->parts; i > 1; i--) {
        const size_t j = rng_below(&r, i);
        const uint32_t swap = b->order[i - 1];
        b->order[i - 1] = b->order[j], b->order[j] = swap;
    }
    free(part);
}

static void dot_part(const bench *b, const uint8_t *w, size_t tokens)
{
    b->k->rows_dot(b->traits->type, D, w, dtype_row_bytes(b->traits->type, D), 2 * NEURONS, b->x, b->y, tokens, NULL);
}

static void accumulate_part(const bench *b, const uint8_t *w, size_t tokens)
{
    const size_t row = dtype_row_bytes(b->traits->type, WIDTH);
    for (size_t c = 0; c < D; c += WIDTH, w += NEURONS * row) {
        float *y[MAX_TOKENS];
        for (size_t t = 0; t < tokens; t++) y[t] = b->y[t] + c;
        b->k->rows_accumulate(b->traits->type, WIDTH, w, row, NEURONS, (const float *const *)b->x, y, tokens, NULL);
    }
}

static void measure(const bench *b, const char *name, void (*part)(const bench *, const uint8_t *, size_t), size_t macs)
{
    for (size_t tokens = 1; tokens <= MAX_TOKENS; tokens = tokens == 1 ? 4 : tokens * 8) {
        const uint64_t start = clock_thread_cpu_ns();
        uint64_t elapsed = 0;
        size_t done = 0;
        while ((double)elapsed < SECONDS * 1e9) {
            for (int i = 0; i < 32; i++) part(b, b->memory + b->order[done++ % b->parts] * b->part_bytes, tokens);
            elapsed = clock_thread_cpu_ns() - start;
        }
        const double ns = (double)elapsed / (double)done;
        printf(b->csv ? "%s,%s,%s,%zu,%.3f,%.3f\n" : "%-16s %-5s %-7s %6zu %9.2f %9.2f\n", name, b->traits->name,
               b->k->isa, tokens, (double)b->part_bytes / ns, (double)(macs * tokens) / ns);
        fflush(stdout);
    }
}

/* Tokens for rows_dot, or factors for rows_accumulate. */
static void fill_tokens(bench *b, bool quantize)
{
    rng r;
    rng_init(&r, 2);
    for (size_t t = 0; t < MAX_TOKENS; t++) {
        float *x = must_alloc(D * sizeof *x);
        for (size_t i = 0; i < D; i++) x[i] = rng_normal(&r);
        b->x[t] = x;
        if (!quantize) continue;
        void *act = must_alloc(kernels_act_bytes(D));
        b->k->quantize_act(x, D, act);
        free(x);
        b->x[t] = act;
    }
}

static void free_tokens(bench *b)
{
    for (size_t t = 0; t < MAX_TOKENS; t++) free((void *)b->x[t]);
}

static void run_type(bench *b, const char *isa_wanted)
{
    for (int product = 0; product < 2; product++) {
        const size_t elements = (size_t)(product ? 1 : 2) * NEURONS * D;
        prepare(b, elements);
        for (const char *const *isa = kernels_available(); *isa; isa++) {
            if (isa_wanted && strcmp(isa_wanted, *isa)) continue;
            b->k = kernels_get(*isa);
            fill_tokens(b, product == 0 && b->traits->quantized);
            measure(b, product ? "rows_accumulate" : "rows_dot", product ? accumulate_part : dot_part, elements);
            free_tokens(b);
        }
        free(b->order);
    }
}

int main(int argc, char **argv)
{
    static const dtype TYPES[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q6_K, DTYPE_Q4_K, DTYPE_Q4_0};
    bench b = {.bytes = (size_t)1024 << 20};
    const char *isa = NULL, *type = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--csv")) {
            b.csv = true;
        } else if (!strcmp(argv[i], "--isa") && i + 1 < argc) {
            isa = argv[++i];
        } else if (!strcmp(argv[i], "--type") && i + 1 < argc) {
            type = argv[++i];
        } else if (!strcmp(argv[i], "--megabytes") && i + 1 < argc && atoi(argv[i + 1]) > 0) {
            b.bytes = (size_t)atoi(argv[++i]) << 20;
        } else {
            fprintf(stderr, "usage: kernels [--csv] [--isa NAME] [--type NAME] [--megabytes N]\n");
            return 2;
        }
    }
    b.memory = must_alloc(b.bytes);
    memset(b.memory, 1, b.bytes);
    for (size_t t = 0; t < MAX_TOKENS; t++) b.y[t] = calloc(D, sizeof(float));
    const double bandwidth = read_bandwidth(b.memory, b.bytes);
    printf(
        b.csv ? "kernel,type,isa,tokens,gb_per_s,gmac_per_s\nread,,,,%.3f,\n"
              : "sequential read, one thread: %.2f GB/s\n\nkernel           type  isa     tokens      GB/s    GMAC/s\n",
        bandwidth);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        b.traits = dtype_get(TYPES[i]);
        if (!type || dtype_by_name(type) == TYPES[i]) run_type(&b, isa);
    }
    for (size_t t = 0; t < MAX_TOKENS; t++) free(b.y[t]);
    free(b.memory);
    return 0;
}
