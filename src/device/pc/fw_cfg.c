/* Firmware configuration. Spec: QEMU docs/specs/fw_cfg.rst.
 *
 * Invariants:
 *  1. `at` never passes the end of the selected item by more than the guest's skips: reads past it
 *     give zeroes.
 *  2. What the guest asks to be copied is bounded by the item's size, not by the guest's number:
 *     the rest is zeroes, and those go by pages.
 *
 * Items cannot be written: the firmware that we serve writes none.
 *
 * Threads: vCPUs; one lock. */
#include "device/pc/fw_cfg.h"
#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_SIGNATURE = 0, KEY_ID = 1, KEY_DIRECTORY = 0x19, KEY_FILES = 0x20, KEYS = 0x40 };
enum { PORT_SELECT = 0, PORT_DATA = 1, PORT_DMA_HIGH = 4, PORT_DMA_LOW = 8, PORTS = 12 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16, DMA_SIZE = 16 };
enum { ID_PORTS = 1, ID_DMA = 2, DIRECTORY_ENTRY = 64 };

struct item {
    uint8_t *data;
    uint32_t size;
    char name[FW_CFG_NAME_MAX];
};

struct fw_cfg {
    struct mem *mem; /* [init] */
    struct mutex lock;
    struct item items[KEYS];      /* [lock] */
    unsigned files;               /* [init] */
    uint16_t key;                 /* [lock] selected */
    uint32_t at;                  /* [lock] the next byte of it */
    uint32_t dma_high;            /* [lock] upper half of the descriptor's address */
    const char *prefix;           /* [init] of on_select */
    void (*on_select)(void *arg); /* [init] */
    void *on_select_arg;          /* [init] */
};

static const struct item *selected(const struct fw_cfg *f)
{
    static const struct item none;

    return f->key < KEYS ? &f->items[f->key] : &none;
}

static void select_key(struct fw_cfg *f, uint16_t key)
{
    mutex_lock(&f->lock);
    f->key = key & 0xbfff; /* bit 14 asked for writing, long ago */
    f->at = 0;
    bool tell = f->on_select && !strncmp(selected(f)->name, f->prefix, strlen(f->prefix));
    mutex_unlock(&f->lock);
    if (tell)
        f->on_select(f->on_select_arg);
}

static uint8_t next_byte_locked(struct fw_cfg *f) REQUIRES(f->lock)
{
    const struct item *i = selected(f);

    return f->at < i->size ? i->data[f->at++] : 0;
}

/** @size bytes to the guest at @to. */
static bool copy_locked(struct fw_cfg *f, gpa_t to, uint32_t size) REQUIRES(f->lock)
{
    static const uint8_t zeroes[MEM_PAGE_SIZE];
    const struct item *i = selected(f);
    uint32_t there = f->at < i->size ? MIN(size, i->size - f->at) : 0;

    if (there && mem_copy_out(f->mem, to, i->data + f->at, there))
        return false;
    f->at += there;
    for (uint32_t done = there; done < size;) {
        uint32_t n = MIN(size - done, (uint32_t)sizeof(zeroes));

        if (mem_copy_out(f->mem, GPA(to.v + done), zeroes, n))
            return false;
        done += n;
    }
    return true;
}

/** Spec: "Guest-side DMA Interface". */
static void serve_dma(struct fw_cfg *f, gpa_t descriptor)
{
    uint8_t raw[DMA_SIZE];
    bool good = true;

    if (mem_copy_in(f->mem, descriptor, raw, sizeof(raw))) {
        guest_error("fw_cfg", "DMA descriptor at 0x%llx is not in memory",
                    (unsigned long long)descriptor.v);
        return;
    }
    uint32_t control = load_be32(raw);
    uint32_t size = load_be32(raw + 4);
    gpa_t addr = GPA(load_be64(raw + 8));
    if (control & DMA_SELECT)
        select_key(f, (uint16_t)(control >> 16));
    mutex_lock(&f->lock);
    if (control & DMA_READ) {
        good = copy_locked(f, addr, size);
    } else if (control & DMA_WRITE) {
        good = false;
    } else if (control & DMA_SKIP) {
        const struct item *i = selected(f);

        f->at = size < i->size && f->at < i->size - size ? f->at + size : i->size;
    }
    mutex_unlock(&f->lock);
    store_be32(raw, good ? 0 : DMA_ERROR);
    if (mem_copy_out(f->mem, descriptor, raw, 4))
        guest_error("fw_cfg", "the DMA descriptor is in read-only memory");
}

static enum bus_result fw_cfg_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    static const uint8_t dma_signature[8] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};
    struct fw_cfg *f = dev;

    *ret = 0;
    if (offset == PORT_DATA) {
        mutex_lock(&f->lock);
        *ret = next_byte_locked(f);
        mutex_unlock(&f->lock);
    } else if (offset >= PORT_DMA_HIGH) {
        memcpy(ret, dma_signature + (offset - PORT_DMA_HIGH), MIN(size, 8u));
    }
    return BUS_OK;
}

static enum bus_result fw_cfg_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *f = dev;

    if (offset == PORT_SELECT && size == 2) {
        select_key(f, (uint16_t)value);
    } else if (offset == PORT_DMA_HIGH && size == 4) {
        mutex_lock(&f->lock);
        f->dma_high = be32toh((uint32_t)value);
        mutex_unlock(&f->lock);
    } else if (offset == PORT_DMA_LOW && size == 4) {
        mutex_lock(&f->lock);
        gpa_t descriptor = GPA((uint64_t)f->dma_high << 32 | be32toh((uint32_t)value));
        f->dma_high = 0;
        mutex_unlock(&f->lock);
        serve_dma(f, descriptor);
    }
    return BUS_OK;
}

static const struct mmio_ops fw_cfg_ops = {
    .name = "fw_cfg",
    .read = fw_cfg_read,
    .write = fw_cfg_write,
    .max_size = 4,
};

static int set_item(struct item *i, const void *data, size_t size, struct error *err)
{
    uint8_t *copy = malloc(MAX(size, (size_t)1));

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(copy, data, size);
    free(i->data);
    i->data = copy;
    i->size = (uint32_t)size;
    return 0;
}

int fw_cfg_add_number(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size,
                      struct error *err)
{
    uint8_t bytes[8];

    assert(key < KEYS && size <= sizeof(bytes));
    store_le64(bytes, value);
    return set_item(&f->items[key], bytes, size, err);
}

/** Spec: "File Directory": names, sizes and keys, big-endian. */
static int make_directory(struct fw_cfg *f, struct error *err)
{
    uint8_t raw[4 + FW_CFG_MAX_FILES * DIRECTORY_ENTRY] = {0};

    store_be32(raw, f->files);
    for (unsigned i = 0; i < f->files; i++) {
        uint8_t *e = raw + 4 + (size_t)i * DIRECTORY_ENTRY;

        store_be32(e, f->items[KEY_FILES + i].size);
        store_be16(e + 4, (uint16_t)(KEY_FILES + i));
        memcpy(e + 8, f->items[KEY_FILES + i].name, FW_CFG_NAME_MAX);
    }
    return set_item(&f->items[KEY_DIRECTORY], raw, 4 + (size_t)f->files * DIRECTORY_ENTRY, err);
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t size,
                    struct error *err)
{
    unsigned at = 0;
    int rc;

    assert(strlen(name) < FW_CFG_NAME_MAX && size <= UINT32_MAX);
    mutex_lock(&f->lock);
    while (at < f->files && strcmp(f->items[KEY_FILES + at].name, name) != 0)
        at++;
    if (at == FW_CFG_MAX_FILES) {
        rc = error_set(err, ENOSPC, "too many firmware configuration files");
    } else {
        struct item *i = &f->items[KEY_FILES + at];

        rc = set_item(i, data, size, err);
        if (!rc) {
            memcpy(i->name, name, strlen(name) + 1);
            f->files = MAX(f->files, at + 1);
            rc = make_directory(f, err);
        }
    }
    mutex_unlock(&f->lock);
    return rc;
}

void fw_cfg_on_select(struct fw_cfg *f, const char *prefix, void (*fn)(void *arg), void *arg)
{
    f->prefix = prefix;
    f->on_select = fn;
    f->on_select_arg = arg;
}

int fw_cfg_new(struct mem *ports, struct mem *mem, struct fw_cfg **ret, struct error *err)
{
    struct fw_cfg *f = calloc(1, sizeof(*f));

    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    f->mem = mem;
    mutex_init(&f->lock);
    int rc = mem_add_mmio(ports, GPA(FW_CFG_PORT), PORTS, &fw_cfg_ops, f, err);
    if (!rc)
        rc = set_item(&f->items[KEY_SIGNATURE], "QEMU", 4, err);
    if (!rc)
        rc = fw_cfg_add_number(f, KEY_ID, ID_PORTS | ID_DMA, 4, err);
    if (!rc)
        rc = make_directory(f, err);
    if (rc) {
        fw_cfg_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void fw_cfg_free(struct fw_cfg *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < KEYS; i++)
        free(f->items[i].data);
    mutex_done(&f->lock);
    free(f);
}

void fw_cfg_reset(struct fw_cfg *f)
{
    mutex_lock(&f->lock);
    f->key = 0;
    f->at = f->dma_high = 0;
    mutex_unlock(&f->lock);
}

static const struct state_field fw_cfg_fields[] = {
    STATE_FIELD(struct fw_cfg, key),
    STATE_FIELD(struct fw_cfg, at),
    STATE_FIELD(struct fw_cfg, dma_high),
    {0},
};

void fw_cfg_save(struct fw_cfg *f, struct state_out *out)
{
    mutex_lock(&f->lock);
    state_save(out, "fw_cfg", 0, 1, fw_cfg_fields, f);
    mutex_unlock(&f->lock);
}

int fw_cfg_load(struct fw_cfg *f, const struct state_in *in, struct error *err)
{
    mutex_lock(&f->lock);
    int rc = state_load(in, "fw_cfg", 0, 1, fw_cfg_fields, f, err);
    mutex_unlock(&f->lock);
    return rc;
}
