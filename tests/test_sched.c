/* The scheduler below its policies: the life of requests, what a step holds, and what every policy promises, under
 * random loads. The queue is test_sched_queue.c. */
#include <math.h>

#include "sched_rig.h"

/* A curve that is not smooth: better than full by luck, better than the rung before, dearer than it, not measured. */
static void test_points_of_a_model(void **state)
{
    (void)state;
    static const mp_point rungs[] = {
        {.compute_share = 1, .measured = true, .ppl = 50},    {.compute_share = 0.8, .measured = true, .ppl = 49.9},
        {.compute_share = 0.5, .measured = true, .ppl = 52},  {.compute_share = 0.4, .measured = true, .ppl = 51},
        {.compute_share = 0.41, .measured = true, .ppl = 55}, {.compute_share = 0.3},
    };
    const double losses[] = {0, 0, log(52.0 / 50), log(52.0 / 50), log(55.0 / 50), log(55.0 / 50)};
    const double shares[] = {1, 0.8, 0.5, 0.4, 0.4, 0.3};
    sched_point points[6];
    for (size_t i = 0; i < 6; i++) {
        points[i] = sched_point_of(&rungs[0], &rungs[i], i > 0 ? &points[i - 1] : NULL);
        assert_true(points[i].loss == losses[i]);
        assert_true(points[i].share == shares[i]);
    }
    assert_true(sched_loss_measured(&rungs[0], &rungs[1]) == log(49.9 / 50));
    assert_true(isnan(sched_loss_measured(&rungs[0], &rungs[5])) && isnan(sched_loss_measured(&rungs[5], &rungs[0])));
}

/* Rungs of a whole model are not measured: what they are taken to lose grows. */
static void test_points_not_measured(void **state)
{
    (void)state;
    sched_point before = {1, 0};
    for (int k = 7; k > 0; k--) {
        const mp_point full = {.compute_share = 1}, p = {.compute_share = k / 8.0};
        const sched_point point = sched_point_of(&full, &p, &before);
        assert_true(point.share == p.compute_share && point.loss > before.loss && isfinite(point.loss));
        before = point;
    }
}

static void test_life(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    rig *r = rig_open(&c);
    assert_int_equal(rig_plan(r), 0);
    assert_int_equal(r->plan.wake_ns, 0);
    rig_simple(r, 100, 3, 0);
    assert_int_equal(sched_get_counts(r->s).waiting, 1);

    static const sched_item expected[] = {
        {.n_tokens = 64, .prompt = true, .starts = true},
        {.n_tokens = 36, .prompt = true, .samples = true},
        {.n_tokens = 1, .samples = true},
        {.n_tokens = 1, .samples = true},
    };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(rig_plan(r), 1);
        const sched_item *it = r->plan.items;
        assert_int_equal(it->n_tokens, expected[i].n_tokens);
        assert_int_equal(it->prompt, expected[i].prompt);
        assert_int_equal(it->samples, expected[i].samples);
        assert_int_equal(it->starts, expected[i].starts);
        assert_int_equal(sched_get_counts(r->s).running, 1);
        assert_int_equal(sched_get_counts(r->s).pages_reserved, 7); /* 103 tokens of 16 */
        rig_run(r);
    }
    assert_true(r->requests[0].finished);
    assert_false(rig_step(r));
    assert_int_equal(sched_get_counts(r->s).pages_reserved, 0);
    rig_close(r);
}

/* The prediction is the cost model's for the step's tokens. */
static void test_predicted(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    rig *r = rig_open(&c);
    rig_simple(r, 10, 5, 0);
    rig_step(r);
    rig_step(r);
    rig_simple(r, 20, 5, 0);
    assert_int_equal(rig_plan(r), 2);
    const cost_item items[] = {{.n_tokens = 1, .context = 11, .logits = 1, .share = 1},
                               {.n_tokens = 20, .context = 0, .logits = 1, .share = 1}};
    double f[COST_FEATURES];
    cost_features(&c.cost.shape, items, 2, f);
    assert_in_range(r->plan.predicted_ns, (uint64_t)cost_predict_ns(sched_cost(r->s), f) - 1,
                    (uint64_t)cost_predict_ns(sched_cost(r->s), f) + 1);
    rig_close(r);
}

static void test_decodes_first(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.step_tokens = 8;
    rig *r = rig_open(&c);
    for (int i = 0; i < 3; i++) rig_simple(r, 1, 50, 0);
    rig_step(r);
    rig_simple(r, 7, 50, 0);
    rig_simple(r, 7, 50, 0);
    /* 3 decodes leave 5: of the first prompt; then 2 of it and 3 of the second one */
    assert_int_equal(rig_plan(r), 4);
    assert_int_equal(r->plan.items[3].n_tokens, 5);
    assert_int_equal(r->plan.items[3].id, 3);
    rig_run(r);
    assert_int_equal(rig_plan(r), 5);
    assert_int_equal(r->plan.items[3].n_tokens, 2);
    assert_true(r->plan.items[3].samples);
    assert_int_equal(r->plan.items[4].n_tokens, 3);
    assert_false(r->plan.items[4].samples);
    rig_run(r);
    assert_int_equal(rig_plan(r), 5);
    assert_int_equal(r->plan.items[4].n_tokens, 4);
    rig_close(r);
}

static void test_cached(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    rig_simple(r, 100, 4, 0);
    rig_plan(r);
    uint64_t whole = r->plan.predicted_ns;
    assert_true(r->plan.items[0].starts);
    sched_cached(r->s, &r->plan, 0, 90);
    assert_int_equal(r->plan.items[0].n_tokens, 10);
    assert_true(r->plan.items[0].samples);
    assert_true(r->plan.predicted_ns < whole);
    r->requests[0].done = 90;
    rig_run(r);
    rig_plan(r);
    assert_false(r->plan.items[0].prompt);
    rig_drain(r);

    rig_simple(r, 100, 4, 0);
    rig_plan(r);
    sched_cached(r->s, &r->plan, 0, 16);
    assert_int_equal(r->plan.items[0].n_tokens, 64);
    assert_false(r->plan.items[0].samples);
    r->requests[1].done = 16;
    rig_run(r);
    rig_plan(r);
    assert_int_equal(r->plan.items[0].n_tokens, 20);
    assert_true(r->plan.items[0].samples);
    rig_close(r);
}

/* A plan that was not run is made again, the same. */
static void test_plan_twice(void **state)
{
    (void)state;
    for (sched_policy p = 0; sched_policy_names[p]; p++) {
        sched_config c = rig_config(p);
        rig *r = rig_open(&c);
        for (uint32_t i = 0; i < 8; i++) rig_simple(r, 30, 20, i % RIG_POINTS);
        for (int step = 0; step < 10; step++) {
            sched_item first[8];
            size_t n = rig_plan(r);
            memcpy(first, r->plan.items, n * sizeof *first);
            assert_int_equal(rig_plan(r), n);
            assert_memory_equal(first, r->plan.items, n * sizeof *first);
            rig_run(r);
        }
        rig_close(r);
    }
}

static void test_cancel(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 1;
    rig *r = rig_open(&c);
    rig_simple(r, 10, 100, 0);
    rig_simple(r, 10, 100, 0);
    rig_simple(r, 10, 100, 0);
    rig_step(r);
    rig_finish(r, 1); /* waits */
    assert_int_equal(sched_get_counts(r->s).waiting, 1);
    rig_plan(r);
    rig_finish(r, 0); /* runs, and is in the plan */
    assert_int_equal(sched_get_counts(r->s).running, 0);
    assert_int_equal(sched_get_counts(r->s).pages_reserved, 0);
    sched_ran(r->s, &r->plan, r->now_ns, 1);
    rig_plan(r);
    assert_int_equal(r->plan.items[0].id, 2);
    assert_true(r->plan.items[0].starts);
    sched_finish(r->s, 12345, r->now_ns); /* unknown */
    rig_drain(r);
    rig_close(r);
}

static void random_load(rig *r, uint64_t seed, size_t steps)
{
    rng g;
    rng_init(&g, seed);
    for (size_t step = 0; step < steps; step++) {
        while (rng_below(&g, 3) == 0 && r->n < RIG_MAX) {
            uint32_t floor = (uint32_t)rng_below(&g, RIG_POINTS), best = (uint32_t)rng_below(&g, floor + 1);
            uint64_t id = rig_submit(r, (sched_request){.prompt_tokens = (uint32_t)rng_below(&g, 200) + 1,
                                                        .max_tokens = (uint32_t)rng_below(&g, 60) + 1,
                                                        .best = rng_below(&g, 2) ? best : 0,
                                                        .floor = floor,
                                                        .ttft_ns = rng_below(&g, 3) ? 0 : rng_below(&g, SECOND),
                                                        .tpot_ns = rng_below(&g, 3) ? 0 : rng_below(&g, 50 * MS),
                                                        .priority = (int32_t)rng_below(&g, 5) - 2});
            r->requests[id].reply = (uint32_t)rng_below(&g, r->requests[id].request.max_tokens) + 1;
        }
        if (rng_below(&g, 20) == 0 && r->n) {
            uint64_t id = rng_below(&g, r->n);
            if (r->requests[id].accepted && !r->requests[id].finished) rig_finish(r, id);
        }
        if (!rig_step(r)) r->now_ns += MS;
    }
    rig_drain(r);
}

/* rig_check() asserts in every step; rig_drain() that everybody was served. */
static void test_random(void **state)
{
    (void)state;
    for (sched_policy p = 0; sched_policy_names[p]; p++) {
        for (uint64_t seed = 0; seed < 6; seed++) {
            sched_config c = rig_config(p);
            c.slots = (uint32_t)(1 + seed * 3);
            c.kv_pages = seed % 2 ? 40 : 1000;
            c.step_tokens = seed < 3 ? 64 : c.slots;
            rig *r = rig_open(&c);
            random_load(r, seed, 1000);
            rig_close(r);
        }
    }
}

static void test_deterministic(void **state)
{
    (void)state;
    for (sched_policy p = 0; sched_policy_names[p]; p++) {
        sched_config c = rig_config(p);
        rig *a = rig_open(&c), *b = rig_open(&c);
        random_load(a, 99, 500);
        random_load(b, 99, 500);
        assert_int_equal(a->now_ns, b->now_ns);
        assert_int_equal(a->n, b->n);
        assert_memory_equal(a->requests, b->requests, sizeof a->requests);
        rig_close(a);
        rig_close(b);
    }
}

/* A slower machine than the fit's: predictions follow. */
static void test_correction(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    rig *r = rig_open(&c);
    for (int i = 0; i < 400; i++) {
        if (r->n_finished == r->n) rig_simple(r, 10, 60, 0);
        rig_plan(r);
        uint64_t predicted = r->plan.predicted_ns;
        r->plan.predicted_ns = (uint64_t)((double)predicted / sched_cost(r->s)->correction * 1.5);
        uint64_t took = r->plan.predicted_ns;
        r->plan.predicted_ns = predicted;
        sched_ran(r->s, &r->plan, r->now_ns += took, took);
        rig_finish(r, r->n - 1);
    }
    assert_true(sched_cost(r->s)->correction > 1.49 && sched_cost(r->s)->correction < 1.51);
    rig_close(r);
}

static void test_bad_config(void **state)
{
    (void)state;
    sched *s;
    mp_error err;
    sched_config good = rig_config(SCHED_POLICY_FIFO), c;
    c = good, c.slots = 0;
    assert_int_equal(sched_new(&c, &s, &err), MP_E_INVALID);
    assert_null(s);
    c = good, c.step_tokens = 7;
    assert_int_equal(sched_new(&c, &s, &err), MP_E_INVALID);
    assert_non_null(strstr(err.message, "8 slots"));
    c = good, c.kv_pages = 0;
    assert_int_equal(sched_new(&c, &s, &err), MP_E_INVALID);
    c = good, c.n_points = 0;
    assert_int_equal(sched_new(&c, &s, &err), MP_E_INVALID);
    c = good, c.policy = (sched_policy)77;
    assert_int_equal(sched_new(&c, &s, &err), MP_E_INVALID);
    sched_free(NULL);
}

static void test_names(void **state)
{
    (void)state;
    sched_policy p;
    size_t n = 0;
    for (; sched_policy_names[n]; n++) {
        assert_true(sched_policy_find(sched_policy_names[n], &p));
        assert_int_equal(p, n);
    }
    assert_int_equal(n, 5);
    assert_string_equal(sched_policy_names[SCHED_POLICY_ELASTIC], "elastic");
    assert_false(sched_policy_find("fif", &p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_predicted),
        cmocka_unit_test(test_decodes_first),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_plan_twice),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_correction),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_points_of_a_model),
        cmocka_unit_test(test_points_not_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
