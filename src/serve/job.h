/* job.h: one generation between the API, which asks and reads, and the loop, which runs it.
 *
 * The API thread fills a job_params, submits it (loop.h) and gets a job. The loop thread appends text to it; `wake` is
 * called from there, without a lock held, when there is something new. Whoever submitted calls job_take() whenever it
 * likes and job_release() once: a job that still runs is then cancelled and its slot is free within a step; a wake that
 * was under way may still come. What a slow reader does not take stays in the job, bounded by its max_tokens: nothing
 * ever waits for a reader. */
#ifndef SERVE_JOB_H
#define SERVE_JOB_H

#include "base/status.h"

enum { JOB_TOP_LOGPROBS_MAX = 20 };

typedef struct job_params {
    int32_t *prompt; /* [n_prompt], owned; >= 1 token */
    size_t n_prompt;
    uint32_t max_tokens;        /* >= 1, with the prompt within the context */
    bool open_ended;            /* max_tokens is only what the context has room for */
    mp_sampler_params sampling; /* the bias is borrowed until it is submitted */
    char **stop;                /* [n_stop], owned; the text ends before the first of them */
    size_t n_stop;
    bool ignore_eos;
    bool logprobs;
    bool prompt_logprobs;  /* of the prompt's tokens as well, before those of the reply: needs logprobs */
    uint32_t top_logprobs; /* <= JOB_TOP_LOGPROBS_MAX */
    bool skip_white;       /* leave out white space before the reply (SentencePiece chats) */
    uint32_t best, floor;  /* operating points: best <= point <= floor */
    uint64_t ttft_ns, tpot_ns;
    int32_t priority;
    const void *request; /* the same for all replies to one request; NULL: it is the only one */
    void (*wake)(void *user);
    void *user;
} job_params;

void job_params_clear(job_params *p);

typedef struct job_logprob {
    int32_t token;
    float logprob;
} job_logprob;

/* A token of the reply or of the prompt, for logprobs. The first of a prompt has none: NAN. */
typedef struct job_token {
    job_logprob drawn;
    uint32_t n_top;
    job_logprob top[JOB_TOP_LOGPROBS_MAX]; /* best first */
} job_token;

typedef enum job_end {
    JOB_RUNNING,
    JOB_STOP,      /* an end-of-text token or a stop string */
    JOB_LENGTH,    /* max_tokens */
    JOB_CANCELLED, /* the server is shutting down */
    JOB_FAILED,    /* `error` says why */
} job_end;

/* What was used and promised, for the reply's account. */
typedef struct job_usage {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    double compute_share;                /* of the full expert compute, mean over the tokens run */
    double experts_mean;                 /* the same in experts */
    double experts_floor;                /* of the floor's point */
    double gate_share;                   /* the gate's own cost, not in compute_share */
    uint32_t point_min, point_max;       /* points really used; the floor's, where a token went without something */
    uint64_t dropped;                    /* sub-experts that tokens went without, over tokens and layers */
    double ppl_increase;                 /* mean of the used points' measured increase, as 0.02; NAN: not measured */
    double ppl_increase_floor;           /* the promise: of the floor's point; NAN: not measured */
    uint64_t queue_ns, ttft_ns, tpot_ns; /* so far */
} job_usage;

/* Everything since the last take. */
typedef struct job_piece {
    char *text; /* [len] whole UTF-8 sequences, terminated; nothing of a stop string that may be coming. Owned */
    size_t len;
    job_token *tokens; /* [n_tokens], only with logprobs. Owned */
    size_t n_tokens;
    job_end end;
    const char *stopped_by; /* the stop string, NULL: an end-of-text token. The job's */
    const mp_error *error;  /* JOB_FAILED. The job's */
} job_piece;

typedef struct job job;

/* True where there is something: text, tokens or the end (which is told once). The caller clears the piece. */
bool job_take(job *j, job_piece *out);
void job_piece_clear(job_piece *p);
job_usage job_get_usage(job *j);
void job_release(job *j);

#endif
