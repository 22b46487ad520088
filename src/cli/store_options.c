#include "cli/store_options.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "cli/memory_choice.h"
#include "cli/numbers.h"
#include "cli/plan_report.h"
#include "cli/progress.h"

static mp_status read_memory(const char *text, const mp_model *model, uint64_t *bytes, mp_error *err)
{
    const uint64_t experts = mp_model_get_info(model)->bytes_experts;
    double share;
    if (text[strlen(text) - 1] == '%') {
        if (!number_share(text, &share) || share <= 0 || share > 1)
            return status_fail(err, MP_E_INVALID, "--memory takes a size or 1%% to 100%% of the experts, not '%s'",
                               text);
        *bytes = (uint64_t)((double)experts * share);
        return MP_OK;
    }
    if (!number_bytes(text, bytes) || *bytes == 0)
        return status_fail(err, MP_E_INVALID, "--memory takes a size, as 4G or 512M, or a share, as 25%%, not '%s'",
                           text);
    return MP_OK;
}

/* A cap where not everything fits, else 0. */
static mp_status choose_memory(const mp_model *model, const mp_engine_params *engine, uint64_t *bytes, mp_error *err)
{
    mp_plan plan;
    char all[32], freely[32], held[32];
    const uint64_t available = memory_available(""), experts = mp_model_get_info(model)->bytes_experts;
    MP_TRY(mp_engine_plan(model, engine, &plan, err));
    *bytes = memory_choose_cap(&plan, experts, available);
    if (*bytes > 0)
        fprintf(stderr,
                "moeprism: the experts take %s, %s of memory are free: %s of them are held, the rest is read from disk "
                "when wanted (--memory)\n",
                format_bytes(experts, all, sizeof all), format_bytes(available, freely, sizeof freely),
                format_bytes(*bytes, held, sizeof held));
    return MP_OK;
}

/* What was asked for, and a warning where it is more than there is: the system would swap, or end the process. */
static mp_status take_memory(const char *text, const mp_model *model, mp_engine_params *engine, mp_error *err)
{
    mp_plan plan;
    char shortage[256];
    MP_TRY(read_memory(text, model, &engine->store.memory, err));
    MP_TRY(mp_engine_plan(model, engine, &plan, err));
    if (memory_tell_shortage(&plan, memory_available(""), shortage, sizeof shortage))
        fprintf(stderr, "moeprism: %s\n", shortage);
    return MP_OK;
}

mp_status store_options_apply(const store_options *o, const mp_model *model, mp_engine_params *engine, mp_error *err)
{
    engine->store = (mp_store_params){
        .eviction = o->eviction,
        .backend = o->backend,
        .depth = o->depth,
        .no_read_ahead = o->no_read_ahead,
        .pin_share = o->pin_share,
        .prefer_resident = (float)o->prefer_resident,
        .deadline_ns = (uint64_t)ceil(o->deadline_ms * 1e6),
    };
    engine->progress = progress_load;
    if (o->memory != NULL) return take_memory(o->memory, model, engine, err);
    return choose_memory(model, engine, &engine->store.memory, err);
}

bool store_is_capped(const mp_model *model, const mp_store_params *store)
{
    return store->memory > 0 && store->memory < mp_model_get_info(model)->bytes_experts;
}

mp_status store_options_print_plan(const mp_model *model, const mp_engine_params *engine, mp_error *err)
{
    mp_plan plan;
    MP_TRY(mp_engine_plan(model, engine, &plan, err));
    plan_print(mp_model_get_info(model), &plan, engine->n_ctx, stdout);
    return cli_flush(err);
}

void store_notice_print(const mp_engine *engine)
{
    mp_store_stats s;
    mp_engine_store_stats(engine, &s);
    if (s.notice[0] != '\0') fprintf(stderr, "moeprism: %s\n", s.notice);
}

void store_stats_print(const mp_engine *engine, uint64_t tokens, FILE *out)
{
    mp_store_stats s;
    char held[32], read[32];
    if (!mp_engine_store_stats(engine, &s)) return;
    const uint64_t wanted = s.hits + s.misses;
    fprintf(out, "memory: %s of experts held, %.1f %% of what was wanted was there, read %s a token, waited %.1f s",
            format_bytes(s.memory, held, sizeof held), wanted ? 100.0 * (double)s.hits / (double)wanted : 0.0,
            format_bytes(tokens ? s.bytes_read / tokens : 0, read, sizeof read), (double)s.stall_ns * 1e-9);
    fprintf(out, ", %" PRIu64 " evicted, %.1f reads at a time (%s, %s)", s.evictions, s.depth_mean, s.backend,
            s.eviction);
    if (s.ahead)
        fprintf(out, ", %.1f %% of %" PRIu64 " read ahead were wanted", 100.0 * (double)s.ahead_used / (double)s.ahead,
                s.ahead);
    if (s.swaps) fprintf(out, ", %" PRIu64 " replaced by resident ones", s.swaps);
    if (s.dropped) fprintf(out, ", %" PRIu64 " dropped", s.dropped);
    fputc('\n', out);
}
