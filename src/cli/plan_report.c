#include "cli/plan_report.h"

#include "cli/progress.h"

uint64_t plan_total(const mp_plan *plan)
{
    return plan->weights_experts + plan->weights_other + plan->kv_cache + plan->scratch + plan->logits;
}

static void line(FILE *out, const char *name, uint64_t bytes, const char *what)
{
    char text[32];
    fprintf(out, "%-20s %s%s\n", name, format_bytes(bytes, text, sizeof text), what);
}

void plan_print(const mp_model_info *info, const mp_plan *plan, uint32_t n_ctx, FILE *out)
{
    char text[32], what[96] = "";
    const bool capped = plan->weights_experts < info->bytes_experts;
    if (capped)
        snprintf(what, sizeof what, " of %s, the rest read from disk when wanted",
                 format_bytes(info->bytes_experts, text, sizeof text));
    line(out, "expert weights", plan->weights_experts, what);
    line(out, "other weights", plan->weights_other, "");
    line(out, "KV cache", plan->kv_cache, "");
    line(out, "scratch", plan->scratch, "");
    line(out, "logits", plan->logits, "");
    snprintf(what, sizeof what, " with a context of %u tokens; %s", n_ctx,
             plan->weights_mapped ? "the weights are mapped, not allocated" : "all of it is allocated");
    line(out, "memory", plan_total(plan), what);
    if (plan->experts_least < info->bytes_experts)
        line(out, "least", plan_total(plan) - plan->weights_experts + plan->experts_least,
             ", with --memory at its smallest");
}

static void set_integer(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

json_t *plan_json(const mp_plan *plan, uint32_t n_ctx)
{
    json_t *object = json_object();
    set_integer(object, "context", n_ctx);
    set_integer(object, "weights_experts", plan->weights_experts);
    set_integer(object, "weights_other", plan->weights_other);
    set_integer(object, "kv_cache", plan->kv_cache);
    set_integer(object, "scratch", plan->scratch);
    set_integer(object, "logits", plan->logits);
    set_integer(object, "experts_least", plan->experts_least);
    json_object_set_new(object, "weights_mapped", json_boolean(plan->weights_mapped));
    return object;
}
