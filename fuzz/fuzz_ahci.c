/* Fuzz target: a driver that does what it likes with an AHCI controller, a disk and a CD-ROM drive.
 *
 * Input: records of 20 bytes: kind, port, slot, regions of data (each of 16 times so many bytes,
 * plus two), then 16 bytes: of a register write offset (2), then value (4); of a write to memory
 * address (2), then 8 bytes; of a command the FIS from its command byte on; of a packet the packet.
 */
#include "base/bits.h"
#include "device/ata/ahci.h"
#include "disk/file_memory.h"
#include "disk/format.h"
#include "state/state.h"

#include <stdlib.h>
#include <string.h>

#define MMIO   0x40000000ULL
#define LIST   0x1000ULL /* of port 1: one page more, as its answers and tables */
#define RX     0x3000ULL
#define TABLE  0x5000ULL
#define DATA   0x8000ULL
#define RAM    0x20000ULL
#define RECORD 20

static struct mem *mem;
static struct ahci *ahci;

static struct disk *new_disk(uint64_t bytes)
{
    struct disk *d;

    if (disk_open_file(file_memory_new(NULL, bytes, bytes), disk_format_find("raw"), 0, NULL, &d,
                       NULL))
        abort();
    return d;
}

static void setup(void)
{
    struct pci_host_config c = {
        .ecam = GPA(0x30000000),
        .ecam_size = 1 << 20,
        .mmio32 = GPA(MMIO),
        .mmio32_size = 1 << 20,
        .assign_bars = true,
    };
    struct pci_host *host;

    mem = mem_new();
    if (!mem || mem_add_ram(mem, GPA(0), RAM, 0, "ram", NULL, NULL, NULL, NULL) ||
        pci_host_new(mem, &c, &host, NULL) || ahci_new(host, 3, &ahci, NULL) ||
        ahci_attach(ahci, 0, new_disk(1 << 20), false, "disk", NULL) ||
        ahci_attach(ahci, 1, new_disk(1 << 20), true, "cd", NULL))
        abort();
    mem_freeze(mem);
    (void)mem_write(mem, GPA(0x30008004), 2, 6);
}

static void write_reg(unsigned offset, uint32_t value)
{
    (void)mem_write(mem, GPA(MMIO + offset), 4, value);
}

static void start(unsigned port)
{
    write_reg(0x100 + port * 0x80, (uint32_t)(LIST + port * 0x1000));
    write_reg(0x108 + port * 0x80, (uint32_t)(RX + port * 0x1000));
    write_reg(0x118 + port * 0x80, 0x10);
    write_reg(0x118 + port * 0x80, 0x11);
}

/** A sound command around what the input says. */
static void issue(const uint8_t *p, bool packet)
{
    unsigned port = p[1] & 1;
    unsigned slot = p[2] & 31;
    unsigned regions = p[3] & 7;
    uint8_t table[0x100] = {0x27, 0x80};
    uint8_t header[32] = {5};

    memcpy(table + (packet ? 0x40 : 2), p + 4, packet ? 16 : 14);
    if (packet) {
        table[2] = 0xa0;
        table[3] = p[3] >> 7;
    }
    for (unsigned i = 0; i < regions; i++) {
        store_le64(table + 0x80 + 16 * i, DATA + 0x1000 * i);
        store_le32(table + 0x80 + 16 * i + 12, (p[3] & 0x78u) * 16 + 1);
    }
    store_le16(header + 2, (uint16_t)regions);
    store_le64(header + 8, TABLE + port * 0x1000);
    if (mem_copy_out(mem, GPA(TABLE + port * 0x1000), table, sizeof(table)) ||
        mem_copy_out(mem, GPA(LIST + port * 0x1000 + 32 * slot), header, sizeof(header)))
        abort();
    write_reg(0x134 + port * 0x80, 1u << slot);
    write_reg(0x138 + port * 0x80, 1u << slot);
}

static void save_and_load(void)
{
    struct state_out *out = state_out_new();
    struct state_in *in;
    uint8_t *data;
    size_t size;

    ahci_freeze(ahci);
    ahci_save(ahci, out);
    if (state_out_take(out, &data, &size) || state_in_new(data, size, &in, NULL) ||
        ahci_load(ahci, in, NULL)) /* what was saved loads */
        abort();
    ahci_thaw(ahci);
    state_in_free(in);
    state_out_free(out);
    free(data);
}

static void step(const uint8_t *p)
{
    uint64_t value;

    switch (p[0] & 7) {
    case 0:
        write_reg(load_le16(p + 4) & 0x3fc, load_le32(p + 6));
        break;
    case 1:
        (void)mem_write(mem, GPA(load_le16(p + 4)), 8, load_le64(p + 6));
        break;
    case 2:
    case 3:
        issue(p, false);
        break;
    case 4:
        issue(p, true);
        break;
    case 5:
        for (unsigned i = 0; i < 0x300; i += 4)
            (void)mem_read(mem, GPA(MMIO + i), 4, &value);
        (void)mem_read(mem, GPA(MMIO + (load_le16(p + 4) & 0xfff)), 1u << (p[3] & 3), &value);
        break;
    case 6:
        save_and_load();
        break;
    default:
        start(p[1] & 1);
    }
    ahci_freeze(ahci); /* all that was begun has ended: every run is the same */
    ahci_thaw(ahci);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ahci)
        setup();
    write_reg(4, 1);
    start(0);
    start(1);
    for (; size >= RECORD; data += RECORD, size -= RECORD)
        step(data);
    return 0;
}
