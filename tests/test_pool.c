/* The thread pool, and how many threads it takes by default. Runs under the thread sanitizer too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpus.h"
#include "base/memory.h"
#include "base/pool.h"

static pool *new_pool(unsigned threads)
{
    mp_error err = {0};
    pool *p;
    if (pool_new(threads, &p, &err) != MP_OK) fail_msg("%s", err.message);
    assert_int_equal(pool_threads(p), threads);
    return p;
}

typedef struct job {
    unsigned threads;
    atomic_uint bad_thread;
    uint32_t runs[3000]; /* plain: an item belongs to one thread, and the caller reads after the job */
    uint64_t result[3000];
} job;

static uint64_t mix(uint64_t x)
{
    for (int i = 0; i < 5; i++) x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
    return x;
}

static void count_item(void *arg, size_t item, unsigned thread)
{
    job *j = arg;
    if (thread >= j->threads) atomic_fetch_add(&j->bad_thread, 1);
    j->runs[item]++;
    j->result[item] += mix(item);
}

static void test_each_item_once(void **state)
{
    (void)state;
    static const unsigned threads[] = {1, 2, 3, 8, 33};
    static const size_t counts[] = {0, 1, 2, 3, 7, 64, 3000};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        pool *p = new_pool(threads[t]);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            job *j = calloc(1, sizeof *j);
            assert_non_null(j);
            j->threads = threads[t];
            for (int again = 0; again < 3; again++) pool_for(p, counts[c], count_item, j);
            for (size_t i = 0; i < 3000; i++) {
                assert_int_equal(j->runs[i], i < counts[c] ? 3 : 0);
                assert_true(j->result[i] == (i < counts[c] ? 3 * mix(i) : 0));
            }
            assert_int_equal(atomic_load(&j->bad_thread), 0);
            free(j);
        }
        pool_free(p);
    }
}

/* Jobs shorter than a wake, some of them after the workers went to sleep. */
static void test_tiny_jobs(void **state)
{
    (void)state;
    static const unsigned threads[] = {1, 2, 4};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        pool *p = new_pool(threads[t]);
        job *j = calloc(1, sizeof *j);
        assert_non_null(j);
        j->threads = threads[t];
        for (int i = 0; i < 10000; i++) {
            pool_for(p, 5, count_item, j);
            if (i % 1000 == 0) usleep(300);
        }
        for (size_t i = 0; i < 5; i++) assert_int_equal(j->runs[i], 10000);
        free(j);
        pool_free(p);
    }
}

static void slow_item(void *arg, size_t item, unsigned thread)
{
    (void)thread;
    uint32_t *done = arg;
    if (item % 3 == 0) usleep(2000); /* long enough for whoever waits to fall asleep */
    done[item] = 1;
}

static void test_slow_items(void **state)
{
    (void)state;
    pool *p = new_pool(4);
    for (int round = 0; round < 10; round++) {
        uint32_t done[7] = {0};
        pool_for(p, 7, slow_item, done);
        for (int i = 0; i < 7; i++) assert_int_equal(done[i], 1);
    }
    pool_free(p);
}

typedef struct meeting {
    atomic_uint arrived;
    atomic_uint threads; /* a bit each */
} meeting;

static void meet(void *arg, size_t item, unsigned thread)
{
    (void)item;
    meeting *m = arg;
    atomic_fetch_or(&m->threads, 1u << thread);
    atomic_fetch_add(&m->arrived, 1);
    while (atomic_load(&m->arrived) < 3) usleep(50); /* only three threads at once get past this */
}

/* Sleeping workers are woken, and every thread is used. */
static void test_all_threads_work(void **state)
{
    (void)state;
    pool *p = new_pool(3);
    for (int round = 0; round < 20; round++) {
        meeting m = {0};
        usleep(200);
        pool_for(p, 3, meet, &m);
        assert_int_equal(atomic_load(&m.threads), 7);
    }
    pool_free(p);
}

static void test_new_and_free(void **state)
{
    (void)state;
    mp_error err = {0};
    pool *p;
    pool_free(NULL);
    for (int i = 0; i < 50; i++) pool_free(new_pool(1 + (unsigned)i % 5));
    assert_int_equal(pool_new(0, &p, &err), MP_OK);
    assert_int_equal(pool_threads(p), pool_default_threads());
    pool_free(p);
    assert_int_equal(pool_new(1u << 20, &p, &err), MP_E_INVALID);
    assert_null(p);
    assert_non_null(strstr(err.message, "1048576 threads"));
}

static void test_affinity(void **state)
{
    (void)state;
    cpus_mask all = cpus_affinity();
    assert_non_null(all.set);
    assert_in_range(pool_default_threads(), 1, cpus_logical(&all));
    int cpu = 0;
    while (!CPU_ISSET_S(cpu, all.bytes, all.set)) cpu++;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(pool_default_threads(), 1);
    pool *p = new_pool(4); /* four threads on one CPU */
    job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->threads = 4;
    for (int i = 0; i < 300; i++) pool_for(p, 50, count_item, j);
    for (size_t i = 0; i < 50; i++) assert_int_equal(j->runs[i], 300);
    free(j);
    pool_free(p);
    assert_int_equal(sched_setaffinity(0, all.bytes, all.set), 0);
    cpus_clear(&all);
}

/* ---- a made-up /sys and /proc ---- */

static char root[64];

static void put_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(path, 0777);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_pool.XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command); /* NOLINT(cert-env33-c): a name of our own */
}

static void test_pin(void **state)
{
    (void)state;
    const unsigned cores = pool_default_threads();
    mp_error err;
    pool *p;
    assert_int_equal(pool_new(cores, &p, &err), MP_OK);
    assert_int_equal(pool_pin(p), cores - 1);
    job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->threads = cores;
    pool_for(p, 1000, count_item, j);
    for (size_t i = 0; i < 1000; i++) assert_int_equal(j->runs[i], 1);
    assert_int_equal(atomic_load(&j->bad_thread), 0);
    free(j);
    pool_free(p);
    assert_int_equal(pool_new(cores + 1, &p, &err), MP_OK); /* more than there are cores: left alone */
    assert_int_equal(pool_pin(p), 0);
    pool_free(p);
}

static void test_cores(void **state)
{
    (void)state;
    static const char *const siblings[] = {"0,4", "1,5", "2-3", "2-3", "0,4", "1,5"};
    cpus_mask mask = {.set = CPU_ALLOC(64), .bytes = CPU_ALLOC_SIZE(64)};
    CPU_ZERO_S(mask.bytes, mask.set);
    for (int cpu = 0; cpu < 6; cpu++) {
        char name[128];
        snprintf(name, sizeof name, "sys/devices/system/cpu/cpu%d/topology/%s", cpu,
                 cpu < 3 ? "core_cpus_list" : "thread_siblings_list");
        put_file(name, siblings[cpu]);
        CPU_SET_S((size_t)cpu, mask.bytes, mask.set);
    }
    assert_int_equal(cpus_cores(root, &mask), 3);
    assert_int_equal(cpus_logical(&mask), 6);
    unsigned cpu;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(cpus_core(root, &mask, i, &cpu));
        assert_true(CPU_ISSET_S(cpu, mask.bytes, mask.set));
    }
    assert_false(cpus_core(root, &mask, 3, &cpu));
    CPU_CLR_S(0, mask.bytes, mask.set); /* its sibling 4 still stands for the core */
    CPU_CLR_S(1, mask.bytes, mask.set);
    CPU_CLR_S(5, mask.bytes, mask.set);
    assert_int_equal(cpus_cores(root, &mask), 2);
    CPU_SET_S(9, mask.bytes, mask.set); /* nothing known of it: a core of its own */
    assert_int_equal(cpus_cores(root, &mask), 3);
    cpus_clear(&mask);
}

static void test_quota_v2(void **state)
{
    (void)state;
    assert_int_equal(cpus_quota(root), 0);
    put_file("proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(cpus_quota(root), 0);
    put_file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota(root), 0);
    put_file("sys/fs/cgroup/a/cpu.max", "350000 100000\n"); /* of an ancestor, rounded down */
    assert_int_equal(cpus_quota(root), 3);
    put_file("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    assert_int_equal(cpus_quota(root), 1);
    put_file("proc/self/cgroup", "0::/of/the/host\n"); /* seen from inside a container */
    put_file("sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(cpus_quota(root), 2);
    put_file("proc/self/cgroup", "nonsense\n0:\n::\n");
    put_file("sys/fs/cgroup/cpu.max", "-5 0\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void test_quota_v1(void **state)
{
    (void)state;
    put_file("proc/self/cgroup", "4:memory:/x\n3:cpuset:/y\n2:cpu,cpuacct:/job\n1:name=systemd:/\n");
    put_file("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    put_file("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 0);
    put_file("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n");
    assert_int_equal(cpus_quota(root), 4);
    put_file("proc/self/cgroup", "2:cpu:/job\n"); /* its mount has the plain name */
    put_file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    put_file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n");
    assert_int_equal(cpus_quota(root), 5);
}

static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(memory_available(root), 0); /* nothing is known */
    put_file("proc/meminfo", "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   4000 kB\n");
    put_file("proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(memory_available(root), 4000 * 1024);
    put_file("sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_int_equal(memory_available(root), 4000 * 1024);
    put_file("sys/fs/cgroup/a/memory.max", "3000000\n"); /* of an ancestor; pages of files can go */
    put_file("sys/fs/cgroup/a/memory.current", "2500000\n");
    put_file("sys/fs/cgroup/a/memory.stat", "anon 1500000\ninactive_file 600000\nactive_file 400000\n");
    assert_int_equal(memory_available(root), 1500000);
    put_file("sys/fs/cgroup/a/memory.current", "9000000\n"); /* full: hardly anything, but known */
    assert_int_equal(memory_available(root), 1);
    put_file("sys/fs/cgroup/a/memory.high", "max\n");
    assert_int_equal(memory_available(root), 1);
    put_file("sys/fs/cgroup/a/memory.max", "max\n");
    assert_int_equal(memory_available(root), 4000 * 1024);
    put_file("sys/fs/cgroup/a/memory.current", "1200000\n");
    put_file("sys/fs/cgroup/a/memory.high", "2000000\n"); /* where the group is slowed counts as its limit */
    assert_int_equal(memory_available(root), 1800000);
    put_file("sys/fs/cgroup/a/memory.max", "1900000\n");
    assert_int_equal(memory_available(root), 1700000);
    put_file("proc/self/cgroup", "4:memory:/job\n");
    put_file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n"); /* no limit, as v1 says it */
    assert_int_equal(memory_available(root), 4000 * 1024);
    put_file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000\n");
    put_file("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000000\n");
    put_file("sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 250000\ntotal_active_file 0\n");
    assert_int_equal(memory_available(root), 1250000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_item_once),
        cmocka_unit_test(test_tiny_jobs),
        cmocka_unit_test(test_slow_items),
        cmocka_unit_test(test_all_threads_work),
        cmocka_unit_test(test_new_and_free),
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_pin),
        cmocka_unit_test(test_pin),
        cmocka_unit_test_setup_teardown(test_cores, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_quota_v2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_quota_v1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_memory, make_root, remove_root),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
