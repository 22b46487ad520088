/* The text functions of an opened model: thin wrappers of text/. */
#include "model/model.h"

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
