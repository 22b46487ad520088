#include "cli/refactor_report.h"

#include <inttypes.h>

#include "cli/cli.h"
#include "cli/ladder_table.h"
#include "cli/output.h"
#include "cli/progress.h"

/* The times of the stages, in order; used by both forms of the report. */
static const struct stage {
    const char *name;
    size_t offset;
} stages[] = {
    {"profile", offsetof(mp_refactor_report, profile_s)}, {"partition", offsetof(mp_refactor_report, partition_s)},
    {"gate", offsetof(mp_refactor_report, gate_s)},       {"calibrate", offsetof(mp_refactor_report, calibrate_s)},
    {"curve", offsetof(mp_refactor_report, curve_s)},     {"write", offsetof(mp_refactor_report, write_s)},
    {"total", offsetof(mp_refactor_report, total_s)},
};

static double stage_seconds(const mp_refactor_report *report, const struct stage *stage)
{
    return *(const double *)((const char *)report + stage->offset);
}

/* "-12.3 %": what is left out when few sub-experts run, after against before. */
static void change_cell(table *t, double before, double after)
{
    if (before > 0)
        table_cell(t, "%+.1f %%", (after / before - 1) * 100);
    else
        table_cell(t, "-");
}

static void print_layers(const mp_refactor_report *report, FILE *out)
{
    static const char *const headings[] = {"layer",   "objective", "change", "held out", "change",
                                           "gate R2", "lambda",    "gains",  "requant",  "solver"};
    table *t = table_new("rrrrrrrrrr", headings);
    char took[32];
    for (size_t i = 0; i < report->n_layers; i++) {
        const mp_refactor_layer *l = &report->layers[i];
        table_cell(t, "%u", l->layer);
        table_cell(t, "%.5g", l->objective_end);
        change_cell(t, l->objective_start, l->objective_end);
        table_cell(t, "%.5g", l->objective_heldout_end);
        change_cell(t, l->objective_heldout_start, l->objective_heldout_end);
        table_cell(t, "%.3f", l->gate_r2);
        table_cell(t, "%.3g", l->lambda);
        table_cell(t, "%.3f..%.3f", l->gain_min, l->gain_max);
        if (l->requant_rmse > 0)
            table_cell(t, "%.2e", l->requant_rmse);
        else
            table_cell(t, "exact");
        table_cell(t, "%s", format_duration(l->solver_s, took, sizeof took));
    }
    fputs("layers (objective: impact of the sub-experts left out; change: against the sets it started from)\n", out);
    table_print(t, out);
    table_free(t);
}

void refactor_report_print(const mp_refactor_report *report, const mp_model *artifact, FILE *out)
{
    char text[32];
    print_layers(report, out);
    fprintf(out, "\ntokens: %" PRIu64 " calibration, %" PRIu64 " validation, %" PRIu64 " evaluation\n",
            report->calibration_tokens, report->validation_tokens, report->eval_tokens);
    fprintf(out, "validation KL, mean over the points: %.5f with gains, %.5f without\n", report->heldout_kl_gain,
            report->heldout_kl_no_gain);
    fputs("time:", out);
    for (size_t i = 0; i < CLI_COUNT(stages); i++)
        fprintf(out, "%s %s %s", i == 0 ? "" : ",", stages[i].name,
                format_duration(stage_seconds(report, &stages[i]), text, sizeof text));
    fprintf(out, "\npeak memory: %s\n\n", format_bytes(report->peak_rss, text, sizeof text));
    const mp_model_info *info = mp_model_get_info(artifact);
    fprintf(out, "%s: %u sub-experts of %u neurons per expert, %u operating points\n", info->path, info->n_parts,
            info->part_width, info->n_points);
    table *t = ladder_table(artifact);
    table_print(t, out);
    table_free(t);
}

static json_t *layer_json(const mp_refactor_layer *l)
{
    return json_pack("{s:I s:o s:o s:o s:o s:o s:o s:o s:o s:o s:o}", "layer", (json_int_t)l->layer, "objective_start",
                     json_number(l->objective_start), "objective_end", json_number(l->objective_end),
                     "objective_heldout_start", json_number(l->objective_heldout_start), "objective_heldout_end",
                     json_number(l->objective_heldout_end), "solver_s", json_number(l->solver_s), "gate_r2",
                     json_number(l->gate_r2), "lambda", json_number(l->lambda), "requant_rmse",
                     json_number(l->requant_rmse), "gain_min", json_number(l->gain_min), "gain_max",
                     json_number(l->gain_max));
}

json_t *refactor_report_json(const mp_refactor_report *report, const mp_model *artifact)
{
    const mp_model_info *info = mp_model_get_info(artifact);
    json_t *root = json_object(), *layers = json_array(), *seconds = json_object();
    for (size_t i = 0; i < report->n_layers; i++) json_array_append_new(layers, layer_json(&report->layers[i]));
    for (size_t i = 0; i < CLI_COUNT(stages); i++)
        json_object_set_new(seconds, stages[i].name, json_number(stage_seconds(report, &stages[i])));
    json_object_set_new(root, "artifact", json_text(info->path));
    json_object_set_new(root, "source_sha256", json_text(info->source_sha256));
    json_object_set_new(root, "n_parts", json_integer(info->n_parts));
    json_object_set_new(root, "part_width", json_integer(info->part_width));
    json_object_set_new(root, "solver", json_text(info->solver));
    json_object_set_new(root, "gate", json_text(info->gate));
    json_object_set_new(root, "gate_rank", json_integer(info->gate_rank));
    json_object_set_new(root, "select", json_text(info->select));
    json_object_set_new(root, "seed", json_integer((json_int_t)info->seed));
    json_object_set_new(root, "calibration_tokens", json_integer((json_int_t)report->calibration_tokens));
    json_object_set_new(root, "validation_tokens", json_integer((json_int_t)report->validation_tokens));
    json_object_set_new(root, "eval_tokens", json_integer((json_int_t)report->eval_tokens));
    json_object_set_new(root, "validation_kl_gain", json_number(report->heldout_kl_gain));
    json_object_set_new(root, "validation_kl_no_gain", json_number(report->heldout_kl_no_gain));
    json_object_set_new(root, "peak_rss", json_integer((json_int_t)report->peak_rss));
    json_object_set_new(root, "seconds", seconds);
    json_object_set_new(root, "layers", layers);
    json_object_set_new(root, "points", ladder_json(artifact));
    return root;
}
