/* The trained router's rules, each against a plain reading of its definition. */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/moe_exec.h"

enum { EXPERTS = 32, USED = 6, TOKENS = 37 };

typedef struct bench {
    exec x;
    moe_exec m;
    moe_layer layer;
    acts in;
    arena memory;
    float identity[EXPERTS * EXPERTS], logits[TOKENS * EXPERTS], bias[EXPERTS];
} bench;

static void lay_out(bench *b)
{
    moe_exec_layout(&b->memory, &b->m, 0, 0);
    acts_layout(&b->memory, &b->in, EXPERTS, TOKENS);
}

/* A router that passes its input through: the tokens are the logits. */
static bench *open_bench(moe_routing routing, bool biased)
{
    mp_error err;
    rng r;
    bench *b = calloc(1, sizeof *b);
    rng_init(&r, 3);
    for (int e = 0; e < EXPERTS; e++) b->identity[e * EXPERTS + e] = 1;
    for (size_t i = 0; i < TOKENS * EXPERTS; i++) b->logits[i] = 2 * rng_normal(&r);
    for (size_t i = 0; i < EXPERTS; i++) b->bias[i] = 0.1f * rng_normal(&r);
    b->x.k = kernels_get("ref");
    assert_ok(pool_new(2, &b->x.pool, &err), &err);
    b->layer.shape = (moe_shape){.d = EXPERTS,
                                 .n_experts = EXPERTS,
                                 .n_used = USED,
                                 .width = 32,
                                 .n_parts = 1,
                                 .part_width = 32,
                                 .routing = routing};
    b->layer.w.router = (tensor){.type = DTYPE_F32,
                                 .data = (const uint8_t *)b->identity,
                                 .cols = EXPERTS,
                                 .rows = EXPERTS,
                                 .mats = 1,
                                 .row_bytes = EXPERTS * sizeof(float)};
    b->layer.w.router_bias = biased ? b->bias : NULL;
    b->m = (moe_exec){.x = &b->x, .shape = b->layer.shape, .cap = TOKENS, .threads = 2};
    lay_out(b);
    assert_ok(arena_reserve(&b->memory, "a test", &err), &err);
    lay_out(b);
    acts_set(&b->x, &b->in, b->logits, TOKENS, false);
    moe_exec_route(&b->m, &b->layer, &b->in, TOKENS);
    return b;
}

static void close_bench(bench *b)
{
    pool_free(b->x.pool);
    arena_clear(&b->memory);
    free(b);
}

static int high_first(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Whether expert e's group is among the best: as many groups as better ones may stand before it. */
static bool group_allowed(const moe_routing *r, const double *choice, bool two, int e)
{
    const uint32_t size = EXPERTS / r->n_groups;
    double score[EXPERTS];
    uint32_t better = 0;
    for (uint32_t g = 0; g < r->n_groups; g++) {
        double sorted[EXPERTS];
        memcpy(sorted, choice + g * size, size * sizeof *sorted);
        qsort(sorted, size, sizeof *sorted, high_first);
        score[g] = sorted[0] + (two ? sorted[1] : 0);
    }
    for (uint32_t g = 0; g < r->n_groups; g++) better += score[g] > score[(uint32_t)e / size];
    return better < r->n_groups_used;
}

static void check_token(const bench *b, size_t t)
{
    const moe_routing *r = &b->layer.shape.routing;
    const bool sigmoid = r->gating == MOE_GATING_SIGMOID, two = sigmoid || b->layer.w.router_bias;
    const float *logits = b->logits + t * EXPERTS;
    double p[EXPERTS], choice[EXPERTS], allowed[EXPERTS], sum = 0, chosen = 0;
    for (int e = 0; e < EXPERTS; e++) sum += exp((double)logits[e]);
    for (int e = 0; e < EXPERTS; e++) {
        p[e] = sigmoid ? 1 / (1 + exp(-(double)logits[e])) : exp((double)logits[e]) / sum;
        choice[e] = p[e] + (b->layer.w.router_bias ? (double)b->bias[e] : 0);
    }
    for (int e = 0; e < EXPERTS; e++) allowed[e] = group_allowed(r, choice, two, e) ? choice[e] : -1e9;
    for (int i = 0; i < USED; i++) {
        const uint32_t e = b->m.experts[t * USED + (size_t)i];
        int better = 0;
        for (int k = 0; k < EXPERTS; k++) better += allowed[k] > allowed[e];
        assert_int_equal(better, i);
        chosen += p[e];
    }
    for (int i = 0; i < USED; i++) {
        const double want = p[b->m.experts[t * USED + (size_t)i]] / (r->renormalise ? chosen : 1) * (double)r->scale;
        assert_true(fabs((double)b->m.mix[t * USED + (size_t)i] - want) < 1e-5 * (1 + want));
    }
}

static void test_rules(void **state)
{
    (void)state;
    static const moe_routing RULES[] = {
        {MOE_GATING_SOFTMAX, false, 1, 1, 1},   {MOE_GATING_SOFTMAX, true, 1, 1, 1},
        {MOE_GATING_SOFTMAX, false, 16, 8, 3},  {MOE_GATING_SIGMOID, false, 1, 1, 1},
        {MOE_GATING_SIGMOID, true, 2.5f, 8, 4},
    };
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
        for (int biased = 0; biased < 2; biased++) {
            bench *b = open_bench(RULES[i], biased);
            for (size_t t = 0; t < TOKENS; t++) check_token(b, t);
            close_bench(b);
        }
}

/* A damaged file's logits may be no numbers: still k0 different experts, since they become indices. */
static void test_not_numbers(void **state)
{
    (void)state;
    bench *b = open_bench((moe_routing){MOE_GATING_SIGMOID, true, 1, 8, 4}, true);
    for (size_t i = 0; i < TOKENS * EXPERTS; i++) b->logits[i] = i % 3 ? NAN : (i % 5 ? INFINITY : -INFINITY);
    for (size_t e = 0; e < EXPERTS; e += 3) b->bias[e] = e % 2 ? INFINITY : -INFINITY;
    moe_exec_route(&b->m, &b->layer, &b->in, TOKENS);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t i = 0; i < USED; i++) {
            assert_true(b->m.experts[t * USED + i] < EXPERTS);
            for (size_t k = 0; k < i; k++) assert_int_not_equal(b->m.experts[t * USED + i], b->m.experts[t * USED + k]);
        }
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_not_numbers),
    };
    return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
