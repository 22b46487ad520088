/* The first byte of the input says what the rest is:
 *   0  text for a small vocabulary, which must come back from its ids; a second byte chooses vocabulary and flags
 *   1  changes to that vocabulary's file, three bytes each (place, value), up to a 0xff 0xff; then text
 *   2  a file
 *   3  a conversation, its messages apart by 0xff: control tokens must come from the template only */
#include <stdint.h>

#include "../tests/vocab_sample.h"
#include "text/chat.h"

#define N_BPE 8
#define N_PRE (N_BPE + 2) /* SentencePiece, words apart and not */
#define SPACE "\xe2\x96\x81"
#define BOS   256 /* of the byte-level ones */

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

/* Nothing user-defined: a space follows such a token, and the text would not come back. */
static void make_spm_image(vocab_sample *s, bool apart, char **image, size_t *len)
{
    static const char *const pieces[] = {SPACE,      "a",  "b",    "ab", "ba",  "abab", "aba",        (SPACE "a"),
                                         "\xc3\xa9", "\n", "\n\n", "<s", "xyz", "xy",   (SPACE SPACE)};
    sample_init_spm(s);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) sample_piece(s, pieces[i], -(float)(i / 2));
    if (!apart) sample_piece(s, "a" SPACE, -1);
    *image = sample_image(s, NULL, len);
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
    static const char *const pre[N_BPE] = {"gpt-2",  "refact",       "default",        "llama-bpe",
                                           "qwen35", "deepseek-llm", "deepseek-coder", "kimi-k2"};
    static vocab_sample s;
    for (int i = 0; i < N_PRE; i++) {
        if (i < N_BPE)
            make_image(&s, pre[i], &images[i], &image_lens[i]);
        else
            make_spm_image(&s, i == N_BPE, &images[i], &image_lens[i]);
        tokenizers[i] = open_image(images[i], image_lens[i]);
        if (!tokenizers[i]) abort();
    }
    return 0;
}

/* The ids must decode to the text; SentencePiece gives spaces where the text has U+2581. */
static void check_text(const tokenizer *t, const int32_t *ids, size_t n, const uint8_t *text, size_t len, bool spm)
{
    char *expected = malloc(len + 1), *back = malloc(len + 1);
    size_t n_expected = 0;
    if (!expected || !back) abort();
    for (size_t i = 0; i < len; n_expected++) {
        bool space = spm && len - i >= 3 && memcmp(text + i, SPACE, 3) == 0;
        expected[n_expected] = space ? ' ' : (char)text[i];
        i += space ? 3 : 1;
    }
    if (tokenizer_decode_all(t, ids, n, true, back, len) != n_expected) abort();
    if (memcmp(back, expected, n_expected) != 0) abort();
    free(expected);
    free(back);
}

/* Tokenizes and decodes. */
static int32_t *run_text(const tokenizer *t, const uint8_t *text, size_t len, unsigned flags, size_t *n_ids)
{
    mp_error err;
    size_t n = 0, again = 0;
    mp_status status = tokenizer_encode(t, (const char *)text, len, flags, NULL, 0, &n, &err);
    if (status != (n ? MP_E_LIMIT : MP_OK)) abort();
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids || tokenizer_encode(t, (const char *)text, len, flags, ids, n, &again, &err) != MP_OK || again != n)
        abort();
    for (size_t i = 0; i < n; i++) {
        char bytes[64];
        if (ids[i] < 0 || (uint32_t)ids[i] >= tokenizer_n_tokens(t)) abort();
        tokenizer_decode(t, ids[i], true, bytes, sizeof bytes);
    }
    *n_ids = n;
    return ids;
}

static void run_same(size_t which, unsigned flags, const uint8_t *text, size_t len)
{
    size_t n = 0;
    bool spm = which >= N_BPE;
    int32_t *ids = run_text(tokenizers[which], text, len, spm ? 0 : flags, &n);
    check_text(tokenizers[which], ids, n, text, len, spm);
    free(ids);
}

/* The family writes no control token of this vocabulary: messages must not either. */
static void run_chat(const tokenizer *t, const char *family, const uint8_t *data, size_t size)
{
    static const char *const roles[] = {"user", "assistant", "system"};
    mp_chat_message messages[16];
    char texts[16][256];
    size_t n = 0, n_ids = 0;
    mp_error err;
    chat_text out;
    for (size_t at = 0; at < size && n < 16; n++) {
        size_t len = 0;
        while (at < size && data[at] != 0xff && len < 255) texts[n][len++] = (char)data[at++];
        texts[n][len] = 0;
        at++;
        messages[n] = (mp_chat_message){roles[n % 3], texts[n]};
    }
    if (chat_render(t, family, messages, n, true, &out, &err) != MP_OK) abort();
    int32_t *ids = calloc(out.len + 4, sizeof *ids);
    if (!ids || tokenizer_encode_marked(t, out.data, out.len, out.marked, out.n_marked, false, ids, out.len + 4, &n_ids,
                                        &err) != MP_OK)
        abort();
    for (size_t i = 1; i < n_ids; i++) /* the first may be the file's BOS */
        if (ids[i] == BOS) abort();
    free(ids);
    chat_text_clear(&out);
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
    size_t n = 0;
    if (t) free(run_text(t, data, size, MP_TOKENIZE_BOS | MP_TOKENIZE_EOS | MP_TOKENIZE_SPECIAL, &n));
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
    switch (data[0] % 4) {
    case 0:
        run_same(data[1] % N_PRE, data[1] & 0x80 ? MP_TOKENIZE_SPECIAL : 0, data + 2, size - 2);
        break;
    case 1:
        run_changed(data + 1, size - 1);
        break;
    case 2:
        run_file(data + 1, size - 1);
        break;
    default:
        run_chat(tokenizers[data[1] % N_BPE], "granite", data + 2, size - 2);
    }
    return 0;
}
