/* Fuzz target: a guest's accesses to the registers of every device of the `virt` board but PCI's,
 * with console bytes arriving. Input: records of 8 bytes: device and operation, size, 2 bytes
 * offset, 4 bytes value. */
#include "base/bits.h"
#include "board/virt_riscv.h"

#include <stdlib.h>
#include <unistd.h>

static size_t room; /* of the console's other end */

static void set_irq(void *arg, unsigned hart, unsigned irq, bool level)
{
    if (hart >= 2 || irq >= 16)
        abort();
}

static void poweroff(void *arg, unsigned code)
{
    if (code > 0xffff)
        abort();
}

static void reset(void *arg)
{
}

static size_t console_write(void *arg, const void *data, size_t size)
{
    size = MIN(size, room);
    room -= size;
    return size;
}

static void step(const struct virt_config *c, struct virt_board *board, const uint8_t *p)
{
    const struct virt_range *r = &virt_map[p[0] >> 4 & 7];
    unsigned size = 1u << (p[1] & 3);
    uint64_t offset = load_le16(p + 2);
    uint64_t value = load_le32(p + 4) * 0x100000001ULL;

    if (r == &virt_map[VIRT_PLIC] || r == &virt_map[VIRT_FLASH])
        offset = offset << (p[1] >> 4); /* large and sparse */
    switch (p[0] & 3) {
    case 0:
        (void)mem_read(c->mem, GPA(r->base + offset % r->size), size, &value);
        break;
    case 1:
    case 2:
        (void)mem_write(c->mem, GPA(r->base + offset % r->size), size, value);
        break;
    case 3:
        if (p[1] & 1)
            (void)uart_receive(virt_board_base(board)->uart, p, 8);
        room = p[2];
        uart_can_write(virt_board_base(board)->uart);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vclock guest_clock;
    struct virt_config c = {
        .mem = mem_new(),
        .harts = 2,
        .memory_bytes = 16 << 20,
        .clock = &guest_clock,
        .loop = loop_new("fuzz"),
        .isa = "rv64imac",
        .mmu_type = "riscv,sv39",
        .uart = {.write = console_write},
        .set_irq = set_irq,
        .poweroff = poweroff,
        .reset = reset,
    };
    struct virt_board *board;

    vclock_init(&guest_clock, 0);
    room = 16;
    if (!c.mem || !c.loop || virt_board_new(&c, &board, NULL))
        abort();
    for (; size >= 8; data += 8, size -= 8)
        step(&c, board, data);
    board_reset(virt_board_base(board));
    mem_free(c.mem);
    board_free(virt_board_base(board));
    loop_free(c.loop);
    return 0;
}
