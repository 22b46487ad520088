/* loadgen_request.h: one request of the load generator: its body, and what its reply tells. */
#ifndef CLI_LOADGEN_REQUEST_H
#define CLI_LOADGEN_REQUEST_H

#include "cli/loadgen.h"
#include "cli/sse.h"

enum { REQUEST_BODY_KEEP = 512 };

typedef struct loadgen_request {
    const loadgen_params *params;
    const trace_request *wanted;
    uint64_t due_ns; /* on the real clock */
    sse_reader events;
    char *body; /* terminated; owned */
    size_t body_len;
    /* of the reply */
    char head[REQUEST_BODY_KEEP]; /* the beginning of one that is no stream, for its message */
    size_t head_len;
    uint64_t first_ns, last_ns; /* text came; 0: never */
    uint32_t pieces;
    bool finished;                                               /* a finish_reason came */
    uint32_t prompt_tokens, output_tokens;                       /* 0: not told */
    bool accounted;                                              /* the reply says what was used */
    double share, floor_share, ppl_increase, ppl_increase_floor; /* NAN: not told */
    double point_max, floor_point;
    char error[REQUEST_BODY_KEEP]; /* "" */
} loadgen_request;

/* Text of the body; NULL: out of memory. `index` tells the prompts apart. */
bool loadgen_request_begin(loadgen_request *r, const loadgen_params *params, const char *model,
                           const trace_request *wanted, size_t index);
void loadgen_request_clear(loadgen_request *r);

/* Bytes of a reply of status `http`, which came at `now`. False: give up. */
bool loadgen_request_feed(loadgen_request *r, long http, const char *bytes, size_t n, uint64_t now_ns);
/* What became of it. `transport`: the client library's message, NULL where the transfer was fine. */
report_request loadgen_request_end(loadgen_request *r, long http, const char *transport);
/* Done, with a floor that the reply did not account for. */
bool loadgen_request_unverified(const loadgen_request *r, const report_request *result);

#endif
