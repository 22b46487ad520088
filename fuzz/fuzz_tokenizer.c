/* The first byte of the input says what the rest is:
 *   0  text for a small vocabulary, which must come back from its ids; a second byte chooses pre-tokenizer and flags
 *   1  changes to that vocabulary's file, three bytes each (place, value), up to a 0xff 0xff; then text
 *   2  a file */
#include <stdint.h>

#include "../tests/vocab_sample.h"
#include "text/tokenizer.h"

#define N_PRE 8

static char *images[N_PRE];
static size_t image_lens[N_PRE];
static tokenizer *tokenizers[N_PRE];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_ids(gguf_writer *w)
{
    mp_error err;
    sample_check(gguf_set_u32(w, "tokenizer.ggml.bos_token_id", 256, &err), &err);
    sample_check(gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 256, &err), &err);
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", true, &err), &err);
}

static void make_image(vocab_sample *s, const char *pre, char **image, size_t *len)
{
    sample_init(s);
    s->pre = pre;
    sample_token(s, "<s>", TOKEN_CONTROL);
    sample_token(s, "<t>", TOKEN_USER_DEFINED);
    sample_token(s, "<t>t", TOKEN_USER_DEFINED);
    sample_merge(s, "a b", "ab");
    sample_merge(s, "b a", "ba");
    sample_merge(s, "ab ab", "abab");
    sample_merge(s, "a ba", "aba");
    sample_merge(s, "\xc3\x83 \xc2\xa9", "\xc3\x83\xc2\xa9"); /* the two bytes of U+00E9 */
    sample_merge(s, "\xc4\xa0 \xc4\xa0", "\xc4\xa0\xc4\xa0"); /* two spaces */
    *image = sample_image(s, add_ids, len);
}

static tokenizer *open_image(const void *data, size_t len)
{
    gguf *g = NULL;
    tokenizer *t = NULL;
    mp_error err;
    if (gguf_open_memory(data, len, sample_types(), &g, &err) == MP_OK && tokenizer_new(g, &t, &err) != MP_OK && t)
        abort();
    gguf_close(g);
    return t;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    static const char *const pre[N_PRE] = {"gpt-2",  "refact",       "default",        "llama-bpe",
                                           "qwen35", "deepseek-llm", "deepseek-coder", "gpt-4o"};
    static vocab_sample s;
    for (int i = 0; i < N_PRE; i++) {
        make_image(&s, pre[i], &images[i], &image_lens[i]);
        tokenizers[i] = open_image(images[i], image_lens[i]);
        if (!tokenizers[i]) abort();
    }
    return 0;
}

/* Tokenizes and decodes; `same`: the text must come back. */
static void run_text(const tokenizer *t, const uint8_t *text, size_t len, unsigned flags, bool same)
{
    mp_error err;
    size_t n = 0, again = 0, at = 0;
    mp_status status = tokenizer_encode(t, (const char *)text, len, flags, NULL, 0, &n, &err);
    if (status != (n ? MP_E_LIMIT : MP_OK)) abort();
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids || tokenizer_encode(t, (const char *)text, len, flags, ids, n, &again, &err) != MP_OK || again != n)
        abort();
    for (size_t i = 0; i < n; i++) {
        char bytes[64];
        if (ids[i] < 0 || (uint32_t)ids[i] >= tokenizer_n_tokens(t)) abort();
        size_t got = tokenizer_decode(t, ids[i], true, bytes, sizeof bytes);
        if (!same) continue;
        if (got > len - at || memcmp(bytes, text + at, got) != 0) abort();
        at += got;
    }
    if (same && at != len) abort();
    free(ids);
}

static void run_changed(const uint8_t *data, size_t size)
{
    size_t which = data[0] % N_PRE, len = image_lens[which];
    char *image = malloc(len);
    if (!image) abort();
    memcpy(image, images[which], len);
    data++, size--;
    for (; size >= 3 && !(data[0] == 0xff && data[1] == 0xff); data += 3, size -= 3)
        image[(data[0] | (size_t)data[1] << 8) % len] = (char)data[2];
    tokenizer *t = open_image(image, len);
    free(image); /* the tokenizer must not need it any more */
    if (t) run_text(t, data, size, MP_TOKENIZE_BOS | MP_TOKENIZE_SPECIAL, false);
    tokenizer_free(t);
}

static void run_file(const uint8_t *data, size_t size)
{
    char *image = malloc(size); /* aligned, and its end is seen */
    if (!image) abort();
    memcpy(image, data, size);
    tokenizer_free(open_image(image, size));
    free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    if (data[0] % 3 == 0)
        run_text(tokenizers[data[1] % N_PRE], data + 2, size - 2, data[1] & 0x80 ? MP_TOKENIZE_SPECIAL : 0, true);
    else if (data[0] % 3 == 1)
        run_changed(data + 1, size - 1);
    else
        run_file(data + 1, size - 1);
    return 0;
}
