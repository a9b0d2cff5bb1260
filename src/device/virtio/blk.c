/* virtio block device. Spec: VIRTIO 1.2 §5.2. How requests reach the disk is blk_io.c.
 *
 * Invariants:
 *  1. Each queue has a loop, and so a thread, of its own, and a ring where the host has io_uring; a
 *     request is executed without the device's lock and counted in `busy` meanwhile. Reset waits
 *     until none is.
 *  2. A queue holds at most its size of requests, which bounds what is in flight.
 *  3. Headers are copied out once.
 *  4. A request for which the host has no room waits in `stalled`, and is `busy` all the while; a
 *     reset forgets it.
 *
 * Threads: the queues' loops, and the workers. Any number of requests may be at the disk at once,
 * which locks itself.
 */
#include "device/virtio/blk.h"
#include "base/bits.h"
#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/blk_internal.h"
#include "disk/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_ID 2
#define SEG_MAX   (BLK_QUEUE_SIZE - 2) /* header and status go with the data, §5.2.4 */

static_assert(SEG_MAX + 2 <= VQ_MAX_IOV, "a request of SEG_MAX buffers must fit into a chain");

/** §5.2.3 */
enum {
    F_SEG_MAX = 2,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14,
};

/** Configuration space (§5.2.4). */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_EXP = 24,
    CONFIG_MIN_IO = 26,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEG = 40,
    CONFIG_DISCARD_ALIGN = 44,
    CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEG = 52,
    CONFIG_ZEROES_UNMAP = 56,
};

static struct virtio_blk *blk_of(struct virtio_device *dev)
{
    return (struct virtio_blk *)dev;
}

/** Take the chain apart; -EPROTO when header or status have no room. */
static int parse(struct virtio_device *dev, struct blk_request *r) REQUIRES(dev->lock)
{
    struct vq_chain *c = &r->chain;
    uint8_t header[BLK_HEADER_SIZE];

    if (vq_read(c, 0, header, sizeof(header)) < sizeof(header) || !c->in_bytes)
        return virtio_break(dev, "a request of %zu and %zu bytes", c->out_bytes, c->in_bytes);
    r->type = load_le32(header);
    uint64_t sector = load_le64(header + 8);
    r->bad_offset = !checked_mul(sector, (uint64_t)BLK_SECTOR, &r->offset);
    r->write_through = !virtio_has(dev, F_FLUSH);
    const struct iovec *last = &c->iov[c->out_count + c->in_count - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    if (r->type == BLK_IN || r->type == BLK_GET_ID) {
        r->data_bytes = c->in_bytes - 1;
        r->data_count = iov_slice(r->data, c->iov + c->out_count, c->in_count, 0, r->data_bytes);
    } else {
        r->data_bytes = c->out_bytes - BLK_HEADER_SIZE;
        r->data_count = iov_slice(r->data, c->iov, c->out_count, BLK_HEADER_SIZE, r->data_bytes);
    }
    return 0;
}

/** A request to fill; NULL: out of memory. */
static struct blk_request *get_request(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);
    struct blk_request *r = b->unused;

    if (r)
        b->unused = r->next;
    else
        r = malloc(sizeof(*r));
    if (r)
        r->b = b;
    return r;
}

static void put_request(struct virtio_device *dev, struct blk_request *r) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    r->next = b->unused;
    b->unused = r;
}

/** Answer @r with @status. */
static void finish(struct virtio_device *dev, struct blk_request *r, uint8_t status)
    REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    *r->status = status;
    if (--b->busy == 0)
        cond_broadcast(&b->idle);
    vq_push(&dev->queues[r->index], &r->chain, r->chain.in_bytes);
    virtio_notify(dev, r->index);
    put_request(dev, r);
}

void blk_finish(struct blk_request *r, uint8_t status)
{
    struct virtio_device *dev = &r->b->dev;

    mutex_lock(&dev->lock);
    finish(dev, r, status);
    mutex_unlock(&dev->lock);
}

void blk_stall(struct blk_request *r, int code)
{
    struct virtio_blk *b = r->b;
    struct virtio_device *dev = &b->dev;

    mutex_lock(&dev->lock);
    bool tell = b->on_full && !b->is_full && !dev->resetting;
    if (b->on_full && !dev->resetting) {
        r->next = b->stalled;
        b->stalled = r;
        b->stalled_count++;
        b->is_full = true;
        cond_broadcast(&b->idle);
    } else {
        finish(dev, r, BLK_IOERR);
    }
    mutex_unlock(&dev->lock);
    if (tell)
        b->on_full(b->on_full_arg, code);
}

void virtio_blk_retry(struct virtio_device *dev)
{
    struct virtio_blk *b = blk_of(dev);

    mutex_lock(&dev->lock);
    struct blk_request *r = b->stalled;
    b->stalled = NULL;
    b->stalled_count = 0;
    b->is_full = false;
    mutex_unlock(&dev->lock);
    while (r) {
        struct blk_request *next = r->next;

        blk_again(r);
        r = next;
    }
}

/** Take the next request of queue @index into @r. False: there is none, or the device is broken. */
static bool take(struct virtio_device *dev, unsigned index, struct blk_request *r)
    REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[index];

    if (vq_pop(q, &r->chain) <= 0 || parse(dev, r))
        return false;
    r->index = index;
    r->alone = !r->b->busy && !vq_has_work(q);
    return true;
}

/** Begin all that is available. False: out of memory. */
static bool take_all(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct blk_request *r;

    while ((r = get_request(dev))) {
        if (!take(dev, index, r)) {
            put_request(dev, r);
            return true;
        }
        r->b->busy++;
        mutex_unlock(&dev->lock);
        int status = blk_start(r);
        mutex_lock(&dev->lock);
        if (status != BLK_LATER)
            finish(dev, r, (uint8_t)status);
    }
    return false;
}

static void blk_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[index];
    bool has_memory;

    do {
        vq_set_notify(q, false);
        has_memory = take_all(dev, index);
        vq_set_notify(q, true);
    } while (has_memory && vq_has_work(q));
    if (!has_memory)
        virtio_kick_later(dev, index);
    mutex_unlock(&dev->lock);
    blk_submit(blk_of(dev), index); /* all at once */
    mutex_lock(&dev->lock);
}

static void blk_reset(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    disk_hurry(b->disk, true); /* we wait for all that was begun */
    while (b->busy > b->stalled_count)
        cond_wait(&b->idle, &dev->lock);
    disk_hurry(b->disk, false);
    for (struct blk_request *r; (r = b->stalled);) { /* nobody waits for an answer any more */
        b->stalled = r->next;
        b->busy--;
        put_request(dev, r);
    }
    b->stalled_count = 0;
    b->is_full = false;
}

/** What waits for room stays: it is carried out later, at the disk that there is then. */
static void blk_quiesce(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    disk_hurry(b->disk, true);
    while (b->busy > b->stalled_count)
        cond_wait(&b->idle, &dev->lock);
    disk_hurry(b->disk, false);
}

static int blk_save(struct virtio_device *dev, struct state_out *out, struct error *err)
    REQUIRES(dev->lock)
{
    (void)out;
    return blk_of(dev)->stalled_count
               ? error_set(err, EBUSY,
                           "the host has had no room for what the guest wrote to a disk: make room "
                           "and resume it first")
               : 0;
}

static void blk_config_read(struct virtio_device *dev, unsigned offset, void *buf, unsigned size)
{
    memcpy(buf, blk_of(dev)->config + offset, size);
}

static void free_loops(struct virtio_blk *b)
{
    for (unsigned i = 0; i < VIRTIO_BLK_MAX_QUEUES; i++)
        uring_free(b->rings[i]);
    for (unsigned i = 0; i < VIRTIO_BLK_MAX_QUEUES; i++)
        loop_free(b->loops[i]);
    pool_free(b->workers);
}

static void blk_free(struct virtio_device *dev)
{
    struct virtio_blk *b = blk_of(dev);

    mutex_lock(&dev->lock);
    dev->resetting = true; /* nothing more is begun */
    blk_reset(dev);
    mutex_unlock(&dev->lock);
    virtio_done(dev);
    free_loops(b);
    disk_close(b->disk);
    cond_done(&b->idle);
    while (b->unused) {
        struct blk_request *r = b->unused;

        b->unused = r->next;
        free(r);
    }
    free(b);
}

static const struct virtio_ops blk_ops = {
    .name = "blk",
    .device_id = DEVICE_ID,
    .reset = blk_reset,
    .quiesce = blk_quiesce,
    .save = blk_save,
    .kick = blk_kick,
    .config_read = blk_config_read,
    .free = blk_free,
};

struct disk *virtio_blk_disk(struct virtio_device *dev)
{
    return blk_of(dev)->disk;
}

void virtio_blk_set_disk(struct virtio_device *dev, struct disk *disk)
{
    struct virtio_blk *b = blk_of(dev);

    mutex_lock(&dev->lock); /* so that the queues' threads see it with the thaw */
    assert(dev->frozen && b->busy == b->stalled_count && disk->size_bytes == b->disk->size_bytes);
    b->disk = disk;
    mutex_unlock(&dev->lock);
}

static void fill_config(struct virtio_blk *b, unsigned queues)
{
    uint8_t *c = b->config;

    store_le64(c + CONFIG_CAPACITY, b->disk->size_bytes / BLK_SECTOR);
    store_le32(c + CONFIG_SEG_MAX, SEG_MAX);
    store_le32(c + CONFIG_BLK_SIZE, BLK_SECTOR);
    c[CONFIG_PHYSICAL_EXP] = 3; /* 4 KiB: the host's pages */
    store_le16(c + CONFIG_MIN_IO, 8);
    store_le16(c + CONFIG_NUM_QUEUES, (uint16_t)queues);
    store_le32(c + CONFIG_DISCARD_SECTORS, BLK_DISCARD_SECTORS_MAX);
    store_le32(c + CONFIG_DISCARD_SEG, BLK_RANGES_MAX);
    store_le32(c + CONFIG_DISCARD_ALIGN, 8);
    store_le32(c + CONFIG_ZEROES_SECTORS, BLK_ZEROES_SECTORS_MAX);
    store_le32(c + CONFIG_ZEROES_SEG, BLK_RANGES_MAX);
    c[CONFIG_ZEROES_UNMAP] = 1;
}

static int start_loop(const char *name, struct loop **ret, struct error *err)
{
    *ret = loop_new(name);
    int rc = *ret ? loop_start(*ret) : -ENOMEM;

    return rc ? error_set(err, -rc, "cannot start a disk thread: %s", strerror(-rc)) : 0;
}

static int start_loops(struct virtio_blk *b, unsigned queues, struct error *err)
{
    int rc = 0;

    b->workers = pool_new("blk-worker", BLK_WORKERS);
    if (!b->workers)
        return error_set(err, ENOMEM, "cannot start a disk thread");
    for (unsigned i = 0; i < queues && !rc; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "blk-%u", i);
        rc = start_loop(name, &b->loops[i], err);
        if (!rc) /* without it everything goes to the workers */
            b->rings[i] = uring_new(b->loops[i], BLK_QUEUE_SIZE);
    }
    return rc;
}

int virtio_blk_new(struct mem *mem, const struct virtio_blk_config *config, struct disk *disk,
                   struct virtio_device **ret, struct error *err)
{
    uint64_t features = BIT(F_SEG_MAX) | BIT(F_BLK_SIZE) | BIT(F_FLUSH) | BIT(F_TOPOLOGY);
    struct virtio_blk *b = calloc(1, sizeof(*b));

    assert(config->queues >= 1 && config->queues <= VIRTIO_BLK_MAX_QUEUES);
    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    int rc = start_loops(b, config->queues, err);
    if (rc) {
        free_loops(b);
        free(b);
        return rc;
    }
    features |= disk->readonly ? BIT(F_RO) : BIT(F_DISCARD) | BIT(F_WRITE_ZEROES);
    features |= config->queues > 1 ? BIT(F_MQ) : 0;
    virtio_init(&b->dev, &blk_ops, mem, b->loops[0], features, config->queues, BLK_QUEUE_SIZE,
                BLK_CONFIG_SIZE);
    for (unsigned i = 0; i < config->queues; i++)
        b->dev.queues[i].loop = b->loops[i];
    b->disk = disk;
    b->on_full = config->on_full;
    b->on_full_arg = config->arg;
    cond_init(&b->idle);
    if (config->serial)
        memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    fill_config(b, config->queues);
    *ret = &b->dev;
    return 0;
}
