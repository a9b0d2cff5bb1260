/* Changing VHDX images as a whole: size, parent, emptying, checking.
 *
 * New structures are written to free space and made durable; what points to them changes in one log
 * entry, so a power cut leaves the old image or the new one.
 *
 * Threads: no request runs meanwhile.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <stdio.h>
#include <string.h>

#define COPY_BYTES 65536u

static int fail(const struct vhdx *v, int rc, const char *what, struct error *err)
{
    return error_set(err, -rc, "cannot %s '%s': %s", what, v->m.file->path, strerror(-rc));
}

static uint64_t end_of(struct vhdx *v)
{
    mutex_lock(&v->m.lock);
    uint64_t end = v->m.end_bytes;
    mutex_unlock(&v->m.lock);
    return end;
}

/** Everything written so far durable, then the pages, in one log entry, applied and durable. */
static int write_pages(struct vhdx *v, struct vhdx_pages *pages)
{
    int rc = file_flush(v->m.file);

    if (!rc)
        rc = vhdx_log_write(v, pages, end_of(v));
    vhdx_pages_done(pages);
    return rc ? rc : vhdx_log_close(v);
}

static int cut_file(struct vhdx *v)
{
    struct disk *d = &v->m.d;
    uint64_t size = 0;
    uint64_t stamp = disk_io_stamp(d);
    int rc = file_get_size(v->m.file, &size);

    if (!rc && disk_io_is_past(d, stamp)) /* else somebody may still read there */
        rc = vhd_map_verify(&v->m, v->used, v->used_count);
    if (!rc && end_of(v) < size && !v->m.file->is_block)
        rc = file_truncate(v->m.file, end_of(v));
    return rc ? rc : file_flush(v->m.file);
}

/** Both region tables, changed to say that the table lies at @table. */
static int put_regions(struct vhdx *v, const struct vhd_region *table, struct vhdx_pages *pages)
{
    cleanup(freep) uint8_t *b = malloc(VHDX_REGION_BYTES);
    int rc = b ? file_pread(v->m.file, b, VHDX_REGION_BYTES, VHDX_REGION_TABLE1) : -ENOMEM;

    if (!rc && (memcmp(b, "regi", 4) != 0 || load_le32(b + 4) != vhdx_crc(b, VHDX_REGION_BYTES, 4)))
        rc = file_pread(v->m.file, b, VHDX_REGION_BYTES, VHDX_REGION_TABLE2);
    for (uint32_t i = 0; !rc && i < load_le32(b + 8) && i < VHDX_MAX_REGIONS; i++) {
        uint8_t *e = b + 16 + (size_t)i * 32;

        if (memcmp(e, vhdx_guid_table, VHDX_GUID_BYTES) != 0)
            continue;
        store_le64(e + 16, table->offset);
        store_le32(e + 24, (uint32_t)table->size);
    }
    if (!rc) {
        store_le32(b + 4, vhdx_crc(b, VHDX_REGION_BYTES, 4));
        rc = vhdx_pages_patch(v, pages, VHDX_REGION_TABLE1, b, VHDX_REGION_BYTES);
    }
    if (!rc)
        rc = vhdx_pages_patch(v, pages, VHDX_REGION_TABLE2, b, VHDX_REGION_BYTES);
    return rc;
}

/** A copy of the table with room for @entries, at the end of the file. */
static int move_table(struct vhdx *v, uint64_t entries)
{
    struct vhd_region to = {.size = align_up(entries * 8, VHDX_MIB)};
    struct vhdx_pages pages = {0};
    cleanup(freep) uint8_t *buf = malloc(COPY_BYTES);
    int rc = buf ? 0 : -ENOMEM;

    to.offset = vhd_map_reserve(&v->m, to.size, VHDX_MIB);
    if (!rc)
        rc = file_write_zeroes(v->m.file, to.offset, to.size, true);
    for (uint64_t at = 0; at < v->table.size && !rc; at += COPY_BYTES) {
        rc = file_pread(v->m.file, buf, COPY_BYTES, v->table.offset + at);
        if (!rc)
            rc = file_pwrite(v->m.file, buf, COPY_BYTES, to.offset + at);
    }
    if (!rc)
        rc = put_regions(v, &to, &pages);
    if (!rc)
        rc = write_pages(v, &pages);
    vhdx_pages_done(&pages);
    if (rc)
        return rc;
    for (size_t i = 0; i < v->used_count; i++) {
        if (v->used[i].offset == v->table.offset)
            v->used[i] = to;
    }
    v->table = to;
    return 0;
}

static uint64_t entries_for(const struct vhdx *v, uint64_t size_bytes)
{
    return vhdx_table_entries(size_bytes, v->m.block_bytes, v->m.sector_bytes, true);
}

/** The entries of blocks from @first to the end of a table for @size_bytes say nothing, whatever
 * stood there; those of bitmap blocks that are known stay. */
static int clear_entries(struct vhdx *v, uint64_t first, uint64_t size_bytes)
{
    uint64_t at = first + first / v->ratio;
    uint64_t end = entries_for(v, size_bytes);
    cleanup(freep) uint8_t *buf = malloc(COPY_BYTES);
    int rc = buf ? 0 : -ENOMEM;

    while (at < end && !rc) {
        uint64_t n = MIN(end - at, (uint64_t)COPY_BYTES / 8);
        bool changed = false;

        rc = file_pread(v->m.file, buf, (size_t)n * 8, v->table.offset + at * 8);
        for (uint64_t i = 0; i < n && !rc; i++) {
            uint64_t chunk = (at + i) / (v->ratio + 1ULL);
            bool is_bitmap = (at + i) % (v->ratio + 1ULL) == v->ratio;

            if (!load_le64(buf + i * 8) || (is_bitmap && chunk < v->chunks && v->bitmaps[chunk]))
                continue;
            store_le64(buf + i * 8, 0);
            changed = true;
        }
        if (!rc && changed)
            rc = file_pwrite(v->m.file, buf, (size_t)n * 8, v->table.offset + at * 8);
        at += n;
    }
    return rc ? rc : file_flush(v->m.file);
}

static int set_size(struct vhdx *v, uint64_t size_bytes)
{
    struct vhdx_pages pages = {0};
    uint8_t b[8];

    store_le64(b, size_bytes);
    int rc = vhdx_pages_patch(v, &pages, v->md.size_item.offset, b, sizeof(b));
    if (!rc)
        rc = write_pages(v, &pages);
    vhdx_pages_done(&pages);
    if (!rc)
        v->md.size_bytes = size_bytes;
    return rc;
}

static int resize_memory(struct vhdx *v, uint64_t count)
{
    uint64_t chunks = (count + v->ratio - 1) / v->ratio;

    if (chunks > v->chunks) {
        uint64_t *bitmaps = realloc(v->bitmaps, (size_t)(chunks + 1) * sizeof(*bitmaps));

        if (!bitmaps)
            return -ENOMEM;
        memset(bitmaps + v->chunks, 0, (size_t)(chunks + 1 - v->chunks) * sizeof(*bitmaps));
        v->bitmaps = bitmaps;
        v->chunks = chunks;
    }
    return vhd_map_resize(&v->m, count);
}

static int grow(struct vhdx *v, uint64_t old_bytes, uint64_t size_bytes, uint64_t count)
{
    struct disk *d = &v->m.d;
    uint64_t old_count = v->m.count;
    uint64_t shown = align_up(old_bytes, v->m.block_bytes); /* the rest of the last block */
    int rc = 0;

    if (entries_for(v, size_bytes) > v->table.size / 8)
        rc = move_table(v, entries_for(v, size_bytes));
    if (!rc)
        rc = clear_entries(v, old_count, size_bytes);
    if (!rc)
        rc = resize_memory(v, count);
    for (uint64_t i = old_count; i < count && !rc && v->md.is_fixed && !v->md.has_parent; i++)
        rc = vhd_map_fill(&v->m, i);
    if (v->m.is_over) /* what is below and longer must not show */
        shown = MAX(shown, d->below ? d->below->size_bytes : size_bytes);
    uint64_t to = MIN(size_bytes, shown);
    if (!rc && old_bytes < to)
        rc = vhd_map_write_zeroes(d, old_bytes, to - old_bytes, true);
    return rc ? rc : vhd_map_flush(d);
}

int vhdx_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    uint64_t old = d->size_bytes;
    uint64_t count = (size_bytes + v->m.block_bytes - 1) / v->m.block_bytes;

    (void)shrink; /* the caller has checked */
    if (size_bytes > VHDX_MAX_BYTES || count > VHD_MAX_BLOCKS)
        return error_set(err, EFBIG, "a VHDX disk has at most 64 TiB and 2^24 blocks");
    if (size_bytes % v->m.sector_bytes)
        return error_set(err, EINVAL, "the disk has sectors of %u bytes", v->m.sector_bytes);
    int rc = vhd_map_begin(&v->m);
    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc && size_bytes > old)
        rc = grow(v, old, size_bytes, count);
    if (!rc && size_bytes < old) {
        rc = vhd_map_forget(&v->m, count);
        if (!rc)
            rc = vhd_map_flush(d);
        if (!rc)
            rc = vhd_map_resize(&v->m, count);
    }
    if (!rc)
        rc = set_size(v, size_bytes);
    if (!rc && size_bytes < old)
        rc = cut_file(v);
    if (rc)
        return fail(v, rc, "resize", err);
    __atomic_store_n(&d->size_bytes, size_bytes, __ATOMIC_RELAXED); /* a size alone */
    return 0;
}

/** The identity of the image at @path as seen from @d's folder. */
static int identify(const struct vhdx *v, const char *path, uint8_t *guid, struct error *err)
{
    const struct disk *d = &v->m.d;
    const struct disk_options options = {
        .format = "vhdx",
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
    memcpy(guid, vhdx_of(parent)->h.data_guid, VHDX_GUID_BYTES);
    if (vhdx_of(parent)->md.sector_bytes != v->md.sector_bytes)
        rc = error_set(err, EINVAL, "'%s' has sectors of another size", full);
    disk_close(parent);
    return rc;
}

/** Partial blocks become full ones, with zeroes where they held nothing: without a parent there are
 * no others. */
static int fill_partial_block(struct vhdx *v, uint64_t block)
{
    struct disk *d = &v->m.d;
    uint64_t at = block * v->m.block_bytes;
    uint64_t end = MIN(at + v->m.block_bytes, d->size_bytes);
    int rc = 0;

    while (at < end && !rc) {
        struct disk_extent e;

        rc = vhd_map_status(d, at, end - at, &e);
        if (!rc && e.kind == DISK_ABSENT)
            rc = vhd_map_write_zeroes(d, at, e.size, true);
        at += rc ? 0 : e.size;
    }
    mutex_lock(&v->m.lock);
    if (!rc && vhd_kind_of(v->m.blocks[block].word) == VHD_PARTIAL) {
        rc = vhd_map_mark(&v->m, block);
        v->m.blocks[block].word ^= VHD_PARTIAL ^ VHD_FULL;
    }
    mutex_unlock(&v->m.lock);
    return rc;
}

static int fill_partial(struct vhdx *v)
{
    int rc = 0;

    for (uint64_t i = 0; i < v->m.count && !rc; i++) {
        if (vhd_kind_of(v->m.blocks[i].word) == VHD_PARTIAL)
            rc = fill_partial_block(v, i);
    }
    return rc ? rc : vhd_map_flush(&v->m.d);
}

/** The entries of bitmap blocks go. */
static int drop_bitmaps(struct vhdx *v, struct vhdx_pages *pages)
{
    static const uint8_t zero[8];
    int rc = 0;

    for (uint64_t i = 0; i < v->chunks && !rc; i++) {
        uint64_t entry = (i + 1) * (v->ratio + 1ULL) - 1;

        if (v->bitmaps[i])
            rc = vhdx_pages_patch(v, pages, v->table.offset + entry * 8, zero, sizeof(zero));
    }
    return rc;
}

/** And they are forgotten. */
static void forget_bitmaps(struct vhdx *v)
{
    memset(v->bitmaps, 0, (size_t)v->chunks * sizeof(*v->bitmaps));
    v->used_count = v->region_count;
}

/** Everything that says who the parent is; @locator_size 0: there is none. */
static int put_parent(struct vhdx *v, const uint8_t *locator, uint32_t locator_size,
                      struct vhdx_pages *pages)
{
    cleanup(freep) uint8_t *table = malloc(VHDX_TABLE_BYTES);
    uint32_t offset = 0;
    uint8_t b[4];
    int rc = table ? file_pread(v->m.file, table, VHDX_TABLE_BYTES, v->metadata.offset) : -ENOMEM;

    if (!rc && locator_size) {
        offset = vhdx_metadata_find_room(table, v->metadata.size, locator_size);
        rc = offset ? file_pwrite(v->m.file, locator, locator_size, v->metadata.offset + offset)
                    : -ENOSPC;
    }
    if (!rc)
        rc = vhdx_metadata_set_locator(v, table, offset, locator_size);
    if (!rc)
        rc = vhdx_pages_patch(v, pages, v->metadata.offset, table, VHDX_TABLE_BYTES);
    store_le32(b, (uint32_t)v->md.is_fixed | (locator_size ? 2u : 0));
    if (!rc)
        rc = vhdx_pages_patch(v, pages, v->md.parameters.offset + 4, b, sizeof(b));
    return rc;
}

static int switch_parent(struct vhdx *v, const uint8_t *locator, uint32_t locator_size,
                         struct error *err)
{
    struct vhdx_pages pages = {0};
    uint64_t entries = entries_for(v, v->md.size_bytes);
    int rc = vhd_map_begin(&v->m);

    if (!rc)
        rc = vhd_map_flush(&v->m.d);
    if (!rc && locator_size && entries > v->table.size / 8)
        rc = move_table(v, entries);
    if (!rc && !locator_size)
        rc = fill_partial(v);
    if (!rc && !locator_size)
        rc = drop_bitmaps(v, &pages);
    if (!rc)
        rc = put_parent(v, locator, locator_size, &pages);
    if (!rc)
        rc = write_pages(v, &pages);
    vhdx_pages_done(&pages);
    if (rc)
        return fail(v, rc, "write", err);
    if (!locator_size)
        forget_bitmaps(v);
    v->md.locator = (struct vhdx_item){0};
    return vhdx_metadata_read(v, err);
}

int vhdx_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    uint8_t guid[VHDX_GUID_BYTES];
    uint32_t size = 0;
    cleanup(freep) uint8_t *locator = malloc(VHDX_LOCATOR_BYTES);
    cleanup(freep) char *copy = path ? strdup(path) : NULL;
    cleanup(freep) char *copy_format = path ? strdup("vhdx") : NULL;
    int rc = 0;

    if (!locator || (path && (!copy || !copy_format)))
        return error_set(err, ENOMEM, "out of memory");
    if (path && format && disk_format_find(format) != &vhdx_format)
        return error_set(err, EINVAL, "the backing image of a VHDX image must be VHDX, not %s",
                         format);
    if (path)
        rc = identify(v, path, guid, err);
    if (!rc && path)
        rc = vhdx_locator_make(path, guid, locator, &size, err);
    if (!rc)
        rc = switch_parent(v, locator, size, err);
    if (rc)
        return rc;
    v->m.is_over = path;
    free(d->backing_path);
    free(d->backing_format);
    d->backing_path = ptr_take(&copy);
    d->backing_format = ptr_take(&copy_format);
    return 0;
}

/** Afterwards the parent is the one that is there now: this is what follows a commit into it, which
 * changed its identifier. */
int vhdx_make_empty(struct disk *d, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    struct vhdx_pages pages = {0};
    uint8_t guid[VHDX_GUID_BYTES];
    int rc = vhd_map_begin(&v->m);

    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc)
        rc = vhd_map_forget(&v->m, 0);
    if (!rc)
        rc = vhd_map_flush(d);
    if (!rc)
        rc = drop_bitmaps(v, &pages);
    if (!rc)
        rc = write_pages(v, &pages);
    vhdx_pages_done(&pages);
    if (!rc) {
        forget_bitmaps(v);
        rc = cut_file(v);
    }
    if (rc)
        return fail(v, rc, "empty", err);
    if (d->path && d->backing_path && !identify(v, d->backing_path, guid, NULL))
        rc = vhdx_set_backing(d, d->backing_path, NULL, err);
    return rc;
}

int vhdx_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    uint64_t size = 0;
    int rc = d->readonly ? 0 : vhd_map_flush(d);

    if (!rc)
        rc = file_get_size(v->m.file, &size);
    if (rc)
        return fail(v, rc, "check", err);
    if (size > align_up(end_of(v), VHDX_MIB)) {
        uint64_t n = (size - end_of(v) + v->m.block_bytes - 1) / v->m.block_bytes;

        check->leaks += n;
        vhd_check_report(check, "the file goes on behind the last block");
        check->leaks_fixed += flags ? n : 0;
    }
    rc = vhd_map_check(&v->m, flags, v->used, v->used_count, check, err);
    if (!rc && flags && size > align_up(end_of(v), VHDX_MIB)) {
        rc = vhdx_log_close(v);
        rc = rc ? rc : cut_file(v);
        rc = rc ? fail(v, rc, "check", err) : 0;
    }
    return rc;
}
