/* VMDK: opening a disk: its descriptor, then its extents.
 *
 * Other files are opened through disk_open_ref() only, by the rules for what an image may name.
 *
 * Threads: any. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <inttypes.h>
#include <string.h>

static bool vmdk_probe(const uint8_t *head, const uint8_t *tail)
{
    (void)tail;
    return load_le32(head) == VMDK_MAGIC || load_le32(head) == VMDK_COWD_MAGIC ||
           !memcmp(head, VMDK_TEXT_MAGIC, strlen(VMDK_TEXT_MAGIC));
}

void vmdk_free(struct vmdk *v, bool with_file)
{
    for (unsigned i = 0; i < v->count; i++) {
        vmdk_sparse_close(v->extents[i].sparse);
        if (v->extents[i].file != v->file)
            file_close(v->extents[i].file);
    }
    if (with_file)
        file_close(v->file);
    vmdk_desc_done(&v->desc);
    mutex_done(&v->lock);
    free(v->extents);
    free(v);
}

/** Read @size bytes of text at @offset, and what they say. */
static int read_text(struct vmdk *v, uint64_t offset, uint64_t size, struct error *err)
{
    cleanup(freep) char *text = malloc((size_t)size + 1);
    int rc = text ? file_pread(v->file, text, (size_t)size, offset) : -ENOMEM;

    if (rc)
        return error_set(err, -rc, "cannot read the descriptor of disk '%s': %s", v->file->path,
                         strerror(-rc));
    return vmdk_desc_parse(text, (size_t)size, v->file->path, &v->desc, err);
}

/** The descriptor within a sparse extent. */
static int read_embedded(struct vmdk *v, const uint8_t *head, uint64_t file_bytes,
                         struct error *err)
{
    uint64_t at = load_le64(head + VMDK_AT_DESC);
    uint64_t sectors = load_le64(head + VMDK_AT_DESC_SIZE);

    if (load_le32(head) != VMDK_MAGIC || !at || !sectors)
        return 0; /* an extent alone */
    if (sectors > VMDK_MAX_TEXT / DISK_SECTOR || at > file_bytes / DISK_SECTOR)
        return error_set(err, EINVAL, "disk '%s' has its descriptor in an impossible place",
                         v->file->path);
    v->text_offset = at * DISK_SECTOR;
    v->text_room = sectors * DISK_SECTOR;
    return read_text(v, v->text_offset, v->text_room, err);
}

static int add_extent(struct vmdk *v, struct vmdk_extent e, struct error *err)
{
    struct vmdk_extent *all = realloc(v->extents, (v->count + 1) * sizeof(*all));

    if (!all)
        return error_set(err, ENOMEM, "out of memory");
    v->extents = all;
    e.start = v->d.size_bytes;
    if (e.size_bytes > DISK_MAX_BYTES - v->d.size_bytes)
        return error_set(err, EINVAL, "disk '%s' claims to be too large", v->file->path);
    v->d.size_bytes += e.size_bytes;
    all[v->count++] = e;
    return 0;
}

/** The extent that is the opened file itself. */
static int open_whole(struct vmdk *v, const struct disk_open *open, struct error *err)
{
    struct vmdk_extent e = {.kind = VMDK_SPARSE, .file = v->file};
    uint64_t sectors = v->desc.count ? v->desc.lines[0].sectors : 0;

    if (v->desc.count > 1)
        return error_set(err, ENOTSUP, "disk '%s' names other extents besides itself",
                         v->file->path);
    /* Where it has grown and the power went before the descriptor said so, the header counts. */
    (void)sectors;
    int rc = vmdk_sparse_open(v, v->file, 0, 0, open, &e.sparse, err);
    if (rc)
        return rc;
    e.size_bytes = e.sparse->b.size_bytes;
    rc = add_extent(v, e, err);
    if (rc)
        vmdk_sparse_close(e.sparse);
    return rc;
}

static int find_kind(const struct vmdk *v, const struct vmdk_line *l, enum vmdk_extent_kind *ret,
                     struct error *err)
{
    static const struct {
        const char *name;
        enum vmdk_extent_kind kind;
    } kinds[] = {
        {"FLAT",       VMDK_FLAT  },
        {"VMFS",       VMDK_FLAT  },
        {"SPARSE",     VMDK_SPARSE},
        {"VMFSSPARSE", VMDK_SPARSE},
        {"ZERO",       VMDK_ZERO  },
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kinds[i].name, l->kind) != 0)
            continue;
        *ret = kinds[i].kind;
        return 0;
    }
    return error_set(err, ENOTSUP, "disk '%s' has an extent of kind %s, which is not supported",
                     v->file->path, l->kind);
}

static int open_extent(struct vmdk *v, const struct vmdk_line *l, const struct disk_open *open,
                       struct error *err)
{
    struct vmdk_extent e = {
        .size_bytes = l->sectors * DISK_SECTOR,
        .flat_offset = l->offset_sectors * DISK_SECTOR,
        .readonly = l->readonly,
    };
    int rc = l->sectors ? find_kind(v, l, &e.kind, err)
                        : error_set(err, EINVAL, "disk '%s' has an empty extent", v->file->path);

    if (!rc && e.kind != VMDK_ZERO)
        rc = disk_open_ref(open, l->name, &e.file, err);
    if (!rc && e.kind == VMDK_SPARSE)
        rc = vmdk_sparse_open(v, e.file, v->d.size_bytes, l->sectors, open, &e.sparse, err);
    if (!rc)
        rc = add_extent(v, e, err);
    if (rc) {
        vmdk_sparse_close(e.sparse);
        file_close(e.file);
    }
    return rc;
}

static int open_text(struct vmdk *v, uint64_t file_bytes, const struct disk_open *open,
                     struct error *err)
{
    if (file_bytes > VMDK_MAX_TEXT)
        return error_set(err, EINVAL, "the descriptor '%s' is too long", v->file->path);
    v->text_room = VMDK_MAX_TEXT;
    int rc = read_text(v, 0, file_bytes, err);
    if (!rc && !v->desc.count)
        rc = error_set(err, EINVAL, "disk '%s' names no extent", v->file->path);
    for (unsigned i = 0; !rc && i < v->desc.count; i++)
        rc = open_extent(v, &v->desc.lines[i], open, err);
    return rc;
}

static int open_all(struct vmdk *v, const struct disk_open *open, struct error *err)
{
    uint8_t head[DISK_SECTOR];
    uint64_t file_bytes = 0;
    int rc = file_get_size(v->file, &file_bytes);

    if (!rc)
        rc = file_pread(v->file, head, sizeof(head), 0);
    if (rc)
        return error_set(err, -rc, "cannot read disk '%s': %s", v->file->path, strerror(-rc));
    if (load_le32(head) == VMDK_MAGIC || load_le32(head) == VMDK_COWD_MAGIC) {
        rc = read_embedded(v, head, file_bytes, err);
        return rc ? rc : open_whole(v, open, err);
    }
    if (memcmp(head, VMDK_TEXT_MAGIC, strlen(VMDK_TEXT_MAGIC)) != 0)
        return error_set(err, EINVAL, "disk '%s' is not a VMDK image", v->file->path);
    return open_text(v, file_bytes, open, err);
}

/** What every layer says of itself, once the extents are known. */
static int finish(struct vmdk *v, struct error *err)
{
    for (unsigned i = 0; i < v->count; i++) {
        if (v->extents[i].sparse)
            v->d.cluster_bytes = v->extents[i].sparse->b.block_bytes;
    }
    if (!v->d.size_bytes)
        return error_set(err, EINVAL, "disk '%s' is empty", v->file->path);
    if (!v->desc.parent)
        return 0;
    v->d.backing_path = strdup(v->desc.parent);
    v->d.backing_format = strdup("vmdk"); /* always so */
    return v->d.backing_path && v->d.backing_format ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int vmdk_open(const struct disk_open *open, struct file *file, struct disk **ret,
                     struct error *err)
{
    struct vmdk *v = calloc(1, sizeof(*v));

    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    v->d.ops = &vmdk_ops;
    v->d.readonly = open->flags & DISK_READONLY;
    v->file = file;
    v->desc.cid = v->desc.parent_cid = VMDK_NO_CID;
    mutex_init(&v->lock);
    int rc = open_all(v, open, err);
    if (!rc)
        rc = finish(v, err);
    if (rc) {
        free(v->d.backing_path);
        free(v->d.backing_format);
        vmdk_free(v, false);
        return rc;
    }
    *ret = &v->d;
    return 0;
}

const struct disk_format vmdk_format = {
    .name = "vmdk",
    .title = "VMDK",
    .suffixes = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .create = vmdk_create,
    .options = vmdk_options,
    .measure = vmdk_measure,
};
