#include "cli/cli.h"

#include <errno.h>

#include "base/status.h"

const cli_command *const cli_commands[] = {
    &cmd_info,       &cmd_refactor, &cmd_eval,       &cmd_run,    &cmd_serve,  &cmd_bench,
    &cmd_cache_sim,  &cmd_simulate, &cmd_loadgen,    &cmd_export, &cmd_logits, &cmd_tokenize,
    &cmd_detokenize, &cmd_synth,    &cmd_completion, NULL,
};

static bool pipe_closed; /* the reader of our output has gone */

int cli_fail(const mp_error *err)
{
    if (pipe_closed) return STATUS_PIPE;
    fprintf(stderr, "moeprism: %s\n", err->message);
    return err->status == MP_E_INTERRUPTED ? STATUS_INTERRUPTED : STATUS_FAILED;
}

mp_status cli_flush(mp_error *err)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return MP_OK;
    if (errno == EPIPE) pipe_closed = true;
    return status_fail_errno(err, errno != 0 ? errno : EIO, "write to", "standard output");
}

static mp_weights weights_asked(const cli_common *common)
{
    return common->mmap ? MP_WEIGHTS_MAPPED : common->no_mmap ? MP_WEIGHTS_COPIED : MP_WEIGHTS_AUTO;
}

mp_status cli_open_file(const cli_common *common, const char *path, uint32_t override_experts, mp_model **out,
                        mp_error *err)
{
    const mp_model_params params = {.override_experts = override_experts, .weights = weights_asked(common)};
    if (common->mmap && common->no_mmap)
        return status_fail(err, MP_E_INVALID, "a model cannot be both mapped (--mmap) and in memory (--no-mmap)");
    return mp_model_open(path, &params, out, err);
}

mp_status cli_open_model(const cli_common *common, uint32_t override_experts, mp_model **out, mp_error *err)
{
    return cli_open_file(common, common->args[0], override_experts, out, err);
}

uint32_t cli_context(const mp_model *model, uint32_t asked)
{
    const uint32_t trained = mp_model_get_info(model)->n_ctx_train;
    if (asked != 0) return asked;
    return trained != 0 && trained < CLI_DEFAULT_CTX ? trained : CLI_DEFAULT_CTX;
}
