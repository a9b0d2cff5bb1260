/* A new image of what a disk shows: made in a folder of its own, filled, flushed, then named.
 * Threads: the caller's; disk_copy()'s. */
#include "disk/format.h"
#include "disk/tool/tool.h"

#include <errno.h>
#include <string.h>

/** A format that is compressed throughout, and says so by an option. */
static bool must_pack(const struct disk_create *c)
{
    bool stream = false;

    for (const struct disk_create_value *v = c->values; v && v->name; v++) {
        if (!strcmp(v->name, "subformat"))
            stream = !strcmp(v->value, "streamOptimized");
    }
    return stream;
}

/** Open the new image. It is written once and flushed, so by default past the host's page cache:
 * that saves a copy, and the host's memory keeps what is in use. */
static int open_target(const struct disk_convert *c, const char *path, bool packs,
                       struct disk **ret, struct error *err)
{
    struct disk_options options = {
        .format = c->format->name,
        .flags = DISK_NO_BACKING,
        .key_file = c->create.key_file,
    };
    struct error ignored = {0};

    if (c->cache == DISK_CACHE_DIRECT || (c->cache == DISK_CACHE_AUTO && !packs))
        options.flags |= DISK_DIRECT;
    if (c->cache == DISK_CACHE_AUTO && options.flags & DISK_DIRECT) {
        if (!disk_open(path, &options, ret, &ignored))
            return 0;
        options.flags &= ~(unsigned)DISK_DIRECT; /* not every file system can */
    }
    return disk_open(path, &options, ret, err);
}

static int fill(const struct disk_convert *c, const char *path, const struct disk_job *job,
                struct error *err)
{
    enum disk_packing packing = must_pack(&c->create) ? DISK_PACK_ALL : c->packing;
    struct disk *target = NULL;
    int rc = open_target(c, path, packing != DISK_PACK_NONE, &target, err);

    if (rc)
        return rc;
    /* its name for the backing image need not lead there from the folder */
    target->below = c->create.backing;
    struct disk_copy copy = {
        .source = c->source,
        .target = target,
        .base = c->create.backing,
        .target_is_zero = true,
        .packing = packing,
        .sparse_bytes = c->sparse_bytes,
    };
    rc = disk_copy(&copy, job, err);
    if (!rc) {
        rc = disk_flush(target);
        if (rc)
            (void)error_set(err, -rc, "cannot write '%s': %s", c->path, strerror(-rc));
    }
    target->below = NULL;
    disk_close(target);
    return rc;
}

int disk_convert(const struct disk_convert *convert, const struct disk_job *job, struct error *err)
{
    struct disk_stage *stage = NULL;
    struct disk_create create = convert->create;
    enum disk_stage_mode mode = convert->in_place ? DISK_STAGE_IN_PLACE
                                : create.force    ? DISK_STAGE_REPLACE
                                                  : DISK_STAGE_NEW;
    int rc = disk_stage_new(convert->path, mode, &stage, err);

    if (rc)
        return rc;
    create.force = false; /* the folder is empty */
    rc = disk_create(disk_stage_path(stage), convert->format, &create, err);
    if (!rc)
        rc = fill(convert, disk_stage_path(stage), job, err);
    if (!rc)
        rc = disk_stage_commit(stage, err);
    disk_stage_free(stage);
    return rc;
}
