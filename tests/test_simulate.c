/* The simulator: times worked out by hand, every request accounted for under every policy, floors kept, same input same
 * result, and quality that follows the load. */
#include "sched/simulate.h"
#include "testing.h"

static mp_error err;

#define MS 1000000ull

static const sched_point ladder[] = {{1, 0}, {0.75, 0.002}, {0.5, 0.01}, {0.25, 0.04}};

static simulate_params server(sched_policy policy)
{
    return (simulate_params){
        .config = {.policy = policy,
                   .slots = 4,
                   .queue = 1000,
                   .step_tokens = 64,
                   .kv_pages = 4 * 16,
                   .page_tokens = 64,
                   .points = ladder,
                   .n_points = 4,
                   .cost = {.shape = {.used = 0.125}, .ns = {2e6, 1e5, 1e6, 2e7, 100, 2e5}, .correction = 1}}};
}

static trace made(double rate, uint32_t n, const char *floors, uint64_t seed)
{
    trace_params p = {.rate = rate,
                      .n_requests = n,
                      .prompt_min = 8,
                      .prompt_max = 200,
                      .output_min = 1,
                      .output_max = 60,
                      .seed = seed};
    trace t;
    assert_ok(trace_floors_parse(floors, &p.floors, &err), &err);
    assert_ok(trace_generate(&p, &t, &err), &err);
    return t;
}

/* Runs into requests [t->n]. */
static simulate_totals run(const simulate_params *p, const trace *t, report_request *requests)
{
    simulate_totals totals;
    assert_ok(simulate(p, t, requests, &totals, &err), &err);
    return totals;
}

/* ---- by hand ---- */

static double step_ns(const cost_model *m, uint32_t tokens, uint32_t context, bool logits)
{
    double features[COST_FEATURES];
    const cost_item item = {.n_tokens = tokens, .context = context, .logits = logits, .share = 1};
    cost_features(&m->shape, &item, 1, features);
    return cost_predict_ns(m, features);
}

/* One request alone: its prompt in chunks of a whole step, then a token a step, each at its price. */
static void test_alone(void **state)
{
    (void)state;
    trace_request request = {.arrival_ns = 5 * MS, .prompt_tokens = 100, .output_tokens = 3, .floor = TRACE_FULL};
    const trace t = {&request, 1};
    report_request out;
    simulate_params p = server(SCHED_POLICY_FIFO);
    p.overhead_ns = 7;
    simulate_totals totals = run(&p, &t, &out);
    const cost_model *m = &p.config.cost;
    const double first = step_ns(m, 64, 0, false) + step_ns(m, 36, 64, true) + 14,
                 rest = step_ns(m, 1, 100, true) + step_ns(m, 1, 101, true) + 14;
    assert_int_equal(totals.steps, 4);
    assert_int_equal(totals.tokens, 102); /* the last token drawn does not run */
    assert_true(out.outcome == REPORT_DONE && out.arrival_ns == 5 * MS);
    assert_true(fabs((double)(out.first_ns - 5 * MS) - first) <= 4);
    assert_true(fabs((double)(out.end_ns - out.first_ns) - rest) <= 4);
    assert_true(out.share == 1 && out.loss == 0 && !out.violated);
    assert_int_equal(totals.end_ns, out.end_ns);
    p.slower = 2;
    p.overhead_ns = 0;
    totals = run(&p, &t, &out);
    assert_true(fabs((double)totals.busy_ns - 2 * (first + rest - 28)) <= 8);
}

/* ---- all policies ---- */

static void assert_accounted(const char *policy, const trace *t, const report_request *out,
                             const simulate_totals *totals)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < t->n; i++) {
        const report_request *r = &out[i];
        const trace_request *want = &t->requests[i];
        assert_int_equal(r->arrival_ns, want->arrival_ns);
        if (r->outcome != REPORT_DONE) continue;
        tokens += want->prompt_tokens + want->output_tokens - 1;
        if (r->violated || r->share < r->floor_share - 1e-12 || r->loss > r->floor_loss + 1e-12)
            fail_msg("%s: request %zu ran below its floor", policy, i);
        assert_true(r->first_ns > r->arrival_ns && r->end_ns >= r->first_ns && r->end_ns <= totals->end_ns);
        assert_true((r->end_ns == r->first_ns) == (r->output_tokens == 1));
    }
    assert_int_equal(tokens, totals->tokens);
}

static void test_accounts(void **state)
{
    (void)state;
    static const char *const floors[] = {"full", "uniform:1,0.75,0.5,0.25", "bimodal:1,point:3"};
    static const double rates[] = {0.5, 3, 30};
    for (size_t i = 0; sched_policy_names[i] != NULL; i++) {
        simulate_params p = server(SCHED_POLICY_FIFO);
        assert_true(sched_policy_find(sched_policy_names[i], &p.config.policy));
        for (size_t k = 0; k < 9; k++) {
            trace t = made(rates[k % 3], 150, floors[k / 3], k);
            report_request *out = calloc(t.n, sizeof *out);
            report r;
            assert_non_null(out);
            const simulate_totals totals = run(&p, &t, out);
            assert_accounted(sched_policy_names[i], &t, out, &totals);
            assert_ok(report_make(out, t.n, &r, &err), &err);
            if (r.done != t.n || r.violations != 0)
                fail_msg("%s: %zu of %zu done, %zu violations", sched_policy_names[i], r.done, t.n, r.violations);
            free(out);
            trace_clear(&t);
        }
    }
}

static void test_deterministic(void **state)
{
    (void)state;
    trace t = made(8, 200, "uniform:1,0.5,0.25", 1);
    report_request *a = calloc(t.n, sizeof *a), *b = calloc(t.n, sizeof *b);
    assert_non_null(a);
    assert_non_null(b);
    for (size_t i = 0; sched_policy_names[i] != NULL; i++) {
        simulate_params p = server(SCHED_POLICY_FIFO);
        assert_true(sched_policy_find(sched_policy_names[i], &p.config.policy));
        const simulate_totals x = run(&p, &t, a), y = run(&p, &t, b);
        assert_memory_equal(&x, &y, sizeof x);
        assert_memory_equal(a, b, t.n * sizeof *a);
    }
    free(a);
    free(b);
    trace_clear(&t);
}

/* ---- limits ---- */

static void test_refused(void **state)
{
    (void)state;
    trace t = made(1000, 100, "full", 2);
    t.requests[50].prompt_tokens = 64 * 64 + 1; /* more pages than there are */
    report_request out[100];
    report r;
    simulate_params p = server(SCHED_POLICY_ELASTIC);
    p.config.queue = 5;
    run(&p, &t, out);
    assert_int_equal(out[50].outcome, REPORT_FAILED);
    assert_ok(report_make(out, t.n, &r, &err), &err);
    assert_true(r.refused > 50 && r.done >= 9);
    assert_int_equal(r.done + r.refused + r.failed, 100);
    trace_clear(&t);
}

static void test_unknown_floor(void **state)
{
    (void)state;
    trace t = made(1, 3, "full", 3);
    report_request out[3];
    simulate_totals totals;
    const simulate_params p = server(SCHED_POLICY_ELASTIC);
    t.requests[1].floor = (trace_floor){.is_point = true, .point = 4};
    assert_int_equal(simulate(&p, &t, out, &totals, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "request 2"));
    trace_clear(&t);
}

/* ---- what the policies are for ---- */

/* Idle, every answer runs at full; overloaded, elastic serves more than fifo, which runs batches at the dearest floor.
 */
static void test_quality_follows_load(void **state)
{
    (void)state;
    report_request out[300];
    report idle, elastic, fifo;
    simulate_params p = server(SCHED_POLICY_ELASTIC), q = server(SCHED_POLICY_FIFO);
    trace t = made(0.05, 40, "uniform:1,0.5,0.25", 4);
    run(&p, &t, out);
    assert_ok(report_make(out, t.n, &idle, &err), &err);
    assert_true(idle.share > 0.999 && idle.floor_share < 0.7);
    trace_clear(&t);
    t = made(100, 300, "uniform:1,0.5,0.25", 5);
    run(&p, &t, out);
    assert_ok(report_make(out, t.n, &elastic, &err), &err);
    run(&q, &t, out);
    assert_ok(report_make(out, t.n, &fifo, &err), &err);
    assert_true(elastic.requests_s > 1.05 * fifo.requests_s);
    assert_true(elastic.share < fifo.share);
    trace_clear(&t);
}

/* ---- what the work allows ---- */

/* With one slot nothing is shared: the work of a trace is its steps, and fifo, never idle, is done when it is. */
static void test_work_of_one_slot(void **state)
{
    (void)state;
    report_request out[20];
    for (uint64_t seed = 0; seed < 4; seed++) {
        simulate_params p = server(SCHED_POLICY_FIFO);
        p.config.slots = 1;
        p.slower = 1 + (double)seed;
        p.overhead_ns = seed * MS;
        trace t = made(seed % 2 ? 0.5 : 1000, 20, "full", seed);
        const simulate_totals totals = run(&p, &t, out);
        const double late = (double)totals.end_ns - (double)totals.work_end_ns;
        if (fabs(late) > 20 * 300) fail_msg("seed %u: off by %g ns", (unsigned)seed, late); /* a step's time is cut */
        trace_clear(&t);
    }
}

/* More than can be done: elastic does nearly all that the work allows, fifo does not. Little to do: the arrivals' pace.
 */
static void test_work_under_load(void **state)
{
    (void)state;
    report_request out[300];
    for (uint64_t seed = 0; seed < 3; seed++) {
        simulate_params p = server(SCHED_POLICY_ELASTIC), q = server(SCHED_POLICY_FIFO);
        trace t = made(100, 300, "uniform:1,0.5,0.25", seed);
        const simulate_totals elastic = run(&p, &t, out), fifo = run(&q, &t, out);
        assert_int_equal(elastic.work_end_ns, fifo.work_end_ns);
        assert_true((double)elastic.work_end_ns > 0.95 * (double)elastic.end_ns);
        assert_true((double)elastic.work_end_ns < 1.02 * (double)elastic.end_ns);
        assert_true((double)fifo.work_end_ns < 0.95 * (double)fifo.end_ns);
        trace_clear(&t);
        t = made(0.05, 40, "uniform:1,0.5,0.25", seed);
        const simulate_totals calm = run(&p, &t, out);
        const uint64_t last = t.requests[t.n - 1].arrival_ns;
        assert_true(calm.work_end_ns > last && calm.work_end_ns <= calm.end_ns && calm.end_ns < last + 20000 * MS);
        trace_clear(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_accounts),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unknown_floor),
        cmocka_unit_test(test_quality_follows_load),
        cmocka_unit_test(test_work_of_one_slot),
        cmocka_unit_test(test_work_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
