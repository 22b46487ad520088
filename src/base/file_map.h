/* file_map.h: files mapped read-only, copies in memory that take the place of their pages, and stamps that tell whether
 * a file is still what it was.
 *
 * A map belongs to whoever opened it. Any thread may read the bytes, at any time, also while another copies them; only
 * one at a time may copy. */
#ifndef BASE_FILE_MAP_H
#define BASE_FILE_MAP_H

#include "base/file.h"

struct pool; /* base/pool.h */

/* What tells a file from another and from what is made of it later. */
typedef struct file_stamp {
    uint64_t device, inode, bytes;
    int64_t modified_s, modified_ns;
} file_stamp;

/* False where the file cannot be asked: errno says why. */
bool file_stamp_take(int fd, file_stamp *out);
bool file_stamp_equals(const file_stamp *a, const file_stamp *b);
/* Whether an open file has this stamp, now. */
bool file_has_stamp(int fd, const file_stamp *stamp);

/* Bytes of a mapping. */
typedef struct file_bytes {
    const void *at;
    size_t len;
} file_bytes;

/* Pages of mappings: those that lie wholly within one of the ranges, which ascend, do not overlap and may lie outside
 * the mapping; only these or all but these. Zeroed: all. */
typedef struct file_pick {
    const file_bytes *ranges; /* [n] */
    size_t n;
    bool only;
} file_pick;

/* A regular file mapped read-only. An empty file maps to data = NULL, len = 0. */
typedef struct file_map {
    const uint8_t *data;
    size_t len;
    int fd;
    file_stamp stamp; /* when it was opened */
    bool has_copies;  /* some pages are memory of our own, no longer the file's */
} file_map;

#define FILE_MAP_NONE ((file_map){.fd = -1})
mp_status file_map_open(const char *path, file_map *out, mp_error *err);
void file_map_close(file_map *map);

/* Replaces the picked pages of the mapping, at their addresses, by copies in memory of our own, in huge pages where the
 * system gives them; those that are left, where all but these are picked, leave memory until somebody reads them.
 * MP_E_IO where the file is cut, MP_E_CHANGED where it is no longer the one that was opened. The threads of `p`, which
 * may be NULL, read together. `tick` as for file_sha256(), on this thread. After a failure what was copied stays so and
 * the rest is mapped: it may be tried again. */
mp_status file_map_copy(file_map *map, const char *path, const file_pick *pick, struct pool *p, file_tick_fn tick,
                        void *user, mp_error *err);

/* Bytes that this would copy. */
uint64_t file_map_copy_bytes(const file_map *map, const file_pick *pick);

/* Whether copies, made of the same pick, may be written to; at first they may not. */
mp_status file_map_write_protect(const file_map *map, const char *path, const file_pick *pick, bool on, mp_error *err);

/* Reads bytes [offset, offset + len) of the file itself into `to` [len]; MP_E_IO where they are not there. */
mp_status file_map_read(const file_map *map, const char *path, uint64_t offset, size_t len, void *to, mp_error *err);

/* Bytes [at, at + len) of the mapping may leave memory; what is read of them later comes from the file again. Does
 * nothing where there are copies: they have no other place. */
void file_map_release(const file_map *map, const void *at, size_t len);

#endif
