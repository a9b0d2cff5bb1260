/* Opening disks, and the checks that no format has to repeat. Any thread. */
#include "disk/disk.h"
#include "base/bits.h"
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/** Beginnings by which other formats are known. */
static const struct {
    const char *name;
    const char *magic;
    uint8_t size;
    uint8_t offset;
    bool packed; /* not a disk format but a packing of one */
} magics[] = {
    {"QCOW2 or QCOW",   "QFI\xfb",               4,  0,  false},
    {"QED",             "QED",                   4,  0,  false},
    {"VMDK",            "KDMV",                  4,  0,  false},
    {"VMDK",            "COWD",                  4,  0,  false},
    {"VMDK",            "# Disk DescriptorFile", 21, 0,  false},
    {"VHDX",            "vhdxfile",              8,  0,  false},
    {"VHD",             "conectix",              8,  0,  false},
    {"VDI",             "\x7f\x10\xda\xbe",      4,  64, false},
    {"Parallels",       "WithoutFreeSpace",      16, 0,  false},
    {"Parallels",       "WithouFreSpacExt",      16, 0,  false},
    {"gzip-compressed", "\x1f\x8b\x08",          3,  0,  true },
    {"xz-compressed",
     "\xfd"
     "7zXZ",                                     6,  0,  true },
    {"zstd-compressed", "\x28\xb5\x2f\xfd",      4,  0,  true },
};

/** Refuse, by name, what is not raw. */
static int check_magic(int fd, const char *path, struct error *err)
{
    uint8_t head[128] = {0};

    if (pread(fd, head, sizeof(head), 0) < 0)
        return error_set(err, errno, "cannot read disk '%s': %s", path, strerror(errno));
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        if (memcmp(head + magics[i].offset, magics[i].magic, magics[i].size))
            continue;
        if (magics[i].packed)
            return error_set(err, EINVAL, "disk '%s' is a %s file: unpack it first", path,
                             magics[i].name);
        return error_set(err, EINVAL,
                         "disk '%s' is in %s format, and only raw disks are supported: convert it "
                         "with 'qemu-img convert -O raw'",
                         path, magics[i].name);
    }
    return 0;
}

static int find_size(int fd, const char *path, bool *ret_is_block, uint64_t *ret_size,
                     struct error *err)
{
    struct stat st;
    uint64_t size;

    if (fstat(fd, &st))
        return error_set(err, errno, "cannot examine disk '%s': %s", path, strerror(errno));
    if (S_ISREG(st.st_mode)) {
        size = (uint64_t)st.st_size;
    } else if (!S_ISBLK(st.st_mode)) {
        return error_set(err, EINVAL, "disk '%s' is neither a file nor a block device", path);
    } else if (ioctl(fd, BLKGETSIZE64, &size)) {
        return error_set(err, errno, "cannot find the size of disk '%s': %s", path,
                         strerror(errno));
    }
    if (!size)
        return error_set(err, EINVAL, "disk '%s' is empty", path);
    *ret_is_block = S_ISBLK(st.st_mode);
    *ret_size = align_up(size, DISK_SECTOR);
    return 0;
}

int disk_open(const char *path, const char *format, unsigned flags, struct disk **ret,
              struct error *err)
{
    bool write = !(flags & (DISK_READONLY | DISK_SNAPSHOT));
    uint64_t size = 0;
    bool is_block = false;

    if (format && strcmp(format, "raw"))
        return error_set(err, EINVAL, "disk format '%s' of '%s' is unknown: expected raw", format,
                         path);
    /* O_NONBLOCK: a pipe's name must not make us wait for its other end. */
    cleanup(fd_closep) int fd =
        open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, errno, "cannot open disk '%s'%s: %s", path,
                         write ? " for writing" : "", strerror(errno));
    int rc = find_size(fd, path, &is_block, &size, err);
    if (!rc && !format)
        rc = check_magic(fd, path, err);
    if (!rc)
        rc = disk_lock(fd, path, write, err);
    struct disk *raw = NULL;
    if (!rc)
        rc = raw_new(fd, is_block, size, !write, &raw, err);
    if (rc)
        return rc;
    (void)fd_take(&fd); /* raw's now */
    if (flags & DISK_SNAPSHOT) {
        struct disk *overlay;

        rc = overlay_new(raw, &overlay, err);
        if (rc) {
            disk_close(raw);
            return rc;
        }
        overlay->readonly = flags & DISK_READONLY;
        raw = overlay;
    }
    *ret = raw;
    return 0;
}

void disk_close(struct disk *d)
{
    if (d)
        d->ops->close(d);
}

/** Is [offset, offset+size) within the disk and, to change it, allowed? */
static int check(const struct disk *d, uint64_t offset, uint64_t size, bool change)
{
    if (offset > d->size_bytes || size > d->size_bytes - offset)
        return -EINVAL;
    return change && d->readonly ? -EROFS : 0;
}

static int check_iov(const struct disk *d, const struct iovec *iov, int n, uint64_t offset,
                     bool change)
{
    if (n < 0 || n > DISK_MAX_IOV)
        return -EINVAL;
    return check(d, offset, iov_bytes(iov, (unsigned)n), change);
}

int disk_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    int rc = check_iov(d, iov, iovcnt, offset, false);

    return rc ? rc : d->ops->preadv(d, iov, iovcnt, offset);
}

int disk_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    int rc = check_iov(d, iov, iovcnt, offset, true);

    return rc ? rc : d->ops->pwritev(d, iov, iovcnt, offset);
}

int disk_flush(struct disk *d)
{
    return d->readonly ? 0 : d->ops->flush(d);
}

int disk_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = check(d, offset, size, true);

    return rc || !size ? rc : d->ops->discard(d, offset, size);
}

int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    int rc = check(d, offset, size, true);

    return rc || !size ? rc : d->ops->write_zeroes(d, offset, size, may_unmap);
}
