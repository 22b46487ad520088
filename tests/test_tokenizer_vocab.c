/* Special tokens, strange bytes, decoding, and metadata that is refused. */
#include "tokenizer_testing.h"

static vocab_sample s;

/* Token 256 ends text, 257 and 258 are user-defined and one begins the other, 259 is unknown, 260 is unused. */
enum { END = 256, TOOL, TOOLS, UNKNOWN, SPARE, WORD };

static void fill_sample(void)
{
    sample_init(&s);
    sample_token(&s, "<|im_end|>", TOKEN_CONTROL);
    sample_token(&s, "<tool>", TOKEN_USER_DEFINED);
    sample_token(&s, "<tool>s", TOKEN_USER_DEFINED);
    sample_token(&s, "<unk>", TOKEN_UNKNOWN);
    sample_token(&s, "[GAP]", TOKEN_UNUSED);
    sample_merge(&s, "h i", "hi");
}

static void test_special(void **state)
{
    (void)state;
    fill_sample();
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "hi", 0, WORD);
    ASSERT_IDS(t, "h<tool>i", 0, 'h', TOOL, 'i');
    ASSERT_IDS(t, "<tool><tool>s<tool", 0, TOOL, TOOLS, '<', 't', 'o', 'o', 'l');
    ASSERT_IDS(t, "<tool>sx<<tool>", 0, TOOLS, 'x', '<', TOOL);
    ASSERT_IDS(t, "hi<|im_end|>", MP_TOKENIZE_SPECIAL, WORD, END);
    ASSERT_IDS(t, "<unk><|im_end|><|im_end", MP_TOKENIZE_SPECIAL, UNKNOWN, END, '<', '|', 'i', 'm', '_', 'e', 'n', 'd');
    ASSERT_IDS(t, "<unk>", 0, '<', 'u', 'n', 'k', '>');
    ASSERT_IDS(t, "[GAP]", MP_TOKENIZE_SPECIAL, '[', 'G', 'A', 'P', ']');
    size_t n = 1;
    assert_ok(tokenizer_encode(t, NULL, 0, 0, NULL, 0, &n, &err), &err);
    assert_int_equal(n, 0);
    tokenizer_free(t);
    tokenizer_free(NULL);
}

static void set_bos(gguf_writer *w)
{
    sample_check(gguf_set_u32(w, "tokenizer.ggml.bos_token_id", SPARE, &err), &err);
}

static void set_bos_wanted(gguf_writer *w)
{
    set_bos(w);
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", true, &err), &err);
}

static void set_bos_unwanted(gguf_writer *w)
{
    set_bos(w);
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", false, &err), &err);
}

/* The file's key decides, else the pre-tokenizer's habit, and only with the flag. */
static void test_bos(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        sample_tweak tweak;
        bool added;
    } cases[] = {
        {"gpt-2", NULL, false},
        {"gpt-2", set_bos, false},
        {"gpt-2", set_bos_wanted, true},
        {"gpt-2", set_bos_unwanted, false},
        {"llama-bpe", NULL, false},
        {"llama-bpe", set_bos, true},
        {"llama-bpe", set_bos_unwanted, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fill_sample();
        s.pre = cases[i].pre;
        tokenizer *t = make_ok(&s, cases[i].tweak);
        assert_int_equal(tokenizer_bos(t), cases[i].tweak ? SPARE : -1);
        ASSERT_IDS(t, "hi", 0, WORD);
        if (cases[i].added)
            ASSERT_IDS(t, "hi", MP_TOKENIZE_BOS, SPARE, WORD);
        else
            ASSERT_IDS(t, "hi", MP_TOKENIZE_BOS, WORD);
        tokenizer_free(t);
    }
}

static void set_ends(gguf_writer *w)
{
    sample_check(gguf_set_u32(w, "tokenizer.ggml.eos_token_id", SPARE, &err), &err);
    sample_check(gguf_set_u32(w, "tokenizer.ggml.eot_token_id", TOOL, &err), &err);
    sample_check(gguf_set_u32(w, "tokenizer.ggml.eom_token_id", TOOLS, &err), &err);
}

static void remove_kinds(gguf_writer *w)
{
    sample_check(gguf_remove(w, "tokenizer.ggml.token_type"), &err);
}

static void test_ends(void **state)
{
    (void)state;
    fill_sample();
    int32_t text = sample_token(&s, "</s>", TOKEN_NORMAL), named = sample_token(&s, "<|EOT|>", TOKEN_USER_DEFINED);
    tokenizer *t = make_ok(&s, set_ends);
    assert_int_equal(tokenizer_eos(t), SPARE);
    for (int32_t id = -1; id <= (int32_t)s.n_tokens; id++) {
        bool ends = id == END || id == SPARE || id == TOOL || id == TOOLS || id == named;
        assert_int_equal(tokenizer_ends_text(t, id), ends);
    }
    assert_int_equal(tokenizer_n_tokens(t), s.n_tokens);
    ASSERT_IDS(t, "<|EOT|>", 0, '<', '|', 'E', 'O', 'T', '|', '>'); /* what ends a text is never read from text */
    ASSERT_IDS(t, "<|EOT|>", MP_TOKENIZE_SPECIAL, named);
    tokenizer_free(t);

    t = make_ok(&s, remove_kinds); /* nothing is marked: the names are all there is */
    assert_true(tokenizer_ends_text(t, END));
    assert_true(tokenizer_ends_text(t, text));
    assert_false(tokenizer_ends_text(t, SPARE));
    assert_int_equal(tokenizer_eos(t), -1);
    tokenizer_free(t);
}

static void assert_decodes(const tokenizer *t, int32_t id, bool special, const char *expected)
{
    char bytes[32];
    size_t n = tokenizer_decode(t, id, special, bytes, sizeof bytes);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(bytes, expected, n);
}

static void test_decode(void **state)
{
    (void)state;
    fill_sample();
    int32_t space = sample_token(&s, "\xc4\xa0hi\xc4\x8a", TOKEN_NORMAL); /* " hi\n" */
    int32_t odd = sample_token(&s, "a \xe2\x96\x81\xff", TOKEN_NORMAL);   /* characters that stand for no byte */
    tokenizer *t = make_ok(&s, NULL);
    assert_decodes(t, space, false, " hi\n");
    assert_decodes(t, odd, false, "a \xe2\x96\x81\xff");
    assert_decodes(t, TOOL, false, "<tool>");
    assert_decodes(t, END, false, "");
    assert_decodes(t, END, true, "<|im_end|>");
    assert_decodes(t, UNKNOWN, false, "");
    assert_decodes(t, SPARE, false, "");
    assert_decodes(t, SPARE, true, "[GAP]");
    assert_decodes(t, -1, true, "");
    assert_decodes(t, (int32_t)s.n_tokens, true, "");
    assert_decodes(t, INT32_MIN, true, "");
    char bytes[3] = "??";
    assert_int_equal(tokenizer_decode(t, space, false, bytes, 2), 4); /* the rest is cut off */
    assert_memory_equal(bytes, " h", 3);
    assert_int_equal(tokenizer_decode(t, space, false, NULL, 0), 4);
    tokenizer_free(t);
}

static void test_room(void **state)
{
    (void)state;
    fill_sample();
    tokenizer *t = make_ok(&s, set_bos_wanted);
    int32_t ids[4] = {-9, -9, -9, -9};
    size_t n = 0;
    assert_int_equal(tokenizer_encode(t, "hi<tool>x", 9, MP_TOKENIZE_BOS, ids, 3, &n, &err), MP_E_LIMIT);
    assert_int_equal(n, 4);
    assert_int_equal(ids[2], TOOL);
    assert_int_equal(ids[3], -9);
    assert_int_equal(tokenizer_encode(t, "hi<tool>x", 9, MP_TOKENIZE_BOS, NULL, 0, &n, NULL), MP_E_LIMIT);
    assert_int_equal(n, 4);
    assert_ok(tokenizer_encode(t, "hi<tool>x", 9, MP_TOKENIZE_BOS, ids, n, &n, &err), &err);
    assert_int_equal(ids[3], 'x');
    tokenizer_free(t);
}

/* Invalid bytes are words of their own: the merges below would join them with their neighbours. */
static void test_strange_bytes(void **state)
{
    (void)state;
    fill_sample();
    sample_merge(&s, "\xc3\xbf h", "\xc3\xbfh");               /* 0xff, "h" */
    sample_merge(&s, "\xc3\xbe \xc3\xbf", "\xc3\xbe\xc3\xbf"); /* 0xfe, 0xff */
    sample_merge(&s, "h \xc4\x80", "h\xc4\x80");               /* "h", 0x00 */
    int32_t pair = WORD + 2;
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t,
               "hi\xff"
               "hi",
               0, WORD, 0xff, WORD);
    ASSERT_IDS(t,
               "hi\xfe\xff"
               "h",
               0, WORD, pair, 'h');
    ASSERT_IDS(t, "\xe2\x82", 0, 0xe2, 0x82);
    ASSERT_IDS(t, "\xff<tool>\xff", 0, 0xff, TOOL, 0xff);
    int32_t ids[8];
    size_t n = 0;
    assert_ok(tokenizer_encode(t, "h\0h\0\0hi", 7, 0, ids, 8, &n, &err), &err);
    const int32_t expected[] = {'h', 0, 'h', 0, 0, WORD};
    assert_int_equal(n, 6);
    assert_memory_equal(ids, expected, sizeof expected);
    tokenizer_free(t);
}

/* Vocabularies of models trained on valid UTF-8 may lack the bytes that it has not got, or mark them as something else.
 */
static void test_missing_bytes(void **state)
{
    (void)state;
    fill_sample();
    s.kinds[0xff] = TOKEN_USER_DEFINED; /* "ÿ" itself */
    s.tokens[0xfe] = sample_string("whatever");
    s.tokens[0xbf] = sample_string("something");
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "\xc3\xbf", 0, 0xff);
    ASSERT_IDS(t, "\xff", 0, 0xef, 0xbd); /* U+FFFD as far as it can be written */
    ASSERT_IDS(t, "\xfe", 0, 0xef, 0xbd);
    tokenizer_free(t);
}

/* ---- refusals ---- */

static void remove_tokens(gguf_writer *w)
{
    sample_check(gguf_remove(w, "tokenizer.ggml.tokens"), &err);
}

static void remove_merges(gguf_writer *w)
{
    sample_check(gguf_remove(w, "tokenizer.ggml.merges"), &err);
}

static void number_tokens(gguf_writer *w)
{
    const int32_t numbers[2] = {1, 2};
    sample_check(gguf_set_array(w, "tokenizer.ggml.tokens", GGUF_I32, numbers, 2, &err), &err);
}

static void number_pre(gguf_writer *w)
{
    sample_check(gguf_set_u32(w, "tokenizer.ggml.pre", 1, &err), &err);
}

static void far_bos(gguf_writer *w)
{
    sample_check(gguf_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)s.n_tokens, &err), &err);
}

static void far_eos(gguf_writer *w)
{
    sample_check(gguf_set_u32(w, "tokenizer.ggml.eos_token_id", UINT32_MAX, &err), &err);
}

static void text_eot(gguf_writer *w)
{
    sample_check(gguf_set_string(w, "tokenizer.ggml.eot_token_id", "2", &err), &err);
}

static void bos_without_id(gguf_writer *w)
{
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", true, &err), &err);
}

static void assert_refused(sample_tweak tweak, mp_status status, const char *message)
{
    tokenizer *t = (tokenizer *)&s;
    err = (mp_error){0};
    assert_int_equal(make(&s, tweak, &t), status);
    assert_null(t);
    assert_int_equal(err.status, status);
    if (!strstr(err.message, message)) fail_msg("\"%s\", expected \"%s\"", err.message, message);
    fill_sample();
}

static void test_refused_keys(void **state)
{
    (void)state;
    fill_sample();
    assert_refused(remove_tokens, MP_E_FORMAT, "tokenizer.ggml.tokens");
    assert_refused(number_tokens, MP_E_FORMAT, "tokenizer.ggml.tokens");
    assert_refused(remove_merges, MP_E_FORMAT, "tokenizer.ggml.merges");
    assert_refused(number_pre, MP_E_FORMAT, "tokenizer.ggml.pre");
    assert_refused(far_bos, MP_E_FORMAT, "tokenizer.ggml.bos_token_id = 262: the vocabulary has 262 tokens");
    assert_refused(far_eos, MP_E_FORMAT, "tokenizer.ggml.eos_token_id = 4294967295");
    assert_refused(text_eot, MP_E_FORMAT, "tokenizer.ggml.eot_token_id");
    assert_refused(bos_without_id, MP_E_FORMAT, "tokenizer.ggml.add_bos_token is true but");
    s.model = NULL;
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.model is missing: the file has no tokenizer");
    s.model = "bert";
    assert_refused(NULL, MP_E_UNSUPPORTED, "tokenizer.ggml.model = \"bert\": not supported; what is: \"gpt2\"");
    s.pre = "klingon";
    assert_refused(NULL, MP_E_UNSUPPORTED, "tokenizer.ggml.pre = \"klingon\": not supported; what is");
    s.pre = "";
    assert_refused(NULL, MP_E_UNSUPPORTED, "llama-bpe");
    s.pre = "gpt-2 olmo"; /* two names of the table are no name */
    assert_refused(NULL, MP_E_UNSUPPORTED, "qwen2");
    s.pre = NULL;
    tokenizer_free(make_ok(&s, NULL));
}

static void test_refused_values(void **state)
{
    (void)state;
    fill_sample();
    s.n_tokens = s.n_kinds = s.n_merges = 0;
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.tokens: 0 tokens");
    s.n_kinds--;
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.token_type has 261 entries, tokenizer.ggml.tokens has 262");
    s.kinds[3] = 7;
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.token_type[3] = 7");
    s.kinds[3] = -1;
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.token_type[3] = -1");
    s.tokens[SPARE] = s.tokens['a'];
    assert_refused(NULL, MP_E_FORMAT, "tokenizer.ggml.tokens[260] repeats token 97, \"a\"");
    static const char *const missing[][2] = {
        {"zz i", "tokenizer.ggml.merges[0] = \"zz i\": there is no token \"zz\""},
        {"h zz", "there is no token \"zz\""},
        {"i h", "there is no token \"ih\""},
        {"hi", "expected two tokens with a space between"},
        {"h ", "expected two tokens"},
        {" h", "expected two tokens"},
        {"", "expected two tokens"},
        {"h  i", "there is no token \" i\""},
    };
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        s.merges[0] = sample_string(missing[i][0]);
        assert_refused(NULL, MP_E_FORMAT, missing[i][1]);
    }
    s.tokens[SPARE] = s.tokens[TOOL] = sample_string(""); /* gaps are allowed */
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "hi<tool>", 0, WORD, '<', 't', 'o', 'o', 'l', '>');
    assert_decodes(t, TOOL, true, "");
    tokenizer_free(t);
}

/* A pair that is named twice keeps its first rank. */
static void test_repeated_merge(void **state)
{
    (void)state;
    fill_sample();
    sample_merge(&s, "i h", "ih");
    sample_merge(&s, "h i", NULL);
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "ihi", 0, 'i', WORD);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special),        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_ends),           cmocka_unit_test(test_decode),
        cmocka_unit_test(test_room),           cmocka_unit_test(test_strange_bytes),
        cmocka_unit_test(test_missing_bytes),  cmocka_unit_test(test_refused_keys),
        cmocka_unit_test(test_refused_values), cmocka_unit_test(test_repeated_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
