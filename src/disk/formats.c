/* The formats, in the order in which they are probed, and how one is known by its beginning. */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define HEAD_BYTES 4096u

const struct disk_format *const disk_formats[] = {
    &qcow2_format, &raw_format, &vdi_format, &vhd_format, &vhdx_format, &vmdk_format, NULL,
};

/** Beginnings of what is no disk for us, but should not be taken for a raw one either. */
static const struct {
    const char *name;
    const char *magic;
    uint8_t size;
    uint8_t offset;
    bool packed; /* not a disk format but a packing of one */
} strangers[] = {
    {"QED",             "QED",              4,  0, false},
    {"Parallels",       "WithoutFreeSpace", 16, 0, false},
    {"Parallels",       "WithouFreSpacExt", 16, 0, false},
    {"gzip-compressed", "\x1f\x8b\x08",     3,  0, true },
    {"xz-compressed",
     "\xfd"
     "7zXZ",                                6,  0, true },
    {"zstd-compressed", "\x28\xb5\x2f\xfd", 4,  0, true },
};

const struct disk_format *disk_format_find(const char *name)
{
    for (const struct disk_format *const *f = disk_formats; *f; f++) {
        if (!strcmp((*f)->name, name) || ((*f)->alias && !strcmp((*f)->alias, name)))
            return *f;
    }
    return NULL;
}

const char *disk_format_name(const struct disk_format *f)
{
    return f->name;
}

const char *disk_format_title(const struct disk_format *f)
{
    return f->title;
}

const struct disk_create_option *disk_format_options(const struct disk_format *f)
{
    return f->options;
}

static bool has_suffix(const char *path, const char *suffixes)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');

    if (!dot || !dot[1])
        return false;
    for (const char *s = suffixes; *s; s += *s == ' ') {
        size_t n = strcspn(s, " ");

        if (strlen(dot + 1) == n && !strncasecmp(dot + 1, s, n))
            return true;
        s += n;
    }
    return false;
}

const struct disk_format *disk_format_of_name(const char *path)
{
    for (const struct disk_format *const *f = disk_formats; path && *f; f++) {
        if (has_suffix(path, (*f)->suffixes))
            return *f;
    }
    return NULL;
}

static int check_strangers(const uint8_t *head, const char *path, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        if (memcmp(head + strangers[i].offset, strangers[i].magic, strangers[i].size))
            continue;
        if (strangers[i].packed)
            return error_set(err, EINVAL, "disk '%s' is a %s file: unpack it first", path,
                             strangers[i].name);
        return error_set(err, EINVAL, "disk '%s' is in %s format, which is not supported", path,
                         strangers[i].name);
    }
    return 0;
}

int disk_probe(struct file *file, const char *path, const struct disk_format **ret,
               struct error *err)
{
    uint8_t head[HEAD_BYTES];
    uint8_t tail[DISK_SECTOR] = {0};
    uint64_t size = 0;
    int rc = file_get_size(file, &size);

    if (!rc)
        rc = file_pread(file, head, sizeof(head), 0); /* zero-padded */
    if (!rc && size >= sizeof(tail))
        rc = file_pread(file, tail, sizeof(tail), size - sizeof(tail));
    if (rc)
        return error_set(err, -rc, "cannot read disk '%s': %s", path, strerror(-rc));
    for (const struct disk_format *const *f = disk_formats; *f; f++) {
        if (!(*f)->probe || !(*f)->probe(head, tail))
            continue;
        if (has_suffix(path, raw_format.suffixes))
            return error_set(
                err, EINVAL,
                "disk '%s' looks like %s, but its name says raw: give its format (%s or raw)", path,
                (*f)->title, (*f)->name);
        *ret = *f;
        return 0;
    }
    *ret = &raw_format;
    return check_strangers(head, path, err);
}
