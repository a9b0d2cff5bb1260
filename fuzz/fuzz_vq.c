/* Virtqueues and the device core, under a hostile driver. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/test_fuzz.h"
#include "device/virtio/test_loopback.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_device *make(struct test_driver *d)
{
    return &loopback_new(d->mem, d->loop)->dev;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz with_all = {
        .make = make,
        .features = BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC),
    };
    static const struct test_fuzz with_none = {.make = make};

    log_set_level(LOG_ERROR);
    if (size)
        test_fuzz_device(data[0] & 1 ? &with_all : &with_none, data + 1, size - 1);
    return 0;
}
