/* The store on real files, by both real backends: the same bytes whatever the file looks like and wherever it lies, the
 * memory that this takes as seen from outside, and what happens where the system refuses io_uring or direct reads. */
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/wait.h>

#include "base/rng.h"
#include "refusal.h"
#include "store_testing.h"

/* Opens the store on the backend; false where this system does not have it. */
static bool open_on(rig *r, const char *backend, uint32_t slots)
{
    r->params.io = NULL;
    r->params.backend = backend;
    const mp_status status = rig_try(r, slots, 1);
    if (status == MP_E_UNSUPPORTED && strcmp(backend, "io_uring") == 0) return false;
    assert_ok(status, &r->err);
    assert_string_equal(store_backend(r->s), backend);
    return true;
}

static void close_store(rig *r)
{
    store_close(r->s);
    r->s = NULL;
}

/* Every unit, in random claims, several times through few slots. */
static void read_all(rig *r)
{
    const uint32_t n_units = r->shape.n_layers * r->shape.n_subs, most = store_slots(r->s);
    rng random;
    rng_init(&random, 1);
    for (int round = 0; round < 30; round++) {
        uint32_t units[RIG_MAX], n = 0;
        const uint32_t start = (uint32_t)rng_below(&random, n_units), step = 1 + (uint32_t)rng_below(&random, 5);
        for (uint32_t i = 0; i < most && i * step < n_units; i++) units[n++] = (start + i * step) % n_units;
        rig_read(r, units, n);
    }
}

/* `second`: where a second file is that has half of the parts, NULL: none. */
static void check_files(const char *folder, const char *second, uint32_t parts, uint64_t bytes, uint64_t offset)
{
    static const uint32_t depths[] = {1, 3, 0, 200};
    rig r;
    rig_init(&r, folder, 2, 24, parts, bytes, offset);
    if (second) rig_split(&r, second);
    for (size_t b = 0; io_at(b); b++) {
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            r.params.depth = depths[d];
            if (!open_on(&r, io_at(b)->name, 7)) break;
            read_all(&r);
            close_store(&r);
        }
    }
    rig_clear(&r);
}

/* Parts of whole blocks; of odd sizes at odd places, as other programs write them; of one byte; larger than a huge
 * page's share. The file ends in the middle of a block. */
static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const folders[] = {"/tmp", "/dev/shm"};
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        if (access(folders[f], W_OK) != 0) continue;
        check_files(folders[f], NULL, 2, 8192, 4096);
        check_files(folders[f], NULL, 3, 4096 + 32, 32);
        check_files(folders[f], NULL, 1, 1, 4095);
        check_files(folders[f], NULL, 2, 35000, 77); /* directly, where the file system lets */
        check_files(folders[f], NULL, 2, 5000, 77);  /* where blocks would hold little else: through the page cache */
        check_files(folders[f], NULL, 1, 70000, 0);
    }
}

/* What ends in one file and begins in the other at the same place is not joined; one file may allow direct reads and
 * the other not. */
static void test_two_files(void **state)
{
    (void)state;
    check_files("/tmp", "/tmp", 2, 8192, 4096);
    check_files("/tmp", "/tmp", 2, 35000, 77);
    if (access("/dev/shm", W_OK) != 0) return;
    check_files("/tmp", "/dev/shm", 2, 8192, 4096);
    check_files("/dev/shm", "/tmp", 2, 8192, 4096);
}

/* Without locked memory nothing can be registered; io_uring reads all the same, or leaves it to the threads. */
static void test_no_locked_memory(void **state)
{
    (void)state;
    struct rlimit old;
    rig r;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = old.rlim_max};
    rig_init(&r, "/tmp", 2, 24, 2, 35000, 77);
    r.params.io = NULL;
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    const mp_status status = rig_try(&r, 7, 1);
    setrlimit(RLIMIT_MEMLOCK, &old);
    assert_ok(status, &r.err);
    read_all(&r);
    rig_clear(&r);
}

/* ---- memory, from outside ---- */

enum { CAP = 24 << 20, TABLES = 8 << 20, READERS_UNITS = 2048, READERS_PART = 16384 };

/* In a process of its own: says 'b' before the store is opened and 'e' when all was read three times, and goes on when
 * it hears a byte. */
static void reader_process(rig *r, int to, int from)
{
    char byte = 'b';
    bool good = write(to, &byte, 1) == 1 && read(from, &byte, 1) == 1;
    r->params.memory = CAP;
    good = good && store_open(&r->shape, &r->params, 64, &r->s, r->notice, &r->err) == MP_OK;
    big_claim b;
    store_claim *c = claim_init(&b);
    for (uint32_t i = 0; good && i < 3 * READERS_UNITS; i += 64) {
        uint32_t units[64];
        for (uint32_t k = 0; k < 64; k++) units[k] = (i + k) % READERS_UNITS;
        good = store_claim_begin(r->s, c, units, 64, true) == 64 && store_claim_wait(r->s, c, 64, 0, &r->err) == MP_OK;
        for (uint32_t k = 0; good && k < 64; k++)
            good = part_is_right(&r->shape, units[k], 1, store_data(r->s, c, k, 1));
        store_claim_end(r->s, c);
    }
    byte = 'e';
    good = good && write(to, &byte, 1) == 1 && read(from, &byte, 1) == 1;
    _exit(good ? 0 : 1);
}

static size_t resident_bytes(pid_t pid)
{
    char path[64];
    size_t all = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%zu %zu", &all, &resident), 2);
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Watches another process read 64 MiB three times under a cap of 24. */
static void check_resident(const char *backend)
{
    rig r;
    int to[2], from[2], status;
    char byte = 0;
    rig_init(&r, "/tmp", 2, READERS_UNITS / 2, 2, READERS_PART, 0);
    r.params.io = NULL;
    r.params.backend = backend;
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    assert_int_equal(fcntl(from[0], F_SETFL, O_NONBLOCK), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) reader_process(&r, from[1], to[0]);
    while (read(from[0], &byte, 1) != 1) usleep(1000);
    assert_int_equal(byte, 'b');
    const size_t before = resident_bytes(pid);
    size_t most = 0;
    assert_int_equal(write(to[1], &byte, 1), 1);
    for (bool ended = false; !ended; usleep(500)) {
        ended = read(from[0], &byte, 1) == 1 || waitpid(pid, &status, WNOHANG) == pid;
        const size_t now = resident_bytes(pid);
        most = now > most ? now : most;
    }
    assert_int_equal(byte, 'e');
    assert_int_equal(write(to[1], &byte, 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* It did fill the cap, and stayed in it. A sanitizer keeps notes, on memory and for threads. */
    const size_t notes = getenv("SANITIZE") ? (CAP + TABLES) / 8 : 0;
    assert_in_range(most - before, CAP / 2, CAP + TABLES + notes);
    for (int i = 0; i < 2; i++) close(to[i]);
    for (int i = 0; i < 2; i++) close(from[i]);
    rig_clear(&r);
}

static void test_resident_set(void **state)
{
    (void)state;
    for (size_t i = 0; io_at(i); i++) {
        rig r;
        rig_init(&r, "/tmp", 1, 8, 1, 4096, 0);
        const bool here = open_on(&r, io_at(i)->name, 4);
        rig_clear(&r);
        if (here) check_resident(io_at(i)->name);
    }
}

/* ---- where the system refuses ---- */

typedef struct attempt {
    rig r;
    refusal refused;
    bool filtered;
    mp_status status;
    uint32_t wrong;
} attempt;

/* Opens a store and reads everything; another thread judges, so nothing is asserted here. */
static void *attempt_main(void *arg)
{
    attempt *a = arg;
    a->filtered = refusal_install(&a->refused);
    if (!a->filtered) return NULL;
    a->status = rig_try(&a->r, 7, 1);
    if (a->status != MP_OK) return NULL;
    big_claim b;
    store_claim *c = claim_init(&b);
    for (uint32_t unit = 0; unit < a->r.shape.n_layers * a->r.shape.n_subs; unit++) {
        store_claim_begin(a->r.s, c, &unit, 1, true);
        if (store_claim_wait(a->r.s, c, 0, 0, &a->r.err) != MP_OK || !unit_is_right(a->r.s, &a->r.shape, c, 0, unit))
            a->wrong++;
        store_claim_end(a->r.s, c);
    }
    return NULL;
}

static void run_attempt(attempt *a, const char *backend, refusal refused)
{
    pthread_t thread;
    rig_init(&a->r, "/tmp", 2, 24, 2, 35000, 77);
    a->r.params.io = NULL;
    a->r.params.backend = backend;
    a->refused = refused;
    a->wrong = 0;
    assert_int_equal(pthread_create(&thread, NULL, attempt_main, a), 0);
    pthread_join(thread, NULL);
    assert_true(a->filtered);
    assert_int_equal(a->wrong, 0);
}

static void test_no_io_uring(void **state)
{
    (void)state;
    static const refusal ways[] = {
        {SYS_io_uring_setup, ENOSYS, 0}, {SYS_io_uring_setup, EPERM, 0}, {SYS_io_uring_enter, EPERM, 0}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        attempt a;
        run_attempt(&a, NULL, ways[i]);
        assert_ok(a.status, &a.r.err);
        assert_string_equal(store_backend(a.r.s), "threads");
        assert_non_null(strstr(a.r.notice, strerror(ways[i].error)));
        assert_non_null(strstr(a.r.notice, "reading with threads"));
        rig_clear(&a.r);
        run_attempt(&a, "io_uring", ways[i]); /* asked for by name it is not replaced */
        assert_int_equal(a.status, MP_E_UNSUPPORTED);
        assert_null(a.r.s);
        rig_clear(&a.r);
    }
}

/* Bytes of the file in the page cache. */
static size_t cached_bytes(int fd, size_t bytes)
{
    static unsigned char pages[4096];
    size_t cached = 0;
    assert_true(bytes <= sizeof pages * 4096);
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, bytes, pages), 0);
    for (size_t i = 0; i < (bytes + 4095) / 4096; i++) cached += pages[i] & 1 ? 4096 : 0;
    munmap(map, bytes);
    return cached;
}

static bool lies_in_memory(const char *path)
{
    struct statfs fs;
    assert_int_equal(statfs(path, &fs), 0);
    return fs.f_type == TMPFS_MAGIC;
}

/* Through the page cache then, and what was read does not stay there. */
static void test_no_direct_reads(void **state)
{
    (void)state;
    for (size_t i = 0; io_at(i); i++) {
        attempt a;
        run_attempt(&a, io_at(i)->name, (refusal){-1, 0, O_DIRECT});
        if (a.status != MP_E_UNSUPPORTED) {
            assert_ok(a.status, &a.r.err);
            assert_non_null(strstr(a.r.notice, "refuses direct reads"));
            const size_t bytes = 77 + 2 * 2 * 24 * 35000;
            fsync(a.r.fd); /* what was just written cannot leave before it is on the disk */
            posix_fadvise(a.r.fd, 0, 0, POSIX_FADV_DONTNEED);
            const uint32_t units[] = {0, 5, 9, 14, 30, 40, 47};
            rig_read(&a.r, units, 7);
            assert_in_range(store_get_stats(a.r.s).bytes_read, 7 * 10000, UINT64_MAX);
            if (!lies_in_memory(a.r.path)) assert_in_range(cached_bytes(a.r.fd, bytes), 0, 7 * 4096);
        }
        rig_clear(&a.r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),       cmocka_unit_test(test_two_files),
        cmocka_unit_test(test_no_locked_memory), cmocka_unit_test(test_resident_set),
        cmocka_unit_test(test_no_io_uring),      cmocka_unit_test(test_no_direct_reads),
    };
    return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
