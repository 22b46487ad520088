/* Text to ids: special tokens are cut out; of what lies between, byte-level BPE takes valid UTF-8 apart into words,
 * invalid bytes form words of their own, and every word is merged; SentencePiece takes it as it is. Any input has
 * tokens and, given tokens for all 256 bytes, decodes to itself. */
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

typedef struct encode_job {
    const tokenizer *t;
    merge_work work;
    pretokenizer_scratch *scratch;
    bool begins; /* nothing, or a special token, stands before what comes */
    int32_t *ids;
    size_t cap, n; /* n counts on past cap */
} encode_job;

static void push(void *user, int32_t id)
{
    encode_job *job = user;
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
    MP_TRY(bpe_encode(&t->bpe, &job->work, word, len, err));
    const merge_symbol *symbols = job->work.symbols;
    for (uint32_t i = job->work.n ? 0 : MERGE_NONE; i != MERGE_NONE; i = symbols[i].next) push(job, symbols[i].id);
    return MP_OK;
}

static mp_status encode_words(encode_job *job, const char *text, size_t len, mp_error *err)
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

/* Text without special tokens. */
static mp_status encode_plain(encode_job *job, const char *text, size_t len, mp_error *err)
{
    const tokenizer *t = job->t;
    if (len == 0) return MP_OK;
    bool begins = job->begins;
    job->begins = false;
    if (t->style == VOCAB_BYTES) return encode_words(job, text, len, err);
    return spm_encode(&t->spm, &t->vocab, &job->work, text, len, begins, push, job, err);
}

static size_t count_white(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && (text[n] == ' ' || (text[n] >= '\t' && text[n] <= '\r'))) n++;
    return n;
}

typedef struct marks {
    const text_span *spans;
    size_t n;
    bool guard;
} marks;

static mp_status encode_text(encode_job *job, const char *text, size_t len, marks m, mp_error *err)
{
    const vocab *v = &job->t->vocab;
    size_t plain = 0, at = 0;
    while (at < len) {
        while (m.n && m.spans->to <= at) m.spans++, m.n--;
        size_t control_len = m.n && m.spans->from <= at ? m.spans->to - at : 0, matched = 0;
        int32_t id = vocab_match_special(v, text + at, len - at, control_len, m.guard, &matched);
        if (id < 0) {
            at++;
            continue;
        }
        MP_TRY(encode_plain(job, text + plain, at - plain, err));
        push(job, id);
        job->begins = true;
        at += matched;
        if (vocab_strips_right(v, id)) at += count_white(text + at, len - at);
        plain = at;
    }
    return encode_plain(job, text + plain, at - plain, err);
}

static mp_status encode(const tokenizer *t, const char *text, size_t len, marks m, bool bos, bool eos, encode_job *job,
                        mp_error *err)
{
    if (len > MERGE_MAX_TEXT)
        return status_fail(err, MP_E_LIMIT, "a text of %zu bytes: at most %zu at once", len, MERGE_MAX_TEXT);
    mp_status status = pretokenizer_scratch_new(&job->scratch, err);
    if (status) goto out;
    if (bos && t->vocab.bos >= 0) push(job, t->vocab.bos);
    if (len) status = encode_text(job, text, len, m, err);
    if (status) {
        job->n = 0;
        goto out;
    }
    if (eos && t->vocab.eos >= 0) push(job, t->vocab.eos);
    if (job->n > job->cap) status = status_fail(err, MP_E_LIMIT, "%zu tokens, room for %zu", job->n, job->cap);
out:
    merge_clear(&job->work);
    pretokenizer_scratch_free(job->scratch);
    return status;
}

mp_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                           size_t *n, mp_error *err)
{
    const text_span all = {0, len};
    const marks m = {&all, (flags & MP_TOKENIZE_SPECIAL) ? 1 : 0, false};
    encode_job job = {.t = t, .begins = true, .ids = ids, .cap = cap};
    mp_status status = encode(t, text, len, m, (flags & MP_TOKENIZE_BOS) && t->add_bos,
                              (flags & MP_TOKENIZE_EOS) && t->add_eos, &job, err);
    *n = job.n;
    return status;
}

mp_status tokenizer_encode_marked(const tokenizer *t, const char *text, size_t len, const text_span *spans,
                                  size_t n_spans, bool bos, int32_t *ids, size_t cap, size_t *n, mp_error *err)
{
    encode_job job = {.t = t, .begins = true, .ids = ids, .cap = cap};
    mp_status status = encode(t, text, len, (marks){spans, n_spans, true}, bos || t->add_bos, false, &job, err);
    *n = job.n;
    return status;
}
