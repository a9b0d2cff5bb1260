/* Writing archives with checksums: libarchive makes the tar, libcrypto the sums.
 *
 * Owner, time and mode of members are constant, so that the same content makes the same archive.
 * One thread, but for zstd's own. */
#include "bundle/pack.h"

#include "base/fd.h"
#include "bundle/sum.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE_BYTES (256u << 10)

struct pack {
    struct archive *archive;
    struct sums sums;
    pack_progress progress;
    void *arg;
    uint64_t done_bytes;
    uint8_t buffer[PIECE_BYTES];
};

static int failed(const struct pack *p, struct error *err)
{
    int code = archive_errno(p->archive);

    code = code > 0 ? code : EIO;
    return error_set(err, code, "cannot write the archive: %s", strerror(code));
}

int pack_new(int fd, enum pack_kind kind, pack_progress progress, void *arg, struct pack **ret,
             struct error *err)
{
    struct pack *p = calloc(1, sizeof(*p));
    int r = ARCHIVE_OK;

    if (!p || !(p->archive = archive_write_new())) {
        free(p);
        return error_set(err, ENOMEM, "out of memory");
    }
    p->progress = progress;
    p->arg = arg;
    r = kind == PACK_USTAR ? archive_write_set_format_ustar(p->archive)
                           : archive_write_set_format_pax_restricted(p->archive);
    if (r == ARCHIVE_OK && kind == PACK_TAR_ZSTD) {
        r = archive_write_add_filter_zstd(p->archive);
        if (r == ARCHIVE_OK) /* a libarchive without threads packs with one */
            (void)archive_write_set_filter_option(p->archive, "zstd", "threads", "0");
    }
    if (r == ARCHIVE_OK) /* into a pipe too: zeroes behind zstd's last frame are no frame */
        r = archive_write_set_bytes_in_last_block(p->archive, 1);
    if (r == ARCHIVE_OK)
        r = archive_write_open_fd(p->archive, fd);
    if (r != ARCHIVE_OK) {
        int rc = failed(p, err);
        pack_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

static int begin(struct pack *p, const char *name, uint64_t size, struct error *err)
{
    struct archive_entry *e = archive_entry_new();

    if (!e)
        return error_set(err, ENOMEM, "out of memory");
    archive_entry_set_pathname(e, name);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    int r = archive_write_header(p->archive, e);
    archive_entry_free(e);
    return r == ARCHIVE_OK ? sums_begin(&p->sums, name, err) : failed(p, err);
}

static int put(struct pack *p, const void *data, size_t size, struct error *err)
{
    const uint8_t *at = data;

    sums_update(&p->sums, data, size);
    while (size) {
        la_ssize_t n = archive_write_data(p->archive, at, size);

        if (n <= 0)
            return failed(p, err);
        at += n;
        size -= (size_t)n;
        p->done_bytes += (uint64_t)n;
    }
    if (p->progress && p->progress(p->arg, p->done_bytes))
        return error_set(err, ECANCELED, "cancelled");
    return 0;
}

int pack_data(struct pack *p, const char *name, const void *data, size_t size, struct error *err)
{
    int rc = begin(p, name, size, err);

    if (!rc && size)
        rc = put(p, data, size, err);
    if (!rc)
        sums_end(&p->sums);
    return rc;
}

static int put_file(struct pack *p, int fd, const char *path, uint64_t size, struct error *err)
{
    uint64_t left = size;

    while (left) {
        ssize_t n = read(fd, p->buffer, (size_t)MIN(left, (uint64_t)PIECE_BYTES));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, n ? errno : EIO, "cannot read '%s': %s", path,
                             n ? strerror(errno) : "it has become shorter");
        int rc = put(p, p->buffer, (size_t)n, err);
        if (rc)
            return rc;
        left -= (uint64_t)n;
    }
    return 0;
}

int pack_file(struct pack *p, const char *name, const char *path, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return error_set(err, errno, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "'%s' is not a regular file", path);
    int rc = begin(p, name, (uint64_t)st.st_size, err);
    if (!rc)
        rc = put_file(p, fd, path, (uint64_t)st.st_size, err);
    if (!rc)
        sums_end(&p->sums);
    return rc;
}

char *pack_sums(const struct pack *p, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    for (size_t i = 0; f && i < p->sums.n; i++)
        (void)fprintf(f, "%s  %s\n", p->sums.v[i].hex, p->sums.v[i].name);
    if (!f || fclose(f)) {
        free(text);
        (void)error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    return text;
}

int pack_finish(struct pack *p, struct error *err)
{
    return archive_write_close(p->archive) == ARCHIVE_OK ? 0 : failed(p, err);
}

void pack_free(struct pack *p)
{
    if (!p)
        return;
    (void)archive_write_fail(p->archive); /* no end marks; after pack_finish() no effect */
    (void)archive_write_free(p->archive); /* what could fail has been told by pack_finish() */
    sums_done(&p->sums);
    free(p);
}

int pack_sum_file(const char *path, char ret[65], struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct sums s = {0};
    uint8_t *buffer = malloc(PIECE_BYTES);
    ssize_t n = 0;
    int rc = fd < 0    ? error_set(err, errno, "cannot read '%s': %s", path, strerror(errno))
             : !buffer ? error_set(err, ENOMEM, "out of memory")
                       : sums_begin(&s, path, err);

    while (!rc && (n = read(fd, buffer, PIECE_BYTES)) > 0)
        sums_update(&s, buffer, (size_t)n);
    if (!rc && n < 0)
        rc = error_set(err, errno, "cannot read '%s': %s", path, strerror(errno));
    if (!rc) {
        sums_end(&s);
        memcpy(ret, s.v[0].hex, sizeof(s.v[0].hex));
    }
    sums_done(&s);
    free(buffer);
    return rc;
}
