/* A device for tests of queues and transports: answers each request with the bytes it was sent. */
#ifndef DEVICE_VIRTIO_TEST_LOOPBACK_H
#define DEVICE_VIRTIO_TEST_LOOPBACK_H

#include "device/virtio/virtio.h"

#define LOOPBACK_CONFIG_SIZE 12

struct loopback {
    struct virtio_device dev; /* must be first */
    uint8_t config[LOOPBACK_CONFIG_SIZE];
    unsigned kicks, requests, resets, readies; /* [lock] */
    bool refuse_features;                      /* [lock] features_ok says no */
};

/** Two queues of at most 64. Freed by its transport or test driver. Aborts when out of memory. */
struct loopback *loopback_new(struct mem *mem, struct loop *loop);

#endif
