/* NoCloud seed disks. Any thread.
 * Spec: cloud-init's documentation, "NoCloud": a file system labelled CIDATA or cidata, ISO 9660 or
 * vfat, with the files user-data and meta-data in its root. */
#include "store/seed.h"

#include "base/fd.h"
#include "base/paths.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { USER_DATA_MAX = 1 << 20 };

static int put_file(struct archive *a, const char *name, const char *data, size_t size)
{
    struct archive_entry *e = archive_entry_new();

    if (!e)
        return ARCHIVE_FATAL;
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0444);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, time(NULL), 0);
    int r = archive_write_header(a, e);
    if (r == ARCHIVE_OK && size && archive_write_data(a, data, size) != (la_ssize_t)size)
        r = ARCHIVE_FATAL;
    archive_entry_free(e);
    return r;
}

static int write_iso(int fd, const char *user, size_t user_size, const char *meta,
                     struct error *err)
{
    struct archive *a = archive_write_new();
    int r = a ? archive_write_set_format_iso9660(a) : ARCHIVE_FATAL;

    if (r == ARCHIVE_OK)
        r = archive_write_set_format_option(a, "iso9660", "volume-id", "cidata");
    if (r == ARCHIVE_OK)
        r = archive_write_set_format_option(a, "iso9660", "joliet", "1");
    if (r == ARCHIVE_OK)
        r = archive_write_open_fd(a, fd);
    if (r == ARCHIVE_OK)
        r = put_file(a, "user-data", user, user_size);
    if (r == ARCHIVE_OK)
        r = put_file(a, "meta-data", meta, strlen(meta));
    if (r == ARCHIVE_OK)
        r = archive_write_close(a);
    if (r != ARCHIVE_OK)
        (void)error_set(err, EIO, "cannot write the seed disk: %s",
                        a ? archive_error_string(a) : "out of memory");
    archive_write_free(a);
    return r == ARCHIVE_OK ? 0 : -EIO;
}

/** cloud-init ignores what begins otherwise, without a word. */
static int check_user_data(const char *path, const char *text, struct error *err)
{
    static const char *const begins[] = {
        "#cloud-config", "#!",           "#include",      "#cloud-boothook", "#upstart-job",
        "#part-handler", "## template:", "Content-Type:", "MIME-Version:",   "From "};

    for (size_t i = 0; i < ARRAY_SIZE(begins); i++) {
        if (!strncmp(text, begins[i], strlen(begins[i])))
            return 0;
    }
    return error_set(err, EINVAL,
                     "'%s' is no user data that cloud-init takes: it must begin with "
                     "'#cloud-config', '#!' or the like",
                     path);
}

/** A file without a name, in the folder of the instances: one of them may give it a name. */
static int open_nameless(struct error *err)
{
    cleanup(freep) char *base = paths_data("instances", err);
    cleanup(freep) char *path = base ? paths_format(err, "%s/.seed-XXXXXX", base) : NULL;

    if (!path)
        return -EIO;
    int fd = open(base, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0 && (fd = mkostemp(path, O_CLOEXEC)) >= 0) /* not all file systems can */
        (void)unlink(path);
    return fd < 0 ? error_set(err, errno, "cannot create a file in '%s': %s", base, strerror(errno))
                  : fd;
}

/** A seed disk with @size bytes of user data @user. */
static int make(const char *user, size_t size, const char *name, int *ret_fd, struct error *err)
{
    uint64_t id;
    int r;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return error_set(err, errno, "no random numbers: %s", strerror(errno));
    cleanup(freep) char *meta = paths_format(err, "instance-id: %s-%016llx\nlocal-hostname: %s\n",
                                             name, (unsigned long long)id, name);
    if (!meta)
        return -ENOMEM;
    cleanup(fd_closep) int fd = open_nameless(err);
    if (fd < 0)
        return fd;
    r = write_iso(fd, user, size, meta, err);
    if (!r && fsync(fd))
        r = error_set(err, errno, "cannot write the seed disk: %s", strerror(errno));
    if (!r)
        *ret_fd = fd_take(&fd);
    return r;
}

int seed_make(const char *user_data, const char *name, int *ret_fd, struct error *err)
{
    cleanup(freep) char *user = NULL;
    size_t size;
    int r = paths_read(user_data, USER_DATA_MAX, &user, &size, err);

    if (!r)
        r = check_user_data(user_data, user, err);
    return r ? r : make(user, size, name, ret_fd, err);
}

/** All of the entry's data; NULL: it is too much, or damaged. */
static char *read_entry(struct archive *a, struct archive_entry *e, size_t *ret_size)
{
    int64_t size = archive_entry_size(e);
    char *data = size >= 0 && size <= USER_DATA_MAX ? malloc((size_t)size + 1) : NULL;

    if (data && archive_read_data(a, data, (size_t)size) != size) {
        free(data);
        return NULL;
    }
    *ret_size = (size_t)size;
    return data;
}

int seed_renew(const char *path, const char *name, int *ret_fd, struct error *err)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    cleanup(freep) char *user = NULL;
    size_t size = 0;
    bool has_meta = false;
    unsigned others = 0;

    if (!a || archive_read_support_format_iso9660(a) != ARCHIVE_OK ||
        archive_read_open_filename(a, path, 1 << 16) != ARCHIVE_OK) {
        archive_read_free(a);
        return error_set(err, ENOTSUP, "'%s' is no seed disk", path);
    }
    while (others < 2 && archive_read_next_header(a, &e) == ARCHIVE_OK) {
        const char *entry = archive_entry_pathname(e);

        if (entry && !strcmp(entry, "user-data") && !user)
            user = read_entry(a, e, &size);
        else if (entry && !strcmp(entry, "meta-data"))
            has_meta = true;
        else
            others++; /* the root folder is one */
    }
    archive_read_free(a);
    if (!user || !has_meta || others > 1)
        return error_set(err, ENOTSUP, "'%s' is no seed disk of Posada's", path);
    return make(user, size, name, ret_fd, err);
}
