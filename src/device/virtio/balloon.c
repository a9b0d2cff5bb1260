/* virtio memory balloon. Spec: VIRTIO 1.2 §5.5.
 *
 * Pages that the guest gives up go back to the host at once, and come back, zeroed, when they are
 * next touched: so deflating needs no work, and a guest may deflate when it is out of memory.
 *
 * Threads: the device's lock; kicks on the device's loop.
 */
#include "device/virtio/balloon.h"
#include "base/bits.h"
#include "base/log.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_ID  5
#define QUEUE_SIZE 128
#define KICK_SHARE 32  /* requests per turn; then other devices of the loop get theirs */
#define PFN_BATCH  256 /* page numbers copied in at a time */

/** §5.5.3 */
enum { F_STATS_VQ = 1, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };

/** §5.5.2. The reporting queue is the fourth of those that exist (so Linux counts) or number 4 (so
 * the specification does): there is no free page hinting, so both are it. */
enum { INFLATE = 0, DEFLATE = 1, STATS = 2, REPORTING = 3, REPORTING_BY_NUMBER = 4, QUEUES = 5 };

/** §5.5.4 */
enum { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_SIZE = 8 };

/** §5.5.6.3: entries of a statistics buffer. */
#define STAT_SIZE 10
#define STATS_MAX 32

struct virtio_balloon {
    struct virtio_device dev;          /* must be first */
    uint8_t config[CONFIG_SIZE];       /* [lock] */
    struct virtio_balloon_stats stats; /* [lock] */
    bool stats_held;                   /* [lock] stats_chain is the driver's buffer: giving it
                                          back asks for new numbers */
    struct vq_chain stats_chain;       /* [lock] */
};

static struct virtio_balloon *balloon_of(struct virtio_device *dev)
{
    return (struct virtio_balloon *)dev;
}

static void discard(struct virtio_device *dev, gpa_t gpa, uint64_t size)
{
    if (mem_discard(dev->mem, gpa, size))
        guest_error("balloon", "gives up 0x%llx bytes at 0x%llx, which are not all RAM",
                    (unsigned long long)size, (unsigned long long)gpa.v);
}

/** Pages [first, first+count), whose order the driver chose, are given up. */
struct run {
    uint64_t first, count;
};

static void end_run(struct virtio_device *dev, const struct run *r)
{
    if (r->count)
        discard(dev, GPA(r->first * MEM_PAGE_SIZE), r->count * MEM_PAGE_SIZE);
}

/** The chain holds 32-bit page numbers (§5.5.6.1); neighbours are given back in one go. */
static void inflate(struct virtio_device *dev, const struct vq_chain *c)
{
    uint8_t pfns[PFN_BATCH * 4];
    struct run run = {0};
    size_t offset = 0;
    size_t size;

    while ((size = vq_read(c, offset, pfns, sizeof(pfns))) >= 4) {
        for (size_t at = 0; at + 4 <= size; at += 4) {
            uint64_t pfn = load_le32(pfns + at);

            if (run.count && pfn == run.first + run.count) {
                run.count++;
            } else if (run.count && pfn + 1 == run.first) {
                run.first--;
                run.count++;
            } else {
                end_run(dev, &run);
                run = (struct run){pfn, 1};
            }
        }
        offset += size;
    }
    end_run(dev, &run);
}

/** Free page reporting: the buffers themselves are the pages (§5.5.6.7). */
static void report(struct virtio_device *dev, const struct vq_chain *c)
{
    for (unsigned i = c->out_count; i < c->out_count + c->in_count; i++)
        discard(dev, c->gpa[i], c->iov[i].iov_len);
}

static void take_stats(struct virtio_balloon *b, const struct vq_chain *c)
{
    uint64_t *const fields[] = {
        &b->stats.swap_in, &b->stats.swap_out, &b->stats.major_faults, &b->stats.minor_faults,
        &b->stats.free,    &b->stats.total,    &b->stats.available,    &b->stats.caches,
    };
    uint8_t raw[STATS_MAX * STAT_SIZE];
    size_t size = vq_read(c, 0, raw, sizeof(raw));

    for (size_t at = 0; at + STAT_SIZE <= size; at += STAT_SIZE) {
        uint16_t tag = load_le16(raw + at);

        if (tag < ARRAY_SIZE(fields))
            *fields[tag] = load_le64(raw + at + 2);
    }
}

/** The driver's statistics buffer is kept until new ones are wanted. */
static void kick_stats(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct virtio_balloon *b = balloon_of(dev);
    struct vq *q = &dev->queues[STATS];

    for (unsigned n = 0; n < KICK_SHARE && vq_pop(q, &b->stats_chain) > 0; n++) {
        b->stats_held = true;
        take_stats(b, &b->stats_chain);
        if (!vq_has_work(q))
            return;
        vq_push(q, &b->stats_chain, 0); /* only one is kept */
        b->stats_held = false;
    }
    if (vq_has_work(q))
        virtio_kick_later(dev, STATS);
}

static void balloon_kick(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock)
{
    struct vq *q = &dev->queues[index];
    struct vq_chain c;
    unsigned n = 0;

    if (index == STATS && virtio_has(dev, F_STATS_VQ)) {
        kick_stats(dev);
        return;
    }
    vq_set_notify(q, false);
    for (; n < KICK_SHARE && vq_pop(q, &c) > 0; n++) {
        if (index == INFLATE)
            inflate(dev, &c);
        else if (index != DEFLATE && virtio_has(dev, F_REPORTING))
            report(dev, &c);
        vq_push(q, &c, 0);
    }
    if (n)
        virtio_notify(dev, index);
    vq_set_notify(q, true);
    if (vq_has_work(q))
        virtio_kick_later(dev, index);
}

static void balloon_reset(struct virtio_device *dev)
{
    struct virtio_balloon *b = balloon_of(dev);

    b->stats_held = false;
    store_le32(b->config + CONFIG_ACTUAL, 0);
    memset(&b->stats, 0xff, sizeof(b->stats));
}

static void balloon_config_read(struct virtio_device *dev, unsigned offset, void *buf,
                                unsigned size)
{
    memcpy(buf, balloon_of(dev)->config + offset, size);
}

/** Only `actual` is the driver's to write. */
static void balloon_config_write(struct virtio_device *dev, unsigned offset, const void *buf,
                                 unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        if (offset + i >= CONFIG_ACTUAL)
            balloon_of(dev)->config[offset + i] = ((const uint8_t *)buf)[i];
    }
}

static unsigned balloon_held(struct virtio_device *dev, unsigned index)
{
    return index == STATS && balloon_of(dev)->stats_held;
}

static const struct state_field balloon_fields[] = {
    STATE_ARRAY(struct virtio_balloon, config),
    {0},
};

static int balloon_save(struct virtio_device *dev, struct state_out *out, struct error *err)
{
    state_put(out, balloon_fields, balloon_of(dev));
    return 0;
}

static int balloon_load(struct virtio_device *dev, const struct state_section *s, struct error *err)
{
    return state_get(s, balloon_fields, balloon_of(dev), err);
}

static void balloon_free(struct virtio_device *dev)
{
    virtio_done(dev);
    free(balloon_of(dev));
}

static const struct virtio_ops balloon_ops = {
    .name = "balloon",
    .device_id = DEVICE_ID,
    .reset = balloon_reset,
    .kick = balloon_kick,
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .held = balloon_held,
    .save = balloon_save,
    .load = balloon_load,
    .free = balloon_free,
};

int virtio_balloon_new(struct mem *mem, struct loop *loop, struct virtio_device **ret,
                       struct error *err)
{
    struct virtio_balloon *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    virtio_init(&b->dev, &balloon_ops, mem, loop,
                BIT(F_STATS_VQ) | BIT(F_DEFLATE_ON_OOM) | BIT(F_REPORTING), QUEUES, QUEUE_SIZE,
                CONFIG_SIZE);
    memset(&b->stats, 0xff, sizeof(b->stats));
    *ret = &b->dev;
    return 0;
}

void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes)
{
    bytes = MIN(bytes, mem_ram_bytes(dev->mem));
    mutex_lock(&dev->lock);
    store_le32(balloon_of(dev)->config + CONFIG_NUM_PAGES,
               (uint32_t)MIN(bytes / MEM_PAGE_SIZE, (uint64_t)UINT32_MAX));
    virtio_config_changed(dev);
    mutex_unlock(&dev->lock);
}

uint64_t virtio_balloon_actual(struct virtio_device *dev)
{
    mutex_lock(&dev->lock);
    uint64_t pages = load_le32(balloon_of(dev)->config + CONFIG_ACTUAL);
    mutex_unlock(&dev->lock);
    return pages * MEM_PAGE_SIZE;
}

void virtio_balloon_get_stats(struct virtio_device *dev, struct virtio_balloon_stats *ret)
{
    struct virtio_balloon *b = balloon_of(dev);

    mutex_lock(&dev->lock);
    *ret = b->stats;
    if (b->stats_held) {
        b->stats_held = false;
        vq_push(&dev->queues[STATS], &b->stats_chain, 0);
        virtio_notify(dev, STATS);
    }
    mutex_unlock(&dev->lock);
}
