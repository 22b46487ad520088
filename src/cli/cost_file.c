#include "cli/cost_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/status.h"
#include "cli/cost_steps.h"
#include "cli/output.h"

enum { VERSION = 2 };

/* Index = feature. */
static const char *const feature_names[COST_FEATURES] = {"step",    "tokens", "experts", "touched",
                                                         "context", "logits", "cache"};

char *cost_file_path(const char *model_path)
{
    static const char from[] = ".gguf", to[] = ".cost.json";
    size_t len = strlen(model_path);
    if (len > sizeof from - 1 && strcmp(model_path + len - (sizeof from - 1), from) == 0) len -= sizeof from - 1;
    char *path = malloc(len + sizeof to);
    if (path == NULL) return NULL;
    memcpy(path, model_path, len);
    memcpy(path + len, to, sizeof to);
    return path;
}

/* ---- the ladder ---- */

static mp_status take_ladder(cost_file *f, const mp_model *model, mp_error *err)
{
    const mp_model_info *info = mp_model_get_info(model);
    if (info->n_points > COST_FILE_POINTS_MAX)
        return status_fail(err, MP_E_LIMIT, "%s: a ladder of more than %d points", info->path, COST_FILE_POINTS_MAX);
    for (f->n_points = 0; f->n_points < info->n_points; f->n_points++)
        f->points[f->n_points] = sched_point_of(mp_model_point(model, 0), mp_model_point(model, f->n_points),
                                                f->n_points > 0 ? &f->points[f->n_points - 1] : NULL);
    return MP_OK;
}

/* ---- what is measured ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

mp_status cost_file_begin(cost_file *f, const mp_model *model, const cli_common *common, const mp_engine_params *engine,
                          mp_error *err)
{
    const mp_model_info *info = mp_model_get_info(model);
    const time_t now = time(NULL);
    struct tm parts;
    mp_plan plan;
    MP_TRY(mp_engine_plan(model, engine, &plan, err));
    *f = (cost_file){.model_bytes = info->bytes_total,
                     .in_memory = !plan.weights_mapped,
                     .memory = engine->store.memory,
                     .kv_type = engine->kv_type == MP_KV_DEFAULT ? MP_KV_F16 : engine->kv_type,
                     .slots = engine->n_seqs,
                     .step_tokens = engine->n_batch,
                     .context = engine->n_ctx};
    snprintf(f->model_file, sizeof f->model_file, "%s", base_name(info->path));
    snprintf(f->model_name, sizeof f->model_name, "%s", info->name != NULL ? info->name : "");
    if (gmtime_r(&now, &parts) == NULL || strftime(f->date, sizeof f->date, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        f->date[0] = '\0';
    f->cost = (cost_model){.shape = cost_shape_of(model), .correction = 1};
    MP_TRY(take_ladder(f, model, err));
    return machine_describe(&f->machine, common, err);
}

const char *cost_file_mismatch(const cost_file *have, const cost_file *want)
{
    if (have->model_bytes != want->model_bytes || have->n_points != want->n_points) return "it is of another model";
    for (uint32_t p = 0; p < have->n_points; p++)
        if (fabs(have->points[p].share - want->points[p].share) > 1e-6) return "it is of another model";
    if (strcmp(have->machine.cpu, want->machine.cpu) != 0) return "it is of another processor";
    if (strcmp(have->machine.isa, want->machine.isa) != 0) return "it was measured with other kernels";
    if (have->machine.threads != want->machine.threads) return "it was measured with another number of threads";
    if (have->in_memory != want->in_memory)
        return "it was measured with the model mapped differently (--mmap, --no-mmap)";
    if (have->memory != want->memory) return "it was measured with another cap on the experts (--memory)";
    if (have->kv_type != want->kv_type) return "it was measured with another type of KV cache";
    if (have->slots < want->slots) return "it was measured with fewer slots";
    return NULL;
}

/* ---- JSON ---- */

static json_t *ladder_to_json(const cost_file *f)
{
    json_t *list = json_array();
    for (uint32_t p = 0; p < f->n_points; p++)
        json_array_append_new(list, json_pack("{s:o s:o}", "share", json_number(f->points[p].share), "loss",
                                              json_number(f->points[p].loss)));
    return list;
}

static json_t *cost_to_json(const cost_model *m)
{
    json_t *ns = json_object();
    for (size_t i = 0; i < COST_FEATURES; i++) json_object_set_new(ns, feature_names[i], json_number(m->ns[i]));
    return json_pack("{s:o s:o s:o}", "experts_used", json_number(m->shape.used), "ns", ns, "error_median",
                     json_number(m->error_median));
}

mp_status cost_file_write(const cost_file *f, json_t *samples, const char *path, mp_error *err)
{
    json_t *root =
        json_pack("{s:i s:{s:o s:I s:o} s:o s:{s:s s:b s:b s:I s:s s:I s:I s:I} s:o s:o}", "moeprism_cost", VERSION,
                  "model", "file", json_text(f->model_file), "bytes", (json_int_t)f->model_bytes, "name",
                  json_text(f->model_name), "machine", machine_json(&f->machine), "measured", "date", f->date, "quick",
                  (int)f->quick, "in_memory", (int)f->in_memory, "memory", (json_int_t)f->memory, "kv_type",
                  cli_kv_types[f->kv_type], "slots", (json_int_t)f->slots, "step_tokens", (json_int_t)f->step_tokens,
                  "context", (json_int_t)f->context, "cost", cost_to_json(&f->cost), "ladder", ladder_to_json(f));
    if (root != NULL && samples != NULL)
        json_object_set_new(root, "samples", samples);
    else
        json_decref(samples);
    return output_json(root, path, err);
}

static mp_status malformed(const char *path, const char *what, mp_error *err)
{
    return status_fail(err, MP_E_FORMAT, "%s: %s; measure again with 'moeprism bench --cost'", path, what);
}

static bool in_range(double value, double min, double max)
{
    return value >= min && value <= max; /* false for NaN */
}

static mp_status read_cost(json_t *object, const char *path, cost_model *m, mp_error *err)
{
    json_t *ns;
    json_error_t where;
    m->correction = 1;
    if (json_unpack_ex(object, &where, 0, "{s:F s:o s:F}", "experts_used", &m->shape.used, "ns", &ns, "error_median",
                       &m->error_median) != 0)
        return malformed(path, where.text, err);
    if (!in_range(m->shape.used, 0, 1) || !in_range(m->error_median, 0, 1e9))
        return malformed(path, "the cost model's shape is out of range", err);
    for (size_t i = 0; i < COST_FEATURES; i++) {
        const json_t *value = json_object_get(ns, feature_names[i]);
        m->ns[i] = json_number_value(value);
        if (!json_is_number(value) || !in_range(m->ns[i], 0, 1e18))
            return malformed(path, "a coefficient of the cost model is missing or negative", err);
    }
    return MP_OK;
}

static mp_status read_ladder(const json_t *list, const char *path, cost_file *f, mp_error *err)
{
    size_t i;
    json_t *item;
    if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > COST_FILE_POINTS_MAX)
        return malformed(path, "the ladder is no list of points", err);
    json_array_foreach(list, i, item)
    {
        sched_point *p = &f->points[i];
        if (json_unpack(item, "{s:F s:F}", "share", &p->share, "loss", &p->loss) != 0 || !in_range(p->share, 0, 1) ||
            !in_range(p->loss, 0, 1e9) || (i > 0 && (p->share > p[-1].share || p->loss < p[-1].loss)))
            return malformed(path, "the ladder is not one: shares must fall and losses rise", err);
    }
    f->n_points = (uint32_t)json_array_size(list);
    return MP_OK;
}

/* A number that fits into 32 bits. */
static bool read_u32(const json_t *object, const char *key, uint32_t *out)
{
    const json_t *value = json_object_get(object, key);
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > UINT32_MAX) return false;
    *out = (uint32_t)number;
    return true;
}

static void copy_text(char *to, size_t cap, const char *from)
{
    snprintf(to, cap, "%s", from);
}

static mp_status read_measured(json_t *made_on, json_t *measured, const char *path, cost_file *f, mp_error *err)
{
    const char *cpu, *isa, *date, *kv;
    int quick, in_memory;
    json_int_t memory;
    json_error_t where;
    if (json_unpack_ex(made_on, &where, 0, "{s:s s:s}", "cpu", &cpu, "isa", &isa) != 0 ||
        json_unpack_ex(measured, &where, 0, "{s:s s:b s:b s:I s:s}", "date", &date, "quick", &quick, "in_memory",
                       &in_memory, "memory", &memory, "kv_type", &kv) != 0 ||
        memory < 0)
        return malformed(path, where.text, err);
    if (!read_u32(made_on, "threads", &f->machine.threads) || !read_u32(measured, "slots", &f->slots) ||
        !read_u32(measured, "step_tokens", &f->step_tokens) || !read_u32(measured, "context", &f->context))
        return malformed(path, "threads, slots, step_tokens and context must be whole numbers above 0", err);
    copy_text(f->machine.cpu, sizeof f->machine.cpu, cpu);
    copy_text(f->machine.isa, sizeof f->machine.isa, isa);
    copy_text(f->date, sizeof f->date, date);
    f->quick = quick;
    f->in_memory = in_memory;
    f->memory = (uint64_t)memory;
    f->kv_type = MP_KV_DEFAULT;
    for (int i = 1; cli_kv_types[i] != NULL; i++)
        if (strcmp(cli_kv_types[i], kv) == 0) f->kv_type = (mp_kv_type)i;
    return f->kv_type != MP_KV_DEFAULT ? MP_OK : malformed(path, "an unknown kv_type", err);
}

static mp_status read_root(json_t *root, const char *path, cost_file *f, mp_error *err)
{
    int version;
    const char *file, *name;
    json_int_t bytes;
    json_t *made_on, *measured, *cost, *ladder;
    json_error_t where;
    if (json_unpack(root, "{s:i}", "moeprism_cost", &version) != 0) return malformed(path, "is not a cost file", err);
    if (version != VERSION) return malformed(path, "is of another version of moeprism", err);
    if (json_unpack_ex(root, &where, 0, "{s:{s:s s:I s:s} s:o s:o s:o s:o}", "model", "file", &file, "bytes", &bytes,
                       "name", &name, "machine", &made_on, "measured", &measured, "cost", &cost, "ladder",
                       &ladder) != 0)
        return malformed(path, where.text, err);
    copy_text(f->model_file, sizeof f->model_file, file);
    copy_text(f->model_name, sizeof f->model_name, name);
    f->model_bytes = bytes > 0 ? (uint64_t)bytes : 0;
    MP_TRY(read_measured(made_on, measured, path, f, err));
    MP_TRY(read_cost(cost, path, &f->cost, err));
    return read_ladder(ladder, path, f, err);
}

mp_status cost_file_read(const char *path, cost_file *out, mp_error *err)
{
    char *text, what[MP_ERROR_MAX];
    size_t len;
    json_error_t where;
    *out = (cost_file){0};
    MP_TRY(file_read(path, &text, &len, err));
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (root == NULL) {
        snprintf(what, sizeof what, "line %d: %s", where.line, where.text);
        return malformed(path, what, err);
    }
    const mp_status status = read_root(root, path, out, err);
    json_decref(root);
    return status;
}
