/* VDI: which image is below a differencing one. A child knows its parent by two UUIDs only: that of
 * the image, and that of its content, which changes whenever the parent is written to.
 *
 * Threads: any; set_backing() alone.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vdi/vdi.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FOLDER_MAX 10000 /* images that are looked at to find a parent */

bool vdi_is_null_uuid(const uint8_t *uuid)
{
    static const uint8_t null[VDI_UUID];

    return !memcmp(uuid, null, VDI_UUID);
}

void vdi_uuid_text(const uint8_t *u, char ret[37])
{
    (void)snprintf(ret, 37, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", load_le32(u),
                   load_le16(u + 4), load_le16(u + 6), u[8], u[9], u[10], u[11], u[12], u[13],
                   u[14], u[15]);
}

int vdi_new_uuid(uint8_t *ret)
{
    if (getrandom(ret, VDI_UUID, 0) != VDI_UUID)
        return -errno;
    ret[7] = (uint8_t)((ret[7] & 0x0f) | 0x40); /* RFC 4122: random, */
    ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80); /* of the usual variant */
    return 0;
}

/** The header of the image @name, if it is one. */
static bool read_head_of(int dir_fd, const char *name, uint8_t *head)
{
    struct stat st;
    /* O_NONBLOCK: a pipe's name must not make us wait. */
    cleanup(fd_closep) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    return fd >= 0 && !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) &&
           !fd_pread_all(fd, head, DISK_SECTOR, 0) &&
           load_le32(head + VDI_AT_SIGNATURE) == VDI_SIGNATURE;
}

static bool is_vdi_name(const char *name)
{
    size_t n = strlen(name);

    return n > 4 && name[0] != '.' && !strcasecmp(name + n - 4, ".vdi");
}

/** The image of @folder (closed here) that has UUID @uuid. */
static char *search(DIR *folder, const uint8_t *uuid)
{
    uint8_t head[DISK_SECTOR];
    char *found = NULL;
    struct dirent *e;
    int left = FOLDER_MAX;

    while (!found && left && (e = readdir(folder))) {
        if (!is_vdi_name(e->d_name))
            continue;
        left--;
        if (read_head_of(dirfd(folder), e->d_name, head) &&
            !memcmp(head + VDI_AT_UUID, uuid, VDI_UUID))
            found = strdup(e->d_name);
    }
    (void)closedir(folder); /* it was read only */
    return found;
}

int vdi_find_backing(const struct disk_open *open, struct disk *d, char **ret, struct error *err)
{
    const uint8_t *uuid = vdi_of(d)->head + VDI_AT_UUID_LINK;
    char text[37];

    if (load_le32(vdi_of(d)->head + VDI_AT_TYPE) != VDI_DIFF || open->dir_fd < 0)
        return 0;
    cleanup(fd_closep) int fd = openat(open->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (!folder)
        return error_set(err, errno, "cannot list the folder of '%s': %s", d->path,
                         strerror(errno));
    (void)fd_take(&fd); /* the folder's now */
    *ret = search(folder, uuid);
    if (*ret)
        return 0;
    vdi_uuid_text(uuid, text);
    return error_set(
        err, ENOENT,
        "disk '%s' is made over the VDI image with UUID %s, and no *.vdi of its folder has it",
        d->path, text);
}

int vdi_match_below(struct disk *d, const struct disk *below, struct error *err)
{
    const uint8_t *head = vdi_of(d)->head;
    const uint8_t *parent = ((const struct vdi *)below)->head;

    if (below->format != &vdi_format)
        return error_set(err, EINVAL, "disk '%s' is a VDI image, and '%s' below it is not", d->path,
                         below->path);
    if (memcmp(head + VDI_AT_UUID_LINK, parent + VDI_AT_UUID, VDI_UUID) != 0)
        return error_set(err, EINVAL, "disk '%s' was not made over '%s': the UUIDs differ", d->path,
                         below->path);
    if (!vdi_is_null_uuid(head + VDI_AT_UUID_PARENT_MODIFY) &&
        memcmp(head + VDI_AT_UUID_PARENT_MODIFY, parent + VDI_AT_UUID_MODIFY, VDI_UUID) != 0)
        return error_set(
            err, EINVAL,
            "disk '%s' was made over '%s', which has been written to since: its content would be wrong",
            d->path, below->path);
    return 0;
}

/** The folder of d->path, opened. */
static int open_own_folder(const struct disk *d)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(d->path, '/');

    if (slash - d->path >= PATH_MAX)
        return -1;
    (void)snprintf(folder, sizeof(folder), "%.*s", slash ? (int)MAX(slash - d->path, 1L) : 1,
                   slash ? d->path : ".");
    return open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/** The header of the image that is to be below @d; it must lie where find_backing() will look. */
static int read_parent(const struct disk *d, const char *path, uint8_t *head, struct error *err)
{
    const char *slash = strrchr(path, '/');
    cleanup(fd_closep) int fd = open_own_folder(d);
    struct stat a;
    struct stat b;

    if (fd < 0 || !read_head_of(fd, path, head))
        return error_set(err, EINVAL, "'%s' is not a VDI image that can be read", path);
    if (!is_vdi_name(slash ? slash + 1 : path) || fstatat(fd, path, &a, 0) ||
        fstatat(fd, slash ? slash + 1 : path, &b, 0) || a.st_dev != b.st_dev ||
        a.st_ino != b.st_ino)
        return error_set(
            err, EINVAL,
            "the image below a VDI image is looked for among the *.vdi of its folder: '%s' is not there",
            path);
    return 0;
}

int vdi_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    struct vdi *v = vdi_of(d);
    uint8_t parent[DISK_SECTOR] = {0};
    uint8_t head[DISK_SECTOR];
    char *copy = path ? strdup(path) : NULL;
    int rc = 0;

    if (path && format && strcmp(format, "vdi") != 0)
        rc = error_set(err, EINVAL, "below a VDI image there can only be another one");
    else if (path && !copy)
        rc = error_set(err, ENOMEM, "out of memory");
    else if (path)
        rc = read_parent(d, path, parent, err);
    mutex_lock(&v->lock);
    memcpy(head, v->head, sizeof(head));
    if (!rc && path && load_le32(head + VDI_AT_TYPE) == VDI_FIXED)
        rc = error_set(err, EINVAL, "'%s' is a fixed VDI image: there can be nothing below it",
                       d->path);
    if (!rc) {
        if (load_le32(head + VDI_AT_TYPE) != VDI_FIXED)
            store_le32(head + VDI_AT_TYPE, path ? VDI_DIFF : VDI_DYNAMIC);
        memcpy(head + VDI_AT_UUID_LINK, parent + VDI_AT_UUID, VDI_UUID);
        memcpy(head + VDI_AT_UUID_PARENT_MODIFY, parent + VDI_AT_UUID_MODIFY, VDI_UUID);
        rc = vdi_write_head(v, head);
        if (!rc)
            rc = file_flush(v->file);
        if (rc)
            (void)error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc));
    }
    mutex_unlock(&v->lock);
    if (rc) {
        free(copy);
        return rc;
    }
    free(d->backing_path);
    d->backing_path = copy;
    if (path && !d->backing_format)
        d->backing_format = strdup("vdi"); /* only told; always so */
    return 0;
}
