/* The driver's side of virtio, for tests and fuzzing: a little guest memory, a fake transport, and
 * rings built in that memory, well or badly.
 *
 * Memory: 16 MiB of RAM at TEST_RAM, a ROM page at TEST_ROM, a device's registers at TEST_MMIO.
 *
 *     struct test_driver d;
 *     test_driver_init(&d, true);                      with an I/O thread
 *     dev = rng_new(d.mem, d.loop, ...);
 *     test_driver_start(&d, dev, features, 16);        up to DRIVER_OK, all queues 16 long
 *     head = test_driver_add(&d, 0, bufs, n);  test_driver_kick(&d, 0);
 *     ASSERT_TRUE(test_driver_wait(&d, 0, &used));
 *     test_driver_done(&d);                            frees the device too
 */
#ifndef DEVICE_VIRTIO_TEST_DRIVER_H
#define DEVICE_VIRTIO_TEST_DRIVER_H

#include "device/virtio/transport.h"

#define TEST_RAM      0x80000000u
#define TEST_RAM_SIZE (16u << 20)
#define TEST_ROM      0x1000u
#define TEST_MMIO     0x10000u

/** Descriptor flags, §2.7.5. */
enum {
    TEST_NEXT = 1,
    TEST_WRITE = 2,
    TEST_INDIRECT = 4,
};

struct test_queue {
    uint16_t size;
    gpa_t desc, avail, used;
    uint16_t next_desc;  /* descriptors are handed out in turn */
    uint16_t avail_idx;  /* what was last stored */
    uint16_t last_used;  /* next used entry to look at */
    unsigned interrupts; /* [atomic] so far */
};

struct test_driver {
    struct virtio_transport transport; /* must be first */
    struct mem *mem;
    struct loop *loop;
    bool threaded;
    uint8_t *ram;
    uint64_t brk; /* next free byte of RAM */
    struct virtio_device *dev;
    struct test_queue queues[VIRTIO_MAX_QUEUES];
    unsigned config_interrupts; /* [atomic] */
    bool no_dma;                /* bus mastering is off */
    unsigned mmio_accesses;     /* of the registers at TEST_MMIO */
};

/** One buffer of a request. */
struct test_buf {
    gpa_t gpa;
    uint32_t len;
    bool write; /* device-writable */
};

struct test_used {
    uint32_t id, len;
};

/** Memory and loop; with @threaded the loop has its own thread, else test_driver_kick() serves the
 * queue at once. */
void test_driver_init(struct test_driver *d, bool threaded);
/** Frees the device (if started or attached), the loop and the memory. */
void test_driver_done(struct test_driver *d);

/** Put @dev behind the fake transport; the driver then owns it. */
void test_driver_attach(struct test_driver *d, struct virtio_device *dev);
/** Attach if that was not done, then the steps of §3.1.1: @features (VERSION_1 is added), every
 * queue @queue_size long (at most its max_size). Returns the status at the end. */
uint8_t test_driver_start(struct test_driver *d, struct virtio_device *dev, uint64_t features,
                          uint16_t queue_size);
/** Parts of it. */
void test_driver_set_status(struct test_driver *d, uint8_t status);
uint8_t test_driver_status(struct test_driver *d);
void test_driver_set_up_queue(struct test_driver *d, unsigned index, uint16_t size);
void test_driver_config_read(struct test_driver *d, unsigned offset, void *buf, unsigned size);
void test_driver_config_write(struct test_driver *d, unsigned offset, const void *buf,
                              unsigned size);

/** Zeroed guest RAM, 64-byte aligned; aborts the test when there is no more. */
gpa_t test_driver_alloc(struct test_driver *d, size_t size);
/** Copy of @buf in guest RAM. */
gpa_t test_driver_put(struct test_driver *d, const void *buf, size_t size);
/** Host address of guest RAM at @gpa. */
void *test_driver_ptr(struct test_driver *d, gpa_t gpa);

/** Store descriptor @i of queue @index, or of the table at @table. */
void test_driver_desc(struct test_driver *d, unsigned index, uint16_t i, uint64_t addr,
                      uint32_t len, uint16_t flags, uint16_t next);
void test_driver_desc_at(struct test_driver *d, gpa_t table, uint16_t i, uint64_t addr,
                         uint32_t len, uint16_t flags, uint16_t next);
/** Make the chain that begins at @head available. */
void test_driver_publish(struct test_driver *d, unsigned index, uint16_t head);
/** Build a chain of @n buffers and make it available; returns its head. Descriptors are reused in
 * turn: keep less than a ring of them in flight. */
uint16_t test_driver_add(struct test_driver *d, unsigned index, const struct test_buf *bufs,
                         unsigned n);
uint16_t test_driver_add_indirect(struct test_driver *d, unsigned index,
                                  const struct test_buf *bufs, unsigned n);
void test_driver_kick(struct test_driver *d, unsigned index);

/** Take the next used entry if there is one. */
bool test_driver_take(struct test_driver *d, unsigned index, struct test_used *ret);
/** The same, waiting up to 5 s. */
bool test_driver_wait(struct test_driver *d, unsigned index, struct test_used *ret);
/** Wait until status has @bit, up to 5 s. */
bool test_driver_wait_status(struct test_driver *d, uint8_t bit);
/** Wait until *@counter (atomic) is at least @count, up to 5 s. */
bool test_driver_wait_count(const unsigned *counter, unsigned count);

/** One request: add, kick, wait; returns the bytes written, or aborts the test when no answer
 * comes. */
uint32_t test_driver_request(struct test_driver *d, unsigned index, const struct test_buf *bufs,
                             unsigned n);

/** For §2.7.7, §2.7.10: the driver's side of event indices and flags. */
void test_driver_set_used_event(struct test_driver *d, unsigned index, uint16_t event);
void test_driver_set_avail_flags(struct test_driver *d, unsigned index, uint16_t flags);
uint16_t test_driver_avail_event(struct test_driver *d, unsigned index);
uint16_t test_driver_used_flags(struct test_driver *d, unsigned index);

#endif
