#include "cli/quality.h"

#include <math.h>

unsigned quality_given(const quality_options *q)
{
    return (q->point != OPTION_UNSET_U32) + !isnan(q->experts) + !isnan(q->compute) + !isnan(q->max_ppl_increase);
}

mp_status quality_point(const mp_model *model, const quality_options *q, uint32_t *point, mp_error *err)
{
    mp_quality_kind kind = MP_QUALITY_FULL;
    double value = 0;
    if (q->point != OPTION_UNSET_U32) {
        kind = MP_QUALITY_POINT;
        value = q->point;
    } else if (!isnan(q->experts)) {
        kind = MP_QUALITY_EXPERTS;
        value = q->experts;
    } else if (!isnan(q->compute)) {
        kind = MP_QUALITY_COMPUTE;
        value = q->compute;
    } else if (!isnan(q->max_ppl_increase)) {
        kind = MP_QUALITY_MAX_PPL_INCREASE;
        value = q->max_ppl_increase;
    }
    return mp_model_find_point(model, kind, value, point, err);
}
