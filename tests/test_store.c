/* The store on a scripted backend: claims, pins, order, sizes, reading ahead. Where reads fail and files change is
 * test_store_faults.c; what real disks and threads do is in test_io.c and test_store_threads.c. */
#include "store_testing.h"

static void test_claims(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 3, 8, 2, 4096, 0);
    rig_open(&r, 8);
    assert_string_equal(store_backend(r.s), "fake");
    assert_string_equal(r.notice, "");
    const uint32_t units[] = {3, 17, 8, 23};
    assert_false(store_is_resident(r.s, 3));
    rig_read(&r, units, 4);
    assert_true(store_is_resident(r.s, 3));
    rig_read(&r, units, 4);
    rig_read(&r, (uint32_t[]){23, 0}, 2);
    const store_stats stats = store_get_stats(r.s);
    assert_int_equal(stats.misses, 5);
    assert_int_equal(stats.hits, 5);
    assert_int_equal(stats.reads, 10);
    assert_int_equal(stats.bytes_wanted, 10 * 8192);
    assert_int_equal(stats.bytes_read, 5 * 8192);
    assert_int_equal(stats.slot_bytes, 8192);
    assert_int_equal(stats.slots, 8);
    assert_int_equal(stats.resident, 5);
    assert_int_equal(stats.pinned, 0);
    assert_int_equal(stats.evictions, 0);
    rig_clear(&r);
    assert_true(r.fake.closed);
}

/* All misses are submitted at once, in the caller's order, part by part. */
static void test_order(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 64, 2, 4096, 0);
    r.params.depth = 128;
    rig_open(&r, 64);
    rig_read(&r, (uint32_t[]){20, 30}, 2);
    r.fake.n_reads = r.fake.most = 0;
    const uint32_t units[] = {9, 20, 4, 30, 50};
    rig_read(&r, units, 5);
    const uint64_t second = 64 * 4096;
    const uint64_t expected[] = {9 * 4096,          second + 9 * 4096, 4 * 4096,
                                 second + 4 * 4096, 50 * 4096,         second + 50 * 4096};
    assert_int_equal(r.fake.n_reads, 6);
    assert_int_equal(r.fake.most, 6);
    assert_memory_equal(r.fake.offsets, expected, sizeof expected);
    assert_int_equal(store_get_stats(r.s).depth_max, 6);
    rig_clear(&r);
}

/* The depth is never exceeded; what waits follows in order. */
static void test_depth(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 64, 2, 4096, 0);
    r.params.depth = 3;
    r.fake.at_once = 1;
    rig_open(&r, 64);
    uint32_t units[64];
    for (uint32_t i = 0; i < 64; i++) units[i] = i;
    rig_read(&r, units, 64);
    assert_int_equal(r.fake.n_reads, 128);
    assert_int_equal(r.fake.most, 3);
    for (uint32_t i = 0; i < 128; i++) assert_int_equal(r.fake.offsets[i], (i / 2 + i % 2 * 64) * 4096);
    const store_stats stats = store_get_stats(r.s);
    assert_int_equal(stats.depth_max, 3);
    assert_int_equal(stats.depth_sum, 1 + 2 + 3 * 126);
    rig_clear(&r);
}

/* What arrives first is ready first, whatever was asked first; resident units are ready at once. */
static void test_out_of_order(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 16, 1, 4096, 0);
    rig_open(&r, 16);
    rig_read(&r, (uint32_t[]){5}, 1);
    r.fake.last_first = true;
    r.fake.at_once = 1;
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){1, 2, 5, 3}, 4, false), 4);
    assert_int_equal(c->n_ready, 1);
    assert_int_equal(c->ready[0], 2);
    const uint32_t expected[] = {2, 3, 1, 0};
    for (uint32_t seen = c->n_ready; seen < 4; seen = c->n_ready) {
        assert_ok(store_claim_wait(r.s, c, seen, 0, &r.err), &r.err);
        assert_int_equal(c->n_ready, seen + 1);
    }
    assert_memory_equal(c->ready, expected, sizeof expected);
    store_claim_end(r.s, c);
    rig_clear(&r);
}

/* A unit on its way is read once for all who claim it. */
static void test_join(void **state)
{
    (void)state;
    rig r;
    big_claim first, second;
    store_claim *a = claim_init(&first), *b = claim_init(&second);
    rig_init(&r, "/tmp", 1, 16, 2, 4096, 0);
    rig_open(&r, 16);
    fake_hold(&r.fake, true);
    assert_int_equal(store_claim_begin(r.s, a, (uint32_t[]){1, 2}, 2, false), 2);
    assert_int_equal(store_claim_begin(r.s, b, (uint32_t[]){2, 3}, 2, false), 2);
    assert_int_equal(r.fake.n_reads, 6);
    assert_int_equal(a->slot[1], b->slot[0]);
    assert_int_equal(a->n_ready, 0);
    fake_hold(&r.fake, false);
    assert_ok(store_claim_wait(r.s, b, 2, 0, &r.err), &r.err);
    assert_ok(store_claim_wait(r.s, a, 2, 0, &r.err), &r.err);
    assert_true(unit_is_right(r.s, &r.shape, a, 1, 2));
    store_claim_end(r.s, a);
    assert_true(unit_is_right(r.s, &r.shape, b, 0, 2));
    store_claim_end(r.s, b);
    const store_stats stats = store_get_stats(r.s);
    assert_int_equal(stats.misses, 3);
    assert_int_equal(stats.hits, 1);
    rig_clear(&r);
}

/* Pinned units stay and their slots are not given away; a claim gets what has room. */
static void test_pins(void **state)
{
    (void)state;
    rig r;
    big_claim first, second;
    store_claim *a = claim_init(&first), *b = claim_init(&second);
    rig_init(&r, "/tmp", 1, 32, 1, 4096, 0);
    rig_open(&r, 4);
    assert_int_equal(store_claim_begin(r.s, a, (uint32_t[]){1, 2, 3}, 3, false), 3);
    assert_ok(store_claim_wait(r.s, a, 3, 0, &r.err), &r.err);
    assert_int_equal(store_get_stats(r.s).pinned, 3);
    for (uint32_t unit = 10; unit < 20; unit++) {
        assert_int_equal(store_claim_begin(r.s, b, (uint32_t[]){unit, unit + 1}, 2, false), 1);
        assert_ok(store_claim_wait(r.s, b, 1, 0, &r.err), &r.err);
        assert_int_equal(store_claim_begin(r.s,
                                           &(store_claim){.cap = 1, .slot = &(uint32_t){0}, .ready = &(uint32_t){0}},
                                           (uint32_t[]){30}, 1, false),
                         0);
        store_claim_end(r.s, b);
    }
    for (uint32_t i = 0; i < 3; i++) assert_true(unit_is_right(r.s, &r.shape, a, i, i + 1));
    store_claim_end(r.s, a);
    assert_int_equal(store_get_stats(r.s).pinned, 0);
    assert_int_equal(store_get_stats(r.s).evictions, 9);
    assert_int_equal(store_get_stats(r.s).resident, 4);
    rig_clear(&r);
}

/* Pinned twice, a unit stays until both have let go. */
static void test_pins_are_counted(void **state)
{
    (void)state;
    rig r;
    big_claim first, second, third;
    store_claim *a = claim_init(&first), *b = claim_init(&second), *c = claim_init(&third);
    rig_init(&r, "/tmp", 1, 8, 1, 4096, 0);
    rig_open(&r, 1);
    assert_int_equal(store_claim_begin(r.s, a, (uint32_t[]){1}, 1, true), 1);
    assert_int_equal(store_claim_begin(r.s, b, (uint32_t[]){1}, 1, false), 1);
    assert_ok(store_claim_wait(r.s, a, 0, 0, &r.err), &r.err);
    store_claim_end(r.s, a);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){2}, 1, false), 0);
    store_claim_end(r.s, b);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){2}, 1, false), 1);
    store_claim_end(r.s, c);
    rig_clear(&r);
}

/* Making room for one unit of a claim never costs it another, unless it could not even begin. */
static void test_own_units_are_kept(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 32, 1, 4096, 0);
    rig_open(&r, 4);
    rig_read(&r, (uint32_t[]){10, 11, 12, 13}, 4);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){1, 2, 10, 11}, 4, false), 4);
    store_claim_end(r.s, c);
    assert_int_equal(store_get_stats(r.s).evictions, 2);
    rig_read(&r, (uint32_t[]){10, 11, 12, 13}, 4);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){1, 2, 10, 11, 12, 13}, 6, false), 1);
    store_claim_end(r.s, c);
    assert_true(store_is_resident(r.s, 12));
    assert_false(store_is_resident(r.s, 13));
    rig_clear(&r);
}

/* The clock ends a wait; what was on its way still arrives, and stays. */
static void test_deadline(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 2);
    rig_read(&r, (uint32_t[]){7}, 1);
    fake_hold(&r.fake, true);
    const uint64_t until = clock_now_ns() + 5 * MS;
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){7, 1}, 2, false), 2);
    assert_ok(store_claim_wait(r.s, c, 1, until, &r.err), &r.err);
    assert_true(clock_now_ns() >= until);
    assert_int_equal(c->n_ready, 1);
    assert_in_range(store_get_stats(r.s).stall_ns, 1, UINT64_MAX);
    store_claim_end(r.s, c);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){2, 3}, 2, false), 1); /* 1 still has its slot */
    store_claim_end(r.s, c);
    fake_hold(&r.fake, false);
    rig_read(&r, (uint32_t[]){1}, 1);
    assert_int_equal(store_get_stats(r.s).misses, 3);
    rig_clear(&r);
}

/* Reads whose turn has not come when nobody wants them any more are not made. */
static void test_let_go_in_time(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 32, 2, 4096, 0);
    r.params.depth = 3;
    rig_open(&r, 16);
    fake_hold(&r.fake, true);
    uint32_t units[16];
    for (uint32_t i = 0; i < 16; i++) units[i] = i;
    assert_int_equal(store_claim_begin(r.s, c, units, 16, false), 16);
    store_claim_end(r.s, c);
    fake_hold(&r.fake, false);
    rig_read(&r, (uint32_t[]){0, 1, 20}, 3);
    assert_int_equal(r.fake.n_reads, 6);
    assert_int_equal(store_get_stats(r.s).resident, 3);
    rig_clear(&r);
}

/* ---- sizes ---- */

static void test_cap_too_small(void **state)
{
    (void)state;
    rig r;
    char expected[64];
    rig_init(&r, "/tmp", 2, 8, 2, 4096, 0);
    r.params.memory = 10 * 8192 - 1;
    assert_int_equal(store_open(&r.shape, &r.params, 10, &r.s, r.notice, &r.err), MP_E_LIMIT);
    snprintf(expected, sizeof expected, "at least 0.1 MiB (%llu bytes)",
             (unsigned long long)store_memory_for(&r.shape, 10));
    assert_non_null(strstr(r.err.message, expected));
    assert_ok(rig_try(&r, 10, 10), &r.err); /* the number it named works */
    store_close(r.s);
    r.params.memory = UINT64_MAX;
    assert_ok(store_open(&r.shape, &r.params, 1000, &r.s, r.notice, &r.err), &r.err);
    assert_int_equal(store_slots(r.s), 16); /* never more than there is to hold */
    store_close(r.s);
    r.s = NULL;
    r.params.memory = 0;
    assert_int_equal(store_open(&r.shape, &r.params, 0, &r.s, r.notice, &r.err), MP_E_LIMIT);
    rig_clear(&r);
}

/* ---- reading ahead ---- */

static uint32_t begun_ahead(rig *r, const uint32_t *units, uint32_t n)
{
    const uint64_t before = store_get_stats(r->s).ahead;
    store_read_ahead(r->s, units, n);
    return (uint32_t)(store_get_stats(r->s).ahead - before);
}

/* One more each time the disk was done when the next claim began; fewer where it was not. What was read ahead is a hit,
 * and is there once it is needed. */
static void test_read_ahead(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 64, 2, 4096, 0);
    rig_open(&r, 40);
    for (uint32_t i = 0; i < 6; i++) {
        const uint32_t units[] = {8 * i, 8 * i + 1, 8 * i + 2, 8 * i + 3, 8 * i + 4, 8 * i + 5, 8 * i + 6};
        assert_int_equal(begun_ahead(&r, units, 7), i + 1);
        rig_read(&r, units, 1);
    }
    store_stats stats = store_get_stats(r.s);
    assert_int_equal(stats.ahead, 1 + 2 + 3 + 4 + 5 + 6);
    assert_int_equal(stats.ahead_used, 6);
    assert_true(stats.hits == 6 && stats.misses == 0);
    fake_hold(&r.fake, true);
    const uint32_t more[] = {48, 49, 50, 51, 52, 53, 54, 55, 56};
    assert_int_equal(begun_ahead(&r, more, 9), 7);
    big_claim b;
    store_claim *c = claim_init(&b);
    assert_int_equal(store_claim_begin(r.s, c, more, 1, false), 1); /* the disk is not done: on its way, still a hit */
    assert_int_equal(c->n_ready, 0);
    fake_hold(&r.fake, false);
    assert_ok(store_claim_wait(r.s, c, 0, 0, &r.err), &r.err);
    assert_true(unit_is_right(r.s, &r.shape, c, 0, 48));
    store_claim_end(r.s, c);
    assert_int_equal(store_get_stats(r.s).hits, 7);
    const uint32_t last[] = {56, 57, 58, 59, 60, 61, 62, 63};
    assert_int_equal(begun_ahead(&r, last, 8), 6);
    rig_clear(&r);
}

/* Neither what is pinned nor what is named makes room. */
static void test_read_ahead_evicts_no_other_guess(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 16, 1, 4096, 0);
    rig_open(&r, 3);
    rig_read(&r, (const uint32_t[]){0, 1, 2}, 3); /* 0 is the oldest */
    assert_int_equal(begun_ahead(&r, (const uint32_t[]){5, 0}, 2), 1);
    rig_read(&r, (const uint32_t[]){0, 5, 2}, 3);
    assert_int_equal(store_get_stats(r.s).misses, 3);
    big_claim b;
    store_claim *c = claim_init(&b);
    assert_int_equal(store_claim_begin(r.s, c, (const uint32_t[]){0, 5, 2}, 3, false), 3);
    assert_int_equal(begun_ahead(&r, (const uint32_t[]){7, 8}, 2), 0);
    store_claim_end(r.s, c);
    rig_clear(&r);
}

/* What was read ahead for nothing goes first; what a claim wanted counts as used then. */
static void test_wrong_guesses_go_first(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 16, 1, 4096, 0);
    rig_open(&r, 3);
    for (uint32_t i = 0; i < 3; i++) rig_read(&r, &i, 1);
    assert_int_equal(begun_ahead(&r, (const uint32_t[]){5}, 1), 1); /* in place of 0 */
    rig_read(&r, (const uint32_t[]){6}, 1);
    assert_true(store_is_resident(r.s, 1) && store_is_resident(r.s, 2) && !store_is_resident(r.s, 5));
    assert_int_equal(begun_ahead(&r, (const uint32_t[]){7}, 1), 1); /* in place of 1 */
    rig_read(&r, (const uint32_t[]){7}, 1);
    rig_read(&r, (const uint32_t[]){8}, 1);
    assert_true(store_is_resident(r.s, 6) && store_is_resident(r.s, 7) && !store_is_resident(r.s, 2));
    assert_int_equal(store_get_stats(r.s).ahead_used, 1);
    rig_clear(&r);
}

/* A read that fails is told to nobody, and done again for who claims the unit. */
static void test_read_ahead_fails(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 16, 1, 4096, 0);
    rig_open(&r, 3);
    r.fake.bad_from = 4096;
    r.fake.bad_to = 8192;
    r.fake.error = EIO;
    assert_int_equal(begun_ahead(&r, (const uint32_t[]){1}, 1), 1);
    rig_read(&r, (const uint32_t[]){0}, 1);
    r.fake.bad_to = 0;
    rig_read(&r, (const uint32_t[]){1}, 1);
    assert_int_equal(store_get_stats(r.s).misses, 2);
    assert_int_equal(store_get_stats(r.s).ahead_used, 0);
    rig_clear(&r);
}

/* Aligned parts take their own size, others the blocks around the one that lies worst, unless those are much of it. */
static void test_slot_bytes(void **state)
{
    (void)state;
    const store_part aligned[] = {{8192, 4096, 0}, {65536, 8192, 0}, {1 << 20, 8192, 0}, {2 << 20, 8192, 0}};
    store_shape shape = {.n_layers = 2, .n_subs = 4, .n_parts = 2, .parts = aligned};
    assert_int_equal(store_memory_for(&shape, 3), 3 * 16384);
    const store_part odd[] = {{32, 65536, 0}};
    shape = (store_shape){.n_layers = 1, .n_subs = 4, .n_parts = 1, .parts = odd};
    assert_int_equal(store_memory_for(&shape, 1), 65536 + 512);
    const store_part crossing[] = {{0, 35000, 0}};
    shape.parts = crossing;
    assert_int_equal(store_memory_for(&shape, 1), 70 * 512);
    shape.n_subs = 1;
    assert_int_equal(store_memory_for(&shape, 1), 69 * 512);
    const store_part small[] = {{0, 3000, 0}, {4096, 64, 0}}; /* blocks would hold little else: the parts alone */
    shape = (store_shape){.n_layers = 1, .n_subs = 4, .n_parts = 2, .parts = small};
    assert_int_equal(store_memory_for(&shape, 1), 3008 + 64);
}

static void test_bad_shapes(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    const store_shape good = r.shape;
    const store_part huge = {0, (uint64_t)4 << 30, 0}, far = {UINT64_MAX - 100, 4096, 0}, none = {0, 0, 0},
                     nowhere = {0, 4096, 1};
    store_shape bad[] = {good, good, good, good, good, good, good, good};
    bad[0].n_parts = 0;
    bad[1].n_parts = STORE_MAX_PARTS + 1;
    bad[2].n_layers = 0;
    bad[3].n_subs = UINT32_MAX;
    bad[4] = (store_shape){1, 1, 1, &huge, 1, r.files};
    bad[5] = (store_shape){1, 1, 1, &far, 1, r.files};
    bad[6] = (store_shape){1, 1, 1, &none, 1, r.files};
    bad[7] = (store_shape){1, 1, 1, &nowhere, 1, r.files};
    r.params.memory = 1 << 20;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r.err.message[0] = 0;
        assert_int_not_equal(store_open(&bad[i], &r.params, 1, &r.s, r.notice, &r.err), MP_OK);
        assert_null(r.s);
        assert_true(r.err.message[0] != 0);
    }
    r.params.depth = 1u << 20;
    assert_int_equal(rig_try(&r, 4, 1), MP_E_INVALID);
    r.params.depth = 0;
    r.params.eviction = "no-such-policy";
    assert_int_equal(rig_try(&r, 4, 1), MP_E_INVALID);
    r.params.eviction = NULL;
    r.params.io = NULL;
    r.params.backend = "no-such-backend";
    assert_int_equal(rig_try(&r, 4, 1), MP_E_INVALID);
    assert_non_null(strstr(r.err.message, "io_uring, threads"));
    r.params.io = &fake_backend;
    r.fake.refuse = MP_E_UNSUPPORTED;
    assert_int_equal(rig_try(&r, 4, 1), MP_E_UNSUPPORTED);
    rig_clear(&r);
}

/* ---- what stays for good ---- */

static void test_fixed(void **state)
{
    (void)state;
    rig r;
    float use[32] = {[3] = 5, [9] = 7, [20] = 1, [21] = 2};
    rig_init(&r, "/tmp", 1, 32, 1, 4096, 0);
    r.params.use = use;
    r.params.pin_share = 0.5;
    assert_ok(rig_try(&r, 4, 1), &r.err);
    const uint32_t all[] = {3, 9, 20, 21};
    rig_read(&r, all, 4);
    for (uint32_t unit = 22; unit < 32; unit++) rig_read(&r, &unit, 1);
    assert_true(store_is_resident(r.s, 3));
    assert_true(store_is_resident(r.s, 9));
    assert_false(store_is_resident(r.s, 21));
    store_close(r.s);

    r.params.pin_share = 1; /* yet three must move */
    assert_ok(rig_try(&r, 4, 3), &r.err);
    rig_read(&r, all, 4);
    rig_read(&r, (uint32_t[]){10, 11, 12}, 3);
    assert_true(store_is_resident(r.s, 9));
    assert_false(store_is_resident(r.s, 3));
    store_close(r.s);

    r.params.pin_share = 1; /* what was never used is not kept */
    assert_ok(rig_try(&r, 8, 1), &r.err);
    for (uint32_t unit = 0; unit < 32; unit++) rig_read(&r, &unit, 1);
    for (uint32_t unit = 0; unit < 3; unit++) rig_read(&r, &unit, 1);
    for (uint32_t i = 0; i < 4; i++) assert_true(store_is_resident(r.s, all[i]));
    assert_false(store_is_resident(r.s, 8));
    rig_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_pins_are_counted),
        cmocka_unit_test(test_own_units_are_kept),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_let_go_in_time),
        cmocka_unit_test(test_cap_too_small),
        cmocka_unit_test(test_read_ahead),
        cmocka_unit_test(test_read_ahead_evicts_no_other_guess),
        cmocka_unit_test(test_wrong_guesses_go_first),
        cmocka_unit_test(test_read_ahead_fails),
        cmocka_unit_test(test_slot_bytes),
        cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_fixed),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
