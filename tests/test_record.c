/* Records of routing: text out and in again, and every kind of wrong line. */
#include "store/record.h"

#include <unistd.h>

#include "testing.h"

static mp_error err;

#define HEADER "# moeprism record 1 layers=2 experts=4 parts=8 bytes=1000\n"

static record_trace parse(const char *text)
{
    record_trace t;
    assert_ok(record_parse(text, strlen(text), "r", &t, &err), &err);
    return t;
}

static void assert_ids(const uint32_t *ids, uint32_t n, const uint32_t *want, uint32_t n_want)
{
    assert_int_equal(n, n_want);
    for (uint32_t i = 0; i < n_want; i++) assert_int_equal(ids[i], want[i]);
}

static void test_parse(void **state)
{
    (void)state;
    record_trace t = parse("# moeprism record 1 parts=8 note=x bytes=1099511627776 layers=2  experts=4\r\n"
                           "# made by hand\n\n"
                           "0 0 1 experts 3 0 subs 31 0 7\r\n"
                           "0 1 2 experts 2 subs\n"
                           "18446744073709551615 1 16777216 experts subs\n");
    assert_int_equal(t.shape.n_layers, 2);
    assert_int_equal(t.shape.n_experts, 4);
    assert_int_equal(t.shape.n_parts, 8);
    assert_int_equal(t.shape.sub_bytes, 1099511627776);
    assert_int_equal(t.n, 3);
    assert_ids(t.steps[0].experts, t.steps[0].n_experts, (const uint32_t[]){3, 0}, 2);
    assert_ids(t.steps[0].subs, t.steps[0].n_subs, (const uint32_t[]){31, 0, 7}, 3);
    assert_int_equal(t.steps[1].layer, 1);
    assert_int_equal(t.steps[1].tokens, 2);
    assert_ids(t.steps[1].experts, t.steps[1].n_experts, (const uint32_t[]){2}, 1);
    assert_int_equal(t.steps[1].n_subs, 0);
    assert_true(t.steps[2].step == UINT64_MAX);
    assert_int_equal(t.steps[2].tokens, 16777216);
    record_free(&t);
    record_free(&t);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char text[] = HEADER "0 0 1 experts 3 0 subs 31 0 7\n0 1 3 experts 1 subs 9 8\n7 0 1 experts subs\n";
    char path[] = "/tmp/record-XXXXXX", *again = NULL;
    size_t len;
    const int fd = mkstemp(path);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    record_trace t;
    assert_ok(record_read(path, &t, &err), &err);
    FILE *f = open_memstream(&again, &len);
    assert_int_equal(record_write_header(f, &t.shape), MP_OK);
    for (size_t i = 0; i < t.n; i++) assert_int_equal(record_write(f, &t.steps[i]), MP_OK);
    fclose(f);
    assert_string_equal(again, text);
    free(again);
    record_free(&t);
    close(fd);
    unlink(path);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "empty"},
        {"\n", "line 1: a record begins with"},
        {"0 0 1 experts 0 subs 0\n", "line 1: a record begins with"},
        {"# moeprism record 2 layers=2 experts=4 parts=8 bytes=1\n", "line 1: a record begins with"},
        {"# moeprism record 1 layers=2 experts=4 parts=8\n", "line 1: layers, experts, parts and bytes must all"},
        {"# moeprism record 1 layers=0 experts=4 parts=8 bytes=1\n", "line 1: layers, experts, parts and bytes must"},
        {"# moeprism record 1 layers=-2 experts=4 parts=8 bytes=1\n", "whole numbers"},
        {"# moeprism record 1 layers=2x experts=4 parts=8 bytes=1\n", "whole numbers"},
        {"# moeprism record 1 layers= experts=4 parts=8 bytes=1\n", "whole numbers"},
        {"# moeprism record 1 layers=2 experts=4 parts=8 bytes=1099511627777\n", "whole numbers"},
        {"# moeprism record 1 layers=99999999999999999999 experts=4 parts=8 bytes=1\n", "whole numbers"},
        {"# moeprism record 1 layers=4096 experts=512 parts=32 bytes=1\n", "more than 16777216 sub-experts"},
        {"# moeprism record 1 layers=1 experts=16777216 parts=16777216 bytes=1\n", "more than 16777216 sub-experts"},
        {HEADER, "no step"},
        {HEADER "0 0 1 experts 0 subs 0", "line 2: cut off"},
        {HEADER "0 2 1 experts 0 subs 0\n", "line 2: a line is STEP LAYER TOKENS"},
        {HEADER "0 0 16777217 experts 0 subs 0\n", "line 2: a line is"},
        {HEADER "18446744073709551616 0 1 experts 0 subs 0\n", "line 2: a line is"},
        {HEADER "0 0\n", "line 2: a line is"},
        {HEADER "0  0 1 experts 0 subs 0\n", "line 2: a line is"},
        {HEADER "-1 0 1 experts 0 subs 0\n", "line 2: a line is"},
        {HEADER "0 0 1 subs 0\n", "line 2: 'experts' must follow"},
        {HEADER "0 0 1 experts 0\n", "line 2: numbers, then 'subs'"},
        {HEADER "0 0 1 experts 0  subs 0\n", "line 2: numbers, then 'subs'"},
        {HEADER "0 0 1 experts 4 subs 0\n", "line 2: number 1 of the experts is not one below 4"},
        {HEADER "0 0 1 experts 0 1x subs 0\n", "line 2: number 2 of the experts is not one below 4"},
        {HEADER "0 0 1 experts 0 1 0 subs 0\n", "line 2: 0 is among the experts twice"},
        {HEADER "0 0 1 experts 3 subs 32\n", "line 2: number 1 of the sub-experts is not one below 32"},
        {HEADER "0 0 1 experts 0 subs 7 6 7\n", "line 2: 7 is among the sub-experts twice"},
        {HEADER "0 0 1 experts 0 subs 7 8\n", "line 2: sub-expert 8 belongs to none"},
        {HEADER "0 0 1 experts 0 subs 0 end\n", "line 2: numbers, and nothing else"},
        {HEADER "0 0 1 experts 0 subs 0 \n", "line 2: numbers, and nothing else"},
        {HEADER "0 0 1 experts 0 subs 0\n\n0 0 1 experts 0 subs 0\n", "line 4: steps and their layers must ascend"},
        {HEADER "0 1 1 experts 0 subs 0\n0 0 1 experts 0 subs 0\n", "line 3: steps and their layers must ascend"},
        {HEADER "1 0 1 experts 0 subs 0\n0 1 1 experts 0 subs 0\n", "line 3: steps and their layers must ascend"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record_trace t;
        err.message[0] = '\0';
        assert_int_equal(record_parse(cases[i].text, strlen(cases[i].text), "r", &t, &err), MP_E_FORMAT);
        if (strstr(err.message, cases[i].says) == NULL) fail_msg("case %zu: %s", i, err.message);
        assert_null(t.steps);
        assert_null(t.ids);
    }
    record_trace t;
    static const char zero[] = HEADER "0 0 1 experts 0 subs\0 0\n";
    assert_int_equal(record_parse(zero, sizeof zero - 1, "r", &t, &err), MP_E_FORMAT);
    assert_int_equal(record_read("/nonexistent/record", &t, &err), MP_E_IO);
}

/* Every prefix is either refused or a whole number of lines. */
static void test_truncated(void **state)
{
    (void)state;
    static const char text[] = HEADER "0 0 1 experts 3 0 subs 31 0 7\n0 1 3 experts 1 subs 9 8\n";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        record_trace t;
        char *exact = malloc(len > 0 ? len : 1); /* so that reading past it is seen */
        assert_non_null(exact);
        memcpy(exact, text, len);
        if (record_parse(exact, len, "r", &t, &err) == MP_OK) assert_true(len > 0 && text[len - 1] == '\n');
        record_free(&t);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
