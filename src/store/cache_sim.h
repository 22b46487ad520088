/* cache_sim.h: what a cap and a policy make of a recorded run. Pure: no data, no disk, no clock.
 *
 * Each line of the record is a claim, as the engine makes it: its units are pinned together, those that are there
 * before the others come in, and all are let go before the next line. Where a prompt's claim is more than there are
 * slots, it is made in pieces. */
#ifndef STORE_CACHE_SIM_H
#define STORE_CACHE_SIM_H

#include "store/eviction.h"
#include "store/record.h"

typedef struct cache_sim_params {
    const eviction *policy; /* &eviction_belady too */
    bool whole;             /* units are whole experts, all that the router chose; else the sub-experts that ran */
    uint64_t memory;        /* bytes */
    double bandwidth;       /* bytes a second */
    double latency;         /* seconds that every read costs beside its bytes */
} cache_sim_params;

typedef struct cache_sim_result {
    uint64_t unit_bytes;
    uint32_t units, slots;      /* units of the model; that the memory holds, all at most */
    uint64_t tokens, claimed;   /* units claimed */
    uint64_t misses, evictions; /* a miss is one read of a unit */
    double hit_rate;            /* 0..1 */
    double bytes_per_token;     /* read */
    double stall_per_token;     /* seconds: bytes / bandwidth + reads * latency, nothing overlapped */
} cache_sim_result;

/* Bytes of all units; the same for both kinds. */
uint64_t cache_sim_all_bytes(const record_shape *shape);

/* The least memory: what the experts of one token in one layer take, as the engine asks for. */
uint64_t cache_sim_least(const record_trace *t);

/* MP_E_LIMIT below that. */
mp_status cache_sim(const record_trace *t, const cache_sim_params *p, cache_sim_result *out, mp_error *err);

#endif
