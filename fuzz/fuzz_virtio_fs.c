/* virtio file system device under a hostile driver; the folder is empty and read-only. What the
 * requests themselves do: fuzz_fs.c. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/fs.h"
#include "device/virtio/test_fuzz.h"

#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/posada-fuzz-vfs-XXXXXX";

static struct virtio_device *make(struct test_driver *d)
{
    struct virtio_fs_config c = {.tag = "fuzz", .host_path = folder, .readonly = true};
    struct virtio_device *dev = NULL;

    assert(!virtio_fs_new(d->mem, &c, &dev, NULL));
    return dev;
}

static void clean_up(void)
{
    (void)rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .features = BIT(VIRTIO_F_INDIRECT_DESC),
    };
    static bool made;

    log_set_level(LOG_ERROR);
    if (!made && (!mkdtemp(folder) || atexit(clean_up)))
        return 0;
    made = true;
    test_fuzz_device(&fuzz, data, size);
    return 0;
}
