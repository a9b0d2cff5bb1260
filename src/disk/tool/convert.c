/* A new image of what a disk shows: made in a folder of its own, filled, flushed, then named.
 * Threads: the caller's; disk_copy()'s. */
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

static int fill(const struct disk_convert *c, const char *path, const struct disk_job *job,
                struct error *err)
{
    struct disk_options options = {
        .format = disk_format_name(c->format),
        .flags = DISK_NO_BACKING | c->target_flags,
        .key_file = c->create.key_file,
    };
    struct disk *target = NULL;
    int rc = disk_open(path, &options, &target, err);

    if (rc)
        return rc;
    /* its name for the backing image need not lead there from the folder */
    target->below = c->create.backing;
    struct disk_copy copy = {
        .source = c->source,
        .target = target,
        .base = c->create.backing,
        .target_is_zero = true,
        .packing = must_pack(&c->create) ? DISK_PACK_ALL : c->packing,
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
