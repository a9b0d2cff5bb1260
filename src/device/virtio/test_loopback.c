/* A device for tests of queues and transports. Threads: as any device, under its lock. */
#include "device/virtio/test_loopback.h"

#include <stdlib.h>
#include <string.h>

static bool loopback_features_ok(struct virtio_device *dev)
{
    return !((struct loopback *)dev)->refuse_features;
}

static void loopback_ready(struct virtio_device *dev)
{
    ((struct loopback *)dev)->readies++;
}

static void loopback_reset(struct virtio_device *dev)
{
    ((struct loopback *)dev)->resets++;
}

static void loopback_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct loopback *l = (struct loopback *)dev;
    struct vq *q = &dev->queues[index];
    struct vq_chain c;

    l->kicks++;
    do {
        vq_set_notify(q, false);
        while (vq_pop(q, &c) > 0) {
            char buf[256];
            size_t done = 0;

            for (size_t n; (n = vq_read(&c, done, buf, sizeof(buf))) > 0; done += n) {
                if (vq_write(&c, done, buf, n) < n) {
                    done = c.in_bytes;
                    break;
                }
            }
            l->requests++;
            vq_push(q, &c, done);
            virtio_notify(dev, index);
        }
        vq_set_notify(q, true);
    } while (vq_has_work(q));
}

static void loopback_config_read(struct virtio_device *dev, unsigned offset, void *buf,
                                 unsigned size)
{
    memcpy(buf, ((struct loopback *)dev)->config + offset, size);
}

static void loopback_config_write(struct virtio_device *dev, unsigned offset, const void *buf,
                                  unsigned size)
{
    memcpy(((struct loopback *)dev)->config + offset, buf, size);
}

static void loopback_free(struct virtio_device *dev)
{
    virtio_done(dev);
    free(dev);
}

static const struct virtio_ops loopback_ops = {
    .name = "loopback",
    .device_id = 63,
    .features_ok = loopback_features_ok,
    .ready = loopback_ready,
    .reset = loopback_reset,
    .kick = loopback_kick,
    .config_read = loopback_config_read,
    .config_write = loopback_config_write,
    .free = loopback_free,
};

struct loopback *loopback_new(struct mem *mem, struct loop *loop)
{
    struct loopback *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    virtio_init(&l->dev, &loopback_ops, mem, loop, 1, 2, 64, LOOPBACK_CONFIG_SIZE);
    return l;
}
