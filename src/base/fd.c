/* Whole reads and writes on descriptors. */
#include "base/fd.h"

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
