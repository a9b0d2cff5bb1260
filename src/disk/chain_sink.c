/* Merging a layer of a chain down into the one below it.
 *
 *   top ...  upper  lower  below          what upper holds is written into lower's file,
 *   top ...  [upper over lower]  below    which then takes upper's name
 *
 * What is written to the lower layer's file is hidden by the upper one, for all that can see it:
 * the upper is the only layer upon the lower. So the chain reads the same at every moment, and it
 * may be broken off and begun again. The lower layer's other opening in the chain knows nothing of
 * the writes; it is asked only for what the upper lacks, which they leave alone.
 *
 * Invariant: the file that is written to is a struct disk of its own, whose `below` is borrowed
 * from the chain: partial clusters and zeroes are what they would be in the chain.
 *
 * Threads: one changes a disk's chain at a time. */
#include "base/fd.h"
#include "disk/chain.h"
#include "disk/chain_internal.h"
#include "disk/throttle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (1u << 20)

struct disk_sink {
    struct disk *outer; /* as given */
    struct disk *upper, *lower;
    unsigned depth;    /* of upper */
    struct disk *file; /* lower's, open for writing */
    bool is_finished;  /* upper and lower are not of the chain any more */
    uint8_t *buf;      /* COPY_BYTES */
};

static void end(struct disk_sink *s)
{
    if (s->file)
        s->file->below = NULL;
    disk_close(s->file);
    if (s->is_finished) {
        chain_map_free(s->upper->map);
        s->upper->map = NULL;
        s->upper->below = s->lower->below = NULL;
        disk_close(s->upper);
        disk_close(s->lower);
    }
    free(s->buf);
    free(s);
}

void disk_sink_end(struct disk_sink *s)
{
    if (s)
        end(s);
}

int disk_sink_begin(struct disk *d, unsigned depth, const char *path, struct disk_sink **ret,
                    struct error *err)
{
    struct disk *upper = chain_top(d);

    for (unsigned i = 0; upper && i < depth; i++)
        upper = upper->below;
    if (!upper || !upper->below || !upper->below->format)
        return error_set(err, EINVAL, "'%s' lies on nothing", upper ? upper->path : d->path);
    if (upper->size_bytes != upper->below->size_bytes)
        return error_set(err, ENOTSUP, "'%s' is not of the size of '%s'", upper->path,
                         upper->below->path);
    struct disk_sink *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->outer = d;
    s->upper = upper;
    s->lower = upper->below;
    s->depth = depth;
    s->buf = malloc(COPY_BYTES);
    int rc = s->buf ? chain_open_again(s->lower, path, 0, &s->file, err)
                    : error_set(err, ENOMEM, "out of memory");
    if (rc) {
        end(s);
        return rc;
    }
    s->file->below = s->lower->below;
    *ret = s;
    return 0;
}

/** One stretch of what the upper layer holds. */
static int copy_extent(struct disk_sink *s, uint64_t at, const struct disk_extent *e)
{
    uint64_t size = MIN(e->size, COPY_BYTES);
    int rc;

    if (e->kind == DISK_ZERO)
        return disk_write_zeroes(s->file, at, size, true);
    rc = disk_pread(s->upper, s->buf, size, at);
    return rc ? rc : disk_pwrite(s->file, s->buf, size, at);
}

int disk_sink_copy(struct disk_sink *s, int (*progress)(void *arg, uint64_t done, uint64_t total),
                   void *arg, struct error *err)
{
    uint64_t size = s->upper->size_bytes;
    struct disk_extent e = {0};
    int rc = 0;

    for (uint64_t at = 0; at < size && !rc; at += MIN(e.size, COPY_BYTES)) {
        rc = disk_status(s->upper, at, MIN(size - at, COPY_BYTES), &e);
        if (rc || e.kind == DISK_ABSENT)
            continue;
        if (progress && progress(arg, at, size))
            return error_set(err, ECANCELED, "broken off");
        rc = copy_extent(s, at, &e);
    }
    if (!rc)
        rc = disk_flush(s->file);
    return rc ? error_set(err, -rc, "cannot merge '%s' into '%s': %s", s->upper->path,
                          s->lower->path, strerror(-rc))
              : 0;
}

/** The written file becomes the top: it has all that is below it already. */
static struct disk *finish_top(struct disk_sink *s, char *path)
{
    struct disk *merged = ptr_take(&s->file);
    struct disk *outer = s->outer;

    free(merged->path);
    merged->path = path;
    if (outer == s->upper)
        outer = merged;
    else
        outer->below = merged;
    s->is_finished = true;
    chain_remap(merged);
    return outer;
}

int disk_sink_finish(struct disk_sink *s, const char *path, struct disk **ret, struct error *err)
{
    struct disk *top = chain_top(s->outer);
    struct disk *above = top;
    struct disk *merged = NULL;

    if (!s->depth) {
        char *copy = strdup(path);
        if (!copy)
            return error_set(err, ENOMEM, "out of memory");
        *ret = finish_top(s, copy);
        return 0;
    }
    int rc = chain_open_again(s->lower, path, DISK_READONLY, &merged, err);
    if (rc)
        return rc;
    for (unsigned i = 1; i < s->depth; i++)
        above = above->below;
    chain_map_free(top->map); /* before what it knows is gone */
    top->map = NULL;
    merged->below = s->lower->below;
    above->below = merged;
    s->is_finished = true;
    chain_remap(top);
    *ret = s->outer;
    return 0;
}
