/* VMDK: checking and mending sparse extents; see vmdk_scan.c. Flat ones have nothing to check.
 *
 * Mended are: a grain that two blocks have (each gets its own copy), one that cannot be (zeroes),
 * redundant tables that differ (the first ones count), room that nothing names (given back to the
 * host; the file keeps its length). For exclusive use: no other request at the same time. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <stdio.h>
#include <string.h>

static void ignore(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

static struct vmdk_scan new_scan(const struct disk_check *c)
{
    return (struct vmdk_scan){.report = c->report ? c->report : ignore, .arg = c->arg};
}

static int look(struct vmdk_sparse *s, struct disk_check *c, struct vmdk_scan *scan)
{
    int rc = file_get_size(s->file, &s->end_bytes);

    if (!rc)
        rc = vmdk_scan(s, scan);
    if (rc)
        return rc;
    c->errors += scan->errors;
    c->leaks += scan->leaks + !!scan->differing;
    c->clusters += (s->b.size_bytes + s->b.block_bytes - 1) / s->b.block_bytes;
    c->allocated += scan->grains;
    c->fragmented += scan->fragmented;
    c->end_bytes = MAX(c->end_bytes, scan->end_sector * DISK_SECTOR);
    if (scan->differing)
        scan->report(scan->arg, "the second grain tables differ from the first");
    return 0;
}

/** Once more, after what was mended has been written. */
static int finish(struct vmdk_sparse *s, struct vmdk_scan *before, struct disk_check *c)
{
    struct vmdk_scan after = {.mend = false};
    int rc = vmdk_sparse_flush(s); /* also the redundant tables, which the scan has made dirty */

    if (!rc)
        rc = file_get_size(s->file, &s->end_bytes);
    if (!rc)
        rc = vmdk_scan(s, &after);
    if (!rc && !after.errors)
        rc = vmdk_sparse_set_unclean(s, false);
    if (rc)
        return rc;
    c->errors_fixed += before->errors - MIN(before->errors, after.errors);
    c->leaks_fixed += before->leaks_given_back + (before->differing && !after.differing);
    return 0;
}

static int check_sparse(struct vmdk_sparse *s, unsigned flags, struct disk_check *c)
{
    struct vmdk_scan scan = new_scan(c);
    int rc = s->b.d->readonly ? 0 : vmdk_sparse_flush(s);

    scan.mend = flags & DISK_REPAIR_ALL;
    if (!rc)
        rc = look(s, c, &scan);
    if (rc || !flags)
        return rc;
    rc = finish(s, &scan, c);
    if (!rc && scan.leaks && !s->damage) { /* known to be nobody's only when all else is right */
        struct vmdk_scan again = {.report = ignore, .leaks_in = s->file};

        rc = vmdk_scan(s, &again);
        c->leaks_fixed += again.leaks_given_back;
        if (!rc)
            rc = file_flush(s->file);
    }
    return rc;
}

/** Each packed grain can be unpacked. */
static int check_stream(struct vmdk_sparse *s, struct disk_check *c)
{
    cleanup(freep) uint8_t *buf = malloc(s->b.block_bytes);
    uint64_t blocks = (s->b.size_bytes + s->b.block_bytes - 1) / s->b.block_bytes;
    struct iovec iov = {.iov_base = buf, .iov_len = s->b.block_bytes};
    int rc = buf ? 0 : -ENOMEM;
    char text[80];

    for (uint64_t i = 0; !rc && i < blocks;) {
        struct blocks_run run;

        rc = vmdk_blocks_ops.find(&s->b, i, blocks - i, &run);
        for (uint64_t n = 0; !rc && run.kind == DISK_PACKED && n < run.count; n++) {
            c->allocated++;
            c->packed++;
            if (!vmdk_stream_read(&s->b, i + n, 0, &iov, 1))
                continue;
            c->errors++;
            (void)snprintf(text, sizeof(text), "block %llu cannot be unpacked",
                           (unsigned long long)(i + n));
            if (c->report && c->errors < 1000)
                c->report(c->arg, text);
        }
        i += rc ? 0 : run.count;
    }
    c->clusters += blocks;
    c->end_bytes = s->end_bytes;
    return rc;
}

int vmdk_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    struct vmdk *v = vmdk_of(d);
    bool any = false;
    int rc = 0;

    for (unsigned i = 0; !rc && i < v->count; i++) {
        struct vmdk_sparse *s = v->extents[i].sparse;

        if (!s)
            continue;
        any = true;
        rc = s->is_packed ? check_stream(s, check) : check_sparse(s, flags, check);
    }
    if (rc)
        return error_set(err, -rc, "cannot check '%s': %s", d->path, strerror(-rc));
    return any ? 0 : error_set(err, ENOTSUP, "flat VMDK disks have nothing to check");
}
