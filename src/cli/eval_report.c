#include "cli/eval_report.h"

#include <inttypes.h>
#include <stdlib.h>

#include "cli/output.h"
#include "cli/progress.h"
#include "cli/store_options.h"

void eval_report_clear(eval_report *report)
{
    mp_eval_result_clear(&report->result);
    free(report->whole);
    report->whole = NULL;
    report->n_whole = 0;
}

/* What all tables show of a measured point, from the perplexity on. */
static void quality_cells(table *t, const mp_eval_point *p)
{
    table_cell(t, "%.3f", p->ppl);
    table_cell(t, "%.3f", p->ppl_se);
    table_cell(t, "%.4f", p->kl_mean);
    table_cell(t, "%.4f", p->kl_p99);
    table_cell(t, "%.1f %%", p->same_top * 100);
    table_cell(t, "%.0f", p->tokens_per_s);
}

table *eval_report_points(const eval_report *report)
{
    static const char *const headings[] = {"point", "share",   "gate",   "experts",  "ppl",
                                           "+/-",   "KL mean", "KL p99", "same top", "tokens/s"};
    table *t = table_new("rrrrrrrrrr", headings);
    for (size_t i = 0; i < report->result.n_points; i++) {
        const mp_eval_point *p = &report->result.points[i];
        table_cell(t, "%u", p->point);
        table_cell(t, "%.1f %%", p->compute_share * 100);
        table_cell(t, "%.2f %%", p->gate_share * 100);
        table_cell(t, "%.2f", p->experts);
        quality_cells(t, p);
    }
    return t;
}

/* What the points asked of a store. */
static table *store_table(const eval_report *report)
{
    static const char *const headings[] = {"point", "in memory", "read/token", "replaced", "dropped"};
    table *t = table_new("rrrrr", headings);
    for (size_t i = 0; i < report->result.n_points; i++) {
        const mp_eval_point *p = &report->result.points[i];
        char size[32];
        table_cell(t, "%u", p->point);
        table_cell(t, "%.1f %%", p->hit_rate * 100);
        table_cell(t, "%s", format_bytes((uint64_t)p->bytes_read, size, sizeof size));
        table_cell(t, "%.2f %%", p->swap_share * 100);
        table_cell(t, "%.2f %%", p->drop_share * 100);
    }
    return t;
}

table *eval_report_whole(const eval_report *report)
{
    static const char *const headings[] = {"experts", "share",  "ppl",      "+/-",
                                           "KL mean", "KL p99", "same top", "tokens/s"};
    table *t = table_new("rrrrrrrr", headings);
    for (size_t i = 0; i < report->n_whole; i++) {
        table_cell(t, "%u", report->whole[i].point);
        table_cell(t, "%.1f %%", report->whole[i].compute_share * 100);
        quality_cells(t, &report->whole[i]);
    }
    return t;
}

/* With the options that change results. */
static void print_store(const eval_report *report, FILE *out)
{
    const mp_store_params *p = &report->store;
    char held[32];
    fprintf(out, "\nexperts from disk, over the scored tokens: %s held", format_bytes(p->memory, held, sizeof held));
    if (p->prefer_resident > 0) fprintf(out, ", resident ones preferred within %g", (double)p->prefer_resident);
    if (p->deadline_ns > 0)
        fprintf(out, ", %.10g ms a token, down to point %u", (double)p->deadline_ns * 1e-6,
                mp_model_get_info(report->model)->n_points - 1);
    fputc('\n', out);
    table *t = store_table(report);
    table_print(t, out);
    table_free(t);
}

void eval_report_print(const eval_report *report, FILE *out)
{
    const mp_eval_result *r = &report->result;
    fprintf(out, "%s\n%" PRIu64 " tokens scored in %u chunks of %u, text SHA-256 %s\n",
            mp_model_get_info(report->model)->path, r->tokens, r->n_chunks, r->n_ctx, r->text_sha256);
    if (report->against != NULL)
        fprintf(out, "KL to %s, perplexity %.3f +/- %.3f\n", mp_model_get_info(report->against)->path, r->against_ppl,
                r->against_ppl_se);
    fputc('\n', out);
    table *t = eval_report_points(report);
    table_print(t, out);
    table_free(t);
    if (store_is_capped(report->model, &report->store)) print_store(report, out);
    if (report->n_whole == 0) return;
    fprintf(out, "\n%s with fewer whole experts\n", mp_model_get_info(report->against)->path);
    t = eval_report_whole(report);
    table_print(t, out);
    table_free(t);
}

static json_t *points_json(const mp_eval_point *points, size_t n, const char *number)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const mp_eval_point *p = &points[i];
        json_array_append_new(
            list, json_pack("{s:I s:o s:o s:o s:o s:o s:o s:o s:o s:o s:o s:o s:o s:o s:I}", number,
                            (json_int_t)p->point, "compute_share", json_number(p->compute_share), "gate_share",
                            json_number(p->gate_share), "experts", json_number(p->experts), "ppl", json_number(p->ppl),
                            "ppl_se", json_number(p->ppl_se), "kl_mean", json_number(p->kl_mean), "kl_p99",
                            json_number(p->kl_p99), "same_top", json_number(p->same_top), "tokens_per_s",
                            json_number(p->tokens_per_s), "hit_rate", json_number(p->hit_rate), "bytes_read",
                            json_number(p->bytes_read), "swap_share", json_number(p->swap_share), "drop_share",
                            json_number(p->drop_share), "dropped", (json_int_t)p->dropped));
    }
    return list;
}

static json_t *store_json(const mp_store_params *p)
{
    return json_pack("{s:I s:o s:o}", "memory", (json_int_t)p->memory, "prefer_resident",
                     json_number((double)p->prefer_resident), "token_deadline_ms",
                     json_number((double)p->deadline_ns * 1e-6));
}

json_t *eval_report_json(const eval_report *report)
{
    const mp_eval_result *r = &report->result;
    const mp_model_info *info = mp_model_get_info(report->model);
    json_t *root = json_object();
    json_object_set_new(root, "model", json_text(info->path));
    json_object_set_new(root, "architecture", json_text(info->architecture));
    json_object_set_new(root, "n_parts", json_integer(info->n_parts));
    json_object_set_new(root, "text_sha256", json_text(r->text_sha256));
    json_object_set_new(root, "tokens", json_integer((json_int_t)r->tokens));
    json_object_set_new(root, "context", json_integer(r->n_ctx));
    json_object_set_new(root, "chunks", json_integer(r->n_chunks));
    json_object_set_new(root, "machine", machine_json(&report->machine));
    if (store_is_capped(report->model, &report->store)) json_object_set_new(root, "store", store_json(&report->store));
    json_object_set_new(root, "points", points_json(r->points, r->n_points, "point"));
    if (report->against == NULL) return root;
    json_t *against = json_object();
    json_object_set_new(against, "model", json_text(mp_model_get_info(report->against)->path));
    json_object_set_new(against, "ppl", json_number(r->against_ppl));
    json_object_set_new(against, "ppl_se", json_number(r->against_ppl_se));
    json_object_set_new(against, "points", points_json(report->whole, report->n_whole, "experts_used"));
    json_object_set_new(root, "against", against);
    return root;
}
