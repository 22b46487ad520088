/* The elastic policy: full when idle, floors under load, admission at the floors, targets, and a
 * closed loop that settles. */
#include <math.h>

#include "sched_rig.h"

static void add(rig *r, size_t n, uint32_t prompt, uint32_t reply, uint32_t floor)
{
    for (size_t i = 0; i < n; i++) rig_simple(r, prompt, reply, floor);
}

/* Predicted time of `n` decodes at `point`, at `context`. */
static double decodes_ns(size_t n, uint32_t point, uint32_t context)
{
    const cost_model m = rig_config(SCHED_POLICY_ELASTIC).cost;
    double f[COST_FEATURES] = {[COST_STEP] = 1};
    const cost_item item = {.n_tokens = 1, .context = context, .logits = 1, .share = rig_points[point].share};
    for (size_t i = 0; i < n; i++) cost_add(&m.shape, &item, f);
    return cost_predict_ns(&m, f);
}

/* ---- quality by load ---- */

static void test_idle_is_full(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= 8; slots++) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        c.slots = slots;
        rig *r = rig_open(&c);
        for (int round = 0; round < 3; round++) {
            rig_simple(r, 100, 20, 4);
            while (rig_step(r)) assert_int_equal(r->mean_point, 0);
        }
        rig_close(r);
    }
}

static void test_best_is_kept_when_idle(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    rig_submit(r, (sched_request){.prompt_tokens = 10, .max_tokens = 5, .best = 2, .floor = 3});
    while (rig_step(r)) assert_int_equal(r->requests[0].point, 2);
    rig_close(r);
}

static void test_queue_means_floors(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    for (uint32_t i = 0; i < 24; i++) rig_simple(r, 20, 10, i % RIG_POINTS);
    rig_plan(r);
    while (sched_get_counts(r->s).waiting) {
        for (size_t i = 0; i < r->plan.n; i++)
            assert_int_equal(r->plan.items[i].point, r->requests[r->plan.items[i].id].request.floor);
        rig_run(r);
        rig_plan(r);
    }
    rig_close(r);
}

/* Also where it is pages that are lacking, with slots to spare. */
static void test_one_waits_for_pages(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.kv_pages = 8;
    rig *r = rig_open(&c);
    rig_simple(r, 10, 90, 4);
    rig_step(r);
    assert_true(r->mean_point == 0);
    rig_simple(r, 10, 90, 4);
    rig_step(r);
    assert_int_equal(sched_get_counts(r->s).waiting, 1);
    assert_true(r->mean_point == 4);
    rig_close(r);
}

/* A crowd leaves, all at once or but for one: whoever is left alone is at full, at once or after 20 steps. */
static void test_pressure_goes(void **state)
{
    (void)state;
    for (int left = 0; left <= 1; left++) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        if (left) rig_simple(r, 1, 100, 4);
        add(r, 8 - (size_t)left, 1, 10, 4);
        for (int i = 0; i < 10; i++) rig_step(r);
        assert_true(r->mean_point == 4);
        if (!left) rig_simple(r, 1, 100, 4);
        for (int i = 0; i < (left ? 20 : 1); i++) rig_step(r);
        assert_int_equal(r->plan.n, 1);
        assert_true(r->mean_point == 0);
        rig_close(r);
    }
}

/* Up to a quarter of the slots: full. More in the slots: never a better mean point. All slots: floors. */
static void test_load_lowers_points(void **state)
{
    (void)state;
    double last = 0;
    for (size_t running = 1; running <= 8; running++) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        add(r, running, 1, 100, 3);
        for (int i = 0; i < 5; i++) rig_step(r);
        assert_true(r->mean_point >= last);
        if (running <= 2) assert_true(r->mean_point == 0);
        if (running > 4 && running < 8) assert_true(r->mean_point > 0 && r->mean_point < 3);
        if (running == 8) assert_true(fabs(r->mean_point - 3) < 1e-9);
        last = r->mean_point;
        rig_close(r);
    }
}

/* ---- admission ---- */

static sched_request with_tpot(uint32_t floor, double ns)
{
    return (sched_request){.prompt_tokens = 1, .max_tokens = 100, .floor = floor, .tpot_ns = (uint64_t)ns};
}

/* A target that just holds for four at the floor: four run, and not by chance: a cheaper floor lets more in. */
static void test_admission_at_floors(void **state)
{
    (void)state;
    static const size_t expected[] = {4, 4, 4};
    for (uint32_t floor = 0; floor < 3; floor++) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        double target = (decodes_ns(4, floor, 10) + decodes_ns(5, floor, 10)) / 2 / 0.95;
        for (int i = 0; i < 8; i++) rig_submit(r, with_tpot(floor, target));
        rig_step(r);
        assert_int_equal(sched_get_counts(r->s).running, expected[floor]);
        assert_int_equal(sched_get_counts(r->s).waiting, 8 - expected[floor]);
        rig_drain(r);
        rig_close(r);
    }
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    double target = (decodes_ns(4, 0, 10) + decodes_ns(5, 0, 10)) / 2 / 0.95;
    for (int i = 0; i < 8; i++) rig_submit(r, with_tpot(4, target));
    rig_step(r);
    assert_int_equal(sched_get_counts(r->s).running, 8);
    rig_close(r);
}

/* Whoever has no target keeps out of the way of who has one; then everybody is served. */
static void test_admission_protects_others(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    rig_submit(r, with_tpot(0, (decodes_ns(2, 0, 10) + decodes_ns(3, 0, 10)) / 2 / 0.95));
    add(r, 3, 1, 10, 0);
    rig_step(r);
    assert_int_equal(sched_get_counts(r->s).running, 2);
    rig_drain(r);
    rig_close(r);
}

/* Nor does a prompt start whose time those who decode could not make up for. */
static void test_admission_of_prompts(void **state)
{
    (void)state;
    for (uint32_t prompt = 1; prompt <= 200; prompt += 199) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        sched_request q = with_tpot(0, 1.1 * decodes_ns(2, 0, 10) / 0.95);
        q.max_tokens = 20;
        rig_submit(r, q);
        rig_step(r);
        uint64_t other = rig_simple(r, prompt, 10, 0);
        rig_step(r);
        assert_int_equal(r->requests[other].running, prompt == 1);
        rig_drain(r);
        rig_close(r);
    }
}

/* A target that nothing could hold neither keeps its request out nor others. */
static void test_hopeless_target(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    for (int i = 0; i < 8; i++) rig_submit(r, with_tpot(4, 1));
    rig_step(r);
    assert_int_equal(sched_get_counts(r->s).running, 8);
    rig_drain(r);
    rig_close(r);
}

static sched_verdict ask(rig *r, uint64_t ttft_ns, int32_t priority, uint64_t *retry_ns)
{
    const sched_request q = {.id = 1000000,
                             .arrival_ns = r->now_ns,
                             .prompt_tokens = 64,
                             .max_tokens = 10,
                             .ttft_ns = ttft_ns,
                             .priority = priority};
    sched_verdict verdict = sched_submit(r->s, &q, r->now_ns, retry_ns);
    if (verdict == SCHED_ACCEPTED) sched_finish(r->s, q.id, r->now_ns);
    return verdict;
}

/* What an idle server could begin in time, and this one cannot, is refused at once. */
static void test_refuses_what_comes_too_late(void **state)
{
    (void)state;
    uint64_t retry = 0;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    assert_int_equal(ask(r, 100 * MS, 0, &retry), SCHED_ACCEPTED);
    add(r, 20, 64, 40, 0);
    r->now_ns++;
    assert_int_equal(ask(r, 100 * MS, 0, &retry), SCHED_QUEUE_FULL);
    assert_in_range(retry, SECOND, 10 * SECOND);
    assert_int_equal(ask(r, 0, 0, &retry), SCHED_ACCEPTED);
    assert_int_equal(ask(r, 20 * SECOND, 0, &retry), SCHED_ACCEPTED);
    assert_int_equal(ask(r, 1, 0, &retry), SCHED_ACCEPTED);         /* nobody could */
    assert_int_equal(ask(r, 100 * MS, -1, &retry), SCHED_ACCEPTED); /* ahead of all, into a free slot */
    for (int i = 0; i < 8; i++) rig_step(r);
    assert_int_equal(ask(r, 100 * MS, -1, &retry), SCHED_QUEUE_FULL); /* no slot */
    rig_drain(r);
    assert_int_equal(ask(r, 100 * MS, 0, &retry), SCHED_ACCEPTED);
    rig_close(r);
}

/* Eight chats at once for two slots, each of about a second and without a length, and three seconds to begin: how many
 * are let in and begin in time. */
static size_t chats_in_time(rig *r)
{
    const size_t first = r->n;
    size_t let_in = 0, in_time = 0;
    for (int i = 0; i < 8; i++) {
        rig_open_ended(r, 150, 4000, (sched_request){.prompt_tokens = 20, .ttft_ns = 3 * SECOND});
        if (i == 1) rig_step(r);
    }
    rig_drain(r);
    for (size_t id = first; id < r->n; id++) {
        const rig_request *q = &r->requests[id];
        let_in += q->accepted;
        in_time += q->accepted && q->first_ns <= q->request.arrival_ns + q->request.ttft_ns;
    }
    assert_true(let_in <= in_time + 1);
    return in_time;
}

/* What there is room for is no length: most of those that can begin in time are let in from the first on, and all of
 * them, which is three for each slot, once it is known what a reply takes. */
static void test_deadlines_without_a_length(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.slots = 2;
    rig *r = rig_open(&c);
    assert_in_range(chats_in_time(r), 4, 6);
    for (int i = 0; i < 5; i++) assert_int_equal(chats_in_time(r), 6);
    rig_close(r);
}

/* More than can be done, with deadlines: nearly all of those let in are in time, and the slots are full most of the
 * time. */
static void test_deadlines_under_overload(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.ttft_ns = 2 * SECOND;
    rig *r = rig_open(&c);
    size_t served = 0, in_time = 0, busy = 0;
    for (size_t step = 0; step < 3000; step++) {
        if (step % 3 == 0) rig_simple(r, 64, 40, (uint32_t)(step % 4));
        rig_step(r);
        busy += sched_get_counts(r->s).running == 8;
    }
    rig_drain(r);
    for (size_t i = 0; i < r->n; i++) {
        served += r->requests[i].accepted;
        in_time += r->requests[i].accepted && r->requests[i].first_ns <= r->requests[i].request.arrival_ns + c.ttft_ns;
    }
    assert_true(served < r->n * 9 / 10);
    assert_true(in_time >= served * 9 / 10);
    assert_true(busy >= 2250);
    rig_close(r);
}

/* Small ones pass one that lacks pages, until it has waited long enough; then nobody does. */
static void test_big_request_ages(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.kv_pages = 20;
    c.max_wait_ns = SECOND;
    rig *r = rig_open(&c);
    add(r, 2, 16, 64, 0); /* 5 pages each */
    rig_step(r);
    uint64_t big = rig_simple(r, 16, 256, 0); /* 17 pages */
    uint64_t small = rig_simple(r, 16, 16, 0);
    rig_step(r);
    assert_true(r->requests[small].running);
    while (!r->requests[big].running) {
        if (sched_get_counts(r->s).waiting < 10) rig_simple(r, 16, 64, 0);
        assert_true(rig_step(r));
    }
    /* at most what ran when its patience ended: 64 tokens */
    assert_true(r->requests[big].started_ns <
                r->requests[big].request.arrival_ns + SECOND + (uint64_t)(70 * decodes_ns(8, 0, 99)));
    assert_true(r->requests[big].started_ns > r->requests[big].request.arrival_ns + SECOND);
    rig_close(r);
}

/* ---- targets and time to spare ---- */

/* Steps use the time that the target leaves, and no more. */
static void test_slack_buys_quality(void **state)
{
    (void)state;
    double last = 4;
    for (double part = 0.1; part < 1; part += 0.2) {
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        double target = decodes_ns(3, 4, 100) + part * (decodes_ns(3, 0, 100) - decodes_ns(3, 4, 100));
        for (int i = 0; i < 3; i++) rig_submit(r, with_tpot(4, target / 0.95));
        for (int i = 0; i < 8; i++) rig_step(r);
        assert_int_equal(r->plan.n, 3);
        assert_true((double)r->plan.predicted_ns <= target);
        assert_true((double)r->plan.predicted_ns >= target - (decodes_ns(1, 0, 1) - decodes_ns(1, 1, 1)));
        assert_true(r->mean_point < last);
        last = r->mean_point;
        rig_close(r);
    }
}

/* Those who decode keep their target in the mean, however long other prompts are; and those are served while they go
 * on. */
static void test_prompts_keep_decodes_in_time(void **state)
{
    (void)state;
    for (size_t round = 0; round < 6; round++) {
        const size_t at_once = 2 + round / 2 * 2;
        const uint32_t floor = round % 2 ? 4 : 1;
        sched_config c = rig_config(SCHED_POLICY_ELASTIC);
        rig *r = rig_open(&c);
        const double target = 1.4 * decodes_ns(at_once, 1, 100);
        for (uint32_t i = 0; i < 40; i++)
            rig_submit(r,
                       (sched_request){
                           .prompt_tokens = 20 + 8 * i, .max_tokens = 60, .floor = floor, .tpot_ns = (uint64_t)target});
        size_t most = 0;
        while (rig_step(r)) {
            size_t running = sched_get_counts(r->s).running;
            most = running > most ? running : most;
        }
        assert_true(most >= at_once);
        for (size_t i = 0; i < r->n; i++)
            assert_true((double)(r->requests[i].finished_ns - r->requests[i].first_ns) <= 1.01 * 59 * target);
        rig_close(r);
    }
}

/* The same of replies without a length: what the context has room for is not time to make up in. */
static void test_prompts_keep_open_ended_in_time(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.kv_pages = 10000;
    rig *r = rig_open(&c);
    const double target = 1.4 * decodes_ns(4, 1, 100);
    for (int i = 0; i < 40; i++) rig_open_ended(r, 60, 8000, (sched_request){.prompt_tokens = 20});
    rig_drain(r);
    for (uint32_t i = 0; i < 40; i++)
        rig_open_ended(r, 60, 8000,
                       (sched_request){.prompt_tokens = 20 + 8 * i, .floor = 4, .tpot_ns = (uint64_t)target});
    rig_drain(r);
    for (size_t i = 40; i < r->n; i++)
        assert_true((double)(r->requests[i].finished_ns - r->requests[i].first_ns) <= 1.01 * 59 * target);
    rig_close(r);
}

/* fifo lets in whoever comes: two streams leave next to no time for a third one's prompt, and its patience ends. */
static void test_prompt_is_not_starved(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.max_wait_ns = SECOND;
    rig *r = rig_open(&c);
    for (int i = 0; i < 2; i++) {
        sched_request q = with_tpot(0, 1.05 * decodes_ns(2, 0, 500));
        q.max_tokens = 500;
        rig_submit(r, q);
    }
    rig_step(r);
    uint64_t other = rig_simple(r, 256, 1, 0);
    while (!r->requests[other].finished) assert_true(rig_step(r));
    assert_false(r->requests[0].finished);
    assert_true(r->requests[other].finished_ns > r->requests[other].request.arrival_ns + SECOND);
    assert_true(r->requests[other].finished_ns < r->requests[other].request.arrival_ns + 2 * SECOND);
    rig_close(r);
}

/* ---- stability ---- */

/* `clients` ask again as soon as they are answered; returns the range of the mean point over `steps` after the
 * first 20. */
static double closed_loop(rig *r, size_t clients, size_t steps)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t step = 0; step < steps; step++) {
        while (r->n - r->n_finished < clients) rig_simple(r, 8, 40, 4);
        rig_step(r);
        if (step < 20) continue;
        low = fmin(low, r->mean_point);
        high = fmax(high, r->mean_point);
    }
    return high - low;
}

static void test_step_load_settles(void **state)
{
    (void)state;
    static const size_t loads[] = {2, 6, 8, 20, 7, 5, 1, 12, 3};
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    rig *r = rig_open(&c);
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        while (r->n - r->n_finished > loads[i]) rig_step(r);
        double range = closed_loop(r, loads[i], 60);
        if (range > 1) fail_msg("%zu clients: the mean point moves by %g", loads[i], range);
    }
    rig_close(r);
}

/* The same with a target for the time per token. */
static void test_step_load_settles_with_target(void **state)
{
    (void)state;
    static const size_t loads[] = {2, 6, 3, 8, 1};
    sched_config c = rig_config(SCHED_POLICY_ELASTIC);
    c.tpot_ns = (uint64_t)((decodes_ns(4, 0, 20) + decodes_ns(4, 1, 20)) / 2);
    rig *r = rig_open(&c);
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        while (r->n - r->n_finished > loads[i]) rig_step(r);
        for (size_t n = 0; n < loads[i]; n++) rig_simple(r, 1, 200, 4);
        double low = INFINITY, high = -INFINITY;
        for (size_t step = 0; step < 80; step++) {
            rig_step(r);
            if (step < 20) continue;
            low = fmin(low, r->mean_point);
            high = fmax(high, r->mean_point);
        }
        if (high - low > 1) fail_msg("%zu: the mean point moves by %g", loads[i], high - low);
        for (size_t id = 0; id < r->n; id++)
            if (r->requests[id].running) rig_finish(r, id);
    }
    rig_close(r);
}

/* ---- against fifo ---- */

/* With all floors at full it is fifo, step by step. */
static void test_full_floors_are_fifo(void **state)
{
    (void)state;
    sched_config e = rig_config(SCHED_POLICY_ELASTIC), f = rig_config(SCHED_POLICY_FIFO);
    rig *a = rig_open(&e), *b = rig_open(&f);
    rng g;
    rng_init(&g, 5);
    for (int step = 0; step < 600; step++) {
        if (rng_below(&g, 4) == 0) {
            uint32_t prompt = 1 + (uint32_t)rng_below(&g, 300), reply = 1 + (uint32_t)rng_below(&g, 50);
            rig_simple(a, prompt, reply, 0);
            rig_simple(b, prompt, reply, 0);
        }
        assert_int_equal(rig_step(a), rig_step(b));
        assert_int_equal(a->now_ns, b->now_ns);
    }
    rig_close(a);
    rig_close(b);
}

/* Mixed floors, more work than can be done: fifo pays the dearest floor for all. */
static void test_overload_beats_fifo(void **state)
{
    (void)state;
    sched_config e = rig_config(SCHED_POLICY_ELASTIC), f = rig_config(SCHED_POLICY_FIFO);
    rig *a = rig_open(&e), *b = rig_open(&f);
    for (uint32_t i = 0; i < 72; i++) {
        rig_simple(a, 64, 40, i % 4);
        rig_simple(b, 64, 40, i % 4);
    }
    rig_drain(a);
    rig_drain(b);
    assert_true((double)b->now_ns > 1.15 * (double)a->now_ns);
    rig_close(a);
    rig_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_is_full),
        cmocka_unit_test(test_best_is_kept_when_idle),
        cmocka_unit_test(test_queue_means_floors),
        cmocka_unit_test(test_one_waits_for_pages),
        cmocka_unit_test(test_pressure_goes),
        cmocka_unit_test(test_load_lowers_points),
        cmocka_unit_test(test_admission_at_floors),
        cmocka_unit_test(test_admission_protects_others),
        cmocka_unit_test(test_admission_of_prompts),
        cmocka_unit_test(test_hopeless_target),
        cmocka_unit_test(test_refuses_what_comes_too_late),
        cmocka_unit_test(test_deadlines_without_a_length),
        cmocka_unit_test(test_deadlines_under_overload),
        cmocka_unit_test(test_big_request_ages),
        cmocka_unit_test(test_slack_buys_quality),
        cmocka_unit_test(test_prompts_keep_decodes_in_time),
        cmocka_unit_test(test_prompts_keep_open_ended_in_time),
        cmocka_unit_test(test_prompt_is_not_starved),
        cmocka_unit_test(test_step_load_settles),
        cmocka_unit_test(test_step_load_settles_with_target),
        cmocka_unit_test(test_full_floors_are_fifo),
        cmocka_unit_test(test_overload_beats_fifo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
