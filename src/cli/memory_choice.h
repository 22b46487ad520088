/* memory_choice.h: how much of the experts fits in memory. Pure: what is free is an argument. */
#ifndef CLI_MEMORY_CHOICE_H
#define CLI_MEMORY_CHOICE_H

#include "moeprism.h"

/* The cap that a plan without one needs where `available` bytes are free (0: not known), leaving something to the rest
 * of the system; 0: none, everything fits, or the model cannot be capped. `experts`: bytes of all experts. */
uint64_t memory_choose_cap(const mp_plan *plan, uint64_t experts, uint64_t available);
/* Where a plan takes more than is free: says so in one line, with the cap that would fit if there is one, and is true.
 */
bool memory_tell_shortage(const mp_plan *plan, uint64_t available, char *text, size_t cap);

#endif
