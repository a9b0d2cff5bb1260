/* The commands of an ATA disk.
 * Spec: ATA8-ACS (T13/1699-D) §7 (commands), §4 (features); Serial ATA 3 §13.6 (queued commands).
 *
 * Sectors have 512 bytes, of which eight make a physical one, as the host's pages. What the guest
 * has written is as safe as on a disk with a write cache: after FLUSH CACHE, or when the cache is
 * off.
 *
 * Threads: the port's. */
#include "device/ata/ahci_internal.h"

#include <errno.h>
#include <string.h>

#define MULTIPLE_MAX 16
#define LBA28_MAX    0x0fffffffULL
#define LOG_QUEUED   0x10
#define TRIM_RANGE   8

void ata_fail(struct ata_command *c, uint8_t error)
{
    c->status = ST_DRDY | ST_DSC | ST_ERR;
    c->error = error;
    if (c->reply != REPLY_QUEUED)
        c->reply = REPLY_REGISTERS;
}

void ata_drive_reset(struct ata_drive *d)
{
    d->multiple = MULTIPLE_MAX;
    d->write_through = false;
    d->has_failed = false;
    d->sense = d->asc = d->ascq = 0;
    d->is_locked = false;
}

/* --- Addresses --- */

enum form { FORM_28, FORM_48, FORM_QUEUED };

/** The sectors that a command names. */
struct range {
    uint64_t lba;
    uint32_t count;
};

static uint64_t lba_of(const struct ata_command *c, enum form form)
{
    const uint8_t *f = c->fis;
    uint64_t low = f[FIS_LBA] | (uint64_t)f[FIS_LBA + 1] << 8 | (uint64_t)f[FIS_LBA + 2] << 16;

    if (form == FORM_28)
        return low | (uint64_t)(f[FIS_DEVICE] & 15) << 24;
    return low | (uint64_t)f[FIS_LBA_EXP] << 24 | (uint64_t)f[FIS_LBA_EXP + 1] << 32 |
           (uint64_t)f[FIS_LBA_EXP + 2] << 40;
}

static struct range range_of(const struct ata_command *c, enum form form)
{
    const uint8_t *f = c->fis;
    unsigned at = form == FORM_QUEUED ? FIS_FEATURES : FIS_COUNT;
    unsigned high = form == FORM_QUEUED ? FIS_FEATURES_EXP : FIS_COUNT_EXP;
    uint32_t count = form == FORM_28 ? f[at] : f[at] | (uint32_t)f[high] << 8;

    if (!count)
        count = form == FORM_28 ? 256 : 65536;
    return (struct range){lba_of(c, form), count};
}

static bool is_inside(const struct ata_drive *d, struct range r)
{
    uint64_t sectors = d->disk->size_bytes / ATA_SECTOR;

    return r.lba <= sectors && r.count <= sectors - r.lba;
}

/* --- Data --- */

/** Move all of @r between the disk and the guest. 0 or -errno. */
static int transfer(struct ata_drive *d, struct ata_command *c, struct range r, bool write)
{
    uint64_t offset = r.lba * ATA_SECTOR;
    uint64_t left = (uint64_t)r.count * ATA_SECTOR;
    struct ahci_piece piece;

    while (left) {
        uint64_t n = ahci_dma_map(&c->dma, left, !write, &piece);

        if (!n)
            return 0; /* the guest gave less memory, or bad: the caller looks */
        int rc = write ? disk_pwritev(d->disk, piece.iov, (int)piece.count, offset)
                       : disk_preadv(d->disk, piece.iov, (int)piece.count, offset);
        if (!write)
            ahci_dma_written(&c->dma, &piece);
        if (rc)
            return rc;
        offset += n;
        left -= n;
    }
    return 0;
}

static void read_sectors(struct ata_drive *d, struct ata_command *c, enum form form)
{
    struct range r = range_of(c, form);

    if (!is_inside(d, r))
        ata_fail(c, ER_IDNF | ER_ABRT);
    else if (transfer(d, c, r, false))
        ata_fail(c, ER_UNC);
}

static void write_sectors(struct ata_drive *d, struct ata_command *c, enum form form, bool through)
{
    struct range r = range_of(c, form);
    int rc;

    if (!is_inside(d, r)) {
        ata_fail(c, ER_IDNF | ER_ABRT);
        return;
    }
    rc = transfer(d, c, r, true);
    if (!rc && (through || d->write_through))
        rc = disk_flush(d->disk);
    if (rc)
        ata_fail(c, ER_ABRT);
}

static void verify_sectors(struct ata_drive *d, struct ata_command *c, enum form form)
{
    if (!is_inside(d, range_of(c, form)))
        ata_fail(c, ER_IDNF | ER_ABRT);
}

static void flush(struct ata_drive *d, struct ata_command *c)
{
    if (disk_flush(d->disk))
        ata_fail(c, ER_ABRT);
}

/** Serial ATA 3 §13.6.4: the tag is in the sector count; the failure of one stops all, and is kept
 * for the error log. */
static void queued(struct ata_drive *d, struct ata_command *c, bool write)
{
    c->reply = REPLY_QUEUED;
    if (write)
        write_sectors(d, c, FORM_QUEUED, c->fis[FIS_DEVICE] & 0x80);
    else
        read_sectors(d, c, FORM_QUEUED);
    if (!(c->status & ST_ERR))
        return;
    d->has_failed = true;
    d->failed_tag = c->fis[FIS_COUNT] >> 3;
    d->failed_status = c->status;
    d->failed_error = c->error;
    d->failed_lba = lba_of(c, FORM_QUEUED);
}

/** DATA SET MANAGEMENT: ranges of 48-bit addresses and 16-bit counts. A hint. */
static void trim(struct ata_drive *d, struct ata_command *c)
{
    uint32_t blocks = range_of(c, FORM_48).count;

    if (!(c->fis[FIS_FEATURES] & 1) || d->disk->readonly) {
        ata_fail(c, ER_ABRT);
        return;
    }
    for (uint32_t i = 0; i < blocks; i++) {
        uint8_t block[ATA_SECTOR];
        size_t size = ahci_dma_get(&c->dma, block, sizeof(block));

        for (size_t at = 0; at + TRIM_RANGE <= size; at += TRIM_RANGE) {
            uint64_t entry = load_le64(block + at);
            struct range r = {entry & MASK(48), (uint32_t)(entry >> 48)};

            if (!is_inside(d, r)) {
                ata_fail(c, ER_IDNF | ER_ABRT);
                return;
            }
            if (r.count &&
                disk_discard(d->disk, r.lba * ATA_SECTOR, (uint64_t)r.count * ATA_SECTOR)) {
                ata_fail(c, ER_ABRT);
                return;
            }
        }
        if (size < sizeof(block))
            return;
    }
}

/* --- What it is --- */

void ata_put_text(uint8_t *data, unsigned word, unsigned words, const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < 2UL * words; i++)
        data[2 * word + (i ^ 1)] = (uint8_t)(i < n ? text[i] : ' ');
}

/** §7.16.7. */
static void identify(struct ata_drive *d, struct ata_command *c)
{
    uint8_t id[ATA_SECTOR] = {0};
    uint64_t sectors = d->disk->size_bytes / ATA_SECTOR;
    uint64_t cylinders = MIN(sectors / (16 * 63), (uint64_t)16383);
    uint8_t sum = 0;

    ata_put_word(id, 0, 0x40);
    ata_put_word(id, 1, (unsigned)cylinders);
    ata_put_word(id, 3, 16);
    ata_put_word(id, 6, 63);
    ata_put_text(id, 10, 10, d->serial);
    ata_put_text(id, 23, 4, "1.0");
    ata_put_text(id, 27, 20, "Posada disk");
    ata_put_word(id, 47, 0x8000 | MULTIPLE_MAX);
    ata_put_word(id, 49, 0x0f00); /* LBA, DMA, IORDY */
    ata_put_word(id, 50, 0x4000);
    ata_put_word(id, 53, 7); /* words 54-58, 64-70 and 88 hold */
    ata_put_word(id, 54, (unsigned)cylinders);
    ata_put_word(id, 55, 16);
    ata_put_word(id, 56, 63);
    store_le32(id + 2UL * 57, (uint32_t)(cylinders * 16 * 63));
    ata_put_word(id, 59, d->multiple ? 0x100u | d->multiple : 0);
    store_le32(id + 2UL * 60, (uint32_t)MIN(sectors, LBA28_MAX));
    ata_put_word(id, 63, 0x0007);
    ata_put_word(id, 64, 3);
    for (unsigned i = 65; i <= 68; i++)
        ata_put_word(id, i, 120);
    ata_put_word(id, 75, AHCI_SLOTS - 1); /* queue depth */
    ata_put_word(id, 76, 1 << 1 | 1 << 2 | 1 << 8);
    ata_put_word(id, 80, 0x1f0); /* ATA/ATAPI-4 to ATA8-ACS */
    ata_put_word(id, 82, 0x4068);
    ata_put_word(id, 83, 0x7400); /* flushes, 48-bit addresses */
    ata_put_word(id, 84, 0x4060); /* forced unit access, logs */
    ata_put_word(id, 85, 0x4048u | (d->write_through ? 0 : 0x20));
    ata_put_word(id, 86, 0x3400);
    ata_put_word(id, 87, 0x4060);
    ata_put_word(id, 88, 0x203f); /* Ultra DMA 5 */
    store_le64(id + 2UL * 100, sectors);
    ata_put_word(id, 105, 8);
    ata_put_word(id, 106, 0x6003); /* 2^3 sectors make a physical one */
    ata_put_word(id, 169, d->disk->readonly ? 0 : 1);
    ata_put_word(id, 209, 0x4000);
    ata_put_word(id, 217, 1); /* it does not rotate */
    id[510] = 0xa5;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + id[i]);
    id[511] = (uint8_t)-sum;
    c->reply = REPLY_PIO_IN;
    (void)ahci_dma_put(&c->dma, id, sizeof(id)); /* a fault is remembered */
}

/** READ LOG EXT: the directory, and what became of queued commands (Serial ATA 3 §13.7.4). */
static void read_log(struct ata_drive *d, struct ata_command *c)
{
    uint8_t page[ATA_SECTOR] = {0};
    uint8_t sum = 0;

    if (c->fis[FIS_LBA] == 0) {
        store_le16(page, 1);
        page[2 * LOG_QUEUED] = 1;
    } else if (c->fis[FIS_LBA] == LOG_QUEUED) {
        page[0] = d->has_failed ? d->failed_tag : 0x80;
        page[2] = d->failed_status;
        page[3] = d->failed_error;
        for (unsigned i = 0; i < 3; i++) {
            page[4 + i] = (uint8_t)(d->failed_lba >> 8 * i);
            page[8 + i] = (uint8_t)(d->failed_lba >> 8 * (i + 3));
        }
        page[7] = 0x40;
        for (unsigned i = 0; i < 511; i++)
            sum = (uint8_t)(sum + page[i]);
        page[511] = (uint8_t)-sum;
        d->has_failed = false;
    } else {
        ata_fail(c, ER_ABRT);
        return;
    }
    c->reply = REPLY_PIO_IN;
    (void)ahci_dma_put(&c->dma, page, sizeof(page)); /* a fault is remembered */
}

static void set_features(struct ata_drive *d, struct ata_command *c)
{
    switch (c->fis[FIS_FEATURES]) {
    case 0x02: /* write cache on, */
        d->write_through = false;
        break;
    case 0x82: /* off */
        d->write_through = true;
        flush(d, c);
        break;
    case 0x03: /* transfer mode: the link has one */
    case 0x55: /* read ahead off, */
    case 0xaa: /* on: the host decides */
    case 0x66:
    case 0xcc:
        break;
    default:
        ata_fail(c, ER_ABRT);
    }
}

static void set_multiple(struct ata_drive *d, struct ata_command *c)
{
    uint8_t n = c->fis[FIS_COUNT];

    if (n > MULTIPLE_MAX || (n & (n - 1)))
        ata_fail(c, ER_ABRT);
    else
        d->multiple = n;
}

/** §7.33: the number of the last sector. */
static void native_max(struct ata_drive *d, struct ata_command *c)
{
    uint64_t last = d->disk->size_bytes / ATA_SECTOR;

    last = MIN(last ? last - 1 : 0, LBA28_MAX);
    for (unsigned i = 0; i < 3; i++)
        c->lba[i] = (uint8_t)(last >> 8 * i);
    c->fis[FIS_DEVICE] = (uint8_t)(0x40 | last >> 24);
}

void ata_disk_execute(struct ata_drive *d, struct ata_command *c)
{
    c->status = ST_DRDY | ST_DSC;
    switch (c->fis[FIS_COMMAND]) {
    case 0x06:
        trim(d, c);
        break;
    case 0x20: /* READ SECTORS: by the controller's DMA, too */
    case 0xc4: /* READ MULTIPLE */
        c->reply = REPLY_PIO_IN;
        read_sectors(d, c, FORM_28);
        break;
    case 0xc8: /* READ DMA */
        read_sectors(d, c, FORM_28);
        break;
    case 0x24:
    case 0x29:
        c->reply = REPLY_PIO_IN;
        read_sectors(d, c, FORM_48);
        break;
    case 0x25:
        read_sectors(d, c, FORM_48);
        break;
    case 0x30: /* WRITE SECTORS, */
    case 0xc5: /* MULTIPLE, */
    case 0xca: /* DMA */
        write_sectors(d, c, FORM_28, false);
        break;
    case 0x34:
    case 0x39:
    case 0x35:
        write_sectors(d, c, FORM_48, false);
        break;
    case 0x3d: /* WRITE DMA FUA EXT, */
    case 0xce: /* MULTIPLE */
        write_sectors(d, c, FORM_48, true);
        break;
    case 0x60:
        queued(d, c, false);
        break;
    case 0x61:
        queued(d, c, true);
        break;
    case 0x40:
        verify_sectors(d, c, FORM_28);
        break;
    case 0x42:
        verify_sectors(d, c, FORM_48);
        break;
    case 0xe7:
    case 0xea:
        flush(d, c);
        break;
    case 0xec:
        identify(d, c);
        break;
    case 0x2f:
        read_log(d, c);
        break;
    case 0xef:
        set_features(d, c);
        break;
    case 0xc6:
        set_multiple(d, c);
        break;
    case 0xf8:
        native_max(d, c);
        break;
    case 0xe5: /* CHECK POWER MODE: active */
        c->count = 0xff;
        break;
    case 0xe0: /* STANDBY IMMEDIATE */
    case 0xe2: /* STANDBY */
        flush(d, c);
        break;
    case 0xe1: /* IDLE IMMEDIATE */
    case 0xe3: /* IDLE */
    case 0xe6: /* SLEEP */
    case 0x10: /* RECALIBRATE */
    case 0x91: /* INITIALIZE DEVICE PARAMETERS */
    case 0xf5: /* SECURITY FREEZE LOCK: there is no security */
        break;
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC: passed */
        c->error = 1;
        break;
    default:
        ata_fail(c, ER_ABRT);
    }
}
