/* Runs a fuzzer's input as a hostile driver of one virtio device: chains good and bad, raw writes
 * into rings, configuration, status, set-up with wild addresses. */
#ifndef DEVICE_VIRTIO_TEST_FUZZ_H
#define DEVICE_VIRTIO_TEST_FUZZ_H

#include "device/virtio/test_driver.h"

struct test_fuzz {
    /** A new device for @d; the driver frees it. */
    struct virtio_device *(*make)(struct test_driver *d);
    uint64_t features; /* accepted at first */
    /** What the host's side does meanwhile; may be NULL. */
    void (*host)(struct virtio_device *dev, unsigned what);
};

/** Aborts if the device does not come back to work after a reset at the end. */
void test_fuzz_device(const struct test_fuzz *fuzz, const uint8_t *data, size_t size);

/** Serve the queues that were signalled, as the loop would, a bounded number of times. */
void test_fuzz_run_queues(struct virtio_device *dev);

#endif
