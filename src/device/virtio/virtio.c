/* The part common to all virtio devices: features, status, queues, signals. Spec: VIRTIO 1.2 §2,
 * §3.
 *
 * Invariants:
 *  1. Features change only before FEATURES_OK; queues are enabled only between FEATURES_OK and
 *     DRIVER_OK; kick runs only after it.
 *  2. A broken device has NEEDS_RESET in its status until reset, and no queue gives anything.
 *  3. While `resetting`, the driver sees the old status and can change nothing.
 *
 * Threads: status and configuration come on vCPU threads, kicks on the queues' loops; all hold the
 * device's lock. A signal takes no lock: it sets `kicked` and writes to the queue's eventfd.
 */
#include "device/virtio/virtio.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "device/virtio/trace_virtio.h"
#include "device/virtio/transport.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

void virtio_init(struct virtio_device *dev, const struct virtio_ops *ops, struct mem *mem,
                 struct loop *loop, uint64_t offered, unsigned queue_count, uint16_t max_queue_size,
                 unsigned config_size)
{
    assert(queue_count <= VIRTIO_MAX_QUEUES);
    assert(is_pow2(max_queue_size) && max_queue_size <= VQ_MAX_SIZE);
    dev->ops = ops;
    dev->mem = mem;
    dev->loop = loop;
    dev->offered =
        offered | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC);
    dev->queue_count = queue_count;
    dev->config_size = config_size;
    mutex_init(&dev->lock);
    dev->features = 0;
    dev->status = 0;
    dev->broken = false;
    dev->frozen = false;
    dev->resetting = false;
    dev->generation = 0;
    dev->transport = NULL;
    for (unsigned i = 0; i < queue_count; i++) {
        struct vq *q = &dev->queues[i];

        *q = (struct vq){
            .dev = dev,
            .index = (uint16_t)i,
            .max_size = max_queue_size,
            .loop = loop,
            .kick_fd = -1,
        };
        vq_reset(q);
    }
}

void virtio_done(struct virtio_device *dev)
{
    virtio_detach(dev);
    mutex_done(&dev->lock);
}

static void kick_ready(struct loop_fd *w, uint32_t events)
{
    struct vq *q = w->arg;
    uint64_t count;

    (void)!read(q->kick_fd, &count, sizeof(count)); /* EAGAIN is fine: it only clears the level */
    virtio_queue_run(q->dev, q->index);
}

int virtio_attach(struct virtio_device *dev, struct virtio_transport *t, struct error *err)
{
    for (unsigned i = 0; i < dev->queue_count; i++) {
        struct vq *q = &dev->queues[i];

        vq_reset(q); /* the device type may have lowered max_size */
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int rc = fd < 0 ? -errno : 0;
        if (!rc) {
            q->kick_watch = (struct loop_fd){.fd = fd, .fn = kick_ready, .arg = q};
            q->kick_fd = fd;
            rc = loop_fd_add(q->loop, &q->kick_watch, EPOLLIN);
        }
        if (rc) {
            virtio_detach(dev);
            return error_set(err, -rc, "cannot watch a queue of virtio device '%s': %s",
                             dev->ops->name, strerror(-rc));
        }
    }
    t->dev = dev;
    dev->transport = t;
    return 0;
}

void virtio_detach(struct virtio_device *dev)
{
    mutex_lock(&dev->lock);
    dev->resetting = true; /* a kick under way ends, none begins */
    mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < dev->queue_count; i++) {
        struct vq *q = &dev->queues[i];

        if (q->kick_fd < 0)
            continue;
        loop_fd_remove(q->loop, &q->kick_watch);
        loop_sync(q->loop);
        fd_close(fd_take(&q->kick_fd));
    }
    dev->transport = NULL;
}

void virtio_queue_signal(struct virtio_device *dev, unsigned index)
{
    uint64_t one = 1;

    if (index >= dev->queue_count)
        return;
    struct vq *q = &dev->queues[index];
    /* Acquire-release: pairs with the exchange in virtio_queue_run(). If it has not happened yet,
     * the run it begins sees what the driver stored before this signal, so no wake-up is due. */
    if (!__atomic_exchange_n(&q->kicked, true, __ATOMIC_ACQ_REL) && q->kick_fd >= 0)
        (void)!write(q->kick_fd, &one, sizeof(one)); /* EAGAIN: at its maximum, so level is set */
}

void virtio_kick_later(struct virtio_device *dev, unsigned index)
{
    virtio_queue_signal(dev, index);
}

void virtio_queue_run(struct virtio_device *dev, unsigned index)
{
    struct vq *q = &dev->queues[index];

    (void)__atomic_exchange_n(&q->kicked, false, __ATOMIC_ACQ_REL); /* pairs with the signal's */
    mutex_lock(&dev->lock);
    if (q->enabled && virtio_is_live(dev))
        dev->ops->kick(dev, index);
    mutex_unlock(&dev->lock);
}

uint64_t virtio_offered(const struct virtio_device *dev)
{
    return dev->offered;
}

bool virtio_is_live(const struct virtio_device *dev)
{
    const struct virtio_transport *t = dev->transport;

    return (dev->status & VIRTIO_DRIVER_OK) && !dev->broken && !dev->resetting && !dev->frozen &&
           (!t || !t->ops->can_dma || t->ops->can_dma(t));
}

bool virtio_may_configure(const struct virtio_device *dev)
{
    return !dev->resetting && !dev->broken && !(dev->status & VIRTIO_DRIVER_OK);
}

void virtio_set_features(struct virtio_device *dev, uint64_t features)
{
    if (virtio_may_configure(dev) && !(dev->status & VIRTIO_FEATURES_OK))
        dev->features = features;
    else
        guest_error(dev->ops->name, "features written after FEATURES_OK");
}

/** §2.1.2, §3.1.1 step 5: is what the driver chose something we can do? */
static bool accept_features(struct virtio_device *dev)
{
    if (dev->features & ~dev->offered)
        guest_error(dev->ops->name, "driver accepts features 0x%llx that were not offered",
                    (unsigned long long)(dev->features & ~dev->offered));
    else if (!virtio_has(dev, VIRTIO_F_VERSION_1))
        guest_error(dev->ops->name, "driver does not accept VERSION_1");
    else
        return !dev->ops->features_ok || dev->ops->features_ok(dev);
    return false;
}

static void reset(struct virtio_device *dev) REQUIRES(dev->lock)
{
    dev->resetting = true;
    if (dev->ops->reset)
        dev->ops->reset(dev);
    for (unsigned i = 0; i < dev->queue_count; i++)
        vq_reset(&dev->queues[i]);
    dev->features = 0;
    dev->status = 0;
    dev->broken = false;
    dev->resetting = false;
}

void virtio_set_status(struct virtio_device *dev, uint8_t status)
{
    uint8_t was = dev->status;

    trace_virtio_status(dev->ops->name, status);
    if (dev->resetting)
        return; /* another vCPU's reset goes first */
    if (!status) {
        reset(dev);
        return;
    }
    /* §2.1.1: the driver only ever sets bits, one step after the other; NEEDS_RESET is ours. */
    uint8_t now = (uint8_t)((status | was) & ~VIRTIO_NEEDS_RESET) | (was & VIRTIO_NEEDS_RESET);
    if ((now & ~was & VIRTIO_FEATURES_OK) && !accept_features(dev))
        now &= (uint8_t)~VIRTIO_FEATURES_OK;
    if ((now & VIRTIO_DRIVER_OK) && !(now & VIRTIO_FEATURES_OK)) {
        guest_error(dev->ops->name, "DRIVER_OK without FEATURES_OK");
        now &= (uint8_t)~VIRTIO_DRIVER_OK;
    }
    dev->status = now;
    if (now & ~was & VIRTIO_FEATURES_OK)
        trace_virtio_features(dev->ops->name, dev->features);
    if ((now & ~was & VIRTIO_DRIVER_OK) && !dev->broken && dev->ops->ready)
        dev->ops->ready(dev);
}

void virtio_queue_enable(struct virtio_device *dev, unsigned index)
{
    if (index >= dev->queue_count || dev->queues[index].enabled)
        return;
    if (!virtio_may_configure(dev) || !(dev->status & VIRTIO_FEATURES_OK))
        guest_error(dev->ops->name, "queue %u enabled with device status 0x%x", index, dev->status);
    else
        vq_enable(&dev->queues[index]);
}

void virtio_config_read(struct virtio_device *dev, uint64_t offset, void *buf, unsigned size)
{
    memset(buf, 0, size);
    if (offset >= dev->config_size || !dev->ops->config_read)
        return;
    dev->ops->config_read(dev, (unsigned)offset, buf,
                          MIN(size, dev->config_size - (unsigned)offset));
}

void virtio_config_write(struct virtio_device *dev, uint64_t offset, const void *buf, unsigned size)
{
    if (dev->resetting || offset >= dev->config_size || !dev->ops->config_write)
        return;
    dev->ops->config_write(dev, (unsigned)offset, buf,
                           MIN(size, dev->config_size - (unsigned)offset));
}

void virtio_notify(struct virtio_device *dev, unsigned index)
{
    if (!virtio_is_live(dev) || !dev->transport || !vq_wants_interrupt(&dev->queues[index]))
        return;
    trace_virtio_interrupt(dev->ops->name, index);
    dev->transport->ops->queue_interrupt(dev->transport, index);
}

void virtio_config_changed(struct virtio_device *dev)
{
    dev->generation++;
    if ((dev->status & VIRTIO_DRIVER_OK) && !dev->resetting && dev->transport)
        dev->transport->ops->config_interrupt(dev->transport);
}

int virtio_break(struct virtio_device *dev, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    guest_error(dev->ops->name, "%s; the device needs a reset", text);
    trace_virtio_broken(dev->ops->name, text);
    if (!dev->broken) {
        dev->broken = true;
        dev->status |= VIRTIO_NEEDS_RESET;
        virtio_config_changed(dev); /* §2.1.2: notify if DRIVER_OK */
    }
    return -EPROTO;
}
