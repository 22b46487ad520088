/* The evaluation as one page: a sentence, a chart, the figures, where they come from. The chart's numbers stand in the
 * page as JSON of their own kind of script element; "<" is escaped there, so that no model's name can end it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/eval_report.h"
#include "cli/html_page.h"
#include "cli/output.h"
#include "cli/utf8.h"
#include "serve/page.h"

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static const char *model_name(const mp_model *model)
{
    const mp_model_info *info = mp_model_get_info(model);
    return info->name != NULL && info->name[0] != '\0' ? info->name : file_name(info->path);
}

/* ---- the chart's data ---------------------------------------------------------------------------------------- */

static json_t *chart_points(const mp_eval_point *points, size_t n, bool whole)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const mp_eval_point *p = &points[i];
        char text[160];
        if (!isfinite(p->ppl) || !isfinite(p->compute_share)) continue;
        if (whole)
            snprintf(text, sizeof text, "%u experts: %.1f %%, perplexity %.3f ± %.3f", p->point, p->compute_share * 100,
                     p->ppl, p->ppl_se);
        else
            snprintf(text, sizeof text, "point %u: %.1f %%, %.2f experts, perplexity %.3f ± %.3f", p->point,
                     p->compute_share * 100, p->experts, p->ppl, p->ppl_se);
        json_array_append_new(list, json_pack("{s:f s:f s:o s:s}", "x", p->compute_share * 100, "y", p->ppl, "se",
                                              json_number(p->ppl_se), "text", text));
    }
    return list;
}

static mp_status put_data(const eval_report *report, FILE *out, mp_error *err)
{
    const bool split = mp_model_get_info(report->model)->n_parts > 1;
    json_t *root =
        json_pack("{s:o s:o s:s s:s}", "ladder", chart_points(report->result.points, report->result.n_points, false),
                  "whole", chart_points(report->whole, report->n_whole, true), "ladder_label",
                  split ? "sub-experts (MoE-Prism)" : "model", "whole_label", "original, fewer whole experts");
    char *text = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (text == NULL) return status_no_memory(err, 0, "a report");
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr("<>&", *p) != NULL)
            fprintf(out, "\\u%04x", (unsigned)*p);
        else
            fputc(*p, out);
    }
    free(text);
    return MP_OK;
}

/* ---- words --------------------------------------------------------------------------------------------------- */

/* The cheapest point within `increase` of the full model's perplexity, NULL where only the full one is. */
static const mp_eval_point *cheapest_within(const mp_eval_result *r, const mp_eval_point *full, double increase)
{
    const mp_eval_point *best = NULL;
    for (size_t i = 0; i < r->n_points; i++) {
        const mp_eval_point *p = &r->points[i];
        if (p == full || !(p->ppl <= full->ppl * (1 + increase))) continue;
        if (best == NULL || p->compute_share < best->compute_share) best = p;
    }
    return best;
}

static void put_lead(const eval_report *report, FILE *out)
{
    const mp_eval_result *r = &report->result;
    if (r->n_points == 0) return;
    const mp_eval_point *first = &r->points[0];
    fprintf(out, "<p class=\"lead\">Perplexity %.2f ± %.2f at %.0f&nbsp;%% of the expert compute.", first->ppl,
            first->ppl_se, first->compute_share * 100);
    const mp_eval_point *best = first->point == 0 ? cheapest_within(r, first, 0.02) : NULL;
    if (best != NULL)
        fprintf(
            out,
            " The cheapest operating point within 2&nbsp;%% of that is point %u: %.1f&nbsp;%% of the expert compute, "
            "perplexity %.2f (%+.1f&nbsp;%%).",
            best->point, best->compute_share * 100, best->ppl, (best->ppl / first->ppl - 1) * 100);
    fputs("</p>\n", out);
}

static void term(const char *name, const char *value, FILE *out)
{
    if (value == NULL || value[0] == '\0') return;
    fprintf(out, "<dt>%s</dt><dd>", name);
    utf8_print_html(value, out);
    fputs("</dd>\n", out);
}

static void put_provenance(const eval_report *report, FILE *out)
{
    const mp_eval_result *r = &report->result;
    const mp_model_info *info = mp_model_get_info(report->model);
    char text[256];
    fputs("<h2>Provenance</h2>\n<dl>\n", out);
    term("Model", info->path, out);
    snprintf(text, sizeof text, "%s, %u layers, %u experts of %u neurons, %u used, %s", info->architecture,
             info->n_layers, info->n_experts, info->expert_width, info->n_experts_used, info->type);
    term("Shape", text, out);
    if (info->n_parts > 1) {
        snprintf(text, sizeof text, "%u sub-experts of %u neurons per expert; solver %s, gate %s, selection %s",
                 info->n_parts, info->part_width, info->solver, info->gate, info->select);
        term("Split", text, out);
    }
    term("Source", info->source_sha256, out);
    term("Calibration text", info->calibration_sha256, out);
    if (report->against != NULL) term("Compared with", mp_model_get_info(report->against)->path, out);
    snprintf(text, sizeof text, "SHA-256 %s", r->text_sha256);
    term("Evaluation text", text, out);
    snprintf(text, sizeof text, "%" PRIu64 " scored, the second half of each of %u chunks of %u", r->tokens,
             r->n_chunks, r->n_ctx);
    term("Tokens", text, out);
    snprintf(text, sizeof text, "%s, %u threads, %s kernels", report->machine.cpu, report->machine.threads,
             report->machine.isa);
    term("Machine", text, out);
    snprintf(text, sizeof text, "moeprism %s", mp_version());
    term("Made by", text, out);
    fputs("</dl>\n", out);
}

/* ---- the page ------------------------------------------------------------------------------------------------ */

static void put_head(const eval_report *report, FILE *out)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<link rel=\"icon\" href=\"data:,\">\n<title>Quality by expert compute: ",
          out);
    utf8_print_html(model_name(report->model), out);
    fprintf(out,
            "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>Quality by expert compute</h1>\n"
            "<p class=\"soft\">",
            html_page_style);
    utf8_print_html(model_name(report->model), out);
    fputs("</p>\n", out);
}

static bool put_table(table *t, const char *caption, FILE *out)
{
    const bool good = !table_failed(t);
    if (good) {
        fputs("<div class=\"wide\" tabindex=\"0\">\n", out);
        table_print_html(t, caption, out);
        fputs("</div>\n", out);
    }
    table_free(t);
    return good;
}

mp_status eval_report_html(const eval_report *report, FILE *out, mp_error *err)
{
    put_head(report, out);
    put_lead(report, out);
    fputs(
        "<figure>\n<div class=\"plot\"><canvas id=\"chart\" role=\"img\" aria-label=\"Perplexity over the share of "
        "expert compute; the table below has the same figures\"></canvas></div>\n<figcaption>Perplexity over the share "
        "of the full expert compute; lower is better, further left is cheaper. Bars: one standard error."
        "<noscript> The chart needs JavaScript; the tables have all of its figures.</noscript></figcaption>\n"
        "</figure>\n",
        out);
    bool good = put_table(eval_report_points(report),
                          "Operating points. Gate: its own cost, as a share of the full expert compute. KL in nats, to "
                          "the full model.",
                          out);
    if (report->n_whole > 0)
        good = put_table(eval_report_whole(report), "The original model with fewer whole experts", out) && good;
    if (!good) return status_no_memory(err, 0, "a report");
    put_provenance(report, out);
    fputs("</main>\n<script type=\"application/json\" id=\"data\">", out);
    MP_TRY(put_data(report, out, err));
    fputs("</script>\n<script>\n", out);
    const page_file *chart = page_find("/chart.js");
    fwrite(chart->data, 1, chart->len, out);
    fprintf(out, "\n</script>\n<script>\n%s</script>\n</body>\n</html>\n", html_page_script);
    return MP_OK;
}
