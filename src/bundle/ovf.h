/* OVF descriptors: a machine as other hypervisors describe it (DMTF DSP0243 1.1). */
#ifndef BUNDLE_OVF_H
#define BUNDLE_OVF_H

#include "base/error.h"
#include "base/macros.h"

enum { OVF_DISKS_MAX = 8, OVF_TEXT_MAX = 1 << 20 };

struct ovf_file {
    char *name;     /* a member of the archive, or a file beside the descriptor; NULL = none */
    uint64_t bytes; /* of the file; 0 = not said */
};

struct ovf_disk {
    struct ovf_file file; /* without a name: an empty disk */
    uint64_t capacity_bytes;
    uint64_t populated_bytes; /* for writing; 0 = not known */
    bool is_vmdk;
};

/** Strings are heap; end with ovf_done(). */
struct ovf {
    char *name;
    uint64_t cpus, memory_bytes; /* 0 = not said */
    unsigned cards;              /* network cards */
    struct ovf_disk disks[OVF_DISKS_MAX];
    size_t disk_count;
    bool is_efi;

    /* What other programs leave alone: the instance as Posada knows it. */
    char *config; /* text of instance.yaml; NULL = of another program's making */
    struct ovf_file kernel, initrd;
};

/** A descriptor; *@ret is heap text. -EINVAL: a name or text that XML cannot hold. */
must_check int ovf_format(const struct ovf *o, char **ret, size_t *ret_size, struct error *err);

/** Read a descriptor, hostile. -EINVAL: not one, or of several machines, or without what a machine
 * needs; -ENOTSUP: with what we cannot do (compressed or chunked files). *@ret is for ovf_done().
 */
must_check int ovf_parse(const char *text, size_t size, struct ovf *ret, struct error *err);
void ovf_done(struct ovf *o);

#endif
