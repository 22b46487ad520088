/* policy.h: what the five policies have in common: what they see, what they decide, and helpers (policy.c).
 *
 * A policy decides three things, each by a pure function of what it sees: which waiting requests start now, at which
 * points the running ones take part in the next step, and, where it has time to spare, which of them run better than
 * that. The rest is the same for all (sched.c: the life of requests; compose.c: decodes, then chunks of prompts), so a
 * comparison of policies compares nothing else. */
#ifndef SCHED_POLICY_H
#define SCHED_POLICY_H

#include "sched/sched.h"

#define POLICY_SITS_OUT UINT32_MAX

/* A request in the scheduler's hands. */
typedef struct task {
    sched_request request; /* targets filled in */
    int64_t turn;          /* ns; waiting and prompts are served in this order */
    uint64_t started_ns, first_ns;
    uint32_t pages;
    uint32_t slot;
    uint32_t launched; /* the point that admit() named */
    uint32_t done;     /* tokens of the prompt that ran */
    uint32_t replied;  /* tokens of the reply that were drawn */
    bool ran;          /* in one step at least */
} task;

/* Between steps a policy remembers no more than this. */
typedef struct policy_memory {
    double pressure;      /* elastic */
    double credit[2];     /* lanes: steps that it is owed */
    uint64_t launched_ns; /* virtual queues: the batch that runs */
} policy_memory;

typedef struct policy_view {
    const sched_config *config;
    const cost_model *cost;
    const policy_memory *memory;
    uint64_t now_ns;
    task *const *waiting; /* [n_waiting] by turn */
    size_t n_waiting;
    task *const *running; /* [n_running] by turn */
    size_t n_running;
    uint32_t free_slots, free_pages;
    double reply_share;       /* of the max_tokens that were asked for: what replies use, on average */
    double open_reply_tokens; /* of replies that are open-ended, on average */
    double *scratch;          /* [2 * slots * n_points] */
} policy_view;

typedef struct policy_pick {
    size_t waiting; /* index; picks ascend */
    uint32_t point;
} policy_pick;

/* The step in the making: parallel arrays. */
typedef struct policy_step {
    task **tasks;
    sched_item *items;
    cost_item *costs;
    size_t n;
} policy_step;

typedef struct policy {
    /* By how many ns a request that comes now would miss its target for the first token; 0: it is welcome. NULL: all
     * are. */
    uint64_t (*late_ns)(const policy_view *v, const task *t);
    /* Fills picks[free_slots], within free_pages; returns their number. */
    size_t (*admit)(const policy_view *v, policy_pick *picks);
    /* Somebody waits, nobody runs and admit() picked nobody: when to ask again. NULL: it always picks somebody then. */
    uint64_t (*wake_ns)(const policy_view *v);
    /* points[n_running]: where each takes part, or POLICY_SITS_OUT. *after: what to remember once the step ran; holds
     * a copy of the memory. */
    void (*points)(const policy_view *v, uint32_t *points, policy_memory *after);
    /* Moves items of the complete step to better points. NULL: never. */
    void (*improve)(const policy_view *v, policy_step *step);
} policy;

#define X(NAME, table, text) extern const policy policy_##table;
SCHED_POLICY_MAP(X)
#undef X

/* ---- helpers ---- */

static inline bool task_in_prompt(const task *t)
{
    return t->done < t->request.prompt_tokens;
}

static inline bool task_is_over(const task *t)
{
    return t->replied >= t->request.max_tokens;
}

/* How long its reply will be, if it is like those before. At most max_tokens. */
double policy_reply_tokens(const policy_view *v, const task *t);
/* The next token of its reply, as if the prompt had run. */
cost_item task_decode_cost(const task *t, const sched_point *points, uint32_t point);
/* For one that decodes and has a target: the time that it can lose now and still keep its target in the mean, if from
 * here on it gets a token every `decode_ns`. Counts on half of the reply that is expected to follow. */
double policy_spare_ns(const policy_view *v, const task *t, double decode_ns);
/* Tokens counted on above, at least 1. */
double policy_tokens_left(const policy_view *v, const task *t);
void policy_set_point(const policy_view *v, policy_step *step, size_t item, uint32_t point);
/* In order, until a slot or a page is lacking: nobody passes anybody. */
size_t policy_take_in_order(const policy_view *v, policy_pick *picks);
/* All but those whose points[] is POLICY_SITS_OUT at the dearest floor among them, nobody better than its best. */
void policy_run_at_dearest_floor(const policy_view *v, uint32_t *points);
/* All. */
void policy_dearest_floor(const policy_view *v, uint32_t *points, policy_memory *after);
/* By the cost model. */
double policy_step_ns(const policy_view *v, const policy_step *step);

#endif
