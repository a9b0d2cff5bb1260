/* SMBIOS tables. See smbios.h. One structure after another: a header, fields, then the strings that
 * the fields name by number.
 *
 * Invariant: a structure that does not fit marks the whole as failed, and nothing is written behind
 * the end.
 *
 * Threads: one. Spec: DMTF DSP0134 3.6, §5.2.2 (entry point), §6.1 (structures), §7 (types). */
#include "boot/smbios.h"
#include "base/bits.h"

#include <errno.h>
#include <string.h>

#define MIB               (1ULL << 20)
#define MANUFACTURER      "Posada"
#define SIZE_EXTENDED     0x7fff      /* §7.18.5: MiB that do not fit stand elsewhere */
#define CAPACITY_EXTENDED 0x80000000u /* §7.17: likewise KiB */
#define OEM_MAX           255

/** Handles of the structures that others refer to. */
enum { HANDLE_BOARD = 0x200, HANDLE_CHASSIS = 0x300, HANDLE_MEMORY = 0x1000, HANDLE_DEVICE };

struct writer {
    uint8_t *data;
    size_t size;
    unsigned count; /* of them */
    bool failed;
};

static void put(struct writer *w, const void *data, size_t size)
{
    if (w->failed || size > SMBIOS_MAX - w->size) {
        w->failed = true;
        return;
    }
    if (data)
        memcpy(w->data + w->size, data, size);
    else
        memset(w->data + w->size, 0, size);
    w->size += size;
}

/** A structure with @size bytes of fields behind the header; they are zero, to be filled. NULL: no
 * room. */
static uint8_t *begin(struct writer *w, uint8_t type, uint16_t handle, uint8_t size)
{
    uint8_t header[4] = {type, (uint8_t)(size + 4)};
    size_t at = w->size;

    store_le16(header + 2, handle);
    put(w, header, sizeof(header));
    put(w, NULL, size);
    w->count = 0;
    return w->failed ? NULL : w->data + at;
}

/** The number of string @text, which is appended; 0 = none. */
static uint8_t string(struct writer *w, const char *text)
{
    if (!text || !*text)
        return 0;
    put(w, text, strlen(text) + 1);
    return (uint8_t)++w->count;
}

static void end(struct writer *w)
{
    put(w, NULL, w->count ? 1 : 2); /* §6.1.3 */
}

/** §7.1. */
static void put_firmware(struct writer *w, const struct smbios_config *c)
{
    uint8_t *p = begin(w, 0, 0, 22);

    if (!p)
        return;
    p[0x04] = string(w, MANUFACTURER);
    p[0x05] = string(w, c->version);
    store_le16(p + 0x06, 0xe800); /* where a PC's begins */
    p[0x0a] = 1 << 3;             /* characteristics are not told */
    p[0x13] = 1 << 4;             /* a virtual machine */
    p[0x14] = p[0x15] = p[0x16] = p[0x17] = 0xff;
    end(w);
}

/** §7.2; §7.2.1: the first three fields of a UUID are little-endian here. */
static void put_system(struct writer *w, const struct smbios_config *c)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t *p = begin(w, 1, 0x100, 23);

    if (!p)
        return;
    p[0x04] = string(w, MANUFACTURER);
    p[0x05] = string(w, "Virtual PC");
    p[0x06] = string(w, c->version);
    p[0x07] = string(w, c->name);
    for (unsigned i = 0; i < sizeof(order); i++)
        p[0x08 + i] = c->uuid[order[i]];
    p[0x18] = 6; /* woken by the power switch */
    end(w);
}

/** §7.3 and §7.4: a board in a case. */
static void put_hardware(struct writer *w, const struct smbios_config *c)
{
    uint8_t *p = begin(w, 2, HANDLE_BOARD, 11);

    if (!p)
        return;
    p[0x04] = string(w, MANUFACTURER);
    p[0x05] = string(w, "pc");
    p[0x06] = string(w, c->version);
    p[0x09] = 1; /* hosts processors and memory */
    store_le16(p + 0x0b, HANDLE_CHASSIS);
    p[0x0d] = 10; /* motherboard */
    end(w);
    p = begin(w, 3, HANDLE_CHASSIS, 18);
    if (!p)
        return;
    p[0x04] = string(w, MANUFACTURER);
    p[0x05] = 1; /* other */
    p[0x06] = string(w, c->version);
    p[0x09] = p[0x0a] = p[0x0b] = 3; /* safe */
    p[0x0c] = 2;                     /* security: unknown */
    end(w);
}

/** §7.5: one package with all processors as its cores. */
static void put_processor(struct writer *w, const struct smbios_config *c)
{
    uint8_t *p = begin(w, 4, 0x400, 44);

    if (!p)
        return;
    p[0x04] = string(w, "CPU 0");
    p[0x05] = 3; /* central */
    p[0x06] = 1; /* family: other */
    p[0x07] = string(w, MANUFACTURER);
    p[0x18] = 0x41; /* there, enabled */
    p[0x19] = 1;    /* socket: other */
    store_le16(p + 0x1a, 0xffff);
    store_le16(p + 0x1c, 0xffff);
    store_le16(p + 0x1e, 0xffff);
    p[0x23] = p[0x24] = p[0x25] = (uint8_t)c->cpus;
    store_le16(p + 0x26, 1 << 2 | 1 << 3); /* 64-bit, many cores */
    store_le16(p + 0x28, 1);
    store_le16(p + 0x2a, (uint16_t)c->cpus);
    store_le16(p + 0x2c, (uint16_t)c->cpus);
    store_le16(p + 0x2e, (uint16_t)c->cpus);
    end(w);
}

/** §7.12. */
static void put_oem(struct writer *w, const struct smbios_config *c)
{
    uint8_t *p = c->oem_count ? begin(w, 11, 0xb00, 1) : NULL;

    if (!p)
        return;
    p[4] = (uint8_t)c->oem_count;
    for (size_t i = 0; i < c->oem_count; i++)
        (void)string(w, *c->oem[i] ? c->oem[i] : " "); /* an empty one would end them all */
    end(w);
}

/** §7.17, §7.18: one array with one module. */
static void put_memory(struct writer *w, uint64_t bytes)
{
    uint8_t *p = begin(w, 16, HANDLE_MEMORY, 19);

    if (!p)
        return;
    p[0x04] = 3; /* on the board */
    p[0x05] = 3; /* system memory */
    p[0x06] = 6; /* errors are corrected by more than one bit, or there are none */
    bool large = bytes >> 10 >= CAPACITY_EXTENDED;
    store_le32(p + 0x07, large ? CAPACITY_EXTENDED : (uint32_t)(bytes >> 10));
    store_le16(p + 0x0b, 0xfffe);
    store_le16(p + 0x0d, 1);
    store_le64(p + 0x0f, large ? bytes : 0);
    end(w);
    p = begin(w, 17, HANDLE_DEVICE, 36);
    if (!p)
        return;
    uint64_t mib = bytes / MIB;
    store_le16(p + 0x04, HANDLE_MEMORY);
    store_le16(p + 0x06, 0xfffe);
    store_le16(p + 0x08, 0xffff); /* widths are not known */
    store_le16(p + 0x0a, 0xffff);
    store_le16(p + 0x0c, (uint16_t)MIN(mib, (uint64_t)SIZE_EXTENDED));
    p[0x0e] = 9; /* DIMM */
    p[0x10] = string(w, "DIMM 0");
    p[0x12] = 7;                  /* RAM */
    store_le16(p + 0x13, 1 << 1); /* other */
    p[0x17] = string(w, MANUFACTURER);
    store_le32(p + 0x1c, mib >= SIZE_EXTENDED ? (uint32_t)mib : 0);
    end(w);
}

/** §7.20: where it lies. */
static void put_mapping(struct writer *w, uint16_t handle, uint64_t base, uint64_t size)
{
    uint8_t *p = begin(w, 19, handle, 27);

    if (!p)
        return;
    bool high = base + size > 1ULL << 32;
    store_le32(p + 0x04, high ? UINT32_MAX : (uint32_t)(base >> 10));
    store_le32(p + 0x08, high ? UINT32_MAX : (uint32_t)((base + size - 1) >> 10));
    store_le16(p + 0x0c, HANDLE_MEMORY);
    p[0x0e] = 1;
    store_le64(p + 0x0f, high ? base : 0);
    store_le64(p + 0x17, high ? base + size - 1 : 0);
    end(w);
}

/** §7.33: no errors; §7.45: the last one. */
static void put_end(struct writer *w)
{
    (void)begin(w, 32, 0x2000, 7);
    end(w);
    (void)begin(w, 127, 0x7f00, 0);
    end(w);
}

int smbios_build(const struct smbios_config *c, uint8_t ret[SMBIOS_MAX], struct error *err)
{
    struct writer w = {.data = ret, .failed = c->oem_count > OEM_MAX};
    uint64_t bytes = 0;

    assert(c->range_count <= SMBIOS_RANGES);
    put_firmware(&w, c);
    put_system(&w, c);
    put_hardware(&w, c);
    put_processor(&w, c);
    put_oem(&w, c);
    for (unsigned i = 0; i < c->range_count; i++)
        bytes += c->ranges[i].size;
    put_memory(&w, bytes);
    for (unsigned i = 0; i < c->range_count; i++)
        put_mapping(&w, (uint16_t)(0x1300 + i), c->ranges[i].base, c->ranges[i].size);
    put_end(&w);
    return w.failed ? error_set(err, E2BIG, "the machine's OEM strings have no room in SMBIOS")
                    : (int)w.size;
}

void smbios_entry(uint64_t base, size_t size, uint8_t ret[SMBIOS_ENTRY_SIZE])
{
    uint8_t sum = 0;

    memset(ret, 0, SMBIOS_ENTRY_SIZE);
    memcpy(ret, "_SM3_", 5);
    ret[6] = SMBIOS_ENTRY_SIZE;
    ret[7] = 3; /* version 3.2 */
    ret[8] = 2;
    ret[10] = 1; /* of the entry point */
    store_le32(ret + 12, (uint32_t)size);
    store_le64(ret + 16, base);
    for (unsigned i = 0; i < SMBIOS_ENTRY_SIZE; i++)
        sum = (uint8_t)(sum + ret[i]);
    ret[5] = (uint8_t)-sum;
}
