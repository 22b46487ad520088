/* row.h: passes over a row of logits, by blocks of ROW_BLOCK. Plain C that compilers turn into vectors, made for the
 * instruction sets that are there and chosen by what the machine has; sums are added up in one order, so that all of
 * them give the same bits. No memory of their own; any thread. */
#ifndef TEXT_ROW_H
#define TEXT_ROW_H

#include <stddef.h>
#include <stdint.h>

enum { ROW_BLOCK = 64, ROW_BINS = 2048, ROW_BINS_ROOM = ROW_BINS + ROW_BLOCK };

/* Which logits take part: those above `logit`, and those equal to it up to `id`. */
typedef struct row_cut {
    float logit;
    int32_t id;
} row_cut;

static inline uint32_t row_blocks(uint32_t n)
{
    return (n + ROW_BLOCK - 1) / ROW_BLOCK;
}

/* Largest [blocks] of every block, and of all; NaN is passed over, -inf where there is nothing else. */
float row_largest(const float *x, uint32_t n, float *largest);

/* Weights e^((x - top) / temperature) of what takes part, summed per block into sums [blocks]; returns all of them.
 * largest [blocks]: of the blocks; top: of them. */
double row_sums(const float *x, uint32_t n, const float *largest, float top, float temperature, row_cut cut,
                double *sums);

/* Weights e^(x - top) of what is at least `low`, by how far below the top it is: into bins
 * [ROW_BINS_ROOM], the first one for the largest; what lies behind ROW_BINS is scratch. */
void row_masses(const float *x, uint32_t n, const float *largest, float top, float low, double *bins);
/* Logits of a bin are within these, the bounds included; a neighbour's that rounding brings near may be so too. */
void row_bin_range(int32_t bin, float top, float low, float *least, float *most);
/* The bin of a logit >= low. */
int32_t row_bin(float x, float top, float low);

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

/* What lies between the bounds, by id, into out [n]; returns how many. */
size_t row_collect(const float *x, uint32_t n, const float *largest, float least, float most, candidate *out);

#endif
