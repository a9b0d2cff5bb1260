/* Changing VHD images as a whole: size, parent, emptying, checking.
 *
 * The copy of the footer at 0 is the root: it names the header, which names the table. A new header
 * or table is written to free space and is durable before the sector that points to it changes; of
 * a header in place only its first sector does. So a power cut leaves the old image or the new one.
 *
 * Threads: no request runs meanwhile.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/vhd.h"

#include <stdio.h>
#include <string.h>

#define COPY_BYTES 65536u

static int fail(const struct vhd *v, int rc, const char *what, struct error *err)
{
    return error_set(err, -rc, "cannot %s '%s': %s", what, v->m.file->path, strerror(-rc));
}

static uint64_t count_for(const struct vhd *v, uint64_t size_bytes)
{
    return (size_bytes + v->m.block_bytes - 1) / v->m.block_bytes;
}

static uint64_t end_of(struct vhd *v)
{
    mutex_lock(&v->m.lock);
    uint64_t end = v->m.end_bytes;
    mutex_unlock(&v->m.lock);
    return end;
}

/** Make the footer as v->f says and both copies of it durable, that at 0 first. */
static int switch_footer(struct vhd *v)
{
    vhd_footer_update(v->footer, &v->f);
    int rc = file_pwrite(v->m.file, v->footer, VHD_FOOTER_BYTES, 0);
    if (!rc)
        rc = file_flush(v->m.file);
    if (!rc)
        rc = vhd_write_footers(v, end_of(v));
    return rc ? rc : file_flush(v->m.file);
}

/** Give back the end of the file that no block uses any more, unless somebody may still read it. */
static int cut_file(struct vhd *v)
{
    struct vhd_region regions[VHD_REGIONS];
    struct disk *d = &v->m.d;
    uint64_t size = 0;
    uint64_t stamp = disk_io_stamp(d);
    int rc = file_get_size(v->m.file, &size);

    if (!rc && disk_io_is_past(d, stamp))
        rc = vhd_map_verify(&v->m, regions, vhd_regions(v, size, regions));
    if (!rc && end_of(v) < size && !v->m.file->is_block)
        rc = file_truncate(v->m.file, end_of(v));
    if (!rc)
        rc = vhd_write_footers(v, end_of(v));
    return rc ? rc : file_flush(v->m.file);
}

/** Write the table at [at, at + size): the first @count entries of the old one, then unused. */
static int copy_table(struct vhd *v, uint64_t at, uint64_t size, uint64_t count)
{
    cleanup(freep) uint8_t *buf = malloc(COPY_BYTES);
    int rc = buf ? 0 : -ENOMEM;

    for (uint64_t done = 0; done < size && !rc; done += COPY_BYTES) {
        uint64_t old = done < count * 4 ? MIN(count * 4 - done, (uint64_t)COPY_BYTES) : 0;

        memset(buf, 0xff, COPY_BYTES);
        if (old)
            rc = file_pread(v->m.file, buf, (size_t)old, v->h.table_offset + done);
        if (!rc)
            rc = file_pwrite(v->m.file, buf, (size_t)MIN(size - done, (uint64_t)COPY_BYTES),
                             at + done);
    }
    return rc;
}

/** Entries [from, to) of the table in place become unused. */
static int clear_entries(struct vhd *v, uint64_t from, uint64_t to)
{
    uint8_t buf[DISK_SECTOR];
    int rc = 0;

    memset(buf, 0xff, sizeof(buf));
    while (from < to && !rc) {
        uint64_t n = MIN(to - from, (uint64_t)sizeof(buf) / 4);

        rc = file_pwrite(v->m.file, buf, (size_t)n * 4, v->h.table_offset + from * 4);
        from += n;
    }
    return rc;
}

/** A table of at least @count entries: the old one, or a copy at the end of the file. */
static int grow_table(struct vhd *v, uint64_t count)
{
    struct vhd_header h = v->h;
    uint64_t bytes = align_up(count * 4, DISK_SECTOR);

    if (count <= h.max_entries) {
        int rc = clear_entries(v, v->m.count, count);
        return rc ? rc : file_flush(v->m.file);
    }
    h.table_offset = vhd_map_reserve(&v->m, bytes, DISK_SECTOR);
    h.max_entries = (uint32_t)count;
    int rc = copy_table(v, h.table_offset, bytes, v->m.count);
    if (!rc)
        rc = file_flush(v->m.file);
    if (rc)
        return rc;
    v->h = h;
    vhd_header_make(v->header, &h);
    rc = file_pwrite(v->m.file, v->header, DISK_SECTOR, v->f.header_offset);
    return rc ? rc : file_flush(v->m.file);
}

/** [from, to) reads as zeroes, also where something below is longer. */
static int zero_new(struct vhd *v, uint64_t from, uint64_t to)
{
    struct disk *d = &v->m.d;
    uint64_t shown = align_up(from, v->m.block_bytes); /* what the last block held past the end */

    if (v->m.is_over)
        shown = MAX(shown, d->below ? d->below->size_bytes : to);
    to = MIN(to, shown);
    int rc = from < to ? vhd_map_write_zeroes(d, from, to - from, true) : 0;
    return rc ? rc : vhd_map_flush(d);
}

int vhd_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct vhd *v = vhd_of(d);
    uint64_t old = d->size_bytes;
    uint64_t count = count_for(v, size_bytes);

    (void)shrink; /* the caller has checked */
    if (size_bytes > VHD_MAX_BYTES)
        return error_set(err, EFBIG, "a VHD disk has at most 2040 GiB");
    int rc = vhd_map_begin(&v->m);
    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc && count > v->m.count)
        rc = grow_table(v, count);
    if (!rc && count < v->m.count)
        rc = vhd_map_forget(&v->m, count);
    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc)
        rc = vhd_map_resize(&v->m, count);
    if (!rc && size_bytes > old)
        rc = zero_new(v, old, size_bytes);
    if (rc)
        return fail(v, rc, "resize", err);
    v->f.size_bytes = size_bytes;
    rc = switch_footer(v);
    if (!rc && size_bytes < old)
        rc = cut_file(v);
    if (rc)
        return fail(v, rc, "resize", err);
    __atomic_store_n(&d->size_bytes, size_bytes, __ATOMIC_RELAXED); /* a size alone */
    return 0;
}

/** The identity of the image at @path as seen from @d's folder. */
static int identify(const struct disk *d, const char *path, uint8_t *id, uint32_t *ret_stamp,
                    struct error *err)
{
    const struct disk_options options = {
        .format = "vhd",
        .flags = DISK_READONLY | DISK_NO_BACKING | DISK_NO_LOCK,
    };
    const char *slash = d->path ? strrchr(d->path, '/') : NULL;
    cleanup(freep) char *full = NULL;
    struct disk *parent = NULL;

    if (*path == '/' || !slash)
        full = strdup(path);
    else if (asprintf(&full, "%.*s/%s", (int)(slash - d->path), d->path, path) < 0)
        full = NULL;
    if (!full)
        return error_set(err, ENOMEM, "out of memory");
    int rc = disk_open(full, &options, &parent, err);
    if (rc)
        return rc;
    vhd_get_identity(parent, id, ret_stamp);
    disk_close(parent);
    return 0;
}

/** A new header for another parent, durable in free space. */
static int move_header(struct vhd *v, const char *path, const uint8_t *id, uint32_t stamp,
                       uint64_t *ret, struct error *err)
{
    uint64_t at = vhd_map_reserve(&v->m, VHD_HEADER_BYTES + VHD_PATH_BYTES, DISK_SECTOR);
    uint64_t end;
    int rc = vhd_header_set_parent(v->header, path, id, stamp, v->m.file, at + VHD_HEADER_BYTES,
                                   &end, err);

    if (rc)
        return rc;
    rc = file_pwrite(v->m.file, v->header, VHD_HEADER_BYTES, at);
    if (!rc)
        rc = file_flush(v->m.file);
    *ret = at;
    return rc ? fail(v, rc, "write", err) : 0;
}

int vhd_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    struct vhd *v = vhd_of(d);
    uint8_t id[VHD_ID_BYTES] = {0};
    uint32_t stamp = 0;
    uint64_t at = 0;

    if (path && format && disk_format_find(format) != &vhd_format)
        return error_set(err, EINVAL, "the backing image of a VHD image must be VHD, not %s",
                         format);
    int rc = path ? identify(d, path, id, &stamp, err) : 0;
    if (rc)
        return rc;
    char *copy = path ? strdup(path) : NULL;
    char *copy_format = path ? strdup("vhd") : NULL;
    if (path && (!copy || !copy_format)) {
        rc = error_set(err, ENOMEM, "out of memory");
    } else {
        rc = vhd_map_begin(&v->m);
        if (!rc)
            rc = vhd_map_flush(d);
        rc = rc ? fail(v, rc, "write", err) : move_header(v, path, id, stamp, &at, err);
    }
    if (!rc) {
        (void)vhd_header_parse(v->header, &v->h); /* we have just made it */
        v->f.header_offset = at;
        v->f.type = path ? VHD_DIFFERENCING : VHD_DYNAMIC;
        rc = switch_footer(v);
        rc = rc ? fail(v, rc, "write", err) : 0;
    }
    if (rc) {
        free(copy);
        free(copy_format);
        return rc;
    }
    v->m.is_over = path;
    free(d->backing_path);
    free(d->backing_format);
    d->backing_path = copy;
    d->backing_format = copy_format;
    return 0;
}

int vhd_make_empty(struct disk *d, struct error *err)
{
    struct vhd *v = vhd_of(d);
    int rc = vhd_map_begin(&v->m);

    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc)
        rc = vhd_map_forget(&v->m, 0);
    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc)
        rc = cut_file(v);
    return rc ? fail(v, rc, "empty", err) : 0;
}

/** Space behind the last block, and a footer that is not where it should be: what a power cut
 * leaves. */
static void check_end(struct vhd *v, unsigned flags, uint64_t file_bytes, struct disk_check *check)
{
    uint64_t stride = v->m.block_bytes + v->m.lead_bytes;
    uint64_t end = end_of(v);
    uint64_t used = end + VHD_FOOTER_BYTES;

    if (v->footer_offset == end)
        return;
    uint64_t n = file_bytes > used ? (file_bytes - used) / stride + 1 : 1;
    check->leaks += n;
    vhd_check_report(check, "the file's end is not where the last block ends, or has no footer");
    if (flags)
        check->leaks_fixed += n; /* by vhd_map_begin() and the commit */
}

int vhd_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    struct vhd *v = vhd_of(d);
    struct vhd_region regions[VHD_REGIONS];
    uint64_t file_bytes = 0;
    int rc = d->readonly ? 0 : vhd_map_flush(d);

    if (!rc)
        rc = file_get_size(v->m.file, &file_bytes);
    if (rc)
        return fail(v, rc, "check", err);
    check_end(v, flags, file_bytes, check);
    if (v->is_head_bad) {
        check->errors++;
        check->errors_fixed += flags ? 1 : 0; /* by vhd_map_begin() */
        vhd_check_report(check, "the copy of the footer at the file's beginning is damaged");
    }
    rc = vhd_map_check(&v->m, flags, regions, vhd_regions(v, file_bytes, regions), check, err);
    if (!rc && flags)
        rc = vhd_map_flush(d);
    check->end_bytes = end_of(v) + VHD_FOOTER_BYTES;
    return rc;
}
