/* Tokens that are more than text: the ids with a role, and the tokens that are recognised where they are written out.
 *
 * A token ends the text where a key says so (eos, eot, eom), or where it has one of the names that chat models give to
 * such a token: many files name only one of several. A name counts only if the file marks the token as more than
 * ordinary text or marks nothing at all, and then the token is a control token, so that text cannot smuggle it in.
 *
 * Recognition is leftmost, longest: the texts are sorted, so the candidates for what begins here are a range that each
 * further byte narrows by binary search, and no number of special tokens makes a long text slow. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text/vocab.h"

static const char *const end_names[] = {
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<turn|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>", /* DeepSeek */
    "<|EOT|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "</s>",
    "[e~[",
    /* where code models end what they fill in: padding, the next file, the next repository */
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

/* *id is left alone where the key is missing. */
static mp_status read_id(const vocab *v, const gguf *g, const char *key, int32_t *id, mp_error *err)
{
    uint32_t value = 0;
    if (!gguf_has(g, key)) return MP_OK;
    MP_TRY(gguf_get_u32(g, key, &value, err));
    if (value >= v->n) return status_fail(err, MP_E_FORMAT, "%s = %u: the vocabulary has %u tokens", key, value, v->n);
    *id = (int32_t)value;
    return MP_OK;
}

mp_status vocab_init_roles(vocab *v, const gguf *g, mp_error *err)
{
    int32_t eot = -1, eom = -1;
    MP_TRY(read_id(v, g, "tokenizer.ggml.bos_token_id", &v->bos, err));
    MP_TRY(read_id(v, g, "tokenizer.ggml.eos_token_id", &v->eos, err));
    MP_TRY(read_id(v, g, "tokenizer.ggml.unknown_token_id", &v->unknown, err));
    MP_TRY(read_id(v, g, "tokenizer.ggml.eot_token_id", &eot, err));
    MP_TRY(read_id(v, g, "tokenizer.ggml.eom_token_id", &eom, err));
    if (v->eos >= 0) v->ends_text[v->eos] = true;
    if (eot >= 0) v->ends_text[eot] = true;
    if (eom >= 0) v->ends_text[eom] = true;

    bool marked = gguf_has(g, "tokenizer.ggml.token_type");
    for (size_t i = 0; i < sizeof end_names / sizeof *end_names; i++) {
        int32_t id = vocab_find(v, end_names[i], strlen(end_names[i]));
        if (id < 0 || (marked && v->kind[id] == TOKEN_NORMAL)) continue;
        v->ends_text[id] = true;
        v->kind[id] = TOKEN_CONTROL;
    }
    return MP_OK;
}

/* Whether a name holds a word, in any case. */
static bool has_word(gguf_string name, const char *word)
{
    size_t len = strlen(word);
    for (size_t at = 0; at + len <= name.len; at++)
        if (strncasecmp(name.data + at, word, len) == 0) return true;
    return false;
}

/* The attribute is in the model's own tokenizer but not in GGUF files: known by the model's name. */
mp_status vocab_init_strips(vocab *v, const gguf *g, mp_error *err)
{
    gguf_string name;
    if (!gguf_has(g, "general.name")) return MP_OK;
    MP_TRY(gguf_get_string(g, "general.name", &name, err));
    v->strips = has_word(name, "phi-3") || has_word(name, "phi3");
    return MP_OK;
}

bool vocab_strips_right(const vocab *v, int32_t id)
{
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    if (!v->strips) return false;
    gguf_string text = vocab_text(v, (uint32_t)id);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (text.len == strlen(others[i]) && memcmp(text.data, others[i], text.len) == 0) return false;
    return true;
}

static bool is_special(const vocab *v, uint32_t id)
{
    int kind = v->kind[id];
    return (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN || kind == TOKEN_USER_DEFINED) && vocab_text(v, id).len > 0;
}

static int compare_texts(const void *a, const void *b, void *user)
{
    const vocab *v = user;
    gguf_string x = vocab_text(v, *(const uint32_t *)a), y = vocab_text(v, *(const uint32_t *)b);
    int order = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

mp_status vocab_init_special(vocab *v, mp_error *err)
{
    v->special = malloc(v->n * sizeof *v->special);
    if (!v->special) return status_no_memory(err, v->n * sizeof *v->special, "the vocabulary");
    for (uint32_t id = 0; id < v->n; id++)
        if (is_special(v, id)) v->special[v->n_special++] = id;
    qsort_r(v->special, v->n_special, sizeof *v->special, compare_texts, v);
    size_t i = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (i < v->n_special && (uint8_t)*vocab_text(v, v->special[i]).data < byte) i++;
        v->special_from[byte] = i;
    }
    return MP_OK;
}

/* First of special[from, to) whose byte at `depth` is at least `byte`; all are longer than depth and equal before it.
 */
static size_t lower_bound(const vocab *v, size_t from, size_t to, size_t depth, int byte)
{
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if ((uint8_t)vocab_text(v, v->special[middle]).data[depth] < byte)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static bool encloses(gguf_string text, const char *head, const char *tail)
{
    size_t n = strlen(head), m = strlen(tail);
    return text.len >= n + m && memcmp(text.data, head, n) == 0 && memcmp(text.data + text.len - m, tail, m) == 0;
}

/* "<|user|>" and such, which some files mark as user-defined. */
static bool looks_like_control(gguf_string text)
{
    return encloses(text, "<|", "|>") || encloses(text, "<｜", "｜>") || encloses(text, "[/", "]") ||
           encloses(text, "[INST", "]") || encloses(text, "<start_of_", ">") || encloses(text, "<end_of_", ">");
}

static bool is_accepted(const vocab *v, uint32_t id, bool within_control, bool guard)
{
    if (within_control) return true;
    return v->kind[id] == TOKEN_USER_DEFINED && !(guard && looks_like_control(vocab_text(v, id)));
}

int32_t vocab_match_special(const vocab *v, const char *text, size_t len, size_t control_len, bool guard,
                            size_t *matched)
{
    uint8_t byte = (uint8_t)text[0];
    size_t from = v->special_from[byte], to = v->special_from[byte + 1];
    int32_t longest = -1;
    for (size_t depth = 1; from < to; depth++) {
        uint32_t id = v->special[from];
        if (vocab_text(v, id).len == depth) { /* a text sorts before those it begins */
            if (is_accepted(v, id, depth <= control_len, guard)) {
                longest = (int32_t)id;
                *matched = depth;
            }
            from++;
        }
        if (depth == len) break;
        byte = (uint8_t)text[depth];
        from = lower_bound(v, from, to, depth, byte);
        to = lower_bound(v, from, to, depth, byte + 1);
    }
    return longest;
}
