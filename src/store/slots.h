/* slots.h: how a unit lies in a slot. Pure; any thread.
 *
 * Each part has a column of its own: the first parts of all slots side by side, then the second ones. So neighbours in
 * the file that come into neighbouring slots, as the sub-experts of one expert often do, are neighbours in memory, too,
 * and read in one piece.
 *
 * A direct read covers whole blocks, so a part takes the blocks of the file around it, and its data begin in its place
 * at the same distance from a block's start as in the file. Where a file is aligned that is the part itself and nothing
 * more. Where the blocks around parts would be much of what a slot holds, as with small sub-experts, reads are not
 * direct and slots hold the parts alone. All slots are as large as the largest layer's parts need, and the layout
 * follows from the shape: what a cap holds does not depend on the file system. */
#ifndef STORE_SLOTS_H
#define STORE_SLOTS_H

#include "store/store.h"

/* Refuses shapes that no file can have, and those whose sizes overflow. */
mp_status slots_check(const store_shape *shape, mp_error *err);
/* What begin and end of parts in slots are a multiple of: IO_ALIGN, IO_SECTOR, or 1 where direct reads would waste
 * memory. */
uint32_t slots_align(const store_shape *shape);
/* Bytes of a slot, and what of them is a part's column; of a shape that passed the check. */
uint64_t slots_bytes(const store_shape *shape);
uint64_t slots_column(const store_shape *shape, uint32_t part);
/* Whether all parts begin and end at multiples of `align`, so that slots have room for whole blocks of that size. */
bool slots_lie_on(const store_shape *shape, uint32_t align);
/* The last byte of a file that any unit needs, plus one; 0: none. */
uint64_t slots_file_end(const store_shape *shape, uint32_t file);

#endif
