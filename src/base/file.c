#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The size that stat() tells is a first guess: files of /proc and /sys, and pipes, tell nothing useful. */
static size_t first_capacity(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size < SIZE_MAX / 4)
        return (size_t)st.st_size + 2; /* the terminator, and a byte of room to see the end without growing */
    return 4096;
}

static mp_status grow(char **data, size_t *capacity, const char *path, mp_error *err)
{
    size_t larger;
    char *grown = size_mul(*capacity, 2, &larger) ? realloc(*data, larger) : NULL;
    if (!grown) return status_no_memory(err, *capacity, path);
    *data = grown;
    *capacity = larger;
    return MP_OK;
}

static mp_status read_to_end(int fd, const char *path, char **data, size_t *len, mp_error *err)
{
    size_t capacity = first_capacity(fd);
    *data = malloc(capacity);
    if (!*data) return status_no_memory(err, capacity, path);
    for (;;) {
        if (*len + 1 == capacity) MP_TRY(grow(data, &capacity, path, err));
        ssize_t n = read(fd, *data + *len, capacity - 1 - *len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return status_fail_errno(err, errno, "read", path);
        if (n == 0) break;
        *len += (size_t)n;
    }
    (*data)[*len] = 0;
    return MP_OK;
}

mp_status file_read(const char *path, char **data, size_t *len, mp_error *err)
{
    *data = NULL;
    *len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return status_fail_errno(err, errno, "open", path);
    mp_status status = read_to_end(fd, path, data, len, err);
    close(fd); /* read-only: nothing can be lost here */
    if (status != MP_OK) {
        free(*data);
        *data = NULL;
        *len = 0;
    }
    return status;
}

#define COPY_PIECE ((size_t)16 << 20)

static mp_status map_fd(const char *path, file_map *map, mp_error *err)
{
    struct stat st;
    if (fstat(map->fd, &st) != 0) return status_fail_errno(err, errno, "open", path);
    if (S_ISDIR(st.st_mode)) return status_fail(err, MP_E_IO, "cannot open %s: it is a directory; name a file", path);
    if (!S_ISREG(st.st_mode)) return status_fail(err, MP_E_IO, "cannot map %s: it is not a regular file", path);
    map->len = (size_t)st.st_size;
    if (map->len == 0) return MP_OK;
    void *data = mmap(NULL, map->len, PROT_READ, MAP_SHARED, map->fd, 0);
    if (data == MAP_FAILED) return status_fail_errno(err, errno, "map", path);
    map->data = data;
    return MP_OK;
}

mp_status file_map_open(const char *path, file_map *out, mp_error *err)
{
    *out = FILE_MAP_NONE;
    /* O_NONBLOCK: a pipe must be refused, not waited for */
    file_map map = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (map.fd < 0) return status_fail_errno(err, errno, "open", path);
    mp_status status = map_fd(path, &map, err);
    if (status != MP_OK) {
        close(map.fd);
        return status;
    }
    *out = map;
    return MP_OK;
}

void file_map_close(file_map *map)
{
    if (map->data) munmap((void *)map->data, map->len);
    if (map->fd >= 0) close(map->fd);
    *map = FILE_MAP_NONE;
}

static mp_status copy_in(const file_map *map, const char *path, uint8_t *to, file_tick_fn tick, void *user,
                         mp_error *err)
{
    for (size_t at = 0; at < map->len;) {
        const size_t left = map->len - at;
        const ssize_t n = pread(map->fd, to + at, left < COPY_PIECE ? left : COPY_PIECE, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return status_fail_errno(err, errno, "read", path);
        if (n == 0) return status_fail(err, MP_E_IO, "%s: ends after %zu of %zu bytes: it was cut", path, at, map->len);
        at += (size_t)n;
        if (tick && !tick(user, at, map->len)) return status_fail(err, MP_E_INTERRUPTED, "interrupted");
    }
    return MP_OK;
}

mp_status file_map_copy(file_map *map, const char *path, file_tick_fn tick, void *user, mp_error *err)
{
    void *const at = (void *)(uintptr_t)map->data;
    if (map->len == 0) return MP_OK;
    if (mmap(at, map->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return status_no_memory(err, map->len, path);
    map->in_memory = true;
    madvise(at, map->len, MADV_HUGEPAGE); /* advice: failing is harmless, here and below */
    MP_TRY(copy_in(map, path, at, tick, user, err));
    mprotect(at, map->len, PROT_READ);
    return MP_OK;
}

void file_map_release(const file_map *map, const void *at, size_t len)
{
    if (map->in_memory || !map->data) return;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t before = (uintptr_t)at % page;
    if (len) madvise((uint8_t *)(uintptr_t)at - before, len + before, MADV_DONTNEED); /* advice: failing is harmless */
}

bool file_first_line(const char *directory, const char *name, char *line, size_t cap)
{
    char path[1200];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path) return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    const bool ok = fgets(line, (int)cap, f) != NULL;
    fclose(f);
    if (ok) line[strcspn(line, "\n")] = 0;
    return ok;
}

/* ---- SHA-256 ---- */

#define HASH_PIECE ((size_t)4 << 20)

static void finish_hash(struct sha256_ctx *context, char out[65])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = 0;
}

void sha256_hex(const void *data, size_t len, char out[65])
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, len, data);
    finish_hash(&context, out);
}

mp_status file_sha256(const char *path, file_tick_fn tick, void *user, char out[65], mp_error *err)
{
    file_map map;
    struct sha256_ctx context;
    MP_TRY(file_map_open(path, &map, err));
    mp_status status = MP_OK;
    sha256_init(&context);
    for (size_t at = 0; at < map.len && !status; at += HASH_PIECE) {
        const size_t n = map.len - at < HASH_PIECE ? map.len - at : HASH_PIECE;
        sha256_update(&context, n, (const uint8_t *)map.data + at);
        file_map_release(&map, map.data + at, n);
        if (tick && !tick(user, at + n, map.len)) status = status_fail(err, MP_E_INTERRUPTED, "interrupted");
    }
    file_map_close(&map);
    finish_hash(&context, out);
    return status;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
