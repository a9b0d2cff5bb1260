/* VMDK: streams (streamOptimized): grains that are compressed, each behind a marker, one after the
 * other, then the tables.
 *
 *     header | descriptor | marker, grain | ... | marker, table | ... | marker, directory |
 *     marker, footer | end marker
 *
 * Such an image is written once, from its beginning to its end, as when it is made by `convert`; an
 * image with grains in it can only be read.
 *
 * Invariants:
 *  1. `end` is behind the last grain or finished table; finish() writes what closes the file there
 *     and may be called again when more grains have come over it.
 *  2. Grains come in order: when one belongs to another table, the table before it is finished.
 *
 * Threads: reading, any; appending, one. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "disk/packing.h"
#include "disk/vmdk/vmdk.h"

#include <string.h>

#define MARKER 12u /* bytes before a grain's: its sector of the disk, and its packed size */

struct vmdk_stream {
    bool writable;         /* [init] */
    bool unfinished;       /* [lock of the extent] */
    uint64_t end;          /* bytes */
    uint32_t table;        /* being filled */
    uint64_t next;         /* no block before this one may come */
    struct packer *packer; /* [init] */
    struct mutex cache_lock;
    uint8_t *cache;  /* [cache_lock] the block unpacked last */
    uint64_t cached; /* [cache_lock] its number; UINT64_MAX = none */
};

static uint64_t max_packed(const struct vmdk_sparse *s)
{
    return s->b.block_bytes + PACK_SLACK;
}

static int compare_sectors(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/** Do the tables lie apart? Else a small file could keep a reader busy for days. */
static int check_tables(const struct vmdk_sparse *s, struct error *err)
{
    cleanup(freep) uint32_t *v = malloc((size_t)s->table_count * sizeof(*v));

    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(v, s->gd, (size_t)s->table_count * sizeof(*v));
    qsort(v, s->table_count, sizeof(*v), compare_sectors);
    for (uint32_t i = 1; i < s->table_count; i++) {
        if (v[i - 1] && v[i] - v[i - 1] < vmdk_table_bytes(s) / DISK_SECTOR)
            return error_set(err, EINVAL, "disk '%s' has tables that overlap", s->file->path);
    }
    return 0;
}

int vmdk_stream_open(struct vmdk_sparse *s, bool write, struct error *err)
{
    int rc = check_tables(s, err);

    if (rc)
        return rc;
    uint8_t first[DISK_SECTOR];
    struct vmdk_stream *st = calloc(1, sizeof(*st));

    if (!st)
        return error_set(err, ENOMEM, "out of memory");
    mutex_init(&st->cache_lock);
    st->cached = UINT64_MAX;
    s->stream = st;
    st->packer = packer_new();
    if (!st->packer)
        return error_set(err, ENOMEM, "out of memory");
    if (!write)
        return 0;
    rc = file_pread(s->file, first, sizeof(first), 0);
    bool fresh = !rc && load_le64(first + VMDK_AT_GD) == VMDK_AT_END;
    for (uint32_t i = 0; fresh && i < s->table_count; i++)
        fresh = !s->gd[i];
    if (!fresh)
        return error_set(err, EROFS,
                         "disk '%s' is stream-optimized: such an image is written once; "
                         "open it for reading, or convert it",
                         s->file->path);
    st->writable = true;
    st->end = load_le64(first + VMDK_AT_OVERHEAD) * DISK_SECTOR;
    uint64_t least =
        (load_le64(first + VMDK_AT_DESC) + load_le64(first + VMDK_AT_DESC_SIZE)) * DISK_SECTOR;
    if (st->end < MAX(least, (uint64_t)DISK_SECTOR) || st->end > s->end_bytes)
        return error_set(err, EINVAL, "disk '%s' has its first grain in an impossible place",
                         s->file->path);
    return 0;
}

void vmdk_stream_close(struct vmdk_sparse *s)
{
    if (!s->stream)
        return;
    mutex_done(&s->stream->cache_lock);
    packer_free(s->stream->packer);
    free(s->stream->cache);
    free(s->stream);
    s->stream = NULL;
}

static int find_grain(struct vmdk_sparse *s, uint64_t index, uint64_t *ret_offset)
{
    struct vmdk_table *t = NULL;

    mutex_lock(&s->lock);
    int rc = vmdk_table_get(s, (uint32_t)(index / s->table_entries), &t);
    if (!rc)
        *ret_offset = (uint64_t)t->entries[index % s->table_entries] * DISK_SECTOR;
    mutex_unlock(&s->lock);
    return rc;
}

/** Unpack block @index into @to, of block_bytes. */
static int unpack(struct vmdk_sparse *s, uint64_t index, uint8_t *to)
{
    uint8_t marker[MARKER];
    uint64_t at = 0;
    size_t size = 0;
    int rc = find_grain(s, index, &at);

    if (!rc)
        rc = file_pread(s->file, marker, sizeof(marker), at);
    if (rc)
        return rc;
    uint32_t packed = load_le32(marker + 8);
    if (load_le64(marker) != index * s->grain_sectors || !packed || packed > max_packed(s))
        return -EIO;
    cleanup(freep) uint8_t *buf = malloc(packed);
    if (!buf)
        return -ENOMEM;
    rc = file_pread(s->file, buf, packed, at + MARKER);
    if (!rc)
        rc = packer_unpack(s->stream->packer, PACK_ZLIB, buf, packed, to, s->b.block_bytes, &size);
    if (rc)
        return rc;
    memset(to + size, 0, s->b.block_bytes - size);
    return 0;
}

static void scatter(const struct iovec *iov, int n, const uint8_t *from)
{
    for (int i = 0; i < n; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
    }
}

int vmdk_stream_read(struct blocks *b, uint64_t index, uint64_t skip, const struct iovec *iov,
                     int iovcnt)
{
    struct vmdk_sparse *s = container_of(b, struct vmdk_sparse, b);
    struct vmdk_stream *st = s->stream;

    mutex_lock(&st->cache_lock);
    bool hit = st->cached == index;
    if (hit)
        scatter(iov, iovcnt, st->cache + skip);
    mutex_unlock(&st->cache_lock);
    if (hit)
        return 0;
    if (iovcnt == 1 &&
        iov->iov_len == b->block_bytes) /* who reads whole blocks will not ask again */
        return unpack(s, index, iov->iov_base);
    cleanup(freep) uint8_t *buf = malloc(b->block_bytes);
    int rc = buf ? unpack(s, index, buf) : -ENOMEM;
    if (rc)
        return rc;
    scatter(iov, iovcnt, buf + skip);
    mutex_lock(&st->cache_lock);
    uint8_t *old = st->cache;
    st->cache = ptr_take(&buf);
    st->cached = index;
    mutex_unlock(&st->cache_lock);
    free(old);
    return 0;
}

int vmdk_stream_pack(struct vmdk_sparse *s, const void *data, void *dst, size_t dst_size,
                     size_t *ret_size)
{
    return packer_pack(s->stream->packer, PACK_ZLIB, data, s->b.block_bytes, dst, dst_size,
                       ret_size);
}

static int put_marker(struct vmdk_sparse *s, uint64_t *at, uint64_t sectors, enum vmdk_marker type)
{
    uint8_t m[DISK_SECTOR] = {0};
    int rc;

    store_le64(m, sectors);
    store_le32(m + 12, type);
    rc = file_pwrite(s->file, m, sizeof(m), *at);
    *at += sizeof(m);
    return rc;
}

/** Write @count numbers at *@at, in whole sectors. */
static int put_numbers(struct vmdk_sparse *s, uint64_t *at, const uint32_t *v, uint32_t count)
{
    size_t size = align_up((size_t)count * 4, DISK_SECTOR);
    cleanup(freep) uint8_t *buf = calloc(1, size);

    if (!buf)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        store_le32(buf + (size_t)i * 4, v[i]);
    int rc = file_pwrite(s->file, buf, size, *at);
    *at += size;
    return rc;
}

/** Write the table being filled, if there is something in it, at *@at. */
static int put_table(struct vmdk_sparse *s, uint64_t *at) REQUIRES(s->lock)
{
    struct vmdk_stream *st = s->stream;
    struct vmdk_table *t = s->tables[st->table];

    if (!t || !t->dirty)
        return 0;
    int rc = put_marker(s, at, vmdk_table_bytes(s) / DISK_SECTOR, VMDK_MARK_TABLE);
    s->gd[st->table] = (uint32_t)(*at / DISK_SECTOR);
    return rc ? rc : put_numbers(s, at, t->entries, s->table_entries);
}

/** The table before @table is full. */
static int next_table(struct vmdk_sparse *s, uint32_t table) REQUIRES(s->lock)
{
    struct vmdk_stream *st = s->stream;
    int rc = put_table(s, &st->end);

    if (rc)
        return rc;
    if (s->tables[st->table] && s->tables[st->table]->dirty) {
        s->tables[st->table]->dirty = 0;
        s->dirty--;
    }
    st->table = table;
    return 0;
}

int vmdk_stream_append(struct vmdk_sparse *s, uint64_t index, const void *packed, size_t size)
{
    struct vmdk_stream *st = s->stream;
    size_t total = align_up(MARKER + size, DISK_SECTOR);
    cleanup(freep) uint8_t *buf = calloc(1, total);
    uint32_t table = (uint32_t)(index / s->table_entries);
    struct vmdk_table *t = NULL;
    int rc = 0;

    if (!buf)
        return -ENOMEM;
    if (!st || !st->writable || index < st->next)
        return -ENOTSUP;
    store_le64(buf, index * s->grain_sectors);
    store_le32(buf + 8, (uint32_t)size);
    memcpy(buf + MARKER, packed, size);
    mutex_lock(&s->lock);
    if (table != st->table)
        rc = next_table(s, table);
    if (!rc && (st->end + total) / DISK_SECTOR >= VMDK_MAX_SECTORS)
        rc = -ENOSPC;
    if (!rc)
        rc = file_pwrite(s->file, buf, total, st->end);
    if (!rc)
        rc = vmdk_table_get(s, table, &t);
    if (!rc) {
        vmdk_table_set(s, table, (uint32_t)(index % s->table_entries),
                       (uint32_t)(st->end / DISK_SECTOR));
        st->end += total;
        st->next = index + 1;
        st->unfinished = true;
    }
    mutex_unlock(&s->lock);
    return rc;
}

static bool is_zero(const uint8_t *buf, size_t size)
{
    return !buf[0] && !memcmp(buf, buf + 1, size - 1);
}

int vmdk_stream_write(struct vmdk_sparse *s, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t bytes = s->b.block_bytes;
    uint64_t total = iov_bytes(iov, (unsigned)iovcnt);
    uint64_t start = offset;
    uint64_t end = offset + total;
    struct iovec part[DISK_MAX_IOV];
    int rc = 0;

    if (offset % bytes || (end % bytes && end != s->b.size_bytes))
        return -ENOTSUP;
    cleanup(freep) uint8_t *data = malloc(bytes);
    cleanup(freep) uint8_t *packed = malloc(max_packed(s));
    if (!data || !packed)
        return -ENOMEM;
    for (; !rc && offset < end; offset += bytes) {
        size_t size = (size_t)MIN(bytes, end - offset);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, size);
        uint8_t *to = data;
        size_t packed_size = 0;

        for (int i = 0; i < n; to += part[i++].iov_len)
            memcpy(to, part[i].iov_base, part[i].iov_len);
        memset(data + size, 0, bytes - size);
        if (is_zero(data, bytes) && offset / bytes >= s->stream->next)
            continue; /* absent reads as zeroes */
        rc = vmdk_stream_pack(s, data, packed, max_packed(s), &packed_size);
        if (!rc)
            rc = vmdk_stream_append(s, offset / bytes, packed, packed_size);
    }
    return rc;
}

int vmdk_stream_finish(struct vmdk_sparse *s)
{
    struct vmdk_stream *st = s->stream;
    uint8_t head[DISK_SECTOR];
    int rc = 0;

    mutex_lock(&s->lock);
    uint64_t at = st->end;
    bool todo = st->writable && st->unfinished;
    if (todo) {
        uint32_t sectors =
            (uint32_t)align_up((uint64_t)s->table_count * 4, DISK_SECTOR) / DISK_SECTOR;

        rc = put_table(s, &at);
        if (!rc)
            rc = put_marker(s, &at, sectors, VMDK_MARK_DIRECTORY);
        memcpy(head, s->head, sizeof(head));
        store_le64(head + VMDK_AT_GD, at / DISK_SECTOR);
        if (!rc)
            rc = put_numbers(s, &at, s->gd, s->table_count);
        if (!rc)
            rc = put_marker(s, &at, 1, VMDK_MARK_FOOTER);
        if (!rc)
            rc = file_pwrite(s->file, head, sizeof(head), at);
        at += sizeof(head);
        if (!rc)
            rc = put_marker(s, &at, 0, VMDK_MARK_END);
        if (!rc)
            rc = file_truncate(s->file, at);
        st->unfinished = rc;
    }
    mutex_unlock(&s->lock);
    return rc ? rc : file_flush(s->file);
}
