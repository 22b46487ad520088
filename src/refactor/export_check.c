/* What was written is run beside the source, both at full: the same tokens, so nothing but requantization may differ.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/engine.h"
#include "refactor/export.h"

#define CHECK_TOKENS 64
/* Mean KL, in nats, beyond which an export is not the model. Four-bit types stay below a tenth of it. */
#define MOST_KL 0.1

static mp_status run_tokens(const mp_model *m, const mp_batch_token *batch, uint32_t n, float *logits, mp_error *err)
{
    const uint32_t vocab = m->hp.n_vocab;
    const mp_engine_params params = {.n_ctx = n, .n_batch = n, .kv_type = MP_KV_F32};
    mp_engine *e = NULL;
    mp_status status = mp_engine_open(m, &params, &e, err);
    if (!status) status = mp_engine_step(e, batch, n, err);
    for (uint32_t t = 0; t < n && !status; t++)
        memcpy(logits + (size_t)t * vocab, mp_engine_logits(e, t), vocab * sizeof *logits);
    mp_engine_close(e);
    return status;
}

/* KL of row b [n] from row a, in nats. */
static double divergence(const kernels *k, const float *a, const float *b, size_t n)
{
    const double log_a = k->log_sum_exp(a, n), log_b = k->log_sum_exp(b, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)a[i] - log_a) * (((double)a[i] - log_a) - ((double)b[i] - log_b));
    return sum;
}

static void compare(export_job *j, const float *a, const float *b, uint32_t tokens)
{
    const size_t vocab = j->source->hp.n_vocab;
    const kernels *k = kernels_get(NULL);
    double diff = 0, most = 0, kl = 0;
    for (size_t i = 0; i < tokens * vocab; i++) {
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)a[i]));
    }
    for (uint32_t t = 0; t < tokens; t++) kl += divergence(k, a + t * vocab, b + t * vocab, vocab) / tokens;
    j->report.check_tokens = tokens;
    j->report.max_difference = most > 0 ? diff / most : 0;
    j->report.kl_mean = kl;
}

mp_status export_check(export_job *j, const char *path, mp_error *err)
{
    const hparams *hp = &j->source->hp;
    const uint32_t n = hp->n_ctx < CHECK_TOKENS ? hp->n_ctx : CHECK_TOKENS;
    const size_t cells = (size_t)n * hp->n_vocab;
    float *a = malloc(cells * sizeof *a), *b = malloc(cells * sizeof *b);
    mp_batch_token batch[CHECK_TOKENS];
    mp_model *m = NULL;
    rng r;
    mp_status status = a && b ? MP_OK : status_no_memory(err, 2 * cells * sizeof *a, "logits");
    rng_init(&r, 1);
    for (uint32_t t = 0; t < n; t++)
        batch[t] = (mp_batch_token){.token = (int32_t)(rng_u64(&r) % hp->n_vocab), .pos = t, .logits = true};
    if (!status) status = export_progress(j, "check", "models", 0, 2, err);
    if (!status) status = run_tokens(j->source, batch, n, a, err);
    if (!status) status = export_progress(j, "check", "models", 1, 2, err);
    if (!status) status = mp_model_open(path, NULL, &m, err);
    if (!status) status = run_tokens(m, batch, n, b, err);
    if (!status) {
        compare(j, a, b, n);
        status = export_progress(j, "check", "models", 2, 2, err);
    }
    if (!status && !(j->report.kl_mean <= MOST_KL))
        status = status_fail(err, MP_E_FORMAT,
                             "the export does not run as %s does: mean KL %.3g nats; choose a larger --type",
                             j->source->info.path, j->report.kl_mean);
    mp_model_close(m);
    free(a);
    free(b);
    return status;
}
