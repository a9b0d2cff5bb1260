/* Tests of the board `pc`: its memory map, ports and tables, as a kernel and firmware see them. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/test.h"
#include "board/pc.h"
#include "board/pc_internal.h"
#include "state/test_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct mem *mem, *ports;
static struct vclock vclock;
static struct loop *loop;
static struct pc_board *board;
static int gsi[PC_GSIS];
static unsigned gsi_changes, resets, poweroffs, poweroff_code;
static uint64_t msi_addr;
static uint32_t msi_data;

static void set_gsi(void *arg, unsigned n, bool level)
{
    gsi[n] = level;
    gsi_changes++;
}

static void signal_msi(void *arg, uint64_t addr, uint32_t data)
{
    msi_addr = addr;
    msi_data = data;
}

static void nothing(void *arg)
{
}

static void poweroff(void *arg, unsigned code)
{
    poweroffs++;
    poweroff_code = code;
}

static void reset(void *arg)
{
    resets++;
}

static void setup(uint64_t memory_bytes, const char *firmware)
{
    struct pc_config c = {
        .cpus = 2,
        .memory_bytes = memory_bytes,
        .clock = &vclock,
        .firmware = firmware,
        .set_gsi = set_gsi,
        .signal_msi = signal_msi,
        .reset_chips = nothing,
        .pause = nothing,
        .resume = nothing,
        .poweroff = poweroff,
        .reset = reset,
    };
    struct error err = {0};

    vclock_init(&vclock, 1000000000);
    vclock_pause(&vclock);
    c.mem = mem = mem_new();
    c.ports = ports = mem_new();
    c.loop = loop = loop_new("test");
    if (pc_board_new(&c, &board, &err)) {
        test_fail(__FILE__, __LINE__, "%s", err.text);
        test_abort();
    }
    mem_freeze(mem);
    mem_freeze(ports);
}

static void end(void)
{
    board_free(pc_board_base(board));
    loop_free(loop);
    mem_free(mem);
    mem_free(ports);
}

static uint64_t in(unsigned port, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(ports, GPA(port), size, &v), BUS_OK);
    return v & MASK(8 * size);
}

static void out(unsigned port, unsigned size, uint64_t v)
{
    EXPECT_EQ(mem_write(ports, GPA(port), size, v), BUS_OK);
}

static uint64_t rd(uint64_t addr, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(addr), size, &v), BUS_OK);
    return v & MASK(8 * size);
}

static uint8_t sum(uint64_t at, uint64_t size)
{
    uint8_t s = 0;

    for (uint64_t i = 0; i < size; i++)
        s = (uint8_t)(s + rd(at + i, 1));
    return s;
}

TEST(memory_is_split_below_four_gibibytes)
{
    struct x86_range r[X86_RANGES];

    setup(3ULL << 30, NULL);
    EXPECT_EQ(pc_board_low_ram(board), 2ULL << 30);
    ASSERT_EQ(pc_board_ranges(board, r), 5);
    EXPECT_EQ(r[4].base, 4ULL << 30);
    EXPECT_EQ(r[4].size, 1ULL << 30);
    EXPECT_TRUE(mem_ptr(mem, GPA(5ULL << 30), 1, true) == NULL);
    EXPECT_TRUE(mem_ptr(mem, GPA((5ULL << 30) - 4096), 4096, true) != NULL);
    end();
}

/* With $POSADA_ACPI_DIR set, the tables are left there for a look with iasl. */
TEST(tables_hang_together)
{
    static const char *const sigs[] = {"FACP", "APIC", "MCFG"};
    const char *dir = getenv("POSADA_ACPI_DIR");
    uint64_t rsdp;

    setup(128 << 20, NULL);
    ASSERT_EQ(pc_board_put_tables(board, &rsdp, NULL), 0);
    EXPECT_EQ(sum(rsdp, 20), 0);
    EXPECT_EQ(sum(rsdp, 36), 0);
    uint64_t xsdt = rd(rsdp + 24, 8);
    ASSERT_EQ(rd(xsdt, 4), 0x54445358);
    ASSERT_EQ(rd(xsdt + 4, 4), 36 + 8 * ARRAY_SIZE(sigs));
    EXPECT_EQ(sum(xsdt, rd(xsdt + 4, 4)), 0);
    for (unsigned i = 0; i <= ARRAY_SIZE(sigs); i++) {
        uint64_t fadt = rd(xsdt + 36, 8);
        uint64_t at = i < ARRAY_SIZE(sigs) ? rd(xsdt + 36 + 8 * i, 8) : rd(fadt + 40, 4);
        const char *sig = i < ARRAY_SIZE(sigs) ? sigs[i] : "DSDT";
        uint64_t size = rd(at + 4, 4);

        EXPECT_MEM(mem_ptr(mem, GPA(at), 4, false), sig, 4);
        EXPECT_EQ(sum(at, size), 0);
        if (dir) {
            char path[200];
            (void)snprintf(path, sizeof(path), "%s/%s.dat", dir, sig);
            FILE *f = fopen(path, "wb");
            ASSERT_TRUE(f);
            ASSERT_EQ(fwrite(mem_ptr(mem, GPA(at), size, false), 1, size, f), size);
            (void)fclose(f);
        }
    }
    EXPECT_MEM(mem_ptr(mem, GPA(PC_SMBIOS), 5, false), "_SM3_", 5);
    uint64_t smbios = rd(PC_SMBIOS + 16, 8);
    EXPECT_EQ(rd(smbios, 2), 26 << 8); /* firmware's structure, the first */
    EXPECT_TRUE(smbios + rd(PC_SMBIOS + 12, 4) <= 0x100000);
    uint64_t mcfg = rd(xsdt + 36 + 16, 8);
    EXPECT_EQ(rd(mcfg + 44, 8), PC_ECAM);
    EXPECT_EQ(rd(mcfg + 55, 1), 0); /* the last bus: only what is there is looked through */
    uint64_t fadt = rd(xsdt + 36, 8);
    EXPECT_EQ(rd(fadt + 4, 4), 276);
    EXPECT_EQ(rd(fadt + 140, 8), rd(fadt + 40, 4)); /* X_DSDT */
    EXPECT_EQ(rd(rd(fadt + 36, 4), 4), 0x53434146); /* FACS */
    EXPECT_EQ(rd(fadt + 36, 4) % 64, 0);
    EXPECT_EQ(rd(fadt + 116 + 4, 8), PM_RESET_PORT); /* RESET_REG */
    EXPECT_EQ(rd(fadt + 128, 1), PM_RESET_VALUE);
    EXPECT_EQ(rd(fadt + 148 + 4, 8), PM_PORT);              /* X_PM1a_EVT_BLK */
    EXPECT_EQ(rd(fadt + 172 + 4, 8), PM_PORT + PM_CONTROL); /* X_PM1a_CNT_BLK */
    EXPECT_EQ(rd(fadt + 208 + 4, 8), PM_PORT + PM_TIMER);   /* X_PM_TMR_BLK */
    EXPECT_EQ(rd(fadt + 220 + 4, 8), PM_PORT + PM_GPE);     /* X_GPE0_BLK */
    end();
}

TEST(configuration_space_by_ports_and_by_a_window_that_moves)
{
    setup(128 << 20, NULL);
    out(0xcf8, 4, 0x80000000);
    EXPECT_EQ(in(0xcf8, 4), 0x80000000);
    EXPECT_EQ(in(0xcfc, 4), 0x29c08086);
    EXPECT_EQ(in(0xcfe, 2), 0x29c0);
    out(0xcf8, 4, 0x8000f800);
    EXPECT_EQ(in(0xcfc, 4), 0x29188086);
    EXPECT_EQ(in(0xcff, 1), 0x29);
    out(0xcf8, 4, 0x8000f804);
    out(0xcfc, 2, 0);
    EXPECT_EQ(in(0xcfc, 2), 7);
    out(0xcf8, 4, 0x8000f840);
    EXPECT_EQ(in(0xcfc, 4), PM_PORT | 1);
    out(0xcf8, 4, 0x80001000); /* an empty slot */
    EXPECT_EQ(in(0xcfc, 4), 0xffffffff);
    EXPECT_EQ(rd(PC_ECAM, 4), 0x29c08086);
    EXPECT_EQ(rd(PC_ECAM + 31 * 0x8000, 4), 0x29188086);
    out(0xcf8, 4, 0x80000060);
    EXPECT_EQ(in(0xcfc, 4), PC_ECAM | 1);
    out(0xcfc, 4, 0xb0000001);
    EXPECT_EQ(rd(0xb0000000, 4), 0x29c08086);
    EXPECT_EQ(rd(PC_ECAM, 4), 0xffffffff);
    out(0xcfc, 4, 0);
    EXPECT_EQ(rd(0xb0000000, 4), 0xffffffff);
    board_reset(pc_board_base(board));
    EXPECT_EQ(rd(PC_ECAM, 4), 0x29c08086);
    end();
}

TEST(ways_to_reset_and_to_power_off)
{
    setup(128 << 20, NULL);
    resets = poweroffs = 0;
    out(0xcf9, 1, 2);
    EXPECT_EQ(resets, 0);
    out(0xcf9, 1, 6);
    EXPECT_EQ(resets, 1);
    out(0x64, 1, 0xfe);
    EXPECT_EQ(resets, 2);
    out(0x92, 1, 3);
    EXPECT_EQ(resets, 3);
    out(PM_PORT + PM_CONTROL, 2, 1 << 13 | 3 << 10); /* no such sleep state */
    EXPECT_EQ(poweroffs, 0);
    out(PM_PORT + PM_CONTROL, 2, 1 << 13);
    EXPECT_EQ(poweroffs, 1);
    EXPECT_EQ(poweroff_code, 0);
    out(PM_EXIT_PORT, 1, 7);
    EXPECT_EQ(poweroffs, 2);
    EXPECT_EQ(poweroff_code, 7);
    EXPECT_EQ(in(0x64, 1), 4);
    out(0x64, 1, 0xaa);
    EXPECT_EQ(in(0x64, 1), 5);
    EXPECT_EQ(in(0x60, 1), 0x55);
    EXPECT_EQ(in(0x64, 1), 4);
    end();
}

TEST(power_key_interrupts_when_the_guest_listens)
{
    setup(128 << 20, NULL);
    EXPECT_TRUE(!pc_board_press_power(board));
    EXPECT_EQ(gsi[PC_IRQ_SCI], 0);
    EXPECT_EQ(in(PM_PORT, 2), 0x100);
    out(PM_PORT, 2, 0x100);
    EXPECT_EQ(in(PM_PORT, 2), 0);
    out(PM_PORT + 2, 2, 0x100);
    EXPECT_TRUE(pc_board_press_power(board));
    EXPECT_EQ(gsi[PC_IRQ_SCI], 1);
    EXPECT_EQ(in(PM_PORT, 4), 0x01000100);
    out(PM_PORT, 2, 0x100);
    EXPECT_EQ(gsi[PC_IRQ_SCI], 0);
    EXPECT_EQ(in(PM_PORT + PM_CONTROL, 2) & 1, 1); /* ACPI mode */
    uint64_t timer = in(PM_PORT + PM_TIMER, 4);    /* the clock stands just after one second */
    EXPECT_TRUE(timer >= 3579545 && timer == in(PM_PORT + PM_TIMER, 4));
    end();
}

TEST(a_new_generation_id_is_an_event_for_acpi)
{
    setup(128 << 20, NULL);
    uint64_t id = rd(PC_VMGENID, 8);
    board_changed_generation(pc_board_base(board));
    EXPECT_TRUE(rd(PC_VMGENID, 8) != id);
    EXPECT_EQ(gsi[PC_IRQ_SCI], 0);
    EXPECT_EQ(in(PM_PORT + PM_GPE, 1), 1 << PC_GPE_VMGENID);
    out(PM_PORT + PM_GPE + PM_GPE_BYTES / 2, 1, 1 << PC_GPE_VMGENID);
    EXPECT_EQ(gsi[PC_IRQ_SCI], 1);
    out(PM_PORT + PM_GPE, 1, 1 << PC_GPE_VMGENID); /* ACPI 6.5 §4.8.4.1: ones clear */
    EXPECT_EQ(gsi[PC_IRQ_SCI], 0);
    EXPECT_EQ(in(PM_PORT + PM_GPE, 4), 0);
    EXPECT_EQ(in(PM_PORT + PM_GPE + PM_GPE_BYTES / 2, 1), 1 << PC_GPE_VMGENID);
    board_reset(pc_board_base(board));
    EXPECT_EQ(in(PM_PORT + PM_GPE + PM_GPE_BYTES / 2, 1), 0);
    end();
}

TEST(an_interrupt_line_is_driven_by_changes_alone)
{
    setup(128 << 20, NULL);
    gsi_changes = 0;
    for (int i = 0; i < 100; i++)
        out(0x3f8, 1, 'x');
    EXPECT_EQ(gsi_changes, 0);
    out(0x3f8 + 1, 1, 2); /* transmitter empty */
    EXPECT_EQ(gsi_changes, 1);
    EXPECT_EQ(gsi[PC_IRQ_SERIAL], 1);
    end();
}

TEST(a_device_message_becomes_an_interrupt)
{
    setup(128 << 20, NULL);
    EXPECT_EQ(mem_write(mem, GPA(0xfee03000), 4, 0x4123), BUS_OK);
    EXPECT_EQ(msi_addr, 0xfee03000);
    EXPECT_EQ(msi_data, 0x4123);
    end();
}

static unsigned cmos(unsigned at)
{
    out(0x70, 1, at);
    return (unsigned)in(0x71, 1);
}

static void set_cmos(unsigned at, unsigned value)
{
    out(0x70, 1, at);
    out(0x71, 1, value);
}

TEST(the_clock_shows_and_takes_the_time)
{
    setup(128 << 20, NULL);
    EXPECT_EQ(cmos(0xd), 0x80);
    EXPECT_EQ(cmos(0xa) & 0x80, 0); /* never in the middle of an update */
    EXPECT_TRUE(cmos(0x32) == 0x20 && cmos(9) >= 0x24);
    set_cmos(0xb, 0x82); /* hold */
    set_cmos(0, 0x58);
    set_cmos(2, 0x59);
    set_cmos(4, 0x23);
    set_cmos(7, 0x29);
    set_cmos(8, 0x02);
    set_cmos(9, 0x28);
    set_cmos(0xb, 2);
    EXPECT_EQ(cmos(4), 0x23);
    EXPECT_EQ(cmos(7), 0x29);
    EXPECT_EQ(cmos(6), 3); /* a Tuesday */
    set_cmos(0xb, 4);      /* binary, 12 hours */
    EXPECT_EQ(cmos(4), 0x80 | 11);
    EXPECT_EQ(cmos(9), 28);
    set_cmos(0x40, 0x5a);
    EXPECT_EQ(cmos(0x40), 0x5a);
    end();
}

TEST(saved_state_loads)
{
    struct state_out *save = state_out_new();
    struct error err = {0};

    setup(128 << 20, NULL);
    out(PM_PORT + 2, 2, 0x100);
    (void)pc_board_press_power(board);
    set_cmos(0x41, 0x77);
    out(0xcf8, 4, 0x80000060);
    out(0xcfc, 4, 0xc0000001);
    board_save(pc_board_base(board), save);
    struct state_in *load = test_state_turn(save);
    board_reset(pc_board_base(board));
    set_cmos(0x41, 0);
    EXPECT_EQ(gsi[PC_IRQ_SCI], 0);
    if (board_load(pc_board_base(board), load, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(gsi[PC_IRQ_SCI], 1);
    EXPECT_EQ(cmos(0x41), 0x77);
    EXPECT_EQ(rd(0xc0000000, 4), 0x29c08086);
    state_in_free(load);
    end();
}

/* --- Firmware --- */

static char firmware_path[] = "/tmp/posada-pc-test-XXXXXX";

static void make_firmware(void)
{
    uint8_t page[4096];
    int fd = mkstemp(firmware_path);

    ASSERT_TRUE(fd >= 0);
    for (unsigned i = 0; i < 64; i++) {
        memset(page, (int)i, sizeof(page));
        ASSERT_EQ(write(fd, page, sizeof(page)), sizeof(page));
    }
    (void)close(fd);
}

static unsigned find_file(const char *name, uint32_t *ret_size)
{
    char got[56];

    out(0x510, 2, 0x19);
    unsigned n = 0;
    for (int i = 0; i < 4; i++)
        n = n << 8 | (unsigned)in(0x511, 1);
    while (n--) {
        uint32_t size = 0;
        unsigned key = 0;

        for (int i = 0; i < 4; i++)
            size = size << 8 | (uint32_t)in(0x511, 1);
        for (int i = 0; i < 4; i++)
            key = key << 8 | (unsigned)in(0x511, 1);
        for (unsigned i = 0; i < sizeof(got); i++)
            got[i] = (char)in(0x511, 1);
        if (!strcmp(got, name)) {
            *ret_size = size;
            return key >> 16;
        }
    }
    test_fail(__FILE__, __LINE__, "no file '%s'", name);
    return 0;
}

static void dma(uint64_t at, uint32_t control, uint32_t size, uint64_t addr)
{
    uint8_t raw[16];

    store_be32(raw, control);
    store_be32(raw + 4, size);
    store_be64(raw + 8, addr);
    ASSERT_EQ(mem_copy_out(mem, GPA(at), raw, sizeof(raw)), 0);
    out(0x514, 4, htobe32((uint32_t)(at >> 32)));
    out(0x518, 4, htobe32((uint32_t)at));
}

TEST(firmware_is_mapped_shadowed_and_told)
{
    uint32_t size = 0;

    make_firmware();
    setup(128 << 20, firmware_path);
    (void)unlink(firmware_path);
    EXPECT_EQ(rd(0xfffffff0, 1), 63);
    EXPECT_EQ(rd(0xfffc0000, 1), 0);
    pc_board_shadow_firmware(board);
    EXPECT_EQ(rd(0xffff0, 1), 63);
    EXPECT_EQ(rd(0xc0000, 1), 0);
    out(0x510, 2, 0);
    EXPECT_EQ(in(0x511, 1), 'Q');
    EXPECT_EQ(in(0x511, 1), 'E');
    out(0x510, 2, FW_CFG_CPUS);
    EXPECT_EQ(in(0x511, 1), 2);
    unsigned key = find_file("etc/e820", &size);
    EXPECT_EQ(size, 20);
    dma(0x8000, key << 16 | 8 | 2, 24, 0x9000);
    EXPECT_EQ(rd(0x8000, 4), 0);
    EXPECT_EQ(rd(0x9000, 8), 0);
    EXPECT_EQ(rd(0x9008, 8), 128 << 20);
    EXPECT_EQ(rd(0x9010, 4), X86_RAM);
    EXPECT_EQ(rd(0x9014, 4), 0); /* behind the end: zeroes */
    (void)find_file("etc/smbios/smbios-anchor", &size);
    EXPECT_EQ(size, SMBIOS_ENTRY_SIZE);
    (void)find_file("etc/smbios/smbios-tables", &size);
    EXPECT_TRUE(size > 200);
    dma(0x8000, 2, 4, 0xfffffffffffffffc);
    EXPECT_EQ(rd(0x8000, 4), 0x01000000); /* error */
    dma(0x8000, 16, 4, 0x9000);           /* nothing can be written */
    EXPECT_EQ(rd(0x8000, 4), 0x01000000);
    out(0x514, 4, 0xffffffff); /* a descriptor that is nowhere */
    out(0x518, 4, 0xffffffff);
    end();
}

TEST(tables_for_firmware_follow_its_window)
{
    uint32_t size = 0;
    uint32_t tables_size = 0;

    firmware_path[sizeof(firmware_path) - 2] = 'X';
    memcpy(firmware_path + sizeof(firmware_path) - 7, "XXXXXX", 6);
    make_firmware();
    setup(128 << 20, firmware_path);
    (void)unlink(firmware_path);
    unsigned loader = find_file("etc/table-loader", &size);
    EXPECT_EQ(size % 128, 0);
    unsigned tables = find_file("etc/acpi/tables", &tables_size);
    out(0xcf8, 4, 0x80000060);
    out(0xcfc, 4, 0xb0000001);
    out(0x510, 2, loader); /* made afresh now */
    dma(0x8000, tables << 16 | 8 | 2, tables_size, 0x100000);
    bool found = false;
    for (uint32_t at = 0; at + 52 < tables_size; at += 4) {
        if (rd(0x100000 + at, 4) == 0x4746434d) /* MCFG */
            found = rd(0x100000 + at + 44, 8) == 0xb0000000;
    }
    EXPECT_TRUE(found);
    uint32_t again = 0;
    EXPECT_EQ(find_file("etc/acpi/tables", &again), tables);
    EXPECT_EQ(again, tables_size);
    end();
}
