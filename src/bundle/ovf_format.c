/* Writing OVF descriptors: DMTF DSP0243 1.1, resources by CIM_ResourceAllocationSettingData
 * (elements of an item in the order of their names, as the schema wants them).
 *
 * Disks hang on a SATA controller and cards are E1000s, which VirtualBox and VMware offer to every
 * guest. What only Posada understands is a section of its own that need not be understood. */
#include "bundle/ovf.h"

#include <errno.h>
#include <inttypes.h>
#include <libxml/xmlwriter.h>
#include <stdio.h>
#include <string.h>

#define OVF_NS "http://schemas.dmtf.org/ovf/envelope/1"
#define RASD_NS \
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
#define VSSD_NS   "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
#define VMDK_URI  "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
#define POSADA_NS "urn:posada:instance"

enum { OS_OTHER_LINUX_64 = 101 }; /* CIM_OperatingSystem.OsType */
enum { TYPE_CPU = 3, TYPE_MEMORY = 4, TYPE_ETHERNET = 10, TYPE_DISK = 17, TYPE_SATA = 20 };

struct writer {
    xmlTextWriterPtr xml;
    bool failed;
    unsigned next_id; /* of items */
};

static const xmlChar *x(const char *s)
{
    return (const xmlChar *)s;
}

static void begin(struct writer *w, const char *name)
{
    w->failed |= xmlTextWriterStartElement(w->xml, x(name)) < 0;
}

static void end(struct writer *w)
{
    w->failed |= xmlTextWriterEndElement(w->xml) < 0;
}

static void text(struct writer *w, const char *name, const char *value)
{
    w->failed |= xmlTextWriterWriteElement(w->xml, x(name), x(value)) < 0;
}

static void attribute(struct writer *w, const char *name, const char *value)
{
    w->failed |= xmlTextWriterWriteAttribute(w->xml, x(name), x(value)) < 0;
}

static void number(struct writer *w, const char *name, uint64_t value)
{
    char digits[24];

    (void)snprintf(digits, sizeof(digits), "%" PRIu64, value);
    text(w, name, digits);
}

static void number_attribute(struct writer *w, const char *name, uint64_t value)
{
    char digits[24];

    (void)snprintf(digits, sizeof(digits), "%" PRIu64, value);
    attribute(w, name, digits);
}

static void file(struct writer *w, const struct ovf_file *f, const char *id)
{
    if (!f->name)
        return;
    begin(w, "File");
    attribute(w, "ovf:href", f->name);
    attribute(w, "ovf:id", id);
    number_attribute(w, "ovf:size", f->bytes);
    end(w);
}

static void references(struct writer *w, const struct ovf *o)
{
    begin(w, "References");
    for (size_t i = 0; i < o->disk_count; i++) {
        char id[32];

        (void)snprintf(id, sizeof(id), "file%zu", i + 1);
        file(w, &o->disks[i].file, id);
    }
    file(w, &o->kernel, "posada-kernel");
    file(w, &o->initrd, "posada-initrd");
    end(w);
}

static void disks(struct writer *w, const struct ovf *o)
{
    begin(w, "DiskSection");
    text(w, "Info", "Virtual disks");
    for (size_t i = 0; i < o->disk_count; i++) {
        const struct ovf_disk *d = &o->disks[i];
        char id[32];

        begin(w, "Disk");
        number_attribute(w, "ovf:capacity", d->capacity_bytes);
        attribute(w, "ovf:capacityAllocationUnits", "byte");
        (void)snprintf(id, sizeof(id), "vmdisk%zu", i + 1);
        attribute(w, "ovf:diskId", id);
        (void)snprintf(id, sizeof(id), "file%zu", i + 1);
        attribute(w, "ovf:fileRef", id);
        attribute(w, "ovf:format", VMDK_URI);
        if (d->populated_bytes)
            number_attribute(w, "ovf:populatedSize", d->populated_bytes);
        end(w);
    }
    end(w);
}

/** An item; what is NULL or 0 is left out. */
struct item {
    const char *address, *units, *connection, *name, *host_resource, *subtype;
    const char *address_on_parent, *parent;
    unsigned type;
    uint64_t quantity;
};

static void item(struct writer *w, const struct item *i)
{
    begin(w, "Item");
    if (i->address)
        text(w, "rasd:Address", i->address);
    if (i->address_on_parent)
        text(w, "rasd:AddressOnParent", i->address_on_parent);
    if (i->units)
        text(w, "rasd:AllocationUnits", i->units);
    if (i->connection)
        text(w, "rasd:AutomaticAllocation", "true");
    if (i->connection)
        text(w, "rasd:Connection", i->connection);
    text(w, "rasd:ElementName", i->name);
    if (i->host_resource)
        text(w, "rasd:HostResource", i->host_resource);
    number(w, "rasd:InstanceID", w->next_id++);
    if (i->parent)
        text(w, "rasd:Parent", i->parent);
    if (i->subtype)
        text(w, "rasd:ResourceSubType", i->subtype);
    number(w, "rasd:ResourceType", i->type);
    if (i->quantity)
        number(w, "rasd:VirtualQuantity", i->quantity);
    end(w);
}

static void drives(struct writer *w, const struct ovf *o)
{
    char parent[32];

    (void)snprintf(parent, sizeof(parent), "%u", w->next_id);
    item(w, &(struct item){
                .address = "0", .name = "SATA controller", .subtype = "AHCI", .type = TYPE_SATA});
    for (size_t i = 0; i < o->disk_count; i++) {
        char name[32];
        char at[32];
        char resource[40];

        (void)snprintf(name, sizeof(name), "Disk %zu", i + 1);
        (void)snprintf(at, sizeof(at), "%zu", i);
        (void)snprintf(resource, sizeof(resource), "ovf:/disk/vmdisk%zu", i + 1);
        item(w, &(struct item){.address_on_parent = at,
                               .name = name,
                               .host_resource = resource,
                               .parent = parent,
                               .type = TYPE_DISK});
    }
}

static void hardware(struct writer *w, const struct ovf *o)
{
    begin(w, "VirtualHardwareSection");
    text(w, "Info", "Virtual hardware");
    begin(w, "System");
    text(w, "vssd:ElementName", "Virtual Hardware Family");
    text(w, "vssd:InstanceID", "0");
    text(w, "vssd:VirtualSystemIdentifier", o->name);
    text(w, "vssd:VirtualSystemType", "vmx-13 virtualbox-2.2");
    end(w);
    w->next_id = 1;
    item(w,
         &(struct item){
             .units = "hertz * 10^6", .name = "Processors", .type = TYPE_CPU, .quantity = o->cpus});
    item(w, &(struct item){.units = "byte * 2^20",
                           .name = "Memory",
                           .type = TYPE_MEMORY,
                           .quantity = o->memory_bytes >> 20});
    if (o->disk_count)
        drives(w, o);
    for (unsigned i = 0; i < o->cards; i++)
        item(w, &(struct item){.connection = "NAT",
                               .name = "Network card",
                               .subtype = "E1000",
                               .type = TYPE_ETHERNET});
    end(w);
}

static void machine(struct writer *w, const struct ovf *o)
{
    begin(w, "VirtualSystem");
    attribute(w, "ovf:id", o->name);
    text(w, "Info", "A virtual machine");
    text(w, "Name", o->name);
    begin(w, "OperatingSystemSection");
    number_attribute(w, "ovf:id", OS_OTHER_LINUX_64);
    text(w, "Info", "The guest operating system");
    text(w, "Description", "Linux");
    end(w);
    hardware(w, o);
    if (o->config) {
        begin(w, "posada:InstanceSection");
        attribute(w, "xmlns:posada", POSADA_NS);
        attribute(w, "ovf:required", "false");
        text(w, "Info", "The instance as Posada knows it");
        text(w, "posada:Configuration", o->config);
        end(w);
    }
    end(w);
}

static void envelope(struct writer *w, const struct ovf *o)
{
    w->failed |= xmlTextWriterSetIndent(w->xml, 1) < 0;
    w->failed |= xmlTextWriterStartDocument(w->xml, "1.0", "UTF-8", NULL) < 0;
    begin(w, "Envelope");
    attribute(w, "xmlns", OVF_NS);
    attribute(w, "xmlns:ovf", OVF_NS);
    attribute(w, "xmlns:rasd", RASD_NS);
    attribute(w, "xmlns:vssd", VSSD_NS);
    attribute(w, "xml:lang", "en-US");
    references(w, o);
    if (o->disk_count)
        disks(w, o);
    if (o->cards) {
        begin(w, "NetworkSection");
        text(w, "Info", "Networks");
        begin(w, "Network");
        attribute(w, "ovf:name", "NAT");
        text(w, "Description", "Address translation by the host");
        end(w);
        end(w);
    }
    machine(w, o);
    end(w);
    w->failed |= xmlTextWriterEndDocument(w->xml) < 0;
}

/** Characters that no XML 1.0 document can hold, or bytes that are not UTF-8. */
static bool is_xml_text(const char *s)
{
    if (!s)
        return true;
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < ' ' && *p != '\n' && *p != '\t')
            return false;
    }
    return xmlCheckUTF8(x(s));
}

int ovf_format(const struct ovf *o, char **ret, size_t *ret_size, struct error *err)
{
    if (!is_xml_text(o->name) || !is_xml_text(o->config))
        return error_set(err, EINVAL, "the name or configuration of '%s' cannot be written as XML",
                         o->name);
    xmlBufferPtr buffer = xmlBufferCreate();
    struct writer w = {.xml = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL};
    if (w.xml)
        envelope(&w, o);
    bool failed = !w.xml || w.failed;
    xmlFreeTextWriter(w.xml);
    char *copy = failed ? NULL : strdup((const char *)xmlBufferContent(buffer));
    if (copy)
        *ret_size = strlen(copy);
    xmlBufferFree(buffer);
    *ret = copy;
    return copy ? 0 : error_set(err, ENOMEM, "out of memory");
}
