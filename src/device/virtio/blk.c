/* virtio block device. Spec: VIRTIO 1.2 §5.2.
 *
 * Invariants:
 *  1. Each queue has a loop, and so a thread, of its own; a request is executed there without the
 *     device's lock and counted in `busy` meanwhile. Reset waits until none is.
 *  2. What may take long and holds no data (flush, discard, zeroes) goes to one more loop, so that
 *     reads and writes overtake it, as §5.2.6 allows; at most SLOW_MAX wait there.
 *  3. Data moves between guest RAM and the disk directly; headers are copied out once.
 *
 * Threads: see 1. Any number of requests may be at the disk at once, which locks itself.
 */
#include "device/virtio/blk.h"
#include "base/bits.h"
#include "base/iov.h"
#include "base/log.h"
#include "disk/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_ID   2
#define QUEUE_SIZE  256
#define SECTOR      512u
#define HEADER_SIZE 16
#define SEG_MAX     (QUEUE_SIZE - 2) /* header and status go with the data, §5.2.4 */

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

/** §5.2.6: request types and status. */
enum {
    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13,
};
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

/** Ranges of discard and write-zeroes requests. A range of zeroes may have to be written out, and a
 * reset waits for it: not too large. */
#define RANGE_SIZE          16
#define RANGES_MAX          16
#define DISCARD_SECTORS_MAX (1u << 22)
#define ZEROES_SECTORS_MAX  (1u << 16)
#define RANGE_UNMAP         1u

#define SLOW_MAX 64

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
    CONFIG_SIZE = 60,
};

struct virtio_blk {
    struct virtio_device dev;                  /* must be first */
    struct disk *disk;                         /* [init] */
    struct loop *loops[VIRTIO_BLK_MAX_QUEUES]; /* [init] */
    struct loop *slow;                         /* [init] */
    char serial[VIRTIO_BLK_SERIAL_MAX];        /* [init] zero-padded */
    uint8_t config[CONFIG_SIZE];               /* [init] */
    unsigned busy;                             /* [device lock] requests at the disk */
    unsigned slow_count;                       /* [device lock] of these, on the slow loop */
    struct cond idle;                          /* busy has become 0 */
};

/** One request, while it is executed. */
struct request {
    uint32_t type;
    uint64_t offset;               /* bytes; valid if !bad_offset */
    bool bad_offset;               /* beyond 2^64 */
    bool write_through;            /* the driver does not flush by itself */
    unsigned data_count;           /* entries of data */
    struct iovec data[VQ_MAX_IOV]; /* without header and status */
    size_t data_bytes;
    uint8_t *status;
    struct vq_chain chain;
};

static struct virtio_blk *blk_of(struct virtio_device *dev)
{
    return (struct virtio_blk *)dev;
}

/** Take the chain apart; -EPROTO when header or status have no room. */
static int parse(struct virtio_device *dev, struct request *r) REQUIRES(dev->lock)
{
    struct vq_chain *c = &r->chain;
    uint8_t header[HEADER_SIZE];

    if (vq_read(c, 0, header, sizeof(header)) < sizeof(header) || !c->in_bytes)
        return virtio_break(dev, "a request of %zu and %zu bytes", c->out_bytes, c->in_bytes);
    r->type = load_le32(header);
    uint64_t sector = load_le64(header + 8);
    r->bad_offset = !checked_mul(sector, (uint64_t)SECTOR, &r->offset);
    r->write_through = !virtio_has(dev, F_FLUSH);
    const struct iovec *last = &c->iov[c->out_count + c->in_count - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    if (r->type == T_IN || r->type == T_GET_ID) {
        r->data_bytes = c->in_bytes - 1;
        r->data_count = iov_slice(r->data, c->iov + c->out_count, c->in_count, 0, r->data_bytes);
    } else {
        r->data_bytes = c->out_bytes - HEADER_SIZE;
        r->data_count = iov_slice(r->data, c->iov, c->out_count, HEADER_SIZE, r->data_bytes);
    }
    return 0;
}

static uint8_t get_id(const struct virtio_blk *b, struct request *r)
{
    size_t done = 0;

    for (unsigned i = 0; i < r->data_count && done < sizeof(b->serial); i++) {
        size_t n = MIN(r->data[i].iov_len, sizeof(b->serial) - done);

        memcpy(r->data[i].iov_base, b->serial + done, n);
        done += n;
    }
    return S_OK;
}

/** One range of a discard or write-zeroes request. */
static uint8_t handle_range(const struct virtio_blk *b, uint32_t type, const uint8_t *range)
{
    uint64_t sector = load_le64(range);
    uint64_t size = (uint64_t)load_le32(range + 8) * SECTOR;
    uint32_t flags = load_le32(range + 12);
    uint32_t max = type == T_DISCARD ? DISCARD_SECTORS_MAX : ZEROES_SECTORS_MAX;
    uint64_t offset;

    if (flags & ~RANGE_UNMAP || (type == T_DISCARD && flags))
        return S_UNSUPP; /* §5.2.6.2 */
    if (!checked_mul(sector, (uint64_t)SECTOR, &offset) || size > (uint64_t)max * SECTOR)
        return S_IOERR;
    int rc = type == T_DISCARD ? disk_discard(b->disk, offset, size)
                               : disk_write_zeroes(b->disk, offset, size, flags & RANGE_UNMAP);
    return rc ? S_IOERR : S_OK;
}

static uint8_t handle_ranges(const struct virtio_blk *b, struct request *r)
{
    uint8_t ranges[RANGES_MAX * RANGE_SIZE];
    uint8_t status = S_OK;

    if (!r->data_bytes || r->data_bytes % RANGE_SIZE || r->data_bytes > sizeof(ranges))
        return S_IOERR;
    size_t size = vq_read(&r->chain, HEADER_SIZE, ranges, r->data_bytes);
    for (size_t at = 0; at < size && status == S_OK; at += RANGE_SIZE)
        status = handle_range(b, r->type, ranges + at);
    if (status == S_OK && r->write_through && disk_flush(b->disk))
        status = S_IOERR;
    return status;
}

static uint8_t transfer(const struct virtio_blk *b, struct request *r)
{
    int rc = -EINVAL;

    if (r->bad_offset || r->data_bytes % SECTOR)
        return S_IOERR;
    if (r->type == T_IN) {
        rc = disk_preadv(b->disk, r->data, (int)r->data_count, r->offset);
        for (unsigned i = 0; rc && i < r->data_count; i++)
            memset(r->data[i].iov_base, 0, r->data[i].iov_len); /* the used length says written */
    } else {
        rc = disk_pwritev(b->disk, r->data, (int)r->data_count, r->offset);
        if (!rc && r->write_through)
            rc = disk_flush(b->disk);
    }
    return rc ? S_IOERR : S_OK;
}

/** Without the lock. */
static uint8_t execute(const struct virtio_blk *b, struct request *r)
{
    switch (r->type) {
    case T_IN:
    case T_OUT:
        return transfer(b, r);
    case T_FLUSH:
        return disk_flush(b->disk) ? S_IOERR : S_OK;
    case T_GET_ID:
        return get_id(b, r);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return handle_ranges(b, r);
    default:
        return S_UNSUPP;
    }
}

/** Answer @r with @status. */
static void finish(struct virtio_device *dev, unsigned index, struct request *r, uint8_t status)
    REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    *r->status = status;
    if (--b->busy == 0)
        cond_broadcast(&b->idle);
    vq_push(&dev->queues[index], &r->chain, r->chain.in_bytes);
    virtio_notify(dev, index);
}

/** A request on the slow loop. */
struct slow_request {
    struct virtio_device *dev;
    unsigned index;
    struct request r;
};

static void run_slow(void *arg)
{
    struct slow_request *s = arg;
    struct virtio_device *dev = s->dev;
    uint8_t status = execute(blk_of(dev), &s->r);

    mutex_lock(&dev->lock);
    blk_of(dev)->slow_count--;
    finish(dev, s->index, &s->r, status);
    mutex_unlock(&dev->lock);
    free(s);
}

/** Give @r to the slow loop. False: it is to be done here. */
static bool start_slow(struct virtio_device *dev, unsigned index, const struct request *r)
    REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);
    bool is_slow = r->type == T_FLUSH || r->type == T_DISCARD || r->type == T_WRITE_ZEROES;

    if (!is_slow || b->slow_count == SLOW_MAX)
        return false;
    struct slow_request *s = malloc(sizeof(*s));
    if (!s)
        return false;
    *s = (struct slow_request){.dev = dev, .index = index, .r = *r};
    if (loop_post(b->slow, run_slow, s)) {
        free(s);
        return false;
    }
    b->slow_count++;
    return true;
}

static void blk_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);
    struct vq *q = &dev->queues[index];
    struct request r;

    do {
        vq_set_notify(q, false);
        while (vq_pop(q, &r.chain) > 0) {
            if (parse(dev, &r))
                return;
            b->busy++;
            if (start_slow(dev, index, &r))
                continue;
            mutex_unlock(&dev->lock);
            uint8_t status = execute(b, &r);
            mutex_lock(&dev->lock);
            finish(dev, index, &r, status);
        }
        vq_set_notify(q, true);
    } while (vq_has_work(q));
}

static void blk_reset(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct virtio_blk *b = blk_of(dev);

    while (b->busy)
        cond_wait(&b->idle, &dev->lock);
}

static void blk_config_read(struct virtio_device *dev, unsigned offset, void *buf, unsigned size)
{
    memcpy(buf, blk_of(dev)->config + offset, size);
}

static void free_loops(struct virtio_blk *b)
{
    loop_free(b->slow);
    for (unsigned i = 0; i < VIRTIO_BLK_MAX_QUEUES; i++)
        loop_free(b->loops[i]);
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
    free(b);
}

static const struct virtio_ops blk_ops = {
    .name = "blk",
    .device_id = DEVICE_ID,
    .reset = blk_reset,
    .quiesce = blk_reset,
    .kick = blk_kick,
    .config_read = blk_config_read,
    .free = blk_free,
};

static void fill_config(struct virtio_blk *b, unsigned queues)
{
    uint8_t *c = b->config;

    store_le64(c + CONFIG_CAPACITY, b->disk->size_bytes / SECTOR);
    store_le32(c + CONFIG_SEG_MAX, SEG_MAX);
    store_le32(c + CONFIG_BLK_SIZE, SECTOR);
    c[CONFIG_PHYSICAL_EXP] = 3; /* 4 KiB: the host's pages */
    store_le16(c + CONFIG_MIN_IO, 8);
    store_le16(c + CONFIG_NUM_QUEUES, (uint16_t)queues);
    store_le32(c + CONFIG_DISCARD_SECTORS, DISCARD_SECTORS_MAX);
    store_le32(c + CONFIG_DISCARD_SEG, RANGES_MAX);
    store_le32(c + CONFIG_DISCARD_ALIGN, 8);
    store_le32(c + CONFIG_ZEROES_SECTORS, ZEROES_SECTORS_MAX);
    store_le32(c + CONFIG_ZEROES_SEG, RANGES_MAX);
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
    int rc = start_loop("blk-slow", &b->slow, err);

    for (unsigned i = 0; i < queues && !rc; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "blk-%u", i);
        rc = start_loop(name, &b->loops[i], err);
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
    virtio_init(&b->dev, &blk_ops, mem, b->loops[0], features, config->queues, QUEUE_SIZE,
                CONFIG_SIZE);
    for (unsigned i = 0; i < config->queues; i++)
        b->dev.queues[i].loop = b->loops[i];
    b->disk = disk;
    cond_init(&b->idle);
    if (config->serial)
        memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    fill_config(b, config->queues);
    *ret = &b->dev;
    return 0;
}
