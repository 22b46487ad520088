/* row_block.h: a block of up to 32 rows in a strip of 256 columns, which rows_accumulate multiplies as integers,
 * written once over the names of factors_<isa>.h, which provides LANES, run_scales, block_scales() and block_shares().
 *
 * A token's factors are rounded to eight bits. For a token and a run of columns with one scale a row (32 columns, Q6_K
 * 16):
 *
 *     a'_j = round(4064 a_j / max |a|);  s'_j = round(1024 scale_j / max |scale|);  q_j = round(a'_j s'_j / 2^15)
 *     y[c] = fma(max |a| max |scale| / 127, sum_j q_j w_jc, y[c]) + sum_j a_j min_j
 *
 * 4064 times 1024 is 127 times 2^15. The shares s' are made once for all tokens and the words a' once for all columns,
 * so a token's factors of 32 rows cost a multiplication or two a run. */
#include "tensor/accumulate.h"

enum { GROUP = 4, BLOCK_ROWS = 32, GROUPS = BLOCK_ROWS / GROUP, FACTOR_TOKENS = 4 };
enum { SHARE_ONE = 1024, VALUE_ONE = 127 * 32 };

/* What fills the last group up to four is zero. next: the rows after these, or what is read soon after all of them, or
 * NULL. unit: max |scale| / 127. The minima of s make up for what is taken off the stored integers, too. */
typedef struct row_block {
    const uint8_t *w, *next;
    size_t stride, rows, groups, units;
    run_scales s[BLOCK_ROWS / LANES];
    int16_t share[2 * STRIP_UNITS]
                 [BLOCK_ROWS]; /* the scales of a run in parts of the largest, as to_words() leaves them */
    float unit[2 * STRIP_UNITS];
    uint8_t last[GROUP][STRIP_UNITS * Q8_0_BYTES];
} __attribute__((aligned(64))) row_block;

/* The scales of the block, 0 for rows that are not there. */
INLINE void block_scales(dtype type, row_block *b);
/* Scales in parts of the largest. */
INLINE void block_shares(dtype type, row_block *b);

/* What to ask for while rows at w are multiplied: two blocks ahead where a tile is one strip, since a block is over
 * before memory would answer. */
INLINE const uint8_t *block_next(const accumulate_args *args, const uint8_t *w, size_t rows, size_t left)
{
    if (tile_strips(args) > 1) return left > BLOCK_ROWS ? w + BLOCK_ROWS * args->stride : args->next;
    const size_t ahead = (size_t)(w - args->r) + 2 * rows * args->stride,
                 total = args->tiles * args->rows * args->stride;
    if (ahead < total) return args->r + ahead;
    return args->next ? args->next + (ahead - total) : NULL;
}

/* Rows j0 .. of a strip. */
INLINE void block_begin(dtype type, const accumulate_args *args, size_t j0, size_t strip, row_block *b)
{
    const size_t c0 = strip_in_tile(args, strip);
    const uint8_t *w = strip_rows(args, strip) + j0 * args->stride + c0 / STRIP * chunk_bytes(type);
    const size_t left = args->rows - j0, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS, stride = args->stride;
    const size_t columns = (args->width - c0) / UNIT, units = columns < STRIP_UNITS ? columns : STRIP_UNITS;
    const size_t whole = rows / GROUP * GROUP;
    b->w = w, b->stride = stride, b->rows = rows, b->units = units;
    b->next = block_next(args, w, rows, left);
    b->groups = (rows + GROUP - 1) / GROUP;
    block_scales(type, b);
    block_shares(type, b);
    if (whole == rows) return;
    memset(b->last, 0, sizeof b->last);
    for (size_t j = whole; j < rows; j++)
        memcpy(b->last[j - whole], w + j * stride, is_k(type) ? block_bytes(type) : units * block_bytes(type));
}

/* Asks for the i-th of GROUPS pieces of what is read after this block. */
INLINE void ask_piece(dtype type, const row_block *b, size_t i)
{
    if (!b->next) return;
    const size_t bytes = is_k(type) ? chunk_bytes(type) : b->units * block_bytes(type);
    if (b->stride == bytes) {
        for (size_t at = 0; at < GROUP * bytes; at += 64) __builtin_prefetch(b->next + i * GROUP * bytes + at);
        return;
    }
    for (size_t j = i * GROUP; j < (i + 1) * GROUP; j++)
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(b->next + j * b->stride + at);
}
