/* Virtual machine generation ID.
 *
 * Two machines that go on from one saved state have the same random numbers, connections and keys
 * before them, until somebody tells them: guests reseed (Linux since 5.18) when this ID changes.
 * Spec: Microsoft's "Virtual Machine Generation ID" (the ID's meaning); Linux's device tree binding
 * microsoft,vmgenid (registers, interrupt).
 *
 * Threads: reads on any; changes while vCPUs stand still. */
#include "device/vmgenid/vmgenid.h"

#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct vmgenid {
    struct irq_line irq; /* [init] */
    uint8_t id[VMGENID_SIZE];
};

static enum bus_result read_id(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    const struct vmgenid *v = dev;
    uint8_t bytes[8] = {0};

    memcpy(bytes, v->id + offset, size);
    *ret = load_le64(bytes);
    return BUS_OK;
}

static enum bus_result ignore_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    return BUS_OK;
}

static const struct mmio_ops vmgenid_ops = {
    .name = "vmgenid", .read = read_id, .write = ignore_write};

static bool make_id(struct vmgenid *v)
{
    return getrandom(v->id, sizeof(v->id), 0) == sizeof(v->id);
}

int vmgenid_new(struct mem *mem, gpa_t base, struct irq_line irq, struct vmgenid **ret,
                struct error *err)
{
    struct vmgenid *v = calloc(1, sizeof(*v));

    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    v->irq = irq;
    int rc = make_id(v) ? 0 : error_set(err, EIO, "the host has no random numbers");
    if (!rc)
        rc = mem_add_mmio(mem, base, VMGENID_SIZE, &vmgenid_ops, v, err);
    if (rc) {
        vmgenid_free(v);
        return rc;
    }
    *ret = v;
    return 0;
}

void vmgenid_free(struct vmgenid *v)
{
    free(v);
}

void vmgenid_change(struct vmgenid *v)
{
    if (!make_id(v))
        v->id[0]++; /* cannot fail once it has worked; different is what matters */
    /* a pulse: the guest has nothing to answer with, and the controller remembers */
    irq_set(&v->irq, true);
    irq_set(&v->irq, false);
}
