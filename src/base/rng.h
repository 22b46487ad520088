/* rng.h: xoshiro256** seeded by splitmix64. The caller owns the state; same seed, same stream, everywhere. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

typedef struct rng {
    uint64_t s[4];
} rng;

void rng_init(rng *r, uint64_t seed);
/* An independent stream for item `index` of a job: results do not depend on which thread ran it. */
void rng_init_stream(rng *r, uint64_t seed, uint64_t index);
uint64_t rng_u64(rng *r);
/* Uniform in [0, bound), without bias; bound > 0. */
uint64_t rng_below(rng *r, uint64_t bound);
double rng_uniform(rng *r); /* [0, 1) */
float rng_normal(rng *r);   /* mean 0, deviation 1 */

#endif
