/* The virtio-pci transport, driven through configuration space and BARs as a driver would. Spec:
 * VIRTIO 1.2 §4.1. */
#include "base/bits.h"
#include "base/test.h"
#include "device/pci/pci.h"
#include "device/virtio/test_driver.h"
#include "device/virtio/test_loopback.h"

#include <unistd.h>

#define ECAM   0x30000000ull
#define MMIO32 0x40000000ull
#define MMIO64 0x400000000ull
#define RAM    0x80000000ull

enum { STATUS_READY = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK };

static struct mem *mem;
static uint8_t *ram;
static struct loop *loop;
static struct pci_host *host;
static struct loopback *l;
static struct virtio_transport *t;
static unsigned line_level; /* [atomic] */
static uint64_t common, notify, isr, device, pci_cfg;
static uint32_t notify_multiplier;

static void set_line(void *controller, unsigned input, bool level)
{
    /* Release: pairs with wait_line(). */
    __atomic_store_n(&line_level, level, __ATOMIC_RELEASE);
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    ASSERT_EQ(mem_read(mem, GPA(gpa), size, &value), BUS_OK);
    return value & MASK(size * 8);
}

static void put(uint64_t gpa, unsigned size, uint64_t value)
{
    ASSERT_EQ(mem_write(mem, GPA(gpa), size, value), BUS_OK);
}

static uint64_t config(unsigned offset)
{
    return ECAM + (1u << 15) + offset; /* slot 1 */
}

/** Follow the capability list to the virtio structures (§4.1.4). */
static void find_structures(void)
{
    uint64_t bar = get(config(0x10), 8) & ~15ull;

    for (unsigned at = (unsigned)get(config(0x34), 1); at; at = (unsigned)get(config(at + 1), 1)) {
        if (get(config(at), 1) != 9)
            continue;
        uint64_t where = bar + get(config(at + 8), 4);
        switch (get(config(at + 3), 1)) {
        case 1:
            common = where;
            EXPECT_TRUE(get(config(at + 12), 4) >= 56);
            break;
        case 2:
            notify = where;
            notify_multiplier = (uint32_t)get(config(at + 16), 4);
            break;
        case 3:
            isr = where;
            break;
        case 4:
            device = where;
            break;
        case 5:
            pci_cfg = config(at);
            break;
        }
    }
    ASSERT_TRUE(common && notify && isr && device && pci_cfg);
}

static struct {
    uint64_t addr;
    int fd;
} bells[2];
static unsigned bell_count;

static int doorbell(void *arg, uint64_t addr, int fd, bool on)
{
    if (on) {
        bells[bell_count % 2].addr = addr;
        bells[bell_count++ % 2].fd = fd;
    } else {
        bell_count--;
    }
    return 0;
}

static void begin(void)
{
    struct pci_host_config c = {
        .ecam = GPA(ECAM),
        .ecam_size = 1 << 20,
        .mmio32 = GPA(MMIO32),
        .mmio32_size = 1 << 24,
        .mmio64 = GPA(MMIO64),
        .mmio64_size = 1 << 24,
        .doorbell = doorbell,
        .assign_bars = true,
    };
    void *p;

    for (unsigned i = 0; i < 4; i++)
        c.intx[i] = (struct irq_line){.set = set_line, .input = i};
    mem = mem_new();
    loop = loop_new("test-io");
    ASSERT_TRUE(mem && loop);
    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 1 << 20, 0, "ram", NULL, NULL, &p, NULL), 0);
    ram = p;
    ASSERT_EQ(pci_host_new(mem, &c, &host, NULL), 0);
    l = loopback_new(mem, loop);
    ASSERT_EQ(virtio_pci_new(host, &l->dev, &t, NULL), 0);
    mem_freeze(mem);
    ASSERT_EQ(loop_start(loop), 0);
    put(config(4), 2, 6); /* memory decoding, bus master */
    find_structures();
}

static void end(void)
{
    virtio_transport_free(t);
    pci_host_free(host);
    loop_free(loop);
    mem_free(mem);
}

static void start_queue(unsigned index, uint64_t base, uint16_t vector)
{
    put(common + 22, 2, index);
    EXPECT_EQ(get(common + 24, 2), 64);
    put(common + 24, 2, 16);
    put(common + 26, 2, vector);
    EXPECT_EQ(get(common + 30, 2), index);
    put(common + 32, 4, base);
    put(common + 36, 4, 0);
    put(common + 40, 8, base + 0x400); /* as one access: allowed here */
    put(common + 48, 4, base + 0x800);
    put(common + 52, 4, 0);
    EXPECT_EQ(get(common + 28, 2), 0);
    put(common + 28, 2, 1);
    EXPECT_EQ(get(common + 28, 2), 1);
}

/** §3.1.1, up to DRIVER_OK. */
static void start(uint16_t vector)
{
    put(common + 20, 1, 0);
    EXPECT_EQ(get(common + 20, 1), 0);
    put(common + 20, 1, VIRTIO_ACKNOWLEDGE);
    put(common + 20, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    put(common + 0, 4, 1);
    EXPECT_EQ(get(common + 4, 4), 1); /* VERSION_1 */
    put(common + 8, 4, 1);
    put(common + 12, 4, 1);
    put(common + 20, 1, STATUS_READY);
    EXPECT_EQ(get(common + 20, 1), STATUS_READY);
    EXPECT_EQ(get(common + 18, 2), 2);
    start_queue(0, RAM, vector);
    start_queue(1, RAM + 0x1000, vector);
    put(common + 20, 1, STATUS_READY | VIRTIO_DRIVER_OK);
    EXPECT_EQ(get(common + 20, 1), STATUS_READY | VIRTIO_DRIVER_OK);
}

static bool by_eventfd;

static void ring(unsigned index)
{
    const uint64_t one = 1;

    if (by_eventfd)
        ASSERT_EQ(write(bells[index].fd, &one, sizeof(one)), sizeof(one));
    else
        put(notify + notify_multiplier * index, 2, index);
}

/** Ask queue @index to copy 4 bytes; returns when they are used. */
static void request(unsigned index, uint32_t value)
{
    uint8_t *q = ram + 0x1000u * index;
    uint16_t used = load_le16(q + 0x802);

    store_le32(ram + 0x8000, value);
    store_le64(q, RAM + 0x8000);
    store_le32(q + 8, 4);
    store_le32(q + 12, TEST_NEXT | 1 << 16);
    store_le64(q + 16, RAM + 0x8100);
    store_le32(q + 24, 4);
    store_le32(q + 28, TEST_WRITE);
    store_le16(q + 0x404 + 2 * (load_le16(q + 0x402) % 16), 0);
    store_le16(q + 0x402, (uint16_t)(load_le16(q + 0x402) + 1));
    ring(index);
    loop_sync(loop);
    ASSERT_EQ(load_le16(q + 0x802), (uint16_t)(used + 1));
    EXPECT_EQ(load_le32(ram + 0x8100), value);
}

TEST(identity)
{
    begin();
    EXPECT_EQ(get(config(0), 4), 0x107f1af4); /* 0x1040 + 63 */
    EXPECT_TRUE(get(config(8), 1) >= 1);
    EXPECT_TRUE(get(config(0x2e), 2) >= 0x40);
    end();
}

TEST(a_hosts_doorbell_is_a_notification)
{
    begin();
    EXPECT_EQ(bell_count, 0);
    start(VQ_NO_VECTOR);
    ASSERT_EQ(bell_count, 2);
    EXPECT_EQ(bells[1].addr, notify + notify_multiplier);
    by_eventfd = true;
    request(0, 0x12345678);
    request(1, 42);
    by_eventfd = false;
    put(common + 20, 1, 0);
    EXPECT_EQ(bell_count, 0);
    end();
}

TEST(request_with_intx)
{
    begin();
    start(VQ_NO_VECTOR);
    request(0, 0x12345678);
    EXPECT_EQ(line_level, 1);
    EXPECT_EQ(get(isr, 1), 1);
    EXPECT_EQ(line_level, 0);
    EXPECT_EQ(get(isr, 1), 0);
    request(1, 42);
    EXPECT_EQ(line_level, 1);
    put(common + 20, 1, 0); /* a reset takes the interrupt back */
    EXPECT_EQ(line_level, 0);
    EXPECT_EQ(get(isr, 1), 0);
    end();
}

TEST(request_with_msix)
{
    begin();
    unsigned cap = (unsigned)get(config(0x34), 1);
    while (cap && get(config(cap), 1) != 0x11)
        cap = (unsigned)get(config(cap + 1), 1);
    ASSERT_TRUE(cap);
    uint64_t table = get(config(0x18), 8) & ~15ull;
    put(table + 16, 8, RAM + 0x9000); /* vector 1 */
    put(table + 24, 4, 0xcafe);
    put(table + 28, 4, 0);
    put(table + 0, 8, RAM + 0x9004); /* vector 0: configuration */
    put(table + 8, 4, 0xbeef);
    put(table + 12, 4, 0);
    put(config(cap + 2), 2, 0x8000);
    start(1);
    put(common + 16, 2, 0);
    EXPECT_EQ(get(common + 16, 2), 0);
    put(common + 26, 2, 3); /* three vectors: 0..2 */
    EXPECT_EQ(get(common + 26, 2), VQ_NO_VECTOR);
    request(0, 7);
    EXPECT_EQ(load_le32(ram + 0x9000), 0xcafe);
    EXPECT_EQ(line_level, 0);
    EXPECT_EQ(get(isr, 1), 0);
    mutex_lock(&l->dev.lock);
    virtio_config_changed(&l->dev);
    mutex_unlock(&l->dev.lock);
    EXPECT_EQ(load_le32(ram + 0x9004), 0xbeef);
    EXPECT_EQ(get(isr, 1), 2); /* §4.1.4.5.1 */
    EXPECT_EQ(get(common + 21, 1), 1);
    end();
}

TEST(configuration_interrupt_with_intx)
{
    begin();
    start(VQ_NO_VECTOR);
    mutex_lock(&l->dev.lock);
    virtio_config_changed(&l->dev);
    mutex_unlock(&l->dev.lock);
    EXPECT_EQ(line_level, 1);
    EXPECT_EQ(get(isr, 4) & 0xff, 2);
    EXPECT_EQ(line_level, 0);
    end();
}

TEST(device_configuration)
{
    begin();
    put(device + 4, 4, 0x04030201);
    put(device + 9, 1, 0x77);
    EXPECT_EQ(get(device + 6, 2), 0x0403);
    EXPECT_EQ(get(device + 8, 4), 0x7700);
    EXPECT_EQ(get(device + 12, 4), 0); /* beyond the end */
    end();
}

/* §4.1.4.9: everything again through the window in configuration space. */
TEST(pci_configuration_access)
{
    begin();
    put(pci_cfg + 4, 1, 0);
    put(pci_cfg + 8, 4, device - (get(config(0x10), 8) & ~15ull) + 4);
    put(pci_cfg + 12, 4, 2);
    put(pci_cfg + 16, 4, 0xaabb);
    EXPECT_EQ(get(device + 4, 4), 0xaabb);
    put(device + 4, 4, 0x1234);
    EXPECT_EQ(get(pci_cfg + 16, 2), 0x1234);
    /* What is not allowed changes nothing. */
    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } bad[] = {
        {2, 0x2004,     2         },
        {9, 0x2004,     2         },
        {0, 0x2004,     3         },
        {0, 0x2005,     2         },
        {0, 0x2004,     0         },
        {0, 0xfffffffe, 2         },
        {0, 0x4000,     4         },
        {0, 0x2004,     0xffffffff},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        put(pci_cfg + 4, 1, bad[i].bar);
        put(pci_cfg + 8, 4, bad[i].offset);
        put(pci_cfg + 12, 4, bad[i].length);
        put(pci_cfg + 16, 4, 0xffffffff);
        EXPECT_EQ(get(pci_cfg + 16, 4), 0xffffffff);
        EXPECT_EQ(get(device + 4, 4), 0x1234);
    }
    end();
}

TEST(odd_accesses_are_harmless)
{
    begin();
    start(VQ_NO_VECTOR);
    for (uint64_t at = 0; at < 0x4000; at++) {
        for (unsigned size = 1; size <= 8 && at % size == 0; size *= 2) {
            (void)get(common + at, size);
            if (at > 21) /* not the status */
                put(common + at, size, 0xa5a5a5a5a5a5a5a5ull & MASK(size * 8));
        }
    }
    put(common + 22, 2, 7); /* no such queue */
    EXPECT_EQ(get(common + 24, 2), 0);
    EXPECT_EQ(get(common + 28, 2), 0);
    put(common + 28, 2, 1);
    put(common + 0, 4, 2);
    EXPECT_EQ(get(common + 4, 4), 0);
    start(VQ_NO_VECTOR);
    request(0, 1);
    end();
}

TEST(enabled_queues_do_not_change)
{
    begin();
    start(VQ_NO_VECTOR);
    put(common + 22, 2, 0);
    put(common + 24, 2, 8);
    put(common + 32, 4, RAM + 0x4000);
    EXPECT_EQ(get(common + 24, 2), 16);
    EXPECT_EQ(get(common + 32, 4), RAM);
    request(0, 5);
    end();
}

TEST(machine_reset)
{
    begin();
    start(VQ_NO_VECTOR);
    request(0, 5);
    pci_host_reset(host);
    EXPECT_EQ(line_level, 0);
    EXPECT_EQ(l->dev.status, 0);
    EXPECT_EQ(l->resets, 2);
    put(config(4), 2, 6);
    memset(ram, 0, 0x2000);
    start(VQ_NO_VECTOR);
    request(0, 6);
    end();
}
