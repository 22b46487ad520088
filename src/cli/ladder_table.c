#include "cli/ladder_table.h"

#include "cli/output.h"

/* Quality is shown only where a point has it: not in whole models, nor in artifacts made without --eval. */
static bool any_measured(const mp_model *model)
{
    const mp_point *point;
    for (uint32_t p = 0; (point = mp_model_point(model, p)) != NULL; p++)
        if (point->measured) return true;
    return false;
}

table *ladder_table(const mp_model *model)
{
    static const char *const headings[] = {"point", "budget", "share",   "gate",   "experts",
                                           "ppl",   "+/-",    "KL mean", "KL p99", "same top"};
    const bool quality = any_measured(model);
    table *t = table_new(quality ? "rrrrrrrrrr" : "rrrrr", headings);
    const mp_point *point;
    for (uint32_t p = 0; (point = mp_model_point(model, p)) != NULL; p++) {
        table_cell(t, "%u", p);
        table_cell(t, "%.1f", point->budget);
        table_cell(t, "%.1f %%", point->compute_share * 100);
        table_cell(t, "%.2f %%", point->gate_share * 100);
        table_cell(t, "%.2f", point->experts);
        if (point->measured) {
            table_cell(t, "%.3f", point->ppl);
            table_cell(t, "%.3f", point->ppl_se);
            table_cell(t, "%.4f", point->kl_mean);
            table_cell(t, "%.4f", point->kl_p99);
            table_cell(t, "%.1f %%", point->same_top * 100);
        } else if (quality) {
            for (int i = 0; i < 5; i++) table_cell(t, "-");
        }
    }
    return t;
}

json_t *ladder_json(const mp_model *model)
{
    json_t *points = json_array();
    const mp_point *point;
    for (uint32_t p = 0; (point = mp_model_point(model, p)) != NULL; p++) {
        json_t *row = json_object();
        json_object_set_new(row, "point", json_integer(p));
        json_object_set_new(row, "budget", json_number(point->budget));
        json_object_set_new(row, "compute_share", json_number(point->compute_share));
        json_object_set_new(row, "gate_share", json_number(point->gate_share));
        json_object_set_new(row, "experts", json_number(point->experts));
        if (point->measured) {
            json_object_set_new(row, "ppl", json_number(point->ppl));
            json_object_set_new(row, "ppl_se", json_number(point->ppl_se));
            json_object_set_new(row, "kl_mean", json_number(point->kl_mean));
            json_object_set_new(row, "kl_p99", json_number(point->kl_p99));
            json_object_set_new(row, "same_top", json_number(point->same_top));
        }
        json_array_append_new(points, row);
    }
    return points;
}
