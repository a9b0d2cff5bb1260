/* ELF programs for x86: 64-bit kernels with a PVH entry, and 32-bit ones for multiboot.
 * Spec: System V ABI, "Object Files"; Xen xen/include/public/elfnote.h.
 *
 * Invariant: as in boot_image.c, everything in the file is untrusted. */
#include "base/bits.h"
#include "boot/elf_load.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18
#define MAX_HEADERS       64

/** Of either class. */
struct segment {
    uint32_t type;
    uint64_t offset, paddr, vaddr, file_size, memory_size;
};

struct header {
    bool is_64;
    uint64_t entry, phoff;
    unsigned count, entry_size;
};

static int read_header(const struct boot_image *k, struct header *ret, struct error *err)
{
    Elf64_Ehdr h;
    Elf32_Ehdr h32;

    if (k->size < sizeof(h))
        return error_set(err, EINVAL, "it is cut short");
    memcpy(&h, k->data, sizeof(h));
    memcpy(&h32, k->data, sizeof(h32));
    bool is_64 = h.e_ident[EI_CLASS] == ELFCLASS64;
    if (h.e_ident[EI_DATA] != ELFDATA2LSB)
        return error_set(err, ENOEXEC, "it is a big-endian program");
    if (h.e_machine != (is_64 ? EM_X86_64 : EM_386) &&
        !(h.e_ident[EI_CLASS] == ELFCLASS32 && h.e_machine == EM_X86_64))
        return error_set(err, ENOEXEC, "it is a program for machine %u, not for x86-64%s",
                         h.e_machine, h.e_machine == EM_RISCV ? ", but for riscv64" : "");
    if (h.e_type != ET_EXEC && h.e_type != ET_DYN)
        return error_set(err, ENOEXEC, "it is an ELF file but not a program");
    *ret = (struct header){
        .is_64 = is_64,
        .entry = is_64 ? h.e_entry : h32.e_entry,
        .phoff = is_64 ? h.e_phoff : h32.e_phoff,
        .count = is_64 ? h.e_phnum : h32.e_phnum,
        .entry_size = is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr),
    };
    if ((is_64 ? h.e_phentsize : h32.e_phentsize) != ret->entry_size || ret->count > MAX_HEADERS)
        return error_set(err, EINVAL, "its ELF header is damaged");
    if (ret->phoff > k->size || (uint64_t)ret->count * ret->entry_size > k->size - ret->phoff)
        return error_set(err, EINVAL, "it is cut short (no program headers)");
    return 0;
}

static struct segment read_segment(const struct boot_image *k, const struct header *h, unsigned i)
{
    const uint8_t *at = k->data + h->phoff + (size_t)i * h->entry_size;
    Elf64_Phdr p;
    Elf32_Phdr q;

    if (h->is_64) {
        memcpy(&p, at, sizeof(p));
        return (struct segment){p.p_type, p.p_offset, p.p_paddr, p.p_vaddr, p.p_filesz, p.p_memsz};
    }
    memcpy(&q, at, sizeof(q));
    return (struct segment){q.p_type, q.p_offset, q.p_paddr, q.p_vaddr, q.p_filesz, q.p_memsz};
}

/** The PVH entry among the notes of [offset, offset + size), 0 = none. */
static uint64_t find_pvh(const struct boot_image *k, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;

    while (end - offset >= 12) {
        const uint8_t *n = k->data + offset;
        uint64_t name = align_up(load_le32(n), 4);
        uint64_t desc = load_le32(n + 4);
        uint64_t whole = 12 + name + align_up(desc, 4);

        if (whole > end - offset)
            break;
        if (load_le32(n) == 4 && !memcmp(n + 12, "Xen", 4) &&
            load_le32(n + 8) == NOTE_PHYS32_ENTRY && (desc == 4 || desc == 8))
            return desc == 8 ? load_le64(n + 12 + name) : load_le32(n + 12 + name);
        offset += whole;
    }
    return 0;
}

static int add_load(struct boot_image *k, const struct segment *s, struct error *err)
{
    uint64_t end;

    if (s->file_size > s->memory_size || s->memory_size > BOOT_MAX_BYTES ||
        !checked_add(s->paddr, s->memory_size, &end))
        return error_set(err, EINVAL, "a segment of it has impossible bounds");
    if (k->segment_count == BOOT_SEGMENTS)
        return error_set(err, EINVAL, "it has more than %d segments", BOOT_SEGMENTS);
    k->segments[k->segment_count++] = (struct boot_segment){
        .addr = s->paddr,
        .offset = s->offset,
        .size = s->file_size,
        .memory_size = s->memory_size,
    };
    k->end_addr = MAX(k->end_addr, end);
    return 0;
}

int elf_parse_x86(struct boot_image *k, uint64_t *ret_pvh, struct error *err)
{
    struct header h = {0};
    bool translated = false;
    int rc = read_header(k, &h, err);

    k->format = BOOT_ELF;
    k->absolute = true;
    *ret_pvh = 0;
    for (unsigned i = 0; !rc && i < h.count; i++) {
        struct segment s = read_segment(k, &h, i);

        if (s.type != PT_LOAD && s.type != PT_NOTE)
            continue;
        if (s.offset > k->size || s.file_size > k->size - s.offset)
            return error_set(err, EINVAL, "it is cut short (a segment ends at byte %llu)",
                             (unsigned long long)(s.offset + s.file_size));
        if (s.type == PT_NOTE) {
            *ret_pvh = *ret_pvh ? *ret_pvh : find_pvh(k, s.offset, s.file_size);
            continue;
        }
        if (!s.memory_size)
            continue;
        rc = add_load(k, &s, err);
        if (!translated && h.entry - s.vaddr < s.memory_size) {
            k->entry = h.entry - s.vaddr + s.paddr;
            translated = true;
        }
    }
    if (rc)
        return rc;
    if (!translated) /* an entry that is a physical address already */
        k->entry = h.entry;
    if (!k->segment_count)
        return error_set(err, EINVAL, "it has nothing to execute");
    return 0;
}
