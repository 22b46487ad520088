/* An artifact as a standard GGUF (DESIGN 2, "The artifact"): other engines see n*E experts of which n*k0 run.
 *
 * Router rows are repeated, so every copy has the same logit. Under a softmax over all experts a copy gets an n-th of
 * its original's probability, normalised or not, and down matrices are scaled by n; sigmoids do not share, so there the
 * factor is n only where the weights are normalised afterwards. */
#include "refactor/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "refactor/expert_types.h"
#include "refactor/source_hash.h"

#define PAPER_PARTS 4

mp_status export_progress(export_job *j, const char *stage, const char *unit, uint64_t done, uint64_t total,
                          mp_error *err)
{
    const mp_progress progress = {
        .stage = stage,
        .unit = unit,
        .done = done,
        .total = total,
        .elapsed_ns = clock_now_ns() - j->stage_start,
        .layer = -1,
        .n_layers = -1,
    };
    if (!j->p.progress || j->p.progress(j->p.user, &progress)) return MP_OK;
    return status_fail(err, MP_E_INTERRUPTED, "interrupted; nothing was written");
}

/* ---- checks ---- */

static bool tell_hashing(void *user, uint64_t done, uint64_t total)
{
    return export_progress(user, "hash", "bytes", done, total, NULL) == MP_OK;
}

/* What costs nothing to find out. */
static mp_status check_pair(const export_job *j, mp_error *err)
{
    const mp_model_info *a = &j->artifact->info;
    if (!j->p.force && access(j->out_path, F_OK) == 0)
        return status_fail(err, MP_E_EXISTS, "%s exists already: choose another name or pass --force", j->out_path);
    expert_types unused;
    if (j->p.type) MP_TRY(expert_types_of(j->p.type, 0, 1, &unused, err));
    if (!a->artifact_version)
        return status_fail(err, MP_E_INVALID, "%s is not split: export takes an artifact of 'moeprism refactor'",
                           a->path);
    if (j->source->info.artifact_version)
        return status_fail(err, MP_E_INVALID, "%s is split: --source is the model the artifact was made from",
                           j->source->info.path);
    return MP_OK;
}

static mp_status check_source(export_job *j, mp_error *err)
{
    const mp_model_info *a = &j->artifact->info;
    char sha[65];
    j->stage_start = clock_now_ns();
    MP_TRY(source_sha256(j->source->file, tell_hashing, j, sha, err));
    if (strcmp(sha, a->source_sha256))
        return status_fail(err, MP_E_INVALID, "%s was made from another model (SHA-256 %.16s...) than %s (%.16s...)",
                           a->path, a->source_sha256, j->source->info.path, sha);
    return MP_OK;
}

/* Bringing copies into a group changes the sums that groups are chosen by. */
static mp_status check_routing(const export_job *j, mp_error *err)
{
    const moe_routing *r = &j->source->hp.routing;
    if (r->n_groups_used == r->n_groups) return MP_OK;
    return status_fail(err, MP_E_UNSUPPORTED,
                       "%s chooses experts within %u of %u groups; repeated experts would change that choice",
                       j->source->info.path, r->n_groups_used, r->n_groups);
}

static mp_status choose_parts(export_job *j, mp_error *err)
{
    const uint32_t all = j->artifact->info.n_parts, asked = j->p.parts;
    char list[160] = "";
    j->n = asked ? asked : 1;
    for (uint32_t n = 1; n <= PAPER_PARTS && !asked; n++)
        if (all % n == 0) j->n = n;
    for (uint32_t n = 1; n <= all; n++) {
        const size_t used = strlen(list);
        if (all % n == 0) snprintf(list + used, sizeof list - used, "%s%u", n > 1 ? ", " : "", n);
    }
    if (j->n > all || all % j->n)
        return status_fail(err, MP_E_INVALID, "%u parts: %s has %u sets an expert, choose %s", asked,
                           j->artifact->info.path, all, list);
    j->width = j->source->hp.expert_width / j->n;
    const moe_routing *r = &j->source->hp.routing;
    const bool shared = r->gating == MOE_GATING_SOFTMAX;
    j->scale = shared || r->renormalise ? (float)j->n : 1;
    j->bias_scale = shared ? 1 / (float)j->n : 1;
    return MP_OK;
}

/* ---- keys ---- */

static bool is_dropped(const char *name)
{
    return !strncmp(name, "moeprism.", 9) || !strncmp(name, "split.", 6) || !strcmp(name, "general.alignment") ||
           !strcmp(name, "general.padding");
}

static mp_status set_u32(export_job *j, const char *suffix, uint32_t value, mp_error *err)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", j->source->arch->name, suffix);
    return gguf_set_u32(j->w, key, value, err);
}

/* Families without dense layers have their experts' width in feed_forward_length for some readers. deepseek2's shared
 * width is counted in experts. */
static mp_status set_keys(export_job *j, mp_error *err)
{
    const mp_model *m = j->source;
    const char *name = m->arch->name;
    char key[160];
    uint32_t shared;
    for (size_t i = 0; i < gguf_n_keys(m->file); i++) {
        size_t bytes;
        const void *raw = gguf_key_raw(m->file, i, &bytes);
        if (is_dropped(gguf_key_name(m->file, i))) continue;
        if (j->p.type && !strcmp(gguf_key_name(m->file, i), "general.file_type")) continue; /* no longer true */
        MP_TRY(gguf_set_raw(j->w, gguf_key_name(m->file, i), gguf_key_type(m->file, i), raw, bytes, err));
    }
    MP_TRY(set_u32(j, "expert_count", j->n * m->hp.n_experts, err));
    MP_TRY(set_u32(j, "expert_used_count", j->n * m->hp.n_used, err));
    MP_TRY(set_u32(j, "expert_feed_forward_length", j->width, err));
    if (!strcmp(name, "olmoe") || !strcmp(name, "llama") || !strcmp(name, "granitemoe"))
        MP_TRY(set_u32(j, "feed_forward_length", j->width, err));
    snprintf(key, sizeof key, "%s.expert_shared_count", name);
    if (!gguf_has(m->file, key)) return MP_OK;
    MP_TRY(gguf_get_u32(m->file, key, &shared, err));
    return gguf_set_u32(j->w, key, shared * j->n, err);
}

/* ---- stages ---- */

static mp_status take_memory(export_job *j, mp_error *err)
{
    const hparams *hp = &j->source->hp;
    const size_t longest = hp->n_embd > hp->expert_width ? hp->n_embd : hp->expert_width;
    const uint32_t layers = j->source->info.n_moe_layers;
    j->down = malloc((size_t)hp->n_embd * hp->expert_width * sizeof *j->down);
    j->row = malloc(longest * sizeof *j->row);
    j->back = malloc(longest * sizeof *j->back);
    j->bytes = malloc(dtype_row_bytes(DTYPE_F32, longest)); /* no type takes more */
    j->report.requant_rmse = calloc(layers, sizeof *j->report.requant_rmse);
    j->report.n_layers = layers;
    if (j->down && j->row && j->back && j->bytes && j->report.requant_rmse) return MP_OK;
    return status_no_memory(err, longest * hp->n_embd * sizeof *j->down, "an expert");
}

static mp_status run(export_job *j, const char *artifact, mp_error *err)
{
    const char *path;
    if (file_same(artifact, j->out_path) || file_same(j->p.source, j->out_path))
        return status_fail(err, MP_E_INVALID, "%s is read by this export: choose another name", j->out_path);
    MP_TRY(mp_model_open(artifact, NULL, &j->artifact, err));
    MP_TRY(mp_model_open(j->p.source, NULL, &j->source, err));
    MP_TRY(check_pair(j, err));
    MP_TRY(check_routing(j, err));
    MP_TRY(choose_parts(j, err));
    MP_TRY(check_source(j, err));
    MP_TRY(take_memory(j, err));
    MP_TRY(gguf_writer_new(gguf_alignment(j->source->file), &j->w, err));
    MP_TRY(set_keys(j, err));
    MP_TRY(export_add_tensors(j, err));
    MP_TRY(gguf_writer_begin(j->w, j->out_path, j->p.force, 0, err));
    MP_TRY(export_write_tensors(j, err));
    MP_TRY(gguf_writer_peek(j->w, &path, err));
    MP_TRY(export_check(j, path, err));
    return gguf_writer_commit(j->w, err);
}

mp_status mp_export(const char *artifact, const char *out, const mp_export_params *params, mp_export_report *report,
                    mp_error *err)
{
    export_job j = {.p = *params, .out_path = out};
    mp_status status = run(&j, artifact, err);
    j.report.parts = j.n;
    j.report.experts = j.source ? j.n * j.source->hp.n_experts : 0;
    j.report.experts_used = j.source ? j.n * j.source->hp.n_used : 0;
    if (!status && report)
        *report = j.report;
    else
        mp_export_report_clear(&j.report);
    gguf_writer_free(j.w);
    mp_model_close(j.artifact);
    mp_model_close(j.source);
    free(j.down);
    free(j.row);
    free(j.back);
    free(j.bytes);
    return status;
}

void mp_export_report_clear(mp_export_report *report)
{
    free(report->requant_rmse);
    *report = (mp_export_report){0};
}
