/* Tests of the AHCI controller with a disk and a CD-ROM drive, driven as a driver drives it.
 * Specs: AHCI 1.3.1, ATA8-ACS, MMC-6. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/test.h"
#include "device/ata/ahci.h"
#include "disk/file_memory.h"
#include "disk/format.h"
#include "state/test_state.h"

#include <errno.h>
#include <unistd.h>

#define ECAM    0x30000000ULL
#define MMIO    0x40000000ULL
#define LIST    0x1000ULL /* command list of port 0; of port 1, one page more */
#define RX      0x3000ULL
#define TABLE   0x5000ULL
#define DATA    0x10000ULL
#define SECTORS 4096u
#define BLOCKS  100u

enum { GHC = 4, IS = 8, PX_IS = 0x10, PX_IE = 0x14, PX_CMD = 0x18, PX_TFD = 0x20, PX_SIG = 0x24 };
enum { PX_SSTS = 0x28, PX_SCTL = 0x2c, PX_SACT = 0x34, PX_CI = 0x38 };

static struct mem *mem;
static struct pci_host *host;
static struct ahci *ahci;
static bool line;

static void set_line(void *controller, unsigned input, bool level)
{
    line = level;
}

static uint32_t reg(unsigned port, unsigned offset)
{
    uint64_t v = 0;

    offset += port < 32 ? 0x100 + port * 0x80 : 0;
    EXPECT_EQ(mem_read(mem, GPA(MMIO + offset), 4, &v), BUS_OK);
    return (uint32_t)v;
}

static void set_reg(unsigned port, unsigned offset, uint32_t v)
{
    offset += port < 32 ? 0x100 + port * 0x80 : 0;
    EXPECT_EQ(mem_write(mem, GPA(MMIO + offset), 4, v), BUS_OK);
}
#define HBA 99u

static struct disk *new_disk(uint64_t bytes)
{
    struct file *f = file_memory_new(NULL, bytes, bytes);
    struct disk *d;

    for (uint64_t i = 0; i < bytes / 512; i++) {
        uint8_t sector[512];

        memset(sector, (int)(i & 0xff), sizeof(sector));
        store_le64(sector, i);
        const struct iovec iov = {sector, sizeof(sector)};
        ASSERT_EQ(f->ops->pwritev(f, &iov, 1, i * 512), 0);
    }
    ASSERT_EQ(disk_open_file(f, disk_format_find("raw"), 0, NULL, &d, NULL), 0);
    return d;
}

static void start_port(unsigned port)
{
    set_reg(port, 0x00, (uint32_t)(LIST + port * 0x1000));
    set_reg(port, 0x08, (uint32_t)(RX + port * 0x1000));
    set_reg(port, PX_IS, UINT32_MAX);
    set_reg(port, PX_IE, 0x7dc000ff);
    set_reg(port, PX_CMD, 0x10);
    set_reg(port, PX_CMD, 0x11);
}

static void build(void)
{
    struct pci_host_config c = {
        .ecam = GPA(ECAM),
        .ecam_size = 1 << 20,
        .mmio32 = GPA(MMIO),
        .mmio32_size = 1 << 20,
        .intx = {{set_line}, {set_line}, {set_line}, {set_line}},
        .assign_bars = true,
    };

    mem = mem_new();
    ASSERT_EQ(mem_add_ram(mem, GPA(0), 1 << 20, 0, "ram", NULL, NULL, NULL, NULL), 0);
    ASSERT_EQ(pci_host_new(mem, &c, &host, NULL), 0);
    ASSERT_EQ(ahci_new(host, 3, &ahci, NULL), 0);
    ASSERT_EQ(ahci_attach(ahci, 0, new_disk(SECTORS * 512), false, "disk0", NULL), 0);
    ASSERT_EQ(ahci_attach(ahci, 1, new_disk(BLOCKS * 2048), true, "cd0", NULL), 0);
    mem_freeze(mem);
    ASSERT_EQ(mem_write(mem, GPA(ECAM + 0x8004), 2, 6), BUS_OK);
}

static void setup(void)
{
    build();
    set_reg(HBA, GHC, 2);
    start_port(0);
    start_port(1);
}

static void end(void)
{
    ahci_free(ahci);
    pci_host_free(host);
    mem_free(mem);
}

static uint8_t *ram(uint64_t at)
{
    return mem_ptr(mem, GPA(at), 1, true);
}

/** A command in slot @slot with @bytes of data at DATA, in regions of at most 4000 bytes. */
static uint8_t *put_command(unsigned port, unsigned slot, uint8_t command, uint64_t lba,
                            uint16_t count, uint32_t bytes)
{
    uint64_t table = TABLE + port * 0x2000 + slot % 8 * 0x400;
    uint8_t *h = ram(LIST + port * 0x1000 + 32 * slot);
    uint8_t *t = ram(table);
    uint16_t regions = 0;

    memset(h, 0, 32);
    memset(t, 0, 0x400);
    for (uint32_t at = 0; at < bytes; at += 4000, regions++) {
        store_le64(t + 0x80 + 16 * regions, DATA + at);
        store_le32(t + 0x80 + 16 * regions + 12, MIN(bytes - at, 4000u) - 1);
    }
    h[0] = 5;
    store_le16(h + 2, regions);
    store_le64(h + 8, table);
    t[0] = 0x27;
    t[1] = 0x80;
    t[2] = command;
    for (unsigned i = 0; i < 3; i++) {
        t[4 + i] = (uint8_t)(lba >> 8 * i);
        t[8 + i] = (uint8_t)(lba >> 8 * (i + 3));
    }
    t[7] = 0x40;
    t[12] = (uint8_t)count;
    t[13] = (uint8_t)(count >> 8);
    return t;
}

/** Issue slot 0 and wait for its end, or failure. The task file's status. */
static uint8_t go(unsigned port)
{
    int64_t deadline = host_now_ns() + 20LL * 1000000000;

    memset(ram(RX + port * 0x1000), 0, 256);
    set_reg(port, PX_CI, 1);
    while (reg(port, PX_CI) & 1 && !(reg(port, PX_IS) & 0x60000000)) {
        usleep(100);
        if (host_now_ns() > deadline) {
            test_fail(__FILE__, __LINE__, "the command does not end");
            test_abort();
        }
    }
    return (uint8_t)reg(port, PX_TFD);
}

static uint8_t command(unsigned port, uint8_t code, uint64_t lba, uint16_t count, uint32_t bytes)
{
    (void)put_command(port, 0, code, lba, count, bytes);
    return go(port);
}

/** After an error (AHCI §6.2.2.1). */
static void recover(unsigned port)
{
    EXPECT_EQ(reg(port, PX_CI) & 1, 1); /* the slot is still there to see */
    set_reg(port, PX_CMD, 0x10);
    EXPECT_EQ(reg(port, PX_CI), 0);
    EXPECT_EQ(reg(port, PX_CMD) & 0x8000, 0);
    set_reg(port, PX_IS, UINT32_MAX);
    set_reg(port, PX_CMD, 0x11);
}

static uint8_t packet(const uint8_t *bytes, size_t size, uint32_t data)
{
    memcpy(put_command(1, 0, 0xa0, 0x0200000, 0, data) + 0x40, bytes, size);
    return go(1);
}
#define PACKET(data, ...) \
    packet((const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}), data)

TEST(a_driver_finds_drives_by_links_and_signatures)
{
    uint64_t v = 0;

    build();
    EXPECT_EQ(mem_read(mem, GPA(ECAM + 0x8008), 4, &v), BUS_OK);
    EXPECT_EQ(v >> 8, 0x010601);
    EXPECT_EQ(reg(HBA, 0) & 0x1f, 2);
    EXPECT_EQ(reg(HBA, 0xc), 7);
    EXPECT_EQ(reg(HBA, 0x10), 0x10301);
    EXPECT_EQ(reg(HBA, GHC), 0x80000000);
    EXPECT_EQ(reg(0, PX_SSTS), 0x123);
    EXPECT_EQ(reg(0, PX_SIG), 0x101);
    EXPECT_EQ(reg(1, PX_SIG), 0xeb140101);
    EXPECT_EQ(reg(2, PX_SSTS), 0);
    EXPECT_EQ(reg(2, PX_TFD) & 0xff, 0x7f);
    EXPECT_EQ(reg(3, PX_SSTS), 0); /* no such port */
    set_reg(0, PX_SCTL, 0x301);
    EXPECT_EQ(reg(0, PX_SSTS), 0);
    EXPECT_EQ(reg(0, PX_SIG), UINT32_MAX);
    set_reg(0, PX_SCTL, 0x300);
    EXPECT_EQ(reg(0, PX_SSTS), 0x123);
    EXPECT_EQ(reg(0, PX_SIG), 0x101);
    EXPECT_EQ(reg(0, PX_TFD), 0x150);
    end();
}

TEST(a_disk_says_what_it_is)
{
    setup();
    EXPECT_EQ(command(0, 0xec, 0, 0, 512), 0x50);
    const uint8_t *id = ram(DATA);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + id[i]);
    EXPECT_EQ(sum, 0);
    EXPECT_MEM(id + 20, "idks 0", 6); /* letters of a word are swapped */
    EXPECT_EQ(load_le32(id + 120), SECTORS);
    EXPECT_EQ(load_le64(id + 200), SECTORS);
    EXPECT_EQ(load_le32(ram(LIST + 4)), 512); /* PRDBC */
    EXPECT_EQ(*ram(RX + 0x20), 0x5f);         /* a PIO setup, */
    EXPECT_EQ(*ram(RX + 0x20 + 15), 0x50);
    EXPECT_EQ(*ram(RX + 0x40), 0); /* and no register FIS (Serial ATA 3 §11.8) */
    EXPECT_EQ(reg(0, PX_IS), 2);
    EXPECT_EQ(command(0, 0xa1, 0, 0, 512), 0x51); /* it is no packet device */
    EXPECT_EQ(reg(0, PX_TFD), 0x451);
    recover(0);
    EXPECT_EQ(command(0, 0x2f, 0x10, 1, 512), 0x50);
    EXPECT_EQ(*ram(DATA), 0x80); /* no queued command failed */
    end();
}

TEST(sectors_are_read_and_written)
{
    setup();
    EXPECT_EQ(command(0, 0x25, 1000, 40, 40 * 512), 0x50);
    for (unsigned i = 0; i < 40; i++)
        EXPECT_EQ(load_le64(ram(DATA + 512 * i)), 1000 + i);
    EXPECT_EQ(reg(0, PX_IS), 1);
    EXPECT_EQ(*ram(RX + 0x40), 0x34);
    memset(ram(DATA), 0x5a, 1024);
    EXPECT_EQ(command(0, 0x35, 1001, 2, 1024), 0x50);
    EXPECT_EQ(command(0, 0x3d, 1003, 1, 512), 0x50); /* forced to the medium */
    EXPECT_EQ(command(0, 0xc8, 1000, 5, 5 * 512), 0x50);
    EXPECT_EQ(load_le64(ram(DATA)), 1000);
    EXPECT_EQ(*ram(DATA + 512), 0x5a);
    EXPECT_EQ(*ram(DATA + 3 * 512), 0x5a);
    EXPECT_EQ(load_le64(ram(DATA + 4 * 512)), 1004);
    EXPECT_EQ(command(0, 0xea, 0, 0, 0), 0x50);
    EXPECT_EQ(command(0, 0x25, SECTORS - 1, 2, 1024), 0x51);
    EXPECT_EQ(reg(0, PX_TFD) >> 8, 0x14); /* not found */
    recover(0);
    EXPECT_EQ(command(0, 0x25, 0xffffffffffffULL, 0, 1024), 0x51);
    recover(0);
    EXPECT_EQ(command(0, 0x25, 8, 2, 512), 0x50); /* too little memory */
    EXPECT_EQ(reg(0, PX_IS) & 1 << 24, 1 << 24);
    end();
}

TEST(queued_commands_end_by_their_bits)
{
    int64_t deadline = host_now_ns() + 20LL * 1000000000;

    setup();
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *t = put_command(0, i, 0x60, i * 100, (uint16_t)(i << 3), 512);

        t[3] = 1; /* the count */
        store_le64(t + 0x80, DATA + 512 * i);
    }
    set_reg(0, PX_SACT, 0xff);
    set_reg(0, PX_CI, 0xff);
    while (reg(0, PX_SACT) && host_now_ns() < deadline)
        usleep(100);
    EXPECT_EQ(reg(0, PX_SACT), 0);
    EXPECT_EQ(reg(0, PX_CI), 0);
    for (unsigned i = 0; i < 8; i++)
        EXPECT_EQ(load_le64(ram(DATA + 512 * i)), i * 100);
    EXPECT_EQ(*ram(RX + 0x58), 0xa1);
    EXPECT_EQ(reg(0, PX_IS), 8);

    uint8_t *t = put_command(0, 3, 0x60, SECTORS, 3 << 3, 512); /* fails, and is kept */
    t[3] = 1;
    set_reg(0, PX_SACT, 8);
    set_reg(0, PX_CI, 8);
    while (!(reg(0, PX_IS) & 1 << 30) && host_now_ns() < deadline)
        usleep(100);
    EXPECT_EQ(reg(0, PX_SACT), 8);
    set_reg(0, PX_CMD, 0x10);
    set_reg(0, PX_IS, UINT32_MAX);
    set_reg(0, PX_CMD, 0x11);
    EXPECT_EQ(command(0, 0x2f, 0x10, 1, 512), 0x50);
    EXPECT_EQ(*ram(DATA), 3);
    EXPECT_EQ(load_le32(ram(DATA + 4)) & 0xffffff, SECTORS);
    end();
}

TEST(what_is_trimmed_may_read_as_zeroes)
{
    setup();
    memset(ram(DATA), 0, 512);
    store_le64(ram(DATA), 16ULL | 8ULL << 48);
    put_command(0, 0, 0x06, 0, 1, 512)[3] = 1;
    EXPECT_EQ(go(0), 0x50);
    store_le64(ram(DATA), (SECTORS - 1) | 8ULL << 48);
    put_command(0, 0, 0x06, 0, 1, 512)[3] = 1;
    EXPECT_EQ(go(0), 0x51);
    recover(0);
    EXPECT_EQ(command(0, 0x25, 24, 1, 512), 0x50);
    EXPECT_EQ(load_le64(ram(DATA)), 24);
    end();
}

TEST(interrupts_follow_what_is_enabled)
{
    setup();
    EXPECT_TRUE(!line);
    EXPECT_EQ(command(0, 0xea, 0, 0, 0), 0x50);
    while (!line)
        usleep(100);
    EXPECT_EQ(reg(HBA, IS), 1);
    set_reg(HBA, IS, 1); /* the port's reason is still there */
    EXPECT_EQ(reg(HBA, IS), 1);
    set_reg(0, PX_IS, UINT32_MAX);
    set_reg(HBA, IS, 1);
    EXPECT_TRUE(!line);
    set_reg(0, PX_IE, 0);
    EXPECT_EQ(command(0, 0xea, 0, 0, 0), 0x50);
    EXPECT_EQ(reg(HBA, IS), 0);
    EXPECT_TRUE(!line);
    end();
}

TEST(a_reset_of_two_steps_shows_the_signature)
{
    setup();
    uint8_t *t = put_command(1, 0, 0, 0, 0, 0);
    t[1] = 0;
    t[15] = 4;
    EXPECT_EQ(go(1) & 0x80, 0x80);
    t[15] = 0;
    EXPECT_EQ(go(1) & 0x80, 0);
    EXPECT_EQ(*ram(RX + 0x1040), 0x34);
    EXPECT_EQ(*ram(RX + 0x1040 + 5), 0x14);
    EXPECT_EQ(*ram(RX + 0x1040 + 6), 0xeb);
    end();
}

TEST(structures_that_lie_nowhere_stop_the_port)
{
    setup();
    (void)put_command(0, 0, 0x25, 0, 1, 512);
    store_le64(ram(LIST + 8), 0x70000000); /* the table */
    (void)go(0);
    EXPECT_EQ(reg(0, PX_IS) & 1 << 29, 1 << 29);
    recover(0);
    uint8_t *t = put_command(0, 0, 0x25, 0, 1, 512);
    store_le64(t + 0x80, MMIO); /* the data: registers are no memory */
    (void)go(0);
    EXPECT_EQ(reg(0, PX_IS) & 1 << 29, 1 << 29);
    recover(0);
    set_reg(0, PX_CMD, 0x10);
    set_reg(0, 0x00, 0x80000000); /* the list */
    set_reg(0, 0x08, 0x80000000); /* where answers go */
    set_reg(0, PX_CMD, 0x11);
    (void)go(0);
    EXPECT_EQ(reg(0, PX_IS) & 1 << 29, 1 << 29);
    set_reg(HBA, GHC, 1); /* the controller's reset */
    EXPECT_EQ(reg(HBA, GHC), 0x80000000);
    EXPECT_EQ(reg(0, 0), 0);
    end();
}

TEST(a_cd_rom_drive_says_what_it_is)
{
    setup();
    EXPECT_EQ(command(1, 0xa1, 0, 0, 512), 0x40);
    EXPECT_EQ(load_le16(ram(DATA)), 0x85c0);
    EXPECT_EQ(command(1, 0xec, 0, 0, 512), 0x51);
    EXPECT_EQ(*ram(RX + 0x1040 + 6), 0xeb); /* "packet device" */
    recover(1);
    EXPECT_EQ(PACKET(36, 0x12, 0, 0, 0, 36), 0x40);
    EXPECT_EQ(*ram(DATA), 5);
    EXPECT_MEM(ram(DATA + 8), "Posada  CD-ROM ", 15);
    EXPECT_EQ(*ram(RX + 0x1020), 0x5f); /* the data by PIO, then the end */
    EXPECT_EQ(*ram(RX + 0x1040), 0x34);
    EXPECT_EQ(PACKET(512, 0x46, 0, 0, 0, 0, 0, 0, 2, 0), 0x40);
    EXPECT_EQ(load_be16(ram(DATA + 6)), 8);
    EXPECT_EQ(load_be32(ram(DATA)) + 4, load_le32(ram(LIST + 0x1000 + 4)));
    EXPECT_EQ(PACKET(512, 0x46, 2, 0, 0x1e, 0, 0, 0, 2, 0), 0x40);
    EXPECT_EQ(load_be16(ram(DATA + 8)), 0x1e);
    EXPECT_EQ(PACKET(512, 0x5a, 0, 0x2a, 0, 0, 0, 0, 2, 0), 0x40);
    EXPECT_EQ(*ram(DATA + 8), 0x2a);
    EXPECT_EQ(PACKET(512, 0xff), 0x41);
    EXPECT_EQ(reg(1, PX_TFD) >> 8, 0x54);
    recover(1);
    EXPECT_EQ(PACKET(18, 0x03, 0, 0, 0, 18), 0x40);
    EXPECT_EQ(*ram(DATA + 2), 5);
    EXPECT_EQ(*ram(DATA + 12), 0x20);
    EXPECT_EQ(PACKET(18, 0x03, 0, 0, 0, 18), 0x40);
    EXPECT_EQ(*ram(DATA + 2), 0); /* told once */
    end();
}

TEST(a_cd_is_read)
{
    setup();
    EXPECT_EQ(PACKET(0, 0), 0x40);
    EXPECT_EQ(PACKET(8, 0x25), 0x40);
    EXPECT_EQ(load_be32(ram(DATA)), BLOCKS - 1);
    EXPECT_EQ(load_be32(ram(DATA + 4)), 2048);
    EXPECT_EQ(PACKET(3 * 2048, 0x28, 0, 0, 0, 0, 10, 0, 0, 3), 0x40);
    EXPECT_EQ(load_le64(ram(DATA)), 40); /* in sectors of 512 bytes */
    EXPECT_EQ(load_le64(ram(DATA + 2 * 2048)), 48);
    EXPECT_EQ(PACKET(2048, 0xa8, 0, 0, 0, 0, BLOCKS - 1, 0, 0, 0, 1), 0x40);
    EXPECT_EQ(load_le64(ram(DATA)), 4 * (BLOCKS - 1));
    EXPECT_EQ(PACKET(2048, 0x28, 0, 0, 0, 0, BLOCKS, 0, 0, 1), 0x41);
    recover(1);
    EXPECT_EQ(PACKET(2048, 0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), 0x41);
    recover(1);
    EXPECT_EQ(PACKET(20, 0x43, 0, 0, 0, 0, 0, 0, 0, 20), 0x40);
    EXPECT_EQ(load_be16(ram(DATA)), 18);
    EXPECT_EQ(*ram(DATA + 14), 0xaa);
    EXPECT_EQ(load_be32(ram(DATA + 16)), BLOCKS);
    EXPECT_EQ(PACKET(20, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 20), 0x40);
    EXPECT_EQ(load_be32(ram(DATA + 8)), (BLOCKS + 150) / 75 << 8 | (BLOCKS + 150) % 75);
    end();
}

TEST(a_cd_is_ejected_and_put_back)
{
    setup();
    EXPECT_EQ(PACKET(0, 0x1e, 0, 0, 0, 1), 0x40);
    EXPECT_EQ(PACKET(0, 0x1b, 0, 0, 0, 2), 0x41); /* locked */
    recover(1);
    EXPECT_EQ(PACKET(0, 0x1e, 0, 0, 0, 0), 0x40);
    EXPECT_EQ(PACKET(0, 0x1b, 0, 0, 0, 2), 0x40);
    EXPECT_EQ(PACKET(2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0x41);
    EXPECT_EQ(reg(1, PX_TFD) >> 8, 0x20); /* not ready */
    recover(1);
    EXPECT_EQ(PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0x40);
    EXPECT_EQ(*ram(DATA + 5), 1);
    EXPECT_EQ(PACKET(0, 0x1b, 0, 0, 0, 3), 0x40);
    EXPECT_EQ(PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0x40);
    EXPECT_EQ(*ram(DATA + 4), 2);
    EXPECT_EQ(PACKET(0, 0), 0x41); /* it was changed, */
    EXPECT_EQ(reg(1, PX_TFD) >> 8, 0x60);
    recover(1);
    EXPECT_EQ(PACKET(0, 0), 0x40); /* which is told once */
    end();
}

TEST(a_frozen_port_begins_nothing_and_its_state_loads)
{
    struct state_out *save = state_out_new();
    struct error err = {0};

    setup();
    ahci_freeze(ahci);
    (void)put_command(0, 0, 0x25, 77, 1, 512);
    store_le64(ram(DATA), 0);
    set_reg(0, PX_CI, 1);
    usleep(20000);
    EXPECT_EQ(reg(0, PX_CI), 1);
    EXPECT_EQ(load_le64(ram(DATA)), 0);
    ahci_save(ahci, save);
    struct state_in *load = test_state_turn(save);
    set_reg(HBA, GHC, 1);
    EXPECT_EQ(reg(0, PX_CI), 0);
    if (ahci_load(ahci, load, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(reg(0, PX_CI), 1);
    EXPECT_EQ(reg(0, PX_CMD) & 0x11, 0x11);
    ahci_thaw(ahci);
    while (reg(0, PX_CI))
        usleep(100);
    EXPECT_EQ(load_le64(ram(DATA)), 77); /* the command that waited */
    state_in_free(load);

    ahci_hold(ahci, 0);
    struct disk *old = ahci_disk(ahci, 0);
    ahci_set_disk(ahci, 0, new_disk(SECTORS * 512));
    disk_close(old);
    ahci_release(ahci, 0);
    EXPECT_EQ(command(0, 0x25, 5, 1, 512), 0x50);
    EXPECT_EQ(load_le64(ram(DATA)), 5);
    end();
}
