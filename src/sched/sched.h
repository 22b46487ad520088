/* sched.h: the scheduler: requests, time and a cost model in; the next step's plan out (DESIGN: scheduler; paper 5).
 *
 * Pure policy. No threads, sockets, clock or I/O: `now` is an argument, so the server, the tests under a fake clock and
 * the simulator run the same code. A sched owns its copy of every request that is waiting or running; the caller knows
 * them by id. One thread at a time. All memory is taken in sched_new(): nothing allocates afterwards.
 *
 * The life of a request: sched_submit() puts it into the queue or refuses it; a plan starts it in a slot (item.starts),
 * runs its prompt in chunks, then one token a step; after every step sched_ran() moves it on; sched_finish() takes it
 * away, done or cancelled, waiting or running. A request that runs is never stopped by the scheduler: pages for its
 * whole length are reserved when it starts.
 *
 * Every policy keeps: an item's point is never past its request's floor, nor before its best; no request waits for
 * ever, whatever arrives. */
#ifndef SCHED_SCHED_H
#define SCHED_SCHED_H

#include "sched/cost.h"

/* Every policy: its constant, its table policy_*, its name. */
#define SCHED_POLICY_MAP(X)                                                                                            \
    X(ELASTIC, elastic, "elastic")                                                                                     \
    X(FIFO, fifo, "fifo")                                                                                              \
    X(FULLBATCH, fullbatch, "fullbatch")                                                                               \
    X(VIRTUAL_QUEUES, virtual_queues, "virtual-queues")                                                                \
    X(LANES, lanes, "lanes")

/* Not SCHED_FIFO: that is a macro of <sched.h>, which <pthread.h> includes. */
typedef enum sched_policy {
#define X(NAME, table, text) SCHED_POLICY_##NAME,
    SCHED_POLICY_MAP(X)
#undef X
} sched_policy;

/* Index = sched_policy; ends with NULL. */
extern const char *const sched_policy_names[];
bool sched_policy_find(const char *name, sched_policy *out);

/* The operating points, full first: share falls, loss rises. */
typedef struct sched_point {
    double share; /* of the full expert compute, 0..1 */
    double loss; /* what it costs in quality: ln(perplexity / full's perplexity), 0 at full; where it is not measured an
                    estimate that grows as the share falls */
} sched_point;

/* What rung `p` of a model cost in quality when it was measured, ln(perplexity / full's), by chance below 0; NAN where
 * it was not measured. */
double sched_loss_measured(const mp_point *full, const mp_point *p);
/* Rung `p` of a model as policies take it, `before` being the rung before it (NULL: p is the first). A loss that was
 * not measured is guessed from the share, and nothing is dearer or better than the rung before it. */
sched_point sched_point_of(const mp_point *full, const mp_point *p, const sched_point *before);

typedef struct sched_config {
    sched_policy policy;
    uint32_t slots;       /* requests that run at once */
    uint32_t queue;       /* requests that may wait */
    uint32_t step_tokens; /* tokens a step may hold, at least `slots` */
    uint32_t step_scored; /* ... of them, of prompts that are scored; > 0 where there are such */
    uint32_t kv_pages, page_tokens;
    uint64_t ttft_ns, tpot_ns; /* targets of requests that name none; 0: none */
    uint64_t max_wait_ns; /* 0: 5 s; how long the oldest may wait for a better batch (fullbatch, virtual queues), for
                            pages that smaller ones take (elastic), for a chunk that breaks nobody's target (all;
                            half of its own target for the first token, where that is less) */
    const sched_point *points; /* [n_points], copied */
    uint32_t n_points;
    cost_model cost; /* copied; corrected by what sched_ran() tells */
} sched_config;

typedef struct sched_request {
    uint64_t id; /* the caller's; unique among the living */
    uint64_t arrival_ns;
    uint32_t prompt_tokens;    /* >= 1 */
    uint32_t max_tokens;       /* of the reply, >= 1 */
    bool open_ended;           /* nobody asked for that length: it is what there is room for, and says nothing of how
                                  long the reply will be */
    uint32_t best, floor;      /* points it accepts: best <= point <= floor */
    uint64_t ttft_ns, tpot_ns; /* targets, 0: the configuration's */
    int32_t priority;          /* lower runs first; waiting lowers it */
    bool scored;               /* every token of the prompt gives a row of logits */
} sched_request;

typedef enum sched_verdict {
    SCHED_ACCEPTED,
    SCHED_QUEUE_FULL, /* or, elastic, its first token would come too late. *retry_ns: how long until it is worth trying
                         again */
    SCHED_NEVER_FITS, /* more pages than there are */
} sched_verdict;

typedef struct sched_item {
    uint64_t id;
    uint32_t slot;
    uint32_t n_tokens; /* of the prompt, from where it stands; 1 in decode */
    uint32_t point;
    bool prompt;  /* else a decode token */
    bool samples; /* the last of these tokens gives the next one of the reply */
    bool starts;  /* the slot is new: call sched_cached() before the step where part of the prompt is known already */
} sched_item;

typedef struct sched_plan {
    sched_item *items; /* [n], the scheduler's, valid until its next call of sched_next() */
    size_t n;
    uint64_t predicted_ns; /* of the step */
    uint64_t wake_ns;      /* n = 0: plan again at this time at the latest; 0: at the next submit or finish */
} sched_plan;

typedef struct sched_counts {
    uint32_t waiting, running;
    uint32_t pages_reserved;
    double floor_share; /* mean over running requests, 0 where none runs */
} sched_counts;

typedef struct sched sched;

mp_status sched_new(const sched_config *config, sched **out, mp_error *err);
void sched_free(sched *s);

/* Pages a request may fill at most. */
uint32_t sched_pages(const sched *s, uint32_t prompt_tokens, uint32_t max_tokens);
sched_verdict sched_submit(sched *s, const sched_request *request, uint64_t now_ns, uint64_t *retry_ns);
/* The next step. Changes nothing but which requests hold a slot. */
void sched_next(sched *s, uint64_t now_ns, sched_plan *plan);
/* `item` of the plan starts, and the first `cached` tokens of its prompt (fewer than all) need not run: its chunk
 * begins after them. Changes n_tokens and samples of the item. */
void sched_cached(sched *s, sched_plan *plan, size_t item, uint32_t cached);
/* The plan's step is over. Corrects the cost model by the time it took. */
void sched_ran(sched *s, const sched_plan *plan, uint64_t now_ns, uint64_t took_ns);
/* Done, cancelled or failed: forgets it, frees slot and pages. An unknown id is fine. */
void sched_finish(sched *s, uint64_t id, uint64_t now_ns);
sched_counts sched_get_counts(const sched *s);
const cost_model *sched_cost(const sched *s);

#endif
