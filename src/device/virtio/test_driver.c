/* The driver's side of virtio, for tests and fuzzing. Spec: VIRTIO 1.2 §2.7, §3.1.
 *
 * Threads: one test thread; counters are atomic because the device interrupts from its loop.
 */
#include "device/virtio/test_driver.h"
#include "base/bits.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/** A broken expectation of the library itself: the test process ends here. */
static void check(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "test driver: %s\n", what);
    abort();
}

static void queue_interrupt(struct virtio_transport *t, unsigned index)
{
    struct test_driver *d = (struct test_driver *)t;

    __atomic_fetch_add(&d->queues[index].interrupts, 1, __ATOMIC_RELEASE); /* wait_count() */
}

static void config_interrupt(struct virtio_transport *t)
{
    struct test_driver *d = (struct test_driver *)t;

    __atomic_fetch_add(&d->config_interrupts, 1, __ATOMIC_RELEASE); /* wait_count() */
}

static bool can_dma(const struct virtio_transport *t)
{
    return !((const struct test_driver *)t)->no_dma;
}

static const struct virtio_transport_ops fake_ops = {
    .queue_interrupt = queue_interrupt,
    .config_interrupt = config_interrupt,
    .can_dma = can_dma,
};

static enum bus_result mmio_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    ((struct test_driver *)dev)->mmio_accesses++;
    *ret = 0;
    return BUS_OK;
}

static enum bus_result mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    ((struct test_driver *)dev)->mmio_accesses++;
    return BUS_OK;
}

static const struct mmio_ops test_mmio_ops = {
    .name = "test-mmio",
    .read = mmio_read,
    .write = mmio_write,
};

void test_driver_init(struct test_driver *d, bool threaded)
{
    void *ram;

    *d = (struct test_driver){.threaded = threaded, .transport.ops = &fake_ops};
    d->mem = mem_new();
    d->loop = loop_new("test-io");
    check(d->mem && d->loop, "no memory or loop");
    check(!mem_add_ram(d->mem, GPA(TEST_RAM), TEST_RAM_SIZE, 0, "ram", NULL, NULL, &ram, NULL),
          "no RAM");
    check(!mem_add_ram(d->mem, GPA(TEST_ROM), MEM_PAGE_SIZE, MEM_READONLY, "rom", NULL, NULL, NULL,
                       NULL),
          "no ROM");
    check(!mem_add_mmio(d->mem, GPA(TEST_MMIO), MEM_PAGE_SIZE, &test_mmio_ops, d, NULL), "no MMIO");
    mem_freeze(d->mem);
    d->ram = ram;
    if (threaded)
        check(!loop_start(d->loop), "no I/O thread");
}

void test_driver_done(struct test_driver *d)
{
    if (d->dev) {
        virtio_detach(d->dev);
        d->dev->ops->free(d->dev);
    }
    loop_free(d->loop);
    mem_free(d->mem);
}

void test_driver_attach(struct test_driver *d, struct virtio_device *dev)
{
    check(!virtio_attach(dev, &d->transport, NULL), "cannot attach");
    d->dev = dev;
}

void test_driver_set_status(struct test_driver *d, uint8_t status)
{
    mutex_lock(&d->dev->lock);
    virtio_set_status(d->dev, status);
    mutex_unlock(&d->dev->lock);
}

uint8_t test_driver_status(struct test_driver *d)
{
    mutex_lock(&d->dev->lock);
    uint8_t status = d->dev->status;
    mutex_unlock(&d->dev->lock);
    return status;
}

void test_driver_config_read(struct test_driver *d, unsigned offset, void *buf, unsigned size)
{
    mutex_lock(&d->dev->lock);
    virtio_config_read(d->dev, offset, buf, size);
    mutex_unlock(&d->dev->lock);
}

void test_driver_config_write(struct test_driver *d, unsigned offset, const void *buf,
                              unsigned size)
{
    mutex_lock(&d->dev->lock);
    virtio_config_write(d->dev, offset, buf, size);
    mutex_unlock(&d->dev->lock);
}

void test_driver_set_up_queue(struct test_driver *d, unsigned index, uint16_t size)
{
    struct test_queue *t = &d->queues[index];
    struct vq *q = &d->dev->queues[index];

    size = MIN(size, q->max_size);
    *t = (struct test_queue){
        .size = size,
        .desc = test_driver_alloc(d, 16u * size),
        .avail = test_driver_alloc(d, 6 + 2u * size),
        .used = test_driver_alloc(d, 6 + 8u * size),
    };
    mutex_lock(&d->dev->lock);
    q->size = size;
    q->desc = t->desc;
    q->avail = t->avail;
    q->used = t->used;
    virtio_queue_enable(d->dev, index);
    mutex_unlock(&d->dev->lock);
}

uint8_t test_driver_start(struct test_driver *d, struct virtio_device *dev, uint64_t features,
                          uint16_t queue_size)
{
    if (d->dev != dev)
        test_driver_attach(d, dev);
    test_driver_set_status(d, 0);
    test_driver_set_status(d, VIRTIO_ACKNOWLEDGE);
    test_driver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    mutex_lock(&dev->lock);
    virtio_set_features(dev, features | BIT(VIRTIO_F_VERSION_1));
    mutex_unlock(&dev->lock);
    test_driver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < dev->queue_count; i++)
        test_driver_set_up_queue(d, i, queue_size);
    test_driver_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK |
                                  VIRTIO_DRIVER_OK);
    return test_driver_status(d);
}

gpa_t test_driver_alloc(struct test_driver *d, size_t size)
{
    uint64_t at = align_up(d->brk, 64);

    check(at + size <= TEST_RAM_SIZE, "out of guest RAM");
    d->brk = at + size;
    memset(d->ram + at, 0, size);
    return GPA(TEST_RAM + at);
}

gpa_t test_driver_put(struct test_driver *d, const void *buf, size_t size)
{
    gpa_t gpa = test_driver_alloc(d, size);

    memcpy(test_driver_ptr(d, gpa), buf, size);
    return gpa;
}

void *test_driver_ptr(struct test_driver *d, gpa_t gpa)
{
    return d->ram + (gpa.v - TEST_RAM);
}

void test_driver_desc_at(struct test_driver *d, gpa_t table, uint16_t i, uint64_t addr,
                         uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t *p = (uint8_t *)test_driver_ptr(d, table) + 16u * i;

    store_le64(p, addr);
    store_le32(p + 8, len);
    store_le16(p + 12, flags);
    store_le16(p + 14, next);
}

void test_driver_desc(struct test_driver *d, unsigned index, uint16_t i, uint64_t addr,
                      uint32_t len, uint16_t flags, uint16_t next)
{
    test_driver_desc_at(d, d->queues[index].desc, i, addr, len, flags, next);
}

static uint16_t *ring16(struct test_driver *d, gpa_t ring, unsigned offset)
{
    return (uint16_t *)(void *)((char *)test_driver_ptr(d, ring) + offset);
}

void test_driver_publish(struct test_driver *d, unsigned index, uint16_t head)
{
    struct test_queue *t = &d->queues[index];

    *ring16(d, t->avail, 4 + 2u * (t->avail_idx & (t->size - 1u))) = htole16(head);
    t->avail_idx++;
    /* Release: the entry before the index; pairs with the load in vq.c:available(). */
    __atomic_store_n(ring16(d, t->avail, 2), htole16(t->avail_idx), __ATOMIC_RELEASE);
}

uint16_t test_driver_add(struct test_driver *d, unsigned index, const struct test_buf *bufs,
                         unsigned n)
{
    struct test_queue *t = &d->queues[index];
    uint16_t head = t->next_desc;

    for (unsigned i = 0; i < n; i++) {
        uint16_t at = t->next_desc;

        t->next_desc = (uint16_t)((at + 1u) % t->size);
        test_driver_desc(d, index, at, bufs[i].gpa.v, bufs[i].len,
                         (uint16_t)((bufs[i].write ? TEST_WRITE : 0) | (i + 1 < n ? TEST_NEXT : 0)),
                         t->next_desc);
    }
    test_driver_publish(d, index, head);
    return head;
}

uint16_t test_driver_add_indirect(struct test_driver *d, unsigned index,
                                  const struct test_buf *bufs, unsigned n)
{
    struct test_queue *t = &d->queues[index];
    uint16_t head = t->next_desc;
    gpa_t table = test_driver_alloc(d, 16u * n);

    for (unsigned i = 0; i < n; i++)
        test_driver_desc_at(
            d, table, (uint16_t)i, bufs[i].gpa.v, bufs[i].len,
            (uint16_t)((bufs[i].write ? TEST_WRITE : 0) | (i + 1 < n ? TEST_NEXT : 0)),
            (uint16_t)(i + 1));
    t->next_desc = (uint16_t)((head + 1u) % t->size);
    test_driver_desc(d, index, head, table.v, 16u * n, TEST_INDIRECT, 0);
    test_driver_publish(d, index, head);
    return head;
}

void test_driver_kick(struct test_driver *d, unsigned index)
{
    if (d->threaded)
        virtio_queue_signal(d->dev, index);
    else
        virtio_queue_run(d->dev, index);
}

bool test_driver_take(struct test_driver *d, unsigned index, struct test_used *ret)
{
    struct test_queue *t = &d->queues[index];
    /* Acquire: entries after the index; pairs with the store in vq_push(). */
    uint16_t idx = le16toh(__atomic_load_n(ring16(d, t->used, 2), __ATOMIC_ACQUIRE));

    if (idx == t->last_used)
        return false;
    const uint8_t *p =
        (uint8_t *)test_driver_ptr(d, t->used) + 4 + 8u * (t->last_used & (t->size - 1u));
    *ret = (struct test_used){.id = load_le32(p), .len = load_le32(p + 4)};
    t->last_used++;
    return true;
}

#define WAIT_NS 5000000000

bool test_driver_wait(struct test_driver *d, unsigned index, struct test_used *ret)
{
    int64_t end = host_now_ns() + WAIT_NS;

    while (!test_driver_take(d, index, ret)) {
        if (host_now_ns() > end)
            return false;
        (void)usleep(50);
    }
    return true;
}

bool test_driver_wait_status(struct test_driver *d, uint8_t bit)
{
    int64_t end = host_now_ns() + WAIT_NS;

    while (!(test_driver_status(d) & bit)) {
        if (host_now_ns() > end)
            return false;
        (void)usleep(50);
    }
    return true;
}

bool test_driver_wait_count(const unsigned *counter, unsigned count)
{
    int64_t end = host_now_ns() + WAIT_NS;

    /* Acquire: pairs with the interrupt functions above. */
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < count) {
        if (host_now_ns() > end)
            return false;
        (void)usleep(50);
    }
    return true;
}

uint32_t test_driver_request(struct test_driver *d, unsigned index, const struct test_buf *bufs,
                             unsigned n)
{
    struct test_used used;
    uint16_t head = test_driver_add(d, index, bufs, n);

    test_driver_kick(d, index);
    check(test_driver_wait(d, index, &used), "no answer to a request");
    check(used.id == head, "the answer is to another request");
    return used.len;
}

void test_driver_set_used_event(struct test_driver *d, unsigned index, uint16_t event)
{
    struct test_queue *t = &d->queues[index];

    __atomic_store_n(ring16(d, t->avail, 4 + 2u * t->size), htole16(event), __ATOMIC_SEQ_CST);
}

void test_driver_set_avail_flags(struct test_driver *d, unsigned index, uint16_t flags)
{
    __atomic_store_n(ring16(d, d->queues[index].avail, 0), htole16(flags), __ATOMIC_SEQ_CST);
}

uint16_t test_driver_avail_event(struct test_driver *d, unsigned index)
{
    struct test_queue *t = &d->queues[index];

    return le16toh(__atomic_load_n(ring16(d, t->used, 4 + 8u * t->size), __ATOMIC_SEQ_CST));
}

uint16_t test_driver_used_flags(struct test_driver *d, unsigned index)
{
    return le16toh(__atomic_load_n(ring16(d, d->queues[index].used, 0), __ATOMIC_SEQ_CST));
}
