/* The text functions of an opened model: thin wrappers of text/. */
#include "model/model.h"
#include "text/chat.h"

mp_status model_need_tokenizer(const mp_model *m, mp_error *err)
{
    if (m->tok) return MP_OK;
    return status_fail(err, MP_E_UNSUPPORTED, "%s", m->tok_error.message);
}

mp_status mp_tokenize(const mp_model *m, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                      size_t *n, mp_error *err)
{
    MP_TRY(model_need_tokenizer(m, err));
    return tokenizer_encode(m->tok, text, len, flags, ids, cap, n, err);
}

size_t mp_token_bytes(const mp_model *m, int32_t id, bool special, char *buf, size_t cap)
{
    return m->tok ? tokenizer_decode(m->tok, id, special, buf, cap) : 0;
}

size_t mp_detokenize(const mp_model *m, const int32_t *ids, size_t n, bool special, char *buf, size_t cap)
{
    return m->tok ? tokenizer_decode_all(m->tok, ids, n, special, buf, cap) : 0;
}

int32_t mp_token_bos(const mp_model *m)
{
    return m->tok ? tokenizer_bos(m->tok) : -1;
}

int32_t mp_token_eos(const mp_model *m)
{
    return m->tok ? tokenizer_eos(m->tok) : -1;
}

bool mp_token_ends_text(const mp_model *m, int32_t id)
{
    return m->tok && tokenizer_ends_text(m->tok, id);
}

/* ---- conversations ---- */

const char *mp_chat_family(const mp_model *m)
{
    const chat_family *family = m->tok ? tokenizer_chat(m->tok)->family : NULL;
    return family ? family->name : NULL;
}

const char *mp_chat_family_name(size_t i)
{
    const chat_family *family = chat_family_at(i);
    return family ? family->name : NULL;
}

mp_status mp_chat_format(const mp_model *m, const char *family, const mp_chat_message *messages, size_t n,
                         bool add_assistant, char **out, mp_error *err)
{
    chat_text text = {0};
    *out = NULL;
    MP_TRY(model_need_tokenizer(m, err));
    const mp_status status = chat_render(m->tok, family, messages, n, add_assistant, &text, err);
    if (status == MP_OK) {
        *out = text.data;
        text.data = NULL;
    }
    chat_text_clear(&text);
    return status;
}

mp_status mp_chat_tokenize(const mp_model *m, const char *family, const mp_chat_message *messages, size_t n,
                           bool add_assistant, int32_t *ids, size_t cap, size_t *n_ids, mp_error *err)
{
    chat_text text = {0};
    *n_ids = 0;
    MP_TRY(model_need_tokenizer(m, err));
    mp_status status = chat_render(m->tok, family, messages, n, add_assistant, &text, err);
    if (status == MP_OK)
        status = tokenizer_encode_marked(m->tok, text.data, text.len, text.marked, text.n_marked, text.bos, ids, cap,
                                         n_ids, err);
    chat_text_clear(&text);
    return status;
}
