/* VMDK: looking at all tables of a sparse extent at once, before it is written to and to check it.
 *
 * A grain is sound if it lies within the file, apart from header, descriptor, directories and
 * tables, and shares no sector with another one. Grains lie on a grid, from the place of the first
 * one that is met: a bitmap of its squares tells whether two are the same. An image whose grains
 * are on no common grid can be read only.
 *
 * Alone, or before others know the extent. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REPORTS_MAX 1000 /* a hostile image could have millions */

struct range {
    uint64_t first, end; /* sectors */
};

struct scanning {
    struct vmdk_sparse *s;
    struct vmdk_scan *out;
    struct range *meta; /* in order, apart */
    size_t metas;
    uint64_t *squares;
    uint64_t square_count;
    uint64_t origin; /* of the grid, sectors; UINT64_MAX = not known yet */
    uint64_t last_grain;
    unsigned reported;
    bool overlap; /* of tables */
};

static void report(struct scanning *k, const char *text)
{
    if (k->out->report && k->reported++ < REPORTS_MAX)
        k->out->report(k->out->arg, text);
}

static void damage(struct scanning *k, const char *what)
{
    if (!k->s->damage)
        k->s->damage = what;
    k->out->errors++;
}

static int compare_ranges(const void *a, const void *b)
{
    uint64_t x = ((const struct range *)a)->first;
    uint64_t y = ((const struct range *)b)->first;

    return x < y ? -1 : x > y;
}

static void add_meta(struct scanning *k, uint64_t first, uint64_t sectors)
{
    if (sectors)
        k->meta[k->metas++] = (struct range){first, first + sectors};
}

static void add_tables(struct scanning *k, const uint32_t *gd)
{
    uint64_t sectors = vmdk_table_bytes(k->s) / DISK_SECTOR;

    for (uint32_t i = 0; i < k->s->table_count; i++) {
        if (!gd[i] || gd[i] >= VMDK_MAX_SECTORS - sectors ||
            (gd[i] + sectors) * DISK_SECTOR > align_up(k->s->end_bytes, DISK_SECTOR)) {
            report(k, "a grain table is missing or beyond the end of the file");
            damage(k, "not all of its grain tables are there");
        } else {
            add_meta(k, gd[i], sectors);
        }
    }
}

/** Where the descriptions lie; do they overlap? */
static int find_meta(struct scanning *k)
{
    struct vmdk_sparse *s = k->s;
    uint64_t gd_sectors = ((uint64_t)s->table_count * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    uint64_t desc = load_le64(s->head + VMDK_AT_DESC);

    k->meta = malloc(((size_t)s->table_count * 2 + 4) * sizeof(*k->meta));
    if (!k->meta)
        return -ENOMEM;
    add_meta(k, 0, 1);
    if (desc && desc < VMDK_MAX_SECTORS)
        add_meta(k, desc, MIN(load_le64(s->head + VMDK_AT_DESC_SIZE), (uint64_t)VMDK_MAX_SECTORS));
    add_meta(k, load_le64(s->head + VMDK_AT_GD), gd_sectors);
    add_tables(k, s->gd);
    if (s->rgd) {
        add_meta(k, load_le64(s->head + VMDK_AT_RGD), gd_sectors);
        add_tables(k, s->rgd);
    }
    qsort(k->meta, k->metas, sizeof(*k->meta), compare_ranges);
    for (size_t i = 1; i < k->metas; i++) {
        if (k->meta[i].first >= k->meta[i - 1].end)
            continue;
        k->overlap = true;
        report(k, "two tables overlap");
        damage(k, "its tables overlap");
        k->meta[i].end = MAX(k->meta[i].end, k->meta[i - 1].end);
    }
    k->out->end_sector = k->meta[k->metas - 1].end;
    return 0; /* with tables that overlap, what they say is not looked at: see vmdk_scan() */
}

static bool is_meta(const struct scanning *k, uint64_t first, uint64_t end)
{
    size_t low = 0;
    size_t high = k->metas;

    if (first >= k->meta[k->metas - 1].end)
        return false;
    while (low < high) { /* the first range that ends behind `first` */
        size_t mid = (low + high) / 2;

        if (k->meta[mid].end > first)
            high = mid;
        else
            low = mid + 1;
    }
    return low < k->metas && k->meta[low].first < end;
}

/** NULL, or what is wrong with the grain at @sector. */
static const char *check_grain(struct scanning *k, uint64_t sector, bool *ret_twice)
{
    uint64_t grain = k->s->grain_sectors;

    if (sector * DISK_SECTOR >= k->s->end_bytes)
        return "names a grain beyond the end of the file";
    if (is_meta(k, sector, sector + grain))
        return "names a grain that lies on a table";
    if (k->origin == UINT64_MAX)
        k->origin = sector % grain;
    if (sector % grain != k->origin)
        return "names a grain that is not aligned as the others";
    uint64_t square = sector / grain;
    *ret_twice = k->squares[square / 64] & BIT(square % 64);
    if (*ret_twice)
        return "names a grain that another block has too";
    k->squares[square / 64] |= BIT(square % 64);
    k->out->grains++;
    k->out->fragmented += k->last_grain && sector != k->last_grain + grain;
    k->last_grain = sector;
    k->out->end_sector = MAX(k->out->end_sector, sector + grain);
    return NULL;
}

/** Where @entry is to lead instead of to @sector: if @copy, to a copy of that grain; else to
 * zeroes, which is a grain of them where nothing else can tell them from what is below. */
static int mend(struct scanning *k, uint32_t table, uint32_t entry, uint64_t sector, bool copy)
{
    struct vmdk_sparse *s = k->s;
    size_t size = s->b.block_bytes;
    cleanup(freep) uint8_t *buf = copy ? malloc(size) : NULL;
    uint32_t value = s->has_zero ? 1 : 0;
    int rc = copy && !buf ? -ENOMEM : 0;

    if (copy || (!value && s->b.d->backing_path)) {
        if (s->next_sector + s->grain_sectors > VMDK_MAX_SECTORS)
            return -ENOSPC;
        value = (uint32_t)s->next_sector;
        s->next_sector += s->grain_sectors;
    }
    if (!rc && copy)
        rc = file_pread(s->file, buf, size, sector * DISK_SECTOR);
    if (!rc && copy)
        rc = file_pwrite(s->file, buf, size, (uint64_t)value * DISK_SECTOR);
    mutex_lock(&s->lock);
    if (!rc)
        vmdk_table_set(s, table, entry, value);
    mutex_unlock(&s->lock);
    return rc;
}

static int check_entry(struct scanning *k, uint32_t table, uint32_t entry, uint32_t value)
{
    bool twice = false;
    char text[160];
    const char *what = check_grain(k, value, &twice);

    if (!what)
        return 0;
    (void)snprintf(text, sizeof(text), "block %" PRIu64 " %s (sector %u)",
                   (uint64_t)table * k->s->table_entries + entry, what, value);
    report(k, text);
    damage(k, "an entry of its tables is wrong");
    return k->out->mend ? mend(k, table, entry, value, twice) : 0;
}

/** Is the redundant table the same? If not, it is to be written anew. */
static int compare_redundant(struct scanning *k, uint32_t table, const struct vmdk_table *t,
                             uint32_t *buf)
{
    struct vmdk_sparse *s = k->s;
    uint32_t different = 0;
    int rc = file_pread(s->file, buf, vmdk_table_bytes(s), (uint64_t)s->rgd[table] * DISK_SECTOR);

    for (uint32_t i = 0; !rc && i < s->table_entries; i++) {
        if (load_le32(&buf[i]) == t->entries[i])
            continue;
        different++;
        if (s->b.d->readonly)
            continue;
        mutex_lock(&s->lock);
        vmdk_table_set(s, table, i, t->entries[i]); /* only made dirty */
        mutex_unlock(&s->lock);
    }
    k->out->differing += different;
    return rc;
}

/** Is the table at @sector in a hole of the file, so that it names nothing? @hole is the one found
 * last. */
static bool is_hole(const struct vmdk_sparse *s, uint32_t sector, struct range *hole)
{
    uint64_t at = (uint64_t)sector * DISK_SECTOR;
    uint64_t end = at + vmdk_table_bytes(s);
    uint64_t data_end;

    if (hole->first <= at && end <= hole->end)
        return true;
    int rc = file_find_data(s->file, at, &hole->end, &data_end);
    hole->first = at;
    if (rc)
        hole->end = rc == -ENXIO ? UINT64_MAX : at;
    return end <= hole->end;
}

static int scan_tables(struct scanning *k)
{
    struct vmdk_sparse *s = k->s;
    cleanup(freep) uint32_t *buf = malloc((size_t)vmdk_table_bytes(s));
    struct range hole = {0, 0};
    struct range hole2 = {0, 0};
    int rc = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; !rc && i < s->table_count; i++) {
        struct vmdk_table *t = NULL;

        if (!s->gd[i] || (!s->tables[i] && is_hole(s, s->gd[i], &hole) &&
                          (!s->rgd || !s->rgd[i] || is_hole(s, s->rgd[i], &hole2))))
            continue;
        mutex_lock(&s->lock);
        rc = vmdk_table_get(s, i, &t);
        mutex_unlock(&s->lock);
        for (uint32_t e = 0; !rc && e < s->table_entries; e++) {
            uint32_t value = t->entries[e];

            if (value && !(value == 1 && s->has_zero))
                rc = check_entry(k, i, e, value);
        }
        if (!rc && s->rgd && s->rgd[i] && !s->damage)
            rc = compare_redundant(k, i, t, buf);
    }
    return rc;
}

/** Squares of the grid that hold data and that nothing names. */
static int find_leaks(struct scanning *k)
{
    struct vmdk_sparse *s = k->s;
    uint64_t grain = s->grain_sectors;
    uint64_t last = s->end_bytes / DISK_SECTOR / grain;
    uint64_t origin = k->origin == UINT64_MAX ? 0 : k->origin;
    uint64_t start = 0;
    uint64_t end = 0;
    int rc = 0;

    for (uint64_t q = 0; !rc && q < last; q++) {
        uint64_t sector = q * grain + origin;
        uint64_t at = sector * DISK_SECTOR;

        if (k->squares[q / 64] & BIT(q % 64) || is_meta(k, sector, sector + grain) ||
            sector < grain)
            continue;
        if (at >= end) {
            rc = file_find_data(s->file, at, &start, &end);
            if (rc)
                break;
        }
        if (start >= at + grain * DISK_SECTOR) {
            q = (start / DISK_SECTOR - origin) / grain - 1; /* go on where there is data */
            end = 0;
            continue;
        }
        k->out->leaks++;
        if (!k->out->leaks_in)
            continue;
        rc = file_write_zeroes(s->file, at, MIN(grain * DISK_SECTOR, s->end_bytes - at), true);
        k->out->leaks_given_back += !rc;
    }
    return rc == -ENXIO ? 0 : rc;
}

int vmdk_scan(struct vmdk_sparse *s, struct vmdk_scan *scan)
{
    struct scanning k = {.s = s, .out = scan, .origin = UINT64_MAX};
    uint64_t sectors = MIN(s->end_bytes / DISK_SECTOR + 1, VMDK_MAX_SECTORS);

    s->damage = NULL;
    k.square_count = sectors / s->grain_sectors + 1;
    k.squares = calloc(k.square_count / 64 + 1, 8);
    int rc = k.squares ? find_meta(&k) : -ENOMEM;
    /* Tables that lie apart are no larger than the file; else a small file could take days. */
    if (!rc && !k.overlap)
        rc = scan_tables(&k);
    if (!rc && !k.overlap && scan->report && !s->is_cowd)
        rc = find_leaks(&k);
    free(k.squares);
    free(k.meta);
    return rc;
}
