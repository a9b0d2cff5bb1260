/* Tests of the `virt` board: wiring through registers, and the device tree read back by libfdt. */
#include "base/test.h"
#include "board/virt_riscv.h"

#include <libfdt.h>
#include <stdlib.h>

static struct virt_config config;
static struct virt_board *board;
static struct vclock guest_clock;
static uint64_t irqs[VIRT_MAX_HARTS]; /* bits as in mip */
static int poweroff_code = -1;

static void set_irq(void *arg, unsigned hart, unsigned irq, bool level)
{
    irqs[hart] = (irqs[hart] & ~(1ULL << irq)) | (uint64_t)level << irq;
}

static void poweroff(void *arg, unsigned code)
{
    poweroff_code = (int)code;
}

static void setup(unsigned harts)
{
    vclock_init(&guest_clock, 0);
    config = (struct virt_config){
        .mem = mem_new(),
        .harts = harts,
        .memory_bytes = 64 << 20,
        .clock = &guest_clock,
        .loop = loop_new("test"),
        .isa = "rv64imafdc_zicsr_zicbom_zicboz_sstc",
        .mmu_type = "riscv,sv57",
        .set_irq = set_irq,
        .poweroff = poweroff,
    };
    ASSERT_TRUE(config.mem && config.loop);
    ASSERT_EQ(virt_board_new(&config, &board, NULL), 0);
}

static void wr(uint64_t addr, unsigned size, uint64_t v)
{
    EXPECT_EQ(mem_write(config.mem, GPA(addr), size, v), BUS_OK);
}

static uint64_t rd(uint64_t addr, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(config.mem, GPA(addr), size, &v), BUS_OK);
    return v;
}

TEST(interrupts_reach_their_harts)
{
    setup(4);
    wr(0x0200000c, 4, 1);
    EXPECT_EQ(irqs[3], 1 << 3);
    wr(0x02004000 + 8, 8, 0);
    EXPECT_EQ(irqs[1], 1 << 7);
    wr(0x0c000000 + 4 * 10, 4, 1);
    wr(0x0c002000 + 0x80 * 5, 4, 1 << 10); /* hart 2, S */
    wr(0x10000001, 1, 2);                  /* UART: transmitter empty */
    EXPECT_EQ(irqs[2], 1 << 9);
    EXPECT_EQ(irqs[0], 0);
    EXPECT_EQ(rd(0x0c200004 + 0x5000, 4), 10);
    EXPECT_EQ(irqs[2], 0);
    wr(0x0c002000 + 0x80 * 0, 4, 1 << 10); /* hart 0, M */
    wr(0x0c200004 + 0x5000, 4, 10);
    EXPECT_EQ(irqs[0], 1 << 11);
    board_reset(virt_board_base(board));
    EXPECT_TRUE(!irqs[0] && !irqs[1] && !irqs[2] && !irqs[3]);
}

TEST(everything_is_where_guests_expect_it)
{
    setup(1);
    EXPECT_EQ(rd(0x30000000, 4), 0x00081b36);
    EXPECT_EQ(rd(0x40000000, 4) & 0xffffffff, 0xffffffff);
    EXPECT_EQ(rd(0x400000000, 8), UINT64_MAX);
    EXPECT_EQ(rd(0x10000005, 1), 0x60);
    EXPECT_EQ(rd(0x20000000, 4), 0xffffffff);
    EXPECT_EQ(rd(0x22000000, 4), 0xffffffff);
    EXPECT_EQ(rd(0x1000, 4), 0);
    EXPECT_EQ(mem_write(config.mem, GPA(0x1000), 4, 0), BUS_FAULT);
    EXPECT_TRUE(mem_ptr(config.mem, GPA(VIRT_RAM_BASE), 64 << 20, true) != NULL);
    uint64_t v;
    EXPECT_EQ(mem_read(config.mem, GPA(0), 4, &v), BUS_UNHANDLED);
    wr(0x100000, 4, 0x00073333);
    EXPECT_EQ(poweroff_code, 7);
    EXPECT_EQ(virt_pci_mmio64(16ULL << 30).base, 0x800000000);
}

static const void *prop(const void *blob, const char *path, const char *name, int *ret_size)
{
    int node = fdt_path_offset(blob, path);

    ASSERT_TRUE(node >= 0);
    return fdt_getprop(blob, node, name, ret_size);
}

static uint32_t cell(const void *blob, const char *path, const char *name, unsigned i)
{
    int size = 0;
    const fdt32_t *p = prop(blob, path, name, &size);

    ASSERT_TRUE(p && (int)(4 * i) < size);
    return fdt32_to_cpu(p[i]);
}

TEST(device_tree_says_what_is_there)
{
    struct virt_chosen chosen = {
        .bootargs = "console=hvc0",
        .initrd_start = 0x84000000,
        .initrd_end = 0x84100000,
        .rng_seed = {1, 2, 3},
    };
    void *blob = NULL;
    size_t blob_size = 0;
    int size = 0;

    setup(16);
    ASSERT_EQ(virt_board_fdt(&config, &chosen, &blob, &blob_size, NULL), 0);
    ASSERT_EQ(fdt_check_full(blob, blob_size), 0);
    EXPECT_EQ(cell(blob, "/cpus", "timebase-frequency", 0), 10000000);
    EXPECT_EQ(cell(blob, "/cpus/cpu@f", "reg", 0), 15);
    EXPECT_EQ(cell(blob, "/cpus/cpu@0", "riscv,cboz-block-size", 0), 64);
    EXPECT_TRUE(!prop(blob, "/cpus/cpu@0", "riscv,cbop-block-size", &size));
    const char *ext = prop(blob, "/cpus/cpu@0", "riscv,isa-extensions", &size);
    EXPECT_EQ(size, 12 + 6 + 7 + 7 + 5);
    EXPECT_MEM(ext, "i\0m\0a\0f\0d\0c\0zicsr\0zicbom\0zicboz\0sstc", size);
    EXPECT_STR(prop(blob, "/chosen", "bootargs", &size), "console=hvc0");
    EXPECT_EQ(cell(blob, "/chosen", "linux,initrd-end", 1), 0x84100000);
    EXPECT_EQ(cell(blob, "/memory@80000000", "reg", 3), 64 << 20);
    EXPECT_EQ(cell(blob, "/soc/plic@c000000", "riscv,ndev", 0), 96);
    /* hart 15's S input: its interrupt controller, 9 */
    EXPECT_EQ(cell(blob, "/soc/plic@c000000", "interrupts-extended", 62),
              cell(blob, "/cpus/cpu@f/interrupt-controller", "phandle", 0));
    EXPECT_EQ(cell(blob, "/soc/plic@c000000", "interrupts-extended", 63), 9);
    /* slot 3, INTB: (3 + 1) % 4 */
    EXPECT_EQ(cell(blob, "/soc/pci@30000000", "interrupt-map", (3 * 4 + 1) * 6 + 0), 3 << 11);
    EXPECT_EQ(cell(blob, "/soc/pci@30000000", "interrupt-map", (3 * 4 + 1) * 6 + 5), 32);
    free(blob);
    mem_free(config.mem);
    board_free(virt_board_base(board));
    loop_free(config.loop);
}
