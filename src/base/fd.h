/* File descriptors and heap pointers with one owner. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include "base/macros.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

/** Close @fd unless it is negative. Keeps errno. */
static inline void fd_close(int fd)
{
    if (fd >= 0) {
        int saved_errno = errno;

        (void)close(fd); /* nothing can be done about a late error on a descriptor we give up */
        errno = saved_errno;
    }
}

/** For cleanup(fd_closep). */
static inline void fd_closep(int *fd)
{
    fd_close(*fd);
}

/** Move the descriptor out: the result is the caller's, *fd becomes -1. */
static inline int fd_take(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/** For cleanup(freep): works on any pointer variable. */
static inline void freep(void *p)
{
    free(*(void **)p);
}

/** Move the pointer out: the result is the caller's, the variable becomes NULL. */
#define ptr_take(p)                         \
    ({                                      \
        __typeof__(*(p)) ptr_taken_ = *(p); \
        *(p) = NULL;                        \
        ptr_taken_;                         \
    })

/** Read or write exactly @size bytes (at @offset), through short transfers and EINTR.
 *  0 or -errno; reading past the end of the file is -ENODATA. Any thread. */
must_check int fd_read_all(int fd, void *buf, size_t size);
must_check int fd_write_all(int fd, const void *buf, size_t size);
must_check int fd_pread_all(int fd, void *buf, size_t size, off_t offset);
must_check int fd_pwrite_all(int fd, const void *buf, size_t size, off_t offset);

/** Lock the file @path, which is made if it is missing: among all processes and threads one holds
 * it, until it closes the descriptor. A holder may delete the file: what is locked is always what
 * is there now. The descriptor; -EWOULDBLOCK if another holds it; -errno. Any thread. */
must_check int fd_lock_file(const char *path);

/** Does anybody hold it? Takes nothing, so it is in nobody's way. Any thread. */
bool fd_is_locked_file(const char *path);

#endif
