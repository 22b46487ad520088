/* vocab_sample.h: small vocabularies made by the test, as the bytes of a GGUF. Static, one copy a program; any failure
 * aborts. */
#ifndef TESTS_VOCAB_SAMPLE_H
#define TESTS_VOCAB_SAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "gguf/gguf.h"
#include "tensor/dtype.h"
#include "text/utf8.h"
#include "text/vocab.h"

#define SAMPLE_MAX 1024

#define UNUSED_SAMPLE __attribute__((unused))

/* The fields may be set to anything before sample_image(); NULL model or pre: no such key. */
typedef struct vocab_sample {
    const char *model, *pre;
    gguf_string tokens[SAMPLE_MAX], merges[SAMPLE_MAX];
    int32_t kinds[SAMPLE_MAX];
    float scores[SAMPLE_MAX]; /* [n_tokens], written where the model is "llama" */
    size_t n_tokens, n_kinds, n_merges;
    char byte_texts[256][16];
} vocab_sample;

static gguf_string sample_string(const char *text)
{
    return (gguf_string){text, strlen(text)};
}

static int32_t sample_token(vocab_sample *s, const char *text, enum token_kind kind)
{
    if (s->n_tokens == SAMPLE_MAX) abort();
    s->tokens[s->n_tokens] = sample_string(text);
    s->kinds[s->n_kinds++] = kind;
    return (int32_t)s->n_tokens++;
}

/* "left right", and the token that they make where there is none yet. All texts must outlive the sample. */
static UNUSED_SAMPLE void sample_merge(vocab_sample *s, const char *merge, const char *makes)
{
    if (s->n_merges == SAMPLE_MAX) abort();
    s->merges[s->n_merges++] = sample_string(merge);
    if (makes) sample_token(s, makes, TOKEN_NORMAL);
}

/* The 256 bytes, ids in their order, and nothing else. */
static UNUSED_SAMPLE void sample_init(vocab_sample *s)
{
    memset(s, 0, sizeof *s);
    s->model = "gpt2";
    s->pre = "gpt-2";
    for (int byte = 0; byte < 256; byte++) {
        s->tokens[byte] = (gguf_string){s->byte_texts[byte], byte_to_text((uint8_t)byte, s->byte_texts[byte])};
        s->kinds[byte] = TOKEN_NORMAL;
    }
    s->n_tokens = s->n_kinds = 256;
}

/* SentencePiece's first tokens: <unk>, <s>, </s>, then the bytes from 3 on. */
static UNUSED_SAMPLE void sample_init_spm(vocab_sample *s)
{
    memset(s, 0, sizeof *s);
    s->model = "llama";
    sample_token(s, "<unk>", TOKEN_UNKNOWN);
    sample_token(s, "<s>", TOKEN_CONTROL);
    sample_token(s, "</s>", TOKEN_CONTROL);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(s->byte_texts[byte], sizeof s->byte_texts[byte], "<0x%02X>", (unsigned)byte);
        sample_token(s, s->byte_texts[byte], TOKEN_BYTE);
    }
}

/* A piece of text and its score; higher ones merge first. */
static UNUSED_SAMPLE int32_t sample_piece(vocab_sample *s, const char *text, float score)
{
    int32_t id = sample_token(s, text, TOKEN_NORMAL);
    s->scores[id] = score;
    return id;
}

static void sample_check(mp_status status, const mp_error *err)
{
    if (status == MP_OK) return;
    fprintf(stderr, "vocab_sample: %s\n", err->message);
    abort();
}

/* What a test may change of the keys before they are written. */
typedef void (*sample_tweak)(gguf_writer *w);

/* The GGUF's bytes; the caller frees. */
static char *sample_image(const vocab_sample *s, sample_tweak tweak, size_t *len)
{
    mp_error err;
    char folder[] = "/tmp/vocab_sample.XXXXXX", path[64], *data = NULL;
    gguf_writer *w = NULL;
    if (!mkdtemp(folder)) abort();
    snprintf(path, sizeof path, "%s/v.gguf", folder);
    sample_check(gguf_writer_new(32, &w, &err), &err);
    sample_check(gguf_set_string(w, "general.architecture", "test", &err), &err);
    if (s->model) sample_check(gguf_set_string(w, "tokenizer.ggml.model", s->model, &err), &err);
    if (s->pre) sample_check(gguf_set_string(w, "tokenizer.ggml.pre", s->pre, &err), &err);
    sample_check(gguf_set_strings(w, "tokenizer.ggml.tokens", s->tokens, s->n_tokens, &err), &err);
    sample_check(gguf_set_array(w, "tokenizer.ggml.token_type", GGUF_I32, s->kinds, s->n_kinds, &err), &err);
    if (s->model && strcmp(s->model, "llama") == 0)
        sample_check(gguf_set_array(w, "tokenizer.ggml.scores", GGUF_F32, s->scores, s->n_tokens, &err), &err);
    sample_check(gguf_set_strings(w, "tokenizer.ggml.merges", s->merges, s->n_merges, &err), &err);
    if (tweak) tweak(w);
    sample_check(gguf_writer_begin(w, path, false, 0, &err), &err);
    sample_check(gguf_writer_commit(w, &err), &err);
    gguf_writer_free(w);
    sample_check(file_read(path, &data, len, &err), &err);
    unlink(path);
    rmdir(folder);
    return data;
}

static const gguf_types *sample_types(void)
{
    static gguf_types types;
    types = (gguf_types){dtype_row_bytes, dtype_list()};
    return &types;
}

#endif
