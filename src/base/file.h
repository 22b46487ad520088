/* file.h: whole files in, and files that appear under their final name only when they are complete. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/status.h"

/* Whole file into *data [*len + 1], terminated by a 0 that *len does not count; the caller frees. */
mp_status file_read(const char *path, char **data, size_t *len, mp_error *err);

/* First line of DIRECTORY/NAME, without its newline; false where there is none. For the small files of /sys and /proc.
 */
bool file_first_line(const char *directory, const char *name, char *line, size_t cap);

/* Hears of bytes done, may be NULL; false stops with MP_E_INTERRUPTED. */
typedef bool (*file_tick_fn)(void *user, uint64_t done, uint64_t total);

/* Work on several files that is heard of as one: file_tick_part() is the tick of each of them, this is its user. */
typedef struct file_ticks {
    file_tick_fn tick;
    void *user;
    uint64_t before, total; /* bytes of the files that are done, of all */
} file_ticks;

bool file_tick_part(void *ticks, uint64_t done, uint64_t total);

/* A file being written beside its final name, as "PATH.tmp-PID". One of commit or abort ends it; a signal handler
 * may call file_atomic_unlink_all() to remove what is unfinished. */
typedef struct file_atomic file_atomic;
mp_status file_atomic_open(const char *path, bool replace, file_atomic **out, mp_error *err);
mp_status file_atomic_write(file_atomic *file, const void *data, size_t len, mp_error *err);
/* Overwrites bytes that were written before. */
mp_status file_atomic_write_at(file_atomic *file, uint64_t offset, const void *data, size_t len, mp_error *err);
uint64_t file_atomic_size(const file_atomic *file);
/* The temporary file's name while it is open. */
const char *file_atomic_path(const file_atomic *file);
/* Flushes so that the temporary file can be read back under file_atomic_path(). */
mp_status file_atomic_flush(file_atomic *file, mp_error *err);
/* Flush, fsync, rename, fsync the directory. Frees `file` whether it succeeds or not. */
mp_status file_atomic_commit(file_atomic *file, mp_error *err);
void file_atomic_abort(file_atomic *file); /* NULL is fine */
void file_atomic_unlink_all(void);         /* async-signal-safe */

/* Lower-case hex SHA-256 of data [len]. */
void sha256_hex(const void *data, size_t len, char out[65]);
/* The same of a file, read in pieces. */
mp_status file_sha256(const char *path, file_tick_fn tick, void *user, char out[65], mp_error *err);

/* Whether both names lead to one file; false where one of them does not exist. */
bool file_same(const char *a, const char *b);

#endif
