/* SentencePiece: merging against a slow reference, spaces, bytes, special tokens, and metadata that is refused. */
#include "tokenizer_testing.h"

#include "base/rng.h"

#define U "\xe2\x96\x81"

static vocab_sample s;

enum { UNK, BOS, EOS, BYTES };

#define BYTE(c) (BYTES + (uint8_t)(c))

enum { SPACE = BYTES + 256, HELLO, H, E, L, O, HE, LL, LLO, CAFE, EUR, TWO, WORD };

/* Scores as SentencePiece's: the earlier a merge was learnt, the higher. */
static void fill_sample(void)
{
    sample_init_spm(&s);
    sample_piece(&s, U, -20);
    sample_piece(&s, U "hello", -7);
    sample_piece(&s, "h", -21);
    sample_piece(&s, "e", -22);
    sample_piece(&s, "l", -23);
    sample_piece(&s, "o", -24);
    sample_piece(&s, "he", -1);
    sample_piece(&s, "ll", -2);
    sample_piece(&s, "llo", -3);
    sample_piece(&s, "caf\xc3\xa9", -4);
    sample_piece(&s, "\xe2\x82\xac", -25);
    sample_piece(&s, U U, -5);
    sample_piece(&s, "hello", -6);
}

static void test_pieces(void **state)
{
    (void)state;
    fill_sample();
    tokenizer *t = make_ok(&s, NULL);
    assert_int_equal(tokenizer_bos(t), BOS); /* where the file names none */
    assert_int_equal(tokenizer_eos(t), EOS);
    assert_true(tokenizer_ends_text(t, EOS));
    ASSERT_IDS(t, "", MP_TOKENIZE_BOS, BOS);
    ASSERT_IDS(t, "", 0, );
    ASSERT_IDS(t, "hello", MP_TOKENIZE_BOS, BOS, HELLO);
    ASSERT_IDS(t, "hello", 0, HELLO);
    ASSERT_IDS(t, "lle hello", 0, SPACE, LL, E, HELLO);
    ASSERT_IDS(t, "ohello", 0, SPACE, O, WORD);
    ASSERT_IDS(t, " hello", 0, TWO, WORD); /* the two spaces merge first */
    ASSERT_IDS(t, "   ", 0, TWO, TWO);
    ASSERT_IDS(t, "lll", 0, SPACE, LL, L); /* leftmost of equals */
    ASSERT_IDS(t, "\n", 0, SPACE, BYTE('\n'));
    ASSERT_IDS(t, "\xe2\x82\xac\xc3\xa9", 0, SPACE, EUR, BYTE(0xc3), BYTE(0xa9));
    ASSERT_IDS(t, "\xe2\x82", 0, SPACE, BYTE(0xe2), BYTE(0x82)); /* strange bytes */
    ASSERT_IDS(t, "\xffh\xc3", 0, SPACE, BYTE(0xff), H, BYTE(0xc3));
    ASSERT_IDS(t, "cafe", 0, SPACE, BYTE('c'), BYTE('a'), BYTE('f'), E);
    ASSERT_IDS(t, U "hello", 0, TWO, WORD); /* the character itself is a space */
    ASSERT_IDS(t, "<0x41>", 0, SPACE, BYTE('<'), BYTE('0'), BYTE('x'), BYTE('4'), BYTE('1'), BYTE('>'));
    tokenizer_free(t);
}

/* "caf\u00e9" has no parts, but its own characters are merged by text: no token is needed for each. */
static void test_parts_without_tokens(void **state)
{
    (void)state;
    fill_sample();
    int32_t ab = sample_piece(&s, "xy", -8), abc = sample_piece(&s, "xyz", -9);
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "xyz", 0, SPACE, abc);
    ASSERT_IDS(t, "xyxyz", 0, SPACE, ab, abc);
    ASSERT_IDS(t, "xz", 0, SPACE, BYTE('x'), BYTE('z'));
    tokenizer_free(t);
}

static void no_space(gguf_writer *w)
{
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_space_prefix", false, &err), &err);
}

static void no_extra(gguf_writer *w)
{
    sample_check(gguf_set_bool(w, "tokenizer.ggml.remove_extra_whitespaces", true, &err), &err);
}

static void no_bos(gguf_writer *w)
{
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_bos_token", false, &err), &err);
}

static void add_eos(gguf_writer *w)
{
    sample_check(gguf_set_bool(w, "tokenizer.ggml.add_eos_token", true, &err), &err);
}

static void test_keys(void **state)
{
    (void)state;
    fill_sample();
    tokenizer *t = make_ok(&s, no_space);
    ASSERT_IDS(t, "llo hello", MP_TOKENIZE_BOS, BOS, LLO, HELLO);
    ASSERT_IDS(t, " hello", 0, HELLO);
    tokenizer_free(t);
    t = make_ok(&s, no_extra);
    ASSERT_IDS(t, "  llo   hello ", 0, SPACE, LLO, HELLO);
    ASSERT_IDS(t, "   ", 0, );
    tokenizer_free(t);
    t = make_ok(&s, no_bos);
    ASSERT_IDS(t, "hello", MP_TOKENIZE_BOS, HELLO);
    tokenizer_free(t);
    t = make_ok(&s, add_eos);
    ASSERT_IDS(t, "hello", MP_TOKENIZE_BOS, BOS, HELLO);
    ASSERT_IDS(t, "hello", MP_TOKENIZE_BOS | MP_TOKENIZE_EOS, BOS, HELLO, EOS);
    tokenizer_free(t);
}

static void test_special(void **state)
{
    (void)state;
    fill_sample();
    int32_t user = sample_token(&s, "[INST]", TOKEN_CONTROL), tool = sample_token(&s, "  ll", TOKEN_USER_DEFINED);
    tokenizer *t = make_ok(&s, NULL);
    /* A space stands before what follows a special token, too. */
    ASSERT_IDS(t, "<s>hello</s>", MP_TOKENIZE_SPECIAL, BOS, HELLO, EOS);
    ASSERT_IDS(t, "hello[INST]hello", MP_TOKENIZE_SPECIAL, HELLO, user, HELLO);
    ASSERT_IDS(t, "[INST] hello", MP_TOKENIZE_SPECIAL, user, TWO, WORD);
    ASSERT_IDS(t, "o  llhello", 0, SPACE, O, tool, HELLO);
    ASSERT_IDS(t, "o</s>", 0, SPACE, O, BYTE('<'), BYTE('/'), BYTE('s'), BYTE('>'));
    tokenizer_free(t);
}

/* Parts that merge to a control token's text stay parts. */
static void test_no_smuggling(void **state)
{
    (void)state;
    fill_sample();
    int32_t part = sample_piece(&s, "</s", -8), end = sample_piece(&s, ">", -9);
    tokenizer *t = make_ok(&s, NULL);
    sample_piece(&s, "</", -8);
    ASSERT_IDS(t, "</s>", 0, SPACE, BYTE('<'), BYTE('/'), BYTE('s'), end);
    tokenizer_free(t);
    t = make_ok(&s, NULL);
    ASSERT_IDS(t, "</s>", 0, SPACE, part, end);
    tokenizer_free(t);
}

static void name_phi3(gguf_writer *w)
{
    sample_check(gguf_set_string(w, "general.name", "Phi-3 mini", &err), &err);
}

static void test_strips(void **state)
{
    (void)state;
    fill_sample();
    int32_t user = sample_token(&s, "<|user|>", TOKEN_CONTROL);
    tokenizer *t = make_ok(&s, name_phi3);
    ASSERT_IDS(t, "<|user|> \n\thello</s> ", MP_TOKENIZE_SPECIAL, user, HELLO, EOS);
    ASSERT_IDS(t, "<s> hello", MP_TOKENIZE_SPECIAL, BOS, TWO, WORD);
    tokenizer_free(t);
}

static void assert_text(const tokenizer *t, const int32_t *ids, size_t n, bool special, const char *expected)
{
    char text[64];
    size_t len = tokenizer_decode_all(t, ids, n, special, text, sizeof text);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(text, expected, len);
    memset(text, 'x', sizeof text);
    assert_int_equal(tokenizer_decode_all(t, ids, n, special, text, 2), len); /* no room: the length all the same */
    assert_memory_equal(text, expected, len < 2 ? len : 2);
    assert_int_equal(text[2], 'x');
}

#define ASSERT_TEXT(t, special, expected, ...)                                                                         \
    assert_text(t, (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), special,        \
                expected)

static void test_decode(void **state)
{
    (void)state;
    fill_sample();
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_TEXT(t, false, "hello hello", BOS, HELLO, HELLO, EOS);
    ASSERT_TEXT(t, true, "<s>hello hello</s>", BOS, HELLO, HELLO, EOS);
    ASSERT_TEXT(t, false, "\xe2\x82\xac", SPACE, BYTE(0xe2), BYTE(0x82), BYTE(0xac));
    ASSERT_TEXT(t, false, " hello", TWO, HE, LLO);
    ASSERT_TEXT(t, false, "he hello", HE, HELLO); /* only at the beginning */
    ASSERT_TEXT(t, false, "", UNK, -1, 100000);
    char one[8];
    assert_int_equal(tokenizer_decode(t, HELLO, false, one, sizeof one), 6); /* a token for itself keeps its space */
    assert_memory_equal(one, " hello", 6);
    tokenizer_free(t);
    t = make_ok(&s, no_space);
    ASSERT_TEXT(t, false, " hello", HELLO);
    tokenizer_free(t);
}

/* ---- bytes that have no token ---- */

static void test_no_bytes(void **state)
{
    (void)state;
    fill_sample();
    for (int i = 0; i < 256; i++) {
        s.kinds[BYTES + i] = TOKEN_UNUSED;
        snprintf(s.byte_texts[i], sizeof s.byte_texts[i], "gap%d", i);
        s.tokens[BYTES + i] = sample_string(s.byte_texts[i]);
    }
    int32_t tab = sample_token(&s, "\t", TOKEN_BYTE);
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "h\xc3\xa9?\th", 0, SPACE, H, UNK, UNK, tab, H); /* one for a character */
    tokenizer_free(t);
}

/* ---- against the definition ---- */

typedef struct slow_symbol {
    const char *text;
    size_t len;
} slow_symbol;

static int32_t find_piece(const char *text, size_t len)
{
    for (size_t i = SPACE; i < s.n_tokens; i++)
        if (s.tokens[i].len == len && memcmp(s.tokens[i].data, text, len) == 0) return (int32_t)i;
    return -1;
}

/* Again and again the best score, the leftmost of equals. The text is ASCII without spaces, and begins with U+2581. */
static size_t encode_slowly(const char *text, size_t len, int32_t *ids)
{
    static slow_symbol symbols[512];
    size_t n = 0;
    for (size_t at = 0; at < len; n++) {
        symbols[n] = (slow_symbol){text + at, at ? 1 : 3};
        at += symbols[n].len;
    }
    for (;;) {
        size_t best = n;
        float score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t id = find_piece(symbols[i].text, symbols[i].len + symbols[i + 1].len);
            if (id < 0 || (best < n && s.scores[id] <= score)) continue;
            best = i;
            score = s.scores[id];
        }
        if (best == n) break;
        symbols[best].len += symbols[best + 1].len;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 2) * sizeof *symbols);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        ids[i] = find_piece(symbols[i].text, symbols[i].len);
        if (ids[i] < 0) ids[i] = BYTE(*symbols[i].text);
    }
    return n;
}

static void test_merges(void **state)
{
    (void)state;
    static char texts[120][16];
    rng r;
    rng_init(&r, 3);
    for (int round = 0; round < 20; round++) {
        sample_init_spm(&s);
        sample_piece(&s, U, -1);
        for (size_t i = 0; i < 120; i++) { /* pieces of three letters, some with spaces; few scores: many ties */
            size_t len = 0, n = 1 + rng_below(&r, 5);
            for (size_t j = 0; j < n; j++) texts[i][len++] = (char)('a' + rng_below(&r, 3));
            texts[i][len] = 0;
            if (find_piece(texts[i], len) < 0) sample_piece(&s, texts[i], -(float)rng_below(&r, 1 + (uint64_t)round));
        }
        tokenizer *t = make_ok(&s, NULL);
        for (int word = 0; word < 100; word++) {
            char text[304] = U;
            int32_t expected[304];
            size_t len = 1 + (size_t)rng_below(&r, 300);
            for (size_t i = 0; i < len; i++) text[3 + i] = (char)('a' + rng_below(&r, 1 + (uint64_t)word % 3));
            text[3 + len] = 0;
            size_t n = encode_slowly(text, len + 3, expected);
            assert_ids(t, text + 3, 0, expected, n);
        }
        tokenizer_free(t);
    }
}

/* Words are merged one by one unless a token spans two: the same ids either way. */
static void test_words(void **state)
{
    (void)state;
    static const char *const texts[] = {"hello hello", "  hello\n hello  o", ("o" U U "hello"), "lle  ", ""};
    fill_sample();
    tokenizer *apart = make_ok(&s, NULL);
    sample_piece(&s, "never" U "met", -30);
    tokenizer *whole = make_ok(&s, NULL);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = 0;
        int32_t *ids = encode(whole, texts[i], strlen(texts[i]), 0, &n);
        assert_ids(apart, texts[i], 0, ids, n);
        free(ids);
    }
    tokenizer_free(apart);
    int32_t across = sample_piece(&s, "o" U, -0.5F);
    tokenizer_free(whole);
    whole = make_ok(&s, NULL);
    ASSERT_IDS(whole, "hello hello", 0, SPACE, HE, LL, across, WORD);
    tokenizer_free(whole);
}

/* Ends only if the time is not quadratic: one word of 4 MB. */
static void test_long_text(void **state)
{
    (void)state;
    size_t len = (size_t)4 << 20, n = 0;
    char *text = malloc(len);
    assert_non_null(text);
    fill_sample();
    tokenizer *t = make_ok(&s, NULL);
    memset(text, 'l', len);
    int32_t *ids = encode(t, text, len, 0, &n);
    assert_int_equal(n, len / 2 + 1);
    free(ids);
    memset(text, ' ', len);
    ids = encode(t, text, len, 0, &n);
    assert_int_equal(n, len / 2 + 1);
    free(ids);
    free(text);
    tokenizer_free(t);
}

/* ---- what is refused ---- */

static void remove_scores(gguf_writer *w)
{
    sample_check(gguf_remove(w, "tokenizer.ggml.scores"), &err);
}

static void short_scores(gguf_writer *w)
{
    const float scores[2] = {1, 2};
    sample_check(gguf_set_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, 2, &err), &err);
}

static void number_scores(gguf_writer *w)
{
    static int32_t scores[SAMPLE_MAX]; /* whole numbers are fine */
    sample_check(gguf_set_array(w, "tokenizer.ggml.scores", GGUF_I32, scores, s.n_tokens, &err), &err);
}

static void strange_space(gguf_writer *w)
{
    sample_check(gguf_set_string(w, "tokenizer.ggml.add_space_prefix", "yes", &err), &err);
}

static void assert_refused(sample_tweak tweak, const char *message)
{
    tokenizer *t = NULL;
    fill_sample();
    assert_int_equal(make(&s, tweak, &t), MP_E_FORMAT);
    assert_null(t);
    if (!strstr(err.message, message)) fail_msg("\"%s\", expected \"%s\"", err.message, message);
}

static void test_refused(void **state)
{
    (void)state;
    assert_refused(remove_scores, "tokenizer.ggml.scores");
    assert_refused(short_scores, "tokenizer.ggml.scores has 2 entries, the vocabulary 272 tokens");
    assert_refused(strange_space, "tokenizer.ggml.add_space_prefix");
    fill_sample();
    s.scores[HELLO] = NAN;
    tokenizer *t = NULL;
    assert_int_equal(make(&s, NULL, &t), MP_E_FORMAT);
    fill_sample();
    t = make_ok(&s, number_scores);
    ASSERT_IDS(t, "lll", 0, SPACE, LL, L);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),       cmocka_unit_test(test_parts_without_tokens),
        cmocka_unit_test(test_keys),         cmocka_unit_test(test_special),
        cmocka_unit_test(test_no_smuggling), cmocka_unit_test(test_strips),
        cmocka_unit_test(test_decode),       cmocka_unit_test(test_no_bytes),
        cmocka_unit_test(test_merges),       cmocka_unit_test(test_words),
        cmocka_unit_test(test_long_text),    cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
