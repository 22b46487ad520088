/* Mapped files: what is refused, and what becomes of their pages when they are copied into memory. */
#include "testing.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/pool.h"

#define PAGES 6

#define FOLDER "/tmp/moeprism-test-map-XXXXXX"

static char folder[] = FOLDER;
static char path[64];
static size_t page;
static pool *threads; /* of the second round */
static mp_error err;

static int make_folder(void **state)
{
    (void)state;
    page = (size_t)sysconf(_SC_PAGESIZE);
    memcpy(folder, FOLDER, sizeof folder);
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/some", folder);
    return 0;
}

static int make_folder_and_threads(void **state)
{
    assert_ok(pool_new(3, &threads, &err), &err);
    return make_folder(state);
}

static int remove_folder(void **state)
{
    (void)state;
    pool_free(threads);
    threads = NULL;
    unlink(path);
    return rmdir(folder);
}

static uint8_t byte_of(size_t i)
{
    return (uint8_t)(i * 7 + i / page);
}

/* Bytes [0, len) as byte_of() says; opened. */
static file_map map_known(size_t len)
{
    file_map map;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < len; i++) putc(byte_of(i), f);
    assert_int_equal(fclose(f), 0);
    assert_ok(file_map_open(path, &map, &err), &err);
    return map;
}

static void assert_known(const file_map *map, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (map->data[i] != byte_of(i)) fail_msg("byte %zu of %zu is another", i, map->len);
}

static void assert_refused(mp_status status, const char *part)
{
    assert_int_equal(status, MP_E_IO);
    if (!strstr(err.message, part)) fail_msg("'%s' is not in '%s'", part, err.message);
}

static const file_pick all = {0};

static void test_open(void **state)
{
    (void)state;
    char other[80];
    file_map map = map_known(3);
    assert_int_equal(map.len, 3);
    assert_known(&map, 0, 3);
    assert_true(map.fd >= 0 && file_has_stamp(map.fd, &map.stamp));
    file_map_close(&map);
    assert_int_equal(map.fd, -1);
    file_map_close(&map); /* once more does no harm */
    map = map_known(0);
    assert_int_equal(map.len, 0);
    assert_null(map.data);
    assert_ok(file_map_copy(&map, path, &all, threads, NULL, NULL, &err), &err);
    file_map_close(&map);
    snprintf(other, sizeof other, "%s/none", folder);
    assert_refused(file_map_open(other, &map, &err), "none: No such file");
    assert_int_equal(map.fd, -1);
    assert_refused(file_map_open(folder, &map, &err), "it is a directory");
    assert_int_equal(mkfifo(other, 0600), 0);
    assert_refused(file_map_open(other, &map, &err), "not a regular file");
    unlink(other);
}

/* Overwrites the whole file, which shows in pages that are its own. */
static void spoil(size_t len)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t i = 0; i < len; i++) {
        const uint8_t other = (uint8_t)~byte_of(i);
        assert_int_equal(pwrite(fd, &other, 1, (off_t)i), 1);
    }
    close(fd);
}

typedef struct ticks {
    uint64_t n, done, total;
    bool stop;
} ticks;

static bool count_tick(void *user, uint64_t done, uint64_t total)
{
    ticks *t = user;
    assert_true(done > t->done && done <= total);
    t->n++;
    t->done = done;
    t->total = total;
    return !t->stop;
}

static void test_copy_all(void **state)
{
    (void)state;
    const size_t len = (PAGES - 1) * page + 5;
    ticks t = {0};
    file_map map = map_known(len);
    const uint8_t *const at = map.data;
    assert_ok(file_map_copy(&map, path, &all, threads, count_tick, &t, &err), &err);
    assert_true(t.n > 0 && t.done == len && t.total == len);
    assert_ptr_equal(map.data, at);
    spoil(len);
    file_map_release(&map, map.data, map.len); /* a copy stays */
    assert_known(&map, 0, len);
    file_map_close(&map);
}

/* Of PAGES pages, which are left. */
static void check_left(const file_map *map, const bool left[PAGES])
{
    for (size_t i = 0; i < PAGES; i++) {
        const size_t begin = i * page, end = begin + page < map->len ? begin + page : map->len;
        if (!left[i])
            assert_known(map, begin, end);
        else
            for (size_t k = begin; k < end; k++) assert_int_equal(map->data[k], (uint8_t)~byte_of(k));
    }
}

/* `within`: the pages that lie wholly within one of two ranges; only these or all but these are copied. */
static void check_pick(size_t begin, size_t end, size_t begin2, size_t end2, const bool within[PAGES], bool only)
{
    const size_t len = PAGES * page - 9;
    static const uint8_t elsewhere[8];
    size_t copied = only ? 0 : len;
    bool left[PAGES];
    ticks t = {0};
    file_map map = map_known(len);
    const file_bytes ranges[] = {
        {elsewhere, sizeof elsewhere}, {map.data + begin, end - begin}, {map.data + begin2, end2 - begin2}};
    const bool below = (uintptr_t)elsewhere < (uintptr_t)map.data; /* ranges ascend */
    const file_pick pick = {ranges + !below, 2 + below, only};
    for (size_t i = 0; i < PAGES; i++) {
        left[i] = within[i] != only;
        if (within[i]) copied += only ? page : -page;
    }
    assert_ok(file_map_copy(&map, path, &pick, threads, count_tick, &t, &err), &err);
    assert_int_equal(t.done, copied);
    assert_int_equal(t.total, copied);
    assert_known(&map, 0, len);
    for (size_t i = 0; i < PAGES; i++) file_map_release(&map, map.data + i * page, page);
    assert_known(&map, 0, len);
    spoil(len);
    check_left(&map, left);
    file_map_close(&map);
}

static void check_copy(size_t begin, size_t end, size_t begin2, size_t end2, const bool within[PAGES])
{
    check_pick(begin, end, begin2, end2, within, false);
    check_pick(begin, end, begin2, end2, within, true);
}

static void test_pick_whole_pages(void **state)
{
    (void)state;
    const size_t end = PAGES * page - 9;
    check_copy(page, 2 * page, 3 * page, 5 * page, (bool[PAGES]){0, 1, 0, 1, 1, 0});
    check_copy(page - 1, 2 * page + 1, 3 * page + 1, 5 * page - 1, (bool[PAGES]){0, 1});
    check_copy(0, 1, 2, page, (bool[PAGES]){0});
    check_copy(0, page + 9, page + 9, 3 * page, (bool[PAGES]){1, 0, 1}); /* they meet within a page */
    check_copy(0, page, page, end, (bool[PAGES]){1, 1, 1, 1, 1, 0});     /* the last one ends within a page */
}

/* Copying goes on where it was interrupted, and a second time finds the same bytes. */
static void test_copy_again(void **state)
{
    (void)state;
    const size_t len = PAGES * page;
    ticks t = {.stop = true};
    file_map map = map_known(len);
    const file_bytes leave = {map.data + 2 * page, page};
    assert_int_equal(file_map_copy(&map, path, &(file_pick){&leave, 1, false}, threads, count_tick, &t, &err),
                     MP_E_INTERRUPTED);
    assert_known(&map, 0, len);
    assert_ok(file_map_copy(&map, path, &(file_pick){&leave, 1, false}, threads, NULL, NULL, &err), &err);
    assert_ok(file_map_copy(&map, path, &all, threads, NULL, NULL, &err), &err);
    assert_known(&map, 0, len);
    spoil(len);
    assert_known(&map, 0, len);
    file_map_close(&map);
}

/* More than a huge page, wherever the mapping begins among them. */
static void test_copy_large(void **state)
{
    (void)state;
    const size_t len = ((size_t)5 << 20) + 3;
    file_map map = map_known(len);
    const file_bytes leave = {map.data + ((size_t)3 << 20), page};
    assert_ok(file_map_copy(&map, path, &(file_pick){&leave, 1, false}, threads, NULL, NULL, &err), &err);
    assert_int_equal(truncate(path, 0), 0);
    assert_known(&map, 0, (size_t)3 << 20);
    assert_known(&map, ((size_t)3 << 20) + page, len);
    file_map_close(&map);
}

static void test_changed(void **state)
{
    (void)state;
    file_map map = map_known(PAGES * page);
    assert_int_equal(truncate(path, (off_t)(2 * page)), 0);
    assert_false(file_has_stamp(map.fd, &map.stamp));
    assert_refused(file_map_copy(&map, path, &all, threads, NULL, NULL, &err), "it was cut");
    assert_known(&map, 0, 2 * page);
    file_map_close(&map);
    map = map_known(PAGES * page);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(file_map_copy(&map, path, &all, threads, NULL, NULL, &err), MP_E_CHANGED);
    assert_non_null(strstr(err.message, "changed since it was opened"));
    file_map_close(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),       cmocka_unit_test(test_copy_all),   cmocka_unit_test(test_pick_whole_pages),
        cmocka_unit_test(test_copy_again), cmocka_unit_test(test_copy_large), cmocka_unit_test(test_changed),
    };
    const int alone = cmocka_run_group_tests_name("one thread", tests, make_folder, remove_folder);
    return alone + cmocka_run_group_tests_name("threads", tests, make_folder_and_threads, remove_folder);
}
