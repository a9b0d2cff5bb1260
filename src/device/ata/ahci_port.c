/* A port of an AHCI controller: commands from the guest's list to the drive, and answers back.
 *
 * Spec: AHCI 1.3.1 §4 (structures in memory), §5 (what the port does), §6.2 (errors); Serial ATA 3
 * §10.5 (frame information structures).
 *
 * Invariants:
 *  1. A command is executed with no lock held and is_busy set; its answer is dropped if the port
 * was reset meanwhile (epoch).
 *  2. After an error nothing is executed until software has cleared PxCMD.ST (§6.2.2).
 *  3. Structures in memory are copied in once; no pointer is kept.
 *
 * Threads: process() on the port's loop; the rest with the controller's lock. */
#include "device/ata/ahci_internal.h"

#include "base/log.h"

#include <string.h>

#define HEADER_SIZE  32
#define TABLE_PACKET 0x40
#define TABLE_PRDT   0x80
#define PRD_SIZE     16
#define PRD_BYTES    0x3fffffu

/* Where answers go (§4.2.1), and their types. */
enum { RX_PIO = 0x20, RX_REGISTERS = 0x40, RX_BITS = 0x58 };
enum { TYPE_H2D = 0x27, TYPE_D2H = 0x34, TYPE_PIO = 0x5f, TYPE_BITS = 0xa1 };
enum { FLAG_COMMAND = 0x80, FLAG_INTERRUPT = 0x40, FLAG_TO_HOST = 0x20, CONTROL_RESET = 4 };
enum { CMD_READ_QUEUED = 0x60, CMD_WRITE_QUEUED = 0x61 };

/* --- Data --- */

/** Fetch the next descriptor. False: there is none, or it cannot be read. */
static bool next_region(struct ahci_dma *d)
{
    uint8_t raw[PRD_SIZE];

    if (!d->left)
        return false;
    if (mem_copy_in(d->mem, GPA(d->table), raw, sizeof(raw))) {
        d->fault = true;
        return false;
    }
    d->left--;
    d->table += PRD_SIZE;
    d->addr = load_le64(raw) & ~1ULL;
    d->size = (load_le32(raw + 12) & PRD_BYTES) + 1;
    return true;
}

uint64_t ahci_dma_map(struct ahci_dma *d, uint64_t max, bool write, struct ahci_piece *ret)
{
    uint64_t mapped = 0;

    ret->count = 0;
    while (mapped < max && ret->count < DMA_IOV && !d->fault) {
        if (!d->size && !next_region(d))
            break;
        uint64_t size = MIN((uint64_t)d->size, max - mapped);
        void *host = mem_ptr(d->mem, GPA(d->addr), size, write);
        if (!host) {
            d->fault = true;
            break;
        }
        ret->gpa[ret->count] = d->addr;
        ret->iov[ret->count++] = (struct iovec){host, (size_t)size};
        d->addr += size;
        d->size -= (uint32_t)size;
        mapped += size;
    }
    if (d->fault)
        return 0;
    d->is_short |= !mapped;
    d->done += mapped;
    return mapped;
}

void ahci_dma_written(const struct ahci_dma *d, const struct ahci_piece *piece)
{
    for (unsigned i = 0; i < piece->count; i++)
        mem_written(d->mem, GPA(piece->gpa[i]), piece->iov[i].iov_len);
}

bool ahci_dma_put(struct ahci_dma *d, const void *data, size_t size)
{
    const uint8_t *p = data;
    struct ahci_piece piece;

    while (size) {
        uint64_t got = ahci_dma_map(d, size, true, &piece);

        if (!got)
            return !d->fault;
        for (unsigned i = 0; i < piece.count; p += piece.iov[i++].iov_len)
            memcpy(piece.iov[i].iov_base, p, piece.iov[i].iov_len);
        ahci_dma_written(d, &piece);
        size -= (size_t)got;
    }
    return true;
}

size_t ahci_dma_get(struct ahci_dma *d, void *data, size_t size)
{
    uint8_t *p = data;
    struct ahci_piece piece;

    while (size) {
        uint64_t got = ahci_dma_map(d, size, false, &piece);

        if (!got)
            break;
        for (unsigned i = 0; i < piece.count; p += piece.iov[i++].iov_len)
            memcpy(p, piece.iov[i].iov_base, piece.iov[i].iov_len);
        size -= (size_t)got;
    }
    return (size_t)(p - (uint8_t *)data);
}

/* --- Answers --- */

/** Where the guest wants answers; it may be nowhere, which is the guest's loss. */
static void receive_locked(struct ahci *a, struct ahci_port *p, unsigned offset, const uint8_t *fis,
                           size_t size) REQUIRES(a->lock)
{
    if (p->command & PORT_FRE && mem_copy_out(a->mem, GPA(p->received + offset), fis, size))
        guest_error("ahci", "port %u: answers have no place at 0x%llx", p->index,
                    (unsigned long long)p->received);
}

/** The registers that a command leaves, in a FIS of @type. */
static void make_fis(const struct ata_command *c, uint8_t type, uint8_t flags,
                     uint8_t ret[FIS_SIZE])
{
    memset(ret, 0, FIS_SIZE);
    ret[0] = type;
    ret[1] = flags;
    ret[2] = c->status;
    ret[3] = c->error;
    memcpy(ret + 4, c->lba, 3);
    ret[7] = c->fis[FIS_DEVICE];
    ret[12] = c->count;
}

static void send_registers_locked(struct ahci *a, struct ahci_port *p, const struct ata_command *c)
    REQUIRES(a->lock)
{
    uint8_t fis[FIS_SIZE];

    make_fis(c, TYPE_D2H, FLAG_INTERRUPT, fis);
    receive_locked(a, p, RX_REGISTERS, fis, sizeof(fis));
    p->status |= PORT_IS_REGISTERS;
}

/** Serial ATA 3 §10.5.11: what a transfer to the host begins with; its end is here, too. */
static void send_pio_setup_locked(struct ahci *a, struct ahci_port *p, const struct ata_command *c)
    REQUIRES(a->lock)
{
    uint8_t fis[FIS_SIZE];

    make_fis(c, TYPE_PIO, FLAG_INTERRUPT | FLAG_TO_HOST, fis);
    fis[2] = (uint8_t)(c->status | ST_DRQ);
    fis[15] = c->status; /* when all is transferred */
    store_le16(fis + 16, (uint16_t)MIN(c->dma.done, (uint64_t)0xfffe));
    receive_locked(a, p, RX_PIO, fis, sizeof(fis));
    p->status |= PORT_IS_PIO;
}

static void send_bits_locked(struct ahci *a, struct ahci_port *p, const struct ata_command *c,
                             uint32_t done) REQUIRES(a->lock)
{
    uint8_t fis[8] = {TYPE_BITS, FLAG_INTERRUPT, (uint8_t)(c->status & 0x77), c->error};

    store_le32(fis + 4, done);
    receive_locked(a, p, RX_BITS, fis, sizeof(fis));
    p->status |= PORT_IS_BITS;
}

/** The command in slot @slot has ended. */
static void answer_locked(struct ahci *a, struct ahci_port *p, unsigned slot,
                          const struct ata_command *c) REQUIRES(a->lock)
{
    uint32_t bit = 1u << slot;
    bool failed = c->status & ST_ERR;

    p->task = c->status | (uint32_t)c->error << 8;
    if (c->dma.is_short)
        p->status |= PORT_IS_OVERFLOW;
    switch (c->reply) {
    case REPLY_QUEUED:
        send_bits_locked(a, p, c, failed ? 0 : bit);
        break;
    case REPLY_PIO_IN:
    case REPLY_PACKET_IN:
        if (!failed)
            send_pio_setup_locked(a, p, c);
        if (failed || c->reply == REPLY_PACKET_IN)
            send_registers_locked(a, p, c);
        break;
    case REPLY_REGISTERS:
        send_registers_locked(a, p, c);
        break;
    case REPLY_NONE:
        break;
    }
    if (failed) {
        p->status |= PORT_IS_TASK_ERROR;
        p->has_failed = true;
        return; /* §6.2.2.1: the slot stays issued, for software to see */
    }
    p->issued &= ~bit;
    if (c->reply == REPLY_QUEUED)
        p->active &= ~bit;
}

/* --- Commands --- */

/** What a slot holds. False: it is not in memory. */
static bool fetch(struct mem *mem, uint64_t list, unsigned slot, uint8_t header[HEADER_SIZE],
                  struct ata_command *c)
{
    memset(c, 0, sizeof(*c));
    if (mem_copy_in(mem, GPA(list + HEADER_SIZE * slot), header, HEADER_SIZE))
        return false;
    uint64_t table = load_le64(header + 8) & ~0x7fULL;
    c->dma = (struct ahci_dma){
        .mem = mem,
        .table = table + TABLE_PRDT,
        .left = load_le16(header + 2),
    };
    return !mem_copy_in(mem, GPA(table), c->fis, sizeof(c->fis)) &&
           !mem_copy_in(mem, GPA(table + TABLE_PACKET), c->packet, sizeof(c->packet));
}

static bool is_queued(const struct ata_command *c)
{
    return c->fis[FIS_COMMAND] == CMD_READ_QUEUED || c->fis[FIS_COMMAND] == CMD_WRITE_QUEUED;
}

/** A FIS that writes the control register alone: a reset in two steps (Serial ATA 3 §11.4). */
static void write_control_locked(struct ahci *a, struct ahci_port *p, const struct ata_command *c)
    REQUIRES(a->lock)
{
    bool reset = c->fis[FIS_CONTROL] & CONTROL_RESET;

    if (p->in_soft_reset && !reset) {
        ata_drive_reset(&p->drive);
        ahci_port_connect_locked(a, p);
    } else if (reset) {
        p->task = ST_BSY | 0x100;
    }
    p->in_soft_reset = reset;
}

static void execute(struct ahci_port *p, struct ata_command *c)
{
    if (p->drive.is_cdrom)
        ata_packet_execute(&p->drive, c);
    else
        ata_disk_execute(&p->drive, c);
}

/** The port stops: structures do not lie in memory (§6.1.2). */
static void fatal_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock)
{
    guest_error("ahci", "port %u: a command leads to no memory", p->index);
    p->status |= PORT_IS_BUS_FATAL;
    p->has_failed = true;
}

static bool may_run_locked(struct ahci *a, const struct ahci_port *p) REQUIRES(a->lock)
{
    return p->command & PORT_ST && p->issued && !p->has_failed && !p->held;
}

/** The slot to execute next: in turn, so that none is left behind. */
static unsigned next_slot_locked(struct ahci *a, const struct ahci_port *p) REQUIRES(a->lock)
{
    for (unsigned i = 1; i < AHCI_SLOTS; i++) {
        unsigned slot = (p->current + i) % AHCI_SLOTS;

        if (p->issued >> slot & 1)
            return slot;
    }
    return p->current;
}

static void run_slot_locked(struct ahci *a, struct ahci_port *p, unsigned slot) REQUIRES(a->lock)
{
    uint64_t list = p->list;
    uint32_t epoch = p->epoch;
    uint8_t header[HEADER_SIZE];
    uint8_t count[4];
    struct ata_command c;

    p->current = (uint8_t)slot;
    if (!pci_is_bus_master(&a->pci) || !fetch(a->mem, list, slot, header, &c) ||
        c.fis[FIS_TYPE] != TYPE_H2D) {
        fatal_locked(a, p);
        return;
    }
    if (!(c.fis[FIS_FLAGS] & FLAG_COMMAND)) {
        write_control_locked(a, p, &c);
        p->issued &= ~(1u << slot);
        return;
    }
    if (is_queued(&c)) /* the drive has it: the slot's bit in PxSACT says the rest (§5.4.1) */
        p->issued &= ~(1u << slot);
    p->is_busy = true;
    p->task |= ST_BSY;
    mutex_unlock(&a->lock);
    execute(p, &c);
    if (c.reply != REPLY_QUEUED) {
        store_le32(count, (uint32_t)c.dma.done);
        c.dma.fault |= mem_copy_out(a->mem, GPA(list + HEADER_SIZE * slot + 4), count, 4) != 0;
    }
    mutex_lock(&a->lock);
    p->is_busy = false;
    cond_broadcast(&a->idle);
    if (p->epoch != epoch)
        return;
    if (c.dma.fault)
        fatal_locked(a, p);
    else
        answer_locked(a, p, slot, &c);
}

static void process(void *arg)
{
    struct ahci_port *p = arg;
    struct ahci *a = p->ahci;

    mutex_lock(&a->lock);
    p->is_kicked = false;
    while (may_run_locked(a, p)) {
        run_slot_locked(a, p, next_slot_locked(a, p));
        ahci_update_irq_locked(a);
    }
    mutex_unlock(&a->lock);
}

void ahci_port_kick_locked(struct ahci *a, struct ahci_port *p)
{
    if (!p->loop || p->is_kicked || p->is_busy || !may_run_locked(a, p))
        return;
    p->is_kicked = loop_post(p->loop, process, p) == 0;
    if (!p->is_kicked) { /* out of memory: the guest tries again, after an error */
        p->status |= PORT_IS_BUS_FATAL;
        p->has_failed = true;
    }
}

void ahci_port_stop_locked(struct ahci *a, struct ahci_port *p)
{
    p->epoch++;
    p->issued = p->active = 0;
    p->current = 0;
    p->has_failed = false;
    p->command &= ~(uint32_t)PORT_ST;
    p->task &= ~(uint32_t)(ST_BSY | ST_DRQ);
}

/** The registers after a reset say what kind of device it is (ATA8-ACS §9.12). */
void ahci_port_connect_locked(struct ahci *a, struct ahci_port *p)
{
    struct ata_command c = {
        .status = p->drive.is_cdrom ? 0 : ST_DRDY | ST_DSC,
        .error = 1,
        .count = 1,
        .lba = {1},
    };

    if (p->drive.is_cdrom) {
        c.lba[1] = 0x14;
        c.lba[2] = 0xeb;
    }
    p->in_soft_reset = false;
    p->task = c.status | (uint32_t)c.error << 8;
    p->signature =
        c.count | (uint32_t)c.lba[0] << 8 | (uint32_t)c.lba[1] << 16 | (uint32_t)c.lba[2] << 24;
    send_registers_locked(a, p, &c);
}

void ahci_port_reset_locked(struct ahci *a, struct ahci_port *p)
{
    ahci_port_stop_locked(a, p);
    p->list = p->received = 0;
    p->status = p->enable = p->command = p->sata_control = p->sata_error = 0;
    p->task = TASK_ABSENT;
    p->signature = UINT32_MAX;
    p->in_soft_reset = false;
    if (!p->loop)
        return;
    ata_drive_reset(&p->drive);
    ahci_port_connect_locked(a, p);
    p->status = 0;
}
