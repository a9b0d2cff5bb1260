/* virtio entropy device. Spec: VIRTIO 1.2 §5.4.
 *
 * Threads: the device's lock, on its loop.
 */
#include "device/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define DEVICE_ID  4
#define QUEUE_SIZE 64
#define CHAIN_MAX  65536u /* bytes given to one request */
#define KICK_SHARE 64     /* requests per turn; then other devices of the loop get theirs */

/** Fill the writable part, up to CHAIN_MAX bytes. Returns how many. */
static size_t fill(const struct vq_chain *c)
{
    size_t done = 0;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count && done < CHAIN_MAX; i++) {
        size_t want = MIN(c->iov[i].iov_len, CHAIN_MAX - done);
        size_t at = 0;

        while (at < want) {
            ssize_t n = getrandom((char *)c->iov[i].iov_base + at, want - at, 0);

            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return done + at;
            at += (size_t)n;
        }
        done += want;
    }
    return done;
}

static void rng_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[index];
    struct vq_chain c;
    unsigned n = 0;

    vq_set_notify(q, false);
    while (n < KICK_SHARE && vq_pop(q, &c) > 0) {
        vq_push(q, &c, fill(&c));
        n++;
    }
    if (n)
        virtio_notify(dev, index);
    vq_set_notify(q, true);
    if (vq_has_work(q))
        virtio_kick_later(dev, index);
}

static void rng_free(struct virtio_device *dev)
{
    virtio_done(dev);
    free(dev);
}

static const struct virtio_ops rng_ops = {
    .name = "rng",
    .device_id = DEVICE_ID,
    .kick = rng_kick,
    .free = rng_free,
};

int virtio_rng_new(struct mem *mem, struct loop *loop, struct virtio_device **ret,
                   struct error *err)
{
    struct virtio_device *dev = calloc(1, sizeof(*dev));

    if (!dev)
        return error_set(err, ENOMEM, "out of memory");
    virtio_init(dev, &rng_ops, mem, loop, 0, 1, QUEUE_SIZE, 0);
    *ret = dev;
    return 0;
}
