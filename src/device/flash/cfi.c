/* NOR flash: two 16-bit chips side by side, so that a 32-bit access reaches both.
 * Spec: JEDEC JEP137B and JESD68.01 (CFI), Intel basic command set (28F128J3 data sheet §4).
 *
 *     bank offset  0    2    4    6          chip 0: bytes 0-1, 4-5...   chip 1: bytes 2-3, 6-7...
 *     chip, word   0,0  1,0  0,1  1,1
 *
 * Invariants:
 *  1. `content` holds the complement of the data: fresh zero pages are erased flash and cost
 *     nothing.
 *  2. Programming clears bits, erasing sets a block's; the file follows at once, so the machine may
 *     die at any time.
 *
 * Threads: vCPUs; one lock. File writes are done under it on the vCPU's thread: flash is slow. */
#include "device/flash/cfi.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "state/state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CHIPS        2
#define CHIP_BLOCK   (128u << 10) /* bytes of one chip that are erased together */
#define BLOCK        ((uint64_t)CHIP_BLOCK * CHIPS)
#define BUFFER_WORDS 256 /* of one chip */
#define PAGE         4096u
#define PAGES        (CFI_FLASH_SIZE / PAGE)

enum {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_2 = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_LOCK = 0x60,
    CMD_READ_STATUS = 0x70,
    CMD_READ_ID = 0x90,
    CMD_QUERY = 0x98,
    CMD_SUSPEND = 0xb0,
    CMD_CONFIRM = 0xd0,
    CMD_BUFFER = 0xe8,
    CMD_READ_ARRAY = 0xff,
};

enum { STATUS_PROGRAM_ERROR = 0x10, STATUS_ERASE_ERROR = 0x20, STATUS_READY = 0x80 };

enum mode { MODE_ARRAY, MODE_STATUS, MODE_ID, MODE_QUERY };

/* What the next write to the chip means. */
enum step {
    STEP_COMMAND,
    STEP_PROGRAM_DATA,
    STEP_ERASE_CONFIRM,
    STEP_LOCK_CONFIRM,
    STEP_BUFFER_COUNT,
    STEP_BUFFER_DATA,
    STEP_BUFFER_CONFIRM,
};

struct chip {
    enum mode mode;
    enum step step;
    uint8_t status;
    unsigned buffer_left;          /* words still to come */
    unsigned buffer_count;         /* words come */
    uint32_t buffer_block;         /* block that the buffered program names */
    uint32_t addr[BUFFER_WORDS];   /* chip words */
    uint16_t buffer[BUFFER_WORDS]; /* their data */
};

struct cfi_flash {
    struct mutex lock;
    struct chip chips[CHIPS];  /* [lock] */
    uint8_t *content;          /* [lock] complemented */
    uint64_t used[PAGES / 64]; /* [lock] bit for each page that may not be erased */
    int fd;                    /* [init] -1 = none */
    uint64_t file_size;        /* [init] */
    bool write_failed;         /* [lock] said so already */
};

/* CFI query structure of one chip, from word 0x10 (JEP137B). */
static const uint8_t query[] = {
    'Q',  'R',  'Y',  0x01,
    0x00, 0x31, 0x00, 0x00,
    0x00, 0x00, 0x00,       /* 0x10: Intel, table at 0x31 */
    0x45, 0x55, 0x00, 0x00, /* 0x1b: Vcc 4.5 to 5.5 V, no Vpp */
    0x07, 0x07, 0x0a, 0x00, /* 0x1f: typical times, powers of two */
    0x04, 0x04, 0x04, 0x00, /* 0x23: longest, as multiples of these */
    24,   0x01, 0x00, 9,
    0x00, 1,                            /* 0x27: 16 MiB, x16, 512-byte buffer, one region: */
    0x7f, 0x00, 0x00, CHIP_BLOCK >> 16, /* 0x2d: 128 blocks of 128 KiB */
    'P',  'R',  'I',  '1',
    '0',  0,    0,    0,
    0,    0,    0,    0,
    0,    0,    0, /* 0x31: no optional features */
};

static uint64_t byte_offset(unsigned chip, uint32_t word)
{
    return (uint64_t)word * 4 + chip * 2;
}

static void use_page(struct cfi_flash *f, uint64_t page)
{
    f->used[page / 64] |= 1ULL << page % 64;
}

static bool is_used(const struct cfi_flash *f, uint64_t page)
{
    return f->used[page / 64] >> page % 64 & 1;
}

static void write_back_locked(struct cfi_flash *f, uint64_t offset, uint64_t size) REQUIRES(f->lock)
{
    uint8_t plain[4096];

    if (f->fd < 0 || offset >= f->file_size)
        return;
    size = MIN(size, f->file_size - offset);
    while (size) {
        size_t n = MIN(size, (uint64_t)sizeof(plain));

        for (size_t i = 0; i < n; i++)
            plain[i] = (uint8_t)~f->content[offset + i];
        int rc = fd_pwrite_all(f->fd, plain, n, (off_t)offset);
        if (rc && !f->write_failed) {
            log_warn("cannot write the flash file: %s", strerror(-rc));
            f->write_failed = true;
        }
        offset += n;
        size -= n;
    }
}

static uint16_t array_word(const struct cfi_flash *f, unsigned chip, uint32_t word)
{
    return (uint16_t)~load_le16(f->content + byte_offset(chip, word));
}

/* Programming can only clear bits: in the complement, set them. */
static void program_locked(struct cfi_flash *f, unsigned chip, uint32_t word, uint16_t data)
    REQUIRES(f->lock)
{
    uint8_t *p = f->content + byte_offset(chip, word);

    use_page(f, byte_offset(chip, word) / PAGE);
    store_le16(p, (uint16_t)(load_le16(p) | (uint16_t)~data));
    write_back_locked(f, byte_offset(chip, word), 2);
}

static void erase_locked(struct cfi_flash *f, unsigned chip, uint32_t word) REQUIRES(f->lock)
{
    uint64_t start = align_down(byte_offset(0, word), BLOCK);

    for (uint64_t at = start; at < start + BLOCK; at += 4)
        store_le16(f->content + at + chip * 2, 0);
    write_back_locked(f, start, BLOCK);
}

static uint16_t read_chip_locked(const struct cfi_flash *f, unsigned chip, uint32_t word)
    REQUIRES(f->lock)
{
    const struct chip *c = &f->chips[chip];

    switch (c->mode) {
    case MODE_ARRAY:
        return array_word(f, chip, word);
    case MODE_STATUS:
        return c->status;
    case MODE_ID:
        switch (word & 0xff) {
        case 0:
            return 0x89; /* Intel */
        case 1:
            return 0x18; /* 128 Mbit */
        default:
            return 0; /* not locked */
        }
    case MODE_QUERY:
        word &= 0xff;
        return word >= 0x10 && word - 0x10 < ARRAY_SIZE(query) ? query[word - 0x10] : 0;
    }
    return 0;
}

static void fail(struct chip *c, uint8_t bits)
{
    c->status |= bits;
    c->step = STEP_COMMAND;
    c->mode = MODE_STATUS;
}

static void command(struct chip *c, uint32_t word, uint16_t value)
{
    c->mode = MODE_STATUS;
    switch (value & 0xff) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_2:
        c->step = STEP_PROGRAM_DATA;
        break;
    case CMD_ERASE:
        c->step = STEP_ERASE_CONFIRM;
        break;
    case CMD_LOCK:
        c->step = STEP_LOCK_CONFIRM;
        break;
    case CMD_BUFFER:
        c->step = STEP_BUFFER_COUNT;
        c->buffer_block = word / (CHIP_BLOCK / 2);
        break;
    case CMD_CLEAR_STATUS:
        c->status = STATUS_READY;
        c->mode = MODE_ARRAY;
        break;
    case CMD_READ_STATUS:
    case CMD_SUSPEND:
    case CMD_CONFIRM: /* resume: nothing is ever suspended */
        break;
    case CMD_READ_ID:
        c->mode = MODE_ID;
        break;
    case CMD_QUERY:
        c->mode = MODE_QUERY;
        break;
    case CMD_READ_ARRAY:
    case 0xf0: /* the other command set's reset, which probes send */
    case 0x00:
        c->mode = MODE_ARRAY;
        break;
    default:
        guest_error("flash", "unknown command 0x%x", value);
        c->mode = MODE_ARRAY;
        break;
    }
}

static void buffer_data(struct chip *c, uint32_t word, uint16_t value)
{
    c->addr[c->buffer_count] = word;
    c->buffer[c->buffer_count++] = value;
    if (--c->buffer_left == 0)
        c->step = STEP_BUFFER_CONFIRM;
}

static void buffer_confirm_locked(struct cfi_flash *f, unsigned chip, uint16_t value)
    REQUIRES(f->lock)
{
    struct chip *c = &f->chips[chip];

    if ((value & 0xff) != CMD_CONFIRM) {
        fail(c, STATUS_PROGRAM_ERROR | STATUS_ERASE_ERROR);
        return;
    }
    for (unsigned i = 0; i < c->buffer_count; i++) {
        if (c->addr[i] / (CHIP_BLOCK / 2) != c->buffer_block) {
            fail(c, STATUS_PROGRAM_ERROR);
            return;
        }
    }
    for (unsigned i = 0; i < c->buffer_count; i++)
        program_locked(f, chip, c->addr[i], c->buffer[i]);
    c->step = STEP_COMMAND;
}

static void write_chip_locked(struct cfi_flash *f, unsigned chip, uint32_t word, uint16_t value)
    REQUIRES(f->lock)
{
    struct chip *c = &f->chips[chip];

    switch (c->step) {
    case STEP_COMMAND:
        command(c, word, value);
        break;
    case STEP_PROGRAM_DATA:
        program_locked(f, chip, word, value);
        c->step = STEP_COMMAND;
        break;
    case STEP_ERASE_CONFIRM:
        c->step = STEP_COMMAND;
        if ((value & 0xff) == CMD_CONFIRM)
            erase_locked(f, chip, word);
        else
            fail(c, STATUS_PROGRAM_ERROR | STATUS_ERASE_ERROR);
        break;
    case STEP_LOCK_CONFIRM: /* blocks are never locked: locking is accepted and without effect */
        c->step = STEP_COMMAND;
        break;
    case STEP_BUFFER_COUNT:
        c->buffer_left = value + 1u;
        c->buffer_count = 0;
        c->step = STEP_BUFFER_DATA;
        if (c->buffer_left > BUFFER_WORDS)
            fail(c, STATUS_PROGRAM_ERROR | STATUS_ERASE_ERROR);
        break;
    case STEP_BUFFER_DATA:
        buffer_data(c, word, value);
        break;
    case STEP_BUFFER_CONFIRM:
        buffer_confirm_locked(f, chip, value);
        break;
    }
}

static enum bus_result flash_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct cfi_flash *f = dev;
    uint32_t word = (uint32_t)(offset / 4);

    mutex_lock(&f->lock);
    uint32_t both = read_chip_locked(f, 0, word) | (uint32_t)read_chip_locked(f, 1, word) << 16;
    mutex_unlock(&f->lock);
    *ret = (uint64_t)both >> (offset % 4 * 8) & MASK(size * 8);
    return BUS_OK;
}

static enum bus_result flash_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct cfi_flash *f = dev;
    uint32_t word = (uint32_t)(offset / 4);

    mutex_lock(&f->lock);
    if (size == 4 || offset % 4 < 2)
        write_chip_locked(f, 0, word, (uint16_t)value);
    if (size == 4 || offset % 4 >= 2)
        write_chip_locked(f, 1, word, (uint16_t)(size == 4 ? value >> 16 : value));
    mutex_unlock(&f->lock);
    return BUS_OK;
}

static const struct mmio_ops flash_ops = {
    .name = "flash",
    .read = flash_read,
    .write = flash_write,
    .max_size = 4,
};

static int load_file(struct cfi_flash *f, const char *path, struct error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;

    f->fd = open(path, O_RDWR | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st))
        return error_set(err, errno, "cannot open flash file '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "flash file '%s' is not a regular file", path);
    if ((uint64_t)st.st_size > CFI_FLASH_SIZE)
        return error_set(err, EFBIG, "flash file '%s' is larger than %llu MiB", path,
                         CFI_FLASH_SIZE >> 20);
    if (fcntl(f->fd, F_OFD_SETLK, &lock))
        return error_set(err, EBUSY, "flash file '%s' is in use by another machine", path);
    f->file_size = (uint64_t)st.st_size;
    int rc = fd_pread_all(f->fd, f->content, f->file_size, 0);
    if (rc)
        return error_set(err, -rc, "cannot read flash file '%s': %s", path, strerror(-rc));
    for (uint64_t i = 0; i < f->file_size; i++)
        f->content[i] = (uint8_t)~f->content[i];
    for (uint64_t i = 0; i < f->file_size; i += PAGE)
        use_page(f, i / PAGE);
    return 0;
}

int cfi_flash_new(struct mem *mem, gpa_t base, const char *path, struct cfi_flash **ret,
                  struct error *err)
{
    struct cfi_flash *f = calloc(1, sizeof(*f));
    void *content = mmap(NULL, CFI_FLASH_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int rc = 0;

    if (content == MAP_FAILED || !f) {
        if (content != MAP_FAILED)
            (void)munmap(content, CFI_FLASH_SIZE); /* ours, so it cannot fail */
        free(f);
        return error_set(err, ENOMEM, "out of memory");
    }
    f->content = content;
    f->fd = -1;
    mutex_init(&f->lock);
    cfi_flash_reset(f);
    if (path)
        rc = load_file(f, path, err);
    if (!rc)
        rc = mem_add_mmio(mem, base, CFI_FLASH_SIZE, &flash_ops, f, err);
    if (rc) {
        cfi_flash_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void cfi_flash_free(struct cfi_flash *f)
{
    if (!f)
        return;
    fd_close(f->fd);
    (void)munmap(f->content, CFI_FLASH_SIZE); /* ours, so it cannot fail */
    mutex_done(&f->lock);
    free(f);
}

void cfi_flash_reset(struct cfi_flash *f)
{
    mutex_lock(&f->lock);
    for (unsigned i = 0; i < CHIPS; i++)
        f->chips[i] = (struct chip){.status = STATUS_READY};
    mutex_unlock(&f->lock);
}

static const struct state_field chip_fields[] = {
    STATE_FIELD(struct chip, mode),
    STATE_FIELD(struct chip, step),
    STATE_FIELD(struct chip, status),
    STATE_FIELD(struct chip, buffer_left),
    STATE_FIELD(struct chip, buffer_count),
    STATE_FIELD(struct chip, buffer_block),
    STATE_ARRAY(struct chip, addr),
    STATE_ARRAY(struct chip, buffer),
    {0},
};

static bool is_erased(const struct cfi_flash *f, uint64_t page)
{
    const uint8_t *p = f->content + page * PAGE;

    return !is_used(f, page) || (!p[0] && !memcmp(p, p + 1, PAGE - 1));
}

/** The pages that are not erased, each after its number. */
static void put_content(const struct cfi_flash *f, struct state_out *out)
{
    uint64_t pages = 0;
    uint8_t *at;

    for (uint64_t i = 0; i < PAGES; i++)
        pages += !is_erased(f, i);
    uint8_t *data = at = malloc(pages * (PAGE + 4) + 1);
    for (uint64_t i = 0; data && i < PAGES; i++) {
        if (is_erased(f, i))
            continue;
        store_le32(at, (uint32_t)i);
        memcpy(at + 4, f->content + i * PAGE, PAGE);
        at += PAGE + 4;
    }
    if (data)
        state_put_bytes(out, "content", data, (size_t)(at - data));
    free(data); /* without the field the state does not load: nothing is lost silently */
}

void cfi_flash_save(struct cfi_flash *f, unsigned instance, struct state_out *out)
{
    mutex_lock(&f->lock);
    for (unsigned i = 0; i < CHIPS; i++)
        state_save(out, "flash-chip", instance * CHIPS + i, 1, chip_fields, &f->chips[i]);
    state_begin(out, "flash", instance, 1);
    put_content(f, out);
    state_end(out);
    mutex_unlock(&f->lock);
}

static int get_content_locked(struct cfi_flash *f, const struct state_section *s, struct error *err)
    REQUIRES(f->lock)
{
    const uint8_t *data;
    size_t size;
    int rc = state_get_bytes(s, "content", PAGES * (PAGE + 4), &data, &size, err);

    if (rc)
        return rc;
    if (size % (PAGE + 4))
        return state_bad(s, err, "the content is cut off");
    /* pages that nobody used stay untouched, and cost no memory */
    for (uint64_t i = 0; i < PAGES; i++) {
        if (is_used(f, i))
            memset(f->content + i * PAGE, 0, PAGE);
    }
    for (; size; size -= PAGE + 4, data += PAGE + 4) {
        uint64_t page = load_le32(data);

        if (page >= PAGES)
            return state_bad(s, err, "a page beyond the end");
        memcpy(f->content + page * PAGE, data + 4, PAGE);
        use_page(f, page);
    }
    write_back_locked(f, 0, CFI_FLASH_SIZE);
    return 0;
}

static bool chip_is_sound(const struct chip *c)
{
    if (c->mode > MODE_QUERY || c->step > STEP_BUFFER_CONFIRM)
        return false;
    return c->buffer_count <= BUFFER_WORDS && c->buffer_left <= BUFFER_WORDS - c->buffer_count &&
           (c->step != STEP_BUFFER_DATA || c->buffer_left);
}

int cfi_flash_load(struct cfi_flash *f, unsigned instance, const struct state_in *in,
                   struct error *err)
{
    const struct state_section *s;
    int rc = state_find(in, "flash", instance, 1, &s, err);

    mutex_lock(&f->lock);
    for (unsigned i = 0; i < CHIPS && !rc; i++) {
        rc = state_load(in, "flash-chip", instance * CHIPS + i, 1, chip_fields, &f->chips[i], err);
        if (!rc && !chip_is_sound(&f->chips[i])) {
            f->chips[i] = (struct chip){.status = STATUS_READY};
            rc = state_bad(s, err, "a chip's buffer is beyond its end");
        }
    }
    if (!rc)
        rc = get_content_locked(f, s, err);
    if (!rc)
        rc = state_check_all_read(s, err);
    mutex_unlock(&f->lock);
    return rc;
}
