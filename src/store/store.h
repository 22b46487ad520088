/* store.h: expert weights that do not fit in memory, read from disk when they are wanted, under a hard cap.
 *
 * A *unit* is what one sub-expert of one layer needs (a whole expert where a model is not split): two or three extents
 * of the model's files, its parts. Units live in the slots of an arena that is taken once, all of one size, so nothing
 * is allocated later and memory cannot fragment. A *claim* is the set of units that one caller uses together: it pins
 * those that are there, starts the reads of the others at once, in the caller's order, and hands out units as they
 * arrive. A pinned unit is never evicted, and the cap counts every slot, pinned or not, from the start.
 *
 * Any number of threads may hold claims; each claim belongs to one thread. Bytes read are those of the files: what is
 * computed from them cannot depend on the cap, the policy or the backend. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/file_map.h"
#include "store/eviction.h"
#include "store/io.h"

#define STORE_MAX_PARTS 3
#define STORE_NONE      UINT32_MAX

/* Sub-expert s of a layer keeps this part at [offset + s * bytes, offset + (s + 1) * bytes) of a file. */
typedef struct store_part {
    uint64_t offset, bytes;
    uint32_t file;
} store_part;

/* A file that parts lie in. The store opens `path` for itself; `expected` is the stamp of the file that the shape was
 * read from. */
typedef struct store_file {
    const char *path;
    const file_stamp *expected;
} store_file;

/* What there is to read. Unit number: layer * n_subs + sub-expert. Layers without experts are not counted. */
typedef struct store_shape {
    uint32_t n_layers, n_subs, n_parts;
    const store_part *parts; /* [n_layers, n_parts]; copied, as are the files */
    uint32_t n_files;
    const store_file *files; /* [n_files] */
} store_shape;

typedef struct store_params {
    uint64_t memory;      /* bytes that all slots together may take */
    const char *eviction; /* a name of eviction.h; NULL: the default */
    const char *backend;  /* a name of io.h; NULL: the first that works */
    uint32_t depth;       /* reads in flight; 0: a default */
    /* The units used most in calibration stay for good once they are read, up to this share of the slots. */
    const float *use;   /* [n_layers * n_subs], NULL: not known */
    double pin_share;   /* 0..1; 0: none */
    const io_class *io; /* overrides `backend`: for tests */
    void *io_user;
} store_params;

typedef struct store_stats {
    uint64_t hits, misses; /* units claimed that were there, that were not (those on their way count as hits) */
    uint64_t bytes_wanted; /* of claimed units */
    uint64_t bytes_read;   /* from disk, alignment included */
    uint64_t evictions;
    uint64_t ahead, ahead_used; /* units that store_read_ahead() began to read, and those of them that a claim wanted */
    uint64_t stall_ns;          /* spent waiting in store_claim_wait() */
    uint64_t reads;             /* requests finished */
    uint64_t depth_sum;         /* requests in flight, summed at each start of one: depth_sum / reads is the mean */
    uint32_t depth_max;
    uint32_t slots, resident, pinned; /* now */
    uint64_t slot_bytes;
} store_stats;

typedef struct store store;

/* Memory for `units` slots, alignment included: what a cap must be to hold so many. */
uint64_t store_memory_for(const store_shape *shape, uint32_t units);

/* A file that is another one than expected, or of another size or time, is refused with MP_E_CHANGED. Fails with
 * MP_E_LIMIT, naming store_memory_for(least), where the cap holds fewer than `least` units. A notice (what was fallen
 * back to and why) is left in `notice` [MP_ERROR_MAX], empty where there is none. */
mp_status store_open(const store_shape *shape, const store_params *params, uint32_t least, store **out, char *notice,
                     mp_error *err);
void store_close(store *s); /* waits for reads in flight; no claim may be open; NULL is fine */

uint32_t store_slots(const store *s);
bool store_is_resident(store *s, uint32_t unit);
store_stats store_get_stats(store *s);
const char *store_backend(const store *s);
const char *store_eviction(const store *s);

/* The arrays are the caller's, [cap]; the rest is filled in. Zero it before first use. */
typedef struct store_claim {
    uint32_t cap;
    uint32_t *slot;  /* of each unit */
    uint32_t *ready; /* indices of units, in the order in which they arrived */
    uint32_t n, n_ready;
} store_claim;

/* Claims the first units of units [n] (distinct; n <= cap), in their order, as many as have room now, and returns how
 * many. It waits for room only where it would return 0 and `wait` says so; a caller that holds another claim must not
 * wait. Units that are resident are in `ready` when it returns. */
uint32_t store_claim_begin(store *s, store_claim *c, const uint32_t *units, uint32_t n, bool wait);
/* Returns when more than `seen` units are ready, all are, or the clock (clock_now_ns) has passed `until_ns` (0: no
 * limit). Fails with MP_E_IO where a read failed or was short, with MP_E_CHANGED where a file has changed, now and from
 * then on; the claim must then be ended. */
mp_status store_claim_wait(store *s, store_claim *c, uint32_t seen, uint64_t until_ns, mp_error *err);
/* A part of the i-th unit of the claim, which must be ready. */
const uint8_t *store_data(const store *s, const store_claim *c, uint32_t i, uint32_t part);
/* Begins to read those of units [n] (distinct) that are not there, likely to be claimed soon and the likeliest first.
 * Neither what is pinned nor any of the units makes room for them. It does not wait, and begins no more than the disk
 * has lately been done with by the time the next claim began. */
void store_read_ahead(store *s, const uint32_t *units, uint32_t n);
/* Unpins. Reads that have not ended stay counted until they have. A unit whose read failed is forgotten. */
void store_claim_end(store *s, store_claim *c);

#endif
