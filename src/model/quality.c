/* From what a user asks for to a rung of the ladder: the cheapest one that still satisfies the request. */
#include <math.h>

#include "model/model.h"

static mp_status out_of_range(mp_error *err, const char *what, double value, double low, double high)
{
    return status_fail(err, MP_E_INVALID, "%s %g is out of range: choose %.4g to %.4g", what, value, low, high);
}

/* Measured shares scatter around the round numbers people ask for: who wants a quarter is served by 24.6 %. */
#define SHARE_SLACK 0.06

/* Points come from dear to cheap, so the last that holds is the cheapest. */
static mp_status by_share(const mp_model *m, double share, uint32_t *point)
{
    *point = 0;
    for (uint32_t p = 0; p < m->info.n_points; p++)
        if (m->points[p].compute_share >= share * (1 - SHARE_SLACK)) *point = p;
    return MP_OK;
}

static mp_status by_ppl(const mp_model *m, double increase, uint32_t *point, mp_error *err)
{
    if (!m->points[0].measured)
        return status_fail(err, MP_E_INVALID,
                           "%s has no measured curve: refactor it with --eval, or choose experts or a share",
                           m->info.path);
    if (!(increase >= 0)) return out_of_range(err, "perplexity increase", increase, 0, 10);
    *point = 0;
    for (uint32_t p = 1; p < m->info.n_points; p++)
        if (m->points[p].ppl <= m->points[0].ppl * (1 + increase)) *point = p;
    return MP_OK;
}

mp_status mp_model_find_point(const mp_model *m, mp_quality_kind kind, double value, uint32_t *point, mp_error *err)
{
    if (m->info.n_points == 0) return status_fail(err, MP_E_INVALID, "the model was opened for its vocabulary only");
    const uint32_t last = m->info.n_points - 1;
    const double low = m->points[last].compute_share;
    *point = 0;
    switch (kind) {
    case MP_QUALITY_FULL:
        return MP_OK;
    case MP_QUALITY_POINT:
        if (!(value >= 0 && value <= last) || value != floor(value))
            return out_of_range(err, "operating point", value, 0, last);
        *point = (uint32_t)value;
        return MP_OK;
    case MP_QUALITY_EXPERTS:
        if (!(value > 0 && value <= m->hp.n_used))
            return out_of_range(err, "number of experts", value, low * m->hp.n_used, m->hp.n_used);
        return by_share(m, value / m->hp.n_used, point);
    case MP_QUALITY_COMPUTE:
        if (!(value > 0 && value <= 1)) return out_of_range(err, "share of expert compute", value, low, 1);
        return by_share(m, value, point);
    case MP_QUALITY_MAX_PPL_INCREASE:
        return by_ppl(m, value, point, err);
    }
    return status_fail(err, MP_E_INVALID, "unknown kind of quality request");
}
