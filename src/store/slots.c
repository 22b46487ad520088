#include "store/slots.h"

#define MAX_PART ((uint64_t)1 << 30) /* what every system reads in one request */

/* A slot may be larger than what it holds by 1 / SLACK of that where reads are direct, in blocks of any disk where that
 * is 1 / LITTLE. */
#define SLACK  4
#define LITTLE 32
/* Where parts begin that are read through the page cache: kernels like whole vectors. */
#define VECTOR 64

static uint64_t up(uint64_t bytes, uint64_t block)
{
    return (bytes + block - 1) / block * block;
}

/* Of the sub-expert that lies worst. Where a part's size is not a whole number of blocks, the same distances come back
 * after `block` sub-experts at most. */
static uint64_t window(const store_part *part, uint32_t n_subs, uint32_t block)
{
    const uint32_t n = part->bytes % block == 0 ? 1 : n_subs < block ? n_subs : block;
    uint64_t most = 0;
    for (uint32_t s = 0; s < n; s++) {
        const uint64_t begin = part->offset + s * part->bytes;
        const uint64_t bytes = up(begin + part->bytes, block) - begin / block * block;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static bool part_fits(const store_part *part, uint32_t n_subs)
{
    uint64_t all, end;
    return part->bytes > 0 && part->bytes <= MAX_PART && !__builtin_mul_overflow(part->bytes, n_subs, &all) &&
           !__builtin_add_overflow(part->offset, all, &end) && end <= INT64_MAX - IO_ALIGN;
}

mp_status slots_check(const store_shape *shape, mp_error *err)
{
    uint32_t units, requests;
    if (shape->n_parts == 0 || shape->n_parts > STORE_MAX_PARTS)
        return status_fail(err, MP_E_INVALID, "a sub-expert in %u parts: there can be 1 to %d", shape->n_parts,
                           STORE_MAX_PARTS);
    if (shape->n_layers == 0 || shape->n_subs == 0)
        return status_fail(err, MP_E_INVALID, "no layer with experts: nothing to read");
    if (__builtin_mul_overflow(shape->n_layers, shape->n_subs, &units) ||
        __builtin_mul_overflow(units, STORE_MAX_PARTS, &requests))
        return status_fail(err, MP_E_UNSUPPORTED, "%u layers of %u sub-experts are too many", shape->n_layers,
                           shape->n_subs);
    for (uint32_t i = 0; i < shape->n_layers * shape->n_parts; i++)
        if (!part_fits(&shape->parts[i], shape->n_subs))
            return status_fail(err, MP_E_UNSUPPORTED,
                               "part %u of layer %u: %llu bytes at offset %llu cannot be read in one piece",
                               i % shape->n_parts, i / shape->n_parts, (unsigned long long)shape->parts[i].bytes,
                               (unsigned long long)shape->parts[i].offset);
    return MP_OK;
}

/* Of the layer where the part is largest; block 1: not in blocks. */
static uint64_t column_bytes(const store_shape *shape, uint32_t part, uint32_t block)
{
    uint64_t most = 0;
    for (uint32_t l = 0; l < shape->n_layers; l++) {
        const store_part *p = &shape->parts[l * shape->n_parts + part];
        const uint64_t bytes = block > 1 ? window(p, shape->n_subs, block) : up(p->bytes, VECTOR);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static uint64_t all_columns(const store_shape *shape, uint32_t block)
{
    uint64_t sum = 0;
    for (uint32_t p = 0; p < shape->n_parts; p++) sum += column_bytes(shape, p, block);
    return sum;
}

uint32_t slots_align(const store_shape *shape)
{
    const uint64_t bare = all_columns(shape, 1);
    if (all_columns(shape, IO_ALIGN) <= bare + bare / LITTLE) return IO_ALIGN;
    return all_columns(shape, IO_SECTOR) <= bare + bare / SLACK ? IO_SECTOR : 1;
}

uint64_t slots_bytes(const store_shape *shape)
{
    return all_columns(shape, slots_align(shape));
}

uint64_t slots_column(const store_shape *shape, uint32_t part)
{
    return column_bytes(shape, part, slots_align(shape));
}

bool slots_lie_on(const store_shape *shape, uint32_t align)
{
    for (uint32_t i = 0; i < shape->n_layers * shape->n_parts; i++)
        if (shape->parts[i].offset % align || shape->parts[i].bytes % align) return false;
    return true;
}

uint64_t slots_file_end(const store_shape *shape, uint32_t file)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < shape->n_layers * shape->n_parts; i++) {
        if (shape->parts[i].file != file) continue;
        const uint64_t end = shape->parts[i].offset + shape->n_subs * shape->parts[i].bytes;
        most = end > most ? end : most;
    }
    return most;
}

uint64_t store_memory_for(const store_shape *shape, uint32_t units)
{
    uint64_t bytes;
    if (slots_check(shape, NULL) != MP_OK) return 0;
    return __builtin_mul_overflow(slots_bytes(shape), units, &bytes) ? UINT64_MAX : bytes;
}
