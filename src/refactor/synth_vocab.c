/* A vocabulary that works: 256 byte tokens, then merges of English letters, likely ones first: a space and a letter,
 * pairs, a space and three letters, four letters. Any text can be written with it, in about two bytes a token. Then the
 * control tokens at the ids of the real model, and unused ones up to its size. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refactor/synth.h"
#include "text/utf8.h"

#define TEXT_MAX  40
#define N_LETTERS 26

/* tokenizer.ggml.token_type */
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_UNUSED = 5 };

typedef struct vocab {
    size_t size, n_text;      /* tokens, and those of text */
    size_t n, n_merges;       /* made so far */
    char (*texts)[TEXT_MAX];  /* [size] */
    char (*merged)[TEXT_MAX]; /* [n_text] */
    gguf_string *tokens;      /* [size] */
    gguf_string *merges;      /* [n_text] */
    int32_t *types;           /* [size] */
} vocab;

/* Tokens by id: `count` of them. */
typedef struct id_list {
    uint32_t ids[N_LETTERS * N_LETTERS];
    size_t count;
} id_list;

static void add_token(vocab *v, int32_t type, const char *text, size_t len)
{
    memcpy(v->texts[v->n], text, len);
    v->tokens[v->n] = (gguf_string){v->texts[v->n], len};
    v->types[v->n++] = type;
}

static void add_merge(vocab *v, uint32_t left, uint32_t right)
{
    const gguf_string a = v->tokens[left], b = v->tokens[right];
    char text[TEXT_MAX], *merge = v->merged[v->n_merges];
    assert(a.len + b.len + 1 < TEXT_MAX);
    memcpy(text, a.data, a.len);
    memcpy(text + a.len, b.data, b.len);
    memcpy(merge, a.data, a.len);
    merge[a.len] = ' ';
    memcpy(merge + a.len + 1, b.data, b.len);
    v->merges[v->n_merges++] = (gguf_string){merge, a.len + 1 + b.len};
    add_token(v, TOKEN_NORMAL, text, a.len + b.len);
}

/* Every left with every right while there is room, in order of the sum of their places: likely ones first. made: NULL
 * or where the new ids go. */
static void add_products(vocab *v, const id_list *left, const id_list *right, id_list *made)
{
    for (size_t sum = 0; sum + 1 < left->count + right->count; sum++)
        for (size_t i = 0; i < left->count && i <= sum; i++) {
            if (sum - i >= right->count) continue;
            if (v->n == v->n_text) return;
            if (made) made->ids[made->count++] = (uint32_t)v->n;
            add_merge(v, left->ids[i], right->ids[sum - i]);
        }
}

static void add_text(vocab *v)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkqjxz"; /* by how common they are */
    id_list space = {.count = 0}, letter = {.count = 0}, word = {.count = 0}, pair = {.count = 0};
    for (int byte = 0; byte < 256; byte++) {
        char text[2];
        add_token(v, TOKEN_NORMAL, text, byte_to_text((uint8_t)byte, text));
    }
    space.ids[space.count++] = ' ';
    for (size_t i = 0; i < N_LETTERS; i++) letter.ids[letter.count++] = (uint8_t)letters[i];
    add_products(v, &space, &letter, &word);
    add_products(v, &letter, &letter, &pair);
    add_products(v, &word, &pair, NULL);
    add_products(v, &pair, &pair, NULL);
}

static void add_special(vocab *v, const synth_shape *s)
{
    while (v->n < v->size) {
        char text[TEXT_MAX];
        const bool begins = (int32_t)v->n == s->bos, ends = (int32_t)v->n == s->eos;
        int len = snprintf(text, sizeof text, "[PAD%zu]", v->n);
        if (ends) len = snprintf(text, sizeof text, "<|im_end|>");
        if (begins) len = snprintf(text, sizeof text, "<|begin_of_text|>");
        add_token(v, begins || ends ? TOKEN_CONTROL : TOKEN_UNUSED, text, (size_t)len);
    }
}

static mp_status put_vocab(const vocab *v, const synth_shape *s, gguf_writer *w, mp_error *err)
{
    MP_TRY(gguf_set_string(w, "tokenizer.ggml.model", "gpt2", err));
    MP_TRY(gguf_set_string(w, "tokenizer.ggml.pre", s->pre, err));
    MP_TRY(gguf_set_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n, err));
    MP_TRY(gguf_set_array(w, "tokenizer.ggml.token_type", GGUF_I32, v->types, v->n, err));
    MP_TRY(gguf_set_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges, err));
    if (s->bos >= 0) MP_TRY(gguf_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)s->bos, err));
    MP_TRY(gguf_set_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s->eos, err));
    MP_TRY(gguf_set_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)s->pad, err));
    MP_TRY(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", s->add_bos, err));
    return gguf_set_bool(w, "tokenizer.ggml.add_eos_token", false, err);
}

mp_status synth_vocab_keys(const synth_shape *s, gguf_writer *w, mp_error *err)
{
    vocab v = {.size = s->n_vocab, .n_text = s->n_text};
    mp_status status = MP_OK;
    v.texts = malloc(v.size * sizeof *v.texts);
    v.merged = malloc(v.n_text * sizeof *v.merged);
    v.tokens = malloc(v.size * sizeof *v.tokens);
    v.merges = malloc(v.n_text * sizeof *v.merges);
    v.types = malloc(v.size * sizeof *v.types);
    if (!v.texts || !v.merged || !v.tokens || !v.merges || !v.types) {
        status = status_no_memory(err, v.size * 2 * sizeof *v.texts, "a vocabulary");
        goto out;
    }
    add_text(&v);
    add_special(&v, s);
    status = put_vocab(&v, s, w, err);
out:
    free(v.texts);
    free(v.merged);
    free(v.tokens);
    free(v.merges);
    free(v.types);
    return status;
}
