/* expert_types.h: what a type by name, or the name of a mixture of types, makes of a layer's expert weights. Pure. */
#ifndef REFACTOR_EXPERT_TYPES_H
#define REFACTOR_EXPERT_TYPES_H

#include "base/status.h"
#include "tensor/dtype.h"

typedef struct expert_types {
    dtype gate_up, down;
} expert_types;

/* "Q8_0", ..., or one of llama.cpp's mixtures, "Q4_K_M" and "Q5_K_M"; any case. MP_E_INVALID names what there is. */
mp_status expert_types_of(const char *name, uint32_t layer, uint32_t n_layers, expert_types *out, mp_error *err);

#endif
