/* Text to ids and back: recorded vocabularies, words against another engine, merges against a slow reference. */
#include "tokenizer_testing.h"

#include "base/rng.h"
#include "text/pretokenizer.h"

static void assert_round_trip(const tokenizer *t, const char *text, size_t len)
{
    size_t n = 0;
    int32_t *ids = encode(t, text, len, 0, &n);
    char *back = malloc(len + 1);
    assert_non_null(back);
    assert_int_equal(tokenizer_decode_all(t, ids, n, false, back, len), len);
    assert_memory_equal(back, text, len);
    free(back);
    free(ids);
}

/* ---- recorded vocabularies ---- */

/* One line of ids: *line moves past it. Returns how many. */
static size_t read_line_ids(char **line, int32_t *ids, size_t cap)
{
    size_t n = 0;
    while (**line && **line != '\n') {
        char *end = NULL;
        long id = strtol(*line, &end, 10);
        if (end == *line) {
            ++*line; /* a space at the end */
            continue;
        }
        assert_true(n < cap);
        ids[n++] = (int32_t)id;
        *line = end;
    }
    if (**line) ++*line;
    return n;
}

/* The pieces of NAME.inp are what lies between the lines that are the separator; NAME.out has a line of ids for each.
 */
static void check_golden(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char file[256], *inputs = NULL, *outputs = NULL;
    size_t len = 0, n_pieces = 0;
    snprintf(file, sizeof file, "golden/vocab/ggml-vocab-%s.gguf", name);
    if (access(shared_path(file), R_OK) != 0) {
        print_message("SKIPPED: no %s; set MOEPRISM_SHARED\n", shared_path(file));
        skip();
    }
    tokenizer *t = open_tokenizer(shared_path(file));
    snprintf(file, sizeof file, "golden/vocab/ggml-vocab-%s.gguf.inp", name);
    assert_ok(file_read(shared_path(file), &inputs, &len, &err), &err);
    snprintf(file, sizeof file, "golden/vocab/ggml-vocab-%s.gguf.out", name);
    assert_ok(file_read(shared_path(file), &outputs, &len, &err), &err);

    char *line = outputs;
    for (char *piece = inputs; piece && *piece; n_pieces++) {
        static int32_t expected[4096];
        char *end = strstr(piece, separator);
        if (end) *end = 0;
        assert_true(*line != 0);
        size_t n = read_line_ids(&line, expected, 4096);
        assert_ids(t, piece, 0, expected, n);
        assert_round_trip(t, piece, strlen(piece));
        piece = end ? end + sizeof separator - 1 : NULL;
    }
    assert_int_equal(*line, 0);
    assert_true(n_pieces > 40);
    free(inputs);
    free(outputs);
    tokenizer_free(t);
}

static void test_golden_gpt2(void **state)
{
    (void)state;
    check_golden("gpt-2");
}

static void test_golden_refact(void **state)
{
    (void)state;
    check_golden("refact");
}

static void test_golden_deepseek_llm(void **state)
{
    (void)state;
    check_golden("deepseek-llm");
}

static void test_golden_deepseek_coder(void **state)
{
    (void)state;
    check_golden("deepseek-coder");
}

static void test_golden_llama_spm(void **state)
{
    (void)state;
    check_golden("llama-spm");
}

/* ---- arbitrary bytes on a real vocabulary ---- */

static void test_round_trip(void **state)
{
    (void)state;
    tokenizer *t = open_demo();
    assert_int_equal(tokenizer_n_tokens(t), 8192);
    assert_int_equal(tokenizer_bos(t), 8191);
    assert_int_equal(tokenizer_eos(t), 8191);
    assert_true(tokenizer_ends_text(t, 8191));
    ASSERT_IDS(t, "<|endoftext|>", MP_TOKENIZE_SPECIAL | MP_TOKENIZE_BOS, 8191); /* the file asks for no BOS */

    char text[600];
    for (int byte = 0; byte < 256; byte++) text[byte] = (char)byte;
    assert_round_trip(t, text, 256);
    rng r;
    rng_init(&r, 1);
    for (int round = 0; round < 2000; round++) {
        size_t len = (size_t)rng_below(&r, sizeof text);
        for (size_t i = 0; i < len; i++) /* bytes at random, and long runs of few */
            text[i] = round % 2 ? (char)rng_below(&r, 256) : " \n\xc3\xa9"[rng_below(&r, 4)];
        assert_round_trip(t, text, len);
    }
    tokenizer_free(t);
}

/* ---- words ---- */

/* Independently computed with another engine's Unicode tables; ` ends a word. */
static const char words_text[] =
    "It's I'LL  we've\n\n  x = 12345 +1,000.5;\t\343\200\200\303\274\344\270\255\346\226\207\345\255\227 "
    "abc\302\240\303\234n\303\257code HELLOworld don't!?\r\n    end\341\240\216 \360\237\232\200\314\201 \t ";
static const struct {
    const char *pre, *words;
} words_of[] = {
    {"gpt-2", "It`'s` I`'`LL` ` we`'ve`\n\n ` x` =` 12345` "
              "+`1`,`000`.`5`;`\t`\343\200\200`\303\274\344\270\255\346\226\207\345\255\227` "
              "abc`\302\240`\303\234n\303\257code` HELLOworld` don`'t`!?`\r\n   ` end`\341\240\216` "
              "\360\237\232\200\314\201` \t "},
    {"refact", "It`'s` I`'`LL` ` we`'ve`\n\n ` x` =` `1`2`3`4`5` "
               "+`1`,`0`0`0`.`5`;`\t`\343\200\200`\303\274\344\270\255\346\226\207\345\255\227` "
               "abc`\302\240`\303\234n\303\257code` HELLOworld` don`'t`!?`\r\n   ` end`\341\240\216` "
               "\360\237\232\200\314\201` \t "},
    {"default", "It`'`s` I`'`LL` ` we`'`ve`\n\n ` x` `=` `123`45` "
                "`+`1`,`000`.`5`;`\t`\343\200\200`\303\274\344\270\255\346\226\207\345\255\227` "
                "abc`\302\240`\303\234n\303\257code` HELLOworld` don`'`t`!?`\r\n   ` end`\341\240\216` "
                "\360\237\232\200\314\201` \t "},
    {"falcon", "It`'`s` I`'`LL` ` we`'`ve`\n\n ` x` `=` `123`45` "
               "`+`1`,`000`.`5`;`\t`\343\200\200`\303\274\344\270\255\346\226\207\345\255\227` "
               "abc`\302\240`\303\234n\303\257code` HELLOworld` don`'`t`!?`\r\n   ` end`\341\240\216` "
               "\360\237\232\200\314\201` \t "},
    {"llama-bpe",
     "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `123`45` "
     "+`1`,`000`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` abc`\302\240\303\234n\303\257code` "
     "HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` \360\237\232\200\314\201` \t "},
    {"qwen2", "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `1`2`3`4`5` "
              "+`1`,`0`0`0`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` "
              "abc`\302\240\303\234n\303\257code` HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` "
              "\360\237\232\200\314\201` \t "},
    {"qwen35", "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `1`2`3`4`5` "
               "+`1`,`0`0`0`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` "
               "abc`\302\240\303\234n\303\257code` HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` "
               "\360\237\232\200`\314\201` \t "},
    {"deepseek-llm", "It`'`s` I`'`LL` ` we`'`ve`\n`\n` ` x` =` `12345` "
                     "+`1`,`000`.`5`;`\t`\343\200\200`\303\274`\344\270\255\346\226\207\345\255\227` "
                     "abc`\302\240\303\234`n`\303\257`code` HELLOworld` don`'`t`!?`\r`\n`   ` end`\341\240\216` "
                     "\360\237\232\200\314\201` \t "},
    {"deepseek-coder", "It`'`s` I`'`LL` ` we`'`ve`\n`\n` ` x` = `1`2`3`4`5` "
                       "+`1`,`0`0`0`.`5`;`\t`\343\200\200`\303\274`\344\270\255\346\226\207\345\255\227` "
                       "abc`\302\240\303\234n\303\257code` HELLOworld` don`'`t`!?`\r`\n`   ` end`\341\240\216` "
                       "\360\237\232\200\314\201 \t "},
    {"deepseek-v3",
     "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `123`45` "
     "+`1`,`000`.`5`;`\t`\343\200\200\303\274`\344\270\255\346\226\207\345\255\227` abc`\302\240\303\234n\303\257code` "
     "HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` \360\237\232\200`\314\201` \t "},
    {"tekken", "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `1`2`3`4`5` "
               "+`1`,`0`0`0`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` "
               "abc`\302\240\303\234n\303\257code` HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` "
               "\360\237\232\200\314\201` \t "},
    {"gpt-4o",
     "It's` I'LL` ` we've`\n\n` ` x` =` `123`45` "
     "+`1`,`000`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` abc`\302\240\303\234n\303\257code` "
     "HELLOworld` don't`!?\r\n`   ` end`\341\240\216` \360\237\232\200\314\201` \t "},
    {"kimi-k2",
     "It's` I'LL` ` we've`\n\n` ` x` =` `123`45` "
     "+`1`,`000`.`5`;`\t`\343\200\200\303\274`\344\270\255\346\226\207\345\255\227` abc`\302\240\303\234n\303\257code` "
     "HELLOworld` don't`!?\r\n`   ` end`\341\240\216` \360\237\232\200\314\201` \t "},
    {"bailingmoe", "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `1`2`3`4`5` "
                   "+`1`,`0`0`0`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` "
                   "abc`\302\240\303\234n\303\257code` HELLOworld` don`'t`!?\r\n`   ` end`\341\240\216` "
                   "\360\237\232\200\314\201` \t "},
    {"seed-coder", "It`'s` I`'LL` ` we`'ve`\n\n` ` x` =` `1`2`3`4`5` "
                   "+`1`,`0`0`0`.`5`;`\t`\343\200\200\303\274\344\270\255\346\226\207\345\255\227` "
                   "abc`\302\240\303\234n\303\257code` HELLOworld` don`'t`!?`\r\n`   ` end`\341\240\216` "
                   "\360\237\232\200\314\201` \t "},
};

typedef struct word_list {
    char text[1024];
    size_t len;
} word_list;

static mp_status add_word(void *user, const char *word, size_t len, mp_error *error)
{
    (void)error;
    word_list *list = user;
    assert_true(list->len + len + 2 < sizeof list->text);
    if (list->len) list->text[list->len++] = '`';
    memcpy(list->text + list->len, word, len);
    list->len += len;
    list->text[list->len] = 0;
    return MP_OK;
}

static void test_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof words_of / sizeof *words_of; i++) {
        pretokenizer *p = NULL;
        pretokenizer_scratch *scratch = NULL;
        word_list list = {0};
        assert_ok(pretokenizer_new(words_of[i].pre, strlen(words_of[i].pre), &p, &err), &err);
        assert_ok(pretokenizer_scratch_new(&scratch, &err), &err);
        assert_ok(pretokenizer_split(p, scratch, words_text, sizeof words_text - 1, add_word, &list, &err), &err);
        if (strcmp(list.text, words_of[i].words) != 0)
            fail_msg("%s:\n%s\nexpected\n%s", words_of[i].pre, list.text, words_of[i].words);
        pretokenizer_scratch_free(scratch);
        pretokenizer_free(p);
    }
    pretokenizer_scratch_free(NULL);
    pretokenizer_free(NULL);
}

static void test_characters(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len, bytes;
        uint32_t character;
    } cases[] = {
        {"a", 1, 1, 'a'},
        {"", 1, 1, 0},
        {"\xc3\xa9", 2, 2, 0xe9},
        {"\xef\xbf\xbd", 3, 3, 0xfffd},
        {"\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff},
        {"\xc3", 1, 0, 0},
        {"\xc3z", 2, 0, 0},
        {"\xe2\x82", 2, 0, 0},
        {"\x80", 1, 0, 0},
        {"\xc0\x80", 2, 0, 0},         /* overlong */
        {"\xe0\x9f\xbf", 3, 0, 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 4, 0, 0}, /* overlong */
        {"\xed\xa0\x80", 3, 0, 0},     /* a surrogate */
        {"\xf4\x90\x80\x80", 4, 0, 0}, /* past the end */
        {"\xf5\x80\x80\x80", 4, 0, 0},
        {"\xff", 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t character = 0;
        assert_int_equal(utf8_next(cases[i].text, cases[i].len, &character), cases[i].bytes);
        if (cases[i].bytes) assert_int_equal(character, cases[i].character);
        assert_int_equal(utf8_valid(cases[i].text, cases[i].len), cases[i].bytes);
    }
    for (int byte = 0; byte < 256; byte++) {
        char text[2];
        uint32_t character = 0;
        size_t len = byte_to_text((uint8_t)byte, text);
        assert_int_equal(utf8_next(text, len, &character), len);
        assert_int_equal(byte_of_character(character), byte);
    }
    char space[2];
    assert_int_equal(byte_to_text(' ', space), 2);
    assert_memory_equal(space, "\xc4\xa0", 2);
    assert_int_equal(byte_of_character(' '), -1);
    assert_int_equal(byte_of_character(0x144), -1);
}

/* ---- merging ---- */

/* rank of (left, right) and what it makes, by id; -1: none */
static int32_t rank_of[SAMPLE_MAX][SAMPLE_MAX], made_by[SAMPLE_MAX];

/* By definition: again and again the lowest rank, the leftmost of equals. Returns how many are left. */
static size_t merge_slowly(int32_t *ids, size_t n)
{
    for (;;) {
        int32_t lowest = -1;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t rank = rank_of[ids[i]][ids[i + 1]];
            if (rank < 0 || (lowest >= 0 && rank >= lowest)) continue;
            lowest = rank;
            where = i;
        }
        if (lowest < 0) return n;
        ids[where] = made_by[lowest];
        memmove(ids + where + 1, ids + where + 2, (n - where - 2) * sizeof *ids);
        n--;
    }
}

/* A vocabulary of random merges over three letters: everything ties with everything. */
static void random_merges(vocab_sample *s, rng *r, char texts[][64], size_t n_merges)
{
    int32_t pool[SAMPLE_MAX] = {'a', 'b', 'c'};
    size_t n_pool = 3, at = 0;
    memset(rank_of, -1, sizeof rank_of);
    while (s->n_merges < n_merges) {
        int32_t left = pool[rng_below(r, n_pool)], right = pool[rng_below(r, n_pool)], made = -1;
        gguf_string a = s->tokens[left], b = s->tokens[right];
        if (rank_of[left][right] >= 0 || a.len + b.len > 20) continue;
        char *merge = texts[at++], *both = texts[at++];
        snprintf(merge, 64, "%.*s %.*s", (int)a.len, a.data, (int)b.len, b.data);
        snprintf(both, 64, "%.*s%.*s", (int)a.len, a.data, (int)b.len, b.data);
        for (size_t i = 0; i < s->n_tokens; i++)
            if (s->tokens[i].len == strlen(both) && memcmp(s->tokens[i].data, both, strlen(both)) == 0)
                made = (int32_t)i;
        sample_merge(s, merge, made < 0 ? both : NULL);
        if (made < 0) pool[n_pool++] = made = (int32_t)s->n_tokens - 1;
        rank_of[left][right] = (int32_t)s->n_merges - 1;
        made_by[s->n_merges - 1] = made;
    }
}

static void test_merges(void **state)
{
    (void)state;
    static vocab_sample s;
    static char texts[200][64];
    rng r;
    rng_init(&r, 7);
    for (int round = 0; round < 20; round++) {
        sample_init(&s);
        random_merges(&s, &r, texts, 100);
        tokenizer *t = make_ok(&s, NULL);
        for (int word = 0; word < 100; word++) {
            char text[301];
            int32_t expected[300];
            size_t len = 1 + (size_t)rng_below(&r, 300);
            for (size_t i = 0; i < len; i++) {
                expected[i] = 'a' + (int32_t)rng_below(&r, 1 + (uint64_t)word % 3);
                text[i] = (char)expected[i];
            }
            text[len] = 0;
            assert_ids(t, text, 0, expected, merge_slowly(expected, len));
        }
        tokenizer_free(t);
    }
}

/* Ends only if the time is not quadratic: the first has one word of 4 MB, the other 4 MB of spaces before a digit. */
static void test_long_words(void **state)
{
    (void)state;
    static vocab_sample s;
    size_t len = (size_t)4 << 20, n = 0;
    char *text = malloc(len);
    assert_non_null(text);
    sample_init(&s);
    s.pre = "deepseek-llm";
    sample_merge(&s, "a a", "aa");
    sample_merge(&s, "aa aa", "aaaa");
    tokenizer *t = make_ok(&s, NULL);
    memset(text, 'a', len);
    int32_t *ids = encode(t, text, len, 0, &n);
    assert_int_equal(n, len / 4);
    for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], 257);
    free(ids);
    memset(text, ' ', len);
    text[len - 1] = '1';
    ids = encode(t, text, len, 0, &n);
    assert_int_equal(n, len);
    free(ids);
    free(text);
    tokenizer_free(t);
}

static void test_whole_words(void **state)
{
    (void)state;
    static vocab_sample s;
    sample_init(&s);
    sample_merge(&s, "b c", "bc");
    sample_merge(&s, "a b", "ab");
    int32_t whole = sample_token(&s, "abc", TOKEN_NORMAL), space = sample_token(&s, "\xc4\xa0q", TOKEN_NORMAL);
    tokenizer *t = make_ok(&s, NULL);
    ASSERT_IDS(t, "abc q", 0, 'a', 256, ' ', 'q');
    tokenizer_free(t);
    s.pre = "llama-bpe";
    t = make_ok(&s, NULL);
    ASSERT_IDS(t, "abc abcd q", 0, whole, ' ', 'a', 256, 'd', space);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_gpt2),
        cmocka_unit_test(test_golden_refact),
        cmocka_unit_test(test_golden_deepseek_llm),
        cmocka_unit_test(test_golden_deepseek_coder),
        cmocka_unit_test(test_golden_llama_spm),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_whole_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
