/* Fuzz target: a guest that accesses the ports and PCI registers of the board `pc` at will, the
 * firmware configuration's DMA and the flash of firmware's variables among them; between accesses,
 * the machine's state is saved and loaded.
 *
 * Input: records of 8 bytes: kind, size, address (2), value (4). */
#include "base/bits.h"
#include "board/pc.h"
#include "state/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void set_gsi(void *arg, unsigned gsi, bool level)
{
    if (gsi >= PC_GSIS)
        abort();
}

static void signal_msi(void *arg, uint64_t addr, uint32_t data)
{
}

static void nothing(void *arg)
{
}

static void poweroff(void *arg, unsigned code)
{
}

#define ROM_SIZE   8192
#define FLASH_SIZE 8192

static struct mem *mem, *ports;
static struct pc_board *board;

static void setup(void)
{
    static struct vclock vclock;
    char path[] = "/tmp/posada-fuzz-pc-XXXXXX";
    static uint8_t rom[ROM_SIZE];
    int fd = mkstemp(path);
    int vars = memfd_create("vars", MFD_CLOEXEC);
    char vars_path[32];
    struct pc_config c = {
        .cpus = 2,
        .memory_bytes = 32 << 20,
        .clock = &vclock,
        .loop = loop_new("fuzz"),
        .firmware = path,
        .flash = vars_path,
        .set_gsi = set_gsi,
        .signal_msi = signal_msi,
        .reset_chips = nothing,
        .pause = nothing,
        .resume = nothing,
        .poweroff = poweroff,
        .reset = nothing,
    };

    (void)snprintf(vars_path, sizeof(vars_path), "/proc/self/fd/%d", vars);
    vclock_init(&vclock, 0);
    c.mem = mem = mem_new();
    c.ports = ports = mem_new();
    if (fd < 0 || write(fd, rom, sizeof(rom)) != sizeof(rom) || ftruncate(vars, FLASH_SIZE) ||
        !c.loop || !mem || !ports || pc_board_new(&c, &board, NULL))
        abort();
    (void)close(fd);
    (void)unlink(path);
    mem_freeze(mem);
    mem_freeze(ports);
}

static void save_and_load(void)
{
    struct state_out *out = state_out_new();
    struct state_in *in;
    uint8_t *data;
    size_t size;

    board_save(pc_board_base(board), out);
    if (state_out_take(out, &data, &size) || state_in_new(data, size, &in, NULL) ||
        board_load(pc_board_base(board), in, NULL)) /* what was saved loads */
        abort();
    state_in_free(in);
    state_out_free(out);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!board)
        setup();
    for (; size >= 8; data += 8, size -= 8) {
        unsigned n = 1u << (data[1] & 3);
        uint64_t at = load_le16(data + 2);
        uint64_t value = load_le32(data + 4);

        uint64_t flash = PC_HIGH_RAM - ROM_SIZE - FLASH_SIZE + align_down(at % FLASH_SIZE, n);

        switch (data[0] & 15) {
        case 0:
            (void)mem_write(ports, GPA(at), MIN(n, 4u), value);
            break;
        case 1:
            (void)mem_read(ports, GPA(at), MIN(n, 4u), &value);
            break;
        case 2:
            (void)mem_write(mem, GPA(PC_ECAM + (at & 31) * 0x8000 + (at >> 4 & 0xff)), n, value);
            break;
        case 3: /* a DMA descriptor at 0x1000 */
            store_be32((uint8_t *)&value + 4, (uint32_t)value);
            (void)mem_write(mem, GPA(0x1000 + (at & 12)), 4, value >> 32);
            break;
        case 4:
            (void)mem_write(ports, GPA(0x518), 4, htobe32(0x1000 + (at & 0xf00)));
            break;
        case 5:
            (void)mem_read(mem, GPA(PC_LOW_MAX + (value << 3)), n, &value);
            break;
        case 6:
            (void)pc_board_press_power(board);
            break;
        case 8:
            (void)mem_write(mem, GPA(flash), n, value);
            break;
        case 9:
            (void)mem_read(mem, GPA(flash), n, &value);
            break;
        case 10:
            board_changed_generation(pc_board_base(board));
            break;
        case 11:
            save_and_load();
            break;
        default:
            (void)mem_write(mem, GPA(PC_MSI + (at & 0xfff0)), 4, value);
        }
    }
    board_reset(pc_board_base(board));
    return 0;
}
