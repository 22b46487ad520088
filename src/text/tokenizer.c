/* Text to ids: special tokens are cut out, what lies between is cut into valid and invalid UTF-8, the valid parts into
 * words, and every word is merged. Invalid bytes form words of their own, so that any input has tokens and, given a
 * vocabulary with all 256 bytes, decodes to itself. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"
#include "text/vocab.h"

#define KEY_MODEL   "tokenizer.ggml.model"
#define KEY_PRE     "tokenizer.ggml.pre"
#define KEY_ADD_BOS "tokenizer.ggml.add_bos_token"

struct tokenizer {
    vocab vocab;
    bpe bpe;
    pretokenizer *pre;
    bool add_bos;
};

/* ---- loading ---- */

static mp_status check_model(const gguf *g, mp_error *err)
{
    gguf_string model;
    if (!gguf_has(g, KEY_MODEL))
        return status_fail(err, MP_E_FORMAT, "%s is missing: the file has no tokenizer", KEY_MODEL);
    MP_TRY(gguf_get_string(g, KEY_MODEL, &model, err));
    if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0) return MP_OK;
    return status_fail(err, MP_E_UNSUPPORTED, "%s = \"%.*s\": not supported, only \"gpt2\" (byte-level BPE) is",
                       KEY_MODEL, (int)(model.len < 64 ? model.len : 64), model.data);
}

/* A file from before the key has the default, as everywhere. */
static mp_status load_pre(tokenizer *t, const gguf *g, mp_error *err)
{
    gguf_string name = {"default", 7};
    if (gguf_has(g, KEY_PRE)) MP_TRY(gguf_get_string(g, KEY_PRE, &name, err));
    return pretokenizer_new(name.data, name.len, &t->pre, err);
}

static mp_status load_add_bos(tokenizer *t, const gguf *g, mp_error *err)
{
    t->add_bos = pretokenizer_adds_bos(t->pre) && t->vocab.bos >= 0;
    if (!gguf_has(g, KEY_ADD_BOS)) return MP_OK;
    MP_TRY(gguf_get_bool(g, KEY_ADD_BOS, &t->add_bos, err));
    if (t->add_bos && t->vocab.bos < 0)
        return status_fail(err, MP_E_FORMAT, "%s is true but tokenizer.ggml.bos_token_id is missing", KEY_ADD_BOS);
    return MP_OK;
}

static mp_status load(tokenizer *t, const gguf *g, mp_error *err)
{
    MP_TRY(check_model(g, err));
    MP_TRY(load_pre(t, g, err));
    MP_TRY(vocab_init(&t->vocab, g, err));
    MP_TRY(bpe_init(&t->bpe, &t->vocab, g, err));
    return load_add_bos(t, g, err);
}

mp_status tokenizer_new(const gguf *g, tokenizer **out, mp_error *err)
{
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return status_no_memory(err, sizeof *t, "the tokenizer");
    mp_status status = load(t, g, err);
    if (status) {
        tokenizer_free(t);
        return status;
    }
    *out = t;
    return MP_OK;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    vocab_clear(&t->vocab);
    bpe_clear(&t->bpe);
    pretokenizer_free(t->pre);
    free(t);
}

/* ---- queries ---- */

uint32_t tokenizer_n_tokens(const tokenizer *t)
{
    return t->vocab.n;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->vocab.bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->vocab.eos;
}

bool tokenizer_ends_text(const tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n && t->vocab.ends_text[id];
}

/* ---- encoding ---- */

typedef struct encode_job {
    const tokenizer *t;
    bpe_work work;
    pretokenizer_scratch *scratch;
    int32_t *ids;
    size_t cap, n; /* n counts on past cap */
} encode_job;

static void push(encode_job *job, int32_t id)
{
    if (job->n < job->cap) job->ids[job->n] = id;
    job->n++;
}

static mp_status encode_word(void *user, const char *word, size_t len, mp_error *err)
{
    encode_job *job = user;
    const tokenizer *t = job->t;
    int32_t whole = pretokenizer_whole_words(t->pre) ? vocab_find_bytes(&t->vocab, word, len) : -1;
    if (whole >= 0) {
        push(job, whole);
        return MP_OK;
    }
    size_t n = 0;
    MP_TRY(bpe_encode(&t->bpe, &job->work, word, len, &n, err));
    for (size_t i = 0; i < n; i++) push(job, job->work.ids[i]);
    return MP_OK;
}

/* Text without special tokens. */
static mp_status encode_plain(encode_job *job, const char *text, size_t len, mp_error *err)
{
    while (len) {
        size_t valid = utf8_valid(text, len);
        MP_TRY(pretokenizer_split(job->t->pre, job->scratch, text, valid, encode_word, job, err));
        size_t invalid = utf8_invalid(text + valid, len - valid);
        if (invalid) MP_TRY(encode_word(job, text + valid, invalid, err));
        text += valid + invalid;
        len -= valid + invalid;
    }
    return MP_OK;
}

static mp_status encode_text(encode_job *job, const char *text, size_t len, bool control, mp_error *err)
{
    size_t plain = 0, at = 0;
    while (at < len) {
        size_t matched = 0;
        int32_t id = vocab_match_special(&job->t->vocab, text + at, len - at, control, &matched);
        if (id < 0) {
            at++;
            continue;
        }
        MP_TRY(encode_plain(job, text + plain, at - plain, err));
        push(job, id);
        plain = at += matched;
    }
    return encode_plain(job, text + plain, at - plain, err);
}

mp_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                           size_t *n, mp_error *err)
{
    *n = 0;
    if (len > BPE_MAX_WORD)
        return status_fail(err, MP_E_LIMIT, "a text of %zu bytes: at most %zu at once", len, BPE_MAX_WORD);
    encode_job job = {.t = t, .ids = ids, .cap = cap};
    mp_status status = pretokenizer_scratch_new(&job.scratch, err);
    if (status) goto out;
    if ((flags & MP_TOKENIZE_BOS) && t->add_bos) push(&job, t->vocab.bos);
    if (len) status = encode_text(&job, text, len, flags & MP_TOKENIZE_SPECIAL, err);
    if (status) goto out;
    *n = job.n;
    if (job.n > cap) status = status_fail(err, MP_E_LIMIT, "%zu tokens, room for %zu", job.n, cap);
out:
    bpe_work_clear(&job.work);
    pretokenizer_scratch_free(job.scratch);
    return status;
}

/* ---- decoding ---- */

static bool is_shown(enum token_kind kind)
{
    return kind == TOKEN_NORMAL || kind == TOKEN_BYTE || kind == TOKEN_USER_DEFINED;
}

size_t tokenizer_decode(const tokenizer *t, int32_t id, bool special, char *buf, size_t cap)
{
    const vocab *v = &t->vocab;
    if (id < 0 || (uint32_t)id >= v->n || !(special || is_shown(v->kind[id]))) return 0;
    gguf_string bytes = vocab_bytes(v, (uint32_t)id);
    size_t n = bytes.len < cap ? bytes.len : cap;
    if (n) memcpy(buf, bytes.data, n);
    return bytes.len;
}
