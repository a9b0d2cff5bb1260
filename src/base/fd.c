/* Whole reads and writes on descriptors. */
#include "base/fd.h"

#include <fcntl.h>
#include <sys/stat.h>

int fd_read_all(int fd, void *buf, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)buf + done, size - done);

        if (n > 0)
            done += (size_t)n;
        else if (!n)
            return -ENODATA;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int fd_write_all(int fd, const void *buf, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)buf + done, size - done);

        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int fd_pread_all(int fd, void *buf, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, (char *)buf + done, size - done, offset + (off_t)done);

        if (n > 0)
            done += (size_t)n;
        else if (!n)
            return -ENODATA;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int fd_pwrite_all(int fd, const void *buf, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)buf + done, size - done, offset + (off_t)done);

        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int fd_lock_file(const char *path)
{
    for (;;) {
        cleanup(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        struct stat locked, there;

        if (fd < 0)
            return -errno;
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_OFD_SETLK, &whole))
            return errno == EACCES ? -EWOULDBLOCK : -errno;
        /* The one who held it may have deleted it in between. */
        if (!fstat(fd, &locked) && !stat(path, &there) && locked.st_ino == there.st_ino &&
            locked.st_dev == there.st_dev)
            return fd_take(&fd);
    }
}

bool fd_is_locked_file(const char *path)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fd >= 0 && !fcntl(fd, F_OFD_GETLK, &whole) && whole.l_type != F_UNLCK;
}
