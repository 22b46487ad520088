#include "cli/trace_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/numbers.h"
#include "cli/output.h"

const char *const trace_arrivals_names[] = {"poisson", "bursty", "step", NULL};

enum { DEFAULT_REQUESTS = 100 };

/* "64-512" or "64" */
static mp_status parse_range(const char *name, const char *text, uint32_t *min, uint32_t *max, mp_error *err)
{
    char first[32];
    uint64_t low = 0, high = 0;
    const size_t n = strcspn(text, "-");
    const char *second = text[n] == '-' ? text + n + 1 : text;
    snprintf(first, sizeof first, "%.*s", (int)n, text);
    if (n >= sizeof first || !number_u64(first, &low) || !number_u64(text[n] == '-' ? second : first, &high) ||
        low < 1 || high < low || high > TRACE_TOKENS_MAX)
        return status_fail(err, MP_E_INVALID, "option '--%s' takes tokens from 1 to %d, as 64-512 or 64, not '%s'",
                           name, TRACE_TOKENS_MAX, text);
    *min = (uint32_t)low;
    *max = (uint32_t)high;
    return MP_OK;
}

static uint64_t nanoseconds(double value, double unit)
{
    return (uint64_t)(value * unit + 0.5);
}

static mp_status make(const trace_options *o, trace *out, mp_error *err)
{
    trace_params p = {.arrivals = (trace_arrivals)o->arrivals,
                      .rate = o->rate,
                      .step = o->step,
                      .ttft_ns = nanoseconds(o->ttft_ms, 1e6),
                      .tpot_ns = nanoseconds(o->tpot_ms, 1e6),
                      .seed = o->seed};
    if (isnan(o->rate))
        return status_fail(err, MP_E_INVALID,
                           "say what arrives: --trace FILE, or --rate R for a trace that is made up");
    if (!isnan(o->duration_s)) p.duration_ns = nanoseconds(o->duration_s, 1e9);
    p.n_requests = o->requests != OPTION_UNSET_U32 ? o->requests : isnan(o->duration_s) ? DEFAULT_REQUESTS : 0;
    MP_TRY(parse_range("prompt-tokens", o->prompt_tokens, &p.prompt_min, &p.prompt_max, err));
    MP_TRY(parse_range("output-tokens", o->output_tokens, &p.output_min, &p.output_max, err));
    MP_TRY(trace_floors_parse(o->floors, &p.floors, err));
    return trace_generate(&p, out, err);
}

static mp_status read(const char *path, trace *out, mp_error *err)
{
    char *text;
    size_t len;
    MP_TRY(input_read(path, &text, &len, err));
    const mp_status status = trace_parse(text, len, path, out, err);
    free(text);
    return status;
}

static mp_status save(const trace *t, const char *path, mp_error *err)
{
    output out;
    MP_TRY(output_begin(&out, err));
    trace_write(t, out.stream);
    return output_finish(&out, path, err);
}

mp_status trace_options_load(const trace_options *o, trace *out, mp_error *err)
{
    MP_TRY(o->path != NULL ? read(o->path, out, err) : make(o, out, err));
    mp_status status = MP_OK;
    if (out->n == 0) status = status_fail(err, MP_E_INVALID, "the trace has no requests");
    if (status == MP_OK && o->save != NULL) status = save(out, o->save, err);
    if (status != MP_OK) trace_clear(out);
    return status;
}
