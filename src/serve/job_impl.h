/* job_impl.h: the inside of a job, for the loop. Two hold it: whoever submitted it and the loop; the last to let go
 * frees it. `lock` guards what both see; the rest is the loop thread's, or does not change. */
#ifndef SERVE_JOB_IMPL_H
#define SERVE_JOB_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/job.h"
#include "serve/prefix.h"
#include "serve/stops.h"

#define JOB_NO_SLOT UINT32_MAX

struct job {
    job_params params;
    uint64_t id, arrival_ns;
    atomic_int holders;
    atomic_bool released;      /* by whoever submitted it: nobody reads any more */
    void (*leave)(void *loop); /* tells the loop that a running job was released; any thread */
    void *loop;

    /* The loop thread's. */
    uint32_t slot;    /* JOB_NO_SLOT: it waits */
    mp_error failure; /* JOB_FAILED: why */
    mp_sampler *sampler;
    int32_t *tokens;          /* [n_prompt + max_tokens] the prompt, then what was drawn */
    prefix_range *page_ran;   /* [of those tokens' pages] points they ran at */
    uint32_t n_tokens, n_run; /* of tokens: there are, are in the key-value cache */
    uint32_t n_counted;       /* tokens that the sums below hold */
    double share_sum, gate_sum, loss_sum;
    uint64_t first_ns, last_ns; /* tokens of the reply; 0: not yet */
    job_usage used;             /* what `usage` becomes */
    job_end ends;               /* how it ended in this step */
    bool news;                  /* something to take */

    pthread_mutex_t lock;
    stops text;
    job_token *drawn; /* [n_drawn], of drawn_cap: not yet taken; only with logprobs */
    size_t n_drawn, drawn_cap;
    job_end end;
    bool end_told;
    size_t stopped_by; /* n_stop: none */
    mp_error error;
    job_usage usage;
};

/* Takes over params, also where it fails. Held twice. */
mp_status job_new(job_params *params, const mp_model *model, job **out, mp_error *err);
/* The loop lets go of it. */
void job_drop(job *j);

/* What was drawn, `token` >= 0: its bytes become text, its probabilities (NULL: not asked for) are kept. True: the text
 * ends with a stop string. */
mp_status job_append(job *j, const char *bytes, size_t n, const job_token *token, bool *stopped, mp_error *err);
/* A token of the prompt. */
mp_status job_note_token(job *j, const job_token *token, mp_error *err);
/* What was used so far. */
void job_show_usage(job *j);
/* It is over; error only for JOB_FAILED. */
void job_finish(job *j, job_end end, const mp_error *error);

#endif
