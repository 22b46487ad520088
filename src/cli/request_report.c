#include "cli/request_report.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "cli/output.h"
#include "cli/table.h"

/* ---- one measure ---- */

typedef enum measure_kind { COUNT, PER_SECOND, SECONDS, MS, PERCENT, INCREASE } measure_kind;

#define AT(member) offsetof(report, member)

/* Rows of the table, in order. */
static const struct measure {
    const char *label, *key; /* key: in JSON */
    measure_kind kind;
    size_t offset;
} measures[] = {
    {"requests", "offered", COUNT, AT(offered)},
    {"done", "done", COUNT, AT(done)},
    {"refused", "refused", COUNT, AT(refused)},
    {"failed", "failed", COUNT, AT(failed)},
    {"floor violations", "floor_violations", COUNT, AT(violations)},
    {"seconds", "seconds", SECONDS, AT(seconds)},
    {"requests/s", "requests_per_s", PER_SECOND, AT(requests_s)},
    {"within deadlines/s", "goodput_per_s", PER_SECOND, AT(goodput_s)},
    {"output tokens/s", "output_tokens_per_s", PER_SECOND, AT(tokens_s)},
    {"first token ms, p50", "ttft_ms.p50", MS, AT(ttft_ms.p50)},
    {"first token ms, p90", "ttft_ms.p90", MS, AT(ttft_ms.p90)},
    {"first token ms, p99", "ttft_ms.p99", MS, AT(ttft_ms.p99)},
    {"ms a further token, p50", "tpot_ms.p50", MS, AT(tpot_ms.p50)},
    {"ms a further token, p90", "tpot_ms.p90", MS, AT(tpot_ms.p90)},
    {"ms a further token, p99", "tpot_ms.p99", MS, AT(tpot_ms.p99)},
    {"end to end ms, p50", "end_to_end_ms.p50", MS, AT(end_to_end_ms.p50)},
    {"end to end ms, p90", "end_to_end_ms.p90", MS, AT(end_to_end_ms.p90)},
    {"end to end ms, p99", "end_to_end_ms.p99", MS, AT(end_to_end_ms.p99)},
    {"expert compute used", "compute_share", PERCENT, AT(share)},
    {"expert compute of the floors", "compute_share_floors", PERCENT, AT(floor_share)},
    {"perplexity increase", "ppl_increase", INCREASE, AT(loss)},
    {"perplexity increase of the floors", "ppl_increase_floors", INCREASE, AT(floor_loss)},
};
enum { N_MEASURES = sizeof measures / sizeof measures[0] };

static double value_of(const report *r, const struct measure *m)
{
    const char *at = (const char *)r + m->offset;
    if (m->kind == COUNT) return (double)*(const size_t *)at;
    const double value = *(const double *)at;
    return m->kind == INCREASE ? expm1(value) : value;
}

/* ---- the table ---- */

static void put(table *t, measure_kind kind, double value)
{
    if (isnan(value)) {
        table_cell(t, "-");
        return;
    }
    switch (kind) {
    case COUNT:
        table_cell(t, "%.0f", value);
        break;
    case PER_SECOND:
        table_cell(t, "%.3f", value);
        break;
    case SECONDS:
    case MS:
        table_cell(t, "%.1f", value);
        break;
    case PERCENT:
        table_cell(t, "%.1f %%", 100 * value);
        break;
    case INCREASE:
        table_cell(t, "%+.2f %%", 100 * value);
        break;
    }
}

enum { COLUMNS_MAX = 32 };

mp_status request_report_print(const report *reports, const char *const *names, size_t n, FILE *out, mp_error *err)
{
    char align[COLUMNS_MAX + 2] = "l";
    const char *headings[COLUMNS_MAX + 1] = {""};
    if (n > COLUMNS_MAX) return status_fail(err, MP_E_LIMIT, "a table of %zu columns", n);
    for (size_t i = 0; i < n; i++) headings[i + 1] = names[i];
    memset(align + 1, 'r', n);
    table *t = table_new(align, headings);
    for (size_t m = 0; m < N_MEASURES; m++) {
        table_cell(t, "%s", measures[m].label);
        for (size_t i = 0; i < n; i++) put(t, measures[m].kind, value_of(&reports[i], &measures[m]));
    }
    const bool failed = table_failed(t);
    if (!failed) table_print(t, out);
    table_free(t);
    return failed ? status_no_memory(err, 0, "a table") : MP_OK;
}

/* ---- JSON ---- */

static json_t *spread_json(const report_spread *s)
{
    return json_pack("{s:o s:o s:o s:o}", "mean", json_number(s->mean), "p50", json_number(s->p50), "p90",
                     json_number(s->p90), "p99", json_number(s->p99));
}

json_t *request_report_json(const report *r)
{
    json_t *object = json_object();
    for (size_t m = 0; m < N_MEASURES; m++) {
        const double value = value_of(r, &measures[m]);
        if (strchr(measures[m].key, '.') != NULL) continue; /* in a spread below */
        json_object_set_new(object, measures[m].key,
                            measures[m].kind == COUNT ? json_integer((json_int_t)value) : json_number(value));
    }
    json_object_set_new(object, "ttft_ms", spread_json(&r->ttft_ms));
    json_object_set_new(object, "tpot_ms", spread_json(&r->tpot_ms));
    json_object_set_new(object, "end_to_end_ms", spread_json(&r->end_to_end_ms));
    return object;
}
