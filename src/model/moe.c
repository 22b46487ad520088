#include "model/moe.h"

#include <math.h>

uint32_t moe_tile(uint32_t d)
{
    for (uint32_t w = 256; w >= 32; w /= 2)
        if (d % w == 0) return w;
    return d;
}

double moe_gate_share(const moe_layer *l)
{
    const moe_shape *s = &l->shape;
    const double subs = moe_full_budget(s), full = 3.0 * s->n_used * s->width * s->d;
    switch (l->gate) {
    case MP_GATE_PROBE:
        if (l->w.probe_in.data) return (l->w.probe_in.rows * ((double)s->d + subs)) / full;
        return subs * s->d / full;
    case MP_GATE_PROXY:
        return subs * l->proxy_neurons * 2.0 * s->d / full;
    case MP_GATE_LINEAR:
        break;
    }
    return 0;
}

moe_rung moe_rung_for_budget(double budget, uint32_t full)
{
    const double top = fmin(fmax(round(budget), 1), full);
    const double least = fmin(fmax(ceil(budget / 4), 1), full);
    return (moe_rung){.log_tau = -INFINITY, .gain = 1, .top = (uint32_t)top, .at_least = (uint32_t)least};
}
