/* Decompression and .deb reading through libarchive. A .deb is an ar archive of debian-binary,
 * control.tar.* and data.tar.*; the inner archives are read as they stream out of the outer one.
 * Contents are hostile: names are checked, sizes limited. Any thread. Format: deb(5). */
#include "image/unpack.h"

#include "base/fd.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#define CONTROL_FILE_MAX (16u << 20)
#define BLOCK_SIZE       (64u << 10)

static void archive_freep(struct archive **a)
{
    if (*a)
        (void)archive_read_free(*a); /* read side: nothing to lose */
}

int deb_read_entry(struct archive *a, size_t max, char **ret, size_t *ret_size, struct error *err)
{
    cleanup(freep) char *buf = NULL;
    size_t size = 0, room = 0;

    for (;;) {
        if (size + 1 >= room) {
            char *grown = realloc(buf, room = room ? 2 * room : BLOCK_SIZE);

            if (!grown)
                return error_set(err, ENOMEM, "out of memory");
            buf = grown;
        }
        la_ssize_t n = archive_read_data(a, buf + size, room - 1 - size);
        if (n < 0)
            return error_set(err, EBADMSG, "damaged archive: %s", archive_error_string(a));
        if (!n)
            break;
        size += (size_t)n;
        if (size > max)
            return error_set(err, EFBIG, "contents are larger than %zu bytes", max);
    }
    buf[size] = 0;
    *ret = ptr_take(&buf);
    *ret_size = size;
    return 0;
}

int unpack_memory(const void *data, size_t size, size_t max, char **ret, size_t *ret_size,
                  struct error *err)
{
    cleanup(archive_freep) struct archive *a = archive_read_new();
    struct archive_entry *entry;

    if (!a || archive_read_support_filter_all(a) < ARCHIVE_WARN ||
        archive_read_support_format_raw(a))
        return error_set(err, ENOMEM, "cannot set up libarchive");
    int r = archive_read_open_memory(a, data, size);
    if (!r)
        r = archive_read_next_header(a, &entry);
    if (r == ARCHIVE_EOF)
        return error_set(err, EBADMSG, "empty data");
    if (r != ARCHIVE_OK)
        return error_set(err, EBADMSG, "damaged data: %s", archive_error_string(a));
    return deb_read_entry(a, max, ret, ret_size, err);
}

/** An entry's name in canonical form, or NULL when it is one that no package may have. */
static const char *clean_name(const char *name, char *buf, size_t room)
{
    size_t n = 0;

    if (!name || name[0] == '/')
        return NULL;
    while (*name) {
        size_t part = strcspn(name, "/");

        if (part == 2 && !memcmp(name, "..", 2))
            return NULL;
        if (part && !(part == 1 && *name == '.')) {
            if (n + part + 2 > room)
                return NULL;
            if (n)
                buf[n++] = '/';
            memcpy(buf + n, name, part);
            n += part;
        }
        name += part;
        name += *name == '/';
    }
    buf[n] = 0;
    return buf;
}

struct inner {
    struct archive *outer;
};

static la_ssize_t read_outer(struct archive *a, void *arg, const void **buf)
{
    struct inner *in = arg;
    size_t size = 0;
    la_int64_t offset;
    int r = archive_read_data_block(in->outer, buf, &size, &offset);

    if (r == ARCHIVE_EOF)
        return 0;
    if (r < ARCHIVE_WARN) {
        archive_set_error(a, EBADMSG, "%s", archive_error_string(in->outer));
        return ARCHIVE_FATAL;
    }
    return (la_ssize_t)size;
}

static int handle_entry(struct archive *a, struct archive_entry *entry, const char *name,
                        bool is_control, const struct deb_ops *ops, void *arg, struct error *err)
{
    if (!is_control)
        return ops->data ? ops->data(a, entry, name, arg) : 0;
    if (!ops->control || archive_entry_filetype(entry) != AE_IFREG)
        return 0;
    cleanup(freep) char *data = NULL;
    size_t size = 0;
    int r = deb_read_entry(a, CONTROL_FILE_MAX, &data, &size, err);
    return r ? r : ops->control(name, data, size, arg);
}

/** Walk control.tar.* or data.tar.*, the current entry of @outer. */
static int read_inner(struct archive *outer, bool is_control, const struct deb_ops *ops, void *arg,
                      struct error *err)
{
    cleanup(archive_freep) struct archive *a = archive_read_new();
    struct archive_entry *entry;
    struct inner in = {outer};
    char name[4096];
    int r;

    if (!a || archive_read_support_filter_all(a) < ARCHIVE_WARN ||
        archive_read_support_format_tar(a) || archive_read_support_format_empty(a))
        return error_set(err, ENOMEM, "cannot set up libarchive");
    for (r = archive_read_open(a, &in, NULL, read_outer, NULL); r >= ARCHIVE_WARN;) {
        r = archive_read_next_header(a, &entry);
        if (r < ARCHIVE_WARN || r == ARCHIVE_EOF)
            break;
        const char *clean = clean_name(archive_entry_pathname(entry), name, sizeof(name));
        if (!clean)
            return error_set(err, EBADMSG, "an entry has a forbidden name");
        if (!*clean)
            continue;
        int e = handle_entry(a, entry, clean, is_control, ops, arg, err);
        if (e)
            return e;
    }
    return r == ARCHIVE_EOF
               ? 0
               : error_set(err, EBADMSG, "damaged package: %s", archive_error_string(a));
}

static int read_members(struct archive *a, const struct deb_ops *ops, void *arg, struct error *err)
{
    struct archive_entry *entry;
    bool seen_control = false, seen_data = false;
    int r;

    while ((r = archive_read_next_header(a, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
        const char *name = archive_entry_pathname(entry);
        bool is_control = name && !strncmp(name, "control.tar", 11);
        bool is_data = name && !strncmp(name, "data.tar", 8);

        if (!is_control && !is_data)
            continue;
        if (is_data && !seen_control)
            return error_set(err, EBADMSG, "damaged package: data before control");
        seen_control |= is_control;
        seen_data |= is_data;
        r = read_inner(a, is_control, ops, arg, err);
        if (r)
            return r;
    }
    if (r != ARCHIVE_EOF)
        return error_set(err, EBADMSG, "damaged package: %s", archive_error_string(a));
    return seen_control && seen_data ? 0 : error_set(err, EBADMSG, "not a Debian package");
}

int deb_read(const char *path, const struct deb_ops *ops, void *arg, struct error *err)
{
    cleanup(archive_freep) struct archive *a = archive_read_new();

    if (!a || archive_read_support_format_ar(a))
        return error_set(err, ENOMEM, "cannot set up libarchive");
    if (archive_read_open_filename(a, path, BLOCK_SIZE))
        return error_set(err, EBADMSG, "cannot read package '%s': %s", path,
                         archive_error_string(a));
    int r = read_members(a, ops, arg, err);
    if (r == -EBADMSG)
        error_prefix(err, "package '%s'", path);
    return r;
}
