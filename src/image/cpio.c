/* cpio "newc" writer. Parent folders are added once each, in order, because Linux does not make
 * them. One thread. Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst. */
#include "image/cpio.h"

#include "base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CPIO_DIRS_MAX 4096

struct cpio {
    FILE *f;
    uint32_t ino; /* of the last entry; every entry is a file of its own */
    int error;    /* first failure, negative errno */
    uint64_t size;
    char *dirs[CPIO_DIRS_MAX]; /* folders already in the archive */
    size_t dir_count;
};

struct cpio *cpio_new(const char *path, struct error *err)
{
    struct cpio *c = calloc(1, sizeof(*c));

    if (!c) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    c->f = fopen(path, "wbe");
    if (!c->f) {
        error_set(err, errno, "cannot create '%s': %s", path, strerror(errno));
        free(c);
        return NULL;
    }
    return c;
}

static void put(struct cpio *c, const void *data, size_t size)
{
    if (size && fwrite(data, 1, size, c->f) != size && !c->error)
        c->error = errno ? -errno : -EIO;
    c->size += size;
}

/** Header, name and contents are each padded to a multiple of four bytes. */
static void pad(struct cpio *c)
{
    put(c, "\0\0\0", -c->size & 3);
}

static int entry(struct cpio *c, const char *name, unsigned mode, unsigned nlink, uint64_t rdev,
                 const void *data, size_t size)
{
    char header[111];

    if (size > UINT32_MAX)
        c->error = c->error ? c->error : -EFBIG;
    if (c->error)
        return c->error;
    (void)snprintf(header, sizeof(header),
                   "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ++c->ino, mode, 0,
                   0, nlink, 0, (uint32_t)size, 0, 0, (uint32_t)(rdev >> 32), (uint32_t)rdev,
                   (uint32_t)strlen(name) + 1, 0); /* always 110 characters */
    put(c, header, 110);
    put(c, name, strlen(name) + 1);
    pad(c);
    put(c, data, size);
    pad(c);
    return c->error;
}

static bool has_dir(const struct cpio *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->dir_count; i++)
        if (!strncmp(c->dirs[i], name, n) && !c->dirs[i][n])
            return true;
    return false;
}

static int add_dir(struct cpio *c, const char *name, size_t n, unsigned mode)
{
    if (has_dir(c, name, n))
        return c->error;
    char *copy = c->dir_count < CPIO_DIRS_MAX ? strndup(name, n) : NULL;
    if (!copy)
        return c->error = c->error ? c->error : -ENOMEM;
    c->dirs[c->dir_count++] = copy;
    return entry(c, copy, S_IFDIR | mode, 2, 0, NULL, 0);
}

static int add_parents(struct cpio *c, const char *name)
{
    for (const char *p = name; (p = strchr(p, '/')); p++)
        if (add_dir(c, name, (size_t)(p - name), 0755))
            break;
    return c->error;
}

int cpio_add_dir(struct cpio *c, const char *name, unsigned mode)
{
    int r = add_parents(c, name);

    return r ? r : add_dir(c, name, strlen(name), mode);
}

int cpio_add_file(struct cpio *c, const char *name, unsigned mode, const void *data, size_t size)
{
    int r = add_parents(c, name);

    return r ? r : entry(c, name, S_IFREG | mode, 1, 0, data, size);
}

int cpio_add_link(struct cpio *c, const char *name, const char *target)
{
    int r = add_parents(c, name);

    return r ? r : entry(c, name, S_IFLNK | 0777, 1, 0, target, strlen(target));
}

int cpio_add_char_device(struct cpio *c, const char *name, unsigned mode, unsigned major,
                         unsigned minor)
{
    int r = add_parents(c, name);

    return r ? r : entry(c, name, S_IFCHR | mode, 1, (uint64_t)major << 32 | minor, NULL, 0);
}

void cpio_abandon(struct cpio *c)
{
    if (!c)
        return;
    (void)fclose(c->f); /* the file is given up */
    for (size_t i = 0; i < c->dir_count; i++)
        free(c->dirs[i]);
    free(c);
}

int cpio_finish(struct cpio *c, struct error *err)
{
    int r = entry(c, "TRAILER!!!", 0, 1, 0, NULL, 0);

    if (!r && fflush(c->f))
        r = -errno;
    cpio_abandon(c);
    return r ? error_set(err, -r, "cannot write an initramfs: %s", strerror(-r)) : 0;
}
