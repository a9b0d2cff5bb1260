/* What the files of device/ata share. */
#ifndef DEVICE_ATA_AHCI_INTERNAL_H
#define DEVICE_ATA_AHCI_INTERNAL_H

#include "base/bits.h"
#include "base/loop.h"
#include "base/thread.h"
#include "device/ata/ahci.h"
#include "disk/disk.h"

#define ATA_SECTOR  512u
#define CD_SECTOR   2048u
#define AHCI_SLOTS  32
#define FIS_SIZE    20
#define ATA_SERIAL  20
#define DMA_IOV     64
#define SENSE_SIZE  18
#define PACKET_SIZE 16

/** ATA8-ACS §6: status and error registers. */
enum { ST_ERR = 0x01, ST_DRQ = 0x08, ST_DSC = 0x10, ST_DF = 0x20, ST_DRDY = 0x40, ST_BSY = 0x80 };
enum { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };

/** A host-to-device register FIS (Serial ATA 3 §10.5.5) by bytes. */
enum {
    FIS_TYPE = 0,
    FIS_FLAGS,
    FIS_COMMAND,
    FIS_FEATURES,
    FIS_LBA,
    FIS_DEVICE = 7,
    FIS_LBA_EXP,
    FIS_FEATURES_EXP = 11,
    FIS_COUNT,
    FIS_COUNT_EXP,
    FIS_CONTROL = 15,
};

/** Where a command's data goes: the rest of its physical region descriptor table (AHCI §4.2.3.3).
 */
struct ahci_dma {
    struct mem *mem;
    uint64_t table; /* the next descriptor */
    uint32_t left;  /* descriptors */
    uint64_t addr;  /* the rest of the current one */
    uint32_t size;  /* ditto */
    uint64_t done;  /* bytes moved */
    bool fault;     /* a descriptor does not lead to memory */
    bool is_short;  /* there were fewer bytes than the command has */
};

/** Guest memory that a part of a command's data is. */
struct ahci_piece {
    struct iovec iov[DMA_IOV];
    uint64_t gpa[DMA_IOV];
    unsigned count;
};

/** Map the next bytes, at most @max. How many; 0: the table is at its end, or fault is set. After
 * writing there: ahci_dma_written(). */
uint64_t ahci_dma_map(struct ahci_dma *d, uint64_t max, bool write, struct ahci_piece *ret);
void ahci_dma_written(const struct ahci_dma *d, const struct ahci_piece *piece);
/** Copy @size bytes to the guest, or as many as it has room for; false: a fault. */
bool ahci_dma_put(struct ahci_dma *d, const void *data, size_t size);
/** The reverse. How many bytes came. */
size_t ahci_dma_get(struct ahci_dma *d, void *data, size_t size);

/** How a command's end is told. */
enum ata_reply {
    REPLY_REGISTERS, /* a register FIS */
    REPLY_PIO_IN,    /* by the setup of its transfer to the host */
    REPLY_PACKET_IN, /* the setup of its transfer, then the registers */
    REPLY_QUEUED,    /* set device bits */
    REPLY_NONE,      /* control alone was written */
};

/** One command, while it is executed. */
struct ata_command {
    uint8_t fis[FIS_SIZE];
    uint8_t packet[PACKET_SIZE];
    struct ahci_dma dma;
    enum ata_reply reply;
    uint8_t status, error;
    uint8_t count;  /* sector count as the device leaves it */
    uint8_t lba[3]; /* likewise */
};

/** What a drive remembers between commands. */
struct ata_drive {
    struct disk *disk;           /* owned; changed while the port stands still */
    bool is_cdrom;               /* [init] */
    char serial[ATA_SERIAL + 1]; /* [init] */
    /* the rest: [port's thread, or while it stands still] */
    uint8_t multiple; /* sectors a block; 0 = not set */
    bool write_through;
    uint8_t failed_tag, failed_status,
        failed_error; /* what the error log says of queued commands; */
    uint64_t failed_lba;
    bool has_failed;
    uint8_t sense, asc, ascq; /* CD-ROM: of the last command */
    bool is_open;             /* CD-ROM: ejected */
    bool was_changed;         /* CD-ROM: the medium is back, which the next command is told */
    bool is_locked;           /* CD-ROM */
};

struct ahci_port {
    struct ahci *ahci;      /* [init] */
    unsigned index;         /* [init] */
    struct loop *loop;      /* [init] commands are executed there; NULL: nothing is connected */
    struct ata_drive drive; /* see there */
    /* [lock] registers, AHCI §3.3 */
    uint64_t list, received;
    uint32_t status, enable, command, task, signature, sata_control, sata_error, active, issued;
    uint8_t current; /* slot that is or was executed last */
    bool in_soft_reset;
    bool has_failed; /* no more commands until software restarts the port */
    /* [lock] */
    bool is_busy;   /* the loop executes a command */
    bool is_kicked; /* the loop will look */
    unsigned held;  /* freezes and holds */
    uint32_t epoch; /* of resets: a command begun in another one has no answer */
};

struct ahci {
    struct pci_function pci; /* first */
    struct mem *mem;         /* [init] */
    unsigned port_count;     /* [init] */
    struct mutex lock;
    struct cond idle;          /* a port's is_busy has ended */
    uint32_t control, pending; /* [lock] GHC and IS */
    struct ahci_port ports[AHCI_PORTS];
};

/** Port registers' bits. */
enum {
    PORT_ST = 1 << 0,
    PORT_SUD = 1 << 1,
    PORT_POD = 1 << 2,
    PORT_CLO = 1 << 3,
    PORT_FRE = 1 << 4,
    PORT_FR = 1 << 14,
    PORT_CR = 1 << 15,
    PORT_ATAPI = 1 << 24,
    PORT_DLAE = 1 << 25,
};
#define PORT_KEPT (PORT_ST | PORT_FRE | PORT_ATAPI | PORT_DLAE)
enum {
    PORT_IS_REGISTERS = 1 << 0,
    PORT_IS_PIO = 1 << 1,
    PORT_IS_BITS = 1 << 3,
    PORT_IS_OVERFLOW = 1 << 24,
    PORT_IS_BUS_FATAL = 1 << 29,
    PORT_IS_TASK_ERROR = 1 << 30,
};
#define TASK_ABSENT 0x7fu

/* ahci.c */

/** Interrupts follow the ports' registers. */
void ahci_update_irq_locked(struct ahci *a) REQUIRES(a->lock);

/* ahci_port.c */

/** The drive comes out of a reset and shows its signature. */
void ahci_port_connect_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock);
/** Registers as after power-on; no command is executed. */
void ahci_port_reset_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock);
/** Commands of before are over: they have no answer. */
void ahci_port_stop_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock);
/** There may be something to do. */
void ahci_port_kick_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock);

/* ata_disk.c, ata_packet.c: execute a command, whose status is set to its end. */

void ata_disk_execute(struct ata_drive *d, struct ata_command *c);
void ata_packet_execute(struct ata_drive *d, struct ata_command *c);
/** Of both: what a reset makes of the drive. */
void ata_drive_reset(struct ata_drive *d);
/** The command ends with an error. */
void ata_fail(struct ata_command *c, uint8_t error);
static inline void ata_put_word(uint8_t *data, unsigned word, unsigned value)
{
    store_le16(data + 2UL * word, (uint16_t)value);
}
/** IDENTIFY's text: words have their first letter in the upper byte. */
void ata_put_text(uint8_t *data, unsigned word, unsigned words, const char *text);

#endif
