/* report.h: what became of a set of requests, in the terms of those who serve them. The simulator and the load
 * generator report by the same code, so that their figures can be laid beside each other. Pure; nothing to free. */
#ifndef SCHED_REPORT_H
#define SCHED_REPORT_H

#include "base/status.h"

typedef enum report_outcome {
    REPORT_DONE,
    REPORT_REFUSED, /* the queue was full: 503 */
    REPORT_FAILED,  /* anything else */
} report_outcome;

typedef struct report_request {
    report_outcome outcome;
    uint64_t arrival_ns, first_ns, end_ns;   /* of one clock: asked, first token there, last token there */
    uint32_t prompt_tokens, output_tokens;   /* that ran */
    uint64_t ttft_target_ns, tpot_target_ns; /* deadlines; 0: none */
    double share, floor_share; /* of the full expert compute: mean over its tokens, and its floor's. NAN: not known */
    double loss, floor_loss;   /* ln(perplexity / full's), likewise */
    bool violated;             /* a token ran below the floor */
} report_request;

/* NAN where there is nothing to tell of. */
typedef struct report_spread {
    double mean, p50, p90, p99;
} report_spread;

typedef struct report {
    size_t offered, done, refused, failed, violations;
    size_t met;     /* done within both deadlines; tpot is the mean over the reply, as the deadline means it */
    double seconds; /* from the first arrival to the last end */
    double requests_s, tokens_s, goodput_s;        /* done, tokens of their replies, met: a second */
    report_spread ttft_ms, tpot_ms, end_to_end_ms; /* of what is done; tpot of replies of two tokens and more */
    double share, floor_share, loss, floor_loss;   /* mean over tokens of what is done; NAN: not known */
} report;

mp_status report_make(const report_request *requests, size_t n, report *out, mp_error *err);

#endif
