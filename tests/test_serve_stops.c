/* Text in pieces: whole sequences only, stop strings across pieces, whatever the pieces are. */
#include "testing.h"

#include "base/rng.h"
#include "base/utf8.h"
#include "serve/stops.h"

enum { MAX = 256 };

typedef struct result {
    char text[MAX];
    size_t len, stopped, n_pieces;
} result;

/* Feeds `in` [n] in pieces of up to `most` bytes, taking what is ready after each. */
static result feed(const char *in, size_t n, char *const *stop, size_t n_stop, bool skip_white, size_t most, rng *r)
{
    mp_error err;
    stops s;
    result out = {.stopped = n_stop};
    assert_ok(stops_init(&s, stop, n_stop, skip_white, &err), &err);
    for (size_t at = 0; at < n && !s.ended;) {
        size_t piece = 1 + (r ? (size_t)rng_below(r, most) : most - 1);
        if (piece > n - at) piece = n - at;
        assert_ok(stops_add(&s, in + at, piece, &out.stopped, &err), &err);
        at += piece;
        for (size_t i = 0, step; i < s.ready; i += step) { /* whole sequences at every moment */
            step = utf8_sequence(s.text + i, s.ready - i);
            assert_true(step > 0);
        }
        if (s.ready == 0) continue;
        memcpy(out.text + out.len, s.text, s.ready);
        out.len += s.ready;
        out.n_pieces++;
        stops_taken(&s);
    }
    assert_ok(stops_end(&s, &err), &err);
    if (s.ready > 0) memcpy(out.text + out.len, s.text, s.ready);
    out.len += s.ready;
    stops_clear(&s);
    return out;
}

static void expect(const char *in, char *const *stop, size_t n_stop, const char *text, size_t stopped)
{
    for (size_t most = 1; most <= 8; most++) {
        const result got = feed(in, strlen(in), stop, n_stop, false, most, NULL);
        assert_int_equal(got.len, strlen(text));
        assert_memory_equal(got.text, text, got.len);
        assert_int_equal(got.stopped, stopped);
    }
}

static void test_stop_strings(void **state)
{
    (void)state;
    char *one[] = {"STOP"}, *two[] = {"bcd", "c"}, *same[] = {"b", "ab"}, *long_one[] = {"aab"},
         *accent[] = {"\u00e9t"};
    expect("a text", one, 1, "a text", 1);
    expect("a STOP text", one, 1, "a ", 0);
    expect("STOP", one, 1, "", 0);
    expect("a STO", one, 1, "a STO", 1); /* began, and never came */
    expect("a STOSTOP", one, 1, "a STO", 0);
    expect("xabcd", two, 2, "xab", 1); /* the first to be complete */
    expect("xaby", same, 2, "x", 1);   /* complete together: the longest */
    expect("aaaaab", long_one, 1, "aaa", 0);
    expect("un \u00e9t\u00e9", accent, 1, "un ", 0);
    expect("un \u00e8t\u00e9", accent, 1, "un \u00e8t\u00e9", 1);
    expect("", one, 1, "", 1);
    expect("abc", NULL, 0, "abc", 0);
}

static void test_sequences(void **state)
{
    (void)state;
    expect("\u20ac\U0001F600z", NULL, 0, "\u20ac\U0001F600z", 0);
    expect("a\xFFz", NULL, 0, "a\uFFFDz", 0);
    expect("a\xE2\x82z", NULL, 0, "a\uFFFD\uFFFDz", 0);
    expect("\xC3\xC3\xA9", NULL, 0, "\uFFFD\u00e9", 0);
    expect("\xED\xA0\x80", NULL, 0, "\uFFFD\uFFFD\uFFFD", 0); /* a surrogate */
    expect("a\xF0\x9F\x98", NULL, 0, "a\uFFFD", 0);           /* cut off: one character that never was */
    const result got = feed("\xE2\x82\xAC", 3, NULL, 0, false, 1, NULL);
    assert_int_equal(got.n_pieces, 1);
}

static void test_white_space(void **state)
{
    (void)state;
    result got = feed(" \n\t word ", 9, NULL, 0, true, 2, NULL);
    assert_string_equal(got.text, "word ");
    got = feed(" \n", 2, NULL, 0, true, 1, NULL);
    assert_int_equal(got.len, 0);
}

/* What waits is no more than a stop string may still need. */
static void test_text_is_not_held_back(void **state)
{
    (void)state;
    mp_error err;
    stops s;
    size_t stopped;
    char *stop[] = {"###", "#end"};
    assert_ok(stops_init(&s, stop, 2, false, &err), &err);
    assert_ok(stops_add(&s, "abc", 3, &stopped, &err), &err);
    assert_int_equal(s.ready, 3);
    assert_ok(stops_add(&s, "d##", 3, &stopped, &err), &err);
    assert_int_equal(s.ready, 4);
    assert_ok(stops_add(&s, "e", 1, &stopped, &err), &err); /* "##e": only "#e" may go on */
    assert_int_equal(s.ready, 5);
    stops_clear(&s);
}

/* Any bytes, any pieces: as in one piece. */
static void test_any_pieces(void **state)
{
    (void)state;
    static const char alphabet[] = "ab\xC3\xA9\xE2\x82\xAC#";
    char *stop[] = {"ab#", "b\u00e9", "##"};
    rng r;
    rng_init(&r, 8);
    for (int round = 0; round < 3000; round++) {
        char in[40];
        const size_t n = (size_t)rng_below(&r, sizeof in);
        for (size_t i = 0; i < n; i++) in[i] = alphabet[rng_below(&r, sizeof alphabet - 1)];
        const result whole = feed(in, n, stop, 3, false, sizeof in, NULL), pieces = feed(in, n, stop, 3, false, 5, &r);
        assert_int_equal(whole.len, pieces.len);
        assert_memory_equal(whole.text, pieces.text, whole.len);
        assert_int_equal(whole.stopped, pieces.stopped);
    }
}

/* The stop string that ends first in `in`, of those the longest, by looking everywhere; *at: where it begins. */
static size_t search(const char *in, size_t n, char *const *stop, size_t n_stop, size_t *at)
{
    for (size_t end = 1; end <= n; end++) {
        size_t found = n_stop, longest = 0;
        for (size_t i = 0; i < n_stop; i++) {
            const size_t len = strlen(stop[i]);
            if (len <= longest || len > end || memcmp(in + end - len, stop[i], len) != 0) continue;
            found = i;
            longest = len;
        }
        *at = end - longest;
        if (found < n_stop) return found;
    }
    *at = n;
    return n_stop;
}

/* Strings of two letters, which begin and end like one another in every way. */
static void test_as_searched(void **state)
{
    (void)state;
    rng r;
    rng_init(&r, 9);
    for (int round = 0; round < 20000; round++) {
        char text[3][8], in[40], *stop[] = {text[0], text[1], text[2]};
        size_t at;
        for (size_t i = 0; i < 3; i++) {
            const size_t n = 1 + (size_t)rng_below(&r, sizeof text[i] - 1);
            for (size_t k = 0; k < n; k++) text[i][k] = rng_below(&r, 3) > 0 ? 'a' : 'b';
            text[i][n] = '\0';
        }
        const size_t n = (size_t)rng_below(&r, sizeof in);
        for (size_t i = 0; i < n; i++) in[i] = rng_below(&r, 3) > 0 ? 'a' : 'b';
        const result got = feed(in, n, stop, 3, false, 5, &r);
        assert_int_equal(got.stopped, search(in, n, stop, 3, &at));
        assert_int_equal(got.len, at);
        assert_memory_equal(got.text, in, at);
    }
}

/* A stop string of any length, of which the text has nearly all again and again. */
static void test_long_stop(void **state)
{
    enum { LONG = 100000 };
    (void)state;
    mp_error err;
    stops s;
    size_t stopped;
    char *text = malloc(LONG + 1), *stop[16];
    assert_non_null(text);
    memset(text, 'a', LONG);
    memcpy(text + LONG - 1, "b", 2);
    for (size_t i = 0; i < 16; i++) stop[i] = text;
    assert_ok(stops_init(&s, stop, 16, false, &err), &err);
    for (size_t i = 0; i < 2 * LONG; i++) {
        assert_ok(stops_add(&s, "a", 1, &stopped, &err), &err);
        assert_int_equal(s.len - s.ready, i < LONG - 1 ? i + 1 : LONG - 1);
        if (s.ready > LONG / 4) stops_taken(&s);
    }
    assert_ok(stops_add(&s, "xaab", 4, &stopped, &err), &err);
    assert_int_equal(s.len, s.ready);
    assert_int_equal(stopped, 16);
    assert_ok(stops_add(&s, text, LONG, &stopped, &err), &err);
    assert_int_equal(stopped, 0);
    stops_clear(&s);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_strings), cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_white_space),  cmocka_unit_test(test_text_is_not_held_back),
        cmocka_unit_test(test_any_pieces),   cmocka_unit_test(test_as_searched),
        cmocka_unit_test(test_long_stop),
    };
    return cmocka_run_group_tests_name("stop strings", tests, NULL, NULL);
}
