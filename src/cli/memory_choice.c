#include "cli/memory_choice.h"

#include <stdio.h>

#include "cli/plan_report.h"
#include "cli/progress.h"

/* What is left free: the system, page tables, and the caches of other programs. */
#define RESERVE_SHARE 20 /* a 20th of what is available */
#define RESERVE_LEAST ((uint64_t)256 << 20)

static uint64_t reserve(uint64_t available)
{
    const uint64_t share = available / RESERVE_SHARE;
    return share > RESERVE_LEAST ? share : RESERVE_LEAST;
}

/* What is left for experts beside the rest of the plan, 0 where that alone is too much. */
static uint64_t room_for_experts(const mp_plan *plan, uint64_t available)
{
    const uint64_t rest = plan_total(plan) - plan->weights_experts + reserve(available);
    return available > rest ? available - rest : 0;
}

uint64_t memory_choose_cap(const mp_plan *plan, uint64_t experts, uint64_t available)
{
    const uint64_t room = room_for_experts(plan, available);
    if (available == 0 || room >= experts || plan->experts_least >= experts) return 0;
    return room > plan->experts_least ? room : plan->experts_least;
}

bool memory_tell_shortage(const mp_plan *plan, uint64_t available, char *text, size_t cap)
{
    char takes[32], freely[32], fits[32];
    if (available == 0 || plan_total(plan) <= available) return false;
    const uint64_t room = room_for_experts(plan, available);
    const int n =
        snprintf(text, cap,
                 "this takes %s of memory, but only %s are free: ", format_bytes(plan_total(plan), takes, sizeof takes),
                 format_bytes(available, freely, sizeof freely));
    if (n < 0 || (size_t)n >= cap) return true;
    if (room >= plan->experts_least)
        snprintf(text + n, cap - (size_t)n, "%s of experts would fit (--memory)",
                 format_bytes(room, fits, sizeof fits));
    else
        snprintf(text + n, cap - (size_t)n, "not even the smallest --memory would fit (--plan adds it up)");
    return true;
}
