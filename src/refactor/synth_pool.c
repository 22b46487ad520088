/* Quantizing billions of random numbers would take minutes, and the K types far longer. So a million are quantized once
 * per type and deviation, and a row is a window into them that begins at a random block: thousands of different rows of
 * every width, as fast as memory copies. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "refactor/synth.h"

#define PIECE 256 /* elements scaled at a time: whole blocks of every type */

static mp_status make_normal(synth_pools *set, mp_error *err)
{
    rng r;
    if (set->normal) return MP_OK;
    set->normal = malloc(SYNTH_POOL * sizeof *set->normal);
    if (!set->normal) return status_no_memory(err, SYNTH_POOL * sizeof *set->normal, "random numbers");
    rng_init(&r, set->seed);
    for (size_t i = 0; i < SYNTH_POOL; i++) set->normal[i] = rng_normal(&r);
    return MP_OK;
}

static mp_status make_pool(synth_pools *set, dtype type, float deviation, mp_error *err)
{
    const size_t bytes = dtype_row_bytes(type, SYNTH_POOL);
    synth_pool *grown = realloc(set->pools, (set->n + 1) * sizeof *grown);
    if (!grown) return status_no_memory(err, (set->n + 1) * sizeof *grown, "pools");
    set->pools = grown;
    MP_TRY(make_normal(set, err));
    synth_pool *p = &set->pools[set->n];
    *p = (synth_pool){.type = type, .deviation = deviation, .data = malloc(bytes)};
    if (!p->data) return status_no_memory(err, bytes, "a pool of rows");
    set->n++;
    for (size_t i = 0; i < SYNTH_POOL; i += PIECE) {
        float piece[PIECE];
        for (size_t k = 0; k < PIECE; k++) piece[k] = deviation * set->normal[i + k];
        dtype_from_f32(type, piece, p->data + dtype_row_bytes(type, i), PIECE);
    }
    return MP_OK;
}

mp_status synth_pools_get(synth_pools *set, dtype type, float deviation, const synth_pool **out, mp_error *err)
{
    size_t i = 0;
    while (i < set->n && (set->pools[i].type != type || set->pools[i].deviation != deviation)) i++;
    if (i == set->n) MP_TRY(make_pool(set, type, deviation, err));
    *out = &set->pools[i];
    return MP_OK;
}

void synth_pool_rows(const synth_pool *pool, rng *r, size_t n, size_t rows, uint8_t *out)
{
    const dtype_traits *t = dtype_get(pool->type);
    const size_t bytes = dtype_row_bytes(pool->type, n), starts = (SYNTH_POOL - n) / t->block + 1;
    assert(n <= SYNTH_POOL / 2 && bytes);
    for (size_t i = 0; i < rows; i++, out += bytes)
        memcpy(out, pool->data + (size_t)rng_below(r, starts) * t->block_bytes, bytes);
}

void synth_pools_clear(synth_pools *set)
{
    for (size_t i = 0; i < set->n; i++) free(set->pools[i].data);
    free(set->pools);
    free(set->normal);
    *set = (synth_pools){0};
}
