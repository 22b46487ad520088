/* The simulator of caches: a record small enough to follow by hand, then what must hold for any record. */
#include "store/cache_sim.h"

#include "base/rng.h"
#include "testing.h"

static mp_error err;

static record_trace parse(const char *text)
{
    record_trace t;
    assert_ok(record_parse(text, strlen(text), "r", &t, &err), &err);
    return t;
}

static const eviction *named(const char *name)
{
    const eviction *policy;
    if (!name) return &eviction_belady;
    assert_ok(eviction_find(name, &policy, &err), &err);
    return policy;
}

static cache_sim_result simulate(const record_trace *t, const char *policy, bool whole, uint64_t memory)
{
    const cache_sim_params p = {
        .policy = named(policy), .whole = whole, .memory = memory, .bandwidth = 1000, .latency = 0.5};
    cache_sim_result r;
    assert_ok(cache_sim(t, &p, &r, &err), &err);
    return r;
}

/* Two experts of two sub-experts of 10 bytes, one layer, one expert a token. */
static const char by_hand[] = "# moeprism record 1 layers=1 experts=2 parts=2 bytes=10\n"
                              "0 0 1 experts 0 subs 0 1\n"
                              "1 0 1 experts 1 subs 2\n"
                              "2 0 1 experts 0 subs 1\n"
                              "3 0 1 experts 1 subs 2 3\n";

static void test_by_hand(void **state)
{
    (void)state;
    record_trace t = parse(by_hand);
    assert_int_equal(cache_sim_all_bytes(&t.shape), 40);
    assert_int_equal(cache_sim_least(&t), 20);
    /* Two slots, LRU: 0 1 come; 2 for 0; 1 is there; 2 is there and 3 for 1. */
    cache_sim_result r = simulate(&t, "lru", false, 29);
    assert_int_equal(r.unit_bytes, 10);
    assert_int_equal(r.units, 4);
    assert_int_equal(r.slots, 2);
    assert_int_equal(r.tokens, 4);
    assert_int_equal(r.claimed, 6);
    assert_int_equal(r.misses, 4);
    assert_int_equal(r.evictions, 2);
    assert_true(fabs(r.hit_rate - 2.0 / 6) < 1e-12);
    assert_true(fabs(r.bytes_per_token - 10) < 1e-12);
    assert_true(fabs(r.stall_per_token - (40.0 / 1000 + 4 * 0.5) / 4) < 1e-12);
    /* One slot for whole experts: all four miss. Two: only the first of each. */
    r = simulate(&t, "lru", true, 20);
    assert_int_equal(r.unit_bytes, 20);
    assert_int_equal(r.slots, 1);
    assert_int_equal(r.misses, 4);
    r = simulate(&t, "lru", true, 1000);
    assert_int_equal(r.slots, 2);
    assert_int_equal(r.misses, 2);
    assert_int_equal(r.evictions, 0);
    record_free(&t);
}

static void test_too_small(void **state)
{
    (void)state;
    record_trace t = parse(by_hand);
    const cache_sim_params p = {.policy = named(NULL), .memory = 19, .bandwidth = 1};
    cache_sim_result r;
    assert_int_equal(cache_sim(&t, &p, &r, &err), MP_E_LIMIT);
    assert_non_null(strstr(err.message, "takes 20 bytes, 50.0 %"));
    record_free(&t);
}

/* A prompt's step that claims more than there are slots is made in pieces. */
static void test_pieces(void **state)
{
    (void)state;
    record_trace t = parse("# moeprism record 1 layers=1 experts=4 parts=1 bytes=1\n"
                           "0 0 9 experts 0 1 2 3 subs 0 1 2 3\n"
                           "1 0 1 experts 2 3 subs 3 2\n");
    for (size_t i = 0; eviction_at(i); i++) {
        const cache_sim_result r = simulate(&t, eviction_at(i)->name, false, 2);
        assert_int_equal(r.tokens, 10);
        assert_int_equal(r.claimed, 6);
        assert_int_equal(r.misses, 4);
    }
    record_free(&t);
}

/* Four layers, tokens that like some experts more and often take what the last one took. */
static char *random_record(uint64_t seed)
{
    enum { LAYERS = 4, EXPERTS = 12, PARTS = 4, USED = 3, STEPS = 120 };
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    rng r;
    rng_init(&r, seed);
    uint32_t last[LAYERS][USED] = {{0}};
    assert_int_equal(record_write_header(f, &(record_shape){LAYERS, EXPERTS, PARTS, 100}), MP_OK);
    for (uint32_t i = 0; i < STEPS * LAYERS; i++) {
        uint32_t experts[USED], subs[USED * PARTS], n_subs = 0;
        for (uint32_t k = 0; k < USED; k++) {
            bool taken = true;
            while (taken) {
                experts[k] = rng_below(&r, 2) && i >= LAYERS ? last[i % LAYERS][k]
                                                             : (uint32_t)rng_below(&r, 1 + rng_below(&r, EXPERTS));
                taken = false;
                for (uint32_t j = 0; j < k; j++) taken = taken || experts[j] == experts[k];
            }
            for (uint32_t n = 0; n < PARTS; n++)
                if (rng_below(&r, n + 1) == 0) subs[n_subs++] = experts[k] * PARTS + n;
        }
        memcpy(last[i % LAYERS], experts, sizeof experts);
        const record_step step = {i / LAYERS, i % LAYERS, 1, experts, subs, USED, n_subs};
        assert_int_equal(record_write(f, &step), MP_OK);
    }
    assert_int_equal(fclose(f), 0);
    return text;
}

static void test_bounds(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        char *text = random_record(seed);
        record_trace t = parse(text);
        const uint64_t all = cache_sim_all_bytes(&t.shape);
        for (int whole = 0; whole < 2; whole++) {
            uint64_t before = UINT64_MAX;
            for (uint64_t share = 10; share <= 100; share += 6) {
                const cache_sim_result best = simulate(&t, NULL, whole, all * share / 100);
                assert_true(best.misses <= before); /* more memory never costs the best policy anything */
                before = best.misses;
                for (size_t i = 0; eviction_at(i); i++) {
                    const cache_sim_result r = simulate(&t, eviction_at(i)->name, whole, all * share / 100);
                    assert_true(best.misses <= r.misses);
                    assert_true(r.misses <= r.claimed);
                    assert_int_equal(r.misses - r.evictions, r.misses < r.slots ? r.misses : r.slots);
                    if (share == 100) assert_int_equal(r.misses, best.misses);
                }
            }
        }
        record_free(&t);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
