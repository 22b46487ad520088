/* sched.c: the life of requests: queue, slots, pages; and the order of things within sched_next().
 *
 * Waiting and running requests are kept sorted by their turn, which is fixed when they arrive: arrival time plus
 * PRIORITY_NS for each step of priority, cut at PRIORITY_MAX either way. That is ageing without a clock: a request is
 * passed only by those that arrive within (difference of priority) * PRIORITY_NS after it, so whatever keeps arriving,
 * nobody new passes it any more after 2 * PRIORITY_MAX * PRIORITY_NS.
 *
 * A request starts with pages for its whole length reserved, so it never has to be stopped for lack of them.
 *
 * A plan is made in four stages: the policy admits, the policy sets points, compose.c fills the step, the policy spends
 * the time that is left. What it wants to remember is kept aside until sched_ran(): a plan that nobody runs leaves no
 * trace but the slots it filled. */
#include "sched/sched.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "sched/compose.h"
#include "sched/policy.h"

#define PRIORITY_NS  1000000000LL
#define PRIORITY_MAX 16
#define REPLY_RATE   0.05 /* how fast the mean length of replies is learnt */
/* The length of an open-ended reply before any has ended: assistants answer chats with 200 to 450 tokens in the mean.
 * It weighs as much as one reply. */
#define OPEN_REPLY_TOKENS 256

#define X(NAME, table, text) &policy_##table,
static const policy *const policies[] = {SCHED_POLICY_MAP(X)};
#undef X

#define X(NAME, table, text) text,
const char *const sched_policy_names[] = {SCHED_POLICY_MAP(X) NULL};
#undef X

struct sched {
    sched_config config;
    const policy *policy;
    policy_memory memory, after; /* now; once the plan's step ran */
    arena arena;
    task *tasks;    /* [slots + queue] */
    task **unused;  /* [n_unused] a stack */
    task **waiting; /* [n_waiting] by turn */
    task **running; /* [n_running] by turn */
    task **slots;   /* [slots] NULL: free */
    size_t n_unused, n_waiting, n_running;
    uint32_t pages_reserved;
    double reply_share;       /* of the max_tokens that were asked for: what replies use */
    double open_reply_tokens; /* of those that are open-ended, ... */
    double open_replies;      /* ... and how many it is the mean of */
    policy_step step;
    policy_pick *picks; /* [slots] */
    uint32_t *points;   /* [slots] */
    double *scratch;    /* [2 * slots * n_points] */
};

/* ---- policies by name ---- */

bool sched_policy_find(const char *name, sched_policy *out)
{
    for (size_t i = 0; sched_policy_names[i]; i++) {
        if (strcmp(sched_policy_names[i], name) != 0) continue;
        *out = (sched_policy)i;
        return true;
    }
    return false;
}

/* ---- new, free ---- */

static void lay_out(sched *s)
{
    arena *a = &s->arena;
    size_t slots = s->config.slots, tasks = slots + s->config.queue, cells;
    s->tasks = arena_take(a, tasks, sizeof *s->tasks);
    s->unused = arena_take(a, tasks, sizeof(task *));
    s->waiting = arena_take(a, s->config.queue + slots, sizeof(task *));
    s->running = arena_take(a, slots, sizeof(task *));
    s->slots = arena_take(a, slots, sizeof(task *));
    s->step.tasks = arena_take(a, slots, sizeof(task *));
    s->step.items = arena_take(a, slots, sizeof *s->step.items);
    s->step.costs = arena_take(a, slots, sizeof *s->step.costs);
    s->picks = arena_take(a, slots, sizeof *s->picks);
    s->points = arena_take(a, slots, sizeof *s->points);
    if (!size_mul(slots, s->config.n_points, &cells)) cells = SIZE_MAX;
    s->scratch = arena_take(a, cells, 2 * sizeof *s->scratch);
    sched_point *points = arena_take(a, s->config.n_points, sizeof *points);
    if (!a->base) return;
    memcpy(points, s->config.points, s->config.n_points * sizeof *points);
    s->config.points = points;
    for (size_t i = 0; i < tasks; i++) s->unused[i] = &s->tasks[tasks - 1 - i];
    s->n_unused = tasks;
}

static mp_status check(const sched_config *c, mp_error *err)
{
    if (c->slots == 0) return status_fail(err, MP_E_INVALID, "scheduler: no slots; at least 1");
    if (c->step_tokens < c->slots)
        return status_fail(err, MP_E_INVALID, "scheduler: a step of %u tokens cannot hold one for each of %u slots",
                           c->step_tokens, c->slots);
    if (c->kv_pages == 0 || c->page_tokens == 0)
        return status_fail(err, MP_E_INVALID, "scheduler: %u pages of %u tokens; at least 1 of each", c->kv_pages,
                           c->page_tokens);
    if (c->n_points == 0) return status_fail(err, MP_E_INVALID, "scheduler: no operating points; at least full");
    if ((size_t)c->policy >= sizeof policies / sizeof *policies)
        return status_fail(err, MP_E_INVALID, "scheduler: policy %d is unknown", (int)c->policy);
    return MP_OK;
}

mp_status sched_new(const sched_config *config, sched **out, mp_error *err)
{
    *out = NULL;
    MP_TRY(check(config, err));
    sched *s = calloc(1, sizeof *s);
    if (!s) return status_no_memory(err, sizeof *s, "scheduler");
    s->config = *config;
    if (s->config.max_wait_ns == 0) s->config.max_wait_ns = 5000000000;
    if (!(s->config.cost.correction > 0)) s->config.cost.correction = 1;
    s->policy = policies[config->policy];
    s->reply_share = 1;
    s->open_reply_tokens = OPEN_REPLY_TOKENS;
    s->open_replies = 1;
    lay_out(s);
    mp_status st = arena_reserve(&s->arena, "scheduler", err);
    if (st != MP_OK) {
        sched_free(s);
        return st;
    }
    lay_out(s);
    *out = s;
    return MP_OK;
}

void sched_free(sched *s)
{
    if (!s) return;
    arena_clear(&s->arena);
    free(s);
}

/* ---- lists ---- */

static void insert_by_turn(task **list, size_t *n, task *t)
{
    size_t at = *n;
    for (; at > 0 && list[at - 1]->turn > t->turn; at--) list[at] = list[at - 1];
    list[at] = t;
    ++*n;
}

static void take_out(task **list, size_t *n, size_t at)
{
    --*n;
    memmove(&list[at], &list[at + 1], (*n - at) * sizeof *list);
}

static bool find(task *const *list, size_t n, uint64_t id, size_t *at)
{
    for (*at = 0; *at < n; ++*at)
        if (list[*at]->request.id == id) return true;
    return false;
}

static policy_view look(const sched *s, uint64_t now_ns)
{
    return (policy_view){.config = &s->config,
                         .cost = &s->config.cost,
                         .memory = &s->memory,
                         .now_ns = now_ns,
                         .waiting = s->waiting,
                         .n_waiting = s->n_waiting,
                         .running = s->running,
                         .n_running = s->n_running,
                         .free_slots = s->config.slots - (uint32_t)s->n_running,
                         .free_pages = s->config.kv_pages - s->pages_reserved,
                         .reply_share = s->reply_share,
                         .open_reply_tokens = s->open_reply_tokens,
                         .scratch = s->scratch};
}

/* ---- submit, finish ---- */

uint32_t sched_pages(const sched *s, uint32_t prompt_tokens, uint32_t max_tokens)
{
    uint64_t tokens = (uint64_t)prompt_tokens + max_tokens, page = s->config.page_tokens;
    uint64_t pages = (tokens + page - 1) / page;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

/* Until the first of those that run is done, if replies stay as long as they are and steps take what they would with
 * everybody decoding at the floor. */
static uint64_t until_slot_ns(const sched *s, const policy_view *v)
{
    double least = 0, features[COST_FEATURES] = {[COST_STEP] = 1};
    for (size_t i = 0; i < s->n_running; i++) {
        const task *t = s->running[i];
        double reply = policy_reply_tokens(v, t), left = reply > t->replied ? reply - t->replied : 1;
        left += (double)(t->request.prompt_tokens - t->done) / s->config.step_tokens;
        if (i == 0 || left < least) least = left;
        cost_item cost = task_decode_cost(t, s->config.points, t->request.floor);
        cost_add(&s->config.cost.shape, &cost, features);
    }
    return s->n_running ? (uint64_t)(least * cost_predict_ns(&s->config.cost, features)) : s->config.max_wait_ns;
}

/* What a caller got wrong is put right towards quality. */
static sched_request sanitised(const sched *s, const sched_request *request)
{
    sched_request r = *request;
    if (r.prompt_tokens == 0) r.prompt_tokens = 1;
    if (r.max_tokens == 0) r.max_tokens = 1;
    if (r.floor >= s->config.n_points) r.floor = s->config.n_points - 1;
    if (r.best > r.floor) r.best = r.floor;
    if (r.ttft_ns == 0) r.ttft_ns = s->config.ttft_ns;
    if (r.tpot_ns == 0) r.tpot_ns = s->config.tpot_ns;
    return r;
}

static int64_t turn_of(const sched_request *r)
{
    int64_t priority = r->priority;
    if (priority > PRIORITY_MAX) priority = PRIORITY_MAX;
    if (priority < -PRIORITY_MAX) priority = -PRIORITY_MAX;
    return (int64_t)r->arrival_ns + priority * PRIORITY_NS;
}

sched_verdict sched_submit(sched *s, const sched_request *request, uint64_t now_ns, uint64_t *retry_ns)
{
    task t = {.request = sanitised(s, request)};
    t.turn = turn_of(&t.request);
    t.pages = sched_pages(s, t.request.prompt_tokens, t.request.max_tokens);
    if (t.pages > s->config.kv_pages) return SCHED_NEVER_FITS;
    /* Those that will start in the next step do not wait. */
    size_t free_slots = s->config.slots - s->n_running;
    policy_view v = look(s, now_ns);
    if (s->n_waiting >= s->config.queue + free_slots) {
        *retry_ns = until_slot_ns(s, &v);
        return SCHED_QUEUE_FULL;
    }
    uint64_t late_ns = s->policy->late_ns ? s->policy->late_ns(&v, &t) : 0;
    if (late_ns) {
        *retry_ns = late_ns;
        return SCHED_QUEUE_FULL;
    }
    task *own = s->unused[--s->n_unused];
    *own = t;
    insert_by_turn(s->waiting, &s->n_waiting, own);
    return SCHED_ACCEPTED;
}

/* What a cap that was asked for says, and what a reply without one is like, are learnt apart. The mean of the
 * open-ended is of all of them while they are few: its start is a guess. */
static void learn_reply(sched *s, const task *t)
{
    if (!t->request.open_ended) {
        s->reply_share += REPLY_RATE * ((double)t->replied / t->request.max_tokens - s->reply_share);
        return;
    }
    s->open_replies++;
    s->open_reply_tokens += fmax(REPLY_RATE, 1 / s->open_replies) * (t->replied - s->open_reply_tokens);
}

void sched_finish(sched *s, uint64_t id, uint64_t now_ns)
{
    size_t at;
    task *t;
    (void)now_ns;
    if (find(s->waiting, s->n_waiting, id, &at)) {
        t = s->waiting[at];
        take_out(s->waiting, &s->n_waiting, at);
    } else if (find(s->running, s->n_running, id, &at)) {
        t = s->running[at];
        take_out(s->running, &s->n_running, at);
        s->slots[t->slot] = NULL;
        s->pages_reserved -= t->pages;
        if (t->replied) learn_reply(s, t);
        if (s->n_running == 0) s->memory = (policy_memory){0};
    } else {
        return;
    }
    s->unused[s->n_unused++] = t;
}

/* ---- the next step ---- */

static void start(sched *s, size_t at, uint32_t point, uint64_t now_ns)
{
    task *t = s->waiting[at];
    take_out(s->waiting, &s->n_waiting, at);
    while (s->slots[t->slot]) t->slot++;
    s->slots[t->slot] = t;
    s->pages_reserved += t->pages;
    t->launched = point;
    t->started_ns = now_ns;
    insert_by_turn(s->running, &s->n_running, t);
}

static void admit(sched *s, uint64_t now_ns)
{
    if (s->n_waiting == 0 || s->n_running == s->config.slots) return;
    policy_view v = look(s, now_ns);
    size_t n = s->policy->admit(&v, s->picks);
    for (size_t i = 0; i < n; i++) start(s, s->picks[i].waiting - i, s->picks[i].point, now_ns);
}

void sched_next(sched *s, uint64_t now_ns, sched_plan *plan)
{
    admit(s, now_ns);
    policy_view v = look(s, now_ns);
    s->step.n = 0;
    s->after = s->memory;
    *plan = (sched_plan){.items = s->step.items};
    if (s->n_running == 0) {
        if (s->n_waiting && s->policy->wake_ns) plan->wake_ns = s->policy->wake_ns(&v);
        return;
    }
    s->policy->points(&v, s->points, &s->after);
    compose_step(&v, s->points, &s->step);
    if (s->step.n == 0) return;
    if (s->policy->improve) s->policy->improve(&v, &s->step);
    plan->n = s->step.n;
    plan->predicted_ns = (uint64_t)policy_step_ns(&v, &s->step);
}

void sched_cached(sched *s, sched_plan *plan, size_t item, uint32_t cached)
{
    task *t = s->step.tasks[item];
    sched_item *it = &plan->items[item];
    if (cached >= t->request.prompt_tokens || cached < t->done) return;
    t->done = cached;
    uint32_t rest = t->request.prompt_tokens - cached;
    if (it->n_tokens > rest) it->n_tokens = rest;
    it->samples = it->n_tokens == rest;
    s->step.costs[item].n_tokens = it->n_tokens;
    s->step.costs[item].context = cached;
    s->step.costs[item].logits = it->samples;
    policy_view v = look(s, 0);
    plan->predicted_ns = (uint64_t)policy_step_ns(&v, &s->step);
}

/* ---- after a step ---- */

void sched_ran(sched *s, const sched_plan *plan, uint64_t now_ns, uint64_t took_ns)
{
    for (size_t i = 0; i < plan->n; i++) {
        const sched_item *it = &plan->items[i];
        task *t = s->slots[it->slot];
        if (!t || t->request.id != it->id) continue; /* finished meanwhile */
        t->ran = true;
        if (it->prompt) t->done += it->n_tokens;
        if (it->samples && t->replied++ == 0) t->first_ns = now_ns;
    }
    if (s->n_running) s->memory = s->after;
    cost_observe(&s->config.cost, (double)plan->predicted_ns, (double)took_ns);
}

/* ---- queries ---- */

sched_counts sched_get_counts(const sched *s)
{
    double share = 0;
    for (size_t i = 0; i < s->n_running; i++) share += s->config.points[s->running[i]->request.floor].share;
    return (sched_counts){.waiting = (uint32_t)s->n_waiting,
                          .running = (uint32_t)s->n_running,
                          .pages_reserved = s->pages_reserved,
                          .floor_share = s->n_running ? share / (double)s->n_running : 0};
}

const cost_model *sched_cost(const sched *s)
{
    return &s->config.cost;
}
