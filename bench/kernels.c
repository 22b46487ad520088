/* The two products of an expert at real shapes, on one thread, beside what this machine can do: the speed at which it
 * reads memory, and the multiply-adds of the instructions that a table uses when nothing else is in their way.
 *
 *   kernels [--csv] [--isa NAME] [--type NAME] [--megabytes N] [--tokens N]
 *
 * A sub-expert is 32 neurons of a model with d = 2048: rows_dot takes its 64 gate and up rows, rows_accumulate its 32
 * down rows in tiles of 256 columns, for 1, 4 and 32 tokens or for N. Sub-experts are visited in random order in a
 * buffer of N MB (default 1024: far larger than a cache), and each call is told the next one, as the engine does.
 * "r16": rows interleaved by sixteen, "b32": tiles in blocks. GB/s are bytes of weights, counted once however many
 * tokens share them. "of limit" is the time that reading the weights or multiplying alone would take, whichever is
 * longer, over the time it took; where all fits a cache (a small N) reading counts as free. Times are the thread's CPU
 * time, so that other programs on the machine only disturb through caches and memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/rng.h"
#include "tensor/blocks32.h"
#include "tensor/kernels.h"
#include "tensor/rows16.h"

enum { D = 2048, NEURONS = 32, WIDTH = 256, MAX_TOKENS = 128 };
enum { HUGE_PAGE = 2 << 20, FITS_A_CACHE = 2 << 20 };
static const double SECONDS = 0.2; /* of each measurement */

typedef struct bench {
    const kernels *k;
    const dtype_traits *traits;
    dtype stored; /* the same, or its interleaved form */
    uint8_t *memory;
    size_t bytes, part_bytes, parts; /* a part: what one kernel call works on */
    uint32_t *order;
    const void *x[MAX_TOKENS];
    float *y[MAX_TOKENS];
    double bandwidth;           /* GB/s, infinite where the buffer fits a cache */
    size_t tokens[3], n_tokens; /* numbers of them to measure */
    bool csv;
} bench;

/* Aligned to lines, as the engine's memory is. */
static void *must_alloc(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) abort();
    return p;
}

/* One thread reading the buffer from end to end; best of five. */
static double read_bandwidth(const uint8_t *memory, size_t bytes)
{
    typedef uint64_t wide __attribute__((vector_size(64), aligned(1), may_alias));
    enum { SUMS = 4, PIECE = SUMS * sizeof(wide), AHEAD = 4096 };
    double best = 0;
    for (int round = 0; round < 5; round++) {
        wide sum[SUMS] = {{0}};
        const uint64_t start = clock_thread_cpu_ns();
        for (const uint8_t *p = memory; p + PIECE <= memory + bytes; p += PIECE) {
            for (size_t k = 0; k < SUMS; k++) {
                __builtin_prefetch(p + AHEAD + k * sizeof(wide));
                sum[k] += *(const wide *)(const void *)(p + k * sizeof(wide));
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

/* ---- multiply-adds ----------------------------------------------------------------------------------------------- */

enum { CHAINS = 12, ROUNDS = 4000000 };

static double gmac_per_s(uint64_t start, size_t macs)
{
    return (double)macs * CHAINS * ROUNDS / (double)(clock_thread_cpu_ns() - start);
}

/* Independent chains, each in a register of its own: the empty assembler statement could have changed them all. */
#if defined(__x86_64__)
#define PEAK(name, target_isa, vector, zero, macs, OP)                                                                 \
    __attribute__((target(target_isa))) static double name(void)                                                       \
    {                                                                                                                  \
        vector x = (zero), y = (zero), a = (zero), b = (zero), c = (zero), d = (zero), e = (zero), f = (zero),         \
               g = (zero), h = (zero), i = (zero), j = (zero), k = (zero), l = (zero);                                 \
        const uint64_t start = clock_thread_cpu_ns();                                                                  \
        for (size_t round = 0; round < ROUNDS; round++) {                                                              \
            a = OP(a), b = OP(b), c = OP(c), d = OP(d), e = OP(e), f = OP(f);                                          \
            g = OP(g), h = OP(h), i = OP(i), j = OP(j), k = OP(k), l = OP(l);                                          \
            __asm__ volatile(""                                                                                        \
                             : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i),        \
                               "+v"(j), "+v"(k), "+v"(l), "+v"(x), "+v"(y));                                           \
        }                                                                                                              \
        return gmac_per_s(start, macs);                                                                                \
    }

#define INTEGER_512(s)  _mm512_dpbusd_epi32(s, x, y)
#define FLOAT_512(s)    _mm512_fmadd_ps(x, y, s)
#define INTEGER_256(s)  _mm256_add_epi16(s, _mm256_maddubs_epi16(s, y))
#define INTEGER_VNNI(s) _mm256_dpbusd_avx_epi32(s, x, y)
#define FLOAT_256(s)    _mm256_fmadd_ps(x, y, s)
PEAK(peak_avx512_integer, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), 64, INTEGER_512)
PEAK(peak_avx512_float, "avx512f", __m512, _mm512_setzero_ps(), 16, FLOAT_512)
PEAK(peak_avxvnni_integer, "avx2,avxvnni", __m256i, _mm256_setzero_si256(), 32, INTEGER_VNNI)
PEAK(peak_avx2_integer, "avx2", __m256i, _mm256_setzero_si256(), 32, INTEGER_256)
PEAK(peak_avx2_float, "avx2,fma", __m256, _mm256_setzero_ps(), 8, FLOAT_256)
#endif

typedef struct peak {
    const char *isa;
    bool integers;
    double (*measure)(void);
    double gmac;
} peak;

static peak PEAKS[] = {
#if defined(__x86_64__)
    {"avx512", true, peak_avx512_integer, 0},
    {"avx512", false, peak_avx512_float, 0},
    {"avxvnni", true, peak_avxvnni_integer, 0},
    {"avxvnni", false, peak_avx2_float, 0},
    {"avx2", true, peak_avx2_integer, 0},
    {"avx2", false, peak_avx2_float, 0},
#endif
    {"", false, NULL, 0},
};
enum { N_PEAKS = sizeof PEAKS / sizeof *PEAKS - 1 };

static void measure_peaks(bool csv)
{
    for (size_t i = 0; i < N_PEAKS; i++) {
        const char *const *isa = kernels_available();
        while (*isa && strcmp(*isa, PEAKS[i].isa)) isa++;
        if (!*isa) continue;
        for (int round = 0; round < 3; round++) {
            const double rate = PEAKS[i].measure();
            PEAKS[i].gmac = rate > PEAKS[i].gmac ? rate : PEAKS[i].gmac;
        }
        const char *kind = PEAKS[i].integers ? "8-bit integers" : "F32";
        printf(csv ? "peak %s,,%s,,,%.3f,\n" : "multiply-adds of %s, %s: %.1f G/s\n", kind, PEAKS[i].isa,
               PEAKS[i].gmac);
    }
}

/* 0 where unknown: portable kernels use whatever the compiler found. */
static double peak_of(const char *isa, bool integers)
{
    for (size_t i = 0; i < N_PEAKS; i++)
        if (PEAKS[i].integers == integers && !strcmp(PEAKS[i].isa, isa)) return PEAKS[i].gmac;
    return 0;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static void arrange(const bench *b)
{
    uint8_t scratch[BLOCK32_ROWS * 512];
    const size_t bytes = NEURONS * dtype_row_bytes(b->traits->type, WIDTH);
    for (size_t at = 0; at < b->part_bytes; at += bytes)
        blocks32_arrange(b->traits->type, NEURONS, b->memory + at, scratch);
}

static void interleave(const bench *b)
{
    const size_t bytes = ROWS16 * dtype_row_bytes(b->traits->type, D);
    uint8_t *scratch = must_alloc(bytes);
    for (size_t at = 0; at < b->part_bytes; at += bytes) rows16_interleave(b->traits->type, D, b->memory + at, scratch);
    free(scratch);
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
    if (dtype_is_r16(b->stored)) interleave(b);
    if (dtype_is_b32(b->stored)) arrange(b);
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

static void dot_part(const bench *b, const uint8_t *w, const uint8_t *next, size_t tokens)
{
    b->k->rows_dot(b->stored, D, w, dtype_row_bytes(b->traits->type, D), 2 * NEURONS, b->x, b->y, tokens, next);
}

static void accumulate_part(const bench *b, const uint8_t *w, const uint8_t *next, size_t tokens)
{
    b->k->rows_accumulate(b->stored, WIDTH, D / WIDTH, w, dtype_row_bytes(b->traits->type, WIDTH), NEURONS,
                          (const float *const *)b->x, b->y, tokens, next);
}

/* Of the time it took, the part that the weights' bytes or the multiplications alone need. */
static void print_result(const bench *b, const char *name, size_t tokens, double macs, double ns)
{
    const double bytes = (double)b->part_bytes;
    const double most = peak_of(b->k->isa, b->traits->quantized), reading = bytes / b->bandwidth;
    const double multiplying = most > 0 ? macs / most : 0, least = reading > multiplying ? reading : multiplying;
    char of_limit[16] = "";
    if (most > 0) snprintf(of_limit, sizeof of_limit, "%.3f", least / ns);
    printf(b->csv ? "%s,%s,%s,%zu,%.3f,%.3f,%s\n" : "%-19s %-5s %-7s %6zu %9.2f %9.2f %9s\n", name, b->traits->name,
           b->k->isa, tokens, bytes / ns, macs / ns, of_limit);
    fflush(stdout);
}

/* The part that is visited `done` after the first. */
static const uint8_t *part_at(const bench *b, size_t done)
{
    return b->memory + b->order[done % b->parts] * b->part_bytes;
}

static void measure(const bench *b, const char *name,
                    void (*part)(const bench *, const uint8_t *, const uint8_t *, size_t), size_t macs, size_t tokens)
{
    const uint64_t start = clock_thread_cpu_ns();
    uint64_t elapsed = 0;
    size_t done = 0;
    while ((double)elapsed < SECONDS * 1e9) {
        for (int i = 0; i < 32; i++, done++) part(b, part_at(b, done), part_at(b, done + 1), tokens);
        elapsed = clock_thread_cpu_ns() - start;
    }
    const double ns = (double)elapsed / (double)done;
    print_result(b, name, tokens, (double)(macs * tokens), ns);
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

typedef struct product {
    const char *name;
    dtype (*stored)(dtype type); /* NULL: as in files */
    void (*part)(const bench *, const uint8_t *, const uint8_t *, size_t);
    size_t rows;
} product;

static const product PRODUCTS[] = {
    {"rows_dot", NULL, dot_part, 2 * NEURONS},
    {"rows_dot r16", rows16_type, dot_part, 2 * NEURONS},
    {"rows_accumulate", NULL, accumulate_part, NEURONS},
    {"rows_accumulate b32", blocks32_type, accumulate_part, NEURONS},
};

static bool reads(const kernels *k, dtype stored)
{
    return dtype_is_b32(stored) ? k->blocks32 : !dtype_is_r16(stored) || k->rows16;
}

static void run_type(bench *b, const char *isa_wanted)
{
    for (const product *p = PRODUCTS; p < PRODUCTS + sizeof PRODUCTS / sizeof *PRODUCTS; p++) {
        b->stored = p->stored ? p->stored(b->traits->type) : b->traits->type;
        if (b->stored == DTYPE_NONE) continue;
        const size_t elements = p->rows * D;
        prepare(b, elements);
        for (const char *const *isa = kernels_available(); *isa; isa++) {
            if (isa_wanted && strcmp(isa_wanted, *isa)) continue;
            b->k = kernels_get(*isa);
            if (!reads(b->k, b->stored)) continue;
            fill_tokens(b, p->part == dot_part && b->traits->quantized);
            for (size_t i = 0; i < b->n_tokens; i++) measure(b, p->name, p->part, elements, b->tokens[i]);
            free_tokens(b);
        }
        free(b->order);
    }
}

int main(int argc, char **argv)
{
    static const dtype TYPES[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q6_K, DTYPE_Q4_K, DTYPE_Q4_0};
    bench b = {.bytes = (size_t)1024 << 20, .tokens = {1, 4, 32}, .n_tokens = 3};
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
        } else if (!strcmp(argv[i], "--tokens") && i + 1 < argc && atoi(argv[i + 1]) > 0) {
            const size_t n = (size_t)atoi(argv[++i]);
            b.tokens[0] = n < MAX_TOKENS ? n : MAX_TOKENS;
            b.n_tokens = 1;
        } else {
            fprintf(stderr, "usage: kernels [--csv] [--isa NAME] [--type NAME] [--megabytes N] [--tokens N]\n");
            return 2;
        }
    }
    b.memory = aligned_alloc(HUGE_PAGE, (b.bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (!b.memory) abort();
    madvise(b.memory, b.bytes, MADV_HUGEPAGE);
    memset(b.memory, 1, b.bytes);
    float *y = must_alloc(MAX_TOKENS * D * sizeof *y);
    memset(y, 0, MAX_TOKENS * D * sizeof *y);
    for (size_t t = 0; t < MAX_TOKENS; t++) b.y[t] = y + t * D;
    const double bandwidth = read_bandwidth(b.memory, b.bytes);
    b.bandwidth = b.bytes > FITS_A_CACHE ? bandwidth : 1e9;
    printf(b.csv ? "kernel,type,isa,tokens,gb_per_s,gmac_per_s,of_limit\nread,,,,%.3f,,\n"
                 : "sequential read, one thread: %.2f GB/s\n",
           bandwidth);
    measure_peaks(b.csv);
    if (!b.csv) printf("\nkernel              type  isa     tokens      GB/s    GMAC/s  of limit\n");
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        b.traits = dtype_get(TYPES[i]);
        if (!type || dtype_by_name(type) == TYPES[i]) run_type(&b, isa);
    }
    free(y);
    free(b.memory);
    return 0;
}
