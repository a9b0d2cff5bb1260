/* Exporting an instance as OVA: descriptor, manifest, stream-optimized VMDK disks; in that order,
 * which is the one that every reader takes (DSP0243 section 5.3). Disks are made before, since the
 * descriptor tells their sizes. */
#include "bundle/bundle_internal.h"
#include "bundle/ovf.h"

#include "base/fd.h"
#include "base/paths.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MAX = OVF_DISKS_MAX + 2 };

struct ova_file {
    char *name, *path; /* heap */
};

struct ova {
    struct export *x;
    struct ovf ovf;
    struct ova_file files[FILES_MAX];
    size_t count;
};

/** Add a file to the archive, and to what the descriptor says of it. Takes both strings, which may
 * be NULL for no memory. */
static int add(struct ova *o, char *name, char *path, struct ovf_file *file, struct error *err)
{
    struct stat st;

    o->files[o->count++] = (struct ova_file){name, path};
    if (!name || !path)
        return -ENOMEM;
    if (stat(path, &st))
        return error_set(err, errno, "cannot read '%s': %s", path, strerror(errno));
    *file = (struct ovf_file){.name = strdup(name), .bytes = (uint64_t)st.st_size};
    return file->name ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int make_disk(struct ova *o, size_t i, struct error *err)
{
    static const struct disk_create_value values[] = {
        {"subformat", "streamOptimized"},
        {NULL,        NULL             }
    };
    struct export *x = o->x;
    struct ovf_disk *d = &o->ovf.disks[o->ovf.disk_count++];
    struct disk_options options = {.format = "vmdk", .flags = DISK_READONLY};
    struct disk *disk = NULL;
    cleanup(freep) char *top = export_layer(x, x->point->disks[i].layer, err);
    char *name = paths_format(err, "%s-disk%zu.vmdk", x->in->name, i + 1);
    char *path = name ? paths_format(err, "%s/%s", x->stage, name) : NULL;
    int rc = top && path
                 ? bundle_convert(top, "qcow2", DISK_REFS_ANY, path, "vmdk", values, x->job, err)
                 : -ENOMEM;

    if (!rc)
        rc = disk_open(path, &options, &disk, err);
    if (!rc)
        d->capacity_bytes = disk->size_bytes;
    disk_close(disk);
    int added = add(o, name, path, &d->file, err);
    return rc ? rc : added;
}

static int add_boot_file(struct ova *o, const char *key, struct ovf_file *file, struct error *err)
{
    const char *name = config_own_file(&o->x->config, key);

    return name ? add(o, strdup(name), instance_path(o->x->in, err, "%s", name), file, err) : 0;
}

static int describe(struct ova *o, char **ret, size_t *ret_size, struct error *err)
{
    const struct instance_config *c = &o->x->config;

    o->ovf.cpus = (uint64_t)c->cpus;
    o->ovf.memory_bytes = c->memory;
    o->ovf.cards = strcmp(c->net, "none") != 0;
    o->ovf.name = strdup(o->x->in->name);
    o->ovf.config = strdup(o->x->config_text);
    if (!o->ovf.name || !o->ovf.config)
        return error_set(err, ENOMEM, "out of memory");
    return ovf_format(&o->ovf, ret, ret_size, err);
}

/** The manifest: the sums of the descriptor and all files (section 5.1). */
static char *manifest(const struct ova *o, const char *descriptor_name, const char *descriptor_path,
                      struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    char sum[65];
    FILE *f = open_memstream(&text, &size);
    int rc = f ? pack_sum_file(descriptor_path, sum, err) : -ENOMEM;

    if (!rc)
        (void)fprintf(f, "SHA256(%s)= %s\n", descriptor_name, sum);
    for (size_t i = 0; i < o->count && !rc; i++) {
        rc = pack_sum_file(o->files[i].path, sum, err);
        if (!rc)
            (void)fprintf(f, "SHA256(%s)= %s\n", o->files[i].name, sum);
    }
    if (f && fclose(f) && !rc)
        rc = error_set(err, ENOMEM, "out of memory");
    if (rc) {
        free(text);
        return NULL;
    }
    return text;
}

static int written(void *arg, uint64_t done)
{
    const struct bundle_job *j = arg;

    return j->progress ? j->progress(j->arg, "written", done, 0) : 0;
}

static int put(struct ova *o, int fd, struct error *err)
{
    const struct export *x = o->x;
    cleanup(freep) char *descriptor = NULL;
    cleanup(freep) char *name = paths_format(err, "%s.ovf", x->in->name);
    cleanup(freep) char *path = paths_format(err, "%s/descriptor", x->stage);
    cleanup(freep) char *sums_name = paths_format(err, "%s.mf", x->in->name);
    struct pack *p = NULL;
    size_t size = 0;
    int rc = name && path && sums_name ? describe(o, &descriptor, &size, err) : -ENOMEM;

    if (!rc)
        rc = paths_write(path, descriptor, size, err);
    cleanup(freep) char *sums = rc ? NULL : manifest(o, name, path, err);
    if (!rc && !sums)
        rc = -EIO;
    if (!rc)
        rc = pack_new(fd, PACK_USTAR, written, (void *)(uintptr_t)x->job, &p, err);
    if (!rc)
        rc = pack_data(p, name, descriptor, size, err);
    if (!rc)
        rc = pack_data(p, sums_name, sums, strlen(sums), err);
    for (size_t i = 0; i < o->count && !rc; i++)
        rc = pack_file(p, o->files[i].name, o->files[i].path, err);
    if (!rc)
        rc = pack_finish(p, err);
    pack_free(p);
    return rc;
}

int bundle_export_ova(struct export *x, int fd, struct error *err)
{
    struct ova o = {.x = x};
    int rc = x->options->snapshots
                 ? error_set(err, ENOTSUP, "an OVA holds no snapshots; Posada's own form does")
                 : 0;

    for (size_t i = 0; i < x->point->disk_count && !rc; i++)
        rc = make_disk(&o, i, err);
    if (!rc)
        rc = add_boot_file(&o, "kernel", &o.ovf.kernel, err);
    if (!rc)
        rc = add_boot_file(&o, "initrd", &o.ovf.initrd, err);
    if (!rc)
        rc = put(&o, fd, err);
    for (size_t i = 0; i < o.count; i++) {
        free(o.files[i].name);
        free(o.files[i].path);
    }
    ovf_done(&o.ovf);
    return rc;
}
