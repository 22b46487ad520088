/* Reports about requests: figures worked out by hand, and sets where there is nothing to tell. */
#include "sched/report.h"
#include "testing.h"

static mp_error err;

#define MS 1000000ull

static report make(const report_request *requests, size_t n)
{
    report r;
    assert_ok(report_make(requests, n, &r, &err), &err);
    return r;
}

static void assert_close(double got, double want)
{
    if (!(fabs(got - want) <= 1e-9 * (1 + fabs(want)))) fail_msg("%.12g, not %.12g", got, want);
}

static void test_by_hand(void **state)
{
    (void)state;
    const report_request requests[] = {
        {.outcome = REPORT_DONE,
         .arrival_ns = 1000 * MS,
         .first_ns = 1100 * MS,
         .end_ns = 1400 * MS,
         .prompt_tokens = 6,
         .output_tokens = 4,
         .ttft_target_ns = 100 * MS,
         .tpot_target_ns = 100 * MS,
         .share = 1,
         .floor_share = 0.5,
         .loss = 0,
         .floor_loss = 0.02}, /* 100 ms, 100 ms a token: both just met */
        {.outcome = REPORT_DONE,
         .arrival_ns = 1200 * MS,
         .first_ns = 1500 * MS,
         .end_ns = 2000 * MS,
         .prompt_tokens = 28,
         .output_tokens = 2,
         .ttft_target_ns = 299 * MS,
         .share = 0.5,
         .floor_share = 0.25,
         .loss = 0.02,
         .floor_loss = 0.04,
         .violated = true}, /* late by 1 ms; 500 ms a token */
        {.outcome = REPORT_DONE,
         .arrival_ns = 1300 * MS,
         .first_ns = 1500 * MS,
         .end_ns = 1500 * MS,
         .prompt_tokens = 9,
         .output_tokens = 1,
         .tpot_target_ns = 1,
         .share = 0.75,
         .floor_share = 0.75,
         .loss = 0.01,
         .floor_loss = 0.01}, /* one token has no time a token */
        {.outcome = REPORT_REFUSED, .arrival_ns = 3000 * MS, .prompt_tokens = 1000, .output_tokens = 1000},
        {.outcome = REPORT_FAILED, .arrival_ns = 2500 * MS, .prompt_tokens = 1000, .output_tokens = 1000, .share = NAN},
    };
    const report r = make(requests, 5);
    assert_true(r.offered == 5 && r.done == 3 && r.refused == 1 && r.failed == 1 && r.violations == 1 && r.met == 2);
    assert_close(r.seconds, 2);
    assert_close(r.requests_s, 1.5);
    assert_close(r.goodput_s, 1);
    assert_close(r.tokens_s, 3.5);
    assert_close(r.ttft_ms.mean, 200);
    assert_close(r.ttft_ms.p50, 200);
    assert_close(r.ttft_ms.p90, 280);
    assert_close(r.ttft_ms.p99, 298);
    assert_close(r.tpot_ms.p50, 300);
    assert_close(r.tpot_ms.p90, 460);
    assert_close(r.end_to_end_ms.p50, 400);
    assert_close(r.end_to_end_ms.mean, (400 + 800 + 200) / 3.0);
    assert_close(r.share, (10 * 1 + 30 * 0.5 + 10 * 0.75) / 50);
    assert_close(r.floor_share, (10 * 0.5 + 30 * 0.25 + 10 * 0.75) / 50);
    assert_close(r.loss, (10 * 0 + 30 * 0.02 + 10 * 0.01) / 50);
    assert_close(r.floor_loss, (10 * 0.02 + 30 * 0.04 + 10 * 0.01) / 50);
}

static void test_tpot_deadline(void **state)
{
    (void)state;
    report_request request = {
        .outcome = REPORT_DONE, .first_ns = 10 * MS, .end_ns = 20 * MS, .output_tokens = 4, .tpot_target_ns = 3333333};
    assert_int_equal(make(&request, 1).met, 1); /* 10 ms / 3: a third of a nanosecond is nobody's delay */
    request.tpot_target_ns = 3333332;
    assert_int_equal(make(&request, 1).met, 0);
}

/* Quality that is not known of one is not known of all. */
static void test_unknown_quality(void **state)
{
    (void)state;
    const report_request requests[] = {
        {.outcome = REPORT_DONE,
         .end_ns = MS,
         .output_tokens = 1,
         .share = 1,
         .floor_share = 1,
         .loss = NAN,
         .floor_loss = NAN},
        {.outcome = REPORT_DONE,
         .end_ns = MS,
         .output_tokens = 1,
         .share = 0.5,
         .floor_share = 1,
         .loss = 0,
         .floor_loss = 0},
    };
    const report r = make(requests, 2);
    assert_close(r.share, 0.75);
    assert_true(isnan(r.loss) && isnan(r.floor_loss));
}

static void test_nothing(void **state)
{
    (void)state;
    report r = make(NULL, 0);
    assert_true(r.offered == 0 && r.seconds == 0 && isnan(r.ttft_ms.p50) && isnan(r.share));
    const report_request refused = {.outcome = REPORT_REFUSED, .arrival_ns = 5};
    r = make(&refused, 1);
    assert_true(r.refused == 1 && r.done == 0 && isnan(r.end_to_end_ms.p99) && isnan(r.loss));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_tpot_deadline),
        cmocka_unit_test(test_unknown_quality),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
