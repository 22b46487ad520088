#include "store/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const io_class *const backends[] = {&io_uring_backend, &io_threads_backend};

const io_class *io_at(size_t i)
{
    return i < sizeof backends / sizeof *backends ? backends[i] : NULL;
}

mp_status io_find(const char *name, const io_class **out, mp_error *err)
{
    char names[128] = "";
    size_t used = 0;
    for (size_t i = 0; (*out = io_at(i)); i++) {
        if (strcmp((*out)->name, name) == 0) return MP_OK;
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", (*out)->name);
    }
    return status_fail(err, MP_E_INVALID, "no I/O backend \"%s\"; there are: %s", name, names);
}

/* What direct reads must be a multiple of, 0 where there are none: some file systems take the flag and refuse the
 * reads, and disks differ in their sectors, so reads decide. */
static uint32_t direct_align(int fd)
{
    static const uint32_t aligns[] = {IO_SECTOR, IO_ALIGN};
    uint8_t *page = NULL;
    uint32_t found = 0;
    if (posix_memalign((void **)&page, IO_ALIGN, 2 * IO_ALIGN) != 0) return 0;
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns && !found; i++)
        if (pread(fd, page + aligns[i], aligns[i], aligns[i]) >= 0) found = aligns[i];
    free(page);
    return found;
}

/* O_NONBLOCK, here and below: a pipe must be refused, not waited for. */
static int open_direct(const char *path, uint32_t *align)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (fd < 0 || (*align = direct_align(fd))) return fd;
    close(fd);
    return -1;
}

mp_status io_file_open(const char *path, bool direct, int *fd, uint32_t *align, mp_error *err)
{
    struct stat st;
    *fd = direct ? open_direct(path, align) : -1;
    if (*fd < 0) {
        *align = 1;
        *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (*fd < 0) return status_fail_errno(err, errno, "open", path);
        posix_fadvise(*fd, 0, 0, POSIX_FADV_RANDOM); /* reading ahead would fill memory with what nobody asked for */
    }
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) return MP_OK;
    close(*fd);
    *fd = -1;
    return status_fail(err, MP_E_IO, "cannot read %s piece by piece: it is not a regular file", path);
}

io_result io_read_rest(const io_setup *setup, const io_request *request, uint32_t done)
{
    io_result result = {.tag = request->tag, .bytes = done};
    /* What is not a whole number of blocks has met the end of the file, and cannot be continued directly. */
    while (result.bytes < request->bytes && result.bytes % setup->align == 0) {
        const ssize_t n = pread(setup->fds[request->file], request->to + result.bytes, request->bytes - result.bytes,
                                (off_t)(request->offset + result.bytes));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) result.error = errno;
        if (n <= 0) break;
        result.bytes += (uint32_t)n;
    }
    return result;
}
