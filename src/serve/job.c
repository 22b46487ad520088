#include "serve/job_impl.h"

#include <stdlib.h>
#include <string.h>

void job_params_clear(job_params *p)
{
    free(p->prompt);
    for (size_t i = 0; i < p->n_stop; i++) free(p->stop[i]);
    free(p->stop);
    *p = (job_params){0};
}

/* ---- holding ---- */

static void job_free(job *j)
{
    mp_sampler_free(j->sampler);
    free(j->tokens);
    free(j->page_ran);
    free(j->drawn);
    stops_clear(&j->text);
    job_params_clear(&j->params);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

static mp_status take_memory(job *j, uint32_t n_vocab, mp_error *err)
{
    const size_t n = j->params.n_prompt + j->params.max_tokens;
    j->tokens = calloc(n, sizeof *j->tokens);
    j->page_ran = calloc(n / MP_KV_PAGE + 1, sizeof *j->page_ran);
    if (!j->tokens || !j->page_ran) return status_no_memory(err, n * sizeof *j->tokens, "a request");
    return mp_sampler_new(&j->params.sampling, n_vocab, &j->sampler, err);
}

mp_status job_new(job_params *params, const mp_model *model, job **out, mp_error *err)
{
    *out = NULL;
    job *j = calloc(1, sizeof *j);
    if (!j) {
        job_params_clear(params);
        return status_no_memory(err, sizeof *j, "a request");
    }
    j->params = *params;
    *params = (job_params){0};
    pthread_mutex_init(&j->lock, NULL);
    atomic_init(&j->holders, 2);
    atomic_init(&j->released, false);
    j->slot = JOB_NO_SLOT;
    const job_params *p = &j->params;
    j->stopped_by = p->n_stop;
    mp_status status = stops_init(&j->text, p->stop, p->n_stop, p->skip_white, err);
    if (status == MP_OK) status = take_memory(j, mp_model_get_info(model)->n_vocab, err);
    if (status != MP_OK) {
        job_free(j);
        return status;
    }
    j->params.sampling.bias = NULL; /* the sampler has a copy */
    memcpy(j->tokens, p->prompt, p->n_prompt * sizeof *j->tokens);
    for (size_t i = 0; i < p->n_prompt; i++) mp_sampler_accept(j->sampler, p->prompt[i]);
    j->n_tokens = (uint32_t)p->n_prompt;
    j->used.prompt_tokens = j->usage.prompt_tokens = (uint32_t)p->n_prompt;
    *out = j;
    return MP_OK;
}

void job_drop(job *j)
{
    if (atomic_fetch_sub(&j->holders, 1) == 1) job_free(j);
}

void job_release(job *j)
{
    if (!j) return;
    atomic_store(&j->released, true);
    pthread_mutex_lock(&j->lock);
    const bool running = j->end == JOB_RUNNING;
    pthread_mutex_unlock(&j->lock);
    if (running) j->leave(j->loop);
    job_drop(j);
}

/* ---- written by the loop ---- */

static mp_status keep_token(job *j, const job_token *token, mp_error *err)
{
    if (j->n_drawn == j->drawn_cap) {
        const size_t cap = j->drawn_cap > 0 ? 2 * j->drawn_cap : 16;
        job_token *grown = realloc(j->drawn, cap * sizeof *grown);
        if (!grown) return status_no_memory(err, cap * sizeof *grown, "log probabilities");
        j->drawn = grown;
        j->drawn_cap = cap;
    }
    j->drawn[j->n_drawn++] = *token;
    return MP_OK;
}

mp_status job_append(job *j, const char *bytes, size_t n, const job_token *token, bool *stopped, mp_error *err)
{
    pthread_mutex_lock(&j->lock);
    mp_status status = token ? keep_token(j, token, err) : MP_OK;
    if (status == MP_OK) status = stops_add(&j->text, bytes, n, &j->stopped_by, err);
    *stopped = status == MP_OK && j->stopped_by < j->params.n_stop;
    pthread_mutex_unlock(&j->lock);
    return status;
}

mp_status job_note_token(job *j, const job_token *token, mp_error *err)
{
    pthread_mutex_lock(&j->lock);
    const mp_status status = keep_token(j, token, err);
    pthread_mutex_unlock(&j->lock);
    return status;
}

void job_finish(job *j, job_end end, const mp_error *error)
{
    mp_error flush_error;
    pthread_mutex_lock(&j->lock);
    if (stops_end(&j->text, &flush_error) != MP_OK && end != JOB_FAILED) {
        end = JOB_FAILED;
        error = &flush_error;
    }
    if (end == JOB_FAILED) j->error = *error;
    j->end = end;
    pthread_mutex_unlock(&j->lock);
}

void job_show_usage(job *j)
{
    pthread_mutex_lock(&j->lock);
    j->usage = j->used;
    pthread_mutex_unlock(&j->lock);
}

/* ---- read by whoever submitted it ---- */

/* The text that is ready, moved out; NULL: none, or no memory for it yet. */
static char *take_text(job *j, size_t *len)
{
    *len = 0;
    char *text = malloc(j->text.ready + 1);
    if (!text) return NULL;
    *len = j->text.ready;
    memcpy(text, j->text.text, *len);
    text[*len] = '\0';
    stops_taken(&j->text);
    return text;
}

bool job_take(job *j, job_piece *out)
{
    *out = (job_piece){0};
    pthread_mutex_lock(&j->lock);
    if (j->text.ready > 0) out->text = take_text(j, &out->len);
    out->tokens = j->drawn;
    out->n_tokens = j->n_drawn;
    j->drawn = NULL;
    j->n_drawn = j->drawn_cap = 0;
    if (!j->end_told && j->text.ready == 0) {
        out->end = j->end;
        j->end_told = j->end != JOB_RUNNING;
    }
    if (out->end == JOB_STOP && j->stopped_by < j->params.n_stop) out->stopped_by = j->params.stop[j->stopped_by];
    if (out->end == JOB_FAILED) out->error = &j->error;
    pthread_mutex_unlock(&j->lock);
    return out->len > 0 || out->n_tokens > 0 || out->end != JOB_RUNNING;
}

void job_piece_clear(job_piece *p)
{
    free(p->text);
    free(p->tokens);
    *p = (job_piece){0};
}

job_usage job_get_usage(job *j)
{
    pthread_mutex_lock(&j->lock);
    const job_usage usage = j->usage;
    pthread_mutex_unlock(&j->lock);
    return usage;
}
