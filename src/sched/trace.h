/* trace.h: what arrives when: the input of the simulator and of the load generator.
 *
 * A trace is an array of requests in order of arrival. As text it is CSV, one request a line below this header:
 *
 *     arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms
 *     0.52,128,64,0.5,2000,150
 *     0.731,300,32,point:3,,
 *
 * Times are decimal and exact to the nanosecond. The floor is a share of the full expert compute ("0.5", "50%", empty
 * is 1) or a rung of the ladder ("point:3"); the last two are deadlines, empty or 0 where there is none. Empty lines
 * and lines that begin with # do not count.
 *
 * Text is parsed and written in memory; the trace owns its requests. */
#ifndef SCHED_TRACE_H
#define SCHED_TRACE_H

#include <stdio.h>

#include "base/status.h"
#include "sched/sched.h"

enum {
    TRACE_TOKENS_MAX = 1 << 24,   /* of a prompt or an output */
    TRACE_REQUESTS_MAX = 1 << 24, /* that the generator makes */
    TRACE_FLOORS_MAX = 32,
};

/* A floor as it was asked for: of some ladder, known later. */
typedef struct trace_floor {
    bool is_point;
    double share;   /* of the full expert compute, 0 < share <= 1 */
    uint32_t point; /* is_point */
} trace_floor;

#define TRACE_FULL ((trace_floor){.share = 1})

typedef struct trace_request {
    uint64_t arrival_ns;
    uint32_t prompt_tokens, output_tokens; /* >= 1 */
    trace_floor floor;
    uint64_t ttft_ns, tpot_ns; /* deadlines; 0: none */
} trace_request;

typedef struct trace {
    trace_request *requests; /* [n], by arrival */
    size_t n;
} trace;

void trace_clear(trace *t);

/* Text [len]; `name` stands before the line number in messages. On failure *out is empty. */
mp_status trace_parse(const char *text, size_t len, const char *name, trace *out, mp_error *err);
void trace_write(const trace *t, FILE *out);

/* "0.5", "50%" or "point:3", the whole string. */
bool trace_floor_parse(const char *text, trace_floor *out);
void trace_floor_write(const trace_floor *floor, FILE *out);
/* The cheapest point that satisfies the floor, by the rule of mp_model_find_point(); false: there is no such point. */
bool trace_floor_point(const trace_floor *floor, const sched_point *points, uint32_t n_points, uint32_t *out);

/* ---- the generator ------------------------------------------------------------------------------------------- */

typedef enum trace_arrivals {
    TRACE_POISSON,
    TRACE_BURSTY, /* gamma inter-arrival times whose deviation is TRACE_BURSTY_CV times their mean */
    TRACE_STEP,   /* Poisson; in the middle third `step` times as many a second as before and after */
} trace_arrivals;

#define TRACE_BURSTY_CV 4.0

/* Floors to draw from, each with its probability. */
typedef struct trace_floors {
    trace_floor floors[TRACE_FLOORS_MAX];
    double weights[TRACE_FLOORS_MAX];
    size_t n; /* 0: all full */
} trace_floors;

/* "full"; "uniform:1,0.75,50%,point:9"; "bimodal:1,0.25" (half of the requests each) or "bimodal:1,0.25,0.9" (nine
 * in ten at the first). */
mp_status trace_floors_parse(const char *text, trace_floors *out, mp_error *err);

typedef struct trace_params {
    trace_arrivals arrivals;
    double rate;          /* requests a second, > 0; of TRACE_STEP outside the middle third */
    double step;          /* TRACE_STEP: the factor, > 0 */
    uint64_t duration_ns; /* no arrival at or after this; 0: no such limit */
    uint32_t n_requests;  /* 0: no such limit; one of the two is given */
    trace_floors floors;  /* drawn independently */
    uint32_t prompt_min, prompt_max, output_min, output_max; /* uniform, 1 <= min <= max <= TRACE_TOKENS_MAX */
    uint64_t ttft_ns, tpot_ns;                               /* of every request; 0: none */
    uint64_t seed;
} trace_params;

/* Arrivals, sizes and floors come from streams of their own: with the same seed another rate gives the same requests
 * at other times, other floors give the same times and sizes. */
mp_status trace_generate(const trace_params *params, trace *out, mp_error *err);

#endif
