/* VMDK: other sizes, another parent, emptying.
 *
 * Growing a sparse extent: new directories, with what tables they need besides the old ones, go to
 * the end of the file and are flushed; then the header, one sector, changes to them. A power cut
 * leaves the old size or the new one; the descriptor's number of sectors does not matter then.
 *
 * For exclusive use: no other request at the same time. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/** Write a directory at the end: the old tables, and new empty ones up to @count. */
static int put_directory(struct vmdk_sparse *s, const uint32_t *old, uint32_t count, uint32_t *ret,
                         uint64_t *ret_sector)
{
    uint64_t table_sectors = vmdk_table_bytes(s) / DISK_SECTOR;
    uint64_t sectors = ((uint64_t)count * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    uint64_t end = s->next_sector + sectors + (count - s->table_count) * table_sectors;
    cleanup(freep) uint8_t *buf = calloc(sectors, DISK_SECTOR);

    if (!buf)
        return -ENOMEM;
    if (align_up(end, s->grain_sectors) > VMDK_MAX_SECTORS)
        return -EFBIG;
    *ret_sector = s->next_sector;
    for (uint32_t i = 0; i < count; i++) {
        ret[i] = i < s->table_count
                     ? old[i]
                     : (uint32_t)(s->next_sector + sectors + (i - s->table_count) * table_sectors);
        store_le32(buf + (size_t)i * 4, ret[i]);
    }
    s->next_sector = align_up(end, s->grain_sectors);
    int rc = file_pwrite(s->file, buf, sectors * DISK_SECTOR, *ret_sector * DISK_SECTOR);
    if (!rc && s->file->is_block)
        rc = file_write_zeroes(s->file, (*ret_sector + sectors) * DISK_SECTOR,
                               (end - *ret_sector - sectors) * DISK_SECTOR, true);
    return rc;
}

struct directories {
    uint32_t *gd, *rgd;
    struct vmdk_table **tables;
    uint64_t gd_sector, rgd_sector;
};

static void directories_done(struct directories *n)
{
    free(n->gd);
    free(n->rgd);
    free(n->tables);
}

static int make_directories(struct vmdk_sparse *s, uint32_t count, struct directories *n)
{
    n->gd = malloc((size_t)count * 4);
    n->rgd = s->rgd ? malloc((size_t)count * 4) : NULL;
    n->tables = calloc(count, sizeof(struct vmdk_table *));
    int rc = n->gd && n->tables && (!s->rgd || n->rgd) ? 0 : -ENOMEM;

    if (!rc)
        rc = put_directory(s, s->gd, count, n->gd, &n->gd_sector);
    if (!rc && s->rgd)
        rc = put_directory(s, s->rgd, count, n->rgd, &n->rgd_sector);
    if (!rc && !s->file->is_block) {
        rc = file_truncate(s->file, s->next_sector * DISK_SECTOR);
        s->end_bytes = rc ? s->end_bytes : s->next_sector * DISK_SECTOR;
    }
    return rc ? rc : file_flush(s->file);
}

/** A header for @capacity sectors, with the directories of @n if it has any. */
static int write_capacity(struct vmdk_sparse *s, uint64_t capacity, const struct directories *n)
{
    uint8_t head[DISK_SECTOR];

    mutex_lock(&s->lock);
    memcpy(head, s->head, sizeof(head));
    store_le64(head + VMDK_AT_CAPACITY, capacity);
    if (n && n->gd)
        store_le64(head + VMDK_AT_GD, n->gd_sector);
    if (n && n->rgd)
        store_le64(head + VMDK_AT_RGD, n->rgd_sector);
    int rc = vmdk_sparse_write_head(s, head);
    mutex_unlock(&s->lock);
    return rc ? rc : file_flush(s->file);
}

static int grow_sparse(struct vmdk_sparse *s, uint64_t size)
{
    uint64_t per_table = (uint64_t)s->grain_sectors * s->table_entries;
    uint64_t old = s->b.size_bytes;
    uint64_t count = (size / DISK_SECTOR + per_table - 1) / per_table;
    uint64_t tail = MIN(align_up(old, s->b.block_bytes), size);
    struct directories n = {.gd = NULL};
    int rc = 0;

    if (count > VMDK_MAX_TABLES || size / DISK_SECTOR + s->next_sector > VMDK_MAX_SECTORS)
        return -EFBIG;
    if (count > s->table_count) {
        rc = make_directories(s, (uint32_t)count, &n);
        if (rc) {
            directories_done(&n);
            return rc;
        }
        memcpy(n.tables, s->tables, s->table_count * sizeof(*n.tables));
        free(s->gd);
        free(s->rgd);
        free(s->tables);
        s->gd = n.gd;
        s->rgd = n.rgd;
        s->tables = n.tables;
        s->table_count = (uint32_t)count;
    }
    s->b.size_bytes = size;
    /* What lay behind the old end, here or in a longer disk below, must not show. */
    if (tail > old)
        rc = blocks_write_zeroes(&s->b, old, tail - old, true);
    if (!rc && size > tail && s->b.d->backing_path)
        rc = blocks_write_zeroes(&s->b, tail, size - tail, true);
    if (!rc)
        rc = vmdk_sparse_flush(s);
    return rc ? rc : write_capacity(s, size / DISK_SECTOR, &n);
}

/** Entries from block @first on no longer name anything; their grains are given back. */
static int forget_blocks(struct vmdk_sparse *s, uint64_t first)
{
    uint64_t blocks = (uint64_t)s->table_count * s->table_entries;
    uint64_t end = MIN(blocks, (s->b.size_bytes + s->b.block_bytes - 1) / s->b.block_bytes);
    int rc = 0;

    for (uint64_t i = first; !rc && i < end; i++) {
        uint32_t table = (uint32_t)(i / s->table_entries);
        struct vmdk_table *t = NULL;

        mutex_lock(&s->lock);
        rc = vmdk_table_get(s, table, &t);
        if (!rc && t->entries[i % s->table_entries])
            vmdk_table_set(s, table, (uint32_t)(i % s->table_entries), 0);
        bool full = s->dirty * vmdk_table_bytes(s) > VMDK_CACHE_BYTES / 2;
        mutex_unlock(&s->lock);
        if (!rc && full)
            rc = vmdk_sparse_flush(s);
    }
    return rc ? rc : vmdk_sparse_flush(s);
}

static void ignore(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/** What nothing names any more is cut off, or becomes holes. */
static int give_back(struct vmdk_sparse *s)
{
    struct vmdk_scan scan = {.mend = false};
    int rc = vmdk_scan(s, &scan);

    if (rc || s->damage || s->file->is_block)
        return rc;
    uint64_t end = align_up(scan.end_sector, s->grain_sectors);
    if (end * DISK_SECTOR < s->end_bytes) {
        rc = file_truncate(s->file, end * DISK_SECTOR);
        s->end_bytes = rc ? s->end_bytes : end * DISK_SECTOR;
        s->next_sector = rc ? s->next_sector : end;
    }
    scan = (struct vmdk_scan){.report = ignore, .leaks_in = s->file};
    return rc ? rc : vmdk_scan(s, &scan);
}

static int shrink_sparse(struct vmdk_sparse *s, uint64_t size)
{
    int rc = write_capacity(s, size / DISK_SECTOR, NULL);

    if (!rc)
        rc = forget_blocks(s, (size + s->b.block_bytes - 1) / s->b.block_bytes);
    if (!rc)
        rc = give_back(s);
    s->b.size_bytes = size;
    return rc;
}

static int resize_flat(struct vmdk_extent *e, uint64_t size)
{
    int rc = file_truncate(e->file, e->flat_offset + size);

    return rc ? rc : file_flush(e->file);
}

/** The descriptor tells of @sectors. */
static int write_sectors(struct vmdk *v, uint64_t sectors)
{
    if (!v->text_room)
        return 0;
    mutex_lock(&v->lock);
    int rc = vmdk_write_text(v, vmdk_desc_set_sectors(v->desc.text, sectors));
    mutex_unlock(&v->lock);
    return rc ? rc : file_flush(v->file);
}

int vmdk_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct vmdk *v = vmdk_of(d);
    struct vmdk_extent *e = &v->extents[0];
    bool grows = size_bytes > d->size_bytes;

    (void)shrink; /* the caller has checked */
    if (v->count != 1 || e->kind == VMDK_ZERO || e->readonly || (e->sparse && e->sparse->is_packed))
        return error_set(
            err, ENOTSUP,
            "'%s' is split, or stream-optimized: such a VMDK disk is converted to change its size",
            d->path);
    int rc = vmdk_modify(v);
    if (!rc && e->sparse && e->sparse->damage)
        rc = -EIO;
    if (!rc)
        rc = vmdk_flush(d);
    if (!rc && !e->sparse && !grows) /* the smaller one must not be named larger */
        rc = write_sectors(v, size_bytes / DISK_SECTOR);
    if (!rc)
        rc = !e->sparse ? resize_flat(e, size_bytes)
             : grows    ? grow_sparse(e->sparse, size_bytes)
                        : shrink_sparse(e->sparse, size_bytes);
    if (!rc && (e->sparse || grows))
        rc = write_sectors(v, size_bytes / DISK_SECTOR);
    if (rc) {
        if (e->sparse) /* file and memory may differ */
            e->sparse->damage = "a change of its size failed: open it again";
        return error_set(err, -rc, "cannot resize '%s': %s", d->path, strerror(-rc));
    }
    e->size_bytes = size_bytes;
    __atomic_store_n(&d->size_bytes, size_bytes, __ATOMIC_RELAXED); /* orders nothing */
    return 0;
}

/** The content ID of the disk at @path, which may be relative to @d's folder. */
static int read_cid(const struct disk *d, const char *path, uint32_t *ret, struct error *err)
{
    struct disk_options options = {
        .format = "vmdk",
        .flags = DISK_READONLY | DISK_NO_BACKING | DISK_NO_LOCK,
    };
    const char *slash = strrchr(d->path, '/');
    char full[PATH_MAX];
    struct disk *parent = NULL;

    if (snprintf(full, sizeof(full), "%.*s%s",
                 *path == '/' || !slash ? 0 : (int)(slash + 1 - d->path), d->path,
                 path) >= (int)sizeof(full))
        return error_set(err, ENAMETOOLONG, "the path '%.100s...' is too long", path);
    int rc = disk_open(full, &options, &parent, err);
    if (rc)
        return rc;
    *ret = vmdk_of(parent)->desc.cid;
    disk_close(parent);
    return 0;
}

/** The descriptor says that @path (NULL: nothing) with @cid is below. */
static int write_parent(struct vmdk *v, const char *path, uint32_t cid)
{
    char digits[9];
    int rc = -ENOMEM;

    (void)snprintf(digits, sizeof(digits), "%08x", cid);
    mutex_lock(&v->lock);
    char *text = vmdk_desc_set(v->desc.text, "parentCID", digits, false);
    char *text2 = text ? vmdk_desc_set(text, "parentFileNameHint", path, true) : NULL;
    free(text);
    if (text2)
        rc = vmdk_write_text(v, text2);
    if (!rc) {
        v->desc.parent_cid = cid;
        rc = file_flush(v->file);
    }
    mutex_unlock(&v->lock);
    return rc;
}

int vmdk_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    struct vmdk *v = vmdk_of(d);
    uint32_t cid = VMDK_NO_CID;
    int rc = 0;

    if (path && format && strcmp(format, "vmdk") != 0)
        return error_set(err, EINVAL, "below a VMDK disk there can only be another one");
    if (path && strpbrk(path, "\"\r\n"))
        return error_set(err, EINVAL, "a VMDK disk cannot name '%s': it has quotes or newlines",
                         path);
    for (unsigned i = 0; i < v->count; i++) {
        if (path && (v->extents[i].kind == VMDK_FLAT || v->extents[i].sparse == NULL ||
                     v->extents[i].sparse->is_packed))
            return error_set(err, EINVAL,
                             "'%s' is a flat or packed VMDK disk: there can be nothing below it",
                             d->path);
    }
    if (!v->text_room)
        return error_set(err, ENOTSUP, "'%s' has no descriptor", d->path);
    if (path)
        rc = read_cid(d, path, &cid, err);
    if (rc)
        return rc;
    cleanup(freep) char *copy = path ? strdup(path) : NULL;
    rc = path && !copy ? -ENOMEM : write_parent(v, path, cid);
    if (rc)
        return error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc));
    free(d->backing_path);
    d->backing_path = ptr_take(&copy);
    if (path && !d->backing_format)
        d->backing_format = strdup("vmdk"); /* only told; always so */
    return 0;
}

/** The descriptor's CID of what lies below, as its file says now: a commit may have changed it. */
static int renew_parent(struct vmdk *v)
{
    const struct vmdk *below = (const struct vmdk *)v->d.below;
    struct vmdk_desc desc = {.text = NULL};

    if (!v->d.below || v->d.below->format != &vmdk_format || !below->desc.text || !v->text_room)
        return 0;
    size_t size = strlen(below->desc.text);
    cleanup(freep) char *text = malloc(size + 1);
    int rc = text ? file_pread(below->file, text, size, below->text_offset) : -ENOMEM;
    if (!rc)
        rc = vmdk_desc_parse(text, size, "", &desc, NULL);
    if (!rc && desc.cid != v->desc.parent_cid)
        rc = write_parent(v, v->d.backing_path, desc.cid);
    vmdk_desc_done(&desc);
    return rc;
}

int vmdk_make_empty(struct disk *d, struct error *err)
{
    struct vmdk *v = vmdk_of(d);
    int rc = 0;

    for (unsigned i = 0; i < v->count; i++) {
        if (!v->extents[i].sparse || v->extents[i].sparse->is_packed)
            return error_set(err, ENOTSUP, "'%s' is a flat or packed VMDK disk: it is never empty",
                             d->path);
    }
    rc = vmdk_modify(v);
    for (unsigned i = 0; !rc && i < v->count; i++) {
        struct vmdk_sparse *s = v->extents[i].sparse;

        rc = s->damage ? -EIO : forget_blocks(s, 0);
        if (!rc)
            rc = give_back(s);
        if (!rc)
            rc = file_flush(s->file);
    }
    if (!rc)
        rc = renew_parent(v);
    return rc ? error_set(err, -rc, "cannot empty '%s': %s", d->path, strerror(-rc)) : 0;
}
