/* policy_fullbatch.c: wait for a full batch (the paper's other baseline, section 5.1).
 *
 * A batch starts when the one before it is done to its last request and as many wait as there are slots, or as many as
 * the pages can hold; or when the oldest has waited max_wait_ns, with whoever is there. It runs at the dearest floor in
 * it and takes nobody in until it is done. Every step is as full as it can be at first, which is all that the policy is
 * after: whoever comes early waits for the others, and slots stand empty while the longest reply ends. */
#include "sched/policy.h"

static uint64_t oldest_is_due(const policy_view *v)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < v->n_waiting; i++)
        if (v->waiting[i]->request.arrival_ns < oldest) oldest = v->waiting[i]->request.arrival_ns;
    return oldest + v->config->max_wait_ns;
}

static size_t fullbatch_admit(const policy_view *v, policy_pick *picks)
{
    if (v->n_running) return 0;
    size_t n = policy_take_in_order(v, picks);
    bool full = n == v->free_slots || n < v->n_waiting;
    return full || v->now_ns >= oldest_is_due(v) ? n : 0;
}

const policy policy_fullbatch = {
    .admit = fullbatch_admit,
    .wake_ns = oldest_is_due,
    .points = policy_dearest_floor,
};
