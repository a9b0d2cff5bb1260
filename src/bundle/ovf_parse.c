/* Reading OVF descriptors of any maker, hostile.
 *
 * libxml2 parses, without entities, network or huge trees; elements are found by local name, since
 * makers differ in the version of the namespace. What is no part of a machine of ours (sound, USB,
 * floppies, properties) is passed over. */
#include "bundle/ovf.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_CPU = 3, TYPE_MEMORY = 4, TYPE_ETHERNET = 10, TYPE_DISK = 17 };

#define MEMORY_MAX (1ULL << 40)

static bool is(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name);
}

/** The first child so called, or NULL. */
static const xmlNode *child(const xmlNode *n, const char *name)
{
    for (n = n ? n->children : NULL; n; n = n->next) {
        if (is(n, name))
            return n;
    }
    return NULL;
}

/** An attribute's value by local name: heap, or NULL. */
static char *attribute(const xmlNode *n, const char *name)
{
    for (const xmlAttr *a = n ? n->properties : NULL; a; a = a->next) {
        if (!strcmp((const char *)a->name, name))
            return (char *)xmlNodeGetContent((const xmlNode *)a);
    }
    return NULL;
}

static char *content(const xmlNode *n)
{
    return n ? (char *)xmlNodeGetContent(n) : NULL;
}

/** A decimal number, alone; false: it is none. NULL gives 0. */
static bool to_number(const char *s, uint64_t *ret)
{
    char *end = NULL;

    *ret = 0;
    if (!s)
        return true;
    s += strspn(s, " \t\r\n");
    if (*s < '0' || *s > '9')
        return false;
    errno = 0;
    *ret = strtoull(s, &end, 10);
    return !errno && !end[strspn(end, " \t\r\n")];
}

static bool number_of(const xmlNode *n, const char *name, uint64_t *ret)
{
    char *s = attribute(n, name);
    bool good = to_number(s, ret);

    free(s);
    return good;
}

static bool item_number(const xmlNode *item, const char *name, uint64_t *ret)
{
    char *s = content(child(item, name));
    bool good = to_number(s, ret);

    free(s);
    return good;
}

/** "byte", "byte * 2^20", "MegaBytes": what a number of these is in bytes; false: who knows. */
static bool units(const char *s, uint64_t default_unit, uint64_t *ret)
{
    static const struct {
        const char *name;
        unsigned shift;
    } old[] = {
        {"byte",      0 },
        {"bytes",     0 },
        {"KiloBytes", 10},
        {"MegaBytes", 20},
        {"GigaBytes", 30},
        {"KB",        10},
        {"MB",        20},
        {"GB",        30},
    };
    unsigned power;
    char rest;

    *ret = default_unit;
    if (!s || !*s)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(old); i++) {
        if (!strcasecmp(s, old[i].name)) {
            *ret = 1ULL << old[i].shift;
            return true;
        }
    }
    if (sscanf(s, "byte * 2^%u %c", &power, &rest) != 1 || power > 40)
        return false;
    *ret = 1ULL << power;
    return true;
}

static bool name_is_plain(const char *name)
{
    size_t n = strlen(name);

    return n && n < 256 && !strchr(name, '/') && name[0] != '.';
}

/** The file that References call @id. @file's name stays NULL when there is none. */
static int find_file(const xmlNode *envelope, const char *id, struct ovf_file *file,
                     struct error *err)
{
    const xmlNode *refs = child(envelope, "References");

    for (const xmlNode *n = refs ? refs->children : NULL; n; n = n->next) {
        char *its_id = is(n, "File") ? attribute(n, "id") : NULL;
        bool found = its_id && !strcmp(its_id, id);
        free(its_id);
        if (!found)
            continue;
        char *compression = attribute(n, "compression");
        char *chunk = attribute(n, "chunkSize");
        bool plain = (!compression || !*compression || !strcmp(compression, "identity")) && !chunk;
        free(compression);
        free(chunk);
        if (!plain)
            return error_set(err, ENOTSUP,
                             "file '%s' is compressed or in pieces, which Posada does not read",
                             id);
        file->name = attribute(n, "href");
        if (!file->name || !name_is_plain(file->name) || !number_of(n, "size", &file->bytes))
            return error_set(err, EINVAL, "file '%s' has no plain name", id);
        return 0;
    }
    return 0;
}

static int read_disk(const xmlNode *envelope, const char *id, struct ovf_disk *d, struct error *err)
{
    const xmlNode *section = child(envelope, "DiskSection");
    const xmlNode *n = section ? section->children : NULL;
    uint64_t unit;

    for (; n; n = n->next) {
        char *its_id = is(n, "Disk") ? attribute(n, "diskId") : NULL;
        bool found = its_id && !strcmp(its_id, id);
        free(its_id);
        if (found)
            break;
    }
    if (!n)
        return error_set(err, EINVAL, "there is no disk '%s'", id);
    char *parent = attribute(n, "parentRef");
    free(parent);
    if (parent)
        return error_set(err, ENOTSUP, "disk '%s' lies over another one", id);
    char *unit_name = attribute(n, "capacityAllocationUnits");
    bool good = number_of(n, "capacity", &d->capacity_bytes) && units(unit_name, 1, &unit) &&
                !__builtin_mul_overflow(d->capacity_bytes, unit, &d->capacity_bytes);
    free(unit_name);
    if (!good)
        return error_set(err, EINVAL, "disk '%s' has no proper capacity", id);
    char *format = attribute(n, "format");
    d->is_vmdk = format && strcasestr(format, "vmdk");
    free(format);
    char *ref = attribute(n, "fileRef");
    int rc = ref ? find_file(envelope, ref, &d->file, err) : 0;
    if (!rc && ref && !d->file.name)
        rc = error_set(err, EINVAL, "disk '%s' names a file that is not there", id);
    free(ref);
    return rc;
}

/** A drive: HostResource "ovf:/disk/ID" (also without "ovf:"). */
static int read_drive(const xmlNode *envelope, const xmlNode *item, struct ovf *o,
                      struct error *err)
{
    char *resource = content(child(item, "HostResource"));
    const char *id = resource ? strstr(resource, "/disk/") : NULL;
    int rc = 0;

    if (id && o->disk_count == OVF_DISKS_MAX)
        rc = error_set(err, ENOTSUP, "it has more than %d disks", OVF_DISKS_MAX);
    else if (id)
        rc = read_disk(envelope, id + strlen("/disk/"), &o->disks[o->disk_count++], err);
    free(resource);
    return rc;
}

static int read_memory(const xmlNode *item, struct ovf *o, struct error *err)
{
    char *unit_name = content(child(item, "AllocationUnits"));
    uint64_t quantity;
    uint64_t unit;
    bool good =
        item_number(item, "VirtualQuantity", &quantity) && units(unit_name, 1 << 20, &unit) &&
        !__builtin_mul_overflow(quantity, unit, &o->memory_bytes) && o->memory_bytes <= MEMORY_MAX;

    free(unit_name);
    return good ? 0 : error_set(err, EINVAL, "its amount of memory is not a proper number");
}

static int read_item(const xmlNode *envelope, const xmlNode *item, struct ovf *o, struct error *err)
{
    uint64_t type;

    if (!item_number(item, "ResourceType", &type))
        return error_set(err, EINVAL, "an item's type is not a number");
    switch (type) {
    case TYPE_CPU:
        if (!item_number(item, "VirtualQuantity", &o->cpus) || o->cpus > 1024)
            return error_set(err, EINVAL, "its number of processors is not a proper number");
        return 0;
    case TYPE_MEMORY:
        return read_memory(item, o, err);
    case TYPE_ETHERNET:
        o->cards += o->cards < 64;
        return 0;
    case TYPE_DISK:
        return read_drive(envelope, item, o, err);
    default:
        return 0;
    }
}

/** What Posada itself added. */
static int read_own(const xmlNode *envelope, const xmlNode *system, struct ovf *o,
                    struct error *err)
{
    const xmlNode *section = child(system, "InstanceSection");

    if (!section)
        return 0;
    o->config = content(child(section, "Configuration"));
    int rc = find_file(envelope, "posada-kernel", &o->kernel, err);
    return rc ? rc : find_file(envelope, "posada-initrd", &o->initrd, err);
}

static int read_machine(const xmlNode *envelope, struct ovf *o, struct error *err)
{
    const xmlNode *system = child(envelope, "VirtualSystem");
    const xmlNode *hardware = child(system, "VirtualHardwareSection");
    int rc = 0;

    if (child(envelope, "VirtualSystemCollection"))
        return error_set(err, ENOTSUP, "it holds several machines");
    if (!system || !hardware)
        return error_set(err, EINVAL, "it describes no machine");
    o->name = content(child(system, "Name"));
    if (!o->name)
        o->name = attribute(system, "id");
    for (const xmlNode *n = hardware->children; n && !rc; n = n->next) {
        if (is(n, "Item") || is(n, "StorageItem") || is(n, "EthernetPortItem"))
            rc = read_item(envelope, n, o, err);
        if (is(n, "Config")) { /* VMware's: firmware */
            char *key = attribute(n, "key");
            char *value = attribute(n, "value");
            if (key && value && !strcmp(key, "firmware"))
                o->is_efi = !strcmp(value, "efi");
            free(key);
            free(value);
        }
    }
    return rc ? rc : read_own(envelope, system, o, err);
}

static void say_nothing(void *arg, const char *fmt, ...)
{
}

int ovf_parse(const char *text, size_t size, struct ovf *ret, struct error *err)
{
    *ret = (struct ovf){0};
    if (size > OVF_TEXT_MAX)
        return error_set(err, EINVAL, "the OVF descriptor is too long");
    xmlSetGenericErrorFunc(NULL, say_nothing);
    xmlDocPtr doc = xmlReadMemory(text, (int)size, "descriptor.ovf", NULL,
                                  XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                      XML_PARSE_NOCDATA);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    int rc = 0;
    if (!root || !is(root, "Envelope"))
        rc = error_set(err, EINVAL, "it is not an OVF descriptor");
    else if (xmlGetIntSubset(doc))
        rc = error_set(err, EINVAL, "it declares a document type, which OVF descriptors do not");
    else
        rc = read_machine(root, ret, err);
    xmlFreeDoc(doc);
    if (rc) {
        error_prefix(err, "OVF descriptor");
        ovf_done(ret);
    }
    return rc;
}

void ovf_done(struct ovf *o)
{
    for (size_t i = 0; i < o->disk_count; i++)
        free(o->disks[i].file.name);
    free(o->name);
    free(o->config);
    free(o->kernel.name);
    free(o->initrd.name);
    *o = (struct ovf){0};
}
