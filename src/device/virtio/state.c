/* Freezing virtio devices, and their saved state: what the driver has set, and how far the queues
 * have got. Spec: VIRTIO 1.2 §2, §3.
 *
 * Buffers that the device holds without having used them (held()) are saved as if they had not been
 * taken, so that no guest address need be kept elsewhere: they were the last ones taken, and the
 * driver cannot have reused their places in the available ring before they are given back.
 *
 * Threads: vCPUs stand still; the device's lock. */
#include "state/state.h"
#include "base/bits.h"
#include "device/virtio/transport.h"

#include <errno.h>

void virtio_freeze(struct virtio_device *dev)
{
    mutex_lock(&dev->lock);
    dev->frozen = true; /* no kick begins, no chain is taken */
    if (dev->ops->quiesce)
        dev->ops->quiesce(dev);
    mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < dev->queue_count; i++)
        loop_sync(dev->queues[i].loop); /* a kick that had let go of the lock has come to its end */
}

void virtio_thaw(struct virtio_device *dev)
{
    mutex_lock(&dev->lock);
    dev->frozen = false;
    for (unsigned i = 0; i < dev->queue_count; i++) {
        if (dev->queues[i].enabled)
            virtio_notify(dev, i); /* for what was given back while it was frozen */
    }
    mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < dev->queue_count; i++)
        virtio_queue_signal(dev, i);
}

/** What is saved of a device, in the form of a table. */
struct saved {
    uint64_t features;
    uint8_t status, generation;
    bool broken;
    uint32_t queue_count;
    uint16_t size[VIRTIO_MAX_QUEUES];
    bool enabled[VIRTIO_MAX_QUEUES];
    uint64_t desc[VIRTIO_MAX_QUEUES], avail[VIRTIO_MAX_QUEUES], used[VIRTIO_MAX_QUEUES];
    uint16_t next_avail[VIRTIO_MAX_QUEUES], next_used[VIRTIO_MAX_QUEUES];
    uint16_t signalled_used[VIRTIO_MAX_QUEUES];
    bool signalled_valid[VIRTIO_MAX_QUEUES];
    uint16_t msix_vector[VIRTIO_MAX_QUEUES];
};

static const struct state_field saved_fields[] = {
    STATE_FIELD(struct saved, features),       STATE_FIELD(struct saved, status),
    STATE_FIELD(struct saved, generation),     STATE_FIELD(struct saved, broken),
    STATE_FIELD(struct saved, queue_count),    STATE_ARRAY(struct saved, size),
    STATE_ARRAY(struct saved, enabled),        STATE_ARRAY(struct saved, desc),
    STATE_ARRAY(struct saved, avail),          STATE_ARRAY(struct saved, used),
    STATE_ARRAY(struct saved, next_avail),     STATE_ARRAY(struct saved, next_used),
    STATE_ARRAY(struct saved, signalled_used), STATE_ARRAY(struct saved, signalled_valid),
    STATE_ARRAY(struct saved, msix_vector),    {0},
};

static void save_queue(struct virtio_device *dev, unsigned i, struct saved *s) REQUIRES(dev->lock)
{
    const struct vq *q = &dev->queues[i];

    s->size[i] = q->size;
    s->enabled[i] = q->enabled;
    s->desc[i] = q->desc.v;
    s->avail[i] = q->avail.v;
    s->used[i] = q->used.v;
    s->next_avail[i] = (uint16_t)(q->next_avail - (dev->ops->held ? dev->ops->held(dev, i) : 0));
    s->next_used[i] = q->next_used;
    s->signalled_used[i] = q->signalled_used;
    s->signalled_valid[i] = q->signalled_valid;
    s->msix_vector[i] = q->msix_vector;
}

int virtio_save(struct virtio_transport *t, unsigned instance, struct state_out *out,
                struct error *err)
{
    struct virtio_device *dev = t->dev;
    int rc = 0;

    mutex_lock(&dev->lock);
    struct saved s = {
        .features = dev->features,
        .status = dev->status,
        .generation = dev->generation,
        .broken = dev->broken,
        .queue_count = dev->queue_count,
    };
    for (unsigned i = 0; i < dev->queue_count; i++)
        save_queue(dev, i, &s);
    state_begin(out, dev->ops->name, instance, 1);
    state_put(out, saved_fields, &s);
    if (t->ops->save)
        t->ops->save(t, out);
    if (dev->ops->save)
        rc = dev->ops->save(dev, out, err);
    state_end(out);
    mutex_unlock(&dev->lock);
    return rc;
}

static int load_queue(struct virtio_device *dev, unsigned i, const struct saved *s,
                      const struct state_section *section, struct error *err) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[i];

    q->size = s->size[i];
    q->desc = GPA(s->desc[i]);
    q->avail = GPA(s->avail[i]);
    q->used = GPA(s->used[i]);
    q->msix_vector = s->msix_vector[i];
    q->next_avail = s->next_avail[i];
    q->next_used = s->next_used[i];
    q->signalled_used = s->signalled_used[i];
    q->signalled_valid = s->signalled_valid[i];
    if (s->enabled[i] && !vq_check(q))
        return state_bad(section, err, "queue %u is not in RAM or has no possible size", i);
    q->enabled = s->enabled[i];
    return 0;
}

static int load_locked(struct virtio_device *dev, const struct saved *s,
                       const struct state_section *section, struct error *err) REQUIRES(dev->lock)
{
    int rc = 0;

    if (s->queue_count != dev->queue_count)
        return state_bad(section, err, "it has %u queues, and this device %u", s->queue_count,
                         dev->queue_count);
    if (s->features & ~dev->offered)
        return state_bad(section, err, "features 0x%llx are not offered",
                         (unsigned long long)(s->features & ~dev->offered));
    if (s->status & VIRTIO_DRIVER_OK && !(s->status & VIRTIO_FEATURES_OK))
        return state_bad(section, err, "status 0x%x cannot be", s->status);
    dev->features = s->features;
    dev->generation = s->generation;
    for (unsigned i = 0; i < dev->queue_count && !rc; i++)
        rc = load_queue(dev, i, s, section, err);
    dev->broken = s->broken;
    dev->status =
        (uint8_t)(s->broken ? s->status | VIRTIO_NEEDS_RESET : s->status & ~VIRTIO_NEEDS_RESET);
    return rc;
}

int virtio_load(struct virtio_transport *t, unsigned instance, const struct state_in *in,
                struct error *err)
{
    struct virtio_device *dev = t->dev;
    const struct state_section *section;
    struct saved s;
    int rc = state_find(in, dev->ops->name, instance, 1, &section, err);

    if (!rc)
        rc = state_get(section, saved_fields, &s, err);
    if (rc)
        return rc;
    mutex_lock(&dev->lock);
    if (dev->ops->reset)
        dev->ops->reset(dev);
    rc = load_locked(dev, &s, section, err);
    if (!rc && t->ops->load)
        rc = t->ops->load(t, section, err);
    if (!rc && dev->ops->load)
        rc = dev->ops->load(dev, section, err);
    if (!rc)
        rc = state_check_all_read(section, err);
    mutex_unlock(&dev->lock);
    return rc;
}
