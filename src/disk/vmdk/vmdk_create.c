/* VMDK: making disks, and how large they get. Any thread. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define SPLIT_SECTORS ((2047ULL << 20) / DISK_SECTOR) /* of the extents of a split disk */

const struct disk_create_option vmdk_options[] = {
    {"subformat",                                                                                                                "KIND",
     "monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat or streamOptimized (default monolithicSparse)"},
    {"adapter_type", "ide|lsilogic|buslogic|legacyESX",
     "the controller that a guest finds (default ide)"},
    {"hwversion",                                                                                                             "NUMBER", "virtual hardware version (default 4)"},
    {"toolsversion",                                                                          "NUMBER", "VMware tools version (default 2147483647)"},
    {"compat6",                                                                                                                "on|off", "hardware version 6 (default off)"},
    {"zeroed_grain",                                                                                    "on|off",
     "zeroes take no space over a backing disk; not all programs know them (default off)"},
    {0                                                                                                            },
};

struct plan {
    const struct disk_create *c;
    const char *type; /* createType */
    bool is_flat, is_split, is_stream;
    bool zeroed;
    const char *adapter, *tools;
    char hardware[16];
    uint32_t cid;
};

/** Where things lie in a sparse extent, in sectors. */
struct layout {
    uint64_t capacity;
    uint32_t tables;
    uint64_t gd_sectors, rgd, gd, overhead;
};

static int choose_kind(struct plan *p, struct error *err)
{
    static const struct {
        const char *name;
        bool is_flat, is_split, is_stream;
    } kinds[] = {
        {"monolithicSparse",     false, false, false},
        {"monolithicFlat",       true,  false, false},
        {"twoGbMaxExtentSparse", false, true,  false},
        {"twoGbMaxExtentFlat",   true,  true,  false},
        {"streamOptimized",      false, false, true },
    };
    const char *want = disk_create_get(p->c, "subformat");

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kinds[i].name, want ? want : kinds[0].name) != 0)
            continue;
        p->type = kinds[i].name;
        p->is_flat = kinds[i].is_flat;
        p->is_split = kinds[i].is_split;
        p->is_stream = kinds[i].is_stream;
        return 0;
    }
    return error_set(err, EINVAL, "VMDK disks have no subformat '%s'", want);
}

static int choose(const struct disk_create *c, struct plan *p, struct error *err)
{
    static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX"};
    const char *hardware = disk_create_get(c, "hwversion");
    bool compat6;
    bool known = false;

    *p = (struct plan){.c = c};
    int rc = choose_kind(p, err);
    if (!rc)
        rc = disk_create_get_bool(c, "zeroed_grain", false, &p->zeroed, err);
    if (!rc)
        rc = disk_create_get_bool(c, "compat6", false, &compat6, err);
    if (rc)
        return rc;
    p->adapter = disk_create_get(c, "adapter_type");
    p->adapter = p->adapter ? p->adapter : adapters[0];
    for (size_t i = 0; i < ARRAY_SIZE(adapters); i++)
        known = known || !strcmp(p->adapter, adapters[i]);
    if (!known)
        return error_set(err, EINVAL,
                         "option adapter_type: expected one of ide, lsilogic, buslogic, legacyESX");
    if (hardware && compat6)
        return error_set(err, EINVAL, "options hwversion and compat6 exclude each other");
    hardware = hardware ? hardware : compat6 ? "6" : "4";
    p->tools = disk_create_get(c, "toolsversion");
    p->tools = p->tools ? p->tools : "2147483647";
    if (strspn(hardware, "0123456789") != strlen(hardware) || strlen(hardware) > 9 ||
        strspn(p->tools, "0123456789") != strlen(p->tools) || strlen(p->tools) > 12)
        return error_set(err, EINVAL, "options hwversion and toolsversion: expected a number");
    (void)snprintf(p->hardware, sizeof(p->hardware), "%s", hardware);
    if (p->is_flat && (p->zeroed || c->backing_path))
        return error_set(err, EINVAL, "a flat VMDK disk cannot %s",
                         c->backing_path ? "be made over another" : "have zeroed grains");
    if (p->is_stream && c->backing_path)
        return error_set(err, EINVAL, "a stream-optimized VMDK disk cannot be made over another");
    if (c->backing_path && (!c->backing || c->backing->format != &vmdk_format))
        return error_set(err, EINVAL,
                         "a VMDK disk can only be made over another one, which must be at hand");
    return 0;
}

static int lay_out(const struct plan *p, uint64_t capacity, bool with_text, struct layout *l,
                   struct error *err)
{
    uint64_t per_table = (uint64_t)VMDK_GRAIN_SECTORS * VMDK_GTES;
    uint64_t tables = (capacity + per_table - 1) / per_table;
    uint64_t table_sectors = VMDK_GTES * 4 / DISK_SECTOR;

    *l = (struct layout){.capacity = capacity, .tables = (uint32_t)tables};
    l->gd_sectors = (tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    l->rgd = 1 + (with_text ? VMDK_DESC_SECTORS : 0);
    l->gd = l->rgd + l->gd_sectors + tables * table_sectors;
    l->overhead =
        p->is_stream ? align_up(l->rgd, VMDK_GRAIN_SECTORS)
                     : align_up(l->gd + l->gd_sectors + tables * table_sectors, VMDK_GRAIN_SECTORS);
    if (align_up(capacity, VMDK_GRAIN_SECTORS) + l->overhead > VMDK_MAX_SECTORS)
        return error_set(
            err, EFBIG,
            "a sparse VMDK file holds at most 2 TiB: take subformat=twoGbMaxExtentSparse");
    return 0;
}

static void fill_head(const struct plan *p, const struct layout *l, bool with_text, uint8_t *h)
{
    uint32_t flags = VMDK_NEWLINES | (p->is_stream ? VMDK_PACKED | VMDK_MARKERS : VMDK_REDUNDANT) |
                     (p->zeroed ? VMDK_ZEROED : 0);

    store_le32(h + VMDK_AT_MAGIC, VMDK_MAGIC);
    store_le32(h + VMDK_AT_VERSION, p->is_stream ? 3 : p->zeroed ? 2 : 1);
    store_le32(h + VMDK_AT_FLAGS, flags);
    store_le64(h + VMDK_AT_CAPACITY, l->capacity);
    store_le64(h + VMDK_AT_GRAIN, VMDK_GRAIN_SECTORS);
    store_le64(h + VMDK_AT_DESC, with_text ? 1 : 0);
    store_le64(h + VMDK_AT_DESC_SIZE, with_text ? VMDK_DESC_SECTORS : 0);
    store_le32(h + VMDK_AT_GTES, VMDK_GTES);
    store_le64(h + VMDK_AT_RGD, p->is_stream ? 0 : l->rgd);
    store_le64(h + VMDK_AT_GD, p->is_stream ? VMDK_AT_END : l->gd);
    store_le64(h + VMDK_AT_OVERHEAD, l->overhead);
    memcpy(h + VMDK_AT_NEWLINES, "\n \r\n", 4);
    store_le16(h + VMDK_AT_COMPRESSION, p->is_stream ? 1 : 0);
}

static int write_directory(struct file *file, uint64_t sector, const struct layout *l)
{
    size_t size = (size_t)l->gd_sectors * DISK_SECTOR;
    cleanup(freep) uint8_t *gd = calloc(1, size);

    if (!gd)
        return -ENOMEM;
    for (uint32_t i = 0; i < l->tables; i++)
        store_le32(gd + (size_t)i * 4, (uint32_t)(sector + l->gd_sectors +
                                                  (uint64_t)i * (VMDK_GTES * 4 / DISK_SECTOR)));
    return file_pwrite(file, gd, size, sector * DISK_SECTOR);
}

/** What closes a stream that is still empty: its directory and footer. */
static int write_stream_end(struct file *file, const struct layout *l, const uint8_t *head)
{
    size_t size = (size_t)(l->gd_sectors + 4) * DISK_SECTOR;
    cleanup(freep) uint8_t *buf = calloc(1, size);
    uint8_t *footer = buf + size - 3 * (size_t)DISK_SECTOR;

    if (!buf)
        return -ENOMEM;
    store_le64(buf, l->gd_sectors);
    store_le32(buf + 12, VMDK_MARK_DIRECTORY);
    store_le64(footer, 1);
    store_le32(footer + 12, VMDK_MARK_FOOTER);
    memcpy(footer + DISK_SECTOR, head, DISK_SECTOR);
    store_le64(footer + DISK_SECTOR + VMDK_AT_GD, l->overhead + 1);
    return file_pwrite(file, buf, size, l->overhead * DISK_SECTOR);
}

/** Fill @file as a sparse extent; @text NULL: the descriptor is elsewhere. */
static int write_sparse(const struct plan *p, struct file *file, uint64_t capacity,
                        const char *text, struct error *err)
{
    uint8_t head[DISK_SECTOR] = {0};
    uint8_t room[VMDK_DESC_SECTORS * DISK_SECTOR] = {0};
    struct layout l;
    int rc = lay_out(p, capacity, text, &l, err);

    if (rc)
        return rc;
    if (text && strlen(text) > sizeof(room))
        return error_set(err, EINVAL, "the name of the backing disk is too long");
    fill_head(p, &l, text, head);
    rc = file_truncate(file, l.overhead * DISK_SECTOR);
    if (rc == -ENOTSUP && file->is_block) /* a device has its size, and may hold anything */
        rc = file_write_zeroes(file, 0, l.overhead * DISK_SECTOR, true);
    if (!rc && p->is_stream)
        rc = write_stream_end(file, &l, head);
    if (!rc && !p->is_stream)
        rc = write_directory(file, l.rgd, &l);
    if (!rc && !p->is_stream)
        rc = write_directory(file, l.gd, &l);
    if (!rc && text) {
        memcpy(room, text, strlen(text));
        rc = file_pwrite(file, room, sizeof(room), DISK_SECTOR);
    }
    if (!rc)
        rc = file_pwrite(file, head, sizeof(head), 0);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

static int write_flat(struct file *file, uint64_t sectors, struct error *err)
{
    int rc = file_truncate(file, sectors * DISK_SECTOR);

    return rc ? error_set(err, -rc, "cannot make '%s' %" PRIu64 " MiB large: %s", file->path,
                          sectors >> 11, strerror(-rc))
              : 0;
}

/* The descriptor */

static char *make_text(const struct plan *p, const char *extents)
{
    const struct disk_create *c = p->c;
    uint64_t sectors = c->size_bytes / DISK_SECTOR;
    unsigned heads = strcmp(p->adapter, "ide") != 0 ? 255 : 16;
    uint32_t parent_cid = c->backing ? vmdk_of(c->backing)->desc.cid : VMDK_NO_CID;
    char *text = NULL;

    if (asprintf(&text,
                 VMDK_TEXT_MAGIC "\nversion=1\nCID=%08" PRIx32 "\nparentCID=%08" PRIx32
                                 "\ncreateType=\"%s\"\n%s%s%s\n"
                                 "# Extent description\n%s\n"
                                 "# The Disk Data Base\n#DDB\n\n"
                                 "ddb.virtualHWVersion = \"%s\"\n"
                                 "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                                 "ddb.geometry.heads = \"%u\"\n"
                                 "ddb.geometry.sectors = \"63\"\n"
                                 "ddb.adapterType = \"%s\"\n"
                                 "ddb.toolsVersion = \"%s\"\n",
                 p->cid, parent_cid, p->type, c->backing_path ? "parentFileNameHint=\"" : "",
                 c->backing_path ? c->backing_path : "", c->backing_path ? "\"\n" : "", extents,
                 p->hardware, sectors / ((uint64_t)63 * heads), heads, p->adapter, p->tools) < 0)
        return NULL;
    return text;
}

static int add_line(char **lines, uint64_t sectors, const char *kind, const char *name,
                    struct error *err)
{
    char *more = NULL;

    if (asprintf(&more, "%sRW %" PRIu64 " %s \"%s\"%s\n", *lines ? *lines : "", sectors, kind, name,
                 !strcmp(kind, "FLAT") ? " 0" : "") < 0)
        return error_set(err, ENOMEM, "out of memory");
    free(*lines);
    *lines = more;
    return 0;
}

/** Names a descriptor can hold. */
static int check_name(const char *name, struct error *err)
{
    return strpbrk(name, "\"\r\n")
               ? error_set(err, EINVAL, "a VMDK disk cannot name '%s': it has quotes or newlines",
                           name)
               : 0;
}

/** The extents in files of their own: `disk-s001.vmdk`, `disk-f001.vmdk`, `disk-flat.vmdk`. */
static int make_extents(const struct plan *p, struct disk_files *files, char **lines,
                        struct error *err)
{
    const char *main_name = disk_files_name(files);
    const char *dot = strrchr(main_name, '.');
    int stem = dot && dot != main_name ? (int)(dot - main_name) : (int)strlen(main_name);
    uint64_t left = p->c->size_bytes / DISK_SECTOR;
    int rc = 0;

    for (unsigned i = 1; !rc && left; i++) {
        uint64_t sectors = p->is_split ? MIN(left, SPLIT_SECTORS) : left;
        char name[NAME_MAX + 1];
        struct file *file = NULL;
        int n = p->is_split ? snprintf(name, sizeof(name), "%.*s-%c%03u%s", stem, main_name,
                                       p->is_flat ? 'f' : 's', i, main_name + stem)
                            : snprintf(name, sizeof(name), "%.*s-flat%s", stem, main_name,
                                       main_name + stem);

        if (n >= (int)sizeof(name))
            return error_set(err, ENAMETOOLONG, "the name '%s' is too long", main_name);
        if (i > VMDK_MAX_EXTENTS)
            return error_set(err, EFBIG, "a VMDK disk of more than %u files", VMDK_MAX_EXTENTS);
        rc = disk_files_add(files, name, &file, err);
        if (!rc)
            rc = p->is_flat ? write_flat(file, sectors, err)
                            : write_sparse(p, file, sectors, NULL, err);
        if (!rc)
            rc = add_line(lines, sectors, p->is_flat ? "FLAT" : "SPARSE", name, err);
        left -= sectors;
    }
    return rc;
}

int vmdk_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                struct error *err)
{
    cleanup(freep) char *lines = NULL;
    cleanup(freep) char *text = NULL;
    bool own = false;
    struct plan p;
    int rc = choose(create, &p, err);

    if (!rc)
        rc = check_name(disk_files_name(files), err);
    if (!rc && create->backing_path)
        rc = check_name(create->backing_path, err);
    if (!rc && getrandom(&p.cid, sizeof(p.cid), 0) != sizeof(p.cid))
        rc = error_set(err, errno, "cannot choose a content ID: %s", strerror(errno));
    if (rc)
        return rc;
    p.cid = (p.cid & 0x7fffffff) | 0x10000000; /* eight digits, and not "none" */
    own = p.is_flat || p.is_split;
    rc = own ? make_extents(&p, files, &lines, err)
             : add_line(&lines, create->size_bytes / DISK_SECTOR, "SPARSE", disk_files_name(files),
                        err);
    if (rc)
        return rc;
    text = make_text(&p, lines);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    if (!own)
        return write_sparse(&p, file, create->size_bytes / DISK_SECTOR, text, err);
    rc = file_pwrite(file, text, strlen(text), 0);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

int vmdk_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                 struct error *err)
{
    uint64_t sectors = create->size_bytes / DISK_SECTOR;
    struct layout l;
    struct plan p;
    int rc = choose(create, &p, err);

    if (rc)
        return rc;
    if (p.is_flat) {
        *ret = create->size_bytes;
        return 0;
    }
    *ret = align_up(data_bytes, VMDK_GRAIN_SECTORS * DISK_SECTOR);
    if (p.is_stream) /* not knowing how well it packs; a sector for each grain's marker */
        *ret += *ret / VMDK_GRAIN_SECTORS;
    for (uint64_t left = sectors; !rc && left;) {
        uint64_t now = p.is_split ? MIN(left, SPLIT_SECTORS) : left;

        rc = lay_out(&p, now, !p.is_split, &l, err);
        if (!rc)
            *ret += l.overhead * DISK_SECTOR;
        left -= now;
    }
    return rc;
}
