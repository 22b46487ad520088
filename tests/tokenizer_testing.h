/* tokenizer_testing.h: tokenizers of files and of samples, and comparisons of ids. Static functions, one copy a
 * program. */
#ifndef TESTS_TOKENIZER_TESTING_H
#define TESTS_TOKENIZER_TESTING_H

#include "testing.h"

#include "text/tokenizer.h"
#include "vocab_sample.h"

static mp_error err;

static UNUSED_OK tokenizer *open_tokenizer(const char *path)
{
    gguf *g = NULL;
    tokenizer *t = NULL;
    assert_ok(gguf_open(path, sample_types(), &g, &err), &err);
    assert_ok(tokenizer_new(g, &t, &err), &err);
    gguf_close(g);
    return t;
}

/* The demo model's; skips the test where there is none. */
static UNUSED_OK tokenizer *open_demo(void)
{
    const char *path = "models/demo-olmoe-q8_0.gguf";
    if (access(path, R_OK) != 0) path = shared_path("models/demo-olmoe-q8_0.gguf");
    if (access(path, R_OK) != 0) {
        print_message("SKIPPED: no %s; set MOEPRISM_SHARED\n", path);
        skip();
    }
    return open_tokenizer(path);
}

static mp_status make(const vocab_sample *s, sample_tweak tweak, tokenizer **out)
{
    gguf *g = NULL;
    size_t len = 0;
    char *image = sample_image(s, tweak, &len);
    assert_ok(gguf_open_memory(image, len, sample_types(), &g, &err), &err);
    mp_status status = tokenizer_new(g, out, &err);
    gguf_close(g);
    free(image);
    return status;
}

static UNUSED_OK tokenizer *make_ok(const vocab_sample *s, sample_tweak tweak)
{
    tokenizer *t = NULL;
    assert_ok(make(s, tweak, &t), &err);
    return t;
}

/* The caller frees. */
static int32_t *encode(const tokenizer *t, const char *text, size_t len, unsigned flags, size_t *n)
{
    size_t cap = len + 4; /* bytes never become more tokens than they are, but BOS, EOS and SentencePiece's space */
    int32_t *ids = malloc(cap * sizeof *ids);
    assert_non_null(ids);
    assert_ok(tokenizer_encode(t, text, len, flags, ids, cap, n, &err), &err);
    return ids;
}

static void assert_ids(const tokenizer *t, const char *text, unsigned flags, const int32_t *expected, size_t n_expected)
{
    size_t n = 0;
    int32_t *ids = encode(t, text, strlen(text), flags, &n);
    for (size_t i = 0; i < n && i < n_expected; i++)
        if (ids[i] != expected[i]) fail_msg("\"%s\": token %zu is %d, expected %d", text, i, ids[i], expected[i]);
    if (n != n_expected) fail_msg("\"%s\": %zu tokens, expected %zu", text, n, n_expected);
    free(ids);
}

#define ASSERT_IDS(t, text, flags, ...)                                                                                \
    assert_ids(t, text, flags, (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

#endif
