/* loadgen.h: an open-loop client of an OpenAI-compatible server: requests go out when the trace says so, whatever
 * happened to those before. One thread. */
#ifndef CLI_LOADGEN_H
#define CLI_LOADGEN_H

#include "cli/cli.h"
#include "sched/report.h"
#include "sched/trace.h"

typedef struct loadgen_params {
    const char *url;     /* "http://host:port", without a slash at the end */
    const char *model;   /* NULL: the first that the server lists */
    const char *key;     /* NULL: none */
    bool chat;           /* /v1/chat/completions, prompts of words; else /v1/completions, prompts of token ids */
    bool text;           /* prompts of words there too, for servers that take no ids */
    bool quality;        /* send floors and deadlines, and hold the server to the floors */
    uint32_t vocabulary; /* ids are drawn below this */
    double timeout_s;    /* of one request; 0: none */
    uint64_t seed;       /* of the prompts */
} loadgen_params;

typedef struct loadgen_result {
    report_request *requests; /* [n] those that came to an end, in the trace's order. Owned */
    size_t n;
    size_t unfinished;          /* Ctrl-C */
    size_t unverified;          /* done, with a floor that the reply did not account for */
    char failure[MP_ERROR_MAX]; /* the first one's reason, "" where none failed */
    double late_ms;             /* how far behind the trace the client itself ever was when it sent a request */
    char model[256];
} loadgen_result;

/* MP_E_INTERRUPTED is not among its failures: after Ctrl-C the result tells what there is. */
mp_status loadgen_run(const loadgen_params *params, const trace *t, loadgen_result *out, mp_error *err);
void loadgen_result_clear(loadgen_result *r);

#endif
