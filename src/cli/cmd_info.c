/* info: what a model file is. */
#include <inttypes.h>

#include "cli/cli.h"
#include "cli/ladder_table.h"
#include "cli/output.h"
#include "cli/plan_report.h"
#include "cli/progress.h"

typedef struct info_options {
    cli_common common;
    uint32_t n_ctx;
    bool json;
} info_options;

static void fact(const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0') printf("%-20s %s\n", name, value);
}

static void bytes(const char *name, uint64_t value)
{
    char text[32];
    printf("%-20s %s\n", name, format_bytes(value, text, sizeof text));
}

static void print_shape(const mp_model_info *info)
{
    fact("model", info->path);
    fact("architecture", info->architecture);
    fact("name", info->name);
    printf("%-20s %.3f billion\n", "parameters", (double)info->n_params * 1e-9);
    bytes("file", info->bytes_total);
    printf("%-20s %u, of which %u with experts\n", "layers", info->n_layers, info->n_moe_layers);
    printf("%-20s %u; %u heads of %u, %u of them for keys and values\n", "width", info->n_embd, info->n_heads,
           info->head_dim, info->n_kv_heads);
    printf("%-20s %u tokens; trained for a context of %u\n", "vocabulary", info->n_vocab, info->n_ctx_train);
    printf("%-20s %u per layer, %u used, %u neurons each, %s\n", "experts", info->n_experts, info->n_experts_used,
           info->expert_width, info->type);
    if (info->n_parts > 1)
        printf("%-20s %u sub-experts of %u neurons per expert, %u per token at full\n", "split", info->n_parts,
               info->part_width, info->n_parts * info->n_experts_used);
    else
        fact("split", "no: whole experts (see 'moeprism refactor')");
}

static void print_provenance(const mp_model_info *info)
{
    if (info->solver == NULL) return;
    puts("");
    printf("%-20s version %u, seed %" PRIu64 "\n", "artifact", info->artifact_version, info->seed);
    fact("solver", info->solver);
    printf("%-20s %s", "gate", info->gate != NULL ? info->gate : "?");
    if (info->gate_rank != 0) printf(", rank %u", info->gate_rank);
    puts("");
    fact("selection", info->select);
    fact("source SHA-256", info->source_sha256);
    if (info->calibration_sha256 != NULL)
        printf("%-20s %" PRIu64 " tokens, text SHA-256 %s\n", "calibration", info->calibration_tokens,
               info->calibration_sha256);
    if (info->eval_sha256 != NULL)
        printf("%-20s %" PRIu64 " tokens in context %u, text SHA-256 %s\n", "curve", info->eval_tokens,
               info->eval_context, info->eval_sha256);
}

static json_t *provenance_json(const mp_model_info *info)
{
    if (info->solver == NULL) return json_null();
    return json_pack("{s:I s:o s:o s:I s:o s:I s:o s:o s:I s:o s:I s:I}", "version", (json_int_t)info->artifact_version,
                     "solver", json_text(info->solver), "gate", json_text(info->gate), "gate_rank",
                     (json_int_t)info->gate_rank, "select", json_text(info->select), "seed", (json_int_t)info->seed,
                     "source_sha256", json_text(info->source_sha256), "calibration_sha256",
                     json_text(info->calibration_sha256), "calibration_tokens", (json_int_t)info->calibration_tokens,
                     "eval_sha256", json_text(info->eval_sha256), "eval_tokens", (json_int_t)info->eval_tokens,
                     "eval_context", (json_int_t)info->eval_context);
}

static void set_integer(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *info_json(const mp_model *model, const mp_plan *plan, uint32_t n_ctx)
{
    const mp_model_info *info = mp_model_get_info(model);
    json_t *root = json_object();
    json_object_set_new(root, "path", json_text(info->path));
    json_object_set_new(root, "architecture", json_text(info->architecture));
    json_object_set_new(root, "name", json_text(info->name));
    json_object_set_new(root, "type", json_text(info->type));
    set_integer(root, "n_params", info->n_params);
    set_integer(root, "bytes_total", info->bytes_total);
    set_integer(root, "bytes_experts", info->bytes_experts);
    set_integer(root, "n_layers", info->n_layers);
    set_integer(root, "n_moe_layers", info->n_moe_layers);
    set_integer(root, "n_embd", info->n_embd);
    set_integer(root, "n_vocab", info->n_vocab);
    set_integer(root, "n_ctx_train", info->n_ctx_train);
    set_integer(root, "n_heads", info->n_heads);
    set_integer(root, "n_kv_heads", info->n_kv_heads);
    set_integer(root, "head_dim", info->head_dim);
    set_integer(root, "n_experts", info->n_experts);
    set_integer(root, "n_experts_used", info->n_experts_used);
    set_integer(root, "expert_width", info->expert_width);
    set_integer(root, "n_parts", info->n_parts);
    set_integer(root, "part_width", info->part_width);
    json_object_set_new(root, "artifact", provenance_json(info));
    json_object_set_new(root, "points", ladder_json(model));
    json_object_set_new(root, "memory", plan_json(plan, n_ctx));
    return root;
}

static void print_info(const mp_model *model, const mp_plan *plan, uint32_t n_ctx)
{
    const mp_model_info *info = mp_model_get_info(model);
    print_shape(info);
    print_provenance(info);
    puts("");
    plan_print(info, plan, n_ctx, stdout);
    puts(info->n_parts > 1 ? "\nladder (0 is the full model):" : "\nladder (fewer whole experts, unmeasured):");
    table *t = ladder_table(model);
    table_print(t, stdout);
    table_free(t);
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const info_options *o = options;
    mp_error err;
    mp_model *model;
    mp_plan plan;
    if (mp_model_open(o->common.args[0], NULL, &model, &err) != MP_OK) return cli_fail(&err);
    const mp_engine_params params = {
        .threads = o->common.threads, .isa = o->common.isa, .n_ctx = cli_context(model, o->n_ctx), .n_logits = 1};
    mp_status status = mp_engine_plan(model, &params, &plan, &err);
    if (status == MP_OK && o->json)
        status = output_json(info_json(model, &plan, params.n_ctx), NULL, &err);
    else if (status == MP_OK)
        print_info(model, &plan, params.n_ctx);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

static const option_spec specs[] = {
    {.name = "ctx-size",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = offsetof(info_options, n_ctx),
     .argument = "N",
     .min = 1,
     .max = 1 << 24,
     .help = "context for the estimate of memory (default: the model's, at most 4096)"},
    {.name = "json", .kind = OPTION_FLAG, .offset = offsetof(info_options, json), .help = "print JSON"},
    CLI_OPTION_THREADS,
    CLI_OPTION_ISA,
};

static const info_options defaults;

const cli_command cmd_info = {
    .name = "info",
    .arguments = "MODEL [options]",
    .summary = "what a model is: shape, experts, operating points, memory",
    .details = "Prints the shape of a model, how its experts are split, where an artifact comes from, its ladder of "
               "operating points and the memory it takes to run.",
    .example = "info model-prism.gguf",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
