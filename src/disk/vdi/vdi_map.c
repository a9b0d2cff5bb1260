/* VDI: the map of blocks and the slots they take.
 *
 * Invariants:
 *  1. Slots [0, slots) are used, claimed by a block whose data is being written, or holes; no slot
 * from `slots` on is. What lies behind reads as zeroes.
 *  2. In the file, blocks_allocated is above every slot that the file's map names: it is written
 * and flushed before the map when it grows, so that no other program takes a slot twice.
 *  3. The map in the file names only slots whose data has been flushed.
 *
 * flush(): [header, length, data] flush [changed sectors of the map] flush.
 *
 * Threads: any. Entries are read without a lock. flush_lock, then lock; calls to the file are made
 * with both held only for the header.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vdi/vdi.h"

#include <string.h>

static bool get_bit(const uint64_t *bits, uint64_t n)
{
    return bits[n / 64] >> (n % 64) & 1;
}

static void set_bit(uint64_t *bits, uint64_t n)
{
    bits[n / 64] |= BIT(n % 64);
}

static void clear_bit(uint64_t *bits, uint64_t n)
{
    bits[n / 64] &= ~BIT(n % 64);
}

static int read_map(struct vdi *v)
{
    /* Of whole sectors, as they are written; the rest of the last one is ours to keep. */
    uint64_t size = vdi_map_sectors(v->blocks) * DISK_SECTOR;

    v->map = malloc(size);
    if (!v->map)
        return -ENOMEM;
    int rc = file_pread(v->file, v->map, size, v->offset_map);
    for (uint64_t i = 0; !rc && i < size / 4; i++)
        v->map[i] = load_le32(&v->map[i]);
    return rc;
}

int vdi_map_load(struct vdi *v, bool write, struct error *err)
{
    int rc = read_map(v);

    if (!rc && write) {
        v->dirty = calloc(vdi_map_sectors(v->blocks) / 64 + 1, 8);
        v->used = calloc((size_t)vdi_max_slots(v->blocks) / 64 + 1, 8);
        rc = v->dirty && v->used ? vdi_scan(v) : -ENOMEM;
        rc = rc == -EUCLEAN ? 0 : rc; /* the caller looks at v->damage */
    }
    return rc ? error_set(err, -rc, "cannot read the block map of disk '%s': %s", v->file->path,
                          strerror(-rc))
              : 0;
}

void vdi_map_done(struct vdi *v)
{
    free(v->map);
    free(v->dirty);
    free(v->used);
}

int vdi_scan(struct vdi *v)
{
    int rc = file_get_size(v->file, &v->end_bytes);
    uint32_t used = 0;

    if (rc)
        return rc;
    v->damage = NULL;
    v->slots = v->next_hole = 0;
    memset(v->used, 0, ((size_t)vdi_max_slots(v->blocks) / 64 + 1) * 8);
    for (uint32_t i = 0; i < v->blocks; i++) {
        uint32_t slot = v->map[i];

        if (!vdi_is_slot(slot))
            continue;
        if (slot >= vdi_max_slots(v->blocks) || vdi_slot_offset(v, slot) >= v->end_bytes)
            v->damage = "its map names a block beyond the end of the file";
        else if (get_bit(v->used, slot))
            v->damage = "two places of the disk claim the same block";
        else
            used++;
        if (slot < vdi_max_slots(v->blocks)) {
            set_bit(v->used, slot);
            v->slots = MAX(v->slots, slot + 1);
        }
    }
    v->holes = v->damage ? 0 : v->slots - used;
    v->cut_tail = false;
    return v->damage ? -EUCLEAN : 0;
}

static int map_find(struct blocks *b, uint64_t index, uint64_t max, struct blocks_run *ret)
{
    struct vdi *v = container_of(b, struct vdi, b);
    uint32_t first = vdi_entry(v, index);
    uint64_t n = 1;

    if (vdi_is_slot(first)) {
        if (first >= vdi_max_slots(v->blocks))
            return -EIO; /* damaged, and open for reading */
        while (n < max && first + n < VDI_ZERO && vdi_entry(v, index + n) == first + n)
            n++;
        *ret = (struct blocks_run){.kind = DISK_DATA, .count = n};
        ret->file_offset = vdi_slot_offset(v, first);
        return 0;
    }
    while (n < max && vdi_entry(v, index + n) == first)
        n++;
    *ret = (struct blocks_run){.kind = first == VDI_ZERO ? DISK_ZERO : DISK_ABSENT, .count = n};
    return 0;
}

void vdi_set(struct vdi *v, uint32_t index, uint32_t entry)
{
    /* Release: pairs with vdi_entry(), so who finds a slot finds what was written there. */
    __atomic_store_n(&v->map[index], entry, __ATOMIC_RELEASE);
    set_bit(v->dirty, index / VDI_PER_SECTOR);
}

/** Slots that nothing names may lie behind the last one, from before a power cut: away with them,
 * so that fresh slots read as zeroes. */
static int cut_tail(struct vdi *v) REQUIRES(v->lock)
{
    uint64_t end = vdi_slot_offset(v, v->slots);
    int rc = 0;

    if (v->end_bytes > end && !v->file->is_block) {
        rc = file_truncate(v->file, end);
        if (!rc)
            v->end_bytes = end;
    }
    v->cut_tail = !rc;
    return rc;
}

static uint32_t take_hole(struct vdi *v) REQUIRES(v->lock)
{
    uint32_t slot = v->next_hole;

    while (get_bit(v->used, slot))
        slot++;
    assert(slot < v->slots);
    set_bit(v->used, slot);
    v->next_hole = slot + 1;
    v->holes--;
    return slot;
}

static int reserve_locked(struct vdi *v, uint64_t *count, uint32_t *ret_slot, bool *ret_fresh)
    REQUIRES(v->lock)
{
    int rc = v->cut_tail ? 0 : cut_tail(v);

    if (rc)
        return rc;
    *ret_fresh = !v->holes;
    if (v->holes) {
        *ret_slot = take_hole(v);
        *count = 1;
        return 0;
    }
    /* Each claimed block takes one slot, so there is one for each. */
    assert(v->slots + *count <= vdi_max_slots(v->blocks));
    *ret_slot = v->slots;
    for (uint64_t i = 0; i < *count; i++)
        set_bit(v->used, v->slots++);
    return 0;
}

static int map_reserve(struct blocks *b, uint64_t index, uint64_t *count, uint64_t *ret_offset)
{
    struct vdi *v = container_of(b, struct vdi, b);
    uint32_t slot = 0;
    bool fresh = false;

    (void)index;
    if (v->damage)
        return -EIO;
    mutex_lock(&v->lock);
    int rc = reserve_locked(v, count, &slot, &fresh);
    mutex_unlock(&v->lock);
    if (rc)
        return rc;
    *ret_offset = vdi_slot_offset(v, slot);
    if (!fresh || v->file->is_block) { /* may hold anything */
        rc = file_write_zeroes(v->file, *ret_offset, *count * b->block_bytes, true);
        if (rc)
            b->ops->release(b, *count, *ret_offset);
    }
    return rc;
}

static void map_release(struct blocks *b, uint64_t count, uint64_t offset)
{
    struct vdi *v = container_of(b, struct vdi, b);
    uint32_t slot = (uint32_t)((offset - v->offset_data) / b->block_bytes);

    mutex_lock(&v->lock);
    for (uint32_t i = slot; i < slot + count; i++)
        clear_bit(v->used, i);
    v->holes += (uint32_t)count;
    v->next_hole = MIN(v->next_hole, slot);
    mutex_unlock(&v->lock);
}

static int map_publish(struct blocks *b, uint64_t index, const struct blocks_run *run)
{
    struct vdi *v = container_of(b, struct vdi, b);
    uint32_t slot = (uint32_t)((run->file_offset - v->offset_data) / b->block_bytes);

    if (v->damage)
        return -EIO;
    mutex_lock(&v->lock);
    for (uint32_t i = 0; i < run->count; i++)
        vdi_set(v, (uint32_t)index + i, run->kind == DISK_ZERO ? VDI_ZERO : slot + i);
    mutex_unlock(&v->lock);
    return 0;
}

const struct blocks_ops vdi_blocks_ops = {
    .find = map_find,
    .reserve = map_reserve,
    .release = map_release,
    .publish = map_publish,
};

int vdi_write_head(struct vdi *v, const uint8_t *head)
{
    int rc = file_pwrite(v->file, head, DISK_SECTOR, 0);

    if (!rc) {
        memcpy(v->head, head, DISK_SECTOR);
        v->slots_in_file = load_le32(head + VDI_AT_ALLOCATED);
    }
    return rc;
}

int vdi_modify(struct vdi *v)
{
    uint8_t head[DISK_SECTOR];

    /* Acquire: pairs with the store below. */
    if (__atomic_load_n(&v->modified, __ATOMIC_ACQUIRE))
        return 0;
    if (v->damage)
        return -EIO;
    mutex_lock(&v->lock);
    memcpy(head, v->head, sizeof(head));
    int rc = v->modified ? 0 : vdi_new_uuid(head + VDI_AT_UUID_MODIFY);
    if (!rc && !v->modified)
        rc = vdi_write_head(v, head);
    if (!rc)
        __atomic_store_n(&v->modified, true, __ATOMIC_RELEASE);
    mutex_unlock(&v->lock);
    return rc;
}

/** What a flush writes of the map: changed sectors as they are at one moment. */
struct snapshot {
    uint32_t *sectors; /* their numbers, in order */
    uint8_t *data;
    size_t count;
};

static int take_snapshot(struct vdi *v, struct snapshot *s) REQUIRES(v->lock)
{
    uint64_t words = vdi_map_sectors(v->blocks) / 64 + 1;
    size_t n = 0;

    for (uint64_t w = 0; w < words; w++)
        n += (size_t)__builtin_popcountll(v->dirty[w]);
    if (!n)
        return 0;
    s->sectors = malloc(n * sizeof(*s->sectors));
    s->data = malloc(n * DISK_SECTOR);
    if (!s->sectors || !s->data)
        return -ENOMEM;
    for (uint64_t w = 0; w < words; w++) {
        for (uint64_t bits = v->dirty[w]; bits; bits &= bits - 1) {
            uint64_t sector = w * 64 + (uint64_t)__builtin_ctzll(bits);
            uint8_t *to = s->data + s->count * DISK_SECTOR;

            for (unsigned i = 0; i < VDI_PER_SECTOR; i++)
                store_le32(to + (size_t)i * 4, v->map[sector * VDI_PER_SECTOR + i]);
            s->sectors[s->count++] = (uint32_t)sector;
        }
        v->dirty[w] = 0;
    }
    return 0;
}

static int write_snapshot(struct vdi *v, const struct snapshot *s)
{
    int rc = 0;

    for (size_t i = 0, n; !rc && i < s->count; i += n) {
        n = 1;
        while (i + n < s->count && s->sectors[i + n] == s->sectors[i] + n)
            n++;
        rc = file_pwrite(v->file, s->data + i * DISK_SECTOR, n * DISK_SECTOR,
                         v->offset_map + (uint64_t)s->sectors[i] * DISK_SECTOR);
    }
    return rc;
}

/** All that must be in the file before the map is: @s is taken at the same moment. */
static int prepare(struct vdi *v, struct snapshot *s) REQUIRES(v->lock)
{
    uint64_t end = vdi_slot_offset(v, v->slots);
    int rc = take_snapshot(v, s);

    if (!rc && s->count && v->end_bytes < end && !v->file->is_block) {
        rc = file_truncate(v->file, end); /* of whole blocks, for other readers */
        if (!rc)
            v->end_bytes = end;
    }
    if (!rc && s->count && v->slots != v->slots_in_file) {
        uint8_t head[DISK_SECTOR];

        memcpy(head, v->head, sizeof(head));
        store_le32(head + VDI_AT_ALLOCATED, v->slots);
        rc = vdi_write_head(v, head);
    }
    return rc;
}

int vdi_flush(struct disk *d)
{
    struct vdi *v = vdi_of(d);
    struct snapshot s = {0};

    mutex_lock(&v->flush_lock);
    mutex_lock(&v->lock);
    int rc = prepare(v, &s);
    mutex_unlock(&v->lock);
    if (!rc)
        rc = file_flush(v->file);
    if (!rc && s.count) {
        rc = write_snapshot(v, &s);
        if (!rc)
            rc = file_flush(v->file);
    }
    if (rc && s.count) { /* again next time */
        mutex_lock(&v->lock);
        for (size_t i = 0; i < s.count; i++)
            set_bit(v->dirty, s.sectors[i]);
        mutex_unlock(&v->lock);
    }
    mutex_unlock(&v->flush_lock);
    free(s.sectors);
    free(s.data);
    return rc;
}
