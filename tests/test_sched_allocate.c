/* The allocation of time to items, against all combinations. */
#include <math.h>

#include "sched/allocate.h"
#include "sched_rig.h"

typedef struct tiny {
    task tasks[4], *list[4];
    sched_item items[4];
    cost_item costs[4];
    double scratch[2 * 4 * RIG_POINTS];
    policy_step step;
    sched_config config;
    policy_view view;
} tiny;

static void tiny_random(tiny *t, rng *g)
{
    *t = (tiny){.config = rig_config(SCHED_POLICY_ELASTIC)};
    t->step = (policy_step){.tasks = t->list, .items = t->items, .costs = t->costs, .n = 1 + rng_below(g, 4)};
    for (size_t i = 0; i < t->step.n; i++) {
        t->list[i] = &t->tasks[i];
        t->tasks[i].request.floor = (uint32_t)rng_below(g, RIG_POINTS);
        t->tasks[i].request.best = (uint32_t)rng_below(g, t->tasks[i].request.floor + 1);
        t->costs[i] =
            (cost_item){.n_tokens = rng_below(g, 3) ? 1 : 1 + (uint32_t)rng_below(g, 30), .context = 50, .logits = 1};
    }
    t->view = (policy_view){.config = &t->config, .cost = &t->config.cost, .scratch = t->scratch};
}

static void tiny_set(tiny *t, bool floors)
{
    for (size_t i = 0; i < t->step.n; i++)
        policy_set_point(&t->view, &t->step, i, floors ? t->tasks[i].request.floor : t->tasks[i].request.best);
}

static double tiny_loss(const tiny *t)
{
    double loss = 0;
    for (size_t i = 0; i < t->step.n; i++) loss += t->costs[i].n_tokens * rig_points[t->items[i].point].loss;
    return loss;
}

/* All combinations, by counting. */
static double tiny_brute(tiny *t, double limit)
{
    double least = INFINITY;
    tiny_set(t, false);
    for (;;) {
        if (policy_step_ns(&t->view, &t->step) <= limit) least = fmin(least, tiny_loss(t));
        size_t i = 0;
        for (; i < t->step.n; i++) {
            uint32_t next = t->items[i].point + 1;
            bool wraps = next > t->tasks[i].request.floor;
            policy_set_point(&t->view, &t->step, i, wraps ? t->tasks[i].request.best : next);
            if (!wraps) break;
        }
        if (i == t->step.n) return least;
    }
}

/* Always within the limit; mostly the optimum; far from it never by more than one item's step. */
static void test_allocation(void **state)
{
    (void)state;
    rng g;
    rng_init(&g, 3);
    size_t optimal = 0;
    const size_t rounds = 2000;
    double excess = 0, total = 0;
    for (size_t round = 0; round < rounds; round++) {
        tiny t;
        tiny_random(&t, &g);
        tiny_set(&t, true);
        double floor_ns = policy_step_ns(&t.view, &t.step);
        tiny_set(&t, false);
        double best_ns = policy_step_ns(&t.view, &t.step), limit = floor_ns + rng_uniform(&g) * (best_ns - floor_ns);
        double least = tiny_brute(&t, limit);
        tiny_set(&t, true);
        double floors = tiny_loss(&t);
        allocate_points(&t.view, &t.step, limit);
        assert_true(policy_step_ns(&t.view, &t.step) <= limit * (1 + 1e-12));
        for (size_t i = 0; i < t.step.n; i++)
            assert_in_range(t.items[i].point, t.tasks[i].request.best, t.tasks[i].request.floor);
        double loss = tiny_loss(&t);
        assert_true(loss >= least - 1e-12 && loss <= floors + 1e-12);
        optimal += loss <= least + 1e-12;
        excess += loss - least;
        total += least;
    }
    print_message("allocation: optimal in %zu of %zu, loss %.2f %% over the optimum's\n", optimal, rounds,
                  100 * excess / total);
    assert_true(optimal >= rounds * 7 / 10);
    assert_true(excess <= 0.05 * total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
