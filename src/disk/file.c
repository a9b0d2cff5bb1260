/* Files and block devices of the host as the ground of images.
 *
 * With FILE_DIRECT, a transfer whose offset, size or buffers are not multiples of DIRECT_ALIGN goes
 * through an aligned buffer; a write that begins or ends within a block reads the rest of it first,
 * one such write at a time, so that two of them do not undo each other. A block that the file ends
 * in is written through the page cache: whole blocks would make the file longer.
 *
 * Threads: any.
 */
#include "disk/file.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/thread.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DIRECT_ALIGN 4096u
#define BOUNCE_BYTES (1u << 20)

struct host_file {
    struct file f;            /* must be first */
    struct mutex bounce_lock; /* one unaligned direct write at a time */
    int tail_fd;              /* [bounce_lock] the same, through the page cache; -1 = not yet */
};

static bool is_aligned(const struct iovec *iov, int n, uint64_t offset)
{
    uint64_t all = offset;

    for (int i = 0; i < n; i++)
        all |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    return !(all % DIRECT_ALIGN);
}

/** Copy between a list, from byte @skip of it, and @buf. */
static void iov_copy(const struct iovec *iov, int n, uint64_t skip, uint8_t *buf, size_t size,
                     bool to_iov)
{
    for (int i = 0; i < n && size; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(iov[i].iov_len - (size_t)skip, size);
        uint8_t *at = (uint8_t *)iov[i].iov_base + skip;

        memcpy(to_iov ? at : buf, to_iov ? buf : at, part);
        buf += part;
        size -= part;
        skip = 0;
    }
}

static int host_get_size(struct file *f, uint64_t *ret)
{
    struct stat st;

    if (f->is_block)
        return ioctl(f->fd, BLKGETSIZE64, ret) ? -errno : 0;
    if (fstat(f->fd, &st))
        return -errno;
    *ret = (uint64_t)st.st_size;
    return 0;
}

/** Write [offset, offset+size), at the file's end, through the page cache. */
static int write_tail(struct host_file *h, void *data, size_t size, uint64_t offset)
{
    struct iovec part = {.iov_base = data, .iov_len = size};
    char path[32];

    if (h->tail_fd < 0) {
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", h->f.fd);
        h->tail_fd = open(path, O_WRONLY | O_CLOEXEC);
    }
    return h->tail_fd < 0 ? -errno : fd_pwritev_all(h->tail_fd, &part, 1, offset);
}

/** Direct I/O through an aligned buffer. */
static int bounce(struct host_file *h, const struct iovec *iov, int n, uint64_t offset, bool write)
{
    uint64_t total = iov_bytes(iov, (unsigned)n);
    uint64_t end = offset + total;
    uint64_t at = align_down(offset, DIRECT_ALIGN);
    uint64_t file_size = UINT64_MAX;
    cleanup(freep) uint8_t *buf = aligned_alloc(DIRECT_ALIGN, BOUNCE_BYTES);
    int rc = buf ? 0 : -ENOMEM;

    if (!rc && write && !h->f.is_block)
        rc = host_get_size(&h->f, &file_size);

    for (; !rc && at < end; at += BOUNCE_BYTES) {
        uint64_t stop = MIN(align_up(end, DIRECT_ALIGN), at + BOUNCE_BYTES);
        struct iovec part = {.iov_base = buf, .iov_len = (size_t)(stop - at)};
        uint64_t from = MAX(at, offset);
        uint64_t to = MIN(stop, end);

        if (!write || from != at || to != stop)
            rc = fd_preadv_all(h->f.fd, &part, 1, at);
        if (!rc)
            iov_copy(iov, n, from - offset, buf + (from - at), (size_t)(to - from), !write);
        if (!rc && write && stop > file_size && to != stop)
            rc = write_tail(h, buf + (from - at), (size_t)(to - from), from);
        else if (!rc && write)
            rc = fd_pwritev_all(h->f.fd, &part, 1, at);
    }
    return rc;
}

static int host_preadv(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    if (f->is_direct && !is_aligned(iov, iovcnt, offset))
        return bounce((struct host_file *)f, iov, iovcnt, offset, false);
    return fd_preadv_all(f->fd, iov, iovcnt, offset);
}

static int host_pwritev(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct host_file *h = (struct host_file *)f;

    if (!f->is_direct || is_aligned(iov, iovcnt, offset))
        return fd_pwritev_all(f->fd, iov, iovcnt, offset);
    mutex_lock(&h->bounce_lock);
    int rc = bounce(h, iov, iovcnt, offset, true);
    mutex_unlock(&h->bounce_lock);
    return rc;
}

static int host_flush(struct file *f)
{
    return fdatasync(f->fd) ? -errno : 0;
}

static int host_truncate(struct file *f, uint64_t size)
{
    uint64_t now;

    if (f->is_block) {
        int rc = host_get_size(f, &now);

        return rc || now == size ? rc : -ENOTSUP;
    }
    return ftruncate(f->fd, (off_t)size) ? -errno : 0;
}

static int host_discard(struct file *f, uint64_t offset, uint64_t size)
{
    uint64_t range[2] = {offset, size};
    int rc;

    if (f->is_block)
        rc = ioctl(f->fd, BLKDISCARD, range);
    else
        rc = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)size);
    return rc && errno == EIO ? -EIO : 0;
}

/** Make the file at least @end long. Never shorter, whoever else makes it longer meanwhile: so no
 * ftruncate() where the file system has another way. */
static int extend(int fd, uint64_t end)
{
    if (!fallocate(fd, 0, (off_t)end - 1, 1))
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    return ftruncate(fd, (off_t)end) ? -errno : 0;
}

static int host_write_zeroes(struct file *f, uint64_t offset, uint64_t size, bool may_unmap)
{
    uint64_t file_size = 0;
    int rc = f->is_block ? 0 : host_get_size(f, &file_size);

    if (!rc && !f->is_block && offset + size > file_size) {
        if (may_unmap ||
            fallocate(f->fd, 0, (off_t)offset, (off_t)size)) /* else: space is reserved */
            rc = extend(f->fd, offset + size);
    }
    return rc ? rc : fd_write_zeroes(f->fd, offset, size, may_unmap);
}

static int host_find_data(struct file *f, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    uint64_t size;
    int rc = host_get_size(f, &size);

    if (rc || offset >= size)
        return rc ? rc : -ENXIO;
    off_t start = f->is_block ? -1 : lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (start < 0 && !f->is_block && errno == ENXIO)
        return -ENXIO;
    off_t end = start < 0 ? -1 : lseek(f->fd, start, SEEK_HOLE);
    *ret_start = start < 0 ? offset : (uint64_t)start;
    *ret_end = end < 0 ? size : (uint64_t)end;
    return 0;
}

static void host_close(struct file *f)
{
    struct host_file *h = (struct host_file *)f;

    fd_close(f->fd);
    fd_close(h->tail_fd);
    mutex_done(&h->bounce_lock);
    free(f->path);
    free(h);
}

static const struct file_ops host_ops = {
    .preadv = host_preadv,
    .pwritev = host_pwritev,
    .flush = host_flush,
    .truncate = host_truncate,
    .discard = host_discard,
    .write_zeroes = host_write_zeroes,
    .find_data = host_find_data,
    .get_size = host_get_size,
    .close = host_close,
};

static int open_fd(int dir_fd, const char *path, unsigned flags)
{
    struct open_how how = {
        /* O_NONBLOCK: a pipe's name must not make us wait for its other end. */
        .flags = (flags & FILE_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = flags & FILE_BENEATH ? RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS : 0,
    };

    if (flags & FILE_CREATE) {
        how.flags |= O_CREAT | O_EXCL;
        how.mode = 0644;
    }
    how.flags |= flags & FILE_DIRECT ? O_DIRECT : 0;
    if (!how.resolve)
        return openat(dir_fd, path, (int)how.flags, how.mode);
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
}

static int check_kind(int fd, const char *path, bool *ret_is_block, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st))
        return error_set(err, errno, "cannot examine disk '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(err, EINVAL, "disk '%s' is neither a file nor a block device", path);
    *ret_is_block = S_ISBLK(st.st_mode);
    return 0;
}

int file_new(int fd, const char *path, struct file **ret, struct error *err)
{
    struct host_file *h = calloc(1, sizeof(*h));
    char *copy = strdup(path);

    if (!h || !copy) {
        free(h);
        free(copy);
        fd_close(fd);
        return error_set(err, ENOMEM, "out of memory");
    }
    h->f = (struct file){.ops = &host_ops, .path = copy, .fd = fd};
    h->tail_fd = -1;
    mutex_init(&h->bounce_lock);
    *ret = &h->f;
    return 0;
}

int file_open(int dir_fd, const char *path, unsigned flags, struct file **ret, struct error *err)
{
    bool write = flags & FILE_WRITE;
    bool is_block = false;

    cleanup(fd_closep) int fd = open_fd(dir_fd, path, flags);
    if (fd < 0 && errno == EXDEV)
        return error_set(err, EXDEV, "disk '%s' is outside of its folder", path);
    if (fd < 0 && errno == EINVAL && flags & FILE_DIRECT)
        return error_set(err, EINVAL, "disk '%s' is on a file system without direct I/O", path);
    if (fd < 0)
        return error_set(err, errno, "cannot open disk '%s'%s: %s", path,
                         write ? " for writing" : "", strerror(errno));
    int rc = check_kind(fd, path, &is_block, err);
    if (!rc && !(flags & FILE_NO_LOCK))
        rc = disk_lock(fd, path, write, !(flags & FILE_LOCK_OVER), err);
    if (rc)
        return rc;
    rc = file_new(fd_take(&fd), path, ret, err);
    if (rc)
        return rc;
    (*ret)->readonly = !write;
    (*ret)->is_block = is_block;
    (*ret)->is_direct = flags & FILE_DIRECT;
    return 0;
}

void file_close(struct file *f)
{
    if (f)
        f->ops->close(f);
}

int file_preadv(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return f->ops->preadv(f, iov, iovcnt, offset);
}

int file_pwritev(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return f->readonly ? -EROFS : f->ops->pwritev(f, iov, iovcnt, offset);
}

int file_pread(struct file *f, void *buf, size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = buf, .iov_len = size};

    return file_preadv(f, &iov, 1, offset);
}

int file_pwrite(struct file *f, const void *buf, size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = size};

    return file_pwritev(f, &iov, 1, offset);
}

bool file_takes(const struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return f->fd >= 0 && (!f->is_direct || is_aligned(iov, iovcnt, offset));
}

int file_flush(struct file *f)
{
    return f->readonly ? 0 : f->ops->flush(f);
}

int file_truncate(struct file *f, uint64_t size)
{
    return f->readonly ? -EROFS : f->ops->truncate(f, size);
}

int file_discard(struct file *f, uint64_t offset, uint64_t size)
{
    if (f->readonly)
        return -EROFS;
    return size ? f->ops->discard(f, offset, size) : 0;
}

int file_write_zeroes(struct file *f, uint64_t offset, uint64_t size, bool may_unmap)
{
    if (f->readonly)
        return -EROFS;
    return size ? f->ops->write_zeroes(f, offset, size, may_unmap) : 0;
}

int file_find_data(struct file *f, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    return f->ops->find_data(f, offset, ret_start, ret_end);
}

int file_get_size(struct file *f, uint64_t *ret)
{
    return f->ops->get_size(f, ret);
}
