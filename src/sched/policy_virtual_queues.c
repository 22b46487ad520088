/* policy_virtual_queues.c: the paper's throughput scheduler (section 5.1).
 *
 * An engine that runs a batch at one budget for all faces a circle: the best budget depends on who is in the batch, and
 * who should be in it on the budget. The paper cuts it by looking at all budgets at once. For every point m there is a
 * virtual queue Q_m of all waiting requests whose floor allows it (m is at least as good as the floor), so a request is
 * in as many queues as there are points it could run at. Where the slots are free, the queue of highest utility is
 * launched,
 *
 *     U_m = sum of tokens(R_i) over Q_m / C(|Q_m|, m)                                     (equation 3)
 *
 * with tokens of prompt and reply, C the cost model's step of one token each, and Q_m cut at the maximal batch (slots,
 * pages), in turn. So a request may be served better than it asked, when the fuller batch of a dearer queue pays more.
 * A launch takes its requests out of all queues and runs at m until all are done. A request that has waited max_wait_ns
 * has its way: the oldest such goes into the next launch, from the best of the queues that hold it.
 *
 * The paper names two triggers: a queue launches when it is full, or when its oldest has waited T_max. This departs
 * from it on purpose. Free slots never wait for a queue to fill: whatever has the highest utility launches at once, as
 * Q_8 does in the paper's own example, nearly full. Of the triggers the second is left, the first is then no event of
 * its own. And where the paper is silent, on what becomes of slots whose requests are done before the batch is, they
 * are refilled from the launch's own queue, as in continuous batching. The launch is closed, runs dry and makes room
 * for another one if somebody outside its queue is overdue, or if it has been open for max_wait_ns and another queue
 * has a higher utility by now.
 *
 * What `moeprism simulate` says of it: OLMoE-1B-7B split in 32, floors uniform over 100, 75, 50 and 25 % of the expert
 * compute, 8 slots, T_max 5 s, 300 s of Poisson arrivals, means of three seeds. Beside what is here: free slots that
 * wait until a queue is full or its oldest overdue, refilled while the launch is open; and the same by the letter, with
 * nobody let in before the launch is done.
 *
 *                       requests/s                   first token, median s
 *     arrivals/s    here   waits   by the letter     here   waits   by the letter
 *     0.2          0.214   0.211           0.211      1.6     6.2             6.8
 *     0.4          0.344   0.340           0.345     25.4    28.3            26.5
 *     0.6          0.365   0.363           0.356     94.2    97.8           102.9
 *     256 at once  0.372   0.376           0.367    343.8   336.1           343.3
 *
 * Waiting wins nothing, for a step of few costs little here, and costs everybody T_max where load is low. */
#include "sched/policy.h"

#define NOBODY SIZE_MAX

static bool is_in(const task *t, uint32_t m)
{
    return t->request.floor >= m;
}

/* The one that has waited longest, if it has waited too long. */
static size_t overdue(const policy_view *v)
{
    size_t oldest = 0;
    for (size_t i = 1; i < v->n_waiting; i++)
        if (v->waiting[i]->request.arrival_ns < v->waiting[oldest]->request.arrival_ns) oldest = i;
    uint64_t arrival_ns = v->waiting[oldest]->request.arrival_ns;
    return v->now_ns >= arrival_ns + v->config->max_wait_ns ? oldest : NOBODY;
}

/* As asked for; where nobody asked, as expected. */
static double reply_tokens(const policy_view *v, const task *t)
{
    return t->request.open_ended ? policy_reply_tokens(v, t) : t->request.max_tokens;
}

typedef struct launch {
    uint32_t m, slots, pages; /* left */
    size_t n;
    double utility;
} launch;

/* Q_m cut at what fits; `first` (if any) has a place whoever else there is. */
static launch gather(const policy_view *v, uint32_t m, size_t first, policy_pick *picks)
{
    launch l = {.m = m, .slots = v->free_slots, .pages = v->free_pages};
    double tokens = 0, features[COST_FEATURES] = {[COST_STEP] = 1};
    bool blocked = false;
    if (first != NOBODY) {
        l.slots--;
        l.pages -= v->waiting[first]->pages;
    }
    for (size_t i = 0; i < v->n_waiting; i++) {
        const task *t = v->waiting[i];
        if (!is_in(t, m)) continue;
        if (i != first) {
            blocked = blocked || l.slots == 0 || t->pages > l.pages;
            if (blocked) continue;
            l.slots--;
            l.pages -= t->pages;
        }
        cost_item cost = task_decode_cost(t, v->config->points, m);
        cost_add(&v->cost->shape, &cost, features);
        tokens += t->request.prompt_tokens + reply_tokens(v, t);
        picks[l.n++] = (policy_pick){.waiting = i, .point = m};
    }
    double ns = cost_predict_ns(v->cost, features);
    l.utility = ns > 0 ? tokens / ns : tokens;
    return l;
}

/* Of highest utility; the dearer, and so the better, of equals. */
static launch best_launch(const policy_view *v, size_t first, policy_pick *picks)
{
    uint32_t last = first == NOBODY ? v->config->n_points - 1 : v->waiting[first]->request.floor;
    launch best = gather(v, 0, first, picks);
    for (uint32_t m = 1; m <= last; m++) {
        launch l = gather(v, m, first, picks);
        if (l.utility > best.utility) best = l;
    }
    return gather(v, best.m, first, picks);
}

/* Slots of a running launch that are free: refill them? */
static bool is_open(const policy_view *v, uint32_t m, size_t late, policy_pick *picks)
{
    if (late != NOBODY && !is_in(v->waiting[late], m)) return false;
    if (v->now_ns - v->memory->launched_ns < v->config->max_wait_ns) return true;
    policy_view empty = *v;
    empty.free_slots = v->config->slots;
    empty.free_pages = v->config->kv_pages;
    return best_launch(&empty, late, picks).m == m;
}

static size_t virtual_queues_admit(const policy_view *v, policy_pick *picks)
{
    size_t late = overdue(v);
    if (v->n_running == 0) return best_launch(v, late, picks).n;
    uint32_t m = v->running[0]->launched;
    if (!is_open(v, m, late, picks)) return 0;
    return gather(v, m, NOBODY, picks).n;
}

static void virtual_queues_points(const policy_view *v, uint32_t *points, policy_memory *after)
{
    if (after->launched_ns == 0) after->launched_ns = v->now_ns;
    for (size_t i = 0; i < v->n_running; i++) {
        const task *t = v->running[i];
        points[i] = t->launched > t->request.best ? t->launched : t->request.best;
    }
}

const policy policy_virtual_queues = {
    .admit = virtual_queues_admit,
    .points = virtual_queues_points,
};
