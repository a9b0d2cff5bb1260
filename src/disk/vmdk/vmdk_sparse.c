/* VMDK: opening sparse extents.
 *
 *     header | descriptor | redundant directory, its tables | directory, its tables | grains ...
 *
 * A stream (streamOptimized) has its tables behind the grains and a second header, the footer, at
 * its end. COWD is what ESX has used: another header, longer tables; it is only read.
 *
 * Hostile: every place and count is checked against the file's length or a limit first.
 *
 * Threads: opening and closing alone; see vmdk_table.c for the rest. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <inttypes.h>
#include <string.h>

struct layout {
    uint64_t capacity, grain, gtes, gd, rgd; /* sectors; entries */
    uint32_t flags;
};

static int wrong(const struct vmdk_sparse *s, const char *what, uint64_t value, struct error *err)
{
    return error_set(err, EINVAL, "disk '%s' claims %s of %" PRIu64, s->file->path, what, value);
}

static int parse_head(struct vmdk_sparse *s, struct layout *l, struct error *err)
{
    const uint8_t *h = s->head;
    uint32_t version = load_le32(h + VMDK_AT_VERSION);

    *l = (struct layout){
        .capacity = load_le64(h + VMDK_AT_CAPACITY),
        .grain = load_le64(h + VMDK_AT_GRAIN),
        .gtes = load_le32(h + VMDK_AT_GTES),
        .gd = load_le64(h + VMDK_AT_GD),
        .rgd = load_le64(h + VMDK_AT_RGD),
        .flags = load_le32(h + VMDK_AT_FLAGS),
    };
    if (version < 1 || version > 3)
        return error_set(err, ENOTSUP, "disk '%s' is a VMDK image of version %u: 1 to 3 are known",
                         s->file->path, version);
    if (l->flags & VMDK_NEWLINES && memcmp(h + VMDK_AT_NEWLINES, "\n \r\n", 4) != 0)
        return error_set(err, EINVAL, "disk '%s' was damaged: it was moved as a text",
                         s->file->path);
    if (l->flags & VMDK_PACKED &&
        (!(l->flags & VMDK_MARKERS) || load_le16(h + VMDK_AT_COMPRESSION) != 1))
        return error_set(err, ENOTSUP, "disk '%s' is compressed in a way that is not known",
                         s->file->path);
    if (!(l->flags & VMDK_REDUNDANT))
        l->rgd = 0;
    s->has_zero = l->flags & VMDK_ZEROED;
    s->is_packed = l->flags & VMDK_PACKED;
    s->has_markers = l->flags & VMDK_MARKERS;
    return 0;
}

static int parse_cowd(struct vmdk_sparse *s, struct layout *l, struct error *err)
{
    *l = (struct layout){
        .capacity = load_le32(s->head + 12),
        .grain = load_le32(s->head + 16),
        .gtes = 4096,
        .gd = load_le32(s->head + 20),
    };
    if (load_le32(s->head + 4) != 1)
        return error_set(err, ENOTSUP, "disk '%s' is a COWD image of version %u: 1 is known",
                         s->file->path, load_le32(s->head + 4));
    s->is_cowd = true;
    return 0;
}

/** The header, or a stream's footer. */
static int read_head(struct vmdk_sparse *s, struct layout *l, struct error *err)
{
    int rc = file_get_size(s->file, &s->end_bytes);

    if (!rc)
        rc = file_pread(s->file, s->head, DISK_SECTOR, 0);
    if (!rc && load_le32(s->head) == VMDK_MAGIC && load_le64(s->head + VMDK_AT_GD) == VMDK_AT_END) {
        uint64_t end = align_down(s->end_bytes, DISK_SECTOR);

        if (end < 4 * DISK_SECTOR)
            return error_set(err, EINVAL, "disk '%s' ends early: its footer is missing",
                             s->file->path);
        rc = file_pread(s->file, s->head, DISK_SECTOR, end - 2 * DISK_SECTOR);
        if (!rc &&
            (load_le32(s->head) != VMDK_MAGIC || load_le64(s->head + VMDK_AT_GD) == VMDK_AT_END))
            return error_set(err, EINVAL, "disk '%s' ends early: its footer is missing",
                             s->file->path);
    }
    if (rc)
        return error_set(err, -rc, "cannot read disk '%s': %s", s->file->path, strerror(-rc));
    if (load_le32(s->head) == VMDK_MAGIC)
        return parse_head(s, l, err);
    if (load_le32(s->head) == VMDK_COWD_MAGIC)
        return parse_cowd(s, l, err);
    return error_set(err, EINVAL, "disk '%s' is not a sparse VMDK extent", s->file->path);
}

static int check_layout(struct vmdk_sparse *s, const struct layout *l, struct error *err)
{
    if (!l->capacity || l->capacity > DISK_MAX_BYTES / DISK_SECTOR)
        return wrong(s, "a capacity in sectors", l->capacity, err);
    if (!is_pow2(l->grain) || l->grain > 1u << 17 || (l->grain < 8 && !s->is_cowd))
        return wrong(s, "a grain size in sectors", l->grain, err);
    if (!l->gtes || l->gtes > 4096 || l->gtes % 128)
        return wrong(s, "a table size", l->gtes, err);
    uint64_t per_table = l->grain * l->gtes;
    uint64_t tables = (l->capacity + per_table - 1) / per_table;
    if (tables > VMDK_MAX_TABLES)
        return error_set(err, EFBIG, "disk '%s' has %" PRIu64 " tables: at most %u are supported",
                         s->file->path, tables, VMDK_MAX_TABLES);
    uint64_t last = s->end_bytes / DISK_SECTOR;
    uint64_t sectors = (tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    if (!l->gd || l->gd > last || sectors > last - l->gd)
        return wrong(s, "a grain directory at sector", l->gd, err);
    if (l->rgd && (l->rgd > last || sectors > last - l->rgd))
        return wrong(s, "a second grain directory at sector", l->rgd, err);
    s->grain_sectors = (uint32_t)l->grain;
    s->table_entries = (uint32_t)l->gtes;
    s->table_count = (uint32_t)tables;
    return 0;
}

static int read_directory(struct vmdk_sparse *s, uint64_t sector, uint32_t **ret, struct error *err)
{
    size_t size = (size_t)s->table_count * 4;
    uint32_t *gd = malloc(size);
    int rc = gd ? file_pread(s->file, gd, size, sector * DISK_SECTOR) : -ENOMEM;

    if (rc) {
        free(gd);
        return error_set(err, -rc, "cannot read disk '%s': %s", s->file->path, strerror(-rc));
    }
    for (uint32_t i = 0; i < s->table_count; i++)
        gd[i] = load_le32(&gd[i]);
    *ret = gd;
    return 0;
}

/** What must hold before a grain is placed. */
static int prepare_writing(struct vmdk_sparse *s, bool may_be_damaged, struct error *err)
{
    struct vmdk_scan scan = {.mend = false};

    if (s->is_cowd)
        return error_set(err, ENOTSUP, "disk '%s' is of ESX's older format: it can only be read",
                         s->file->path);
    int rc = vmdk_scan(s, &scan);
    if (rc)
        return error_set(err, -rc, "cannot read the tables of disk '%s': %s", s->file->path,
                         strerror(-rc));
    if (s->damage && !may_be_damaged)
        return error_set(err, EUCLEAN,
                         "disk '%s' is damaged (%s): it can be read, or mended with "
                         "'posada disk check --repair'",
                         s->file->path, s->damage);
    uint64_t end = MAX(scan.end_sector, (s->end_bytes + DISK_SECTOR - 1) / DISK_SECTOR);
    s->next_sector = align_up(end, s->grain_sectors);
    return 0;
}

static void fill_blocks(struct vmdk_sparse *s, struct vmdk *v, uint64_t start, uint64_t sectors)
{
    s->b.ops = &vmdk_blocks_ops;
    s->b.d = &v->d;
    s->b.file = s->file;
    s->b.start = start;
    s->b.size_bytes = sectors * DISK_SECTOR;
    s->b.block_bytes = s->grain_sectors * DISK_SECTOR;
    s->b.can_zero = s->has_zero;
}

int vmdk_sparse_open(struct vmdk *v, struct file *file, uint64_t start, uint64_t sectors,
                     const struct disk_open *open, struct vmdk_sparse **ret, struct error *err)
{
    struct vmdk_sparse *s = calloc(1, sizeof(*s));
    bool write = !(open->flags & DISK_READONLY);
    struct layout l = {0};

    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    blocks_init(&s->b);
    mutex_init(&s->flush_lock);
    mutex_init(&s->lock);
    s->file = file;
    int rc = read_head(s, &l, err);
    if (!rc)
        rc = check_layout(s, &l, err);
    if (!rc && sectors > l.capacity)
        rc = error_set(err, EINVAL, "disk '%s' is smaller than its descriptor says", file->path);
    if (!rc)
        rc = read_directory(s, l.gd, &s->gd, err);
    if (!rc && l.rgd)
        rc = read_directory(s, l.rgd, &s->rgd, err);
    if (!rc) {
        s->tables = calloc(s->table_count, sizeof(*s->tables));
        if (!s->tables)
            rc = error_set(err, ENOMEM, "out of memory");
    }
    if (!rc) {
        fill_blocks(s, v, start, sectors ? sectors : l.capacity);
        rc = s->is_packed ? vmdk_stream_open(s, write, err)
             : write      ? prepare_writing(s, open->flags & DISK_CHECK, err)
                          : 0;
    }
    if (rc)
        vmdk_sparse_close(s);
    else
        *ret = s;
    return rc;
}

void vmdk_sparse_close(struct vmdk_sparse *s)
{
    if (!s)
        return;
    vmdk_stream_close(s);
    vmdk_tables_drop(s);
    free(s->tables);
    free(s->gd);
    free(s->rgd);
    blocks_done(&s->b);
    mutex_done(&s->flush_lock);
    mutex_done(&s->lock);
    free(s);
}

int vmdk_sparse_write_head(struct vmdk_sparse *s, const uint8_t *head)
{
    int rc = file_pwrite(s->file, head, DISK_SECTOR, 0);

    if (!rc)
        memcpy(s->head, head, DISK_SECTOR);
    return rc;
}

int vmdk_sparse_set_unclean(struct vmdk_sparse *s, bool unclean)
{
    uint8_t head[DISK_SECTOR];
    int rc = 0;

    mutex_lock(&s->lock);
    if (s->head[VMDK_AT_UNCLEAN] != unclean && !s->is_packed) {
        memcpy(head, s->head, sizeof(head));
        head[VMDK_AT_UNCLEAN] = unclean;
        rc = vmdk_sparse_write_head(s, head);
    }
    mutex_unlock(&s->lock);
    return rc;
}
