#include "refactor/expert_types.h"

#include <strings.h>

/* llama.cpp's mixtures give the down matrices of half of the layers more bits: the first and last eighth and every
 * third between. */
static bool wants_more_bits(uint32_t layer, uint32_t n_layers)
{
    return layer < n_layers / 8 || layer >= 7 * n_layers / 8 || (layer - n_layers / 8) % 3 == 2;
}

static expert_types mixture(dtype most, uint32_t layer, uint32_t n_layers)
{
    return (expert_types){.gate_up = most, .down = wants_more_bits(layer, n_layers) ? DTYPE_Q6_K : most};
}

mp_status expert_types_of(const char *name, uint32_t layer, uint32_t n_layers, expert_types *out, mp_error *err)
{
    const dtype plain = dtype_by_name(name);
    *out = (expert_types){.gate_up = plain, .down = plain};
    if (strcasecmp(name, "Q4_K_M") == 0) *out = mixture(DTYPE_Q4_K, layer, n_layers);
    if (strcasecmp(name, "Q5_K_M") == 0) *out = mixture(DTYPE_Q5_K, layer, n_layers);
    if (out->gate_up != DTYPE_NONE) return MP_OK;
    return status_fail(err, MP_E_INVALID, "unknown type '%s': choose one of %s, Q4_K_M, Q5_K_M", name, dtype_list());
}
