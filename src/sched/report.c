#include "sched/report.h"

#include <math.h>
#include <stdlib.h>

#include "base/stats.h"

static double since_ms(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) * 1e-6 : 0;
}

static double ttft_ms(const report_request *r)
{
    return since_ms(r->arrival_ns, r->first_ns);
}

/* NAN where a reply has no second token. */
static double tpot_ms(const report_request *r)
{
    return r->output_tokens > 1 ? since_ms(r->first_ns, r->end_ns) / (r->output_tokens - 1) : NAN;
}

static double end_to_end_ms(const report_request *r)
{
    return since_ms(r->arrival_ns, r->end_ns);
}

/* Half a nanosecond: what the division of whole nanoseconds may lose. */
#define ROUNDING_MS 0.5e-6

static bool met(const report_request *r)
{
    if (r->ttft_target_ns > 0 && ttft_ms(r) > (double)r->ttft_target_ns * 1e-6 + ROUNDING_MS) return false;
    return r->tpot_target_ns == 0 || !(tpot_ms(r) > (double)r->tpot_target_ns * 1e-6 + ROUNDING_MS);
}

static report_spread spread_of(const report_request *requests, size_t n, double (*measure)(const report_request *),
                               double *values)
{
    size_t k = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double value = requests[i].outcome == REPORT_DONE ? measure(&requests[i]) : NAN;
        if (isnan(value)) continue;
        values[k++] = value;
        sum += value;
    }
    stats_sort(values, k);
    return (report_spread){.mean = k > 0 ? sum / (double)k : NAN,
                           .p50 = stats_quantile(values, k, 0.5),
                           .p90 = stats_quantile(values, k, 0.9),
                           .p99 = stats_quantile(values, k, 0.99)};
}

static void count(const report_request *requests, size_t n, report *out)
{
    uint64_t first = UINT64_MAX, last = 0;
    double tokens = 0, replies = 0;
    for (size_t i = 0; i < n; i++) {
        const report_request *r = &requests[i];
        if (r->arrival_ns < first) first = r->arrival_ns;
        if (r->end_ns > last) last = r->end_ns;
        if (r->arrival_ns > last) last = r->arrival_ns;
        out->refused += r->outcome == REPORT_REFUSED;
        out->failed += r->outcome == REPORT_FAILED;
        if (r->outcome != REPORT_DONE) continue;
        const double ran = (double)r->prompt_tokens + r->output_tokens;
        out->done++;
        out->met += met(r);
        out->violations += r->violated;
        replies += r->output_tokens;
        tokens += ran;
        out->share += ran * r->share;
        out->floor_share += ran * r->floor_share;
        out->loss += ran * r->loss;
        out->floor_loss += ran * r->floor_loss;
    }
    out->seconds = last > first ? (double)(last - first) * 1e-9 : 0;
    const double per_s = out->seconds > 0 ? 1 / out->seconds : NAN;
    out->requests_s = (double)out->done * per_s;
    out->goodput_s = (double)out->met * per_s;
    out->tokens_s = replies * per_s;
    out->share /= tokens; /* NAN where nothing is done */
    out->floor_share /= tokens;
    out->loss /= tokens;
    out->floor_loss /= tokens;
}

mp_status report_make(const report_request *requests, size_t n, report *out, mp_error *err)
{
    *out = (report){.offered = n};
    double *values = calloc(n > 0 ? n : 1, sizeof *values);
    if (!values) return status_no_memory(err, n * sizeof *values, "a report");
    count(requests, n, out);
    out->ttft_ms = spread_of(requests, n, ttft_ms, values);
    out->tpot_ms = spread_of(requests, n, tpot_ms, values);
    out->end_to_end_ms = spread_of(requests, n, end_to_end_ms, values);
    free(values);
    return MP_OK;
}
