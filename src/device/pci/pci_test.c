/* Tests of the PCI host and functions, through the bus as a guest sees them. */
#include "base/bits.h"
#include "base/test.h"
#include "device/pci/pci.h"
#include "state/test_state.h"

#include <errno.h>

#define ECAM   0x30000000ULL
#define MMIO32 0x40000000ULL
#define MMIO64 0x400000000ULL
#define RAM    0x80000000ULL

static struct mem *mem;
static struct pci_host *host;
static int lines[4];
static unsigned resets;
static uint64_t last_offset, last_value;

static void set_line(void *controller, unsigned input, bool level)
{
    lines[input] = level;
}

static enum bus_result bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                unsigned size, uint64_t *ret)
{
    *ret = 0x100 * bar + offset;
    return BUS_OK;
}

static enum bus_result bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                 unsigned size, uint64_t value)
{
    last_offset = offset;
    last_value = value;
    return BUS_OK;
}

static void reset(struct pci_function *f)
{
    resets++;
    pci_set_intx(f, false);
}

static const struct pci_ops ops = {
    .name = "test", .bar_read = bar_read, .bar_write = bar_write, .reset = reset};
static const struct pci_info info = {
    .vendor_id = 0x1af4,
    .device_id = 0x1042,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x018000,
    .revision = 1,
    .bar_size = {0, 0x1000, 0, 0, 0x4000, 0},
    .bar_64bit = 1 << 4,
    .bar_prefetch = 1 << 4,
    .msix_vectors = 3,
    .msix_bar = 1,
};

/* A host that takes doorbells: at most one at an address. */
static struct {
    uint64_t addr;
    int fd;
} bells[8];
static unsigned bell_calls;

static int doorbell(void *arg, uint64_t addr, int fd, bool on)
{
    bell_calls++;
    for (unsigned i = 0; i < ARRAY_SIZE(bells); i++) {
        if (!on && bells[i].addr == addr && bells[i].fd == fd) {
            bells[i].addr = 0;
            return 0;
        }
        if (on && bells[i].addr == addr)
            return -EEXIST;
    }
    for (unsigned i = 0; on && i < ARRAY_SIZE(bells); i++) {
        if (!bells[i].addr) {
            bells[i].addr = addr;
            bells[i].fd = fd;
            return 0;
        }
    }
    return -ENOENT;
}

static int bell_at(uint64_t addr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bells); i++) {
        if (bells[i].addr == addr)
            return bells[i].fd;
    }
    return -1;
}

static void setup(bool assign)
{
    struct pci_host_config c = {
        .ecam = GPA(ECAM),
        .ecam_size = 0x10000000,
        .mmio32 = GPA(MMIO32),
        .mmio32_size = 0x40000000,
        .mmio64 = GPA(MMIO64),
        .mmio64_size = 0x400000000,
        .pio = GPA(0x3000000),
        .pio_size = 0x10000,
        .doorbell = doorbell,
        .assign_bars = assign,
    };

    for (unsigned i = 0; i < 4; i++)
        c.intx[i] = (struct irq_line){.set = set_line, .input = i};
    mem = mem_new();
    ASSERT_TRUE(mem);
    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 0x10000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    ASSERT_EQ(pci_host_new(mem, &c, &host, NULL), 0);
}

static uint64_t rd(uint64_t addr, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(addr), size, &v), BUS_OK);
    return v & MASK(size * 8);
}

static void wr(uint64_t addr, unsigned size, uint64_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(addr), size, v), BUS_OK);
}

static uint64_t cfg(unsigned slot, unsigned offset)
{
    return ECAM + slot * 0x8000 + offset;
}

static unsigned find_cap(unsigned slot, unsigned id)
{
    unsigned at = (unsigned)rd(cfg(slot, 0x34), 1);

    for (int i = 0; at && i < 48; i++) {
        if (rd(cfg(slot, at), 1) == id)
            return at;
        at = (unsigned)rd(cfg(slot, at + 1), 1);
    }
    return 0;
}

TEST(header_is_read_and_only_its_writable_bits_change)
{
    static struct pci_function f;

    setup(false);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, -1, NULL), 0);
    EXPECT_EQ(rd(cfg(0, 0), 4), 0x00081b36);
    EXPECT_EQ(rd(cfg(1, 0), 4), 0x10421af4);
    EXPECT_EQ(rd(cfg(1, 8), 4), 0x01800001);
    EXPECT_EQ(rd(cfg(1, 0x2c), 4), 0x11001af4);
    EXPECT_EQ(rd(cfg(1, 0x3d), 1), 1);
    wr(cfg(1, 0), 4, 0);
    EXPECT_EQ(rd(cfg(1, 0), 4), 0x10421af4);
    wr(cfg(1, 4), 2, 0xffff);
    EXPECT_EQ(rd(cfg(1, 4), 2), 0x0546);
    EXPECT_EQ(rd(cfg(1, 0x100), 4), 0); /* no extended capabilities */
    EXPECT_EQ(rd(cfg(2, 0), 4), 0xffffffff);
    EXPECT_EQ(rd(ECAM + 0x100000, 4), 0xffffffff); /* bus 1 */
    EXPECT_EQ(rd(cfg(1, 0x1000), 4), 0xffffffff);  /* function 1 */
}

TEST(bars_are_sized_and_moved)
{
    static struct pci_function f;

    setup(false);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, 5, NULL), 0);
    wr(cfg(5, 0x14), 4, 0xffffffff);
    EXPECT_EQ(rd(cfg(5, 0x14), 4), 0xfffff000);
    wr(cfg(5, 0x20), 4, 0xffffffff);
    wr(cfg(5, 0x24), 4, 0xffffffff);
    EXPECT_EQ(rd(cfg(5, 0x20), 4), 0xffffc00c);
    EXPECT_EQ(rd(cfg(5, 0x24), 4), 0xffffffff);
    wr(cfg(5, 0x10), 4, 0xffffffff); /* absent */
    EXPECT_EQ(rd(cfg(5, 0x10), 4), 0);

    wr(cfg(5, 0x20), 4, MMIO32 + 0x8000);
    wr(cfg(5, 0x24), 4, 0);
    EXPECT_EQ(rd(MMIO32 + 0x8010, 4), 0xffffffff); /* decoding is off */
    wr(cfg(5, 4), 2, 2);
    EXPECT_EQ(rd(MMIO32 + 0x8010, 4), 0x410);
    EXPECT_EQ(rd(MMIO32 + 0xbffc, 4), 0x43fc);
    EXPECT_EQ(rd(MMIO32 + 0xc000, 4), 0xffffffff);
    wr(cfg(5, 0x24), 4, MMIO64 >> 32);
    wr(cfg(5, 0x20), 4, 0x4000);
    EXPECT_EQ(rd(MMIO64 + 0x4008, 8), 0x408);
    EXPECT_EQ(rd(MMIO32 + 0x8010, 4), 0xffffffff);
    wr(MMIO64 + 0x4ff8, 8, 0x1122334455667788);
    EXPECT_EQ(last_offset, 0xff8);
    EXPECT_EQ(last_value, 0x1122334455667788);
}

TEST(bars_are_placed_when_asked_and_again_at_reset)
{
    static struct pci_function a;
    static struct pci_function b;

    setup(true);
    ASSERT_EQ(pci_add(host, &a, &ops, &info, -1, NULL), 0);
    ASSERT_EQ(pci_add(host, &b, &ops, &info, -1, NULL), 0);
    EXPECT_EQ(rd(cfg(1, 0x14), 4), MMIO32);
    EXPECT_EQ(rd(cfg(2, 0x14), 4), MMIO32 + 0x1000);
    EXPECT_EQ(rd(cfg(1, 0x20), 8), MMIO64 | 0xc);
    EXPECT_EQ(rd(cfg(2, 0x20), 8), (MMIO64 + 0x4000) | 0xc);
    wr(cfg(1, 0x14), 4, MMIO32 + 0x100000);
    wr(cfg(1, 4), 2, 6);
    EXPECT_TRUE(pci_is_bus_master(&a));
    pci_host_reset(host);
    EXPECT_EQ(rd(cfg(1, 0x14), 4), MMIO32);
    EXPECT_EQ(rd(cfg(1, 4), 2), 0);
    EXPECT_EQ(resets, 2);
    EXPECT_TRUE(!pci_is_bus_master(&a));
}

TEST(intx_is_shared_swizzled_and_maskable)
{
    static struct pci_function a;
    static struct pci_function b;

    setup(false);
    ASSERT_EQ(pci_add(host, &a, &ops, &info, 2, NULL), 0);
    ASSERT_EQ(pci_add(host, &b, &ops, &info, 6, NULL), 0);
    pci_set_intx(&a, true);
    EXPECT_EQ(lines[2], 1);
    EXPECT_EQ(rd(cfg(2, 6), 2) & 8, 8);
    pci_set_intx(&b, true);
    pci_set_intx(&a, false);
    EXPECT_EQ(lines[2], 1);
    EXPECT_EQ(rd(cfg(2, 6), 2) & 8, 0);
    wr(cfg(6, 4), 2, 0x400);
    EXPECT_EQ(lines[2], 0);
    EXPECT_EQ(rd(cfg(6, 6), 2) & 8, 8); /* PCI 3.0 §6.2.3: not affected by the disable bit */
    wr(cfg(6, 4), 2, 0);
    EXPECT_EQ(lines[2], 1);
    pci_host_reset(host);
    EXPECT_EQ(lines[2], 0);
}

TEST(msix_messages_mask_and_pend)
{
    static struct pci_function f;

    setup(false);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, 1, NULL), 0);
    unsigned cap = find_cap(1, 0x11);
    ASSERT_TRUE(cap);
    EXPECT_EQ(rd(cfg(1, cap + 2), 2), 2);
    EXPECT_EQ(rd(cfg(1, cap + 4), 4), 1);
    EXPECT_EQ(rd(cfg(1, cap + 8), 4), 2048 | 1);
    wr(cfg(1, 0x14), 4, MMIO32);
    wr(cfg(1, 4), 2, 6);
    EXPECT_EQ(rd(MMIO32 + 12, 4), 1); /* masked at reset */
    wr(MMIO32 + 16, 8, RAM + 0x40);
    wr(MMIO32 + 24, 4, 0xabcd);
    wr(MMIO32 + 28, 4, 0xffffffff);
    EXPECT_EQ(rd(MMIO32 + 24, 8), 0x10000abcd);
    pci_msix_notify(&f, 1);
    EXPECT_EQ(rd(MMIO32 + 2048, 8), 0); /* disabled: dropped */
    wr(cfg(1, cap + 2), 2, 0x8000);
    EXPECT_TRUE(pci_msix_enabled(&f));
    pci_msix_notify(&f, 1);
    pci_msix_notify(&f, 99);
    EXPECT_EQ(rd(MMIO32 + 2048, 8), 2);
    EXPECT_EQ(rd(RAM + 0x40, 4), 0);
    wr(MMIO32 + 28, 4, 0);
    EXPECT_EQ(rd(RAM + 0x40, 4), 0xabcd);
    EXPECT_EQ(rd(MMIO32 + 2048, 8), 0);
    wr(RAM + 0x40, 4, 0);
    wr(cfg(1, cap + 2), 2, 0xc000); /* function mask */
    pci_msix_notify(&f, 1);
    EXPECT_EQ(rd(RAM + 0x40, 4), 0);
    wr(cfg(1, cap + 2), 2, 0x8000);
    EXPECT_EQ(rd(RAM + 0x40, 4), 0xabcd);
}

TEST(a_message_never_reaches_device_registers)
{
    static struct pci_function f;

    setup(false);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, 1, NULL), 0);
    unsigned cap = find_cap(1, 0x11);
    wr(cfg(1, 0x20), 8, MMIO64);
    wr(cfg(1, 0x14), 4, MMIO32);
    wr(cfg(1, 4), 2, 6);
    wr(MMIO32, 8, MMIO64 + 0x20);
    wr(MMIO32 + 12, 4, 0);
    wr(cfg(1, cap + 2), 2, 0x8000);
    last_offset = 77;
    pci_msix_notify(&f, 0);
    EXPECT_EQ(last_offset, 77);
}

TEST(function_level_reset)
{
    static struct pci_function f;

    setup(false);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, 1, NULL), 0);
    unsigned cap = find_cap(1, 0x10);
    ASSERT_TRUE(cap);
    EXPECT_EQ(rd(cfg(1, cap + 4), 4) >> 28, 1);
    wr(cfg(1, 4), 2, 6);
    wr(cfg(1, cap + 8), 2, 0x8000);
    EXPECT_EQ(resets, 1);
    EXPECT_EQ(rd(cfg(1, 4), 2), 0);
    EXPECT_EQ(rd(cfg(1, cap + 8), 2), 0);
}

TEST(slots_and_capability_space_run_out_politely)
{
    static struct pci_function f[33];
    uint8_t big[128] = {0};
    int rc = 0;
    int n = 0;

    setup(false);
    while (n < 33 && !rc)
        rc = pci_add(host, &f[n++], &ops, &info, -1, NULL);
    EXPECT_EQ(rc, -ENOSPC);
    EXPECT_EQ(n, 32); /* 31 beside the bridge */
    EXPECT_EQ(pci_add(host, &f[32], &ops, &info, 4, NULL), -ENOSPC);
    EXPECT_EQ(pci_add_capability(&f[0], 9, big, NULL, sizeof(big)), -ENOSPC);
    EXPECT_TRUE(pci_add_capability(&f[0], 9, big, NULL, 20) > 0);
    EXPECT_TRUE(find_cap(1, 9));
    pci_remove(&f[0]);
    EXPECT_EQ(rd(cfg(1, 0), 4), 0xffffffff);
}

TEST(saved_state_loads)
{
    struct state_out *out = state_out_new();
    struct pci_function f;
    struct error err = {0};

    setup(true);
    ASSERT_EQ(pci_add(host, &f, &ops, &info, 3, NULL), 0);
    uint64_t config = ECAM + (3 << 15);
    mem_write(mem, GPA(config + 0x04), 2, 6);
    mem_write(mem, GPA(config + 0x14), 4, MMIO32 + 0x700000);
    mem_write(mem, GPA(config + 0x3c), 1, 99);
    mem_write(mem, GPA(MMIO32 + 0x700000 + 16), 4, RAM + 0x10);
    mem_write(mem, GPA(MMIO32 + 0x700000 + 24), 4, 0x55);
    pci_set_intx(&f, true);
    pci_host_save(host, out);
    struct state_in *in = test_state_turn(out);
    pci_host_reset(host);
    EXPECT_EQ(lines[3], 0);
    EXPECT_EQ(rd(config + 0x3c, 1), 0);
    if (pci_host_load(host, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(lines[3], 1);
    EXPECT_EQ(rd(config + 0x3c, 1), 99);
    EXPECT_EQ(rd(config + 0x04, 2), 6);
    EXPECT_EQ(rd(MMIO32 + 0x700000 + 16, 4), RAM + 0x10);
    EXPECT_EQ(rd(MMIO32 + 0x700000 + 24, 4), 0x55);
    pci_remove(&f);
    EXPECT_EQ(pci_host_load(host, in, &err), -EINVAL); /* the device is missing */
    state_in_free(in);
}

TEST(doorbells_are_where_their_bar_is_decoded)
{
    const struct pci_doorbell two[] = {
        {.offset = 0x3000, .fd = 7},
        {.offset = 0x3004, .fd = 8}
    };
    struct pci_function f[2];
    const uint64_t place = MMIO64 + 0x100000;

    setup(false);
    ASSERT_EQ(pci_add(host, &f[0], &ops, &info, 1, NULL), 0);
    ASSERT_EQ(pci_add(host, &f[1], &ops, &info, 2, NULL), 0);
    wr(cfg(1, 0x20), 4, (uint32_t)place);
    wr(cfg(1, 0x24), 4, place >> 32);
    pci_set_doorbells(&f[0], 4, two, 2);
    EXPECT_EQ(bell_calls, 0); /* not decoded yet */
    wr(cfg(1, 4), 2, 2);
    EXPECT_EQ(bell_at(place + 0x3000), 7);
    EXPECT_EQ(bell_at(place + 0x3004), 8);
    wr(cfg(1, 0x20), 4, (uint32_t)place + 0x10000);
    EXPECT_EQ(bell_at(place + 0x3000), -1);
    EXPECT_EQ(bell_at(place + 0x13004), 8);
    wr(cfg(1, 0x24), 4, 0x7fffffff); /* in no window: nobody is there */
    EXPECT_EQ(bell_at(place + 0x13004), -1);
    wr(cfg(1, 0x24), 4, place >> 32);
    /* another function at the same place has none there, and its own elsewhere */
    wr(cfg(2, 0x20), 4, (uint32_t)place + 0x10000);
    wr(cfg(2, 0x24), 4, place >> 32);
    wr(cfg(2, 4), 2, 2);
    pci_set_doorbells(&f[1], 4, two + 1, 1);
    EXPECT_EQ(bell_at(place + 0x13004), 8);
    wr(cfg(2, 0x20), 4, (uint32_t)place);
    EXPECT_EQ(bell_at(place + 0x3004), 8);
    pci_set_doorbells(&f[0], 4, NULL, 0);
    EXPECT_EQ(bell_at(place + 0x13004), -1);
    pci_host_reset(host);
    EXPECT_EQ(bell_at(place + 0x3004), -1);
    pci_remove(&f[0]);
    pci_remove(&f[1]);
}
