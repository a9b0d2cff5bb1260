/* The store of images.
 *
 * Invariants:
 *  1. IMAGES/KIND-SUITE-ARCH exists whole or not at all: it comes by rename, is replaced by an
 * exchange, and is renamed away before it is deleted.
 *  2. Folders IMAGES/.NAME.tmp-* are only touched under the lock of NAME; whoever holds it may
 * delete them all.
 *  3. A lock file (IMAGES/.NAME.lock) is deleted by its holder when there is no image NAME.
 * Any thread; processes exclude each other by OFD locks. */
#include "image/store.h"

#include "base/fd.h"
#include "base/paths.h"
#include "image/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define META_NAME "image"
#define META_MAX  65536

void store_dir_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX])
{
    const char *kind = spec->kind == IMAGE_TINY ? "tiny" : "debian";

    (void)snprintf(ret, IMAGE_NAME_MAX, "%s-%s-%s", kind, spec->suite, spec->arch);
}

void image_free(struct image *image)
{
    if (!image)
        return;
    free(image->name);
    free(image->dir);
    free(image->kernel);
    free(image->initrd);
    free(image->disk);
    free(image->append);
    free(image->kernel_release);
    free(image);
}

static char *field(struct slice stanza, const char *name)
{
    struct slice value = {"", 0};

    (void)control_find(stanza, name, &value); /* absent: empty */
    return slice_dup(value);
}

/** The path of a file that the image has if its field is "yes". */
static char *file_of(struct slice stanza, const char *name, const char *dir, const char *file)
{
    struct slice value;

    if (!control_find(stanza, name, &value) || !slice_is(value, "yes"))
        return NULL;
    return paths_format(NULL, "%s/%s", dir, file);
}

static int parse_spec(struct slice stanza, struct image_spec *ret, struct error *err)
{
    cleanup(freep) char *name = field(stanza, "Name");
    cleanup(freep) char *mirror = field(stanza, "Mirror");

    if (!name || !mirror)
        return error_set(err, ENOMEM, "out of memory");
    return image_spec_parse(name, NULL, *mirror ? mirror : NULL, ret, err);
}

/** Read the image in folder @dir, which becomes its own (freed on failure too). */
static int load(char *dir, struct image **ret, struct error *err)
{
    cleanup(freep) char *text = NULL;
    struct slice value = {"", 0};
    struct image *image = calloc(1, sizeof(*image));
    char name[IMAGE_NAME_MAX];
    uint64_t built = 0;
    size_t size = 0;

    if (!image) {
        free(dir);
        return error_set(err, ENOMEM, "out of memory");
    }
    image->dir = dir;
    cleanup(freep) char *path = paths_format(err, "%s/" META_NAME, dir);
    int r = path ? paths_read(path, META_MAX, &text, &size, err) : -ENOMEM;
    struct slice stanza = {text ? text : "", size};
    if (!r)
        r = parse_spec(stanza, &image->spec, err);
    if (r) {
        image_free(image);
        return r;
    }
    image_spec_name(&image->spec, name);
    image->name = strdup(name);
    image->kernel = paths_format(NULL, "%s/kernel", dir);
    image->initrd = file_of(stanza, "Initrd", dir, "initrd");
    image->disk = file_of(stanza, "Disk", dir, "disk.raw");
    image->append = field(stanza, "Append");
    image->kernel_release = field(stanza, "Kernel");
    if (control_find(stanza, "Built", &value) && slice_number(value, &built))
        image->built = (time_t)built;
    image->size_bytes = paths_usage(dir);
    if (!image->name || !image->kernel || !image->append || !image->kernel_release) {
        image_free(image);
        return error_set(err, ENOMEM, "out of memory");
    }
    *ret = image;
    return 0;
}

int image_find(const struct image_spec *spec, struct image **ret, struct error *err)
{
    cleanup(freep) char *images = paths_images(err);
    char name[IMAGE_NAME_MAX], shown[IMAGE_NAME_MAX];

    if (!images)
        return -EIO;
    store_dir_name(spec, name);
    image_spec_name(spec, shown);
    char *dir = paths_format(err, "%s/%s", images, name);
    if (!dir)
        return -ENOMEM;
    if (access(dir, F_OK)) {
        free(dir);
        return error_set(err, ENOENT, "image '%s' has not been built: run 'posada image build %s'",
                         shown, shown);
    }
    return load(dir, ret, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct image *const *)a)->name, (*(struct image *const *)b)->name);
}

int image_list(struct image ***ret, size_t *ret_n, struct error *err)
{
    cleanup(freep) char *images = paths_images(err);
    struct image **list = NULL;
    size_t n = 0;

    DIR *d = images ? opendir(images) : NULL;
    if (!d)
        return error_set(err, errno ? errno : EIO, "cannot read folder '%s': %s",
                         images ? images : "images", strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        char *dir = e->d_name[0] == '.' ? NULL : paths_format(NULL, "%s/%s", images, e->d_name);
        struct image **grown = dir ? reallocarray(list, n + 1, sizeof(struct image *)) : NULL;

        if (!grown) {
            free(dir);
            continue;
        }
        list = grown;
        if (!load(dir, &list[n], NULL)) /* anything else in there is none of ours */
            n++;
    }
    closedir(d);
    if (n)
        qsort(list, n, sizeof(struct image *), by_name);
    *ret = list;
    *ret_n = n;
    return 0;
}

void image_list_free(struct image **images, size_t n)
{
    for (size_t i = 0; i < n; i++)
        image_free(images[i]);
    free(images);
}

int store_lock(const struct image_spec *spec, bool wait, int (*tick)(void *arg), void *arg,
               struct error *err)
{
    cleanup(freep) char *images = paths_images(err);
    char name[IMAGE_NAME_MAX];

    if (!images)
        return -EIO;
    store_dir_name(spec, name);
    cleanup(freep) char *path = paths_format(err, "%s/.%s.lock", images, name);
    if (!path)
        return -ENOMEM;
    int fd;
    while ((fd = fd_lock_file(path)) < 0) {
        if (fd != -EWOULDBLOCK)
            return error_set(err, -fd, "cannot lock '%s': %s", path, strerror(-fd));
        if (!wait)
            return error_set(err, EBUSY, "image '%s' is being built", name);
        if (tick && tick(arg))
            return error_set(err, ECANCELED, "cancelled");
        (void)usleep(200000); /* woken early by a signal: just looks again */
    }
    return fd;
}

void store_unlock(const struct image_spec *spec, int lock)
{
    cleanup(freep) char *images = paths_images(NULL);
    char name[IMAGE_NAME_MAX];

    store_dir_name(spec, name);
    cleanup(freep) char *dir = images ? paths_format(NULL, "%s/%s", images, name) : NULL;
    cleanup(freep) char *path = images ? paths_format(NULL, "%s/.%s.lock", images, name) : NULL;
    if (lock >= 0 && dir && path && access(dir, F_OK))
        (void)unlink(path); /* an empty file more does no harm */
    fd_close(lock);
}

/** Delete all folders of earlier builds and removals; the lock is held. */
static void sweep(const char *images, const char *name)
{
    char prefix[IMAGE_NAME_MAX + 8];
    DIR *d = opendir(images);

    (void)snprintf(prefix, sizeof(prefix), ".%s.tmp-", name);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)))
            continue;
        cleanup(freep) char *path = paths_format(NULL, "%s/%s", images, e->d_name);
        if (path)
            (void)paths_remove(path); /* what cannot be deleted now stays for the next sweep */
    }
    if (d)
        closedir(d);
}

int store_begin(const struct image_spec *spec, char **ret, struct error *err)
{
    cleanup(freep) char *images = paths_images(err);
    char name[IMAGE_NAME_MAX];

    if (!images)
        return -EIO;
    store_dir_name(spec, name);
    sweep(images, name);
    cleanup(freep) char *dir = paths_format(err, "%s/.%s.tmp-%d", images, name, (int)getpid());
    if (!dir)
        return -ENOMEM;
    if (mkdir(dir, 0755))
        return error_set(err, errno, "cannot make folder '%s': %s", dir, strerror(errno));
    *ret = ptr_take(&dir);
    return 0;
}

static int write_meta(const char *dir, const struct store_meta *m, struct error *err)
{
    char name[IMAGE_NAME_MAX];
    cleanup(freep) char *path = paths_format(err, "%s/" META_NAME, dir);

    image_spec_name(m->spec, name);
    cleanup(freep) char *text = paths_format(
        err, "Name: %s\nMirror: %s\nKernel: %s\nAppend: %s\nInitrd: %s\nDisk: %s\nBuilt: %lld\n",
        name, m->spec->mirror, m->kernel_release, m->append, m->has_initrd ? "yes" : "no",
        m->has_disk ? "yes" : "no", (long long)time(NULL));
    if (!path || !text)
        return -ENOMEM;
    return paths_write(path, text, strlen(text), err);
}

int store_commit(const char *dir, const struct store_meta *meta, struct error *err)
{
    cleanup(freep) char *images = paths_images(err);
    char name[IMAGE_NAME_MAX];

    store_dir_name(meta->spec, name);
    cleanup(freep) char *final = images ? paths_format(err, "%s/%s", images, name) : NULL;
    if (!final)
        return -EIO;
    int r = write_meta(dir, meta, err);
    if (r)
        return r;
    if (!renameat2(AT_FDCWD, dir, AT_FDCWD, final, RENAME_NOREPLACE))
        return 0;
    if (errno == EINVAL && !rename(dir, final)) /* a file system without the flag */
        return 0;
    if (renameat2(AT_FDCWD, dir, AT_FDCWD, final, RENAME_EXCHANGE))
        return error_set(err, errno, "cannot replace '%s': %s", final, strerror(errno));
    (void)paths_remove(dir); /* now the older image; else the next sweep takes it */
    return 0;
}

static int remove_locked(const struct image_spec *spec, struct error *err)
{
    struct image *image = NULL;
    char name[IMAGE_NAME_MAX];
    cleanup(freep) char *images = paths_images(err);

    if (!images)
        return -EIO;
    int r = image_find(spec, &image, err);
    if (r)
        return r;
    store_dir_name(spec, name);
    sweep(images, name);
    cleanup(freep) char *away = paths_format(err, "%s/.%s.tmp-%d", images, name, (int)getpid());
    if (!away)
        r = -ENOMEM;
    else if (rename(image->dir, away))
        r = error_set(err, errno, "cannot remove '%s': %s", image->dir, strerror(errno));
    else
        (void)paths_remove(away); /* else the next sweep takes it */
    image_free(image);
    return r;
}

int image_remove(const struct image_spec *spec, struct error *err)
{
    int lock = store_lock(spec, false, NULL, NULL, err);

    if (lock < 0)
        return lock;
    int r = remove_locked(spec, err);
    store_unlock(spec, lock);
    return r;
}
