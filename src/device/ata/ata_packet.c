/* The commands of a CD-ROM drive: the few of ATA's, and SCSI's in packets.
 * Spec: ATA8-ACS §7.18 (IDENTIFY PACKET DEVICE), §7.24 (PACKET); MMC-6 (T10/1836-D) §6 (commands),
 * §5.2 (features); SPC-3 §4.5 (sense data), §6.4 (INQUIRY).
 *
 * The medium is a disk read in blocks of 2048 bytes, one session with one data track. It can be
 * ejected, and put back.
 *
 * Threads: the port's. */
#include "device/ata/ahci_internal.h"

#include <string.h>

#define DVD_BLOCKS 360000 /* more than a CD of 80 minutes holds */
#define MODE_MAX   64

enum { SENSE_NOT_READY = 2, SENSE_MEDIUM_ERROR = 3, SENSE_ILLEGAL = 5, SENSE_ATTENTION = 6 };
enum {
    ASC_UNKNOWN_COMMAND = 0x20,
    ASC_OUT_OF_RANGE = 0x21,
    ASC_BAD_FIELD = 0x24,
    ASC_CHANGED = 0x28,
    ASC_NO_MEDIUM = 0x3a,
    ASC_LOCKED = 0x53,
    ASC_READ_ERROR = 0x11,
};

/** CHECK CONDITION: the reason is kept for REQUEST SENSE. */
static void check_condition(struct ata_drive *d, struct ata_command *c, uint8_t sense, uint8_t asc)
{
    d->sense = sense;
    d->asc = asc;
    d->ascq = asc == ASC_LOCKED ? 2 : 0;
    c->status = ST_DRDY | ST_ERR;
    c->error = (uint8_t)(sense << 4 | (sense == SENSE_ILLEGAL ? ER_ABRT : 0));
    c->reply = REPLY_REGISTERS;
}

static uint32_t blocks_of(const struct ata_drive *d)
{
    return (uint32_t)MIN(d->disk->size_bytes / CD_SECTOR, (uint64_t)UINT32_MAX);
}

/** Data for the guest, at most as much as it allocated. */
static void reply(struct ata_command *c, const void *data, size_t size, size_t allocated)
{
    size = MIN(size, allocated);
    if (size && !(c->fis[FIS_FEATURES] & 1)) /* bit 0: by DMA */
        c->reply = REPLY_PACKET_IN;
    (void)ahci_dma_put(&c->dma, data, size); /* a fault is remembered */
}

/* --- Commands --- */

static void request_sense(struct ata_drive *d, struct ata_command *c)
{
    uint8_t sense[SENSE_SIZE] = {0x70};

    sense[2] = d->sense;
    sense[7] = SENSE_SIZE - 8;
    sense[12] = d->asc;
    sense[13] = d->ascq;
    d->sense = d->asc = d->ascq = 0;
    reply(c, sense, sizeof(sense), c->packet[4]);
}

static void inquiry(struct ata_drive *d, struct ata_command *c)
{
    uint8_t data[36] = {0x05, 0x80, 0x05, 0x32, sizeof(data) - 5};

    if (c->packet[1] & 1) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_BAD_FIELD); /* no vital product data */
        return;
    }
    memcpy(data + 8, "Posada  CD-ROM          1.0 ", 28);
    reply(c, data, sizeof(data), load_be16(c->packet + 3));
}

static void read_capacity(struct ata_drive *d, struct ata_command *c)
{
    uint8_t data[8];
    uint32_t blocks = blocks_of(d);

    store_be32(data, blocks ? blocks - 1 : 0);
    store_be32(data + 4, CD_SECTOR);
    reply(c, data, sizeof(data), sizeof(data));
}

static void read_blocks(struct ata_drive *d, struct ata_command *c, uint32_t lba, uint32_t count)
{
    uint64_t offset = (uint64_t)lba * CD_SECTOR;
    uint64_t left = (uint64_t)count * CD_SECTOR;
    uint32_t blocks = blocks_of(d);

    if (lba > blocks || count > blocks - lba) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_OUT_OF_RANGE);
        return;
    }
    if (count && !(c->fis[FIS_FEATURES] & 1))
        c->reply = REPLY_PACKET_IN;
    while (left) {
        struct ahci_piece piece;
        uint64_t n = ahci_dma_map(&c->dma, left, true, &piece);

        if (!n)
            return;
        int rc = disk_preadv(d->disk, piece.iov, (int)piece.count, offset);
        ahci_dma_written(&c->dma, &piece);
        if (rc) {
            check_condition(d, c, SENSE_MEDIUM_ERROR, ASC_READ_ERROR);
            return;
        }
        offset += n;
        left -= n;
    }
}

/** READ CD: the user's data of sectors of mode 1 alone. */
static void read_cd(struct ata_drive *d, struct ata_command *c)
{
    const uint8_t *p = c->packet;
    uint32_t count = (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];

    if ((p[9] & 0xf8) != 0x10 && p[9])
        check_condition(d, c, SENSE_ILLEGAL, ASC_BAD_FIELD);
    else if (p[9])
        read_blocks(d, c, load_be32(p + 2), count);
}

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
    if (!msf) {
        store_be32(p, lba);
        return;
    }
    lba += 150;
    p[0] = 0;
    p[1] = (uint8_t)(lba / 75 / 60);
    p[2] = (uint8_t)(lba / 75 % 60);
    p[3] = (uint8_t)(lba % 75);
}

/** §6.25: one data track, and where it ends; or the one session. */
static void read_toc(struct ata_drive *d, struct ata_command *c)
{
    const uint8_t *p = c->packet;
    bool msf = p[1] & 2;
    unsigned format = p[2] & 15 ? p[2] & 15 : p[9] >> 6;
    uint8_t data[20] = {0, 10, 1, 1, 0, 0x14, 1, 0};
    size_t size = 12;

    if (format > 1 || (!format && p[6] > 1 && p[6] != 0xaa)) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_BAD_FIELD);
        return;
    }
    put_address(data + 8, 0, msf);
    if (!format) {
        size_t at = p[6] == 0xaa ? 4 : 12;

        memset(data + at, 0, 8);
        data[at + 1] = 0x14;
        data[at + 2] = 0xaa;
        put_address(data + at + 4, blocks_of(d), msf);
        size = at + 8;
        data[1] = (uint8_t)(size - 2);
    }
    reply(c, data, size, load_be16(p + 7));
}

/** §6.22: one session, complete. */
static void read_disc_information(struct ata_drive *d, struct ata_command *c)
{
    uint8_t data[34] = {0, 32, 0x0e, 1, 1, 1, 1, 0x20};

    reply(c, data, sizeof(data), load_be16(c->packet + 7));
}

/** Feature @code of @size bytes, at the end of @data, if the guest asked for it. */
static size_t put_feature(const struct ata_command *c, uint8_t *data, size_t at, unsigned code,
                          unsigned flags, const void *bytes, size_t size)
{
    unsigned from = load_be16(c->packet + 2);
    unsigned kind = c->packet[1] & 3; /* 0 all, 1 the current ones, 2 this one */

    if (code < from || (kind == 2 && code != from) || (kind == 1 && !(flags & 1)))
        return at;
    store_be16(data + at, (uint16_t)code);
    data[at + 2] = (uint8_t)flags;
    data[at + 3] = (uint8_t)size;
    memcpy(data + at + 4, bytes, size);
    return at + 4 + size;
}

/** §6.6: a CD-ROM or DVD-ROM drive. */
static void get_configuration(struct ata_drive *d, struct ata_command *c)
{
    bool dvd = blocks_of(d) > DVD_BLOCKS;
    bool in = !d->is_open;
    uint8_t profiles[8] = {0, 0x10, in && dvd, 0, 0, 0x08, in && !dvd, 0};
    uint8_t core[8] = {0, 0, 0, 7, 1}; /* on serial ATA */
    uint8_t morphing[4] = {2};
    uint8_t removable[4] = {0x29}; /* a tray, that can be locked */
    uint8_t readable[8] = {0, 0, 8, 0, 0, 1};
    uint8_t reads_cd[4] = {0};
    uint8_t data[96] = {0};
    size_t at = 8;

    store_be16(data + 6, !in ? 0 : dvd ? 0x10 : 0x08);
    at = put_feature(c, data, at, 0x00, 3, profiles, sizeof(profiles));
    at = put_feature(c, data, at, 0x01, 0xb, core, sizeof(core));
    at = put_feature(c, data, at, 0x02, 7, morphing, sizeof(morphing));
    at = put_feature(c, data, at, 0x03, 3, removable, sizeof(removable));
    at = put_feature(c, data, at, 0x10, in, readable, sizeof(readable));
    at = put_feature(c, data, at, 0x1e, 8 | (in && !dvd), reads_cd, sizeof(reads_cd));
    at = put_feature(c, data, at, 0x1f, in && dvd, reads_cd, 0);
    store_be32(data, (uint32_t)at - 4);
    reply(c, data, at, load_be16(c->packet + 7));
}

/** §6.7: only by asking, and of the medium. */
static void get_event_status(struct ata_drive *d, struct ata_command *c)
{
    uint8_t data[8] = {0, 6, 4, 0x10};

    if (!(c->packet[1] & 1)) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_BAD_FIELD);
        return;
    }
    if (!(c->packet[4] & 0x10)) { /* other classes there are none of */
        data[1] = 2;
        data[2] = 0x80;
        reply(c, data, 4, load_be16(c->packet + 7));
        return;
    }
    data[4] = d->was_changed ? 2 : 0;
    data[5] = d->is_open ? 1 : 2;
    reply(c, data, sizeof(data), load_be16(c->packet + 7));
}

/** §7: pages of error recovery and of what the drive can. */
static void mode_sense(struct ata_drive *d, struct ata_command *c, size_t header, size_t allocated)
{
    static const uint8_t recovery[] = {0x01, 6, 0, 5};
    static const uint8_t timeout[] = {0x1d, 10};
    static const uint8_t abilities[] = {0x2a, 18,   0x3b, 0, 0x71, 0x60, 0x29, 0,
                                        0x16, 0xe0, 0,    2, 2,    0,    0x16, 0xe0};
    static const struct {
        const uint8_t *bytes;
        size_t size, used;
    } pages[] = {
        {recovery,  8,  sizeof(recovery) },
        {timeout,   12, sizeof(timeout)  },
        {abilities, 20, sizeof(abilities)},
    };
    uint8_t data[MODE_MAX] = {0};
    unsigned page = c->packet[2] & 0x3f;
    size_t at = header;

    if (c->packet[2] >> 6 == 3) {
        check_condition(d, c, SENSE_ILLEGAL, 0x39); /* nothing is saved */
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
        if (page != 0x3f && page != pages[i].bytes[0])
            continue;
        if (c->packet[2] >> 6 != 1) /* 1: what can be changed, which is nothing */
            memcpy(data + at, pages[i].bytes, pages[i].used);
        memcpy(data + at, pages[i].bytes, 2);
        at += pages[i].size;
    }
    if (at == header) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_BAD_FIELD);
        return;
    }
    if (header == 4)
        data[0] = (uint8_t)(at - 1);
    else
        store_be16(data, (uint16_t)(at - 2));
    reply(c, data, at, allocated);
}

static void start_stop(struct ata_drive *d, struct ata_command *c)
{
    unsigned what = c->packet[4] & 3; /* load or eject, start */

    if (what == 2 && d->is_locked && !d->is_open) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_LOCKED);
    } else if (what == 2) {
        d->is_open = true;
    } else if (what == 3 && d->is_open) {
        d->is_open = false;
        d->was_changed = true;
    }
}

static void mechanism_status(struct ata_drive *d, struct ata_command *c)
{
    uint8_t data[8] = {0, (uint8_t)(d->is_open ? 0x10 : 0), 0, 0, 0, 1};

    reply(c, data, sizeof(data), load_be16(c->packet + 8));
}

static void read_10(struct ata_drive *d, struct ata_command *c)
{
    read_blocks(d, c, load_be32(c->packet + 2), load_be16(c->packet + 7));
}

static void read_12(struct ata_drive *d, struct ata_command *c)
{
    read_blocks(d, c, load_be32(c->packet + 2), load_be32(c->packet + 6));
}

static void verify_10(struct ata_drive *d, struct ata_command *c)
{
    uint32_t lba = load_be32(c->packet + 2);
    uint32_t blocks = blocks_of(d);

    if (lba > blocks || load_be16(c->packet + 7) > blocks - lba)
        check_condition(d, c, SENSE_ILLEGAL, ASC_OUT_OF_RANGE);
}

static void mode_sense_6(struct ata_drive *d, struct ata_command *c)
{
    mode_sense(d, c, 4, c->packet[4]);
}

static void mode_sense_10(struct ata_drive *d, struct ata_command *c)
{
    mode_sense(d, c, 8, load_be16(c->packet + 7));
}

static void prevent_removal(struct ata_drive *d, struct ata_command *c)
{
    d->is_locked = c->packet[4] & 1;
}

static void nothing(struct ata_drive *d, struct ata_command *c)
{
}

/** SPC-3 §5.7.2: that the medium was changed is told by the next command, but for those that ask
 * what has happened, or what the drive is. */
enum { MEDIUM = 1, ASKS = 2 };

static const struct {
    uint8_t code;
    uint8_t flags;
    void (*fn)(struct ata_drive *d, struct ata_command *c);
} commands[] = {
    {0x00, MEDIUM, nothing              }, /* TEST UNIT READY */
    {0x03, ASKS,   request_sense        },
    {0x0b, MEDIUM, nothing              }, /* SEEK(6) */
    {0x12, ASKS,   inquiry              },
    {0x1a, 0,      mode_sense_6         },
    {0x1b, 0,      start_stop           },
    {0x1e, 0,      prevent_removal      },
    {0x25, MEDIUM, read_capacity        },
    {0x28, MEDIUM, read_10              },
    {0x2b, MEDIUM, nothing              }, /* SEEK(10) */
    {0x2f, MEDIUM, verify_10            },
    {0x35, MEDIUM, nothing              }, /* SYNCHRONIZE CACHE */
    {0x43, MEDIUM, read_toc             },
    {0x46, ASKS,   get_configuration    },
    {0x4a, ASKS,   get_event_status     },
    {0x51, MEDIUM, read_disc_information},
    {0x5a, 0,      mode_sense_10        },
    {0xa8, MEDIUM, read_12              },
    {0xbb, 0,      nothing              }, /* SET CD SPEED */
    {0xbd, 0,      mechanism_status     },
    {0xbe, MEDIUM, read_cd              },
};

static void packet(struct ata_drive *d, struct ata_command *c)
{
    size_t i = 0;

    c->count = 3; /* the interrupt reason: status */
    while (i < ARRAY_SIZE(commands) && commands[i].code != c->packet[0])
        i++;
    if (i == ARRAY_SIZE(commands)) {
        check_condition(d, c, SENSE_ILLEGAL, ASC_UNKNOWN_COMMAND);
    } else if (d->was_changed && !(commands[i].flags & ASKS)) {
        d->was_changed = false;
        check_condition(d, c, SENSE_ATTENTION, ASC_CHANGED);
    } else if (d->is_open && commands[i].flags & MEDIUM) {
        check_condition(d, c, SENSE_NOT_READY, ASC_NO_MEDIUM);
    } else {
        commands[i].fn(d, c);
    }
}

/* --- ATA's own --- */

static void identify(struct ata_drive *d, struct ata_command *c)
{
    uint8_t id[ATA_SECTOR] = {0};

    ata_put_word(id, 0, 0x85c0); /* a CD-ROM drive, removable, packets of 12 bytes */
    ata_put_text(id, 10, 10, d->serial);
    ata_put_text(id, 23, 4, "1.0");
    ata_put_text(id, 27, 20, "Posada CD-ROM");
    ata_put_word(id, 49, 0x0f00);
    ata_put_word(id, 50, 0x4000);
    ata_put_word(id, 53, 6);
    ata_put_word(id, 63, 0x0007);
    ata_put_word(id, 64, 3);
    for (unsigned i = 65; i <= 68; i++)
        ata_put_word(id, i, 120);
    ata_put_word(id, 76, 1 << 1 | 1 << 2);
    ata_put_word(id, 80, 0x1f0);
    ata_put_word(id, 82, 0x4210); /* PACKET, DEVICE RESET, NOP */
    ata_put_word(id, 83, 0x4000);
    ata_put_word(id, 84, 0x4000);
    ata_put_word(id, 85, 0x4210);
    ata_put_word(id, 87, 0x4000);
    ata_put_word(id, 88, 0x203f);
    c->reply = REPLY_PIO_IN;
    (void)ahci_dma_put(&c->dma, id, sizeof(id)); /* a fault is remembered */
}

void ata_packet_execute(struct ata_drive *d, struct ata_command *c)
{
    c->status = ST_DRDY;
    switch (c->fis[FIS_COMMAND]) {
    case 0xa0:
        packet(d, c);
        break;
    case 0xa1:
        identify(d, c);
        break;
    case 0xef: /* SET FEATURES: transfer mode */
        if (c->fis[FIS_FEATURES] != 3)
            ata_fail(c, ER_ABRT);
        break;
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        break;
    case 0xe5:
        c->count = 0xff;
        break;
    case 0x08: /* DEVICE RESET */
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
        ata_drive_reset(d);
        c->error = 1;
        c->count = 1;
        c->lba[0] = 1;
        c->lba[1] = 0x14;
        c->lba[2] = 0xeb;
        break;
    case 0xec: /* IDENTIFY DEVICE: it says that it is none (ATA8-ACS §7.16.6) */
        ata_fail(c, ER_ABRT);
        c->count = 1;
        c->lba[0] = 1;
        c->lba[1] = 0x14;
        c->lba[2] = 0xeb;
        break;
    default:
        ata_fail(c, ER_ABRT);
    }
}
