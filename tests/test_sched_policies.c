/* The paper's policies: what fifo, fullbatch, virtual queues and lanes decide, exactly. */
#include "sched_rig.h"

static void add(rig *r, size_t n, uint32_t prompt, uint32_t reply, uint32_t floor)
{
    for (size_t i = 0; i < n; i++) rig_simple(r, prompt, reply, floor);
}

static void assert_points(const rig *r, uint32_t point)
{
    for (size_t i = 0; i < r->plan.n; i++) assert_int_equal(r->plan.items[i].point, point);
}

static uint32_t waiting(const rig *r)
{
    return sched_get_counts(r->s).waiting;
}

static uint32_t running(const rig *r)
{
    return sched_get_counts(r->s).running;
}

/* ---- fifo ---- */

static void test_fifo_dearest_floor(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    rig *r = rig_open(&c);
    rig_simple(r, 1, 2, 2);
    add(r, 3, 1, 9, 4);
    rig_submit(r, (sched_request){.prompt_tokens = 1, .max_tokens = 9, .best = 3, .floor = 4});
    /* all at the floor of the first; nobody better than its best */
    for (int step = 0; step < 2; step++) {
        assert_int_equal(rig_plan(r), 5);
        for (size_t i = 0; i < 5; i++) assert_int_equal(r->plan.items[i].point, i == 4 ? 3 : 2);
        rig_run(r);
    }
    /* the first is done: the next floor */
    assert_int_equal(rig_plan(r), 4);
    assert_points(r, 4);
    rig_close(r);
}

/* A slot is taken again in the step after it was left. */
static void test_fifo_refills(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.slots = 2;
    rig *r = rig_open(&c);
    add(r, 1, 1, 2, 0);
    add(r, 1, 1, 9, 0);
    add(r, 2, 1, 9, 0);
    rig_step(r);
    rig_step(r);
    assert_true(r->requests[0].finished);
    assert_int_equal(rig_plan(r), 2);
    assert_int_equal(r->plan.items[0].id, 1);
    assert_int_equal(r->plan.items[1].id, 2);
    assert_true(r->plan.items[1].starts);
    rig_close(r);
}

/* Whoever lacks pages holds up those behind it. */
static void test_fifo_in_order(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FIFO);
    c.kv_pages = 10;
    rig *r = rig_open(&c);
    rig_simple(r, 16, 64, 0);  /* 5 */
    rig_simple(r, 16, 128, 0); /* 9 */
    rig_simple(r, 1, 1, 0);    /* 1 */
    rig_step(r);
    assert_int_equal(running(r), 1);
    assert_int_equal(waiting(r), 2);
    rig_drain(r);
    assert_true(r->requests[2].started_ns >= r->requests[1].started_ns);
    rig_close(r);
}

/* ---- fullbatch ---- */

static void test_fullbatch_waits(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FULLBATCH);
    c.slots = 4;
    c.max_wait_ns = SECOND;
    rig *r = rig_open(&c);
    rig_simple(r, 1, 10, 1);
    r->now_ns = 300 * MS;
    rig_simple(r, 1, 4, 3);
    assert_int_equal(rig_plan(r), 0);
    assert_int_equal(r->plan.wake_ns, SECOND);
    add(r, 1, 1, 4, 3);
    assert_int_equal(rig_plan(r), 0);
    /* the fourth makes it full */
    add(r, 3, 1, 4, 4);
    assert_int_equal(rig_plan(r), 4);
    assert_points(r, 1);
    assert_int_equal(waiting(r), 2);
    /* nobody joins before the last is done, even when overdue */
    r->now_ns += 2 * SECOND;
    while (!r->requests[0].finished) {
        rig_step(r);
        assert_int_equal(waiting(r), 2);
    }
    /* then the overdue go, as few as they are */
    assert_int_equal(rig_plan(r), 2);
    assert_points(r, 4);
    rig_close(r);
}

static void test_fullbatch_launches_when_due(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FULLBATCH);
    c.max_wait_ns = SECOND;
    rig *r = rig_open(&c);
    r->now_ns = 500 * MS;
    rig_simple(r, 1, 4, 0);
    assert_int_equal(rig_plan(r), 0);
    assert_int_equal(r->plan.wake_ns, 1500 * MS);
    r->now_ns = 1500 * MS - 1;
    assert_int_equal(rig_plan(r), 0);
    r->now_ns++;
    assert_int_equal(rig_plan(r), 1);
    rig_close(r);
}

/* Pages are full before slots are: that is a full batch too. */
static void test_fullbatch_of_pages(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_FULLBATCH);
    c.kv_pages = 10;
    rig *r = rig_open(&c);
    add(r, 2, 16, 64, 0);
    assert_int_equal(rig_plan(r), 0);
    add(r, 1, 16, 64, 0);
    assert_int_equal(rig_plan(r), 2);
    rig_close(r);
}

/* ---- virtual queues ---- */

/* The ladder of the paper's example: budgets 8, 6, 4, 2. */
static const sched_point budgets[] = {{1, 0}, {0.75, 0.01}, {0.5, 0.03}, {0.25, 0.08}};
enum { K8, K6, K4, K2 };

/* step_ns: what a step costs whoever is in it. Large, as on the paper's machine, it rewards full batches; small, as on
 * a CPU, cheap ones. */
static rig *paper_rig(double step_ns)
{
    sched_config c = rig_config(SCHED_POLICY_VIRTUAL_QUEUES);
    c.points = budgets;
    c.n_points = 4;
    c.cost.ns[COST_STEP] = step_ns;
    return rig_open(&c);
}

/* R_A accepts 2, R_B needs 8. Q_2 holds R_A alone, Q_8 holds it and R_B and others: U_8 > U_2, Q_8 is launched, and R_A
 * is served better than it asked. */
static void test_paper_example(void **state)
{
    (void)state;
    rig *r = paper_rig(3e7);
    uint64_t a = rig_simple(r, 1, 10, K2);
    uint64_t b = rig_simple(r, 1, 10, K8);
    add(r, 5, 1, 10, K8);
    assert_int_equal(rig_plan(r), 7);
    assert_points(r, K8);
    assert_int_equal(r->plan.items[0].id, a);
    assert_int_equal(r->plan.items[1].id, b);
    assert_int_equal(waiting(r), 0); /* taken out of all queues */
    /* to the end, though R_A could do with less when alone */
    rig_drain(r);
    assert_int_equal(r->requests[a].point, K8);
    rig_close(r);
}

/* The other way round: Q_2 is full, and R_B would make everybody dear. */
static void test_full_cheap_queue_goes_first(void **state)
{
    (void)state;
    rig *r = paper_rig(1e6);
    uint64_t b = rig_simple(r, 1, 10, K8);
    add(r, 8, 1, 10, K2);
    assert_int_equal(rig_plan(r), 8);
    assert_points(r, K2);
    assert_int_equal(waiting(r), 1);
    while (!r->requests[b].started_ns) assert_true(rig_step(r));
    assert_int_equal(r->n_finished, 8);
    assert_int_equal(r->requests[b].point, K8);
    rig_close(r);
}

/* Equation 3 by its letter, for requests of one size with floors counts[K8..K2]. */
static uint32_t highest_utility(const size_t counts[4], const cost_model *m)
{
    uint32_t best = 0;
    double highest = -1;
    size_t in = 0;
    for (uint32_t p = K2 + 1; p-- > K8;) {
        in += counts[p];
        /* Q_m: floors of m and everything cheaper */
        size_t n = in < 8 ? in : 8;
        cost_item item = {.n_tokens = 1, .context = 1, .logits = 1, .share = budgets[p].share};
        double f[COST_FEATURES] = {[COST_STEP] = 1}, tokens = (double)n * 11;
        for (size_t i = 0; i < n; i++) cost_add(&m->shape, &item, f);
        if (tokens / cost_predict_ns(m, f) >= highest) {
            highest = tokens / cost_predict_ns(m, f);
            best = p;
        }
    }
    return best;
}

static void test_highest_utility(void **state)
{
    (void)state;
    size_t launched[4] = {0};
    for (size_t code = 1; code < 5 * 5 * 5 * 5; code++) {
        const size_t counts[4] = {code % 5, code / 5 % 5, code / 25 % 5, code / 125};
        rig *r = paper_rig(code % 2 ? 3e7 : 1e6);
        for (uint32_t p = K8; p <= K2; p++) add(r, counts[p], 1, 10, p);
        uint32_t expected = highest_utility(counts, &r->config.cost);
        assert_true(rig_plan(r) > 0);
        assert_points(r, expected);
        launched[expected]++;
        rig_close(r);
    }
    for (uint32_t p = K8; p <= K2; p++) assert_true(launched[p] > 0);
}

/* The launch takes in more of its own queue while it is open, and nobody else. */
static void test_launch_refills(void **state)
{
    (void)state;
    rig *r = paper_rig(1e6);
    add(r, 8, 1, 10, K2);
    rig_step(r);
    uint64_t dear = rig_simple(r, 1, 10, K8);
    add(r, 4, 1, 10, K2);
    for (int i = 0; i < 10; i++) rig_step(r);
    assert_int_equal(running(r), 4);
    assert_int_equal(waiting(r), 1);
    assert_points(r, K2);
    while (!r->requests[dear].started_ns) assert_true(rig_step(r));
    assert_int_equal(r->n_finished, 12);
    rig_close(r);
}

/* An overdue request closes a launch that cannot take it, and goes into the next one whatever its utility. */
static void test_overdue_has_its_way(void **state)
{
    (void)state;
    rig *r = paper_rig(1e6);
    add(r, 8, 1, 10, K2);
    rig_step(r);
    uint64_t dear = rig_simple(r, 1, 10, K8);
    while (r->now_ns < 5 * SECOND) {
        while (waiting(r) < 8) rig_simple(r, 1, 10, K2);
        rig_step(r);
        assert_points(r, K2);
        assert_int_equal(r->requests[dear].started_ns, 0);
    }
    size_t others = r->n;
    while (!r->requests[dear].started_ns) {
        while (waiting(r) < 8) rig_simple(r, 1, 10, K2);
        rig_step(r);
    }
    assert_points(r, K8);
    assert_true(r->requests[dear].started_ns < 6 * SECOND);
    for (uint64_t id = others; id < r->n; id++)
        assert_true(r->requests[id].started_ns >= r->requests[dear].started_ns || !r->requests[id].running);
    rig_close(r);
}

/* Everybody fits into Q_8, so nobody is ever outside it; still the launch does not go on for ever when another queue
 * pays more. */
static void test_launch_makes_room(void **state)
{
    (void)state;
    rig *r = paper_rig(1e6);
    for (uint32_t i = 0; i < 8; i++) rig_simple(r, 1, 20 + 3 * i, K8);
    rig_step(r);
    assert_points(r, K8);
    while (r->now_ns < 8 * SECOND && r->plan.items[0].point == K8) {
        while (waiting(r) < 8) rig_simple(r, 1, 20 + 3 * (uint32_t)(r->n % 7), K2);
        assert_true(rig_step(r));
    }
    assert_points(r, K2);
    assert_true(r->now_ns > 5 * SECOND); /* open for as long as it may be */
    rig_close(r);
}

/* ---- lanes ---- */

/* 6 cheap and 2 dear: one step in four is the dear ones', each lane at its own dearest floor. */
static void test_lanes_share_exactly(void **state)
{
    (void)state;
    sched_config c = rig_config(SCHED_POLICY_LANES);
    rig *r = rig_open(&c);
    add(r, 1, 1, 500, 0);
    add(r, 1, 1, 500, 1);
    add(r, 5, 1, 500, 4);
    add(r, 1, 1, 500, 3);
    size_t dear = 0;
    for (size_t step = 1; step <= 200; step++) {
        rig_plan(r);
        bool is_dear = r->plan.items[0].id < 2;
        dear += is_dear;
        assert_int_equal(r->plan.n, is_dear ? 2 : 6);
        assert_points(r, is_dear ? 0 : 3);
        assert_true(4 * dear + 4 >= step && 4 * dear <= step + 4);
        rig_run(r);
    }
    assert_int_equal(dear, 50);
    rig_close(r);
}

static void test_one_lane_runs_every_step(void **state)
{
    (void)state;
    for (uint32_t floor = 0; floor < RIG_POINTS; floor++) {
        sched_config c = rig_config(SCHED_POLICY_LANES);
        rig *r = rig_open(&c);
        add(r, 5, 1, 20, floor);
        for (int step = 0; step < 20; step++) {
            assert_int_equal(rig_plan(r), 5);
            assert_points(r, floor);
            rig_run(r);
        }
        rig_close(r);
    }
}

/* ---- all of them ---- */

/* Nobody waits for ever: a victim among attackers that never end, by priority, by fit and by size. */
typedef struct attack {
    const char *name;
    sched_request victim, attacker;
    uint64_t window_ns; /* in which late ones may pass */
} attack;

static const attack attacks[] = {
    {"priority",
     {.prompt_tokens = 20, .max_tokens = 10, .priority = 1000},
     {.prompt_tokens = 20, .max_tokens = 20, .priority = -1000},
     32 * SECOND},
    {"dear among cheap",
     {.prompt_tokens = 20, .max_tokens = 10},
     {.prompt_tokens = 20, .max_tokens = 20, .floor = 4},
     0},
    {"cheap among dear",
     {.prompt_tokens = 20, .max_tokens = 10, .floor = 4},
     {.prompt_tokens = 20, .max_tokens = 20},
     0},
    {"large among small",
     {.prompt_tokens = 500, .max_tokens = 300},
     {.prompt_tokens = 1, .max_tokens = 20, .floor = 4},
     0},
    {"long prompt among decodes with targets",
     {.prompt_tokens = 700, .max_tokens = 10},
     {.prompt_tokens = 1, .max_tokens = 60, .tpot_ns = 22 * MS},
     0},
    {"with a target among others",
     {.prompt_tokens = 20, .max_tokens = 10, .tpot_ns = 5 * MS},
     {.prompt_tokens = 20, .max_tokens = 20, .floor = 2},
     0},
    {"hopeless target",
     {.prompt_tokens = 20, .max_tokens = 10, .tpot_ns = 1},
     {.prompt_tokens = 20, .max_tokens = 20, .tpot_ns = 30 * MS},
     0},
    {"short deadline",
     {.prompt_tokens = 20, .max_tokens = 10},
     {.prompt_tokens = 20, .max_tokens = 20, .floor = 3, .ttft_ns = 100 * MS, .tpot_ns = 25 * MS},
     0},
};

/* Attackers keep `slots + 10` alive, so that as many at most are ahead of the victim when its window closes. */
static void assert_served(sched_policy policy, const attack *a)
{
    sched_config c = rig_config(policy);
    c.kv_pages = 60;
    c.max_wait_ns = SECOND;
    rig *r = rig_open(&c);
    for (int i = 0; i < 18; i++) rig_submit(r, a->attacker);
    for (int i = 0; i < 10; i++) rig_step(r);
    uint64_t victim = rig_submit(r, a->victim);
    /* 18 are at most three batches; each may take all of its steps with a full prompt chunk beside: 65 ms. Twice that
     * for lanes, which share the steps, and the victim's own prompt and reply. */
    uint64_t bound = r->now_ns + a->window_ns + 2 * c.max_wait_ns + 2 * (3 * 60 + 11 + 320) * 65 * MS;
    while (!r->requests[victim].finished) {
        while (r->n - r->n_finished < 19) rig_submit(r, a->attacker);
        assert_true(rig_step(r));
        if (r->now_ns > bound)
            fail_msg("%s, %s: not served after %g s", sched_policy_names[policy], a->name, (double)r->now_ns / 1e9);
    }
    rig_close(r);
}

static void test_nobody_starves(void **state)
{
    (void)state;
    for (sched_policy p = 0; sched_policy_names[p]; p++)
        for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) assert_served(p, &attacks[i]);
}

/* More work than can be done, floors mixed: time to do it all, in order of what the designs promise. */
static void test_overload_order(void **state)
{
    (void)state;
    double seconds[SCHED_POLICY_LANES + 1] = {0};
    for (sched_policy p = 0; sched_policy_names[p]; p++) {
        sched_config c = rig_config(p);
        c.queue = 400;
        rig *r = rig_open(&c);
        rng g;
        rng_init(&g, 11);
        for (int i = 0; i < 400; i++)
            rig_simple(r, 64 + (uint32_t)rng_below(&g, 449), 32 + (uint32_t)rng_below(&g, 97),
                       (uint32_t)rng_below(&g, 4));
        rig_drain(r);
        seconds[p] = (double)r->now_ns / 1e9;
        print_message("%-15s %.1f s\n", sched_policy_names[p], seconds[p]);
        rig_close(r);
    }
    for (sched_policy p = SCHED_POLICY_FIFO; sched_policy_names[p]; p++)
        assert_true(seconds[SCHED_POLICY_ELASTIC] * 1.1 < seconds[p]);
    assert_true(seconds[SCHED_POLICY_FIFO] < seconds[SCHED_POLICY_FULLBATCH]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fifo_dearest_floor),
        cmocka_unit_test(test_fifo_refills),
        cmocka_unit_test(test_fifo_in_order),
        cmocka_unit_test(test_fullbatch_waits),
        cmocka_unit_test(test_fullbatch_launches_when_due),
        cmocka_unit_test(test_fullbatch_of_pages),
        cmocka_unit_test(test_paper_example),
        cmocka_unit_test(test_full_cheap_queue_goes_first),
        cmocka_unit_test(test_highest_utility),
        cmocka_unit_test(test_launch_refills),
        cmocka_unit_test(test_overdue_has_its_way),
        cmocka_unit_test(test_launch_makes_room),
        cmocka_unit_test(test_lanes_share_exactly),
        cmocka_unit_test(test_one_lane_runs_every_step),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_overload_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
