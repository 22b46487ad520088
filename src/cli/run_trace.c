#include "cli/run_trace.h"

#include "base/status.h"
#include "store/record.h"

static void write_layer(void *user, const mp_layer_run *run)
{
    run_trace *t = user;
    const record_step step = {.step = run->step,
                              .layer = run->layer,
                              .tokens = run->n_tokens,
                              .experts = run->experts,
                              .subs = run->subs,
                              .n_experts = run->n_experts,
                              .n_subs = run->n_subs};
    if (t->status == MP_OK) t->status = record_write(t->text.stream, &step);
}

mp_status run_trace_begin(run_trace *t, const char *path, mp_engine *engine, const mp_model *model, mp_error *err)
{
    *t = (run_trace){.path = path, .engine = engine};
    if (path == NULL) return MP_OK;
    const mp_model_info *info = mp_model_get_info(model);
    const uint64_t subs = (uint64_t)info->n_moe_layers * info->n_experts * info->n_parts;
    const record_shape shape = {info->n_moe_layers, info->n_experts, info->n_parts, info->bytes_experts / subs};
    MP_TRY(output_begin(&t->text, err));
    t->status = record_write_header(t->text.stream, &shape);
    mp_engine_watch_layers(engine, write_layer, t);
    return MP_OK;
}

mp_status run_trace_end(run_trace *t, mp_status traced, mp_error *err)
{
    mp_engine_watch_layers(t->engine, NULL, NULL);
    if (traced == MP_OK && t->status != MP_OK) traced = status_fail(err, t->status, "%s: cannot be written", t->path);
    if (traced != MP_OK && traced != MP_E_INTERRUPTED) {
        output_drop(&t->text);
        return traced;
    }
    mp_error why;
    const mp_status status = output_finish(&t->text, t->path, &why);
    if (traced != MP_OK || status == MP_OK) return traced;
    *err = why;
    return status;
}
