/* Copying a disk image: by reference where the file system can, else data only, holes kept.
 * Any thread. */
#include "base/fd.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define COPY_SIZE (1u << 20)

static int copy_range(int from, int to, off_t at, off_t end, char *buf)
{
    while (at < end) {
        size_t n = (size_t)MIN(end - at, (off_t)COPY_SIZE);
        int r = fd_pread_all(from, buf, n, at);

        if (!r)
            r = fd_pwrite_all(to, buf, n, at);
        if (r)
            return r;
        at += (off_t)n;
    }
    return 0;
}

static int copy_data(int from, int to, off_t size)
{
    cleanup(freep) char *buf = malloc(COPY_SIZE);
    off_t at = 0;

    if (!buf)
        return -ENOMEM;
    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA);
        off_t end;

        if (data < 0 && errno == ENXIO) /* only a hole is left */
            return 0;
        if (data < 0)
            data = at;
        end = lseek(from, data, SEEK_HOLE);
        if (end <= data)
            end = size;
        int r = copy_range(from, to, data, end, buf);
        if (r)
            return r;
        at = end;
    }
    return 0;
}

int image_clone_disk(const struct image *image, const char *path, uint64_t size_bytes,
                     struct error *err)
{
    struct stat st;
    int r = 0;

    if (!image->disk)
        return error_set(err, EINVAL, "image '%s' has no disk", image->name);
    cleanup(fd_closep) int from = open(image->disk, O_RDONLY | O_CLOEXEC);
    if (from < 0 || fstat(from, &st))
        return error_set(err, errno, "cannot open '%s': %s", image->disk, strerror(errno));
    cleanup(fd_closep) int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0)
        return error_set(err, errno, "cannot create '%s': %s", path, strerror(errno));
    off_t size = MAX(st.st_size, (off_t)MIN(size_bytes, (uint64_t)INT64_MAX));
    if (ioctl(to, FICLONE, from))
        r = copy_data(from, to, st.st_size);
    if (!r && ftruncate(to, size))
        r = -errno;
    if (r) {
        (void)unlink(path);
        return error_set(err, -r, "cannot copy the disk to '%s': %s", path, strerror(-r));
    }
    return 0;
}
