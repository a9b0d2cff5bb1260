/* A kernel and what it expects to find, into the memory of an x86-64 machine. See x86.h.
 *
 *     0x00500  GDT
 *     0x06000  PVH: start information, modules, memory map; multiboot: its information
 *     0x07000  Linux: boot parameters ("zero page")
 *     0x08000  Linux: setup data (random seed)
 *     0x09000  page tables: the first 4 GiB by 2 MiB pages
 *     0x20000  command line
 *     ...      the kernel, where its file says
 *     below the end of low RAM, page-aligned: initrd
 *
 * Threads: one; vCPUs stand still. */
#include "base/bits.h"
#include "boot/x86.h"

#include <errno.h>
#include <string.h>

#define GDT_ADDR         0x500
#define INFO_ADDR        0x6000
#define ZERO_PAGE        0x7000
#define SETUP_DATA       0x8000
#define PAGE_TABLES      0x9000
#define CMDLINE_ADDR     0x20000
#define CMDLINE_ROOM     0x10000
#define SETUP_SEED       9
#define SEED_SIZE        32
#define E820_ENTRY       20
#define MULTIBOOT_LOADED 0x2badb002

/* zero-page.rst */
enum {
    ZP_RSDP = 0x070,
    ZP_INITRD_HIGH = 0x0c0,
    ZP_INITRD_SIZE_HIGH = 0x0c4,
    ZP_CMDLINE_HIGH = 0x0c8,
    ZP_E820_COUNT = 0x1e8,
    ZP_HEADER = 0x1f1,
    ZP_LOADER = 0x210,
    ZP_LOADFLAGS = 0x211,
    ZP_INITRD = 0x218,
    ZP_INITRD_SIZE = 0x21c,
    ZP_CMDLINE = 0x228,
    ZP_SETUP_DATA = 0x250,
    ZP_E820 = 0x2d0,
    ZP_SIZE = 0x1000,
};

struct loading {
    const struct x86_kernel *k;
    const struct x86_boot *b;
    struct mem *mem;
    uint64_t initrd; /* address; 0 = none */
};

static int no_room(struct error *err)
{
    return error_set(err, ENOSPC, "the memory is too small for kernel and initrd");
}

static int put(const struct loading *l, uint64_t at, const void *data, size_t size,
               struct error *err)
{
    return mem_copy_out(l->mem, GPA(at), data, size) ? no_room(err) : 0;
}

/** The initrd goes as high as it may, and above @floor. */
static int place_initrd(struct loading *l, uint64_t floor, struct error *err)
{
    const struct x86_boot *b = l->b;
    uint64_t top =
        MIN(b->low_ram, l->k->initrd_max == UINT64_MAX ? UINT64_MAX : l->k->initrd_max + 1);

    if (floor > b->low_ram)
        return no_room(err);
    if (!b->initrd_size)
        return 0;
    if (b->initrd_size > top || align_down(top - b->initrd_size, MEM_PAGE_SIZE) < floor)
        return error_set(err, ENOSPC, "the initrd (%zu MiB) does not fit into the memory",
                         b->initrd_size >> 20);
    l->initrd = align_down(top - b->initrd_size, MEM_PAGE_SIZE);
    return put(l, l->initrd, b->initrd, b->initrd_size, err);
}

static int put_cmdline(const struct loading *l, struct error *err)
{
    const char *text = l->b->cmdline ? l->b->cmdline : "";
    size_t n = strlen(text);

    if (n > l->k->cmdline_max || n >= CMDLINE_ROOM)
        return error_set(err, EINVAL, "the kernel arguments have %zu bytes, and it takes %u", n,
                         MIN(l->k->cmdline_max, (uint32_t)CMDLINE_ROOM - 1));
    return put(l, CMDLINE_ADDR, text, n + 1, err);
}

/** Flat code and data segments, and a task state for the processor's sake; SDM vol. 3 §3.4.5. */
static int put_gdt(const struct loading *l, bool long_mode, struct x86_start *ret,
                   struct error *err)
{
    const uint64_t gdt[5] = {
        0,
        0,
        long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
        0x00cf93000000ffff,
        0x00008b0000000067,
    };
    uint8_t raw[sizeof(gdt)];

    for (size_t i = 0; i < ARRAY_SIZE(gdt); i++)
        store_le64(raw + 8 * i, gdt[i]);
    ret->gdt = GDT_ADDR;
    ret->gdt_limit = sizeof(gdt) - 1;
    return put(l, GDT_ADDR, raw, sizeof(raw), err);
}

/** Identity map of 4 GiB: one PML4, one PDPT, four directories. */
static int put_page_tables(const struct loading *l, struct error *err)
{
    uint8_t page[MEM_PAGE_SIZE] = {0};
    int rc;

    store_le64(page, (PAGE_TABLES + MEM_PAGE_SIZE) | 3);
    rc = put(l, PAGE_TABLES, page, sizeof(page), err);
    for (unsigned i = 0; i < 4; i++)
        store_le64(page + 8 * i, (PAGE_TABLES + (2ULL + i) * MEM_PAGE_SIZE) | 3);
    if (!rc)
        rc = put(l, PAGE_TABLES + MEM_PAGE_SIZE, page, sizeof(page), err);
    for (unsigned i = 0; i < 4 && !rc; i++) {
        for (unsigned e = 0; e < 512; e++)
            store_le64(page + 8 * e, ((uint64_t)i * 512 + e) << 21 | 0x83);
        rc = put(l, PAGE_TABLES + (2ULL + i) * MEM_PAGE_SIZE, page, sizeof(page), err);
    }
    return rc;
}

/* --- Linux --- */

static int put_seed(const struct loading *l, uint8_t *zp, struct error *err)
{
    uint8_t data[16 + SEED_SIZE] = {0};

    if (!l->b->seed)
        return 0;
    store_le32(data + 8, SETUP_SEED);
    store_le32(data + 12, SEED_SIZE);
    memcpy(data + 16, l->b->seed, SEED_SIZE);
    store_le64(zp + ZP_SETUP_DATA, SETUP_DATA);
    return put(l, SETUP_DATA, data, sizeof(data), err);
}

static int put_zero_page(const struct loading *l, struct error *err)
{
    const struct x86_boot *b = l->b;
    const uint8_t *file = l->k->image.data;
    uint8_t zp[ZP_SIZE] = {0};
    size_t header_end = 0x202u + file[0x201]; /* boot.rst: "jump" tells where the header ends */

    header_end = MIN(header_end, (size_t)0x290);
    header_end = MIN(header_end, l->k->image.size);
    memcpy(zp + ZP_HEADER, file + ZP_HEADER, header_end - ZP_HEADER);
    zp[ZP_LOADER] = 0xff;
    zp[ZP_LOADFLAGS] |= 1; /* loaded high */
    store_le64(zp + ZP_RSDP, b->rsdp);
    store_le32(zp + ZP_INITRD, (uint32_t)l->initrd);
    store_le32(zp + ZP_INITRD_HIGH, (uint32_t)(l->initrd >> 32));
    store_le32(zp + ZP_INITRD_SIZE, (uint32_t)b->initrd_size);
    store_le32(zp + ZP_INITRD_SIZE_HIGH, (uint32_t)((uint64_t)b->initrd_size >> 32));
    store_le32(zp + ZP_CMDLINE, CMDLINE_ADDR);
    store_le32(zp + ZP_CMDLINE_HIGH, 0);
    zp[ZP_E820_COUNT] = (uint8_t)b->range_count;
    for (size_t i = 0; i < b->range_count; i++) {
        uint8_t *e = zp + ZP_E820 + E820_ENTRY * i;

        store_le64(e, b->ranges[i].base);
        store_le64(e + 8, b->ranges[i].size);
        store_le32(e + 16, b->ranges[i].type);
    }
    int rc = put_seed(l, zp, err);
    return rc ? rc : put(l, ZERO_PAGE, zp, sizeof(zp), err);
}

static int load_linux(struct loading *l, struct x86_start *ret, struct error *err)
{
    const struct x86_kernel *k = l->k;
    uint64_t end = k->load_addr + k->init_size;
    int rc = place_initrd(l, end, err);

    if (!rc)
        rc = put(l, k->load_addr, k->image.data + k->payload, k->image.size - k->payload, err);
    if (!rc)
        rc = put_zero_page(l, err);
    if (!rc)
        rc = put_page_tables(l, err);
    if (!rc)
        rc = put_gdt(l, true, ret, err);
    ret->long_mode = true;
    ret->rip = k->load_addr + 0x200;
    ret->rsi = ZERO_PAGE;
    ret->cr3 = PAGE_TABLES;
    return rc;
}

/* --- PVH, multiboot --- */

enum {
    PVH_MAGIC = 0x336ec578,
    PVH_SIZE = 56,
    PVH_MODULE = 32,
    PVH_MODULE_AT = 64,
    PVH_MAP_AT = 128
};

static int put_start_info(const struct loading *l, struct error *err)
{
    const struct x86_boot *b = l->b;
    uint8_t info[PVH_MAP_AT + 24 * X86_RANGES] = {0};

    store_le32(info, PVH_MAGIC);
    store_le32(info + 4, 1);
    store_le32(info + 12, l->initrd != 0);
    store_le64(info + 16, l->initrd ? INFO_ADDR + PVH_MODULE_AT : 0);
    store_le64(info + 24, CMDLINE_ADDR);
    store_le64(info + 32, b->rsdp);
    store_le64(info + 40, INFO_ADDR + PVH_MAP_AT);
    store_le32(info + 48, (uint32_t)b->range_count);
    store_le64(info + PVH_MODULE_AT, l->initrd);
    store_le64(info + PVH_MODULE_AT + 8, b->initrd_size);
    for (size_t i = 0; i < b->range_count; i++) {
        uint8_t *e = info + PVH_MAP_AT + 24 * i;

        store_le64(e, b->ranges[i].base);
        store_le64(e + 8, b->ranges[i].size);
        store_le32(e + 16, b->ranges[i].type);
    }
    return put(l, INFO_ADDR, info, sizeof(info), err);
}

enum {
    MB_MEMORY = 1,
    MB_CMDLINE = 4,
    MB_MODULES = 8,
    MB_MAP = 64,
    MB_MODULE_AT = 128,
    MB_MAP_AT = 192
};

static int put_multiboot_info(const struct loading *l, struct error *err)
{
    const struct x86_boot *b = l->b;
    uint8_t info[MB_MAP_AT + 24 * X86_RANGES] = {0};

    store_le32(info, MB_MEMORY | MB_CMDLINE | MB_MAP | (l->initrd ? MB_MODULES : 0));
    store_le32(info + 4, 639);
    store_le32(info + 8, (uint32_t)((b->low_ram >> 10) - 1024));
    store_le32(info + 16, CMDLINE_ADDR);
    store_le32(info + 20, l->initrd != 0);
    store_le32(info + 24, INFO_ADDR + MB_MODULE_AT);
    store_le32(info + 44, (uint32_t)(24 * b->range_count));
    store_le32(info + 48, INFO_ADDR + MB_MAP_AT);
    store_le32(info + MB_MODULE_AT, (uint32_t)l->initrd);
    store_le32(info + MB_MODULE_AT + 4, (uint32_t)(l->initrd + b->initrd_size));
    for (size_t i = 0; i < b->range_count; i++) {
        uint8_t *e = info + MB_MAP_AT + 24 * i;

        store_le32(e, 20);
        store_le64(e + 4, b->ranges[i].base);
        store_le64(e + 12, b->ranges[i].size);
        store_le32(e + 20, b->ranges[i].type);
    }
    return put(l, INFO_ADDR, info, sizeof(info), err);
}

static int load_elf(struct loading *l, struct x86_start *ret, struct error *err)
{
    gpa_t entry;
    gpa_t end;
    int rc = boot_image_load(&l->k->image, l->mem, GPA(0), &entry, &end, err);

    if (!rc)
        rc = place_initrd(l, align_up(end.v, MEM_PAGE_SIZE), err);
    if (!rc)
        rc = l->k->protocol == X86_PVH ? put_start_info(l, err) : put_multiboot_info(l, err);
    if (!rc)
        rc = put_gdt(l, false, ret, err);
    ret->rip = l->k->entry;
    ret->rax = l->k->protocol == X86_MULTIBOOT ? MULTIBOOT_LOADED : 0;
    ret->rbx = INFO_ADDR;
    return rc;
}

int x86_load(const struct x86_kernel *k, const struct x86_boot *b, struct mem *mem,
             struct x86_start *ret, struct error *err)
{
    struct loading l = {.k = k, .b = b, .mem = mem};
    int rc = put_cmdline(&l, err);

    assert(b->range_count <= X86_RANGES);
    *ret = (struct x86_start){0};
    if (rc)
        return rc;
    switch (k->protocol) {
    case X86_LINUX64:
        return load_linux(&l, ret, err);
    case X86_PVH:
    case X86_MULTIBOOT:
        return load_elf(&l, ret, err);
    }
    return -EINVAL;
}
