/* VDI: checking and mending.
 *
 * Errors are entries that name a slot beyond the end (mended: the block reads as zeroes), or one
 * that another block has (mended: it gets a copy of its own), and a count in the header that is too
 * low. Leaks are slots that no block names, which a power cut leaves; mended by moving the last
 * slots there, since other programs know of no holes.
 *
 * For exclusive use: no other request at the same time.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vdi/vdi.h"

#include <stdio.h>
#include <string.h>

struct checking {
    struct vdi *v;
    struct disk_check *c;
    bool mend;
    uint64_t *seen; /* slots */
    uint64_t file_bytes;
    uint32_t end; /* above every slot named */
    uint64_t mended;
    uint32_t shown;
};

static void report(struct checking *k, const char *text)
{
    if (k->c->report && k->shown++ < 1000) /* a hostile image could have millions */
        k->c->report(k->c->arg, text);
}

static bool take(uint64_t *bits, uint32_t n)
{
    bool was = bits[n / 64] >> (n % 64) & 1;

    bits[n / 64] |= BIT(n % 64);
    return was;
}

static int copy_slot(struct vdi *v, uint32_t from, uint32_t to)
{
    size_t size = MIN(v->b.block_bytes, 1u << 20);
    cleanup(freep) uint8_t *buf = malloc(size);
    int rc = buf ? 0 : -ENOMEM;

    for (uint64_t at = 0; !rc && at < v->b.block_bytes; at += size) {
        rc = file_pread(v->file, buf, size, vdi_slot_offset(v, from) + at);
        if (!rc)
            rc = file_pwrite(v->file, buf, size, vdi_slot_offset(v, to) + at);
    }
    return rc;
}

/** First pass: which slots are named at all. */
static void find_slots(struct checking *k, uint64_t *named)
{
    struct vdi *v = k->v;

    for (uint32_t i = 0; i < v->blocks; i++) {
        uint32_t slot = vdi_entry(v, i);

        if (slot < vdi_max_slots(v->blocks) && vdi_slot_offset(v, slot) < k->file_bytes) {
            (void)take(named, slot);
            k->end = MAX(k->end, slot + 1);
        }
    }
}

/** Give block @i, which shares its slot, a copy in a free one. */
static int split_slot(struct checking *k, uint64_t *named, uint32_t i)
{
    struct vdi *v = k->v;
    uint32_t to = 0;

    while (take(named, to)) /* there are as many slots as blocks */
        to++;
    int rc = copy_slot(v, vdi_entry(v, i), to);
    if (rc)
        return rc;
    k->end = MAX(k->end, to + 1);
    mutex_lock(&v->lock);
    vdi_set(v, i, to);
    mutex_unlock(&v->lock);
    return 0;
}

static int check_entry(struct checking *k, uint64_t *named, uint32_t i)
{
    struct vdi *v = k->v;
    uint32_t slot = vdi_entry(v, i);
    char text[160];
    int rc = 0;

    if (!vdi_is_slot(slot))
        return 0;
    k->c->allocated++;
    if (slot >= vdi_max_slots(v->blocks) || vdi_slot_offset(v, slot) >= k->file_bytes) {
        (void)snprintf(text, sizeof(text), "block %u: slot %u lies beyond the end of the file", i,
                       slot);
        if (k->mend) {
            mutex_lock(&v->lock);
            vdi_set(v, i, VDI_ZERO);
            mutex_unlock(&v->lock);
        }
    } else if (take(k->seen, slot)) {
        (void)snprintf(text, sizeof(text), "block %u: slot %u belongs to another block too", i,
                       slot);
        if (k->mend)
            rc = split_slot(k, named, i);
    } else {
        k->c->fragmented += i && vdi_entry(v, i - 1) + 1 != slot;
        return 0;
    }
    report(k, text);
    k->c->errors++;
    k->mended++;
    return rc;
}

static void check_count(struct checking *k, const uint64_t *named)
{
    struct vdi *v = k->v;
    uint32_t count = load_le32(v->head + VDI_AT_ALLOCATED);
    char text[160];
    uint64_t holes = 0;

    for (uint32_t s = 0; s < k->end; s++)
        holes += !(named[s / 64] >> (s % 64) & 1);
    k->c->leaks += holes;
    if (holes) {
        (void)snprintf(text, sizeof(text), "%llu slots are not used", (unsigned long long)holes);
        report(k, text);
    }
    if (count == k->end)
        return;
    (void)snprintf(text, sizeof(text), "the header counts %u slots, and %u are used", count,
                   k->end);
    report(k, text);
    if (count < k->end) {
        k->c->errors++;
        k->mended++;
    } else {
        k->c->leaks += count - k->end;
    }
}

static int run_check(struct checking *k)
{
    struct vdi *v = k->v;
    size_t words = (size_t)vdi_max_slots(v->blocks) / 64 + 1;
    cleanup(freep) uint64_t *named = calloc(words, 8);
    cleanup(freep) uint64_t *seen = calloc(words, 8);

    if (!named || !seen)
        return -ENOMEM;
    k->seen = seen;
    find_slots(k, named);
    int rc = 0;
    for (uint32_t i = 0; !rc && i < v->blocks; i++)
        rc = check_entry(k, named, i);
    if (!rc)
        check_count(k, named);
    k->c->clusters = v->blocks;
    k->c->end_bytes = vdi_slot_offset(v, k->end);
    return rc;
}

/** Move the last slots into the holes: the copies are flushed before the map names them. */
static int fill_holes(struct vdi *v)
{
    cleanup(freep) uint32_t *owners = malloc((size_t)v->slots * sizeof(*owners));
    uint32_t hole = 0;
    uint32_t top = v->slots;
    int rc = owners ? 0 : -ENOMEM;

    for (uint32_t i = 0; !rc && i < v->blocks; i++) {
        if (vdi_is_slot(vdi_entry(v, i)))
            owners[vdi_entry(v, i)] = i;
    }
    while (!rc) {
        while (hole < top && v->used[hole / 64] >> (hole % 64) & 1)
            hole++;
        while (top > hole && !(v->used[(top - 1) / 64] >> ((top - 1) % 64) & 1))
            top--;
        if (hole >= top)
            break;
        rc = copy_slot(v, --top, hole);
        if (rc)
            break;
        mutex_lock(&v->lock);
        vdi_set(v, owners[top], hole++);
        mutex_unlock(&v->lock);
    }
    return rc ? rc : vdi_flush(&v->d);
}

int vdi_close_holes(struct vdi *v)
{
    int rc = vdi_scan(v);

    if (!rc && v->holes) {
        rc = fill_holes(v);
        if (!rc)
            rc = vdi_scan(v);
    }
    uint64_t end = vdi_slot_offset(v, v->slots);
    if (!rc && v->end_bytes > end && !v->file->is_block) {
        rc = file_truncate(v->file, end);
        v->end_bytes = rc ? v->end_bytes : end;
    }
    mutex_lock(&v->lock);
    if (!rc && v->slots != v->slots_in_file) {
        uint8_t head[DISK_SECTOR];

        memcpy(head, v->head, sizeof(head));
        store_le32(head + VDI_AT_ALLOCATED, v->slots);
        rc = vdi_write_head(v, head);
    }
    mutex_unlock(&v->lock);
    return rc ? rc : file_flush(v->file);
}

/** Write what has been mended; the count first, as always. */
static int write_mended(struct checking *k)
{
    struct vdi *v = k->v;
    int rc = vdi_scan(v);

    if (!rc)
        rc = vdi_flush(&v->d);
    return rc;
}

int vdi_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    struct vdi *v = vdi_of(d);
    struct checking k = {.v = v, .c = check, .mend = flags & DISK_REPAIR_ALL};
    uint64_t leaks = check->leaks;
    int rc = d->readonly ? 0 : vdi_flush(d);

    if (!rc)
        rc = file_get_size(v->file, &k.file_bytes);
    if (!rc)
        rc = run_check(&k);
    leaks = check->leaks - leaks;
    if (!rc && k.mend && k.mended) {
        rc = write_mended(&k);
        check->errors_fixed += rc ? 0 : k.mended;
    }
    if (!rc && flags && !v->damage && (leaks || k.mended)) {
        rc = vdi_close_holes(v);
        check->leaks_fixed += rc ? 0 : leaks;
    }
    return rc ? error_set(err, -rc, "cannot check '%s': %s", d->path, strerror(-rc)) : 0;
}
