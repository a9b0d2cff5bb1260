/* VHDX's block allocation table and sector bitmap blocks on the disk. Spec: [MS-VHDX] 2.4, 2.5.
 *
 * Order of writes, one commit:
 *   without a parent:  data | flush | table entries, in place                      | flush
 *   with a parent:     data, bits in new bitmap blocks | flush | a log entry | flush | the same in
 *                      place, which the next commit's first flush makes durable
 * An entry is eight bytes of one sector, and without a parent none depends on another one: written
 * after what it points to is durable, it needs no log. With a parent a block's entry depends on its
 * bitmap and on the bitmap block's entry: bitmaps go first, then the pages of the table from the
 * last to the first, since a chunk's bitmap entry comes after those of its payload.
 *
 * Threads: commits come one at a time.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

#define LOAD_BYTES 65536u

static uint64_t payload_entry(const struct vhdx *v, uint64_t block)
{
    return block + block / v->ratio;
}

static uint64_t bitmap_entry(const struct vhdx *v, uint64_t chunk)
{
    return (chunk + 1) * (v->ratio + 1ULL) - 1;
}

/** Where the bitmap of @block lies in its chunk's bitmap block. */
static uint64_t bits_in_chunk(const struct vhdx *v, uint64_t block)
{
    return block % v->ratio * v->m.bits_bytes;
}

uint64_t vhdx_table_entries(uint64_t size_bytes, uint32_t block_bytes, uint32_t sector_bytes,
                            bool has_parent)
{
    uint64_t ratio = (uint64_t)sector_bytes * 8 * VHDX_MIB / block_bytes;
    uint64_t blocks = (size_bytes + block_bytes - 1) / block_bytes;
    uint64_t chunks = (blocks + ratio - 1) / ratio;

    return has_parent ? chunks * (ratio + 1) : blocks + (blocks - 1) / ratio;
}

int vhdx_add_used(struct vhdx *v, uint64_t offset, uint64_t size)
{
    if (!(v->used_count & (v->used_count - 1))) { /* room doubles at each power of two */
        struct vhd_region *used =
            realloc(v->used, MAX(v->used_count * 2, (size_t)1) * sizeof(*used));

        if (!used)
            return -ENOMEM;
        v->used = used;
    }
    v->used[v->used_count++] = (struct vhd_region){offset, size};
    return 0;
}

static int take_bitmap_entry(struct vhdx *v, uint64_t chunk, uint64_t entry, uint64_t file_bytes)
{
    uint64_t place = align_down(entry, VHDX_MIB);

    if ((entry & 7) != VHDX_PRESENT || !v->md.has_parent || place < VHDX_MIB || place >= file_bytes)
        return 0; /* blocks that need it become BAD */
    v->bitmaps[chunk] = place;
    return vhdx_add_used(v, place, VHDX_MIB);
}

static void take_payload_entry(struct vhdx *v, uint64_t block, uint64_t entry)
{
    uint64_t place = align_down(entry, VHDX_MIB);
    enum vhd_kind kind = VHD_BAD;

    switch (entry & 7) {
    case VHDX_NOT_PRESENT:
        return;
    case VHDX_UNDEFINED:
    case VHDX_ZERO_STATE:
    case VHDX_UNMAPPED:
        kind = VHD_ZERO;
        place = 0;
        break;
    case VHDX_PRESENT:
        kind = VHD_FULL;
        break;
    case VHDX_PARTLY:
        kind = v->md.has_parent ? VHD_PARTIAL : VHD_BAD;
        break;
    default:
        break;
    }
    if (kind != VHD_ZERO && place < VHDX_MIB) /* on the headers */
        kind = VHD_BAD;
    vhd_map_set(&v->m, block, kind, place);
}

/** PARTIAL blocks whose chunk has no bitmap block make no sense. */
static void check_bitmaps(struct vhdx *v)
{
    for (uint64_t i = 0; i < v->m.count; i++) {
        uint64_t word = v->m.blocks[i].word;

        if (vhd_kind_of(word) == VHD_PARTIAL && !v->bitmaps[i / v->ratio])
            vhd_map_set(&v->m, i, VHD_BAD, vhd_offset_of(word));
    }
}

int vhdx_table_load(struct vhdx *v, struct error *err)
{
    struct vhd_map *m = &v->m;
    uint64_t entries =
        vhdx_table_entries(m->d.size_bytes, m->block_bytes, m->sector_bytes, v->md.has_parent);
    cleanup(freep) uint8_t *buf = malloc(LOAD_BYTES);
    uint64_t file_bytes = 0;
    int rc = buf ? file_get_size(m->file, &file_bytes) : -ENOMEM;

    if (entries > v->table.size / 8)
        return error_set(err, EINVAL, "VHDX image '%s' has a table that is too short",
                         m->file->path);
    for (uint64_t at = 0; at < entries && !rc; at += LOAD_BYTES / 8) {
        size_t n = (size_t)MIN(entries - at, (uint64_t)LOAD_BYTES / 8);

        rc = file_pread(m->file, buf, n * 8, v->table.offset + at * 8);
        for (size_t i = 0; i < n && !rc; i++) {
            uint64_t entry = load_le64(buf + i * 8);
            uint64_t chunk = (at + i) / (v->ratio + 1ULL);
            uint64_t in = (at + i) % (v->ratio + 1ULL);

            if (in == v->ratio)
                rc = take_bitmap_entry(v, chunk, entry, file_bytes);
            else if (entry && chunk * v->ratio + in < m->count)
                take_payload_entry(v, chunk * v->ratio + in, entry);
        }
    }
    check_bitmaps(v);
    return rc ? error_set(err, -rc, "cannot read the table of '%s': %s", m->file->path,
                          strerror(-rc))
              : 0;
}

static int load_bits(struct vhd_map *m, uint64_t block, uint64_t offset, uint8_t *bits)
{
    struct vhdx *v = (struct vhdx *)m;

    (void)offset;
    /* A commit may be adding bitmap blocks, but never to a chunk with a PARTIAL block on disk. */
    uint64_t place = __atomic_load_n(&v->bitmaps[block / v->ratio], __ATOMIC_RELAXED);
    if (!place)
        return -EIO;
    return file_pread(m->file, bits, m->bits_bytes, place + bits_in_chunk(v, block));
}

/** New identifiers before anything else changes, and no leftovers where fresh blocks go. */
static int begin(struct vhd_map *m)
{
    struct vhdx *v = (struct vhdx *)m;
    uint64_t size = 0;
    int rc = vhdx_new_guid(v->h.file_guid);

    if (!rc)
        rc = vhdx_new_guid(v->h.data_guid);
    if (!rc)
        rc = vhdx_header_update(v);
    if (!rc)
        rc = file_get_size(m->file, &size);
    if (!rc && size > m->end_bytes && !m->file->is_block)
        rc = file_truncate(m->file, m->end_bytes);
    return rc;
}

static uint64_t entry_of(const struct vhd_change *c)
{
    switch (c->kind) {
    case VHD_FULL:
        return c->offset | VHDX_PRESENT;
    case VHD_PARTIAL:
        return c->offset | VHDX_PARTLY;
    case VHD_ZERO:
        return VHDX_ZERO_STATE;
    case VHD_NONE:
    case VHD_BAD:
        break;
    }
    return VHDX_NOT_PRESENT;
}

static bool changes_table(const struct vhd_change *c)
{
    return c->is_fresh || c->kind != VHD_PARTIAL;
}

/** Entries of the changes from *@i on that lie in one sector of the table, in place. */
static int write_sector(struct vhdx *v, const struct vhd_change *c, size_t n, size_t *i)
{
    uint64_t place = v->table.offset + payload_entry(v, c[*i].block) * 8;
    uint64_t sector = align_down(place, DISK_SECTOR);
    uint8_t buf[DISK_SECTOR];
    uint8_t old[DISK_SECTOR];
    int rc = file_pread(v->m.file, buf, sizeof(buf), sector);

    memcpy(old, buf, sizeof(buf));
    for (; *i < n; ++*i) {
        place = v->table.offset + payload_entry(v, c[*i].block) * 8;
        if (place >= sector + DISK_SECTOR)
            break;
        store_le64(buf + (place - sector), entry_of(&c[*i]));
    }
    return rc || !memcmp(old, buf, sizeof(buf)) ? rc
                                                : file_pwrite(v->m.file, buf, sizeof(buf), sector);
}

/** A bitmap block for the chunk of each PARTIAL change; their entries go to @table. */
static int add_bitmap_blocks(struct vhdx *v, const struct vhd_change *c, size_t n, bool *is_new,
                             struct vhdx_pages *table)
{
    int rc = 0;

    for (size_t i = 0; i < n && !rc; i++) {
        uint64_t chunk = c[i].block / v->ratio;
        uint8_t entry[8];

        if (c[i].kind != VHD_PARTIAL || v->bitmaps[chunk])
            continue;
        uint64_t place = vhd_map_reserve(&v->m, VHDX_MIB, VHDX_MIB);
        rc = vhdx_add_used(v, place, VHDX_MIB);
        if (!rc && v->m.file->is_block)
            rc = file_write_zeroes(v->m.file, place, VHDX_MIB, true);
        store_le64(entry, place | VHDX_PRESENT);
        if (!rc)
            rc = vhdx_pages_patch(v, table, v->table.offset + bitmap_entry(v, chunk) * 8, entry, 8);
        if (rc)
            break;
        is_new[i] = true;
        __atomic_store_n(&v->bitmaps[chunk], place, __ATOMIC_RELAXED);
    }
    return rc;
}

/** Bits that changed: to a bitmap block that nothing points to yet in place, else to @pages. */
static int put_bits(struct vhdx *v, const struct vhd_change *c, uint64_t new_from,
                    struct vhdx_pages *pages)
{
    uint64_t place = v->bitmaps[c->block / v->ratio] + bits_in_chunk(v, c->block);
    uint32_t lo = c->is_fresh ? 0 : c->bits_lo;
    uint32_t hi = c->is_fresh ? v->m.bits_bytes : c->bits_hi;

    if (c->kind != VHD_PARTIAL || !c->bits || lo >= hi)
        return 0;
    if (v->bitmaps[c->block / v->ratio] >= new_from)
        return file_pwrite(v->m.file, c->bits + lo, hi - lo, place + lo);
    return vhdx_pages_patch(v, pages, place + lo, c->bits + lo, hi - lo);
}

static int extend_file(struct vhdx *v, uint64_t *end_bytes)
{
    uint64_t size = 0;
    int rc = file_get_size(v->m.file, &size);

    mutex_lock(&v->m.lock);
    *end_bytes = v->m.end_bytes;
    mutex_unlock(&v->m.lock);
    *end_bytes = align_up(*end_bytes, VHDX_MIB);
    return rc || size >= *end_bytes || v->m.file->is_block ? rc
                                                           : file_truncate(v->m.file, *end_bytes);
}

static int compare_pages(const void *a, const void *b)
{
    const struct vhdx_page *x = *(struct vhdx_page *const *)a;
    const struct vhdx_page *y = *(struct vhdx_page *const *)b;

    return x->offset > y->offset ? -1 : x->offset < y->offset;
}

/** Bitmaps, then the table from its end: see above. */
static int join(struct vhdx_pages *bitmaps, struct vhdx_pages *table)
{
    struct vhdx_page **v = realloc(bitmaps->v, (bitmaps->n + table->n + 1) * sizeof(*v));

    if (!v)
        return -ENOMEM;
    if (table->n)
        qsort(table->v, table->n, sizeof(struct vhdx_page *), compare_pages);
    for (size_t i = 0; i < table->n; i++)
        v[bitmaps->n++] = table->v[i];
    bitmaps->v = v;
    bitmaps->room = bitmaps->n;
    table->n = 0;
    return 0;
}

static int commit_logged(struct vhdx *v, const struct vhd_change *c, size_t n)
{
    struct vhdx_pages pages = {0};
    struct vhdx_pages table = {0};
    uint64_t end = 0;
    cleanup(freep) bool *is_new = calloc(n + 1, sizeof(bool));
    uint64_t new_from = UINT64_MAX;
    int rc = is_new ? add_bitmap_blocks(v, c, n, is_new, &table) : -ENOMEM;

    for (size_t i = 0; i < n && !rc; i++) {
        if (is_new[i])
            new_from = MIN(new_from, v->bitmaps[c[i].block / v->ratio]);
    }
    for (size_t i = 0; i < n && !rc; i++) {
        uint8_t entry[8];

        rc = put_bits(v, &c[i], new_from, &pages);
        store_le64(entry, entry_of(&c[i]));
        if (!rc && changes_table(&c[i]))
            rc = vhdx_pages_patch(v, &table, v->table.offset + payload_entry(v, c[i].block) * 8,
                                  entry, 8);
    }
    if (!rc)
        rc = extend_file(v, &end);
    if (!rc)
        rc = file_flush(v->m.file);
    if (!rc)
        rc = join(&pages, &table);
    if (!rc)
        rc = vhdx_log_write(v, &pages, end);
    for (size_t i = 0; rc && is_new && i < n; i++) { /* nothing points to them: again next time */
        if (is_new[i])
            __atomic_store_n(&v->bitmaps[c[i].block / v->ratio], 0, __ATOMIC_RELAXED);
    }
    vhdx_pages_done(&pages);
    vhdx_pages_done(&table);
    return rc;
}

static int commit(struct vhd_map *m, const struct vhd_change *c, size_t n, uint64_t end_bytes)
{
    struct vhdx *v = (struct vhdx *)m;
    int rc;

    if (v->md.has_parent && n)
        return commit_logged(v, c, n);
    rc = n ? extend_file(v, &end_bytes) : 0;
    if (!rc)
        rc = file_flush(m->file);
    if (rc || !n)
        return rc;
    for (size_t i = 0; i < n && !rc;)
        rc = write_sector(v, c, n, &i);
    return rc ? rc : file_flush(m->file);
}

const struct vhd_map_ops vhdx_map_ops = {
    .load_bits = load_bits,
    .begin = begin,
    .commit = commit,
};
