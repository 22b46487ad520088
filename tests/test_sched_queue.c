/* The scheduler's queue below its policies: who is refused and when to come back, what waits for a slot or for pages,
 * in which order, and for how long at most. */
#include <math.h>

#include "sched_rig.h"

static void test_queue_full(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 2;
    c.queue = 3;
    rig *r = rig_open(&c);
    sched_request q = {.prompt_tokens = 10, .max_tokens = 20, .id = 1000};
    uint64_t retry = 0;
    for (int i = 0; i < 5; i++) rig_simple(r, 10, 20, 0);
    for (int i = 0; i < 5; i++) assert_true(r->requests[i].accepted);
    assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry), SCHED_QUEUE_FULL);
    rig_step(r);
    assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry), SCHED_QUEUE_FULL);
    /* both slots are free after 19 more steps */
    uint64_t freed = r->now_ns;
    while (r->n_finished == 0) rig_step(r);
    freed = r->now_ns - freed;
    assert_in_range(retry, freed * 8 / 10, freed * 12 / 10);
    rig_plan(r);
    assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry), SCHED_ACCEPTED);
    rig_close(r);
}

/* When to come back, to a server whose only slot has just begun an open-ended reply of 40 tokens; how many times as
 * long as the slot was taken. */
static double retry_of_open_ended(rig *r)
{
    const sched_request q = {.prompt_tokens = 10, .max_tokens = 4000, .open_ended = true, .id = RIG_MAX};
    uint64_t retry = 0;
    rig_open_ended(r, 40, 4000, (sched_request){.prompt_tokens = 10});
    rig_step(r);
    const uint64_t begun = r->now_ns;
    assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry), SCHED_QUEUE_FULL);
    rig_drain(r);
    return (double)retry / (double)(r->now_ns - begun);
}

/* Replies of which only the context is the limit: of some usual length at first, then as they have been. */
static void test_open_ended_replies(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 1;
    c.queue = 0;
    rig *r = rig_open(&c);
    double last = retry_of_open_ended(r);
    assert_true(last > 5 && last < 8); /* 256 instead of 40 */
    for (int i = 0; i < 10; i++) {
        const double next = retry_of_open_ended(r);
        assert_true(next < last && next > 0.9);
        last = next;
    }
    assert_true(last < 1.6);
    for (int i = 0; i < 60; i++) last = retry_of_open_ended(r);
    assert_true(last > 0.9 && last < 1.1);
    rig_close(r);
}

/* Neither kind tells anything of the other: whoever asks for a length is taken at its word, whatever the open-ended do.
 */
static void test_open_ended_are_learnt_apart(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 1;
    c.queue = 0;
    uint64_t retry[2] = {0};
    for (int others = 0; others < 2; others++) {
        rig *r = rig_open(&c);
        const sched_request q = {.prompt_tokens = 10, .max_tokens = 20, .id = RIG_MAX};
        for (int i = 0; i < 50 * others; i++) retry_of_open_ended(r);
        rig_simple(r, 10, 200, 0);
        rig_step(r);
        assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry[others]), SCHED_QUEUE_FULL);
        rig_close(r);
    }
    assert_int_equal(retry[0], retry[1]);
    rig *r = rig_open(&c);
    for (int i = 0; i < 60; i++) {
        rig_simple(r, 10, 20, 0);
        rig_drain(r);
    }
    assert_true(retry_of_open_ended(r) > 5);
    rig_close(r);
}

/* The context may have less room than replies usually take. */
static void test_open_ended_within_the_room(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 1;
    c.queue = 0;
    rig *r = rig_open(&c);
    const sched_request q = {.prompt_tokens = 10, .max_tokens = 20, .open_ended = true, .id = RIG_MAX};
    uint64_t retry = 0;
    rig_open_ended(r, 20, 20, (sched_request){.prompt_tokens = 10});
    rig_step(r);
    const uint64_t begun = r->now_ns;
    assert_int_equal(sched_submit(r->s, &q, r->now_ns, &retry), SCHED_QUEUE_FULL);
    rig_drain(r);
    assert_in_range(retry, (r->now_ns - begun) * 9 / 10, (r->now_ns - begun) * 11 / 10);
    rig_close(r);
}

static void test_never_fits(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.kv_pages = 10;
    rig *r = rig_open(&c);
    uint64_t retry;
    sched_request q = {.id = 1, .prompt_tokens = 100, .max_tokens = 61};
    assert_int_equal(sched_pages(r->s, 100, 60), 10);
    assert_int_equal(sched_pages(r->s, UINT32_MAX, UINT32_MAX), (2ull * UINT32_MAX + 15) / 16);
    assert_int_equal(sched_submit(r->s, &q, 0, &retry), SCHED_NEVER_FITS);
    q.max_tokens = UINT32_MAX;
    assert_int_equal(sched_submit(r->s, &q, 0, &retry), SCHED_NEVER_FITS);
    q.max_tokens = 60;
    assert_int_equal(sched_submit(r->s, &q, 0, &retry), SCHED_ACCEPTED);
    rig_close(r);
}

/* A request waits for pages, not only for a slot. */
static void test_pages(void **state)
{
    (void)state;
    for (sched_policy p = 0; sched_policy_names[p]; p++) {
        sched_config c = rig_config(p);
        c.kv_pages = 10;
        c.max_wait_ns = 1;
        rig *r = rig_open(&c);
        rig_simple(r, 16, 80, 4); /* 6 pages */
        rig_simple(r, 16, 80, 4);
        r->now_ns = 2;
        rig_step(r);
        assert_int_equal(sched_get_counts(r->s).running, 1);
        assert_int_equal(sched_get_counts(r->s).pages_reserved, 6);
        assert_int_equal(sched_get_counts(r->s).waiting, 1);
        rig_drain(r);
        assert_true(r->requests[1].started_ns >= r->requests[0].finished_ns);
        rig_close(r);
    }
}

static void test_priority(void **state)
{
    (void)state;
    for (sched_policy p = SCHED_POLICY_ELASTIC; p <= SCHED_POLICY_FIFO; p++) {
        sched_config c = rig_config(p);
        c.slots = 1;
        rig *r = rig_open(&c);
        rig_simple(r, 10, 5, 0);
        rig_step(r);
        static const int32_t priorities[] = {0, 2, -1, INT32_MAX, INT32_MIN, 0};
        static const uint64_t order[] = {5, 3, 1, 6, 2, 4};
        for (size_t i = 0; i < 6; i++)
            rig_submit(r, (sched_request){.prompt_tokens = 1, .max_tokens = 1, .priority = priorities[i]});
        for (size_t i = 0; i < 6; i++) {
            while (!r->requests[order[i]].finished) assert_true(rig_step(r));
            assert_int_equal(r->n_finished, i + 2);
        }
        rig_close(r);
    }
}

/* One step of priority is worth a second. */
static void test_ageing(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 1;
    rig *r = rig_open(&c);
    rig_simple(r, 10, 5, 0);
    rig_step(r);
    uint64_t low = rig_submit(r, (sched_request){.prompt_tokens = 1, .max_tokens = 1, .priority = 3});
    r->now_ns += 2900 * MS;
    uint64_t passes = rig_simple(r, 1, 1, 0);
    r->now_ns += 200 * MS;
    uint64_t late = rig_simple(r, 1, 1, 0);
    rig_drain(r);
    assert_true(r->requests[passes].started_ns < r->requests[low].started_ns);
    assert_true(r->requests[low].started_ns < r->requests[late].started_ns);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_open_ended_replies),
        cmocka_unit_test(test_open_ended_are_learnt_apart),
        cmocka_unit_test(test_open_ended_within_the_room),
        cmocka_unit_test(test_never_fits),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_ageing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
