/* Files, errors, hashes and random numbers. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"

static char folder[64];
static mp_error err;

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_base.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command); /* NOLINT(cert-env33-c): a name of our own */
}

static const char *in_folder(const char *name)
{
    static char path[4][256]; /* the last four answers stay */
    static unsigned turn;
    char *out = path[turn++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static int files_in_folder(void)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void assert_ok(mp_status status)
{
    if (status != MP_OK) fail_msg("%s", err.message);
}

static void assert_fails(mp_status status, mp_status expected, const char *part)
{
    assert_int_equal(status, expected);
    assert_int_equal(err.status, expected);
    if (!strstr(err.message, part)) fail_msg("'%s' is not in '%s'", part, err.message);
}

static void put_file(const char *name, const void *data, size_t len)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void assert_content(const char *name, const void *expected, size_t len)
{
    char *data;
    size_t n;
    assert_ok(file_read(in_folder(name), &data, &n, &err));
    assert_int_equal(n, len);
    assert_memory_equal(data, expected, len);
    assert_int_equal(data[n], 0);
    free(data);
}

static file_atomic *begin(const char *name, bool replace)
{
    file_atomic *file;
    assert_ok(file_atomic_open(in_folder(name), replace, &file, &err));
    return file;
}

/* ---- whole files ---- */

static void test_read(void **state)
{
    (void)state;
    char *data;
    size_t len;
    put_file("some", "a\0b", 3);
    assert_content("some", "a\0b", 3);
    put_file("empty", "", 0);
    assert_content("empty", "", 0);
    char *large = malloc(100000);
    assert_non_null(large);
    memset(large, 'x', 100000);
    put_file("large", large, 100000);
    assert_content("large", large, 100000);
    free(large);
    assert_ok(file_read("/proc/self/status", &data, &len, &err)); /* of which stat() says size 0 */
    assert_true(len > 100 && strlen(data) == len);
    free(data);
    assert_fails(file_read(in_folder("none"), &data, &len, &err), MP_E_IO, "none: No such file");
    assert_null(data);
    assert_fails(file_read(folder, &data, &len, &err), MP_E_IO, "directory");
}

/* ---- atomic files ---- */

static void test_commit(void **state)
{
    (void)state;
    mode_t mask = umask(027);
    file_atomic *file = begin("out", false);
    assert_ok(file_atomic_write(file, "hello", 5, &err));
    assert_ok(file_atomic_write(file, "", 0, &err));
    assert_int_equal(file_atomic_size(file), 5);
    assert_int_not_equal(access(in_folder("out"), F_OK), 0);
    char expected[300];
    snprintf(expected, sizeof expected, "%s.tmp-%ld", in_folder("out"), (long)getpid());
    assert_string_equal(file_atomic_path(file), expected);
    assert_ok(file_atomic_flush(file, &err));
    char *data;
    size_t len;
    assert_ok(file_read(file_atomic_path(file), &data, &len, &err));
    assert_int_equal(len, 5);
    free(data);
    assert_ok(file_atomic_write_at(file, 1, "EL", 2, &err));
    assert_ok(file_atomic_write(file, "!", 1, &err));
    assert_fails(file_atomic_write_at(file, 5, "xy", 2, &err), MP_E_INVALID, "past the end");
    assert_fails(file_atomic_write_at(file, UINT64_MAX, "xy", 2, &err), MP_E_INVALID, "past the end");
    assert_ok(file_atomic_commit(file, &err));
    umask(mask);
    assert_content("out", "hELlo!", 6);
    struct stat st;
    assert_int_equal(stat(in_folder("out"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(files_in_folder(), 1);
}

/* Pieces around the size of the buffer. */
static void test_large(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 262143, 1, 262144, 5, 262139, 700001, 3, 262142, 0, 100};
    size_t total = 0, at = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) total += pieces[i];
    uint8_t *data = malloc(total);
    assert_non_null(data);
    for (size_t i = 0; i < total; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    file_atomic *file = begin("large", false);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; at += pieces[i++]) {
        assert_ok(file_atomic_write(file, data + at, pieces[i], &err));
        data[at / 2] ^= 1;
        assert_int_equal(file_atomic_size(file), at + pieces[i]);
        assert_ok(file_atomic_write_at(file, at / 2, data + at / 2, 1, &err));
    }
    assert_ok(file_atomic_commit(file, &err));
    assert_content("large", data, total);
    free(data);
}

static void test_exists(void **state)
{
    (void)state;
    file_atomic *file;
    put_file("out", "old", 3);
    assert_fails(file_atomic_open(in_folder("out"), false, &file, &err), MP_E_EXISTS, "--force");
    assert_null(file);
    file = begin("out", true);
    assert_ok(file_atomic_write(file, "new", 3, &err));
    assert_content("out", "old", 3);
    assert_ok(file_atomic_commit(file, &err));
    assert_content("out", "new", 3);
    file = begin("late", false); /* somebody else makes it meanwhile */
    put_file("late", "theirs", 6);
    assert_fails(file_atomic_commit(file, &err), MP_E_EXISTS, "--force");
    assert_content("late", "theirs", 6);
    assert_int_equal(files_in_folder(), 2);
}

static void test_abort(void **state)
{
    (void)state;
    put_file("out", "old", 3);
    file_atomic *file = begin("out", true);
    assert_ok(file_atomic_write(file, "new", 3, &err));
    assert_int_equal(files_in_folder(), 2);
    file_atomic_abort(file);
    file_atomic_abort(NULL);
    assert_int_equal(files_in_folder(), 1);
    assert_content("out", "old", 3);
}

static void test_bad_targets(void **state)
{
    (void)state;
    file_atomic *file;
    assert_fails(file_atomic_open("", true, &file, &err), MP_E_INVALID, "empty");
    assert_fails(file_atomic_open(folder, true, &file, &err), MP_E_EXISTS, "directory");
    assert_fails(file_atomic_open("/dev/null", true, &file, &err), MP_E_EXISTS, "not a regular file");
    assert_fails(file_atomic_open(in_folder("no/out"), true, &file, &err), MP_E_IO, "its directory does not exist");
    put_file("file", "", 0);
    assert_fails(file_atomic_open(in_folder("file/out"), true, &file, &err), MP_E_IO, "Not a directory");
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_fails(file_atomic_open(name, true, &file, &err), MP_E_IO, "too long");
    assert_int_equal(files_in_folder(), 1);
}

/* In a child that is not root, who may write everywhere. */
static void test_no_permission(void **state)
{
    (void)state;
    assert_int_equal(chmod(folder, 0555), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        file_atomic *file;
        if (geteuid() == 0 && setuid(65534) != 0) _exit(2);
        mp_status status = file_atomic_open(in_folder("out"), false, &file, &err);
        _exit(status == MP_E_IO && strstr(err.message, "out: Permission denied; check the permissions") ? 7 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* A limit on file sizes makes write() fail as a full disk does. */
static void test_disk_full(void **state)
{
    (void)state;
    static char data[400000];
    struct rlimit old, small;
    put_file("out", "old", 3);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    small = old;
    small.rlim_cur = 300000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    file_atomic *file = begin("out", true);
    mp_status small_write = file_atomic_write(file, data, 1000, &err);  /* buffered */
    mp_status write = file_atomic_write(file, data, sizeof data, &err); /* the first part fits */
    mp_error write_err = err;
    mp_status again = file_atomic_write(file, data, 1, &err);
    mp_status commit = file_atomic_commit(file, &err);
    file = begin("out", true);
    mp_status first = file_atomic_write(file, data, 250000, &err), second = file_atomic_write(file, data, 100000, &err);
    mp_status late = file_atomic_commit(file, &err); /* what fails is the last flush */
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_ok(small_write);
    assert_int_equal(write, MP_E_IO);
    assert_non_null(strstr(write_err.message, "cannot write"));
    assert_int_equal(again, MP_E_IO);
    assert_int_equal(commit, MP_E_IO);
    assert_ok(first);
    assert_ok(second);
    assert_int_equal(late, MP_E_IO);
    assert_int_equal(files_in_folder(), 1);
    assert_content("out", "old", 3);
}

static void test_unlink_all(void **state)
{
    (void)state;
    file_atomic *files[16], *more;
    char name[16];
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof name, "out%d", i);
        files[i] = begin(name, false);
    }
    assert_fails(file_atomic_open(in_folder("one-more"), false, &more, &err), MP_E_LIMIT, "16 files");
    file_atomic_abort(files[3]);
    assert_int_equal(files_in_folder(), 15);
    file_atomic_unlink_all();
    assert_int_equal(files_in_folder(), 0);
    for (int i = 0; i < 16; i++)
        if (i != 3) file_atomic_abort(files[i]);
    file_atomic_unlink_all();
    file_atomic_abort(begin("again", false)); /* the table is free again */
}

static void unlink_and_exit(int sig)
{
    (void)sig;
    file_atomic_unlink_all();
    _exit(7);
}

static void test_unlink_in_handler(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGTERM, unlink_and_exit);
        file_atomic *file;
        if (file_atomic_open(in_folder("out"), false, &file, &err) == MP_OK) raise(SIGTERM);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    assert_int_equal(files_in_folder(), 0);
}

static void test_abandoned(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof name, "out.tmp-%ld", (long)getpid());
    put_file(name, "left by a dead process of this number", 37);
    file_atomic *file = begin("out", false), *second;
    assert_fails(file_atomic_open(in_folder("out"), false, &second, &err), MP_E_EXISTS, "being written already");
    assert_ok(file_atomic_write(file, "new", 3, &err));
    assert_ok(file_atomic_commit(file, &err));
    assert_content("out", "new", 3);
    assert_int_equal(files_in_folder(), 1);
}

static void test_relative_name(void **state)
{
    (void)state;
    char before[4096];
    file_atomic *file;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    mp_status opened = file_atomic_open("plain", false, &file, &err);
    mp_status committed = opened == MP_OK ? file_atomic_commit(file, &err) : opened;
    assert_int_equal(chdir(before), 0);
    assert_ok(committed);
    assert_content("plain", "", 0);
}

/* ---- small things ---- */

static void test_sha256(void **state)
{
    (void)state;
    char hex[65];
    sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_status(void **state)
{
    (void)state;
    mp_error e;
    assert_int_equal(status_fail(&e, MP_E_FORMAT, "%s: %d", "a\nb\x7f", 7), MP_E_FORMAT);
    assert_int_equal(e.status, MP_E_FORMAT);
    assert_string_equal(e.message, "a?b?: 7");
    assert_int_equal(status_fail(NULL, MP_E_IO, "unheard"), MP_E_IO);
    assert_int_equal(status_prefix(&e, MP_E_IO, "while"), MP_E_IO);
    assert_string_equal(e.message, "while: a?b?: 7");
    status_fail_errno(&e, ENOSPC, "write", "f");
    assert_non_null(strstr(e.message, "free some space"));
    status_fail(&e, MP_E_IO, "%2000s", "");
    assert_int_equal(strlen(e.message), MP_ERROR_MAX - 1);
    assert_string_equal(mp_status_text(MP_E_EXISTS), "already exists");
    assert_string_equal(mp_status_text((mp_status)99), "unknown status");
}

static void test_rng(void **state)
{
    (void)state;
    rng a, b, c;
    rng_init(&a, 5);
    rng_init(&b, 5);
    rng_init_stream(&c, 5, 1);
    int same = 0, counts[3] = {0};
    double sum = 0, squares = 0, uniform = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t x = rng_u64(&a);
        assert_true(x == rng_u64(&b));
        same += x == rng_u64(&c);
        counts[rng_below(&a, 3)]++;
        double normal = rng_normal(&a), u = rng_uniform(&a);
        assert_true(u >= 0 && u < 1);
        uniform += u;
        sum += normal;
        squares += normal * normal;
        b = a;
    }
    assert_int_equal(same, 0);
    for (int i = 0; i < 3; i++) assert_in_range(counts[i], 9700, 10300);
    assert_true(uniform > 14800 && uniform < 15200);
    assert_true(sum > -700 && sum < 700);
    assert_true(squares > 29000 && squares < 31000);
}

static void test_clock(void **state)
{
    (void)state;
    uint64_t wall = clock_now_ns(), cpu = clock_thread_cpu_ns();
    usleep(20000);
    assert_true(clock_now_ns() - wall >= 20000000);
    assert_true(clock_thread_cpu_ns() - cpu < 20000000); /* sleeping costs none */
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_read),          IN_FOLDER(test_commit),
        IN_FOLDER(test_large),         IN_FOLDER(test_exists),
        IN_FOLDER(test_abort),         IN_FOLDER(test_bad_targets),
        IN_FOLDER(test_no_permission), IN_FOLDER(test_disk_full),
        IN_FOLDER(test_unlink_all),    IN_FOLDER(test_unlink_in_handler),
        IN_FOLDER(test_abandoned),     IN_FOLDER(test_relative_name),
        cmocka_unit_test(test_sha256), cmocka_unit_test(test_status),
        cmocka_unit_test(test_rng),    cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
