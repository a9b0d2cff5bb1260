/* virtio balloon under a hostile driver. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/balloon.h"
#include "device/virtio/test_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_device *make(struct test_driver *d)
{
    struct virtio_device *dev = NULL;

    assert(!virtio_balloon_new(d->mem, d->loop, &dev, NULL));
    return dev;
}

static void host(struct virtio_device *dev, unsigned what)
{
    struct virtio_balloon_stats stats;

    if (what & 1)
        virtio_balloon_set_target(dev, (uint64_t)what << 12);
    else
        virtio_balloon_get_stats(dev, &stats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .host = host,
        .features = BIT(VIRTIO_F_INDIRECT_DESC) | BIT(1) | BIT(2) | BIT(5),
    };

    log_set_level(LOG_ERROR);
    test_fuzz_device(&fuzz, data, size);
    return 0;
}
