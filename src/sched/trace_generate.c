/* Made-up traces. Three independent random streams (times, sizes, floors), so that one of them can change while the
 * others stay: a comparison of loads or of floors is then about the same requests. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "sched/trace.h"

enum { STREAM_TIMES, STREAM_SIZES, STREAM_FLOORS };

#define SECOND_NS 1e9

/* ---- floors by name ---- */

/* The list behind "uniform:" or "bimodal:", copied and cut at its commas. */
static mp_status parse_parts(const char *text, const char *list, const char *parts[TRACE_FLOORS_MAX], char *copy,
                             size_t cap, size_t *n, mp_error *err)
{
    if (strlen(list) >= cap) return status_fail(err, MP_E_INVALID, "floors '%s': the list is too long", text);
    memcpy(copy, list, strlen(list) + 1);
    *n = 0;
    for (char *p = copy; p; (*n)++) {
        if (*n == TRACE_FLOORS_MAX)
            return status_fail(err, MP_E_INVALID, "floors '%s': more than %d", text, TRACE_FLOORS_MAX);
        parts[*n] = p;
        p = strchr(p, ',');
        if (p) *p++ = '\0';
    }
    return MP_OK;
}

static mp_status bad_floor(const char *text, const char *part, mp_error *err)
{
    return status_fail(err, MP_E_INVALID,
                       "floors '%s': '%s' is neither a share of the expert compute (0.5 or 50%%) nor a point (point:3)",
                       text, part);
}

mp_status trace_floors_parse(const char *text, trace_floors *out, mp_error *err)
{
    static const char uniform[] = "uniform:", bimodal[] = "bimodal:";
    const size_t prefix = sizeof uniform - 1;
    const char *parts[TRACE_FLOORS_MAX];
    char copy[1024], *end;
    size_t n = 0;
    *out = (trace_floors){0};
    if (strcmp(text, "full") == 0) return MP_OK;
    const bool two = strncmp(text, bimodal, prefix) == 0;
    if (!two && strncmp(text, uniform, prefix) != 0)
        return status_fail(err, MP_E_INVALID, "floors '%s': use full, uniform:A,B,... or bimodal:A,B[,SHARE OF A]",
                           text);
    MP_TRY(parse_parts(text, text + prefix, parts, copy, sizeof copy, &n, err));
    double first = 0.5;
    if (two && n == 3) {
        first = strtod(parts[2], &end);
        if (end == parts[2] || *end != '\0' || !(first >= 0 && first <= 1))
            return status_fail(err, MP_E_INVALID, "floors '%s': '%s' is no share from 0 to 1", text, parts[2]);
        n = 2;
    }
    if (two && n != 2) return status_fail(err, MP_E_INVALID, "floors '%s': bimodal takes two floors", text);
    for (size_t i = 0; i < n; i++) {
        if (!trace_floor_parse(parts[i], &out->floors[i])) return bad_floor(text, parts[i], err);
        out->weights[i] = !two ? 1 / (double)n : i == 0 ? first : 1 - first;
    }
    out->n = n;
    return MP_OK;
}

/* ---- random values ---- */

static double exponential(rng *r)
{
    return -log(1 - rng_uniform(r));
}

/* Gamma with shape > 1 and scale 1 (Marsaglia and Tsang 2000). */
static double gamma_above_one(rng *r, double shape)
{
    const double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = (double)rng_normal(r), v = pow(1 + c * x, 3), u = 1 - rng_uniform(r);
        if (v > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
}

/* Mean 1, deviation TRACE_BURSTY_CV. A shape below one by way of the one above: Gamma(k) = Gamma(k + 1) * U^(1/k). */
static double bursty(rng *r)
{
    const double shape = 1 / (TRACE_BURSTY_CV * TRACE_BURSTY_CV);
    const double above = gamma_above_one(r, shape + 1);
    return above * pow(1 - rng_uniform(r), 1 / shape) / shape;
}

static uint32_t between(rng *r, uint32_t min, uint32_t max)
{
    return min + (uint32_t)rng_below(r, (uint64_t)max - min + 1);
}

static trace_floor draw_floor(const trace_floors *floors, rng *r)
{
    double left = rng_uniform(r);
    if (floors->n == 0) return TRACE_FULL;
    for (size_t i = 0; i + 1 < floors->n; i++) {
        if (left < floors->weights[i]) return floors->floors[i];
        left -= floors->weights[i];
    }
    return floors->floors[floors->n - 1];
}

/* ---- the trace ---- */

/* Seconds from the start to the end of what is asked for, as far as the step needs to know. */
static double horizon(const trace_params *p)
{
    if (p->duration_ns > 0) return (double)p->duration_ns / SECOND_NS;
    return p->n_requests * 3 / (p->rate * (2 + p->step));
}

/* The next arrival after `now`, in seconds. A step's arrivals are those of a unit process on a clock that runs faster
 * in the middle third. */
static double next_arrival(const trace_params *p, double now, rng *r)
{
    if (p->arrivals == TRACE_BURSTY) return now + bursty(r) / p->rate;
    double left = exponential(r) / p->rate;
    if (p->arrivals == TRACE_POISSON) return now + left;
    const double begin = horizon(p) / 3, end = 2 * begin;
    if (now < begin) {
        if (left <= begin - now) return now + left;
        left -= begin - now;
        now = begin;
    }
    if (now < end) {
        if (left <= (end - now) * p->step) return now + left / p->step;
        left -= (end - now) * p->step;
        now = end;
    }
    return now + left;
}

static mp_status check(const trace_params *p, mp_error *err)
{
    if (!(p->rate > 0 && p->rate <= 1e9)) return status_fail(err, MP_E_INVALID, "the rate must be above 0");
    if (p->arrivals == TRACE_STEP && !(p->step > 0 && p->step <= 1e6))
        return status_fail(err, MP_E_INVALID, "the step's factor must be above 0");
    if (p->duration_ns == 0 && p->n_requests == 0)
        return status_fail(err, MP_E_INVALID, "a trace needs a duration or a number of requests");
    if (p->n_requests > TRACE_REQUESTS_MAX ||
        (p->n_requests == 0 && p->rate * (double)p->duration_ns / SECOND_NS > TRACE_REQUESTS_MAX / 2.0))
        return status_fail(err, MP_E_LIMIT, "a trace holds at most %d requests", TRACE_REQUESTS_MAX);
    if (p->prompt_min < 1 || p->prompt_max < p->prompt_min || p->prompt_max > TRACE_TOKENS_MAX)
        return status_fail(err, MP_E_INVALID, "prompt tokens %u to %u: choose 1 <= least <= most <= %d", p->prompt_min,
                           p->prompt_max, TRACE_TOKENS_MAX);
    if (p->output_min < 1 || p->output_max < p->output_min || p->output_max > TRACE_TOKENS_MAX)
        return status_fail(err, MP_E_INVALID, "output tokens %u to %u: choose 1 <= least <= most <= %d", p->output_min,
                           p->output_max, TRACE_TOKENS_MAX);
    return MP_OK;
}

static mp_status grow(trace *t, size_t *cap, mp_error *err)
{
    const size_t larger = *cap ? 2 * *cap : 256;
    if (larger > 2 * (size_t)TRACE_REQUESTS_MAX)
        return status_fail(err, MP_E_LIMIT, "a trace holds at most %d requests", TRACE_REQUESTS_MAX);
    trace_request *grown = realloc(t->requests, larger * sizeof *grown);
    if (!grown) return status_no_memory(err, larger * sizeof *grown, "a trace");
    t->requests = grown;
    *cap = larger;
    return MP_OK;
}

static mp_status fill(const trace_params *p, trace *out, mp_error *err)
{
    rng times, sizes, floors;
    size_t cap = 0;
    rng_init_stream(&times, p->seed, STREAM_TIMES);
    rng_init_stream(&sizes, p->seed, STREAM_SIZES);
    rng_init_stream(&floors, p->seed, STREAM_FLOORS);
    for (double now = 0; p->n_requests == 0 || out->n < p->n_requests;) {
        now = next_arrival(p, now, &times);
        if (p->duration_ns > 0 && now * SECOND_NS >= (double)p->duration_ns) break;
        if (now * SECOND_NS > (double)(INT64_MAX / 2))
            return status_fail(err, MP_E_LIMIT, "the trace is longer than a century: choose a higher rate");
        if (out->n == cap) MP_TRY(grow(out, &cap, err));
        const uint32_t prompt = between(&sizes, p->prompt_min, p->prompt_max);
        out->requests[out->n++] = (trace_request){
            .arrival_ns = (uint64_t)(now * SECOND_NS),
            .prompt_tokens = prompt,
            .output_tokens = between(&sizes, p->output_min, p->output_max),
            .floor = draw_floor(&p->floors, &floors),
            .ttft_ns = p->ttft_ns,
            .tpot_ns = p->tpot_ns,
        };
    }
    return MP_OK;
}

mp_status trace_generate(const trace_params *params, trace *out, mp_error *err)
{
    *out = (trace){0};
    MP_TRY(check(params, err));
    const mp_status status = fill(params, out, err);
    if (status != MP_OK) trace_clear(out);
    return status;
}
