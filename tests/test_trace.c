/* Traces: text in and out, every kind of wrong line, and the generator's distributions against their definition. */
#include "sched/trace.h"
#include "testing.h"

static mp_error err;

#define HEADER "arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms\n"
#define SECOND 1000000000ull

static trace parse(const char *text)
{
    trace t;
    assert_ok(trace_parse(text, strlen(text), "t.csv", &t, &err), &err);
    return t;
}

static char *written(const trace *t, size_t *len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    assert_non_null(f);
    trace_write(t, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

/* ---- text ---- */

static void test_parse(void **state)
{
    (void)state;
    trace t = parse("# made by hand\n" HEADER "0,1,1,,,\r\n\n0.52, 128 ,64,0.5,2000,150.25\n"
                    "0.520000001,300,32,point:3,0,\n1000,16777216,1,12.5%,,0.000001");
    assert_int_equal(t.n, 4);
    assert_int_equal(t.requests[0].arrival_ns, 0);
    assert_true(!t.requests[0].floor.is_point && t.requests[0].floor.share == 1);
    assert_int_equal(t.requests[0].ttft_ns, 0);
    assert_int_equal(t.requests[1].arrival_ns, 520000000);
    assert_int_equal(t.requests[1].prompt_tokens, 128);
    assert_int_equal(t.requests[1].output_tokens, 64);
    assert_true(t.requests[1].floor.share == 0.5);
    assert_int_equal(t.requests[1].ttft_ns, 2000000000);
    assert_int_equal(t.requests[1].tpot_ns, 150250000);
    assert_int_equal(t.requests[2].arrival_ns, 520000001);
    assert_true(t.requests[2].floor.is_point && t.requests[2].floor.point == 3);
    assert_true(t.requests[3].floor.share == 0.125);
    assert_int_equal(t.requests[3].tpot_ns, 1);
    trace_clear(&t);
    t = parse(HEADER);
    assert_int_equal(t.n, 0);
    trace_clear(&t);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char text[] = HEADER "0,1,2,1,,\n0.000000001,1,2,0.375,1.5,0.000001\n9000000000.5,7,8,point:12,,70\n";
    trace t = parse(text);
    size_t len;
    char *again = written(&t, &len);
    assert_string_equal(again, text);
    free(again);
    trace_clear(&t);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "empty"},
        {"# nothing\n", "empty"},
        {"0,1,1,,,\n", "line 1: a trace begins with"},
        {"arrival_s,prompt_tokens\n", "line 1: a trace begins with"},
        {HEADER "0,1,1,,\n", "line 2: has fewer than 6"},
        {HEADER "0,1,1,,,,\n", "line 2: has more than 6"},
        {HEADER "\n-1,1,1,,,\n", "line 3: arrival_s"},
        {HEADER "1e3,1,1,,,\n", "line 2: arrival_s"},
        {HEADER ",1,1,,,\n", "line 2: arrival_s"},
        {HEADER ".5,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "1.,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "0.0000000001,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "99999999999999999999,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "9999999999,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "nan,1,1,,,\n", "line 2: arrival_s"},
        {HEADER "0,0,1,,,\n", "line 2: prompt_tokens"},
        {HEADER "0,16777217,1,,,\n", "line 2: prompt_tokens"},
        {HEADER "0,1,1.5,,,\n", "line 2: output_tokens"},
        {HEADER "0,1,,,,\n", "line 2: output_tokens"},
        {HEADER "0,1,1,0,,\n", "line 2: floor"},
        {HEADER "0,1,1,1.01,,\n", "line 2: floor"},
        {HEADER "0,1,1,101%,,\n", "line 2: floor"},
        {HEADER "0,1,1,5%0,,\n", "line 2: floor"},
        {HEADER "0,1,1,.,,\n", "line 2: floor"},
        {HEADER "0,1,1,point:,,\n", "line 2: floor"},
        {HEADER "0,1,1,point:-1,,\n", "line 2: floor"},
        {HEADER "0,1,1,point:4294967295,,\n", "line 2: floor"},
        {HEADER "0,1,1,,x,\n", "line 2: ttft_ms"},
        {HEADER "0,1,1,,,-5\n", "line 2: tpot_ms"},
        {HEADER "1,1,1,,,\n0.5,1,1,,,\n", "line 3: arrives before"},
        {HEADER "0,1,1,00000000000000000000000000000000000000000000000000000000000000000000,,\n", "column 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        trace t;
        const mp_status status = trace_parse(cases[i].text, strlen(cases[i].text), "t.csv", &t, &err);
        if (status != MP_E_FORMAT || !strstr(err.message, cases[i].says) || !strstr(err.message, "t.csv"))
            fail_msg("%s: status %d, '%s', expected '%s'", cases[i].text, status, err.message, cases[i].says);
        assert_null(t.requests);
    }
}

/* Cut anywhere, and with any byte changed, a trace is read or refused, never more. */
static void test_damaged(void **state)
{
    (void)state;
    static const char text[] = HEADER "0,1,2,1,,\n0.25,1,2,37.5%,1.5,2\n1,7,8,point:12,,70\n";
    char copy[sizeof text];
    trace t;
    for (size_t len = 0; len < sizeof text; len++) {
        char *exact = malloc(len + 1);
        assert_non_null(exact);
        memcpy(exact, text, len);
        if (trace_parse(exact, len, "t", &t, &err) == MP_OK) trace_clear(&t);
        free(exact);
    }
    for (size_t at = 0; at + 1 < sizeof text; at++)
        for (int c = 0; c < 256; c++) {
            memcpy(copy, text, sizeof text);
            copy[at] = (char)c;
            if (trace_parse(copy, sizeof text - 1, "t", &t, &err) == MP_OK) trace_clear(&t);
        }
}

/* ---- floors ---- */

static void test_floor_point(void **state)
{
    (void)state;
    static const sched_point points[] = {{1, 0}, {0.75, .01}, {0.49, .02}, {0.25, .05}};
    static const struct {
        const char *text;
        uint32_t point;
    } cases[] = {{"1", 0},    {"0.9", 0},  {"75%", 1},     {"0.5", 2},     {"0.53", 1},
                 {"0.25", 3}, {"0.01", 3}, {"point:0", 0}, {"point:3", 3}, {"0.26", 3}};
    trace_floor f;
    uint32_t p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(trace_floor_parse(cases[i].text, &f));
        assert_true(trace_floor_point(&f, points, 4, &p));
        assert_int_equal(p, cases[i].point);
    }
    assert_true(trace_floor_parse("point:4", &f));
    assert_false(trace_floor_point(&f, points, 4, &p));
}

static void test_floors_parse(void **state)
{
    (void)state;
    trace_floors f;
    assert_ok(trace_floors_parse("full", &f, &err), &err);
    assert_int_equal(f.n, 0);
    assert_ok(trace_floors_parse("uniform:1,75%,0.5,point:9", &f, &err), &err);
    assert_int_equal(f.n, 4);
    assert_true(f.floors[1].share == 0.75 && f.floors[3].is_point && f.weights[3] == 0.25);
    assert_ok(trace_floors_parse("bimodal:1,0.25", &f, &err), &err);
    assert_true(f.n == 2 && f.weights[0] == 0.5 && f.weights[1] == 0.5);
    assert_ok(trace_floors_parse("bimodal:1,0.25,0.75", &f, &err), &err);
    assert_true(f.weights[0] == 0.75 && f.weights[1] == 0.25);
    static const char *const bad[] = {"",          "uniform",          "uniform:",          "uniform:1,,1", "bimodal:1",
                                      "uniform:2", "bimodal:1,.5,1.5", "bimodal:1,1,0.5,1", "half",         "full:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(trace_floors_parse(bad[i], &f, &err), MP_E_INVALID);
}

/* ---- the generator ---- */

static trace generate(trace_params p)
{
    trace t;
    if (p.prompt_max == 0) p.prompt_min = p.prompt_max = p.output_min = p.output_max = 1;
    assert_ok(trace_generate(&p, &t, &err), &err);
    for (size_t i = 1; i < t.n; i++) assert_true(t.requests[i].arrival_ns >= t.requests[i - 1].arrival_ns);
    return t;
}

/* Mean and deviation over mean of the times between arrivals, in seconds. */
static void intervals(const trace *t, double *mean, double *cv)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < t->n; i++) {
        const uint64_t before = i ? t->requests[i - 1].arrival_ns : 0;
        const double s = (double)(t->requests[i].arrival_ns - before) * 1e-9;
        sum += s;
        squares += s * s;
    }
    *mean = sum / (double)t->n;
    *cv = sqrt(squares / (double)t->n - *mean * *mean) / *mean;
}

static void test_arrivals(void **state)
{
    (void)state;
    double mean, cv;
    trace t = generate((trace_params){.arrivals = TRACE_POISSON, .rate = 5, .n_requests = 100000, .seed = 1});
    assert_int_equal(t.n, 100000);
    intervals(&t, &mean, &cv);
    assert_true(fabs(mean - 0.2) < 0.2 * 0.02 && fabs(cv - 1) < 0.03);
    trace_clear(&t);
    t = generate((trace_params){.arrivals = TRACE_BURSTY, .rate = 5, .n_requests = 400000, .seed = 2});
    intervals(&t, &mean, &cv);
    assert_true(fabs(mean - 0.2) < 0.2 * 0.05 && fabs(cv - TRACE_BURSTY_CV) < 0.25);
    trace_clear(&t);
}

static void test_step(void **state)
{
    (void)state;
    size_t thirds[3] = {0};
    trace t =
        generate((trace_params){.arrivals = TRACE_STEP, .rate = 20, .step = 4, .duration_ns = 900 * SECOND, .seed = 3});
    for (size_t i = 0; i < t.n; i++) thirds[t.requests[i].arrival_ns / (300 * SECOND)]++;
    assert_true(fabs((double)thirds[0] - 6000) < 400 && fabs((double)thirds[2] - 6000) < 400);
    assert_true(fabs((double)thirds[1] - 24000) < 800);
    trace_clear(&t);
}

static void test_duration(void **state)
{
    (void)state;
    trace t = generate((trace_params){.rate = 10, .duration_ns = 100 * SECOND, .seed = 4});
    assert_true(t.n > 800 && t.n < 1200);
    assert_true(t.requests[t.n - 1].arrival_ns < 100 * SECOND);
    trace_clear(&t);
    t = generate((trace_params){.rate = 10, .duration_ns = 100 * SECOND, .n_requests = 7, .seed = 4});
    assert_int_equal(t.n, 7);
    trace_clear(&t);
}

static void test_sizes_and_floors(void **state)
{
    (void)state;
    trace_params p = {.rate = 1,
                      .n_requests = 40000,
                      .prompt_min = 64,
                      .prompt_max = 512,
                      .output_min = 32,
                      .output_max = 128,
                      .ttft_ns = 5,
                      .tpot_ns = 6,
                      .seed = 5};
    assert_ok(trace_floors_parse("bimodal:1,point:7,0.9", &p.floors, &err), &err);
    trace t = generate(p);
    double prompt = 0, output = 0, full = 0;
    bool ends[4] = {false};
    for (size_t i = 0; i < t.n; i++) {
        const trace_request *r = &t.requests[i];
        assert_in_range(r->prompt_tokens, 64, 512);
        assert_in_range(r->output_tokens, 32, 128);
        assert_true(r->ttft_ns == 5 && r->tpot_ns == 6);
        ends[0] |= r->prompt_tokens == 64;
        ends[1] |= r->prompt_tokens == 512;
        ends[2] |= r->output_tokens == 32;
        ends[3] |= r->output_tokens == 128;
        prompt += r->prompt_tokens;
        output += r->output_tokens;
        full += !r->floor.is_point;
        assert_true(r->floor.is_point ? r->floor.point == 7 : r->floor.share == 1);
    }
    assert_true(ends[0] && ends[1] && ends[2] && ends[3]);
    assert_true(fabs(prompt / 40000 - 288) < 3 && fabs(output / 40000 - 80) < 1 && fabs(full / 40000 - 0.9) < 0.01);
    trace_clear(&t);
}

/* Same seed, same trace; another rate or other floors leave the rest alone. */
static void test_streams(void **state)
{
    (void)state;
    trace_params p = {
        .rate = 2, .n_requests = 200, .prompt_min = 1, .prompt_max = 900, .output_min = 1, .output_max = 90, .seed = 6};
    assert_ok(trace_floors_parse("uniform:1,0.5,0.25", &p.floors, &err), &err);
    trace a = generate(p), b = generate(p);
    size_t len_a, len_b;
    char *text_a = written(&a, &len_a), *text_b = written(&b, &len_b);
    assert_string_equal(text_a, text_b);
    free(text_b);
    trace_clear(&b);
    p.rate = 4;
    b = generate(p);
    for (size_t i = 0; i < a.n; i++) {
        assert_int_equal(a.requests[i].prompt_tokens, b.requests[i].prompt_tokens);
        assert_int_equal(a.requests[i].output_tokens, b.requests[i].output_tokens);
        assert_true(a.requests[i].floor.share == b.requests[i].floor.share);
        assert_true(a.requests[i].arrival_ns / 2 - b.requests[i].arrival_ns <= 1);
    }
    trace_clear(&b);
    p.seed = 7;
    b = generate(p);
    text_b = written(&b, &len_b);
    assert_string_not_equal(text_a, text_b);
    free(text_a);
    free(text_b);
    trace_clear(&a);
    trace_clear(&b);
}

static void test_generator_refuses(void **state)
{
    (void)state;
    const trace_params good = {
        .rate = 1, .n_requests = 1, .prompt_min = 1, .prompt_max = 1, .output_min = 1, .output_max = 1};
    trace_params bad[9];
    for (size_t i = 0; i < 9; i++) bad[i] = good;
    bad[0].rate = 0;
    bad[1].rate = NAN;
    bad[2].n_requests = 0;
    bad[3].prompt_min = 0;
    bad[4].prompt_max = 0;
    bad[5].output_max = TRACE_TOKENS_MAX + 1;
    bad[6].arrivals = TRACE_STEP;
    bad[7].n_requests = TRACE_REQUESTS_MAX + 1;
    bad[8].n_requests = 0;
    bad[8].duration_ns = INT64_MAX;
    trace t;
    assert_ok(trace_generate(&good, &t, &err), &err);
    trace_clear(&t);
    for (size_t i = 0; i < 9; i++) {
        const mp_status status = trace_generate(&bad[i], &t, &err);
        if (status != MP_E_INVALID && status != MP_E_LIMIT) fail_msg("case %zu: status %d", i, status);
        assert_null(t.requests);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_floor_point), cmocka_unit_test(test_floors_parse),
        cmocka_unit_test(test_arrivals),    cmocka_unit_test(test_step),
        cmocka_unit_test(test_duration),    cmocka_unit_test(test_sizes_and_floors),
        cmocka_unit_test(test_streams),     cmocka_unit_test(test_generator_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
