/* slots.h: how a unit lies in a slot. Pure; any thread.
 *
 * The parts of a unit stand one after the other. A direct read covers whole blocks, so a part takes the blocks of the
 * file around it, and its data begin in the slot at the same distance from a block's start as in the file. Where a file
 * is aligned that is the part itself and nothing more. Where the blocks around parts would be much of what a slot
 * holds, as with small sub-experts, reads are not direct and slots hold the parts alone. All slots are as large as the
 * largest layer needs, and the layout follows from the shape: what a cap holds does not depend on the file system. */
#ifndef STORE_SLOTS_H
#define STORE_SLOTS_H

#include "store/store.h"

/* Refuses shapes that no file can have, and those whose sizes overflow. */
mp_status slots_check(const store_shape *shape, mp_error *err);
/* What begin and end of parts in slots are a multiple of: IO_ALIGN, or 1 where direct reads would waste memory. */
uint32_t slots_align(const store_shape *shape);
/* Bytes of a slot; of a shape that passed the check. */
uint64_t slots_bytes(const store_shape *shape);
/* Where each part's blocks begin in a slot: start [n_layers, n_parts]. */
void slots_starts(const store_shape *shape, uint64_t *start);
/* The last byte of a file that any unit needs, plus one; 0: none. */
uint64_t slots_file_end(const store_shape *shape, uint32_t file);

#endif
