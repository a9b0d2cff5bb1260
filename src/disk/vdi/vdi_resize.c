/* VDI: other sizes, and emptying.
 *
 * Growing beyond the room for the map moves the slots that are in its way to the end, then writes
 * a new map where they were; the header, one sector, changes from the old map to the new one at
 * once. Shrinking forgets the blocks beyond the new end, closes the holes that they leave, and
 * changes the header last. So a power cut leaves the old size or the new one.
 *
 * For exclusive use: no other request at the same time.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vdi/vdi.h"

#include <string.h>

static uint32_t blocks_for(const struct vdi *v, uint64_t size)
{
    uint64_t n = size / v->b.block_bytes + !!(size % v->b.block_bytes);

    return n > VDI_MAX_BLOCKS ? UINT32_MAX : (uint32_t)n;
}

static void set(struct vdi *v, uint32_t index, uint32_t entry)
{
    mutex_lock(&v->lock);
    vdi_set(v, index, entry);
    mutex_unlock(&v->lock);
}

/** The map gets @blocks entries, in memory; new ones are @value. */
static int set_map_size(struct vdi *v, uint32_t blocks, uint32_t value)
{
    size_t entries = vdi_map_sectors(blocks) * VDI_PER_SECTOR;
    uint32_t *map = malloc(entries * sizeof(*map));
    uint64_t *dirty = calloc(vdi_map_sectors(blocks) / 64 + 1, 8);
    uint64_t *used = calloc((size_t)vdi_max_slots(blocks) / 64 + 1, 8);
    uint32_t old = v->blocks;

    if (!map || !dirty || !used) {
        free(map);
        free(dirty);
        free(used);
        return -ENOMEM;
    }
    for (size_t i = 0; i < entries; i++)
        map[i] = i < MIN(blocks, old) ? v->map[i] : i < blocks ? value : VDI_ABSENT;
    vdi_map_done(v);
    v->map = map;
    v->dirty = dirty;
    v->used = used;
    v->blocks = blocks;
    for (uint32_t i = old; i < blocks; i++)
        set(v, i, value);
    return vdi_scan(v);
}

static int copy_slot(struct vdi *v, uint32_t from, uint32_t to)
{
    cleanup(freep) uint8_t *buf = malloc(v->b.block_bytes);
    int rc = buf ? 0 : -ENOMEM;

    if (!rc)
        rc = file_pread(v->file, buf, v->b.block_bytes, vdi_slot_offset(v, from));
    return rc ? rc : file_pwrite(v->file, buf, v->b.block_bytes, vdi_slot_offset(v, to));
}

/** Move the slots [0, count) to the end. */
static int move_slots(struct vdi *v, uint32_t count)
{
    int rc = 0;

    v->slots = MAX(v->slots, count);
    for (uint32_t i = 0; !rc && i < v->blocks; i++) {
        if (vdi_entry(v, i) >= count)
            continue;
        rc = copy_slot(v, vdi_entry(v, i), v->slots);
        if (!rc)
            set(v, i, v->slots++);
    }
    return rc ? rc : vdi_flush(&v->d);
}

/** From now on, in memory, the map begins where the first @count slots were. */
static void shift_map(struct vdi *v, uint32_t count)
{
    v->offset_map = v->offset_data;
    v->offset_data += count * v->b.block_bytes;
    for (uint32_t i = 0; i < v->blocks; i++) {
        uint32_t entry = vdi_entry(v, i);

        set(v, i, vdi_is_slot(entry) ? entry - count : entry);
    }
}

/** Make room for a map of @blocks entries. */
static int make_room(struct vdi *v, uint32_t blocks)
{
    uint64_t bytes = vdi_map_sectors(blocks) * DISK_SECTOR;
    uint32_t count = (uint32_t)((bytes + v->b.block_bytes - 1) / v->b.block_bytes);

    if (bytes <= v->offset_data - v->offset_map)
        return 0;
    if (v->offset_data + (uint64_t)count * v->b.block_bytes > UINT32_MAX)
        return -EFBIG;
    int rc = vdi_close_holes(v);
    if (!rc)
        rc = move_slots(v, count);
    if (!rc)
        shift_map(v, count);
    return rc;
}

static int write_size(struct vdi *v, uint64_t size)
{
    uint8_t head[DISK_SECTOR];

    mutex_lock(&v->lock);
    memcpy(head, v->head, sizeof(head));
    store_le32(head + VDI_AT_OFFSET_MAP, v->offset_map);
    store_le32(head + VDI_AT_OFFSET_DATA, v->offset_data);
    store_le64(head + VDI_AT_DISK_SIZE, size);
    store_le32(head + VDI_AT_BLOCKS, v->blocks);
    store_le32(head + VDI_AT_ALLOCATED, v->slots);
    int rc = vdi_write_head(v, head);
    mutex_unlock(&v->lock);
    return rc ? rc : file_flush(v->file);
}

static void set_size(struct vdi *v, uint64_t size)
{
    v->b.size_bytes = size;
    __atomic_store_n(&v->d.size_bytes, size, __ATOMIC_RELAXED); /* a size alone: orders nothing */
}

/** What lies between the old end and that of its block must read as zeroes when the disk is longer.
 */
static int clean_tail(struct vdi *v, uint64_t old, uint64_t size)
{
    uint64_t end = MIN(align_up(old, v->b.block_bytes), size);

    return end > old ? blocks_write_zeroes(&v->b, old, end - old, true) : 0;
}

static int grow(struct vdi *v, uint64_t size)
{
    uint32_t type = load_le32(v->head + VDI_AT_TYPE);
    uint64_t old = v->d.size_bytes;
    uint32_t old_blocks = v->blocks;
    uint32_t blocks = MAX(blocks_for(v, size), old_blocks);
    int rc = make_room(v, blocks);

    if (!rc)
        rc = set_map_size(v, blocks, type == VDI_DIFF ? VDI_ZERO : VDI_ABSENT);
    if (rc)
        return rc;
    for (uint32_t i = 0; v->offset_map != load_le32(v->head + VDI_AT_OFFSET_MAP) && i < blocks;
         i += VDI_PER_SECTOR)
        set(v, i, vdi_entry(v, i)); /* all of it, to the new place */
    for (uint32_t i = old_blocks; type == VDI_FIXED && i < blocks; i++)
        set(v, i, v->slots++);
    v->slots_in_file = v->slots; /* the header is written with the new places, not before */
    set_size(v, size);
    rc = clean_tail(v, old, size);
    v->slots_in_file = v->slots;
    if (!rc)
        rc = vdi_flush(&v->d);
    return rc ? rc : write_size(v, size);
}

static int shrink_to(struct vdi *v, uint64_t size)
{
    uint32_t blocks = blocks_for(v, size);

    for (uint32_t i = blocks; i < v->blocks; i++)
        set(v, i, VDI_ABSENT);
    int rc = vdi_flush(&v->d);
    if (!rc)
        rc = vdi_close_holes(v);
    if (!rc)
        rc = set_map_size(v, blocks, VDI_ABSENT);
    if (!rc)
        rc = write_size(v, size);
    if (!rc)
        set_size(v, size);
    return rc;
}

int vdi_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct vdi *v = vdi_of(d);

    (void)shrink; /* the caller has checked */
    if (blocks_for(v, size_bytes) == UINT32_MAX)
        return error_set(err, EFBIG, "a VDI image of so many bytes is not supported");
    int rc = vdi_modify(v);
    if (!rc)
        rc = vdi_flush(d);
    if (!rc) {
        rc = size_bytes > d->size_bytes ? grow(v, size_bytes) : shrink_to(v, size_bytes);
        if (rc) /* file and memory may differ */
            v->damage = "a change of its size failed: open it again";
    }
    return rc ? error_set(err, -rc, "cannot resize '%s': %s", d->path, strerror(-rc)) : 0;
}

int vdi_make_empty(struct disk *d, struct error *err)
{
    struct vdi *v = vdi_of(d);
    uint8_t head[DISK_SECTOR];
    uint8_t parent[DISK_SECTOR];

    if (load_le32(v->head + VDI_AT_TYPE) == VDI_FIXED)
        return error_set(err, ENOTSUP, "'%s' is a fixed VDI image: it is never empty", d->path);
    int rc = vdi_modify(v);
    for (uint32_t i = 0; !rc && i < v->blocks; i++) {
        if (vdi_entry(v, i) != VDI_ABSENT)
            set(v, i, VDI_ABSENT);
    }
    if (!rc)
        rc = vdi_flush(d);
    if (!rc)
        rc = vdi_close_holes(v);
    if (!rc && d->below && d->below->format == &vdi_format) {
        /* What was below may have been written to, by a commit: this is its content from now on. */
        rc = file_pread(vdi_of(d->below)->file, parent, sizeof(parent), 0);
        mutex_lock(&v->lock);
        memcpy(head, v->head, sizeof(head));
        memcpy(head + VDI_AT_UUID_PARENT_MODIFY, parent + VDI_AT_UUID_MODIFY, VDI_UUID);
        if (!rc)
            rc = vdi_write_head(v, head);
        mutex_unlock(&v->lock);
        if (!rc)
            rc = file_flush(v->file);
    }
    return rc ? error_set(err, -rc, "cannot empty '%s': %s", d->path, strerror(-rc)) : 0;
}
