/* logits: raw logits of given tokens, to compare engines. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#if __BYTE_ORDER != __LITTLE_ENDIAN
#error "rows are written as they stand in memory: little endian"
#endif

typedef struct logits_options {
    cli_common common;
    const char *tokens, *out;
    uint32_t point, batch, override_experts;
    int kv_type;
} logits_options;

/* Rows go to `file`, or to standard output where it is NULL. */
static mp_status put_row(file_atomic *file, const float *row, size_t n, mp_error *err)
{
    if (file != NULL) return file_atomic_write(file, row, n * sizeof *row, err);
    fwrite(row, sizeof *row, n, stdout);
    return ferror(stdout) ? cli_flush(err) : MP_OK;
}

static mp_status run_tokens(mp_engine *engine, const logits_options *o, const int32_t *ids, size_t n, size_t n_vocab,
                            file_atomic *file, mp_error *err)
{
    mp_batch_token *batch = calloc(o->batch, sizeof *batch);
    mp_status status = batch != NULL ? MP_OK : status_no_memory(err, o->batch * sizeof *batch, "a batch");
    for (size_t done = 0; status == MP_OK && done < n;) {
        const size_t count = n - done < o->batch ? n - done : o->batch;
        for (size_t i = 0; i < count; i++)
            batch[i] = (mp_batch_token){
                .token = ids[done + i], .pos = (uint32_t)(done + i), .point = o->point, .logits = true};
        status = mp_engine_step(engine, batch, count, err);
        for (size_t i = 0; status == MP_OK && i < count; i++)
            status = put_row(file, mp_engine_logits(engine, i), n_vocab, err);
        if (status == MP_OK && interrupt_seen()) status = status_fail(err, MP_E_INTERRUPTED, "interrupted");
        done += count;
    }
    free(batch);
    return status;
}

static mp_status write_logits(const mp_model *model, const logits_options *o, const int32_t *ids, size_t n,
                              mp_error *err)
{
    const mp_engine_params params = {.threads = o->common.threads,
                                     .isa = o->common.isa,
                                     .n_ctx = (uint32_t)n,
                                     .n_batch = o->batch,
                                     .n_logits = o->batch,
                                     .kv_type = (mp_kv_type)o->kv_type};
    mp_engine *engine = NULL;
    file_atomic *file = NULL;
    const bool to_stdout = strcmp(o->out, "-") == 0;
    MP_TRY(mp_engine_open(model, &params, &engine, err));
    mp_status status = to_stdout ? MP_OK : file_atomic_open(o->out, true, &file, err);
    if (status == MP_OK) status = run_tokens(engine, o, ids, n, mp_model_get_info(model)->n_vocab, file, err);
    if (status == MP_OK && !to_stdout)
        status = file_atomic_commit(file, err);
    else
        file_atomic_abort(file);
    mp_engine_close(engine);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    (void)self;
    const logits_options *o = options;
    mp_error err;
    mp_model *model = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0, n = 0;
    mp_status status = cli_open_model(&o->common, o->override_experts, &model, &err);
    if (status == MP_OK) status = input_read(o->tokens, &text, &len, &err);
    if (status == MP_OK) status = ids_parse(text, len, o->tokens, mp_model_get_info(model)->n_vocab, &ids, &n, &err);
    if (status == MP_OK && n == 0) status = status_fail(&err, MP_E_INVALID, "%s: no token ids in it", o->tokens);
    if (status == MP_OK && n > UINT32_MAX) status = status_fail(&err, MP_E_LIMIT, "%s: too many tokens", o->tokens);
    if (status == MP_OK && mp_model_point(model, o->point) == NULL)
        status = status_fail(&err, MP_E_INVALID, "there is no operating point %u (see 'moeprism info')", o->point);
    interrupt_catch(NULL);
    if (status == MP_OK) status = write_logits(model, o, ids, n, &err);
    interrupt_release();
    free(ids);
    free(text);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(logits_options, member)

static const option_spec specs[] = {
    {.name = "tokens",
     .kind = OPTION_TEXT,
     .offset = AT(tokens),
     .argument = "FILE",
     .required = true,
     .help = "token ids, decimal numbers with white space between; - is standard input"},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .argument = "FILE",
     .required = true,
     .help = "where the rows go; - is standard output"},
    {.name = "point", .kind = OPTION_U32, .offset = AT(point), .argument = "N", .help = "operating point (default 0)"},
    {.name = "override-experts",
     .kind = OPTION_U32,
     .offset = AT(override_experts),
     .argument = "K",
     .min = 1,
     .max = 65536,
     .help = "run K experts per token instead of the model's number; whole models only"},
    CLI_OPTION_KV_TYPE(AT(kv_type)),
    {.name = "batch",
     .letter = 'b',
     .kind = OPTION_U32,
     .offset = AT(batch),
     .argument = "N",
     .min = 1,
     .max = 65536,
     .help = "tokens in one step"},
    CLI_OPTION_THREADS,
    CLI_OPTION_ISA,
};

static const logits_options defaults = {.batch = 128, .kv_type = MP_KV_F32};

const cli_command cmd_logits = {
    .name = "logits",
    .arguments = "MODEL --tokens FILE -o FILE [options]",
    .summary = "raw logits of given tokens",
    .details = "Runs the tokens as one sequence from position 0 and writes one row of logits for each: as many F32 "
               "numbers as the vocabulary has tokens, little endian.",
    .example = "logits model.gguf --tokens ids.txt -o logits.f32",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
