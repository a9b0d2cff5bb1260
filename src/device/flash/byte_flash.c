/* NOR flash of one chip with eight data lines. cfi.c has two chips of sixteen, which drivers of
 * kernels query; this one's driver is in firmware and knows what it drives.
 *
 * Spec: Intel basic command set (28F640J3 data sheet §4): the commands that change or tell
 * something, one byte at a time; no buffer, no query, no locks.
 *
 * Invariants:
 *  1. Programming clears bits, erasing sets those of a 4 KiB block; the file follows at once, so
 *     the machine may die at any time.
 *  2. A write of several bytes is that of its first.
 *
 * All of it is registers, also while it shows its array: firmware reads it once at its start, and
 * memory that turns into registers and back would need every vCPU to stand still.
 *
 * Threads: vCPUs; one lock, with which the file is written, on the vCPU's thread. */
#include "device/flash/byte_flash.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "state/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK  4096u
#define ERASED 0xff

enum {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_2 = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_READ_STATUS = 0x70,
    CMD_CONFIRM = 0xd0,
    CMD_READ_ARRAY = 0xff,
};

enum { STATUS_PROGRAM_ERROR = 0x10, STATUS_ERASE_ERROR = 0x20, STATUS_READY = 0x80 };

/** What a read shows, and what the next write means. */
enum mode { MODE_ARRAY, MODE_STATUS, MODE_LAST = MODE_STATUS };
enum step { STEP_COMMAND, STEP_DATA, STEP_CONFIRM, STEP_LAST = STEP_CONFIRM };

struct registers {
    uint8_t mode, step, status;
};

struct byte_flash {
    struct mutex lock;
    struct registers r; /* [lock] */
    uint8_t *content;   /* [lock] */
    size_t size;        /* [init] */
    int fd;             /* [init] */
    bool write_failed;  /* [lock] said so already */
};

static void write_back_locked(struct byte_flash *f, size_t offset, size_t size) REQUIRES(f->lock)
{
    int rc = fd_pwrite_all(f->fd, f->content + offset, size, (off_t)offset);

    if (rc && !f->write_failed) {
        log_warn("cannot write the firmware's variables: %s", strerror(-rc));
        f->write_failed = true;
    }
}

static void command_locked(struct byte_flash *f, uint8_t value) REQUIRES(f->lock)
{
    struct registers *r = &f->r;

    r->mode = MODE_STATUS;
    switch (value) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_2:
        r->step = STEP_DATA;
        break;
    case CMD_ERASE:
        r->step = STEP_CONFIRM;
        break;
    case CMD_CLEAR_STATUS:
        r->status = 0; /* the driver tells a flash from RAM and ROM by its status of 0 after this */
        break;
    case CMD_READ_STATUS:
    case CMD_CONFIRM: /* resume: nothing is ever suspended */
        break;
    default:
        guest_error("flash", "unknown command 0x%x", value);
        r->mode = MODE_ARRAY;
        break;
    case CMD_READ_ARRAY:
        r->mode = MODE_ARRAY;
        break;
    }
}

static void write_locked(struct byte_flash *f, size_t offset, uint8_t value) REQUIRES(f->lock)
{
    struct registers *r = &f->r;

    switch ((enum step)r->step) {
    case STEP_COMMAND:
        command_locked(f, value);
        break;
    case STEP_DATA:
        f->content[offset] &= value;
        write_back_locked(f, offset, 1);
        r->step = STEP_COMMAND;
        r->status |= STATUS_READY;
        break;
    case STEP_CONFIRM:
        r->step = STEP_COMMAND;
        r->status |= STATUS_READY;
        if (value == CMD_CONFIRM) {
            offset = align_down(offset, BLOCK);
            memset(f->content + offset, ERASED, BLOCK);
            write_back_locked(f, offset, BLOCK);
        } else {
            r->status |= STATUS_PROGRAM_ERROR | STATUS_ERASE_ERROR;
        }
        break;
    }
}

static enum bus_result flash_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct byte_flash *f = dev;
    uint8_t bytes[8] = {0};

    mutex_lock(&f->lock);
    if (f->r.mode == MODE_ARRAY)
        memcpy(bytes, f->content + offset, size);
    else
        memset(bytes, f->r.status, size);
    mutex_unlock(&f->lock);
    *ret = load_le64(bytes);
    return BUS_OK;
}

static enum bus_result flash_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct byte_flash *f = dev;

    mutex_lock(&f->lock);
    write_locked(f, offset, (uint8_t)value);
    mutex_unlock(&f->lock);
    return BUS_OK;
}

static const struct mmio_ops flash_ops = {
    .name = "byte-flash",
    .read = flash_read,
    .write = flash_write,
};

static int load_file(struct byte_flash *f, const char *path, struct error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;

    f->fd = open(path, O_RDWR | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st))
        return error_set(err, errno, "cannot open flash file '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > BYTE_FLASH_MAX ||
        st.st_size % BLOCK)
        return error_set(
            err, EINVAL,
            "flash file '%s' is not a whole number of 4 KiB blocks, of %llu MiB at most", path,
            BYTE_FLASH_MAX >> 20);
    if (fcntl(f->fd, F_OFD_SETLK, &lock))
        return error_set(err, EBUSY, "flash file '%s' is in use by another machine", path);
    f->size = (size_t)st.st_size;
    f->content = malloc(f->size);
    if (!f->content)
        return error_set(err, ENOMEM, "out of memory");
    int rc = fd_pread_all(f->fd, f->content, f->size, 0);
    return rc ? error_set(err, -rc, "cannot read flash file '%s': %s", path, strerror(-rc)) : 0;
}

int byte_flash_new(struct mem *mem, gpa_t end, const char *path, struct byte_flash **ret,
                   struct error *err)
{
    struct byte_flash *f = calloc(1, sizeof(*f));

    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    mutex_init(&f->lock);
    byte_flash_reset(f);
    int rc = load_file(f, path, err);
    if (!rc)
        rc = mem_add_mmio(mem, GPA(end.v - f->size), f->size, &flash_ops, f, err);
    if (rc) {
        byte_flash_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void byte_flash_free(struct byte_flash *f)
{
    if (!f)
        return;
    fd_close(f->fd);
    free(f->content);
    mutex_done(&f->lock);
    free(f);
}

void byte_flash_reset(struct byte_flash *f)
{
    mutex_lock(&f->lock);
    f->r = (struct registers){.status = STATUS_READY};
    mutex_unlock(&f->lock);
}

static const struct state_field register_fields[] = {
    STATE_FIELD(struct registers, mode),
    STATE_FIELD(struct registers, step),
    STATE_FIELD(struct registers, status),
    {0},
};

void byte_flash_save(struct byte_flash *f, struct state_out *out)
{
    mutex_lock(&f->lock);
    state_save(out, "byte-flash-registers", 0, 1, register_fields, &f->r);
    state_begin(out, "byte-flash", 0, 1);
    state_put_bytes(out, "content", f->content, f->size);
    state_end(out);
    mutex_unlock(&f->lock);
}

int byte_flash_load(struct byte_flash *f, const struct state_in *in, struct error *err)
{
    const struct state_section *s;
    struct registers r;
    const uint8_t *data;
    size_t size;
    int rc = state_load(in, "byte-flash-registers", 0, 1, register_fields, &r, err);

    if (!rc)
        rc = state_find(in, "byte-flash", 0, 1, &s, err);
    if (!rc)
        rc = state_get_bytes(s, "content", f->size, &data, &size, err);
    if (!rc && (size != f->size || r.mode > MODE_LAST || r.step > STEP_LAST))
        rc = state_bad(s, err, "it is another flash's");
    if (!rc)
        rc = state_check_all_read(s, err);
    if (rc)
        return rc;
    mutex_lock(&f->lock);
    f->r = r;
    memcpy(f->content, data, size);
    write_back_locked(f, 0, size);
    mutex_unlock(&f->lock);
    return 0;
}
