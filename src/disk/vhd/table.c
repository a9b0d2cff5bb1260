/* VHD's block allocation table and sector bitmaps on the disk.
 *
 * Order of writes, one commit:
 *   data, whole bitmaps of fresh blocks, the footer behind the last block | flush |
 *   table entries, bitmaps of blocks that the table already knew           | flush
 * The footer at the end may be torn or be overwritten by a block's bitmap: its copy at 0 is not
 * touched by growing. An entry is four bytes of one sector, bitmaps only gain bits, so no sector of
 * either needs another one to be right.
 *
 * Threads: commits come one at a time.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/vhd.h"

#include <string.h>

#define LOAD_BYTES 65536u

enum { AT_LOCATORS = 576, LOCATOR_BYTES = 24 };

/** Mirror the bits of each byte: VHD counts sectors from the highest bit. */
static void mirror(uint8_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t b = v[i];

        b = (uint8_t)(b >> 4 | b << 4);
        b = (uint8_t)((b & 0xcc) >> 2 | (b & 0x33) << 2);
        v[i] = (uint8_t)((b & 0xaa) >> 1 | (b & 0x55) << 1);
    }
}

size_t vhd_regions(const struct vhd *v, uint64_t file_bytes, struct vhd_region *ret)
{
    uint64_t table = align_down(v->h.table_offset, DISK_SECTOR);
    uint64_t table_end = align_up(v->h.table_offset + (uint64_t)v->h.max_entries * 4, DISK_SECTOR);
    size_t n = 0;

    ret[n++] = (struct vhd_region){0, VHD_FOOTER_BYTES};
    ret[n++] = (struct vhd_region){v->f.header_offset, VHD_HEADER_BYTES};
    ret[n++] = (struct vhd_region){table, table_end - table};
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = v->header + AT_LOCATORS + (size_t)i * LOCATOR_BYTES;
        uint64_t size = load_be32(l + 8);
        uint64_t at = load_be64(l + 16);

        if (load_be32(l) && size && at < file_bytes && size <= file_bytes - at)
            ret[n++] = (struct vhd_region){at, size};
    }
    return n;
}

int vhd_table_load(struct vhd *v, struct error *err)
{
    struct vhd_map *m = &v->m;
    cleanup(freep) uint8_t *buf = malloc(LOAD_BYTES);

    if (!buf)
        return error_set(err, ENOMEM, "out of memory");
    for (uint64_t at = 0; at < m->count; at += LOAD_BYTES / 4) {
        size_t n = (size_t)MIN(m->count - at, (uint64_t)LOAD_BYTES / 4);
        int rc = file_pread(m->file, buf, n * 4, v->h.table_offset + at * 4);

        if (rc)
            return error_set(err, -rc, "cannot read the table of '%s': %s", m->file->path,
                             strerror(-rc));
        for (size_t i = 0; i < n; i++) {
            uint32_t entry = load_be32(buf + i * 4);

            if (entry != VHD_UNUSED)
                vhd_map_set(m, at + i, VHD_PARTIAL, (uint64_t)entry * DISK_SECTOR + m->lead_bytes);
        }
    }
    return 0;
}

static int load_bits(struct vhd_map *m, uint64_t block, uint64_t offset, uint8_t *bits)
{
    (void)block; /* its bitmap lies right before its data */
    int rc = file_pread(m->file, bits, m->bits_bytes, offset - m->lead_bytes);

    mirror(bits, m->bits_bytes);
    return rc;
}

/** Write the sectors with bytes [lo, hi) of the block's bitmap; all ones if it has none. */
static int write_bits(struct vhd_map *m, const struct vhd_change *c, uint32_t lo, uint32_t hi)
{
    lo = (uint32_t)align_down(lo, DISK_SECTOR);
    hi = MIN((uint32_t)align_up(hi, DISK_SECTOR), m->lead_bytes);
    cleanup(freep) uint8_t *buf = calloc(1, hi - lo);
    if (!buf)
        return -ENOMEM;
    uint32_t used = MIN(hi, m->bits_bytes) - lo;
    if (c->bits)
        memcpy(buf, c->bits + lo, used);
    else
        memset(buf, 0xff, used);
    mirror(buf, used);
    return file_pwrite(m->file, buf, hi - lo, c->offset - m->lead_bytes + lo);
}

/** Footers: the last one, and the copy at 0 if it is bad. */
int vhd_write_footers(struct vhd *v, uint64_t end_bytes)
{
    int rc = 0;

    if (v->is_head_bad)
        rc = file_pwrite(v->m.file, v->footer, VHD_FOOTER_BYTES, 0);
    if (!rc)
        rc = file_pwrite(v->m.file, v->footer, VHD_FOOTER_BYTES, end_bytes);
    v->footer_offset = rc ? 0 : end_bytes;
    return rc;
}

/** The copy at 0 must be good before the one at the end may go; leaked space behind the last block
 * goes, since fresh blocks must read as zeroes. */
static int begin(struct vhd_map *m)
{
    struct vhd *v = (struct vhd *)m;
    uint64_t size = 0;
    int rc = file_get_size(m->file, &size);

    if (!rc && v->is_head_bad) {
        rc = file_pwrite(m->file, v->footer, VHD_FOOTER_BYTES, 0);
        if (!rc)
            rc = file_flush(m->file);
        v->is_head_bad = rc;
    }
    if (rc || v->footer_offset == m->end_bytes)
        return rc;
    v->footer_offset = 0;
    return size > m->end_bytes && !m->file->is_block ? file_truncate(m->file, m->end_bytes) : 0;
}

static uint64_t entry_place(const struct vhd *v, uint64_t block)
{
    return v->h.table_offset + block * 4;
}

static bool changes_table(const struct vhd_change *c)
{
    return c->is_fresh || c->kind == VHD_NONE;
}

/** Entries of the changes from *@i on that lie in one sector of the table. */
static int write_table_sector(struct vhd *v, const struct vhd_change *c, size_t n, size_t *i)
{
    uint64_t sector = align_down(entry_place(v, c[*i].block), DISK_SECTOR);
    uint8_t buf[DISK_SECTOR + 4]; /* a table may begin at any byte: an entry may cross */
    size_t size = DISK_SECTOR + (v->h.table_offset % 4 ? 4 : 0);
    bool any = false;
    int rc = file_pread(v->m.file, buf, size, sector);

    for (; !rc && *i < n; ++*i) {
        uint64_t at = entry_place(v, c[*i].block) - sector;

        if (at >= DISK_SECTOR)
            break;
        if (!changes_table(&c[*i]))
            continue;
        store_be32(buf + at, c[*i].kind == VHD_NONE
                                 ? VHD_UNUSED
                                 : (uint32_t)((c[*i].offset - v->m.lead_bytes) / DISK_SECTOR));
        any = true;
    }
    return rc || !any ? rc : file_pwrite(v->m.file, buf, size, sector);
}

static int commit(struct vhd_map *m, const struct vhd_change *c, size_t n, uint64_t end_bytes)
{
    struct vhd *v = (struct vhd *)m;
    int rc = 0;

    for (size_t i = 0; i < n && !rc; i++) {
        if (c[i].is_fresh)
            rc = write_bits(m, &c[i], 0, m->bits_bytes);
    }
    if (!rc && v->footer_offset != end_bytes && __atomic_load_n(&m->has_begun, __ATOMIC_ACQUIRE))
        rc = vhd_write_footers(v, end_bytes);
    if (!rc)
        rc = file_flush(m->file);
    if (rc || !n)
        return rc;
    for (size_t i = 0; i < n && !rc;)
        rc = write_table_sector(v, c, n, &i);
    for (size_t i = 0; i < n && !rc; i++) {
        if (!c[i].is_fresh && c[i].bits && c[i].bits_lo < c[i].bits_hi)
            rc = write_bits(m, &c[i], c[i].bits_lo, c[i].bits_hi);
    }
    return rc ? rc : file_flush(m->file);
}

const struct vhd_map_ops vhd_map_format_ops = {
    .load_bits = load_bits,
    .begin = begin,
    .commit = commit,
};
