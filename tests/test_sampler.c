/* The sampler: distributions against their definition, cuts, penalties, seeds, and logits that no model should give. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/status.h"

#define MAX_VOCAB 700

static mp_error err;

static mp_sampler *make(mp_sampler_params params, uint32_t n_vocab)
{
    mp_sampler *s = NULL;
    if (mp_sampler_new(&params, n_vocab, &s, &err) != MP_OK) fail_msg("%s", err.message);
    return s;
}

/* ---- the definition ---- */

static float penalised(float logit, float penalty)
{
    return logit > 0 ? logit / penalty : logit * penalty;
}

/* Probabilities by the letter of moeprism.h: every step on a sorted copy, renormalised each time. */
static void define(mp_sampler_params p, const float *logits, const bool *seen, size_t n, double *out)
{
    double l[MAX_VOCAB], sum = 0, mass = 0;
    size_t order[MAX_VOCAB] = {0}, kept = p.top_k && p.top_k < n ? p.top_k : n, by_mass = 0, by_min = 0;
    for (size_t i = 0; i < n; i++) {
        l[i] = seen && seen[i] ? (double)penalised(logits[i], p.repeat_penalty) : (double)logits[i];
        size_t j = i;
        for (; j > 0 && l[order[j - 1]] < l[i]; j--) order[j] = order[j - 1];
        order[j] = i;
        out[i] = 0;
    }
    for (size_t i = 0; i < kept; i++) sum += exp(l[order[i]]);
    if (p.top_p > 0 && p.top_p < 1) {
        while (by_mass < kept && mass < (double)p.top_p * sum) mass += exp(l[order[by_mass++]]);
        kept = by_mass;
    }
    while (by_min < kept && exp(l[order[by_min]]) >= (double)p.min_p * exp(l[order[0]])) by_min++;
    kept = by_min;
    sum = 0;
    for (size_t i = 0; i < kept; i++) sum += exp(l[order[i]] / (double)p.temperature);
    for (size_t i = 0; i < kept; i++) out[order[i]] = exp(l[order[i]] / (double)p.temperature) / sum;
}

/* Draws from s must follow out[n]: what has no probability never comes, the rest within 5 standard deviations,
 * and a few where it is rare. */
static void assert_follows(mp_sampler *s, const float *logits, const double *expected, size_t n)
{
    const int draws = 20000;
    int counts[MAX_VOCAB] = {0};
    for (int i = 0; i < draws; i++) {
        int32_t id = mp_sampler_draw(s, logits);
        assert_in_range(id, 0, n - 1);
        counts[id]++;
    }
    for (size_t i = 0; i < n; i++) {
        double mean = expected[i] * draws, bound = 5 * sqrt(mean * (1 - expected[i])) + (mean > 0 ? 4 : 0);
        if (fabs(counts[i] - mean) > bound)
            fail_msg("token %zu: %d of %d draws, expected %g within %g", i, counts[i], draws, mean, bound);
    }
}

static void check_distribution(mp_sampler_params params, size_t n, float spread, rng *r)
{
    float logits[MAX_VOCAB];
    double expected[MAX_VOCAB];
    bool seen[MAX_VOCAB] = {false};
    mp_sampler *s = make(params, (uint32_t)n);
    for (size_t i = 0; i < n; i++) logits[i] = spread * rng_normal(r);
    for (int i = 0; i < 5; i++) {
        int32_t token = (int32_t)rng_below(r, n);
        mp_sampler_accept(s, token);
        seen[token] = params.repeat_penalty != 0;
    }
    define(params, logits, seen, n, expected);
    assert_follows(s, logits, expected, n);
    mp_sampler_free(s);
}

static void test_distribution(void **state)
{
    (void)state;
    static const mp_sampler_params cases[] = {
        {.temperature = 1},
        {.temperature = 0.5f},
        {.temperature = 3},
        {.temperature = 1, .top_k = 5},
        {.temperature = 1, .top_k = 64},
        {.temperature = 1, .top_k = UINT32_MAX},
        {.temperature = 1, .top_p = 0.7f},
        {.temperature = 2, .top_p = 0.3f},
        {.temperature = 1, .top_p = 1e-6f},
        {.temperature = 1, .top_p = 1},
        {.temperature = 1, .min_p = 0.2f},
        {.temperature = 1, .min_p = 1},
        {.temperature = 1, .top_k = 8, .top_p = 0.8f},
        {.temperature = 1, .top_p = 0.9f, .min_p = 0.3f},
        {.temperature = 0.8f, .top_k = 10, .top_p = 0.9f, .min_p = 0.1f},
        {.temperature = 1, .repeat_penalty = 1.5f},
        {.temperature = 1, .repeat_penalty = 0.7f, .top_k = 6},
    };
    rng r;
    rng_init(&r, 3);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        check_distribution(cases[c], 20, 2, &r);
        check_distribution(cases[c], MAX_VOCAB, 4, &r); /* whole blocks and a part of one */
        check_distribution(cases[c], 3 * 64, 0.1f, &r); /* flat */
    }
}

/* ---- cuts ---- */

static void test_equal_logits(void **state)
{
    (void)state;
    const float logits[8] = {-3, -3, -3, -3, -3, -3, -3, -3};
    const double all[8] = {.125, .125, .125, .125, .125, .125, .125, .125};
    const double first_four[8] = {.25, .25, .25, .25};
    static const struct {
        mp_sampler_params params;
        bool half;
    } cases[] = {
        {{.temperature = 1}, false},
        {{.temperature = 0.01f}, false},
        {{.temperature = 1, .min_p = 1}, false},
        {{.temperature = 1, .top_k = 4}, true}, /* of equals, those with the lowest ids */
        {{.temperature = 1, .top_p = 0.5f}, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        mp_sampler *s = make(cases[c].params, 8);
        assert_follows(s, logits, cases[c].half ? first_four : all, 8);
        mp_sampler_free(s);
    }
}

static void test_greedy(void **state)
{
    (void)state;
    const float logits[6] = {0, 3, 2, 3, -1, 2.9f};
    static const mp_sampler_params cases[] = {
        {.temperature = 0},
        {.temperature = 0, .top_k = 3, .top_p = 0.9f, .min_p = 0.5f, .seed = 9},
        {.temperature = 5, .top_k = 1},
        {.temperature = 5, .top_p = FLT_MIN},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        mp_sampler *s = make(cases[c], 6);
        for (int i = 0; i < 100; i++) assert_int_equal(mp_sampler_draw(s, logits), 1);
        mp_sampler_free(s);
    }
    mp_sampler *s = make((mp_sampler_params){.temperature = FLT_MIN, .min_p = 0.95f, .seed = 4}, 6);
    for (int i = 0; i < 100; i++) assert_true(mp_sampler_draw(s, logits) % 2 == 1); /* cold: one of the best two */
    mp_sampler_free(s);
}

static void test_one_token(void **state)
{
    (void)state;
    const float logit = -7;
    mp_sampler *s = make((mp_sampler_params){.temperature = 1, .top_k = 3, .top_p = 0.5f, .min_p = 0.5f}, 1);
    assert_int_equal(mp_sampler_draw(s, &logit), 0);
    mp_sampler_free(s);
    mp_sampler_free(NULL);
}

/* ---- strange logits ---- */

static void test_infinite_logits(void **state)
{
    (void)state;
    const float masked[5] = {-INFINITY, 1, -INFINITY, 1, NAN};
    const double two[5] = {0, .5, 0, .5, 0};
    const float none[5] = {-INFINITY, NAN, -INFINITY, -INFINITY, -INFINITY};
    const double fifth[5] = {.2, .2, .2, .2, .2};
    const float huge[5] = {INFINITY, 1, FLT_MAX, 0, -FLT_MAX};
    const double top[5] = {.5, 0, .5, 0, 0};
    static const mp_sampler_params cases[] = {
        {.temperature = 1},
        {.temperature = 1, .top_k = 5},
        {.temperature = 1e-20f},
        {.temperature = FLT_MAX, .top_p = 0.999f, .min_p = 0.01f},
        {.temperature = 1, .repeat_penalty = 0.5f},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        mp_sampler *s = make(cases[c], 5);
        for (int32_t id = 0; id < 5 && c == 4; id++) mp_sampler_accept(s, id);
        if (cases[c].top_p == 0) assert_follows(s, none, fifth, 5);
        assert_follows(s, masked, two, 5);
        assert_follows(s, huge, top, 5);
        mp_sampler_free(s);
    }
    mp_sampler *s = make((mp_sampler_params){.temperature = 0}, 5);
    assert_int_equal(mp_sampler_draw(s, masked), 1);
    assert_int_equal(mp_sampler_draw(s, none), 0);
    assert_int_equal(mp_sampler_draw(s, huge), 0);
    mp_sampler_free(s);
}

/* ---- seeds ---- */

static void draw_many(uint64_t seed, const float *logits, int32_t *out, size_t n)
{
    mp_sampler *s = make((mp_sampler_params){.temperature = 1, .top_p = 0.95f, .seed = seed}, MAX_VOCAB);
    for (size_t i = 0; i < n; i++) out[i] = mp_sampler_draw(s, logits);
    mp_sampler_free(s);
}

static void test_seeds(void **state)
{
    (void)state;
    float logits[MAX_VOCAB];
    int32_t a[50], b[50], c[50];
    for (int i = 0; i < MAX_VOCAB; i++) logits[i] = (float)(i % 7);
    draw_many(1, logits, a, 50);
    draw_many(1, logits, b, 50);
    draw_many(2, logits, c, 50);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

/* ---- repetition ---- */

static void test_repeat_window(void **state)
{
    (void)state;
    const float logits[4] = {2, 1.5f, -1, -1.5f};
    mp_sampler *s = make((mp_sampler_params){.repeat_penalty = 2, .repeat_last = 2}, 4);
    assert_int_equal(mp_sampler_draw(s, logits), 0);
    mp_sampler_accept(s, 0);
    mp_sampler_accept(s, 0); /* twice in the window is penalised once: 2 / 2, not 2 / 4 */
    assert_int_equal(mp_sampler_draw(s, logits), 1);
    mp_sampler_accept(s, 1); /* window 0 1: 1 and 0.75 */
    assert_int_equal(mp_sampler_draw(s, logits), 0);
    mp_sampler_accept(s, 3); /* window 1 3: 0 is free again */
    assert_int_equal(mp_sampler_draw(s, logits), 0);
    mp_sampler_accept(s, -1); /* no token: no change */
    mp_sampler_accept(s, 4);
    mp_sampler_accept(s, 0); /* window 3 0 */
    assert_int_equal(mp_sampler_draw(s, logits), 1);
    mp_sampler_free(s);

    const float negative[2] = {-1, -1.5f};
    s = make((mp_sampler_params){.repeat_penalty = 2}, 2);
    mp_sampler_accept(s, 0); /* a penalty lowers a negative logit too: -2 */
    assert_int_equal(mp_sampler_draw(s, negative), 1);
    mp_sampler_free(s);
}

static void test_repeat_default(void **state)
{
    (void)state;
    const float logits[2] = {1, 1.5f};
    mp_sampler *s = make((mp_sampler_params){.repeat_penalty = 2}, 2);
    mp_sampler_accept(s, 0);
    for (int i = 0; i < 63; i++) mp_sampler_accept(s, 1);
    assert_int_equal(mp_sampler_draw(s, logits), 1); /* 0.5 and 0.75 */
    mp_sampler_accept(s, 1);
    assert_int_equal(mp_sampler_draw(s, logits), 0); /* the 65th back is forgotten: 1 and 0.75 */
    mp_sampler_free(s);
}

/* ---- presence, frequency, bias ---- */

static void test_drawn_tokens_cost(void **state)
{
    (void)state;
    const float logits[3] = {2, 1.2f, 0};
    mp_sampler *s = make((mp_sampler_params){.presence_penalty = 1}, 3);
    mp_sampler_accept(s, 0);                /* part of the prompt: not drawn */
    const int32_t once[] = {0, 1, 0, 0, 0}; /* 1 1.2 0; 1 0.2 0 from then on */
    for (size_t i = 0; i < 5; i++) assert_int_equal(mp_sampler_draw(s, logits), once[i]);
    mp_sampler_free(s);

    s = make((mp_sampler_params){.frequency_penalty = 0.5f}, 3);
    const int32_t each[] = {0, 0, 1, 0, 1}; /* 1.5 1.2; 1 1.2; 1 0.7; 0.5 0.7 */
    for (size_t i = 0; i < 5; i++) assert_int_equal(mp_sampler_draw(s, logits), each[i]);
    mp_sampler_free(s);

    s = make((mp_sampler_params){.presence_penalty = -1, .frequency_penalty = -0.5f}, 3); /* once drawn, preferred */
    const float close[3] = {0.9f, 1, 0};
    const float other[3] = {2, 1, 0};
    assert_int_equal(mp_sampler_draw(s, close), 1);
    assert_int_equal(mp_sampler_draw(s, other), 1); /* 2 against 1 + 1.5 */
    mp_sampler_free(s);
}

/* All three at once, and a window of one that the same token leaves and enters: repetition counts once. */
static void test_penalties_together(void **state)
{
    (void)state;
    mp_sampler *s = make(
        (mp_sampler_params){
            .repeat_penalty = 2, .repeat_last = 1, .presence_penalty = 0.25f, .frequency_penalty = 0.5f},
        2);
    for (int i = 0; i < 10; i++) mp_sampler_accept(s, 0);
    assert_int_equal(mp_sampler_draw(s, (const float[]){4, 1.9f}), 0); /* 2; drawn once from now on */
    mp_sampler_accept(s, 0);
    assert_int_equal(mp_sampler_draw(s, (const float[]){4, 1.2f}), 0);  /* 2 - 0.75 */
    assert_int_equal(mp_sampler_draw(s, (const float[]){4, 0.8f}), 1);  /* 2 - 1.25 = 0.75 */
    assert_int_equal(mp_sampler_draw(s, (const float[]){4, 1.45f}), 0); /* 0.75 against 1.45 - 0.75 */
    mp_sampler_free(s);
}

static void test_bias(void **state)
{
    (void)state;
    mp_logit_bias bias[] = {{2, 5}, {0, -100}, {1, 1}, {1, 1}};
    const float logits[4] = {3, 0, 0, 1.5f};
    mp_sampler *s = make((mp_sampler_params){.bias = bias, .n_bias = 4}, 4);
    bias[0] = (mp_logit_bias){3, 100}; /* was copied */
    assert_int_equal(mp_sampler_draw(s, logits), 2);
    mp_sampler_free(s);
    s = make((mp_sampler_params){.bias = bias + 1, .n_bias = 3}, 4);
    assert_int_equal(mp_sampler_draw(s, logits), 1); /* 1 + 1 */
    mp_sampler_free(s);

    const double only[4] = {0, 0.5, 0.5, 0};
    const mp_logit_bias ban[] = {{0, -1e30f}, {3, -1e30f}};
    s = make((mp_sampler_params){.temperature = 1, .bias = ban, .n_bias = 2}, 4);
    assert_follows(s, logits, only, 4);
    mp_sampler_free(s);
}

/* ---- log probabilities ---- */

static void test_logprobs(void **state)
{
    (void)state;
    rng r;
    float logits[MAX_VOCAB] = {0}, values[8];
    int32_t top[8];
    rng_init(&r, 11);
    for (int round = 0; round < 20; round++) {
        const uint32_t n = 3 + (uint32_t)rng_below(&r, MAX_VOCAB - 3), k = (uint32_t)rng_below(&r, 9);
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) logits[i] = 30 + 5 * rng_normal(&r);
        logits[n / 2] = logits[0]; /* equals rank by id */
        for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i]);
        const int32_t token = (int32_t)rng_below(&r, n);
        const double expected = (double)logits[token] - log(sum);
        assert_true(fabs((double)mp_logprobs(logits, n, token, k, top, values) - expected) < 1e-5);
        for (uint32_t j = 0; j < k && j < n; j++) {
            uint32_t before = 0; /* tokens that rank before this one */
            for (uint32_t i = 0; i < n; i++)
                before += logits[i] > logits[top[j]] || (logits[i] == logits[top[j]] && (int32_t)i < top[j]);
            assert_int_equal(before, j);
            assert_true(fabs((double)values[j] - ((double)logits[top[j]] - log(sum))) < 1e-5);
        }
        for (uint32_t j = n; j < k; j++) assert_true(top[j] == -1 && values[j] == -INFINITY);
    }
}

static void test_logprobs_of_strange_logits(void **state)
{
    (void)state;
    float value;
    int32_t top;
    assert_true(fabsf(mp_logprobs((const float[]){-INFINITY, NAN}, 2, 1, 0, NULL, NULL) - logf(0.5f)) < 1e-6f);
    assert_true(fabsf(mp_logprobs((const float[]){1, INFINITY, NAN}, 3, 1, 1, &top, &value)) < 1e-6f);
    assert_int_equal(top, 1);
    assert_true(mp_logprobs((const float[]){0, 1}, 2, 2, 0, NULL, NULL) == -INFINITY);
    assert_true(mp_logprobs((const float[]){0, 1}, 2, -1, 0, NULL, NULL) == -INFINITY);
}

/* ---- refusals ---- */

static void assert_refused(mp_sampler_params params, uint32_t n_vocab, const char *name)
{
    mp_sampler *s = (mp_sampler *)&params;
    assert_int_equal(mp_sampler_new(&params, n_vocab, &s, &err), MP_E_INVALID);
    assert_null(s);
    assert_int_equal(err.status, MP_E_INVALID);
    if (strncmp(err.message, name, strlen(name)) != 0) fail_msg("\"%s\" does not name %s", err.message, name);
    assert_int_equal(mp_sampler_new(&params, n_vocab, &s, NULL), MP_E_INVALID);
}

static void test_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, -1, -FLT_MIN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_refused((mp_sampler_params){.temperature = bad[i]}, 8, "temperature = ");
        assert_refused((mp_sampler_params){.top_p = bad[i]}, 8, "top_p = ");
        assert_refused((mp_sampler_params){.min_p = bad[i]}, 8, "min_p = ");
        assert_refused((mp_sampler_params){.repeat_penalty = bad[i]}, 8, "repeat_penalty = ");
    }
    assert_refused((mp_sampler_params){.top_p = 1.01f}, 8, "top_p = 1.01");
    assert_refused((mp_sampler_params){.min_p = 2}, 8, "min_p = 2");
    assert_refused((mp_sampler_params){.repeat_last = UINT32_MAX}, 8, "repeat_last = ");
    assert_refused((mp_sampler_params){.presence_penalty = NAN}, 8, "presence_penalty = ");
    assert_refused((mp_sampler_params){.frequency_penalty = -INFINITY}, 8, "frequency_penalty = ");
    const mp_logit_bias bias[] = {{0, 1}, {8, 1}, {-1, 1}, {1, NAN}};
    assert_refused((mp_sampler_params){.bias = bias, .n_bias = 2}, 8, "bias of token 8");
    assert_refused((mp_sampler_params){.bias = bias + 2, .n_bias = 1}, 8, "bias of token -1");
    assert_refused((mp_sampler_params){.bias = bias + 3, .n_bias = 1}, 8, "bias = nan");
    assert_refused((mp_sampler_params){0}, 0, "n_vocab = 0");
    assert_refused((mp_sampler_params){0}, (uint32_t)INT32_MAX + 1, "n_vocab = ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_equal_logits),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_one_token),
        cmocka_unit_test(test_infinite_logits),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_repeat_window),
        cmocka_unit_test(test_repeat_default),
        cmocka_unit_test(test_drawn_tokens_cost),
        cmocka_unit_test(test_penalties_together),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_logprobs_of_strange_logits),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
