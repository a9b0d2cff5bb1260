/* Copying by sharing blocks. See clone.h.
 *
 * The target is asked for a place, which it makes if it has none (disk_allocate()), and the host to
 * share the blocks of the source's place with it. Both must begin at a block of the file system; of
 * what does not end with one, the rest is left to be copied. */
#include "disk/tool/clone.h"
#include "base/bits.h"
#include "disk/file.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define BLOCK          4096u      /* of file systems that share blocks */
#define BCACHEFS_MAGIC 0xca451a4e /* newer than some <linux/magic.h> */

/** Is the file on a file system that shares blocks? Asked first: to try it takes a place in the
 * target, in which zeroes would no longer be absent if it fails. */
static bool can_share(const char *path, dev_t *ret_dev)
{
    static const unsigned long types[] = {XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, OCFS2_SUPER_MAGIC,
                                          BCACHEFS_MAGIC};
    struct statfs fs;
    struct stat st;

    if (!path || stat(path, &st) || statfs(path, &fs))
        return false;
    *ret_dev = st.st_dev;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if ((unsigned long)fs.f_type == types[i])
            return true;
    }
    return false;
}

void clone_init(struct clone *c, struct disk *source, struct disk *target)
{
    *c = (struct clone){.source = source, .target = target};
    c->may = !target->below && can_share(target->path, &c->target_dev);
}

bool clone_fits(const struct clone *c, const struct disk_extent *e, uint64_t offset)
{
    return e->kind == DISK_DATA && e->file->fd >= 0 && !e->file->is_block &&
           !((e->file_offset + offset) % BLOCK) && clone_may(c);
}

/** Where the target is to have the piece: made, if it has no place for it yet. */
static int find_place(struct clone *c, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    int rc = disk_place(c->target, offset, size, ret);

    if (!rc && ret->kind != DISK_DATA) {
        rc = disk_allocate(c->target, offset, size);
        if (!rc)
            rc = disk_place(c->target, offset, size, ret);
    }
    return rc ? rc : ret->kind == DISK_DATA && ret->file->fd >= 0 ? 0 : -ENOTSUP;
}

/** Let the host share blocks of [offset, offset+size): how many bytes, or -errno. */
static int64_t clone_some(struct clone *c, uint64_t offset, uint64_t size)
{
    struct disk_extent from = {0};
    struct disk_extent to = {0};
    struct stat st;
    int rc = disk_map(c->source, offset, size, &from);

    if (rc || from.kind != DISK_DATA || fstat(from.file->fd, &st) || st.st_dev != c->target_dev)
        return -ENOTSUP;
    rc = find_place(c, offset, size, &to);
    if (rc)
        return rc;
    struct file_clone_range range = {
        .src_fd = from.file->fd,
        .src_offset = from.file_offset,
        .src_length = align_down(MIN(from.size, to.size), BLOCK),
        .dest_offset = to.file_offset,
    };
    if (!range.src_length || (range.src_offset | range.dest_offset) % BLOCK)
        return -ENOTSUP;
    return ioctl(to.file->fd, FICLONERANGE, &range) ? -errno : (int64_t)range.src_length;
}

uint64_t clone_run(struct clone *c, uint64_t offset, uint64_t size)
{
    unsigned ticket = disk_io_begin(c->target);
    uint64_t done = 0;
    int64_t n = 1;

    while (done < size && n > 0) {
        n = clone_some(c, offset + done, size - done);
        done += n > 0 ? (uint64_t)n : 0;
    }
    disk_io_end(c->target, ticket);
    if (n < 0 && size - done >= BLOCK) /* the kernel or a format cannot: they are not asked again */
        __atomic_store_n(&c->may, false, __ATOMIC_RELAXED);
    return done;
}
