/* Reading archives that come from anywhere.
 *
 * Members must be regular files with plain relative names, each once; sparse ones and those with
 * more bytes than their headers say are libarchive's to refuse. Sums are taken of what was read.
 * One thread. */
#include "bundle/pack.h"

#include "base/fd.h"
#include "base/paths.h"
#include "bundle/sum.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES     (256u << 10)
#define HOLE_BYTES     4096u
#define SKIP_BYTES_MAX (16ULL << 30)

struct unpack {
    struct archive *archive;
    struct sums sums;
    pack_progress progress;
    void *arg;
    uint64_t done_bytes;
    uint64_t left_bytes; /* of the member that its header promises */
};

static int failed(const struct unpack *u, struct error *err)
{
    const char *text = archive_error_string(u->archive);

    return error_set(err, EINVAL, "the archive cannot be read: %s", text ? text : "it is damaged");
}

int unpack_new(int fd, pack_progress progress, void *arg, struct unpack **ret, struct error *err)
{
    struct unpack *u = calloc(1, sizeof(*u));

    if (!u || !(u->archive = archive_read_new())) {
        free(u);
        return error_set(err, ENOMEM, "out of memory");
    }
    u->progress = progress;
    u->arg = arg;
    if (archive_read_support_format_tar(u->archive) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(u->archive) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(u->archive) != ARCHIVE_OK ||
        archive_read_support_filter_xz(u->archive) != ARCHIVE_OK ||
        archive_read_open_fd(u->archive, fd, READ_BYTES) != ARCHIVE_OK) {
        int rc = failed(u, err);
        unpack_free(u);
        return rc;
    }
    *ret = u;
    return 0;
}

/** Relative, without "." or ".." or empty parts, of printable ASCII. */
static bool name_is_plain(const char *name)
{
    size_t n = strlen(name);

    if (!n || n > PACK_NAME_MAX)
        return false;
    for (const char *part = name;; part++) {
        size_t size = strcspn(part, "/");

        if (!size || (part[0] == '.' && (size == 1 || (size == 2 && part[1] == '.'))))
            return false;
        for (size_t i = 0; i < size; i++) {
            if (part[i] < ' ' || part[i] > '~' || part[i] == '\\')
                return false;
        }
        part += size;
        if (!*part)
            return true;
    }
}

int unpack_next(struct unpack *u, const char **ret_name, uint64_t *ret_size, struct error *err)
{
    struct archive_entry *e;
    int r = archive_read_next_header(u->archive, &e);

    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
        return failed(u, err);
    const char *name = archive_entry_pathname(e);
    if (!name || !name_is_plain(name))
        return error_set(err, EINVAL, "the archive has a member without a plain name");
    if (archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
        archive_entry_size(e) < 0 || !archive_entry_size_is_set(e))
        return error_set(err, EINVAL, "member '%s' is not a regular file", name);
    if (sums_find(&u->sums, name))
        return error_set(err, EINVAL, "member '%s' is there twice", name);
    if (u->sums.n >= PACK_MEMBERS_MAX)
        return error_set(err, EINVAL, "the archive has too many members");
    int rc = sums_begin(&u->sums, name, err);
    if (rc)
        return rc;
    u->left_bytes = (uint64_t)archive_entry_size(e);
    *ret_name = u->sums.v[u->sums.n - 1].name;
    *ret_size = u->left_bytes;
    return 1;
}

/** Some of the member; *@ret_size 0 at its end. */
static int take(struct unpack *u, void *buf, size_t size, size_t *ret_size, struct error *err)
{
    la_ssize_t n = archive_read_data(u->archive, buf, (size_t)MIN((uint64_t)size, u->left_bytes));

    if (n < 0)
        return failed(u, err);
    if (!n && u->left_bytes)
        return error_set(err, EINVAL, "the archive is cut off");
    u->left_bytes -= (uint64_t)n;
    u->done_bytes += (uint64_t)n;
    *ret_size = (size_t)n;
    if (n)
        sums_update(&u->sums, buf, (size_t)n);
    else
        sums_end(&u->sums);
    if (u->progress && u->progress(u->arg, u->done_bytes))
        return error_set(err, ECANCELED, "cancelled");
    return 0;
}

int unpack_text(struct unpack *u, size_t max, char **ret, size_t *ret_size, struct error *err)
{
    size_t size = 0;
    size_t n = 0;

    if (u->left_bytes > max)
        return error_set(err, EINVAL, "member '%s' is too long", u->sums.v[u->sums.n - 1].name);
    char *text = malloc((size_t)u->left_bytes + 1);
    int rc = text ? 0 : error_set(err, ENOMEM, "out of memory");
    do {
        if (!rc)
            rc = take(u, text + size, (size_t)u->left_bytes, &n, err);
        size += n;
    } while (!rc && n);
    if (rc) {
        free(text);
        return rc;
    }
    text[size] = 0;
    *ret = text;
    *ret_size = size;
    return 0;
}

/** Write but for whole blocks of zeroes, which the file, cut to its length later, shows anyway. */
static int write_sparse(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size) {
        size_t n = MIN(size, (size_t)HOLE_BYTES);
        bool zero = !data[0] && !memcmp(data, data + 1, n - 1);

        if (!zero) {
            /* as far as the next block of zeroes */
            while (n < size && (data[n] || memcmp(data + n, data + n + 1,
                                                  MIN(size - n, (size_t)HOLE_BYTES) - 1)))
                n += MIN(size - n, (size_t)HOLE_BYTES);
            int rc = fd_pwrite_all(fd, data, n, (off_t)offset);
            if (rc)
                return rc;
        }
        data += n;
        size -= n;
        offset += n;
    }
    return 0;
}

int unpack_file(struct unpack *u, const char *path, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    uint8_t *buffer = malloc(READ_BYTES);
    uint64_t offset = 0;
    size_t n = 0;
    int rc = fd < 0   ? error_set(err, errno, "cannot make '%s': %s", path, strerror(errno))
             : buffer ? paths_check_room(path, u->left_bytes, err)
                      : error_set(err, ENOMEM, "out of memory");

    if (rc == -ENOSPC)
        error_prefix(err, "member '%s'", u->sums.v[u->sums.n - 1].name);

    do {
        if (!rc)
            rc = take(u, buffer, READ_BYTES, &n, err);
        if (!rc && n) {
            int w = write_sparse(fd, buffer, n, offset);
            rc = w ? error_set(err, -w, "cannot write '%s': %s", path, strerror(-w)) : 0;
        }
        offset += n;
    } while (!rc && n);
    if (!rc && (ftruncate(fd, (off_t)offset) || fsync(fd)))
        rc = error_set(err, errno, "cannot write '%s': %s", path, strerror(errno));
    free(buffer);
    return rc;
}

int unpack_skip(struct unpack *u, struct error *err)
{
    uint8_t *buffer = malloc(READ_BYTES);
    size_t n = 0;
    int rc = buffer ? 0 : error_set(err, ENOMEM, "out of memory");

    if (u->left_bytes > SKIP_BYTES_MAX)
        rc = error_set(err, EINVAL, "member '%s' is too long for something of no use here",
                       u->sums.v[u->sums.n - 1].name);
    do {
        if (!rc)
            rc = take(u, buffer, READ_BYTES, &n, err);
    } while (!rc && n);
    free(buffer);
    return rc;
}

const char *unpack_sum(const struct unpack *u, const char *name)
{
    const char *hex = sums_find(&u->sums, name);

    return hex && *hex ? hex : NULL;
}

/** One line "SUM  NAME" against what was read; *@ret is the member's index. */
static int check_line(const struct unpack *u, const char *line, size_t size, size_t *ret,
                      struct error *err)
{
    const struct sum *s = u->sums.v;

    if (size < 67 || line[64] != ' ')
        return error_set(err, EINVAL, "the archive's list of checksums is damaged");
    while (s < u->sums.v + u->sums.n &&
           (strlen(s->name) != size - 66 || memcmp(s->name, line + 66, size - 66) != 0))
        s++;
    if (s == u->sums.v + u->sums.n)
        return error_set(err, EINVAL, "member '%.*s' is missing from the archive",
                         (int)MIN(size - 66, (size_t)PACK_NAME_MAX), line + 66);
    if (memcmp(s->hex, line, 64) != 0)
        return error_set(err, EINVAL, "the checksum of member '%s' does not match", s->name);
    *ret = (size_t)(s - u->sums.v);
    return 0;
}

int unpack_check(const struct unpack *u, const char *text, struct error *err)
{
    cleanup(freep) char *named = calloc(1, u->sums.n + 1);
    size_t count = 1; /* the list itself */

    if (!named)
        return error_set(err, ENOMEM, "out of memory");
    for (const char *line = text; *line;) {
        size_t size = strcspn(line, "\n");
        size_t i = 0;
        int rc = check_line(u, line, size, &i, err);

        if (rc)
            return rc;
        count += !named[i];
        named[i] = 1;
        line += size + (line[size] == '\n');
    }
    if (count != u->sums.n)
        return error_set(err, EINVAL, "the archive's list of checksums does not name all members");
    return 0;
}

void unpack_free(struct unpack *u)
{
    if (!u)
        return;
    (void)archive_read_free(u->archive); /* only read */
    sums_done(&u->sums);
    free(u);
}
