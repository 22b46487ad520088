/* The store on a scripted backend where reads fail and files change. */
#include <sys/stat.h>
#include <utime.h>

#include "store_testing.h"

/* The linker puts this in front of the store's own question (Makefile). */
static int stamp_error; /* what files fail with when they are asked for their stamps; 0: nothing */

bool __real_file_stamp_take(int fd, file_stamp *out);
bool __wrap_file_stamp_take(int fd, file_stamp *out);

bool __wrap_file_stamp_take(int fd, file_stamp *out)
{
    errno = stamp_error;
    return !stamp_error && __real_file_stamp_take(fd, out);
}

/* ---- faults ---- */

/* Fails reading unit 5 with others around it, then reads it after all. */
static void check_fault(rig *r, const char *expected)
{
    big_claim first, second;
    store_claim *a = claim_init(&first), *b = claim_init(&second);
    fake_hold(&r->fake, true);
    assert_int_equal(store_claim_begin(r->s, a, (uint32_t[]){4, 5}, 2, false), 2);
    assert_int_equal(store_claim_begin(r->s, b, (uint32_t[]){4, 6}, 2, false), 2);
    fake_hold(&r->fake, false);
    assert_int_equal(store_claim_wait(r->s, a, 2, 0, &r->err), MP_E_IO);
    if (!strstr(r->err.message, expected)) fail_msg("%s", r->err.message);
    assert_non_null(strstr(r->err.message, r->path));
    assert_int_equal(store_claim_wait(r->s, a, 2, 0, &r->err), MP_E_IO); /* again the same */
    assert_ok(store_claim_wait(r->s, b, 2, 0, &r->err), &r->err);
    assert_true(unit_is_right(r->s, &r->shape, b, 0, 4));
    assert_true(unit_is_right(r->s, &r->shape, b, 1, 6));
    assert_false(store_is_resident(r->s, 5));
    store_claim_end(r->s, a);
    store_claim_end(r->s, b);
    assert_int_equal(store_get_stats(r->s).resident, 2);
    r->fake.bad_to = 0;
    rig_read(r, (uint32_t[]){4, 5, 6}, 3);
    rig_read(r, (uint32_t[]){0, 1, 2, 3}, 4); /* the slot of the failed read is in use again */
}

static void test_read_error(void **state)
{
    (void)state;
    static const uint32_t part_offsets[] = {5 * 4096, (8 + 5) * 4096};
    for (int part = 0; part < 2; part++) {
        rig r;
        char expected[128];
        rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
        rig_open(&r, 4);
        r.fake.bad_from = part_offsets[part];
        r.fake.bad_to = r.fake.bad_from + 4096;
        r.fake.error = EIO;
        snprintf(expected, sizeof expected, "cannot read 4096 bytes at offset %u: %s", part_offsets[part],
                 strerror(EIO));
        check_fault(&r, expected);
        rig_clear(&r);
    }
}

static void test_short_read(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 4);
    r.fake.bad_from = 5 * 4096;
    r.fake.bad_to = 6 * 4096;
    r.fake.keep = 1000;
    check_fault(&r, "only 1000 of 4096 bytes could be read at offset 20480");
    rig_clear(&r);
}

/* The first part fails while the second waits for its turn: it is not read, and the slot is free in the end. */
static void test_fault_in_queue(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    r.params.depth = 1;
    r.fake.bad_to = 4096;
    r.fake.error = EIO;
    rig_open(&r, 2);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){0, 1}, 2, false), 2);
        assert_int_equal(store_claim_wait(r.s, c, 2, 0, &r.err), MP_E_IO);
        store_claim_end(r.s, c);
    }
    for (uint32_t i = 0; i < r.fake.n_reads; i++) assert_int_not_equal(r.fake.offsets[i], 8 * 4096);
    r.fake.bad_to = 0;
    rig_read(&r, (uint32_t[]){0, 1}, 2);
    rig_clear(&r);
}

static void test_many_faults(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 64, 2, 4096, 0);
    rig_open(&r, 16);
    r.fake.bad_to = UINT64_MAX;
    r.fake.error = EIO;
    uint32_t units[16];
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t i = 0; i < 16; i++) units[i] = (round * 7 + i * 3) % 64;
        assert_int_equal(store_claim_begin(r.s, c, units, 16, true), 16);
        assert_int_equal(store_claim_wait(r.s, c, 0, 0, &r.err), MP_E_IO);
        store_claim_end(r.s, c);
    }
    r.fake.bad_to = 0;
    rig_read(&r, units, 16);
    assert_int_equal(store_get_stats(r.s).resident, 16);
    rig_clear(&r);
}

/* ---- the file under our feet ---- */

static void check_changed(rig *r)
{
    big_claim b;
    store_claim *c = claim_init(&b);
    assert_int_equal(store_claim_begin(r->s, c, (uint32_t[]){1, 6}, 2, false), 2); /* 1 is there, and right */
    assert_int_equal(store_claim_wait(r->s, c, 1, 0, &r->err), MP_E_CHANGED);
    assert_non_null(strstr(r->err.message, "has changed while in use"));
    assert_true(unit_is_right(r->s, &r->shape, c, 0, 1));
    store_claim_end(r->s, c);
    assert_false(store_is_resident(r->s, 6));
}

static void test_truncated(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 4);
    rig_read(&r, (uint32_t[]){1}, 1);
    assert_int_equal(truncate(r.path, 5 * 4096), 0);
    check_changed(&r);
    rig_clear(&r);
}

static void test_overwritten(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 4);
    rig_read(&r, (uint32_t[]){1}, 1);
    usleep(20000); /* more than the grain of a file's time */
    FILE *f = fopen(r.path, "r+b");
    assert_non_null(f);
    assert_int_equal(fputc('!', f), '!');
    assert_int_equal(fclose(f), 0);
    check_changed(&r);
    rig_clear(&r);
}

/* One of two files: it is named, and the other is still read as it is. */
static void test_one_of_two_changed(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_split(&r, "/tmp");
    rig_open(&r, 4);
    rig_read(&r, (uint32_t[]){1, 3}, 2);
    assert_int_equal(truncate(r.second, 5 * 4096), 0);
    check_changed(&r);
    assert_non_null(strstr(r.err.message, r.second));
    rig_clear(&r);
}

static void test_second_file_too_short(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_split(&r, "/tmp");
    r.parts[1].offset += 1;
    assert_int_equal(rig_try(&r, 4, 1), MP_E_FORMAT);
    assert_non_null(strstr(r.err.message, "was cut"));
    assert_non_null(strstr(r.err.message, r.second));
    rig_clear(&r);
}

/* A file that does not tell its stamp fails what was read meanwhile, and is read again later; one that is gone from its
 * server has changed for good. */
static void test_unknown_stamp(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 4);
    rig_read(&r, (uint32_t[]){1}, 1);
    stamp_error = EIO;
    big_claim b;
    store_claim *c = claim_init(&b);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){2}, 1, false), 1);
    assert_int_equal(store_claim_wait(r.s, c, 0, 0, &r.err), MP_E_IO);
    assert_non_null(strstr(r.err.message, strerror(EIO)));
    store_claim_end(r.s, c);
    stamp_error = 0;
    rig_read(&r, (uint32_t[]){1, 2}, 2);
    stamp_error = ESTALE;
    check_changed(&r);
    stamp_error = 0;
    check_changed(&r);
    rig_clear(&r);
}

/* What is in flight when the store closes ends first. */
static void test_close_in_flight(void **state)
{
    (void)state;
    rig r;
    big_claim b;
    store_claim *c = claim_init(&b);
    rig_init(&r, "/tmp", 1, 16, 2, 4096, 0);
    r.params.depth = 5;
    r.fake.delay_ns = MS;
    rig_open(&r, 8);
    assert_int_equal(store_claim_begin(r.s, c, (uint32_t[]){0, 1, 2, 3, 4, 5}, 6, false), 6);
    store_claim_end(r.s, c);
    store_close(r.s);
    r.s = NULL;
    assert_true(r.fake.closed);
    assert_int_equal(r.fake.n_waiting, 0);
    assert_int_equal(r.fake.n_reads, 6); /* five were in flight; the sixth unit part belongs to one of them */
    rig_clear(&r);
}

/* A name that leads elsewhere by now, or to a file of another time, is refused; one deleted or replaced later does no
 * harm. */
static void test_replaced(void **state)
{
    (void)state;
    rig r, other;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    rig_init(&other, "/tmp", 1, 8, 2, 4096, 0);
    rig_open(&r, 4);
    assert_int_equal(rename(other.path, r.path), 0);
    rig_read(&r, (uint32_t[]){1, 2}, 2);
    store_close(r.s);
    assert_int_equal(rig_try(&r, 4, 1), MP_E_CHANGED);
    assert_null(r.s);
    assert_non_null(strstr(r.err.message, "was replaced or changed"));
    memcpy(other.path, r.path, sizeof r.path);
    assert_ok(rig_try(&other, 4, 1), &other.err);
    rig_clear(&other);
    assert_int_equal(rig_try(&r, 4, 1), MP_E_IO); /* gone */
    rig_clear(&r);
}

static void test_file_too_short(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, "/tmp", 1, 8, 2, 4096, 0);
    r.parts[1].offset += 1;
    assert_int_equal(rig_try(&r, 4, 1), MP_E_FORMAT);
    assert_non_null(strstr(r.err.message, "was cut"));
    rig_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_short_read),
        cmocka_unit_test(test_fault_in_queue),
        cmocka_unit_test(test_many_faults),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_overwritten),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_file_too_short),
        cmocka_unit_test(test_one_of_two_changed),
        cmocka_unit_test(test_unknown_stamp),
        cmocka_unit_test(test_second_file_too_short),
        cmocka_unit_test(test_close_in_flight),
    };
    return cmocka_run_group_tests_name("store faults", tests, NULL, NULL);
}
