/* The common configuration structure of virtio over PCI. Spec: VIRTIO 1.2 §4.1.4.3.
 *
 * Threads: vCPUs, under the device's lock.
 */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/pci_transport.h"

/** Offset and width of each field. */
#define COMMON_FIELDS(F)           \
    F(DEVICE_FEATURE_SELECT, 0, 4) \
    F(DEVICE_FEATURE, 4, 4)        \
    F(DRIVER_FEATURE_SELECT, 8, 4) \
    F(DRIVER_FEATURE, 12, 4)       \
    F(CONFIG_VECTOR, 16, 2)        \
    F(NUM_QUEUES, 18, 2)           \
    F(STATUS, 20, 1)               \
    F(GENERATION, 21, 1)           \
    F(QUEUE_SELECT, 22, 2)         \
    F(QUEUE_SIZE, 24, 2)           \
    F(QUEUE_VECTOR, 26, 2)         \
    F(QUEUE_ENABLE, 28, 2)         \
    F(QUEUE_NOTIFY_OFF, 30, 2)     \
    F(QUEUE_DESC, 32, 4)           \
    F(QUEUE_DESC_HIGH, 36, 4)      \
    F(QUEUE_AVAIL, 40, 4)          \
    F(QUEUE_AVAIL_HIGH, 44, 4)     \
    F(QUEUE_USED, 48, 4)           \
    F(QUEUE_USED_HIGH, 52, 4)

#define FIELD_ENUM(name, offset, width) name,
enum field { COMMON_FIELDS(FIELD_ENUM) FIELD_COUNT };
#define FIELD_ROW(name, offset, width) {offset, width},
static const struct {
    uint8_t offset, width;
} fields[FIELD_COUNT] = {COMMON_FIELDS(FIELD_ROW)};

/** The queue the driver has selected, or NULL if there is none of that number. */
static struct vq *selected(struct virtio_pci *p)
{
    struct virtio_device *dev = p->t.dev;

    return p->queue_select < dev->queue_count ? &dev->queues[p->queue_select] : NULL;
}

static uint32_t half(uint64_t v, bool high)
{
    return (uint32_t)(high ? v >> 32 : v);
}

static void set_half(gpa_t *gpa, bool high, uint32_t value)
{
    gpa->v = high ? (uint64_t)value << 32 | (uint32_t)gpa->v : (gpa->v & ~MASK(32)) | value;
}

static uint32_t read_queue(struct virtio_pci *p, enum field field)
{
    const struct vq *q = selected(p);

    if (!q)
        return field == QUEUE_VECTOR ? VQ_NO_VECTOR : 0; /* §4.1.4.3.1: size 0 = not there */
    if (field == QUEUE_SIZE)
        return q->size;
    if (field == QUEUE_VECTOR)
        return q->msix_vector;
    if (field == QUEUE_ENABLE)
        return q->enabled;
    if (field == QUEUE_NOTIFY_OFF)
        return q->index;
    if (field == QUEUE_DESC || field == QUEUE_DESC_HIGH)
        return half(q->desc.v, field == QUEUE_DESC_HIGH);
    if (field == QUEUE_AVAIL || field == QUEUE_AVAIL_HIGH)
        return half(q->avail.v, field == QUEUE_AVAIL_HIGH);
    return half(q->used.v, field == QUEUE_USED_HIGH);
}

static uint32_t read_common(struct virtio_pci *p, enum field field)
{
    struct virtio_device *dev = p->t.dev;

    switch (field) {
    case DEVICE_FEATURE_SELECT:
        return p->device_select;
    case DEVICE_FEATURE:
        return p->device_select < 2 ? half(virtio_offered(dev), p->device_select) : 0;
    case DRIVER_FEATURE_SELECT:
        return p->driver_select;
    case DRIVER_FEATURE:
        return p->driver_select < 2 ? half(dev->features, p->driver_select) : 0;
    case CONFIG_VECTOR:
        return p->config_vector;
    case NUM_QUEUES:
        return dev->queue_count;
    case STATUS:
        return dev->status;
    case GENERATION:
        return dev->generation;
    case QUEUE_SELECT:
        return p->queue_select;
    case QUEUE_SIZE:
    case QUEUE_VECTOR:
    case QUEUE_ENABLE:
    case QUEUE_NOTIFY_OFF:
    case QUEUE_DESC:
    case QUEUE_DESC_HIGH:
    case QUEUE_AVAIL:
    case QUEUE_AVAIL_HIGH:
    case QUEUE_USED:
    case QUEUE_USED_HIGH:
        return read_queue(p, field);
    case FIELD_COUNT:
        break;
    }
    return 0;
}

uint16_t virtio_pci_valid_vector(const struct virtio_pci *p, uint32_t vector)
{
    return vector < p->info.msix_vectors ? (uint16_t)vector : VQ_NO_VECTOR;
}

static void write_queue(struct virtio_pci *p, enum field field, uint32_t value)
    REQUIRES(p->t.dev->lock)
{
    struct vq *q = selected(p);

    if (!q)
        return;
    if (field == QUEUE_VECTOR) {
        q->msix_vector = virtio_pci_valid_vector(p, value);
    } else if (field == QUEUE_ENABLE) {
        if (value == 1) /* §4.1.4.3.2: the driver MUST NOT write 0 */
            virtio_queue_enable(p->t.dev, p->queue_select);
    } else if (q->enabled || !virtio_may_configure(p->t.dev)) {
        guest_error(p->t.dev->ops->name, "queue %u changed while enabled", q->index);
    } else if (field == QUEUE_SIZE) {
        q->size = (uint16_t)value;
    } else if (field == QUEUE_DESC || field == QUEUE_DESC_HIGH) {
        set_half(&q->desc, field == QUEUE_DESC_HIGH, value);
    } else if (field == QUEUE_AVAIL || field == QUEUE_AVAIL_HIGH) {
        set_half(&q->avail, field == QUEUE_AVAIL_HIGH, value);
    } else if (field == QUEUE_USED || field == QUEUE_USED_HIGH) {
        set_half(&q->used, field == QUEUE_USED_HIGH, value);
    }
}

void virtio_pci_forget(struct virtio_pci *p)
{
    p->device_select = p->driver_select = 0;
    p->queue_select = 0;
    p->config_vector = VQ_NO_VECTOR;
}

void virtio_pci_set_status(struct virtio_pci *p, uint8_t status)
{
    virtio_set_status(p->t.dev, status);
    if (!p->t.dev->status) {
        virtio_pci_forget(p);
        (void)virtio_pci_take_isr(p); /* only to clear it */
    }
    virtio_pci_ring(p);
}

static void write_common(struct virtio_pci *p, enum field field, uint32_t value)
    REQUIRES(p->t.dev->lock)
{
    if (field == FIELD_COUNT) {
        return;
    } else if (field == DEVICE_FEATURE_SELECT) {
        p->device_select = value;
    } else if (field == DRIVER_FEATURE_SELECT) {
        p->driver_select = value;
    } else if (field == DRIVER_FEATURE) {
        gpa_t features = GPA(p->t.dev->features);

        if (p->driver_select >= 2)
            return;
        set_half(&features, p->driver_select, value);
        virtio_set_features(p->t.dev, features.v);
    } else if (field == CONFIG_VECTOR) {
        p->config_vector = virtio_pci_valid_vector(p, value);
    } else if (field == STATUS) {
        virtio_pci_set_status(p, (uint8_t)value);
    } else if (field == QUEUE_SELECT) {
        p->queue_select = (uint16_t)value;
    } else if (field >= QUEUE_SIZE) {
        write_queue(p, field, value);
    }
}

/** §4.1.3.1: a driver accesses a field by its own width, and 64-bit fields by halves. */
static enum field find_field(const struct virtio_pci *p, uint64_t offset, unsigned size)
{
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        if (fields[i].offset == offset && fields[i].width == size)
            return i;
    }
    guest_error(p->t.dev->ops->name, "access of %u bytes at 0x%llx of the common configuration",
                size, (unsigned long long)offset);
    return FIELD_COUNT;
}

uint32_t virtio_pci_common_read(struct virtio_pci *p, uint64_t offset, unsigned size)
{
    return read_common(p, find_field(p, offset, size));
}

void virtio_pci_common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint32_t value)
{
    write_common(p, find_field(p, offset, size), value);
}
