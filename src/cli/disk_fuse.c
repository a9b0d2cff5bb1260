/* The FUSE side of `posada disk mount`: a folder with a few files whose bytes are the disk's.
 *
 * Threads: libfuse's; the disk locks itself, and what else they read is fixed before they start.
 */
#define FUSE_USE_VERSION 31

#include "cli/disk_fuse.h"
#include "disk/partition.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <fuse_log.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    char name[16];
    uint64_t offset, size;
};

struct folder {
    struct disk *disk;
    struct entry entries[DISK_MAX_PARTITIONS + 1];
    unsigned count;
};

/** The last thing libfuse complained of. */
static char complaint[200];

static void keep_complaint(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)vsnprintf(complaint, sizeof(complaint), fmt, ap);
    complaint[strcspn(complaint, "\n")] = 0;
}

static struct folder *folder(void)
{
    return fuse_get_context()->private_data;
}

/** The file of @path, "/p1", or NULL. */
static const struct entry *find(const char *path)
{
    const struct folder *f = folder();

    for (unsigned i = 0; i < f->count; i++) {
        if (!strcmp(path + 1, f->entries[i].name))
            return &f->entries[i];
    }
    return NULL;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    const struct entry *e = find(path);

    (void)fi;
    memset(st, 0, sizeof(*st));
    st->st_uid = getuid();
    st->st_gid = getgid();
    if (!strcmp(path, "/")) {
        st->st_mode = S_IFDIR | 0500;
        st->st_nlink = 2;
        return 0;
    }
    if (!e)
        return -ENOENT;
    st->st_mode = S_IFREG | (folder()->disk->readonly ? 0400 : 0600);
    st->st_nlink = 1;
    st->st_size = (off_t)e->size;
    return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    const struct folder *f = folder();

    (void)offset;
    (void)fi;
    (void)flags;
    if (strcmp(path, "/") != 0)
        return -ENOENT;
    (void)fill(buf, ".", NULL, 0, 0);
    (void)fill(buf, "..", NULL, 0, 0);
    for (unsigned i = 0; i < f->count; i++)
        (void)fill(buf, f->entries[i].name, NULL, 0, 0); /* with offset 0 it is never full */
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
    if (!find(path))
        return -ENOENT;
    return (fi->flags & O_ACCMODE) != O_RDONLY && folder()->disk->readonly ? -EROFS : 0;
}

static int fs_read(const char *path, char *buf, size_t size, off_t at, struct fuse_file_info *fi)
{
    const struct entry *e = find(path);

    (void)fi;
    if (!e || at < 0)
        return -EINVAL;
    if ((uint64_t)at >= e->size)
        return 0;
    size = (size_t)MIN((uint64_t)size, e->size - (uint64_t)at);
    int rc = disk_pread(folder()->disk, buf, size, e->offset + (uint64_t)at);
    return rc ? rc : (int)size;
}

static int fs_write(const char *path, const char *buf, size_t size, off_t at,
                    struct fuse_file_info *fi)
{
    const struct entry *e = find(path);

    (void)fi;
    if (!e || at < 0)
        return -EINVAL;
    if ((uint64_t)at > e->size || size > e->size - (uint64_t)at)
        return -ENOSPC;
    int rc = disk_pwrite(folder()->disk, buf, size, e->offset + (uint64_t)at);
    return rc ? rc : (int)size;
}

static int fs_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    (void)path;
    (void)data_only;
    (void)fi;
    return disk_flush(folder()->disk);
}

/** The size of a disk stays: only what changes nothing is allowed. */
static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    const struct entry *e = find(path);

    (void)fi;
    return e && (uint64_t)size == e->size ? 0 : -EPERM;
}

/** Holes: what a loop device makes of discards. */
static int fs_fallocate(const char *path, int mode, off_t at, off_t size, struct fuse_file_info *fi)
{
    const struct entry *e = find(path);
    bool unmap = mode & FALLOC_FL_PUNCH_HOLE;

    (void)fi;
    if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
        return -EOPNOTSUPP;
    if (!e || at < 0 || size < 0 || (uint64_t)at > e->size)
        return -EINVAL;
    uint64_t bytes = MIN((uint64_t)size, e->size - (uint64_t)at);
    return disk_write_zeroes(folder()->disk, e->offset + (uint64_t)at, bytes, unmap);
}

static const struct fuse_operations operations = {
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .read = fs_read,
    .write = fs_write,
    .fsync = fs_fsync,
    .truncate = fs_truncate,
    .fallocate = fs_fallocate,
};

static int fill_folder(struct folder *f, struct disk *d, struct error *err)
{
    struct disk_partition found[DISK_MAX_PARTITIONS];
    int n = disk_find_partitions(d, found);

    if (n < 0)
        return error_set(err, -n, "cannot read the partition table of '%s': %s", d->path,
                         strerror(-n));
    f->disk = d;
    f->entries[f->count++] = (struct entry){.name = "disk", .size = d->size_bytes};
    for (int i = 0; i < n; i++) {
        struct entry *e = &f->entries[f->count++];

        (void)snprintf(e->name, sizeof(e->name), "p%u", found[i].number);
        e->offset = found[i].offset;
        e->size = found[i].size;
    }
    return 0;
}

static int say_what_is_missing(const char *dir, struct error *err)
{
    if (access("/dev/fuse", F_OK))
        return error_set(err, ENODEV,
                         "cannot mount at '%s': this host has no /dev/fuse (kernel module 'fuse')",
                         dir);
    if (getuid() && access("/usr/bin/fusermount3", X_OK) && access("/bin/fusermount3", X_OK))
        return error_set(err, ENOENT, "cannot mount at '%s': package fuse3 is not installed", dir);
    return error_set(err, EIO, "cannot mount at '%s': %s", dir,
                     *complaint ? complaint : "the kernel refuses");
}

/** Serve what is mounted. */
static int serve(struct fuse *fuse, void (*ready)(void *arg), void *arg, struct error *err)
{
    struct fuse_session *session = fuse_get_session(fuse);

    if (fuse_set_signal_handlers(session))
        return error_set(err, EINVAL, "cannot watch signals");
    ready(arg);
    (void)fuse_loop_mt(fuse, 0); /* a signal's number, or an error of a mount that is gone */
    fuse_remove_signal_handlers(session);
    return 0;
}

int disk_fuse_serve(struct disk *d, const char *source, const char *dir, void (*ready)(void *arg),
                    void *arg, struct error *err)
{
    char option[4200];
    char *argv[] = {(char *)"posada", (char *)"-o", option, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct folder *f = calloc(1, sizeof(*f));
    bool is_plain = strlen(source) < 4000 && !strpbrk(source, ",\\");
    int rc = f ? fill_folder(f, d, err) : error_set(err, ENOMEM, "out of memory");

    if (rc) {
        free(f);
        return rc;
    }
    (void)snprintf(option, sizeof(option), "default_permissions,subtype=posada,fsname=%s%s",
                   is_plain ? source : "disk", d->readonly ? ",ro" : "");
    fuse_set_log_func(keep_complaint);
    struct fuse *fuse = fuse_new(&args, &operations, sizeof(operations), f);
    if (!fuse || fuse_mount(fuse, dir)) {
        rc = say_what_is_missing(dir, err);
    } else {
        rc = serve(fuse, ready, arg, err);
        fuse_unmount(fuse);
    }
    if (fuse)
        fuse_destroy(fuse);
    fuse_opt_free_args(&args);
    free(f);
    return rc;
}
