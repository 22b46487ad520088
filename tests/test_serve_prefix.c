/* The prefix cache: longest chains, points, eviction; and any order of calls against a plain list. */
#include "testing.h"

#include "base/rng.h"
#include "serve/prefix.h"

enum { PAGES = 6, MOST = 3 };

/* A text whose i-th page is all `names[i]`. */
static const int32_t *text(const char *names)
{
    static int32_t tokens[MOST * MP_KV_PAGE];
    for (size_t i = 0; names[i] != '\0'; i++)
        for (size_t k = 0; k < MP_KV_PAGE; k++) tokens[i * MP_KV_PAGE + k] = names[i];
    return tokens;
}

static prefix *open_prefix(uint32_t n_pages)
{
    prefix *p;
    mp_error err;
    assert_ok(prefix_new(n_pages, &p, &err), &err);
    return p;
}

/* Enters pages first, first + 1, ... Returns which were taken, as bits. */
static unsigned enter(prefix *p, const char *names, uint32_t first, prefix_range ran)
{
    uint32_t pages[MOST] = {0};
    prefix_range all[MOST] = {{0}};
    bool taken[MOST];
    unsigned bits = 0;
    const uint32_t n = (uint32_t)strlen(names);
    for (uint32_t i = 0; i < n; i++) {
        pages[i] = first + i;
        all[i] = ran;
    }
    prefix_enter(p, text(names), n, pages, all, taken);
    for (uint32_t i = 0; i < n; i++) bits |= (unsigned)taken[i] << i;
    return bits;
}

static void expect(prefix *p, const char *names, prefix_range accepted, uint32_t n, uint32_t first)
{
    uint32_t pages[MOST];
    prefix_range ran[MOST];
    assert_int_equal(prefix_find(p, text(names), (uint32_t)strlen(names), accepted, pages, ran), n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(pages[i], first + i);
        assert_true(ran[i].best >= accepted.best && ran[i].floor <= accepted.floor);
    }
}

static const prefix_range FULL = {0, 0}, ANY = {0, 9};

static void test_longest_chain(void **state)
{
    (void)state;
    prefix *p = open_prefix(PAGES);
    expect(p, "abc", ANY, 0, 0);
    assert_int_equal(enter(p, "abc", 0, FULL), 7);
    assert_int_equal(prefix_count(p), 3);
    expect(p, "abc", FULL, 3, 0);
    expect(p, "ab", FULL, 2, 0);
    expect(p, "abx", FULL, 2, 0);
    expect(p, "xbc", FULL, 0, 0);
    expect(p, "bc", FULL, 0, 0);                   /* the same pages elsewhere are not the same */
    assert_int_equal(enter(p, "abd", 3, FULL), 4); /* only the last is new */
    assert_int_equal(prefix_count(p), 4);
    prefix_free(p);
}

static void test_points(void **state)
{
    (void)state;
    prefix *p = open_prefix(PAGES);
    enter(p, "ab", 0, (prefix_range){2, 3});
    expect(p, "ab", FULL, 0, 0);
    expect(p, "ab", (prefix_range){2, 2}, 0, 0);
    expect(p, "ab", (prefix_range){3, 9}, 0, 0);
    expect(p, "ab", (prefix_range){2, 3}, 2, 0);
    expect(p, "ab", ANY, 2, 0);
    assert_int_equal(enter(p, "ab", 2, FULL), 3); /* other points, other pages */
    expect(p, "ab", FULL, 2, 2);
    expect(p, "ab", ANY, 2, 2); /* the best of those that are accepted */
    expect(p, "ab", (prefix_range){1, 4}, 2, 0);
    prefix_free(p);
}

static void expect_evicted(prefix *p, uint32_t expected)
{
    uint32_t page;
    assert_true(prefix_evict(p, &page));
    assert_int_equal(page, expected);
}

static void test_eviction(void **state)
{
    (void)state;
    prefix *p = open_prefix(PAGES);
    enter(p, "ab", 0, FULL);
    enter(p, "cd", 2, FULL);
    enter(p, "e", 4, FULL);
    expect(p, "ab", FULL, 2, 0); /* used just now: d is the oldest leaf, then c, then e */
    expect_evicted(p, 3);
    expect_evicted(p, 2);
    expect(p, "cd", FULL, 0, 0);
    enter(p, "ax", 4, FULL); /* x is page 5; a has two continuations and stays until both are gone */
    expect_evicted(p, 4);    /* e */
    expect_evicted(p, 1);
    expect_evicted(p, 5);
    expect_evicted(p, 0);
    uint32_t page;
    assert_false(prefix_evict(p, &page));
    assert_int_equal(prefix_count(p), 0);
    enter(p, "abc", 0, FULL); /* nodes come back */
    expect(p, "abc", FULL, 3, 0);
    prefix_free(p);
    prefix_free(NULL);
}

/* A text is found up to the first page that was not entered behind the same pages, or was evicted. */
static void test_random_calls(void **state)
{
    (void)state;
    rng r;
    char known[PAGES][MOST + 1];
    bool in_use[PAGES] = {false};
    uint32_t n_used = 0, page;
    prefix *p = open_prefix(PAGES);
    rng_init(&r, 2);
    for (int round = 0; round < 20000; round++) {
        char names[MOST + 1] = "";
        const size_t n = 1 + (size_t)rng_below(&r, MOST);
        for (size_t i = 0; i < n; i++) names[i] = (char)('a' + rng_below(&r, 3));
        uint32_t pages[MOST], expected = 0;
        prefix_range ran[MOST];
        for (size_t i = 1; i <= n && expected == i - 1; i++) /* does any page hold the first i? */
            for (uint32_t k = 0; k < PAGES; k++)
                expected += in_use[k] && strlen(known[k]) == i && strncmp(known[k], names, i) == 0;
        const uint32_t found = prefix_find(p, text(names), (uint32_t)n, ANY, pages, ran);
        assert_int_equal(found, expected);
        for (uint32_t i = 0; i < found; i++) assert_true(strncmp(known[pages[i]], names, i + 1) == 0);

        while (n_used + (n - found) > PAGES || rng_below(&r, 10) == 0) {
            if (!prefix_evict(p, &page)) break;
            assert_true(in_use[page]);
            for (uint32_t k = 0; k < PAGES; k++) /* nothing continues it */
                assert_false(in_use[k] && k != page && strncmp(known[k], known[page], strlen(known[page])) == 0);
            in_use[page] = false;
            n_used--;
        }
        bool taken[MOST];
        prefix_range points[MOST] = {FULL, FULL, FULL};
        bool given[PAGES];
        memcpy(given, in_use, sizeof given);
        for (size_t i = 0; i < n; i++) {
            for (page = 0; page + 1 < PAGES && given[page]; page++) {
            }
            pages[i] = page;
            given[page] = true;
        }
        /* Pages that are there already are named by what is not used, so that taking one twice would show. */
        if (n_used + n > PAGES) continue;
        prefix_enter(p, text(names), (uint32_t)n, pages, points, taken);
        for (size_t i = 0; i < n; i++) {
            if (!taken[i]) continue;
            in_use[pages[i]] = true;
            n_used++;
            snprintf(known[pages[i]], sizeof known[0], "%.*s", (int)i + 1, names);
        }
        assert_int_equal(prefix_count(p), n_used);
    }
    prefix_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_chain),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_random_calls),
    };
    return cmocka_run_group_tests_name("prefix cache", tests, NULL, NULL);
}
