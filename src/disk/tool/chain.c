/* Moving what images hold up and down their chain: commit and rebase.
 *
 * Both write first, flush, and only then change what the upper image says about itself; so at any
 * point it reads as before. Threads: the caller's; disk_copy()'s. */
#include "base/fd.h"
#include "disk/format.h"
#include "disk/tool/tool.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

char *disk_path_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *text = NULL;

    if (*name == '/' || !slash)
        return strdup(name);
    return asprintf(&text, "%.*s/%s", (int)(slash - path), path, name) < 0 ? NULL : text;
}

char *disk_layer_path(const struct disk *top, const char *path, unsigned depth)
{
    char *at = strdup(path);

    for (const struct disk *d = top; at && depth; depth--, d = d->below) {
        char *next = d->below && d->backing_path ? disk_path_beside(at, d->backing_path) : NULL;

        free(at);
        at = next;
    }
    return at;
}

/** How deep below @top image @base lies, and how the image at @path may name it. */
static int find_base(const struct disk *top, const char *path, const char *base,
                     unsigned *ret_depth, struct error *err)
{
    struct stat want;
    struct stat st;

    if (!top->below)
        return error_set(err, EINVAL, "'%s' has no backing image", path);
    *ret_depth = 1;
    if (!base)
        return 0;
    if (stat(base, &want))
        return error_set(err, errno, "cannot find '%s': %s", base, strerror(errno));
    unsigned depth = 1;
    for (const struct disk *d = top->below; d; d = d->below, depth++) {
        cleanup(freep) char *at = disk_layer_path(top, path, depth);

        if (at && !stat(at, &st) && st.st_dev == want.st_dev && st.st_ino == want.st_ino) {
            *ret_depth = depth;
            return 0;
        }
    }
    return error_set(err, EINVAL, "'%s' is not among the images below '%s'", base, path);
}

/** What the image at @path may call @target: a relative name in its own folder or below it, else an
 * absolute one. Heap. */
static char *name_from(const char *path, const char *target)
{
    char folder[PATH_MAX];
    char real[PATH_MAX];
    cleanup(freep) char *dot = disk_path_beside(path, ".");
    size_t n;

    if (!dot || !realpath(strchr(path, '/') ? dot : ".", folder) || !realpath(target, real))
        return NULL;
    n = strlen(folder);
    if (!strncmp(real, folder, n) && real[n] == '/')
        return strdup(real + n + 1);
    return strdup(real);
}

static struct disk *layer_at(struct disk *d, unsigned depth)
{
    while (depth--)
        d = d->below;
    return d;
}

static int flush(struct disk *d, struct error *err)
{
    int rc = disk_flush(d);

    return rc ? error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc)) : 0;
}

/** Close what lies between @top and the layer at @depth. */
static void cut_between(struct disk *top, unsigned depth)
{
    struct disk *between = top->below;
    struct disk *last = layer_at(top, depth - 1);

    top->below = last->below;
    last->below = NULL;
    disk_close(between);
}

/** The base holds all now: put @top right over it. Also where it lay there before: formats that
 * stamp what is below must see that it is another state of it. */
static int link_to(struct disk *top, const char *path, unsigned depth, struct error *err)
{
    struct disk *base = layer_at(top, depth);
    cleanup(freep) char *base_path = disk_layer_path(top, path, depth);
    cleanup(freep) char *name = NULL;

    if (depth == 1 && !top->ops->match_below)
        return 0;
    name = depth == 1 ? strdup(top->backing_path) : base_path ? name_from(path, base_path) : NULL;
    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    int rc = disk_set_backing(top, name, disk_format_name(base->format), err);
    if (!rc)
        rc = flush(top, err);
    if (!rc && depth > 1)
        cut_between(top, depth);
    return rc;
}

static int commit(struct disk *top, const char *path, unsigned depth, bool keep,
                  const struct disk_job *job, struct error *err)
{
    struct disk *base = layer_at(top, depth);
    struct disk_copy copy = {
        .source = top,
        .target = base,
        .depth = depth,
        .sparse_bytes = DISK_SPARSE_DEFAULT,
    };
    int rc = 0;

    if (base->size_bytes < top->size_bytes)
        rc = disk_resize(base, top->size_bytes, false, err);
    if (!rc)
        rc = disk_copy(&copy, job, err);
    if (!rc)
        rc = flush(base, err);
    if (!rc && (depth == 1 || !keep))
        rc = link_to(top, path, depth, err);
    if (!rc && !keep)
        rc = disk_make_empty(top, err);
    return rc ? rc : flush(top, err);
}

int disk_commit(const char *path, const struct disk_options *options, const char *base, bool keep,
                const struct disk_job *job, struct error *err)
{
    struct disk_options o = *options;
    struct disk *top = NULL;
    unsigned depth = 0;

    o.flags |= DISK_READONLY;
    int rc = disk_open(path, &o, &top, err);
    if (rc)
        return rc;
    rc = find_base(top, path, base, &depth, err);
    disk_close(top);
    if (rc)
        return rc;
    o.flags = options->flags & ~(unsigned)DISK_READONLY;
    o.write_depth = depth;
    rc = disk_open(path, &o, &top, err);
    if (rc)
        return rc;
    rc = commit(top, path, depth, keep, job, err);
    disk_close(top);
    return rc;
}

/** The depth at which @top's chain goes on as @backing's does; 0 = nowhere. */
static unsigned find_shared(const struct disk *top, const char *path, const char *backing)
{
    unsigned depth = 0;
    struct error ignored = {0};

    return top->below && !find_base(top, path, backing, &depth, &ignored) ? depth : 0;
}

static int rebase(struct disk *top, const struct disk_rebase *r, struct disk *backing,
                  const char *backing_file, const struct disk_job *job, struct error *err)
{
    struct disk_copy copy = {
        .source = top,
        .target = top,
        .base = backing,
        .target_is_zero = !backing,
        .from_depth = 1,
        .to_depth = backing ? find_shared(top, r->path, backing_file) : 0,
        .sparse_bytes = DISK_SPARSE_DEFAULT,
    };
    int rc = top->below || backing ? disk_copy(&copy, job, err) : 0;

    if (!rc)
        rc = flush(top, err);
    if (!rc)
        rc = disk_set_backing(top, r->backing, r->backing_format, err);
    return rc ? rc : flush(top, err);
}

int disk_rebase(const struct disk_rebase *r, const struct disk_job *job, struct error *err)
{
    struct disk_options o = *r->options;
    struct disk_options below = *r->options;
    cleanup(freep) char *file = r->backing ? disk_path_beside(r->path, r->backing) : NULL;
    struct disk *backing = NULL;
    struct disk *top = NULL;

    if (r->backing && !file)
        return error_set(err, ENOMEM, "out of memory");
    o.flags |= r->unsafe ? DISK_NO_BACKING : 0;
    int rc = disk_open(r->path, &o, &top, err);
    if (rc)
        return rc;
    if (r->unsafe) {
        rc = disk_set_backing(top, r->backing, r->backing_format, err);
        if (!rc)
            rc = flush(top, err);
        disk_close(top);
        return rc;
    }
    below.format = r->backing_format;
    below.flags |= DISK_READONLY;
    if (file)
        rc = disk_open(file, &below, &backing, err);
    if (!rc)
        rc = rebase(top, r, backing, file, job, err);
    disk_close(backing);
    disk_close(top);
    return rc;
}
