/* Importing an OVA of any maker: the descriptor first, then disks in any order, a manifest
 * anywhere.
 *
 * Disks are read into the stage as they are and then converted into layers; nothing that they name
 * is opened. One thread; see import.c. */
#include "bundle/bundle_internal.h"
#include "bundle/ovf.h"

#include "base/fd.h"
#include "base/paths.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MANIFEST_MAX = 1 << 20 };

struct ova {
    struct import *m;
    struct ovf ovf;
    char *manifest; /* heap; NULL = none */
};

static bool is_file(const struct ovf_file *f, const char *name)
{
    return f->name && !strcmp(f->name, name);
}

/** Where member @name goes in the stage: heap; NULL without an error: nowhere. */
static char *place(const struct ova *o, const char *name, struct error *err)
{
    for (size_t i = 0; i < o->ovf.disk_count; i++) {
        if (is_file(&o->ovf.disks[i].file, name))
            return paths_format(err, "%s/disk%zu.part", o->m->stage, i);
    }
    if (is_file(&o->ovf.kernel, name))
        return paths_format(err, "%s/kernel", o->m->stage);
    if (is_file(&o->ovf.initrd, name))
        return paths_format(err, "%s/initrd", o->m->stage);
    return NULL;
}

static int take_member(struct ova *o, struct unpack *u, const char *name, struct error *err)
{
    size_t n = strlen(name);
    size_t size;

    if (n > 3 && !strcasecmp(name + n - 3, ".mf") && !o->manifest)
        return unpack_text(u, MANIFEST_MAX, &o->manifest, &size, err);
    struct error why = {0};
    cleanup(freep) char *path = place(o, name, &why);
    return path ? unpack_file(u, path, err) : unpack_skip(u, err);
}

/** One line "ALGORITHM(FILE)= SUM", spaces as one likes. Sums of algorithms other than SHA-256 are
 * passed over, and so are files that are not in the archive. */
static int check_line(const struct unpack *u, const char *line, size_t size, struct error *err)
{
    char copy[512];
    char name[PACK_NAME_MAX + 1];
    char sum[129];

    if (size >= sizeof(copy))
        return error_set(err, EINVAL, "the manifest is damaged");
    memcpy(copy, line, size);
    copy[size] = 0;
    if (sscanf(copy, "SHA256 (%255[^)]) = %128s", name, sum) != 2 &&
        sscanf(copy, "SHA256(%255[^)])= %128s", name, sum) != 2)
        return 0;
    const char *is = unpack_sum(u, name);
    if (is && strcasecmp(is, sum) != 0)
        return error_set(err, EINVAL, "the checksum of '%s' does not match", name);
    return 0;
}

static int check_manifest(const struct ova *o, const struct unpack *u, struct error *err)
{
    int rc = 0;

    for (const char *line = o->manifest; line && *line && !rc;) {
        size_t size = strcspn(line, "\r\n");

        rc = check_line(u, line, size, err);
        line += size;
        line += strspn(line, "\r\n");
    }
    return rc;
}

/** Disk @i becomes layer @id of @t. */
static int make_layer(struct ova *o, size_t i, struct tree *t, struct error *err)
{
    const struct tree_over nothing = {.kind = TREE_OVER_NOTHING};
    const struct ovf_disk *d = &o->ovf.disks[i];
    struct tree_disk *disk = &t->current.disks[t->current.disk_count++];
    char name[TREE_PATH_BYTES];
    int rc = tree_new_id(disk->layer, err);

    (void)snprintf(disk->name, sizeof(disk->name), i ? "disk%zu" : "root", i + 1);
    if (rc)
        return rc;
    tree_layer_path(name, disk->layer);
    cleanup(freep) char *from = paths_format(err, "%s/disk%zu.part", o->m->stage, i);
    cleanup(freep) char *to = paths_format(err, "%s/%s", o->m->stage, name);
    if (!from || !to || !tree_add_layer(t, disk->layer, &nothing, err))
        return -ENOMEM;
    if (!d->file.name) {
        struct disk_create create = {.size_bytes = (d->capacity_bytes + 511) & ~511ULL};
        return disk_create(to, disk_format_find("qcow2"), &create, err);
    }
    if (access(from, F_OK))
        return error_set(err, EINVAL, "disk '%s' is missing from the archive", d->file.name);
    rc = bundle_convert(from, d->is_vmdk ? "vmdk" : "raw", DISK_REFS_NONE, to, "qcow2", NULL,
                        o->m->job, err);
    (void)unlink(from); /* else the instance keeps a file more until it is locked next */
    return rc;
}

static int set_number(struct instance_config *c, const char *key, uint64_t value, struct error *err)
{
    const struct config_key *k = config_find(key, err);
    char text[24];

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return k ? config_set(c, k, text, err) : -EINVAL;
}

static int set_text(struct instance_config *c, const char *key, const char *value,
                    struct error *err)
{
    const struct config_key *k = config_find(key, err);

    return k ? config_set(c, k, value, err) : -EINVAL;
}

/** A machine of another program's: a PC. */
static int make_config(const struct ova *o, struct instance_config *ret, struct error *err)
{
    int rc = config_init(ret, err);

    if (rc)
        return rc;
    rc = set_text(ret, "arch", "amd64", err);
    if (!rc)
        rc = set_text(ret, "engine", "kvm", err); /* the only one there is for it */
    if (!rc)                                      /* its disk has a boot loader, */
        rc = set_text(ret, "firmware", o->ovf.is_efi ? "ovmf" : "seabios", err);
    if (!rc && o->ovf.is_efi)
        rc = set_text(ret, "flash", "vars.fd", err);
    if (!rc) /* and perhaps no drivers but those for what it had */
        rc = set_text(ret, "disk-bus", "ahci", err);
    if (!rc && o->ovf.cpus)
        rc = set_number(ret, "cpus", o->ovf.cpus, err);
    if (!rc && o->ovf.memory_bytes)
        rc = set_number(ret, "memory", o->ovf.memory_bytes, err);
    if (!rc && !o->ovf.cards)
        rc = set_text(ret, "net", "none", err);
    if (rc)
        config_done(ret);
    return rc;
}

static int finish(struct ova *o, struct error *err)
{
    struct instance_config config;
    struct tree *t = tree_new();
    cleanup(freep) char *disks = paths_format(err, "%s/disks", o->m->stage);
    const char *text = o->ovf.config;
    int rc = t && disks ? paths_make(disks, err) : error_set(err, ENOMEM, "out of memory");

    for (size_t i = 0; i < o->ovf.disk_count && !rc; i++)
        rc = make_layer(o, i, t, err);
    if (!rc) {
        rc = text ? config_parse(BUNDLE_CONFIG, text, strlen(text), &config, err)
                  : make_config(o, &config, err);
        if (!rc) {
            rc = import_config(o->m, &config, text, err);
            config_done(&config);
        }
    }
    if (!rc)
        rc = import_finish(o->m, t, err);
    tree_free(t);
    return rc;
}

int bundle_import_ova(struct import *m, struct unpack *u, const char *name, struct error *err)
{
    struct ova o = {.m = m};
    cleanup(freep) char *text = NULL;
    cleanup(freep) char *stem = strdup(name);
    uint64_t bytes;
    size_t size = 0;
    int rc = stem ? unpack_text(u, OVF_TEXT_MAX, &text, &size, err) : -ENOMEM;

    if (!rc)
        rc = ovf_parse(text, size, &o.ovf, err);
    if (!rc) {
        stem[strlen(stem) - strlen(".ovf")] = 0;
        rc = import_begin(m, o.ovf.name ? o.ovf.name : stem, err);
    }
    while (!rc && (rc = unpack_next(u, &name, &bytes, err)) > 0)
        rc = take_member(&o, u, name, err);
    if (!rc)
        rc = check_manifest(&o, u, err);
    if (!rc)
        rc = finish(&o, err);
    free(o.manifest);
    ovf_done(&o.ovf);
    return rc;
}
