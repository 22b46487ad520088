#include "cli/bench_cost.h"

#include <stdlib.h>

#include "base/stats.h"
#include "base/status.h"
#include "cli/bench_run.h"
#include "cli/cost_measure.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/table.h"

/* ---- tables ---- */

static const struct coefficient {
    const char *name, *unit;
    double scale; /* units a feature of 1 */
} coefficients[COST_FEATURES] = {
    [COST_STEP] = {"a step", "", 1},
    [COST_TOKENS] = {"a token outside the experts", "", 1},
    [COST_EXPERTS] = {"a token's experts at full", "", 1},
    [COST_TOUCHED] = {"reading all experts once", "", 1},
    [COST_CONTEXT] = {"a token looking back", "1000 positions", 1000},
    [COST_LOGITS] = {"a row of logits", "", 1},
    [COST_CACHE] = {"reading a sequence's cache", "1000 positions", 1000},
};

static void print_coefficients(const cost_model *m, FILE *out)
{
    static const char *const headings[] = {"cost of", "per", "ms"};
    table *t = table_new("llr", headings);
    for (size_t i = 0; i < COST_FEATURES; i++) {
        table_cell(t, "%s", coefficients[i].name);
        table_cell(t, "%s", coefficients[i].unit);
        table_cell(t, "%.3f", m->ns[i] * coefficients[i].scale * 1e-6);
    }
    table_print(t, out);
    table_free(t);
}

/* Kinds of steps whose errors are told apart. */
static bool in_group(const cost_step *s, size_t group)
{
    switch (group) {
    case 0:
        return s->prompt_tokens == 0;
    case 1:
        return s->decodes == 0;
    case 2:
        return s->decodes > 0 && s->prompt_tokens > 0;
    default:
        return true;
    }
}

static mp_status print_errors(const cost_steps *s, const double *errors, FILE *out, mp_error *err)
{
    static const char *const groups[] = {"decode", "prompt", "mixed", "all"};
    static const char *const headings[] = {"steps", "measured", "median error", "p90", "worst"};
    double *values = calloc(s->n, sizeof *values);
    if (values == NULL) return status_no_memory(err, s->n * sizeof *values, "errors");
    table *t = table_new("lrrrr", headings);
    for (size_t g = 0; g < CLI_COUNT(groups); g++) {
        size_t n = 0;
        for (size_t i = 0; i < s->n; i++)
            if (in_group(&s->steps[i], g)) values[n++] = errors[i];
        if (n == 0) continue;
        stats_sort(values, n);
        table_cell(t, "%s", groups[g]);
        table_cell(t, "%zu", n);
        table_cell(t, "%.1f %%", 100 * stats_quantile(values, n, 0.5));
        table_cell(t, "%.1f %%", 100 * stats_quantile(values, n, 0.9));
        table_cell(t, "%.1f %%", 100 * values[n - 1]);
    }
    table_print(t, out);
    table_free(t);
    free(values);
    return MP_OK;
}

static json_t *samples_json(const cost_steps *s, const double *errors)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n; i++) {
        const cost_step *step = &s->steps[i];
        json_t *features = json_array();
        for (size_t f = 0; f < COST_FEATURES; f++)
            json_array_append_new(features, json_number(step->sample.features[f]));
        json_array_append_new(list, json_pack("{s:I s:I s:o s:o s:o s:o s:o}", "decodes", (json_int_t)step->decodes,
                                              "prompt_tokens", (json_int_t)step->prompt_tokens, "context",
                                              json_number(step->context), "share", json_number(step->share), "ns",
                                              json_number(step->sample.ns), "heldout_error", json_number(errors[i]),
                                              "features", features));
    }
    return list;
}

/* ---- the measurement ---- */

static mp_status measure(const mp_model *model, const cost_measure_params *params, progress *shown, cost_steps *steps,
                         mp_error *err)
{
    progress_begin(shown, true);
    interrupt_catch(NULL);
    const mp_status status = cost_measure(model, params, steps, err);
    progress_end(shown, status == MP_OK);
    interrupt_release();
    return status;
}

static mp_status report(const cost_file *f, const cost_steps *steps, const bench_cost_params *params, const char *path,
                        const double *errors, mp_error *err)
{
    MP_TRY(cost_file_write(f, samples_json(steps, errors), path, err));
    if (params->json) return cost_file_write(f, samples_json(steps, errors), NULL, err);
    print_coefficients(&f->cost, stdout);
    puts("\nerror on steps that were left out of the fit:");
    MP_TRY(print_errors(steps, errors, stdout, err));
    printf("\nwritten to %s\n", path);
    return MP_OK;
}

mp_status bench_cost(const mp_model *model, const bench_cost_params *p, mp_error *err)
{
    progress shown;
    cost_file file;
    cost_steps steps = {0};
    const cost_measure_params params = {.engine = {.threads = p->common->threads,
                                                   .store = p->store,
                                                   .progress = progress_load,
                                                   .isa = p->common->isa,
                                                   .kv_type = p->kv_type,
                                                   .n_ctx = cli_context(model, p->context),
                                                   .n_seqs = p->slots,
                                                   .n_batch = BENCH_BATCH > p->slots ? BENCH_BATCH : p->slots},
                                        .seed = p->seed,
                                        .progress = progress_update,
                                        .user = &shown};
    MP_TRY(cost_file_begin(&file, model, p->common, &params.engine, err));
    char *beside = cost_file_path(mp_model_get_info(model)->path);
    if (beside == NULL) return status_no_memory(err, 0, "a file name");
    mp_status status = measure(model, &params, &shown, &steps, err);
    double *errors = calloc(steps.n > 0 ? steps.n : 1, sizeof *errors);
    if (status == MP_OK && errors == NULL) status = status_no_memory(err, steps.n * sizeof *errors, "errors");
    if (status == MP_OK) status = cost_steps_fit(&steps, &file.cost, errors, err);
    if (status == MP_OK) status = report(&file, &steps, p, p->out != NULL ? p->out : beside, errors, err);
    free(errors);
    free(beside);
    cost_steps_clear(&steps);
    return status;
}
