/* Checking and mending the map of blocks.
 *
 * Threads: opening and checking; no other request runs while a repair does.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/map.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NOT_A_BLOCK UINT64_MAX
#define COPY_BYTES  65536u

/** A used part of the file. */
struct extent {
    uint64_t start, end;
    uint64_t block; /* or NOT_A_BLOCK: metadata */
};

void vhd_check_report(struct disk_check *check, const char *fmt, ...)
{
    char text[256];
    va_list args;

    if (!check->report)
        return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    check->report(check->arg, text);
}

static int compare_extents(const void *a, const void *b)
{
    const struct extent *x = a;
    const struct extent *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool has_place(const struct vhd_block *b)
{
    return vhd_kind_of(b->word) == VHD_FULL || vhd_kind_of(b->word) == VHD_PARTIAL;
}

/** All used parts of the file, in order; *@ret is heap. */
static int list_extents(struct vhd_map *m, const struct vhd_region *regions, size_t n,
                        struct extent **ret, size_t *ret_n)
{
    size_t total = n;
    size_t used = 0;
    bool sorted = true;

    for (uint64_t i = 0; i < m->count; i++)
        total += has_place(&m->blocks[i]);
    struct extent *v = malloc((total + 1) * sizeof(*v));
    if (!v)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        v[used++] =
            (struct extent){regions[i].offset, regions[i].offset + regions[i].size, NOT_A_BLOCK};
    for (uint64_t i = 0; i < m->count; i++) {
        uint64_t at = vhd_offset_of(m->blocks[i].word);

        if (has_place(&m->blocks[i]))
            v[used++] = (struct extent){at - m->lead_bytes, at + m->block_bytes, i};
    }
    for (size_t i = 1; i < used && sorted; i++)
        sorted = v[i - 1].start <= v[i].start;
    if (!sorted)
        qsort(v, used, sizeof(*v), compare_extents);
    *ret = v;
    *ret_n = used;
    return 0;
}

static void mark_shared(struct vhd_map *m, const struct extent *e)
{
    if (e->block == NOT_A_BLOCK || m->blocks[e->block].word & VHD_SHARED)
        return;
    m->blocks[e->block].word |= VHD_SHARED;
    m->shared++;
}

int vhd_map_verify(struct vhd_map *m, const struct vhd_region *regions, size_t n)
{
    uint64_t file_bytes = 0;
    struct extent *v = NULL;
    size_t count = 0;
    size_t widest = 0;
    int rc = file_get_size(m->file, &file_bytes);

    m->bad = m->shared = 0;
    for (uint64_t i = 0; i < m->count && !rc; i++) {
        struct vhd_block *b = &m->blocks[i];
        uint64_t at = vhd_offset_of(b->word);

        if (has_place(b) &&
            (at < m->lead_bytes || at > m->max_end_bytes ||
             m->block_bytes > m->max_end_bytes - at || at - m->lead_bytes >= file_bytes))
            b->word = (b->word & ~VHD_KIND_MASK) | VHD_BAD;
        m->bad += vhd_kind_of(b->word) == VHD_BAD;
    }
    if (!rc)
        rc = list_extents(m, regions, n, &v, &count);
    for (size_t i = 0; i < count; i++) {
        /* `widest` ends last of those before. */
        if (i && v[widest].end > v[i].start) {
            mark_shared(m, &v[widest]);
            mark_shared(m, &v[i]);
        }
        if (v[i].end >= v[widest].end)
            widest = i;
    }
    if (count)
        m->end_bytes = v[widest].end;
    free(v);
    return rc;
}

/** Does any part of [start, end) of the file take space? */
static bool has_data(struct vhd_map *m, uint64_t start, uint64_t end)
{
    uint64_t data_start;
    uint64_t data_end;

    return !file_find_data(m->file, start, &data_start, &data_end) && data_start < end;
}

/** Space that nothing uses and that takes room on the host. */
static int check_gap(struct vhd_map *m, unsigned flags, uint64_t start, uint64_t end,
                     struct disk_check *check)
{
    uint64_t stride = (uint64_t)m->block_bytes + m->lead_bytes;

    if (end - start < stride || !has_data(m, start, end))
        return 0;
    uint64_t n = (end - start) / stride;
    check->leaks += n;
    vhd_check_report(check, "%" PRIu64 " blocks at 0x%" PRIx64 " are used by nothing", n, start);
    if (!(flags & (DISK_REPAIR_LEAKS | DISK_REPAIR_ALL)))
        return 0;
    int rc = file_write_zeroes(m->file, start, end - start, true);
    if (!rc)
        check->leaks_fixed += n;
    return rc;
}

static int check_gaps(struct vhd_map *m, unsigned flags, const struct vhd_region *regions, size_t n,
                      struct disk_check *check)
{
    struct extent *v = NULL;
    size_t count = 0;
    uint64_t end = 0;
    int rc = list_extents(m, regions, n, &v, &count);

    for (size_t i = 0; i < count && !rc; i++) {
        if (v[i].start > end)
            rc = check_gap(m, flags, end, v[i].start, check);
        end = MAX(end, v[i].end);
    }
    check->end_bytes = end;
    free(v);
    return rc;
}

/** Give a block that overlaps another a place of its own, with the same content. */
static int copy_block(struct vhd_map *m, uint64_t block)
{
    struct vhd_block *b = &m->blocks[block];
    uint64_t from = vhd_offset_of(b->word);
    cleanup(freep) uint8_t *buf = malloc(COPY_BYTES);
    int rc = buf ? vhd_map_load(m, block) : -ENOMEM;

    if (rc)
        return rc;
    mutex_lock(&m->lock);
    uint64_t to = vhd_map_allocate(m);
    mutex_unlock(&m->lock);
    if (!to)
        return -EFBIG;
    for (uint32_t at = 0; at < m->block_bytes && !rc; at += MIN(COPY_BYTES, m->block_bytes)) {
        size_t size = MIN(COPY_BYTES, m->block_bytes);

        rc = file_pread(m->file, buf, size, from + at);
        if (!rc)
            rc = file_pwrite(m->file, buf, size, to + at);
    }
    mutex_lock(&m->lock);
    if (!rc)
        rc = vhd_map_mark(m, block);
    if (!rc) {
        b->word = to | VHD_FRESH | VHD_DIRTY | (b->word & VHD_KIND_MASK);
        if (b->bits) {
            b->bits->lo = 0;
            b->bits->hi = m->bits_bytes;
        }
    }
    mutex_unlock(&m->lock);
    return rc;
}

static int forget_block(struct vhd_map *m, uint64_t block)
{
    mutex_lock(&m->lock);
    int rc = vhd_map_mark(m, block);
    if (!rc)
        m->blocks[block].word = VHD_NONE | VHD_DIRTY;
    mutex_unlock(&m->lock);
    return rc;
}

static int check_block(struct vhd_map *m, unsigned flags, uint64_t block, struct disk_check *check)
{
    uint64_t word = m->blocks[block].word;
    int rc = 0;

    if (vhd_kind_of(word) == VHD_BAD) {
        check->errors++;
        vhd_check_report(check, "block %" PRIu64 " has a table entry that makes no sense", block);
        if (flags & DISK_REPAIR_ALL)
            rc = forget_block(m, block);
    } else if (word & VHD_SHARED) {
        check->errors++;
        vhd_check_report(check, "block %" PRIu64 " lies on another block or on metadata", block);
        if (flags & DISK_REPAIR_ALL)
            rc = copy_block(m, block);
    } else {
        return 0;
    }
    if (!rc && flags & DISK_REPAIR_ALL)
        check->errors_fixed++;
    return rc;
}

int vhd_map_check(struct vhd_map *m, unsigned flags, const struct vhd_region *regions, size_t n,
                  struct disk_check *check, struct error *err)
{
    uint64_t next = 0;
    int rc = flags ? vhd_map_begin(m) : 0;

    check->clusters += m->count;
    for (uint64_t i = 0; i < m->count && !rc; i++) {
        rc = check_block(m, flags, i, check);
        if (!has_place(&m->blocks[i]))
            continue;
        uint64_t at = vhd_offset_of(m->blocks[i].word);
        check->allocated++;
        check->fragmented += next && at - next >= VHD_DATA_ALIGN;
        next = at + m->block_bytes + m->lead_bytes;
    }
    if (!rc && flags & DISK_REPAIR_ALL && check->errors_fixed)
        rc = vhd_map_flush(&m->d);
    if (!rc && flags & DISK_REPAIR_ALL && check->errors_fixed)
        rc = vhd_map_verify(m, regions, n);
    if (!rc)
        rc = check_gaps(m, flags, regions, n, check);
    return rc ? error_set(err, -rc, "cannot check '%s': %s", m->d.path ? m->d.path : "image",
                          strerror(-rc))
              : 0;
}
