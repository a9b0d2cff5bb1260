/* The virtio-pci transport's registers: configuration space and BARs under a hostile driver.
 *
 * Input: operations of 8 bytes: what, size, offset (2), value (4). */
#include "base/bits.h"
#include "base/log.h"
#include "device/pci/pci.h"
#include "device/virtio/test_fuzz.h"
#include "device/virtio/test_loopback.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ECAM     0x30000000ull
#define MMIO32   0x40000000ull
#define MMIO64   0x400000000ull
#define RAM      0x80000000ull
#define RAM_SIZE (1u << 20)
#define SLOT     (ECAM + (1u << 15))

static void access(struct mem *mem, uint64_t gpa, const uint8_t *op)
{
    unsigned size = 1u << (op[1] & 3);
    uint64_t value = load_le32(op + 4);

    if (op[1] & 0x80)
        value |= value << 32;
    if (op[1] & 4)
        (void)mem_read(mem, GPA(gpa), size, &value); /* faults are fine */
    else
        (void)mem_write(mem, GPA(gpa), size, value & MASK(8 * size));
}

static void run(struct mem *mem, struct pci_host *host, struct virtio_device *dev,
                const uint8_t *data, size_t size)
{
    uint64_t bar = 0;

    for (; size >= 8; data += 8, size -= 8) {
        uint64_t offset = load_le16(data + 2);

        switch (data[0] % 8) {
        case 0:
            access(mem, SLOT + offset % 0x200, data);
            break;
        case 1: /* back to where BAR 0 can be reached */
            (void)mem_write(mem, GPA(SLOT + 4), 2, 6);
            (void)mem_write(mem, GPA(SLOT + 0x10), 4, MMIO64 & UINT32_MAX);
            (void)mem_write(mem, GPA(SLOT + 0x14), 4, MMIO64 >> 32);
            break;
        case 2:
            access(mem, RAM + offset, data);
            break;
        case 3:
            pci_host_reset(host);
            break;
        case 4:
        case 5:
            access(mem, bar + offset % 60, data); /* the common configuration */
            break;
        default:
            access(mem, bar + offset % 0x4000, data);
            break;
        }
        (void)mem_read(mem, GPA(SLOT + 0x10), 4, &bar);
        uint64_t high = 0;
        (void)mem_read(mem, GPA(SLOT + 0x14), 4, &high);
        bar = ((high << 32) | bar) & ~15ull;
        test_fuzz_run_queues(dev);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pci_host_config c = {
        .ecam = GPA(ECAM),
        .ecam_size = 1 << 20,
        .mmio32 = GPA(MMIO32),
        .mmio32_size = 1 << 24,
        .mmio64 = GPA(MMIO64),
        .mmio64_size = 1 << 24,
        .assign_bars = true,
    };
    struct mem *mem = mem_new();
    struct loop *loop = loop_new("fuzz-io");
    struct pci_host *host = NULL;
    struct virtio_transport *t = NULL;

    log_set_level(LOG_ERROR);
    if (!mem || !loop || mem_add_ram(mem, GPA(RAM), RAM_SIZE, 0, "ram", NULL, NULL, NULL, NULL) ||
        pci_host_new(mem, &c, &host, NULL))
        abort();
    struct loopback *l = loopback_new(mem, loop);
    if (virtio_pci_new(host, &l->dev, &t, NULL))
        abort();
    mem_freeze(mem);
    run(mem, host, &l->dev, data, size);
    pci_host_reset(host);
    if (l->dev.status || l->dev.broken) {
        (void)fprintf(stderr, "the device does not come back\n");
        abort();
    }
    virtio_transport_free(t);
    pci_host_free(host);
    loop_free(loop);
    mem_free(mem);
    return 0;
}
