/* What `info` tells of a QCOW2 image. */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    struct disk_info *info = arg;
    struct disk_snapshot **end = &info->snapshots;
    struct disk_snapshot *n = calloc(1, sizeof(*n));

    if (n)
        *n = (struct disk_snapshot){
            .id = strdup(s->id),
            .name = strdup(s->name),
            .size_bytes = s->size_bytes,
            .state_bytes = s->state_bytes,
            .date_s = s->date_s,
            .clock_ns = s->clock_ns,
        };
    if (!n || !n->id || !n->name) {
        if (n) {
            free(n->id);
            free(n->name);
        }
        free(n);
        return -ENOMEM;
    }
    while (*end)
        end = &(*end)->next;
    *end = n;
    return 0;
}

static int add_bitmaps(const struct qcow2 *q, struct disk_info *info)
{
    struct disk_bitmap **end = &info->bitmaps;

    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        struct disk_bitmap *n = calloc(1, sizeof(*n));

        if (!n || !(n->name = strdup(b->name))) {
            free(n);
            return -ENOMEM;
        }
        n->granularity_bytes = BIT(b->granularity_bits);
        n->enabled = b->flags & 2;
        n->inconsistent = b->flags & 1 && !b->bits;
        *end = n;
        end = &n->next;
    }
    return 0;
}

int qcow2_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    struct qcow2 *q = qcow2_of(d);

    disk_info_file(info, q->file);
    if (q->data != q->file)
        disk_info_file(info, q->data);
    info->is_dirty = q->h.incompatible & QCOW2_DIRTY;
    info->is_corrupt = q->h.incompatible & QCOW2_CORRUPT;
    info->is_encrypted = q->h.crypt;
    disk_info_text(info, "compat", q->h.version == 2 ? "0.10" : "1.1");
    disk_info_text(info, "compression-type", q->h.compression == QCOW2_ZSTD ? "zstd" : "zlib");
    if (q->h.version > 2) {
        disk_info_bool(info, "lazy-refcounts", q->h.compatible & QCOW2_LAZY);
        disk_info_number(info, "refcount-bits", 1u << q->h.refcount_order);
        disk_info_bool(info, "corrupt", info->is_corrupt);
        disk_info_bool(info, "extended-l2", q->is_extended);
    }
    if (q->has_data_file) {
        disk_info_text(info, "data-file", q->h.data_file);
        disk_info_bool(info, "data-file-raw", q->is_raw_data);
    }
    if (q->h.crypt)
        disk_info_text(info, "encrypt", "luks");
    int rc = add_bitmaps(q, info);
    if (rc)
        return error_set(err, ENOMEM, "out of memory");
    rc = qcow2_for_snapshots(q, add_snapshot, info, NULL, err);
    return rc ? error_set(err, -rc, "cannot read the snapshots of '%s': %s", d->path, strerror(-rc))
              : 0;
}
