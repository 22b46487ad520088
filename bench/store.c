/* How fast the store reads from a disk, to be put beside fio (bench/store.sh): random blocks of any file, by each
 * backend and at several depths.
 *
 *   store [--csv] [--block BYTES] [--claim N] [--seconds S] [--depth N]... [--backend NAME]... FILE
 *
 * A unit is one block (default 73728 bytes, the gate and up rows of a sub-expert of 32 neurons in Q4_0 at d = 2048).
 * Units are claimed N at a time (default 256) in one random order of the whole file, through so few slots that none is
 * found there again. Two claims take turns, so that the disk always has something to do, as under an engine that
 * computes with one while the other is read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "store/store.h"

enum { MAX_LIST = 16, MIN_CLAIMS = 4 /* that the file must be good for */ };

typedef struct options {
    const char *file;
    uint64_t block;
    uint32_t claim;
    double seconds;
    uint32_t depths[MAX_LIST], n_depths;
    const char *backends[MAX_LIST];
    uint32_t n_backends;
    bool csv;
} options;

typedef struct bench {
    const options *o;
    int fd;
    file_stamp stamp;
    store_file source;
    store_part part;
    store_shape shape;
    uint32_t *order; /* [n_subs] */
    store_claim claims[2];
} bench;

static void *must_alloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p) abort();
    return p;
}

static int refuse(const char *what, const char *why)
{
    fprintf(stderr, "store: %s: %s\n", what, why);
    return 1;
}

static int open_bench(bench *b, const options *o)
{
    b->o = o;
    b->fd = open(o->file, O_RDONLY | O_CLOEXEC);
    if (b->fd < 0 || !file_stamp_take(b->fd, &b->stamp)) return refuse(o->file, strerror(errno));
    const uint64_t units = b->stamp.bytes / o->block;
    if (units < (uint64_t)MIN_CLAIMS * o->claim || units > UINT32_MAX / STORE_MAX_PARTS)
        return refuse(o->file, "too few or too many blocks of this size");
    b->part = (store_part){.offset = 0, .bytes = o->block};
    b->source = (store_file){o->file, &b->stamp};
    b->shape = (store_shape){1, (uint32_t)units, 1, &b->part, 1, &b->source};
    b->order = must_alloc(units, sizeof *b->order);
    rng random;
    rng_init(&random, clock_now_ns()); /* another order each time: a host's cache must not help the second run */
    for (uint32_t i = 0; i < units; i++) {
        const uint32_t at = (uint32_t)rng_below(&random, i + 1);
        b->order[i] = b->order[at];
        b->order[at] = i;
    }
    for (int i = 0; i < 2; i++)
        b->claims[i] = (store_claim){.cap = o->claim,
                                     .slot = must_alloc(o->claim, sizeof(uint32_t)),
                                     .ready = must_alloc(o->claim, sizeof(uint32_t))};
    return 0;
}

static void close_bench(bench *b)
{
    for (int i = 0; i < 2; i++) {
        free(b->claims[i].slot);
        free(b->claims[i].ready);
    }
    free(b->order);
    close(b->fd);
}

/* Claims in turn until the time is up; the next is begun before the last is waited for. */
static mp_status read_on(bench *b, store *s, double *bytes_per_s, mp_error *err)
{
    const uint32_t n = b->o->claim, rounds = b->shape.n_subs / n;
    const uint64_t begin = clock_now_ns(), limit = (uint64_t)(b->o->seconds * 1e9);
    mp_status status = MP_OK;
    store_claim_begin(s, &b->claims[0], b->order, n, true);
    for (uint32_t i = 1; status == MP_OK && clock_now_ns() - begin < limit; i++) {
        store_claim_begin(s, &b->claims[i % 2], &b->order[i % rounds * n], n, false);
        status = store_claim_wait(s, &b->claims[(i - 1) % 2], n, 0, err);
        store_claim_end(s, &b->claims[(i - 1) % 2]);
    }
    *bytes_per_s = (double)store_get_stats(s).bytes_read / (double)(clock_now_ns() - begin) * 1e9;
    for (int i = 0; i < 2; i++) store_claim_end(s, &b->claims[i]);
    return status;
}

static mp_status measure(bench *b, const char *backend, uint32_t depth)
{
    char notice[MP_ERROR_MAX];
    mp_error err;
    store *s;
    double speed = 0;
    const store_params params = {
        .memory = store_memory_for(&b->shape, 2 * b->o->claim), .backend = backend, .eviction = "lru", .depth = depth};
    mp_status status = store_open(&b->shape, &params, 1, &s, notice, &err);
    if (status == MP_OK) {
        status = read_on(b, s, &speed, &err);
        const store_stats stats = store_get_stats(s);
        const double mean_depth = stats.reads ? (double)stats.depth_sum / (double)stats.reads : 0;
        printf(b->o->csv ? "%s,%llu,%u,%.1f,%.0f\n" : "| %s | %llu | %u | %.1f | %.0f |\n", backend,
               (unsigned long long)b->o->block, depth, mean_depth, b->o->csv ? speed : speed / 1048576);
        if (notice[0]) fprintf(stderr, "store: %s\n", notice);
        store_close(s);
    }
    if (status != MP_OK) fprintf(stderr, "store: %s\n", err.message);
    return status;
}

static bool take_option(options *o, const char *name, const char *value)
{
    if (strcmp(name, "--block") == 0) {
        o->block = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--claim") == 0) {
        o->claim = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--seconds") == 0) {
        o->seconds = strtod(value, NULL);
    } else if (strcmp(name, "--depth") == 0 && o->n_depths < MAX_LIST) {
        o->depths[o->n_depths++] = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--backend") == 0 && o->n_backends < MAX_LIST) {
        o->backends[o->n_backends++] = value;
    } else {
        return false;
    }
    return true;
}

static bool parse(options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--csv") == 0) {
            o->csv = true;
        } else if (argv[i][0] != '-' && !o->file) {
            o->file = argv[i];
        } else if (i + 1 == argc || !take_option(o, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    if (!o->n_depths)
        for (uint32_t depth = 1; depth <= 64; depth *= 2) o->depths[o->n_depths++] = depth;
    if (!o->n_backends)
        for (size_t i = 0; io_at(i); i++) o->backends[o->n_backends++] = io_at(i)->name;
    return o->file && o->block && o->claim;
}

int main(int argc, char **argv)
{
    options o = {.block = 73728, .claim = 256, .seconds = 2};
    bench b = {0};
    if (!parse(&o, argc, argv)) {
        fprintf(stderr,
                "usage: store [--csv] [--block BYTES] [--claim N] [--seconds S] [--depth N]... [--backend NAME]... "
                "FILE\n");
        return 2;
    }
    int failed = open_bench(&b, &o);
    if (failed) return failed;
    puts(o.csv ? "backend,block,depth,mean_depth,bytes_per_s"
               : "| backend | block | depth | mean depth | MiB/s |\n|---|---|---|---|---|");
    for (uint32_t i = 0; i < o.n_backends; i++)
        for (uint32_t d = 0; d < o.n_depths; d++)
            if (measure(&b, o.backends[i], o.depths[d]) != MP_OK) failed = 1;
    close_bench(&b);
    return failed;
}
