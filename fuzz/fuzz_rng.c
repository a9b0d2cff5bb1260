/* virtio entropy device under a hostile driver. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/rng.h"
#include "device/virtio/test_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_device *make(struct test_driver *d)
{
    struct virtio_device *dev = NULL;

    assert(!virtio_rng_new(d->mem, d->loop, &dev, NULL));
    return dev;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {.make = make, .features = BIT(VIRTIO_F_INDIRECT_DESC)};

    log_set_level(LOG_ERROR);
    test_fuzz_device(&fuzz, data, size);
    return 0;
}
