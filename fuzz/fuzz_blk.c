/* virtio block device under a hostile driver, over a disk in memory. */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/blk.h"
#include "device/virtio/test_fuzz.h"
#include "disk/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_BYTES 65536u

static uint8_t bytes[DISK_BYTES];

static int move(const struct iovec *iov, int n, uint64_t offset, bool write)
{
    for (int i = 0; i < n; i++) {
        assert(offset + iov[i].iov_len <= DISK_BYTES); /* disk.c has checked */
        if (write)
            memcpy(bytes + offset, iov[i].iov_base, iov[i].iov_len);
        else
            memcpy(iov[i].iov_base, bytes + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int ram_preadv(struct disk *d, const struct iovec *iov, int n, uint64_t offset)
{
    return move(iov, n, offset, false);
}

static int ram_pwritev(struct disk *d, const struct iovec *iov, int n, uint64_t offset)
{
    return move(iov, n, offset, true);
}

static int ram_flush(struct disk *d)
{
    return 0;
}

static int ram_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    assert(offset + size <= DISK_BYTES);
    return 0;
}

static int ram_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    assert(offset + size <= DISK_BYTES);
    memset(bytes + offset, 0, size);
    return 0;
}

static void ram_close(struct disk *d)
{
}

static int ram_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)d;
    (void)offset;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static const struct disk_ops ram_ops = {
    .preadv = ram_preadv,
    .pwritev = ram_pwritev,
    .flush = ram_flush,
    .discard = ram_discard,
    .write_zeroes = ram_write_zeroes,
    .status = ram_status,
    .close = ram_close,
};

static struct virtio_device *make(struct test_driver *d)
{
    static struct disk disk = {.ops = &ram_ops, .size_bytes = DISK_BYTES};
    struct virtio_blk_config c = {.queues = 2, .serial = "fuzz"};
    struct virtio_device *dev = NULL;

    assert(!virtio_blk_new(d->mem, &c, &disk, &dev, NULL));
    return dev;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct test_fuzz fuzz = {
        .make = make,
        .features = BIT(VIRTIO_F_INDIRECT_DESC) | BIT(12) | BIT(13) | BIT(14),
    };

    log_set_level(LOG_ERROR);
    test_fuzz_device(&fuzz, data, size);
    return 0;
}
