#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

#define KEY_MODEL   "tokenizer.ggml.model"
#define KEY_PRE     "tokenizer.ggml.pre"
#define KEY_ADD_BOS "tokenizer.ggml.add_bos_token"
#define KEY_ADD_EOS "tokenizer.ggml.add_eos_token"

/* ---- loading ---- */

static mp_status load_style(tokenizer *t, const gguf *g, mp_error *err)
{
    gguf_string model;
    if (!gguf_has(g, KEY_MODEL))
        return status_fail(err, MP_E_FORMAT, "%s is missing: the file has no tokenizer", KEY_MODEL);
    MP_TRY(gguf_get_string(g, KEY_MODEL, &model, err));
    if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0)
        t->style = VOCAB_BYTES;
    else if (model.len == 5 && memcmp(model.data, "llama", 5) == 0)
        t->style = VOCAB_SPM;
    else
        return status_fail(
            err, MP_E_UNSUPPORTED,
            "%s = \"%.*s\": not supported; what is: \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece)", KEY_MODEL,
            (int)(model.len < 64 ? model.len : 64), model.data);
    return MP_OK;
}

/* A file from before the key has the default, as everywhere. */
static mp_status load_pre(tokenizer *t, const gguf *g, mp_error *err)
{
    gguf_string name = {"default", 7};
    if (gguf_has(g, KEY_PRE)) MP_TRY(gguf_get_string(g, KEY_PRE, &name, err));
    return pretokenizer_new(name.data, name.len, &t->pre, err);
}

/* Whether a token is added to a text: *add keeps its value where the key is missing. */
static mp_status load_adds(const gguf *g, const char *key, const char *id_key, int32_t id, bool *add, mp_error *err)
{
    if (!gguf_has(g, key)) return MP_OK;
    MP_TRY(gguf_get_bool(g, key, add, err));
    if (*add && id < 0) return status_fail(err, MP_E_FORMAT, "%s is true but %s is missing", key, id_key);
    return MP_OK;
}

static mp_status load(tokenizer *t, const gguf *g, mp_error *err)
{
    const vocab *v = &t->vocab;
    MP_TRY(load_style(t, g, err));
    if (t->style == VOCAB_BYTES) MP_TRY(load_pre(t, g, err));
    MP_TRY(vocab_init(&t->vocab, g, t->style, err));
    if (t->style == VOCAB_BYTES)
        MP_TRY(bpe_init(&t->bpe, v, g, err));
    else
        MP_TRY(spm_init(&t->spm, v, g, err));
    t->add_bos = v->bos >= 0 && (t->style == VOCAB_SPM || pretokenizer_adds_bos(t->pre));
    MP_TRY(load_adds(g, KEY_ADD_BOS, "tokenizer.ggml.bos_token_id", v->bos, &t->add_bos, err));
    MP_TRY(load_adds(g, KEY_ADD_EOS, "tokenizer.ggml.eos_token_id", v->eos, &t->add_eos, err));
    return chat_template_init(&t->chat, g, err);
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
    spm_clear(&t->spm);
    chat_template_clear(&t->chat);
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

gguf_string tokenizer_text(const tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n ? vocab_text(&t->vocab, (uint32_t)id) : (gguf_string){"", 0};
}

const chat_template *tokenizer_chat(const tokenizer *t)
{
    return &t->chat;
}

bool tokenizer_ends_text(const tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n && t->vocab.ends_text[id];
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

/* The space that SentencePiece put before the text is taken off its first token; control tokens may stand before. */
size_t tokenizer_decode_all(const tokenizer *t, const int32_t *ids, size_t n, bool special, char *buf, size_t cap)
{
    size_t total = 0;
    bool begins = t->style == VOCAB_SPM && t->spm.add_space;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= t->vocab.n || !(special || is_shown(t->vocab.kind[ids[i]]))) continue;
        gguf_string bytes = vocab_bytes(&t->vocab, (uint32_t)ids[i]);
        const int kind = t->vocab.kind[ids[i]];
        if (begins && kind == TOKEN_NORMAL && bytes.len && *bytes.data == ' ') bytes.data++, bytes.len--;
        begins = begins && (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN);
        const size_t room = total < cap ? cap - total : 0;
        if (room && bytes.len) memcpy(buf + total, bytes.data, bytes.len < room ? bytes.len : room);
        total += bytes.len;
    }
    return total;
}
