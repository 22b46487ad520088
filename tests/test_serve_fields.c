/* What every request passes through: JSON, typed fields, errors in both shapes, texts, access. */
#include "testing.h"

#include <unistd.h>

#include "serve/access.h"
#include "serve/buffer.h"
#include "serve/fields.h"
#include "serve/text.h"

/* ---- bodies ---- */

static void refused_body(const char *body, size_t len, const char *part)
{
    api_error err = {0};
    assert_null(fields_parse(body, len, &err));
    assert_int_equal(err.http, 400);
    if (strstr(err.message, part) == NULL) fail_msg("%s, not: %s", err.message, part);
}

static void test_bodies(void **state)
{
    static const struct {
        const char *body, *part;
    } bad[] = {
        {"", "empty"},
        {"[]", "not an object"},
        {"{\"a\":", "line 1"},
        {"{\"a\": NaN}", "not valid JSON"},
        {"{\"a\": 1e999}", "not valid JSON"},
        {"{\"a\": 99999999999999999999}", "not valid JSON"},
        {"{\"a\": \"\xff\"}", "not valid JSON"},
        {"{\"a\": \"\xed\xa0\x80\"}", "not valid JSON"},
        {"{\"a\": 1} x", "not valid JSON"},
        {"{\"a\": \"\\", "not valid JSON"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refused_body(bad[i].body, strlen(bad[i].body), bad[i].part);
}

static void test_deep_and_many(void **state)
{
    api_error err = {0};
    buffer b = {0};
    (void)state;
    buffer_text(&b, "{\"a\":");
    for (int i = 0; i < 100000; i++) buffer_text(&b, "[");
    refused_body(b.data, b.len, "nests deeper than 64");
    buffer_clear(&b);
    buffer_text(&b, "{\"a\":[0");
    for (int i = 0; i < FIELDS_MAX_VALUES; i++) buffer_text(&b, ",0");
    buffer_text(&b, "]}");
    refused_body(b.data, b.len, "more than 400000 values");
    buffer_clear(&b);
    /* What stands within strings is not counted. */
    buffer_text(&b, "{\"a\":\"\\\"");
    for (int i = 0; i < FIELDS_MAX_VALUES; i++) buffer_text(&b, "[,");
    buffer_text(&b, "\"}");
    json_t *root = fields_parse(b.data, b.len, &err);
    assert_non_null(root);
    json_decref(root);
    buffer_clear(&b);
}

/* ---- fields ---- */

static const char sample[] =
    "{\"yes\": true, \"nothing\": null, \"whole\": 3, \"round\": 4.0, \"half\": 0.5, \"word\": \"abc\","
    "\"list\": [1], \"inner\": {\"x\": \"y\"}, \"zero\": \"a\\u0000b\", \"huge\": 1e300}";

typedef struct reading {
    json_t *root;
    api_error err;
    fields f;
} reading;

static void read_sample(reading *r)
{
    *r = (reading){0};
    r->root = fields_parse(sample, strlen(sample), &r->err);
    assert_non_null(r->root);
    r->f = (fields){.object = r->root, .err = &r->err};
}

static void test_fields_read(void **state)
{
    reading r;
    bool yes = false;
    int64_t whole = 0, round = 0, absent = 7;
    uint32_t small = 0;
    double half = 0, null = 9;
    const char *word = NULL;
    uint64_t ns = 0;
    fields inner;
    (void)state;
    read_sample(&r);
    field_bool(&r.f, "yes", &yes);
    field_integer(&r.f, "whole", 0, 10, &whole);
    field_integer(&r.f, "round", 0, 10, &round);
    field_u32(&r.f, "whole", 3, 3, &small);
    field_integer(&r.f, "absent", 0, 1, &absent);
    field_number(&r.f, "half", 0, 1, &half);
    field_number(&r.f, "nothing", 0, 1, &null);
    field_string(&r.f, "word", &word);
    field_ms(&r.f, "half", &ns);
    assert_true(field_object(&r.f, "inner", &inner));
    assert_int_equal(r.err.http, 0);
    assert_true(yes && whole == 3 && round == 4 && small == 3 && absent == 7 && half == 0.5 && null == 9);
    assert_string_equal(word, "abc");
    assert_int_equal(ns, 500000);
    field_integer(&inner, "x", 0, 1, &whole);
    assert_string_equal(r.err.param, "inner.x");
    json_decref(r.root);
}

/* Each line reads one field of the sample wrongly. */
static void test_fields_refuse(void **state)
{
    static const struct {
        const char *name, *part;
        char how;
    } bad[] = {
        {"whole", "whole must be a boolean, not a whole number", 'b'},
        {"half", "half must be a whole number, not a number", 'i'},
        {"word", "word must be a whole number, not a string", 'i'},
        {"huge", "huge must be from 0 to 2", 'i'},
        {"whole", "whole must be from 0 to 2", 'i'},
        {"whole", "whole must be from 0 to 2, not 3", 'n'},
        {"list", "list must be a number, not an array", 'n'},
        {"half", "half must be a string, not a number", 's'},
        {"zero", "zero must not contain the character U+0000", 's'},
        {"yes", "yes must be an object, not a boolean", 'o'},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        reading r;
        bool b = false;
        int64_t whole = -5;
        double number = -5;
        const char *word = NULL;
        fields inner;
        read_sample(&r);
        if (bad[i].how == 'b') field_bool(&r.f, bad[i].name, &b);
        if (bad[i].how == 'i') field_integer(&r.f, bad[i].name, 0, 2, &whole);
        if (bad[i].how == 'n') field_number(&r.f, bad[i].name, 0, 2, &number);
        if (bad[i].how == 's') field_string(&r.f, bad[i].name, &word);
        if (bad[i].how == 'o') assert_false(field_object(&r.f, bad[i].name, &inner));
        assert_int_equal(r.err.http, 400);
        assert_string_equal(r.err.param, bad[i].name);
        assert_string_equal(r.err.message, bad[i].part);
        assert_true(!b && whole == -5 && number == -5 && word == NULL);
        /* The first error stays, and nothing is read any more. */
        field_bool(&r.f, "yes", &b);
        field_bool(&r.f, "word", &b);
        assert_false(b);
        assert_string_equal(r.err.message, bad[i].part);
        json_decref(r.root);
    }
}

/* ---- errors and texts ---- */

static void assert_json(json_t *root, const char *text)
{
    buffer b = {0};
    buffer_json(&b, root);
    assert_false(b.failed);
    assert_string_equal(b.data, text);
    buffer_clear(&b);
}

static void test_error_shapes(void **state)
{
    api_error field = {0}, busy = {0};
    (void)state;
    assert_false(api_fail_field(&field, "top_p", "top_p is \"%s\"", "odd"));
    assert_false(api_fail(&busy, 503, "queue_full", "later"));
    assert_json(
        api_error_openai(&field),
        "{\"error\":{\"message\":\"top_p is \\\"odd\\\"\",\"type\":\"invalid_request_error\",\"param\":\"top_p\","
        "\"code\":\"invalid_value\"}}");
    assert_json(api_error_openai(&busy),
                "{\"error\":{\"message\":\"later\",\"type\":\"overloaded_error\",\"param\":null,"
                "\"code\":\"queue_full\"}}");
    assert_json(api_error_anthropic(&busy),
                "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"later\"}}");
}

static void test_texts(void **state)
{
    static const struct {
        const char *bytes, *text;
    } texts[] = {
        {"plain", "plain"},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82"
         "x",
         "\xef\xbf\xbd\xef\xbf\xbd"
         "x"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_t *made = text_json(texts[i].bytes);
        assert_string_equal(json_string_value(made), texts[i].text);
        json_decref(made);
    }
    assert_json(json_pack("[o]", text_json_n(NULL, 0)), "[\"\"]");
    assert_json(json_pack("[o,o,o]", number_json(0.25), number_json(NAN), number_json(INFINITY)), "[0.25,null,null]");
}

static void test_buffer(void **state)
{
    char out[8];
    buffer b = {0};
    (void)state;
    assert_int_equal(buffer_take(&b, out, sizeof out), 0);
    buffer_text(&b, "0123456789");
    assert_int_equal(buffer_take(&b, out, 4), 4);
    assert_memory_equal(out, "0123", 4);
    assert_string_equal(b.data, "456789");
    buffer_json(&b, NULL); /* out of memory */
    assert_true(b.failed);
    buffer_text(&b, "more");
    assert_int_equal(b.len, 6);
    buffer_clear(&b);
}

/* ---- access ---- */

static access_rules *rules_of(const char *keys, const char *cors, bool loopback)
{
    char path[] = "/tmp/test_serve.XXXXXX";
    access_rules *rules = NULL;
    mp_error err;
    if (keys != NULL) {
        const int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, keys, strlen(keys)), strlen(keys));
        close(fd);
    }
    const mp_status status = access_open(keys != NULL ? path : NULL, cors, "myhost", loopback, &rules, &err);
    if (keys != NULL) unlink(path);
    if (status != MP_OK) assert_null(rules);
    return rules;
}

static void test_keys(void **state)
{
    access_rules *rules = rules_of("# comment\n\n first-key \r\nsecond", NULL, true);
    (void)state;
    assert_non_null(rules);
    assert_true(access_needs_key(rules));
    assert_true(access_key(rules, "Bearer first-key", NULL));
    assert_true(access_key(rules, "bearer  second", NULL));
    assert_true(access_key(rules, NULL, "second"));
    static const char *const wrong[] = {"Bearer first-ke", "Bearer first-keys", "Bearer ",
                                        "Basic first-key", "first-key",         "Bearer # comment"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) assert_false(access_key(rules, wrong[i], NULL));
    assert_false(access_key(rules, NULL, NULL));
    assert_false(access_key(rules, NULL, ""));
    access_close(rules);
    assert_null(rules_of("# nothing\n", NULL, true));
    rules = rules_of(NULL, NULL, true);
    assert_true(access_key(rules, NULL, NULL) && !access_needs_key(rules));
    access_close(rules);
}

static void test_hosts(void **state)
{
    static const char *const mine[] = {"localhost", "LOCALHOST:8080", "127.0.0.1:1",
                                       "127.9.9.9", "[::1]:8080",     "myhost:80"};
    static const char *const others[] = {"evil.example",
                                         "localhost.evil.example:8080",
                                         "127.0.0.1.evil.example",
                                         "127.evil.example",
                                         "[::2]",
                                         "",
                                         "myhost.example",
                                         "[::1",
                                         "[::1]x",
                                         "[::1].evil.example",
                                         "[127.0.0.1]evil"};
    access_rules *rules = rules_of(NULL, NULL, true), *open = rules_of(NULL, NULL, false);
    (void)state;
    for (size_t i = 0; i < sizeof mine / sizeof mine[0]; i++) assert_true(access_host(rules, mine[i]));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (access_host(rules, others[i])) fail_msg("took %s for this machine", others[i]);
        assert_true(access_host(open, others[i]));
    }
    assert_true(access_host(rules, NULL));
    access_close(rules);
    access_close(open);
}

static void test_origins(void **state)
{
    access_rules *rules = rules_of(NULL, "https://a.example, http://b.example:81", true),
                 *all = rules_of(NULL, "*", true);
    (void)state;
    assert_true(access_origin(rules, NULL, "localhost:8080"));
    assert_true(access_origin(rules, "http://localhost:8080", "localhost:8080"));
    assert_false(access_origin(rules, "http://localhost:9090", "localhost:8080"));
    assert_false(access_origin(rules, "http://evil.example", "localhost:8080"));
    assert_false(access_origin(rules, "null", "localhost:8080"));
    assert_true(access_origin(rules, "https://a.example", "localhost:8080"));
    assert_true(access_cors(rules, "http://b.example:81"));
    assert_false(access_cors(rules, "http://b.example"));
    assert_false(access_cors(rules, "https://a.example.evil"));
    assert_false(access_cors(rules, NULL));
    assert_true(access_cors(all, "null"));
    access_close(rules);
    access_close(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),        cmocka_unit_test(test_deep_and_many), cmocka_unit_test(test_fields_read),
        cmocka_unit_test(test_fields_refuse), cmocka_unit_test(test_error_shapes),  cmocka_unit_test(test_texts),
        cmocka_unit_test(test_buffer),        cmocka_unit_test(test_keys),          cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
