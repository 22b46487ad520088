/* A file that appears under its final name only when it is complete.
 *
 * It grows as "PATH.tmp-PID" in the same directory, so that the rename stays within one file system. The name is made
 * with O_EXCL and the file is held with flock() until the end: where the name is taken but nobody holds it, a process
 * of the same number died there (common in containers, where numbers are small and repeat), and it is taken over.
 *
 * The names of unfinished files stand in a fixed table of plain bytes, each entry guarded by one atomic word, so that a
 * signal handler can remove them without a lock or the heap. An entry is live before its file exists and until after it
 * is gone: at worst the handler unlinks a name that is not there. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_OPEN     16
#define BUFFER_BYTES ((size_t)1 << 18)

enum slot_state { SLOT_FREE, SLOT_CLAIMED, SLOT_LIVE };

typedef struct slot {
    _Atomic int state;
    char path[PATH_MAX];
} slot;

static slot slots[MAX_OPEN];

struct file_atomic {
    int fd;
    bool replace;
    mp_status failed; /* of the first write that failed: what is there cannot become the final file */
    char *path;
    slot *slot;
    uint64_t size;
    size_t buffered; /* the last bytes of size, not written yet */
    char buffer[BUFFER_BYTES];
};

void file_atomic_unlink_all(void)
{
    int saved = errno;
    for (int i = 0; i < MAX_OPEN; i++)
        if (atomic_load(&slots[i].state) == SLOT_LIVE) unlink(slots[i].path);
    errno = saved;
}

static mp_status claim_slot(const char *path, slot **out, mp_error *err)
{
    for (int i = 0; i < MAX_OPEN; i++) {
        int expected = SLOT_FREE;
        if (!atomic_compare_exchange_strong(&slots[i].state, &expected, SLOT_CLAIMED)) continue;
        slot *s = &slots[i];
        int len = snprintf(s->path, sizeof s->path, "%s.tmp-%ld", path, (long)getpid());
        if (len < 0 || (size_t)len >= sizeof s->path) {
            atomic_store(&s->state, SLOT_FREE);
            return status_fail_errno(err, ENAMETOOLONG, "create", path);
        }
        atomic_store(&s->state, SLOT_LIVE);
        *out = s;
        return MP_OK;
    }
    return status_fail(err, MP_E_LIMIT, "cannot create %s: %d files are being written already", path, MAX_OPEN);
}

/* Removes the temporary file of a dead process; false where a live one holds it. */
static bool remove_abandoned(const char *temporary)
{
    int fd = open(temporary, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return errno == ENOENT;
    bool ours = flock(fd, LOCK_EX | LOCK_NB) == 0 && unlink(temporary) == 0;
    close(fd);
    return ours;
}

static mp_status create_temporary(const char *path, const char *temporary, int *out, mp_error *err)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = open(temporary, flags, 0666);
    if (fd < 0 && errno == EEXIST) {
        if (!remove_abandoned(temporary))
            return status_fail(err, MP_E_EXISTS, "cannot create %s: it is being written already, as %s", path,
                               temporary);
        fd = open(temporary, flags, 0666);
    }
    if (fd < 0 && errno == ENOENT)
        return status_fail(err, MP_E_IO, "cannot create %s: its directory does not exist", path);
    if (fd < 0) return status_fail_errno(err, errno, "create", path);
    flock(fd, LOCK_EX | LOCK_NB); /* where a file system has no locks, abandoned files stay */
    *out = fd;
    return MP_OK;
}

static mp_status fail_exists(const char *path, mp_error *err)
{
    return status_fail(err, MP_E_EXISTS, "%s exists already; use --force to replace it", path);
}

/* A rename would replace a device or a pipe as readily as a file, and a link rather than what it points to. */
static mp_status check_target(const char *path, bool replace, mp_error *err)
{
    struct stat st;
    if (!*path) return status_fail(err, MP_E_INVALID, "the name of the output file is empty");
    if (lstat(path, &st) != 0) {
        if (errno == ENOENT) return MP_OK;
        return status_fail_errno(err, errno, "create", path);
    }
    if (S_ISDIR(st.st_mode)) return status_fail(err, MP_E_EXISTS, "cannot write to %s: it is a directory", path);
    if (!S_ISREG(st.st_mode))
        return status_fail(err, MP_E_EXISTS, "cannot write to %s: it exists and is not a regular file", path);
    return replace ? MP_OK : fail_exists(path, err);
}

/* Ends the temporary file unless it was renamed, and frees everything. */
static void discard(file_atomic *file, bool renamed)
{
    if (file->slot) {
        if (file->fd >= 0 && !renamed) unlink(file->slot->path);
        atomic_store(&file->slot->state, SLOT_FREE);
    }
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    free(file);
}

mp_status file_atomic_open(const char *path, bool replace, file_atomic **out, mp_error *err)
{
    *out = NULL;
    MP_TRY(check_target(path, replace, err));
    file_atomic *file = malloc(sizeof *file);
    if (!file) return status_no_memory(err, sizeof *file, path);
    memset(file, 0, offsetof(file_atomic, buffer));
    file->fd = -1;
    file->replace = replace;
    file->path = strdup(path);
    mp_status status = file->path ? MP_OK : status_no_memory(err, strlen(path), path);
    if (status == MP_OK) status = claim_slot(path, &file->slot, err);
    if (status == MP_OK) status = create_temporary(path, file->slot->path, &file->fd, err);
    if (status != MP_OK) {
        discard(file, false);
        return status;
    }
    *out = file;
    return MP_OK;
}

static mp_status write_all(file_atomic *file, uint64_t offset, const char *data, size_t len, mp_error *err)
{
    while (len) {
        ssize_t n = pwrite(file->fd, data, len, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return file->failed = status_fail_errno(err, n ? errno : ENOSPC, "write", file->path);
        data += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return MP_OK;
}

static mp_status refuse_failed(const file_atomic *file, mp_error *err)
{
    return status_fail(err, file->failed, "cannot write %s: an earlier write failed", file->path);
}

mp_status file_atomic_flush(file_atomic *file, mp_error *err)
{
    if (file->failed) return refuse_failed(file, err);
    size_t n = file->buffered;
    file->buffered = 0;
    return write_all(file, file->size - n, file->buffer, n, err);
}

mp_status file_atomic_write(file_atomic *file, const void *data, size_t len, mp_error *err)
{
    if (len > INT64_MAX - file->size) {
        file->failed = MP_E_LIMIT;
        return status_fail(err, MP_E_LIMIT, "cannot write %s: it would be too large", file->path);
    }
    if (len > BUFFER_BYTES - file->buffered) MP_TRY(file_atomic_flush(file, err));
    if (file->failed) return refuse_failed(file, err);
    if (len >= BUFFER_BYTES) {
        MP_TRY(write_all(file, file->size, data, len, err));
    } else if (len) {
        memcpy(file->buffer + file->buffered, data, len);
        file->buffered += len;
    }
    file->size += len;
    return MP_OK;
}

mp_status file_atomic_write_at(file_atomic *file, uint64_t offset, const void *data, size_t len, mp_error *err)
{
    if (offset > file->size || len > file->size - offset)
        return status_fail(err, MP_E_INVALID, "%s: bytes %llu + %zu are past the end", file->path,
                           (unsigned long long)offset, len);
    MP_TRY(file_atomic_flush(file, err));
    return write_all(file, offset, data, len, err);
}

uint64_t file_atomic_size(const file_atomic *file)
{
    return file->size;
}

const char *file_atomic_path(const file_atomic *file)
{
    return file->slot->path;
}

static mp_status rename_into_place(const file_atomic *file, mp_error *err)
{
    const char *from = file->slot->path, *to = file->path;
    if (!file->replace) { /* somebody else may have made the file since it was opened */
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return MP_OK;
        if (errno == EEXIST) return fail_exists(to, err);
        if (errno != EINVAL && errno != ENOSYS) return status_fail_errno(err, errno, "create", to);
        MP_TRY(check_target(to, false, err)); /* a file system without the flag */
    }
    return rename(from, to) == 0 ? MP_OK : status_fail_errno(err, errno, "create", to);
}

/* Makes the rename itself last. Not every file system can, nor every directory be opened: the file is complete anyway.
 */
static void sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX];
    if (slash) snprintf(directory, sizeof directory, "%.*s", (int)(slash - path + 1), path);
    int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

/* All bytes on the disk. A network file system may report a lost write at close only: a duplicate is closed to hear of
 * it, since closing the descriptor itself would give up the lock before the rename. */
static mp_status settle(const file_atomic *file, mp_error *err)
{
    int copy = fsync(file->fd) == 0 ? dup(file->fd) : -1;
    if (copy >= 0 && close(copy) == 0) return MP_OK;
    return status_fail_errno(err, errno, "write", file->path);
}

mp_status file_atomic_commit(file_atomic *file, mp_error *err)
{
    bool renamed = false;
    mp_status status = file_atomic_flush(file, err);
    if (status != MP_OK) goto out;
    status = settle(file, err);
    if (status != MP_OK) goto out;
    status = rename_into_place(file, err);
    if (status != MP_OK) goto out;
    renamed = true;
    sync_directory(file->path);
out:
    discard(file, renamed);
    return status;
}

void file_atomic_abort(file_atomic *file)
{
    if (file) discard(file, false);
}
