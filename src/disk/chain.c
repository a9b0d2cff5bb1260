/* Changing the chain of a disk that is in use.
 *
 * A layer is given a new opening of its file for another kind of access: the new one is opened
 * first (DISK_LOCK_OVER), which may fail, and takes the old one's place, which cannot. The old one
 * has been flushed and is not used any more, so both show the same.
 *
 * Invariants: (1) only while the disk stands still are `below` and `map` of any layer changed; (2)
 * what can fail comes before the first change.
 *
 * Threads: one changes a disk's chain at a time. */
#include "disk/chain.h"
#include "disk/chain_internal.h"
#include "disk/throttle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (4u << 20) /* between two looks at whether to break off */

struct disk_push {
    struct disk *outer;  /* as given */
    struct disk *old;    /* the top so far */
    struct disk *reader; /* the same file, for reading */
    struct disk *top;    /* the new one */
    struct chain_map *map;
};

struct disk_merge {
    struct disk *outer;
    struct disk *top;   /* of the chain */
    struct disk *child; /* open for writing */
    unsigned depth;
    char *path; /* the child's; NULL: it is the top */
    bool is_linked;
};

struct disk *chain_top(struct disk *d)
{
    return disk_is_throttled(d) ? d->below : d;
}

void chain_remap(struct disk *top)
{
    chain_map_free(top->map);
    top->map = NULL;
    if (top->below && top->below->below && chain_map_new(top->below, &top->map))
        top->map = NULL;
}

int chain_open_again(const struct disk *d, const char *path, unsigned flags, struct disk **ret,
                     struct error *err)
{
    struct disk_options o = {
        .format = disk_format_name(d->format),
        .flags = flags | DISK_NO_BACKING | DISK_LOCK_OVER,
    };

    return disk_open(path, &o, ret, err);
}

static int flush(struct disk *d, struct error *err)
{
    int rc = disk_flush(d);

    return rc ? error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc)) : 0;
}

static int check_new(const struct disk *old, const struct disk *top, struct error *err)
{
    if (!top->backing_path)
        return error_set(err, EINVAL, "'%s' has no backing image", top->path);
    if (top->size_bytes != old->size_bytes)
        return error_set(err, EINVAL, "'%s' is not of the size of '%s'", top->path, old->path);
    return 0;
}

int disk_push_prepare(struct disk *d, const char *path, struct disk_push **ret, struct error *err)
{
    struct disk_push *p = calloc(1, sizeof(*p));
    struct disk_options o = {.format = "qcow2", .flags = DISK_NO_BACKING};

    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->outer = d;
    p->old = chain_top(d);
    int rc = !p->old->format || p->old->readonly
                 ? error_set(err, EINVAL, "'%s' is not open for writing", p->old->path)
                 : flush(p->old, err);
    if (!rc)
        rc = disk_open(path, &o, &p->top, err);
    if (!rc)
        rc = check_new(p->old, p->top, err);
    if (!rc)
        rc = chain_open_again(p->old, p->old->path, DISK_READONLY, &p->reader, err);
    if (!rc) {
        p->reader->below = p->old->below;
        if (p->reader->below && chain_map_new(p->reader, &p->map))
            rc = error_set(err, ENOMEM, "out of memory");
    }
    if (rc)
        disk_push_abort(p);
    else
        *ret = p;
    return rc;
}

struct disk *disk_push_finish(struct disk_push *p, struct disk **ret_old)
{
    struct disk *outer = p->outer;
    struct disk *top = p->top;

    p->old->below = NULL;
    chain_map_free(p->old->map);
    p->old->map = NULL;
    top->below = p->reader;
    top->map = p->map;
    *ret_old = p->old;
    free(p);
    if (outer == *ret_old)
        return top;
    outer->below = top;
    return outer;
}

void disk_push_abort(struct disk_push *p)
{
    if (!p)
        return;
    chain_map_free(p->map);
    if (p->reader)
        p->reader->below = NULL;
    disk_close(p->reader);
    disk_close(p->top);
    free(p);
}

static struct disk *layer_at(struct disk *d, unsigned depth)
{
    while (d && depth--)
        d = d->below;
    return d;
}

/** @with takes the place of the layer @depth below @top, 1 or more; the old one is closed. */
static void replace(struct disk *top, unsigned depth, struct disk *with)
{
    struct disk *above = top;

    while (--depth)
        above = above->below;
    struct disk *old = above->below;
    chain_map_free(top->map); /* before what it knows is gone */
    top->map = NULL;
    with->below = old->below;
    above->below = with;
    old->below = NULL;
    disk_close(old);
    chain_remap(top);
}

int disk_merge_begin(struct disk *d, unsigned depth, const char *path, struct disk_merge **ret,
                     struct error *err)
{
    struct disk *top = chain_top(d);
    struct disk *child = layer_at(top, depth);
    struct disk_merge *m = calloc(1, sizeof(*m));
    int rc = 0;

    if (!m || (depth && !(m->path = strdup(path)))) {
        free(m);
        return error_set(err, ENOMEM, "out of memory");
    }
    if (!child || !child->below || !child->ops->fill || (!depth && child->readonly))
        rc = error_set(err, EINVAL, "'%s' cannot be merged into", child ? child->path : d->path);
    else if (depth)
        rc = chain_open_again(child, path, 0, &child, err);
    if (rc) {
        free(m->path);
        free(m);
        return rc;
    }
    if (depth)
        replace(top, depth, child);
    m->outer = d;
    m->top = top;
    m->child = child;
    m->depth = depth;
    *ret = m;
    return 0;
}

/** The next range at or after @offset that the child lacks and the layer below it holds, or hides
 * from what lies below that. *@ret_end 0: none. */
static int find_lacking(struct disk *child, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    const struct disk *next = child->below->below;
    uint64_t end = child->below->size_bytes; /* of a layer for reading */
    uint64_t size = child->size_bytes;
    struct disk_extent e;

    *ret_end = 0;
    while (offset < size) {
        int rc = disk_status(child, offset, size - offset, &e);

        if (!rc && e.kind == DISK_ABSENT && offset < end)
            rc = disk_status(child->below, offset, MIN(e.size, end - offset), &e);
        else if (!rc && e.kind == DISK_ABSENT && next && next->size_bytes > end)
            e.kind = DISK_ZERO; /* beyond the layer's end: zeroes, that must stay */
        else if (!rc)
            e.kind = DISK_ABSENT; /* nothing to do */
        if (rc)
            return rc;
        if (e.kind != DISK_ABSENT) {
            *ret_start = offset;
            *ret_end = offset + e.size;
            return 0;
        }
        offset += e.size;
    }
    return 0;
}

int disk_merge_copy(struct disk_merge *m, int (*progress)(void *arg, uint64_t done, uint64_t total),
                    void *arg, struct error *err)
{
    struct disk *child = m->child;
    uint64_t at = 0;
    uint64_t end = 0;
    int rc = 0;

    while (!rc) {
        rc = find_lacking(child, at, &at, &end);
        if (rc || !end)
            break;
        if (progress && progress(arg, at, child->size_bytes))
            return error_set(err, ECANCELED, "broken off");
        end = MIN(end, at + COPY_BYTES);
        rc = disk_fill(child, at, end - at);
        at = end;
    }
    return rc ? error_set(err, -rc, "cannot merge '%s' into '%s': %s", child->below->path,
                          child->path, strerror(-rc))
              : 0;
}

int disk_merge_link(struct disk_merge *m, const char *backing, const char *format,
                    struct error *err)
{
    int rc = flush(m->child, err);

    if (!rc)
        rc = disk_set_backing(m->child, backing, format, err);
    m->is_linked = !rc;
    return rc;
}

void disk_merge_end(struct disk_merge *m, struct disk **ret_old)
{
    struct disk *reader = NULL;
    struct error ignored = {0};

    *ret_old = NULL;
    if (m->is_linked) {
        struct disk *old = m->child->below;

        chain_map_free(m->top->map);
        m->top->map = NULL;
        m->child->below = old->below;
        old->below = NULL;
        *ret_old = old;
        chain_remap(m->top);
    }
    /* If it cannot be opened anew it stays as it is, and others cannot have it until this disk is
     * closed; nobody writes to it. */
    if (m->depth && !flush(m->child, &ignored) &&
        !chain_open_again(m->child, m->path, DISK_READONLY, &reader, &ignored))
        replace(m->top, m->depth, reader);
    free(m->path);
    free(m);
}
