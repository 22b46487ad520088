#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"

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

bool file_tick_part(void *user, uint64_t done, uint64_t total)
{
    file_ticks *t = user;
    const bool go_on = !t->tick || t->tick(t->user, t->before + done, t->total);
    if (done == total) t->before += total;
    return go_on;
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
