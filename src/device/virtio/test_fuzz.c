/* A hostile driver whose script is a fuzzer's input. One thread, but for loops of the device's own.
 *
 * Each operation is a byte and its arguments; what is missing at the end reads as zero. */
#include "device/virtio/test_fuzz.h"
#include "base/bits.h"

#include <stdio.h>
#include <stdlib.h>

#define QUEUE_SIZE 16
#define DATA_BASE  (8u << 20) /* in RAM: buffers lie from here on */
#define DATA_SIZE  (1u << 20)
#define CHAIN_MAX  12
#define OPS_MAX    400

enum op { FILL, CHAIN, KICK, RING, CONFIG, STATUS, RESTART, QUEUE_SETUP, HOST, OP_COUNT };

struct script {
    const uint8_t *p;
    size_t left;
    uint64_t data_brk; /* next buffer, relative to DATA_BASE */
    struct test_driver d;
    const struct test_fuzz *fuzz;
};

static uint64_t take(struct script *s, unsigned bytes)
{
    uint8_t raw[8] = {0};
    size_t n = MIN((size_t)bytes, s->left);

    memcpy(raw, s->p, n);
    s->p += n;
    s->left -= n;
    return load_le64(raw);
}

static gpa_t buffer(struct script *s, size_t size)
{
    size = align_up(size, 16);
    if (s->data_brk + size > DATA_SIZE)
        s->data_brk = 0;
    gpa_t gpa = GPA(TEST_RAM + DATA_BASE + s->data_brk);
    s->data_brk += size;
    return gpa;
}

/** An address that is none of a good driver's. */
static gpa_t wild(struct script *s)
{
    uint64_t offset = take(s, 2);

    switch (take(s, 1) % 6) {
    case 0:
        return GPA(TEST_RAM + offset); /* rings and all */
    case 1:
        return GPA(TEST_RAM + TEST_RAM_SIZE - offset % 64);
    case 2:
        return GPA(TEST_MMIO + offset % 4096);
    case 3:
        return GPA(TEST_ROM + offset % 4096);
    case 4:
        return GPA(UINT64_MAX - offset);
    default:
        return GPA(take(s, 8));
    }
}

static struct test_buf one_buffer(struct script *s)
{
    struct test_buf b = {0};
    uint8_t kind = (uint8_t)take(s, 1);

    if (kind < 0x70) { /* readable, content from the script */
        b.len = (uint32_t)take(s, 1) % 80;
        b.gpa = buffer(s, b.len);
        size_t n = MIN((size_t)b.len, s->left);
        memcpy(test_driver_ptr(&s->d, b.gpa), s->p, n);
        s->p += n;
        s->left -= n;
    } else if (kind < 0xe0) {
        b.len = (uint32_t)take(s, 2) % 9000;
        b.gpa = buffer(s, b.len);
        b.write = true;
    } else {
        b.gpa = wild(s);
        b.len = (uint32_t)take(s, kind & 1 ? 4 : 1);
        b.write = kind & 2;
    }
    return b;
}

static unsigned take_queue(struct script *s)
{
    return (unsigned)take(s, 1) % s->d.dev->queue_count;
}

static void do_chain(struct script *s)
{
    unsigned queue = take_queue(s);
    uint8_t how = (uint8_t)take(s, 1);
    unsigned n = 1 + how % CHAIN_MAX;
    struct test_buf bufs[CHAIN_MAX];

    for (unsigned i = 0; i < n; i++)
        bufs[i] = one_buffer(s);
    if (!s->d.queues[queue].size)
        return; /* not set up */
    if (how & 0x80 && s->d.brk < DATA_BASE / 2)
        (void)test_driver_add_indirect(&s->d, queue, bufs, n);
    else
        (void)test_driver_add(&s->d, queue, bufs, n);
    if (!(how & 0x40))
        test_driver_kick(&s->d, queue);
}

static void do_ring(struct script *s)
{
    const struct test_queue *q = &s->d.queues[take_queue(s)];
    unsigned which = (unsigned)take(s, 1) % 3;
    uint64_t offset = take(s, 1);
    uint64_t base = which == 0 ? q->desc.v : which == 1 ? q->avail.v : q->used.v;

    if (base)
        store_le16(test_driver_ptr(&s->d, GPA(base + offset)), (uint16_t)take(s, 2));
}

static void do_config(struct script *s)
{
    uint8_t how = (uint8_t)take(s, 1);
    unsigned offset = (unsigned)take(s, how & 0x80 ? 4 : 1);
    unsigned size = 1u << (how & 3);
    uint8_t buf[8];

    store_le64(buf, take(s, size));
    if (how & 4)
        test_driver_config_write(&s->d, offset, buf, size);
    else
        test_driver_config_read(&s->d, offset, buf, size);
}

/** The steps up to DRIVER_OK, with one queue's values from the script. */
static void do_queue_setup(struct script *s)
{
    struct virtio_device *dev = s->d.dev;
    unsigned queue = take_queue(s);

    mutex_lock(&dev->lock);
    virtio_set_status(dev, 0);
    virtio_set_status(dev, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_set_features(dev, s->fuzz->features | BIT(VIRTIO_F_VERSION_1));
    virtio_set_status(dev, VIRTIO_FEATURES_OK);
    struct vq *q = &dev->queues[queue];
    q->size = (uint16_t)take(s, 2);
    q->desc = wild(s);
    q->avail = wild(s);
    q->used = wild(s);
    virtio_queue_enable(dev, queue);
    virtio_set_status(dev, VIRTIO_DRIVER_OK);
    mutex_unlock(&dev->lock);
    test_driver_kick(&s->d, queue);
}

static uint8_t start(struct script *s, uint64_t features)
{
    s->d.brk = 0;
    return test_driver_start(&s->d, s->d.dev, features, QUEUE_SIZE);
}

static void do_fill(struct script *s)
{
    uint64_t offset = take(s, 2);
    size_t n = MIN((size_t)take(s, 1), s->left);

    memcpy(s->d.ram + offset, s->p, n);
    s->p += n;
    s->left -= n;
}

void test_fuzz_run_queues(struct virtio_device *dev)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < dev->queue_count; i++) {
            /* Acquire: pairs with virtio_queue_signal() on threads of the device's own. */
            if (__atomic_load_n(&dev->queues[i].kicked, __ATOMIC_ACQUIRE))
                virtio_queue_run(dev, i);
        }
    }
}

static void step(struct script *s)
{
    switch ((enum op)(take(s, 1) % OP_COUNT)) {
    case FILL:
        do_fill(s);
        break;
    case CHAIN:
        do_chain(s);
        break;
    case KICK:
        test_driver_kick(&s->d, take_queue(s));
        break;
    case RING:
        do_ring(s);
        break;
    case CONFIG:
        do_config(s);
        break;
    case STATUS:
        test_driver_set_status(&s->d, (uint8_t)take(s, 1));
        break;
    case RESTART:
        (void)start(s, take(s, 8));
        break;
    case QUEUE_SETUP:
        do_queue_setup(s);
        break;
    case HOST:
        if (s->fuzz->host)
            s->fuzz->host(s->d.dev, (unsigned)take(s, 1));
        break;
    case OP_COUNT:
        break;
    }
    test_fuzz_run_queues(s->d.dev);
}

void test_fuzz_device(const struct test_fuzz *fuzz, const uint8_t *data, size_t size)
{
    struct script s = {.p = data, .left = size, .fuzz = fuzz};

    test_driver_init(&s.d, false);
    test_driver_attach(&s.d, fuzz->make(&s.d));
    (void)start(&s, fuzz->features);
    for (unsigned i = 0; s.left && i < OPS_MAX; i++)
        step(&s);
    if (!(start(&s, fuzz->features) & VIRTIO_DRIVER_OK) || s.d.mmio_accesses) {
        (void)fprintf(stderr, "the device does not come back, or touched another one\n");
        abort();
    }
    test_driver_done(&s.d);
}
