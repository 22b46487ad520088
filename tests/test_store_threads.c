/* Many threads on one store. Runs under the thread sanitizer too. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/rng.h"
#include "store_testing.h"

enum { THREADS = 4, CLAIMS_PER_THREAD = 2500, MOST = 5, UNITS = 64 };

typedef struct crowd {
    rig *r;
    atomic_uint next, wrong, failed, late, whole;
} crowd;

/* Distinct units. */
static uint32_t draw(rng *random, uint32_t *units)
{
    const uint32_t n = 1 + (uint32_t)rng_below(random, MOST), start = (uint32_t)rng_below(random, UNITS);
    const uint32_t step = 1 + 2 * (uint32_t)rng_below(random, 4); /* odd: comes back to the start after all units */
    for (uint32_t i = 0; i < n; i++) units[i] = (start + i * step) % UNITS;
    return n;
}

/* Compares what is ready, and counts how the claim ended. */
static void use_claim(crowd *w, store_claim *c, const uint32_t *units, rng *random)
{
    mp_error err;
    const bool hurry = rng_below(random, 4) == 0;
    const uint64_t until = hurry ? clock_now_ns() + rng_below(random, MS / 10) : 0;
    if (store_claim_wait(w->r->s, c, hurry ? 0 : c->n, until, &err) != MP_OK) {
        atomic_fetch_add(&w->failed, 1);
        return;
    }
    atomic_fetch_add(c->n_ready == c->n ? &w->whole : &w->late, 1);
    for (uint32_t i = 0; i < c->n_ready; i++)
        if (!unit_is_right(w->r->s, &w->r->shape, c, c->ready[i], units[c->ready[i]])) atomic_fetch_add(&w->wrong, 1);
}

/* Claims, at times a second one beside it, at times without waiting for anything. */
static void *crowd_main(void *arg)
{
    crowd *w = arg;
    rng random;
    big_claim first, second;
    store_claim *a = claim_init(&first), *b = claim_init(&second);
    rng_init(&random, 100 + atomic_fetch_add(&w->next, 1));
    for (int i = 0; i < CLAIMS_PER_THREAD; i++) {
        uint32_t units[MOST], more[MOST];
        if (!store_claim_begin(w->r->s, a, units, draw(&random, units), true)) atomic_fetch_add(&w->wrong, 1);
        const bool both = rng_below(&random, 3) == 0;
        if (both) store_claim_begin(w->r->s, b, more, draw(&random, more), false);
        if (rng_below(&random, 8)) use_claim(w, a, units, &random);
        store_claim_end(w->r->s, a);
        if (both && b->n) use_claim(w, b, more, &random);
        if (both) store_claim_end(w->r->s, b);
    }
    return NULL;
}

static void run_crowd(rig *r, crowd *w)
{
    pthread_t threads[THREADS];
    w->r = r;
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, w), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    const store_stats stats = store_get_stats(r->s);
    assert_int_equal(atomic_load(&w->wrong), 0);
    assert_in_range(atomic_load(&w->whole), 1, UINT32_MAX);
    assert_int_equal(stats.pinned, 0);
    assert_in_range(stats.resident, 1, stats.slots);
    assert_in_range(stats.evictions, 1, UINT32_MAX);
    assert_in_range(stats.depth_max, 1, r->params.depth);
}

static void test_scripted_crowd(void **state)
{
    (void)state;
    for (size_t i = 0; eviction_at(i); i++) {
        rig r;
        crowd w = {0};
        rig_init(&r, "/tmp", 2, UNITS / 2, 2, 600, 100);
        r.params.depth = 6;
        r.params.eviction = eviction_at(i)->name;
        rig_open(&r, 12);
        assert_string_equal(store_eviction(r.s), eviction_at(i)->name);
        r.fake.last_first = true;
        r.fake.at_once = 2;
        run_crowd(&r, &w);
        assert_int_equal(atomic_load(&w.failed), 0);
        rig_clear(&r);
    }
}

/* Some units cannot be read: their claims fail, nothing else does, and every slot comes back. */
static void test_crowd_with_faults(void **state)
{
    (void)state;
    rig r;
    crowd w = {0};
    rig_init(&r, "/tmp", 2, UNITS / 2, 2, 4096, 0);
    r.params.depth = 6;
    rig_open(&r, 12);
    r.fake.bad_from = (uint64_t)40 * 4096;
    r.fake.bad_to = (uint64_t)45 * 4096;
    r.fake.error = EIO;
    run_crowd(&r, &w);
    assert_in_range(atomic_load(&w.failed), 1, UINT32_MAX);
    r.fake.bad_to = 0;
    const uint32_t units[] = {0, 2, 4, 6, 8, 10, 12, 14, 9, 11, 13, 1};
    rig_read(&r, units, 12);
    rig_clear(&r);
}

static void test_real_crowds(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 2, UNITS / 2, 3, 4096, 0);
    r.params.io = NULL;
    r.params.depth = 6;
    for (size_t i = 0; io_at(i); i++) {
        crowd w = {0};
        r.params.backend = io_at(i)->name;
        const mp_status status = rig_try(&r, 12, 1);
        if (status == MP_E_UNSUPPORTED) continue;
        assert_ok(status, &r.err);
        run_crowd(&r, &w);
        assert_int_equal(atomic_load(&w.failed), 0);
        store_close(r.s);
        r.s = NULL;
    }
    rig_clear(&r);
}

/* ---- who reaps ---- */

typedef struct waiter {
    rig *r;
    uint32_t unit;
    uint64_t until;
    mp_status status;
    uint32_t ready;
    atomic_bool begun;
} waiter;

static void *waiter_main(void *arg)
{
    waiter *w = arg;
    mp_error err;
    big_claim b;
    store_claim *c = claim_init(&b);
    store_claim_begin(w->r->s, c, &w->unit, 1, true);
    atomic_store(&w->begun, true);
    w->status = store_claim_wait(w->r->s, c, 0, w->until, &err);
    w->ready = c->n_ready;
    store_claim_end(w->r->s, c);
    return NULL;
}

static void wait_for_begin(waiter *w)
{
    while (!atomic_load(&w->begun)) usleep(100);
}

/* The one who reaps for all leaves when its time is up; another takes over. */
static void test_reaper_leaves(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 1, 4096, 0);
    rig_open(&r, 4);
    fake_hold(&r.fake, true);
    waiter hurried = {.r = &r, .unit = 1, .until = clock_now_ns() + 20 * MS}, patient = {.r = &r, .unit = 2};
    pthread_t a, b;
    assert_int_equal(pthread_create(&a, NULL, waiter_main, &hurried), 0);
    wait_for_begin(&hurried);
    assert_int_equal(pthread_create(&b, NULL, waiter_main, &patient), 0);
    pthread_join(a, NULL);
    assert_int_equal(hurried.status, MP_OK);
    assert_int_equal(hurried.ready, 0);
    fake_hold(&r.fake, false);
    pthread_join(b, NULL);
    assert_int_equal(patient.status, MP_OK);
    assert_int_equal(patient.ready, 1);
    rig_clear(&r);
}

/* A claim that finds no room begins when another ends. */
static void test_waits_for_room(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 8, 1, 4096, 0);
    rig_open(&r, 1);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){1}, 1, true), 1);
    assert_ok(store_claim_wait(r.s, c, 0, 0, &r.err), &r.err);
    waiter w = {.r = &r, .unit = 2};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, waiter_main, &w), 0);
    usleep(5000);
    assert_false(atomic_load(&w.begun));
    assert_true(unit_is_right(r.s, &r.shape, c, 0, 1));
    store_claim_end(r.s, c);
    pthread_join(thread, NULL);
    assert_int_equal(w.ready, 1);
    rig_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripted_crowd), cmocka_unit_test(test_crowd_with_faults),
        cmocka_unit_test(test_real_crowds),    cmocka_unit_test(test_reaper_leaves),
        cmocka_unit_test(test_waits_for_room),
    };
    return cmocka_run_group_tests_name("store threads", tests, NULL, NULL);
}
