/* ELF programs for riscv64 and x86. Spec: System V ABI, "Object Files"; RISC-V psABI 1.0.
 *
 * A program linked for an address where the machine has RAM (0x80000000 and up) is loaded there;
 * one linked from 0 or for virtual addresses only (vmlinux) is moved to the load base as a whole.
 */
#include "boot/elf_load.h"
#include "base/bits.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define RAM_BASE 0x80000000ULL

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case EM_X86_64:
        return "x86-64";
    case EM_386:
        return "x86";
    case EM_AARCH64:
        return "arm64";
    case EM_ARM:
        return "arm";
    case EM_PPC64:
        return "ppc64";
    case EM_S390:
        return "s390x";
    default:
        return NULL;
    }
}

static int check_header(const Elf64_Ehdr *h, struct error *err)
{
    if (h->e_ident[EI_DATA] != ELFDATA2LSB)
        return error_set(err, ENOEXEC, "it is a big-endian program");
    if (h->e_machine != EM_RISCV) {
        const char *name = machine_name(h->e_machine);

        return name ? error_set(err, ENOEXEC, "it is an %s program, not a riscv64 one", name)
                    : error_set(err, ENOEXEC, "it is a program for machine %u, not for riscv64",
                                h->e_machine);
    }
    if (h->e_ident[EI_CLASS] != ELFCLASS64)
        return error_set(err, ENOEXEC, "it is a 32-bit program, not a riscv64 one");
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
        return error_set(err, ENOEXEC, "it is an ELF file but not a program");
    if (h->e_phentsize != sizeof(Elf64_Phdr))
        return error_set(err, EINVAL, "its ELF header is damaged");
    return 0;
}

static int add_segment(struct boot_image *k, const Elf64_Phdr *p, struct error *err)
{
    uint64_t end;

    if (p->p_offset > k->size || p->p_filesz > k->size - p->p_offset)
        return error_set(err, EINVAL, "it is cut short (a segment ends at byte %llu)",
                         (unsigned long long)(p->p_offset + p->p_filesz));
    if (p->p_filesz > p->p_memsz || p->p_memsz > BOOT_MAX_BYTES ||
        !checked_add(p->p_paddr, p->p_memsz, &end))
        return error_set(err, EINVAL, "a segment of it has impossible bounds");
    if (k->segment_count == BOOT_SEGMENTS)
        return error_set(err, EINVAL, "it has more than %d segments", BOOT_SEGMENTS);
    k->segments[k->segment_count++] = (struct boot_segment){
        .addr = p->p_paddr,
        .offset = p->p_offset,
        .size = p->p_filesz,
        .memory_size = p->p_memsz,
    };
    k->end_addr = MAX(k->end_addr, end);
    return 0;
}

int elf_parse(struct boot_image *k, struct error *err)
{
    Elf64_Ehdr h;
    uint64_t lowest = UINT64_MAX;
    bool entry_found = false;

    if (k->size < sizeof(h))
        return error_set(err, EINVAL, "it is cut short");
    memcpy(&h, k->data, sizeof(h));
    int rc = check_header(&h, err);
    if (rc)
        return rc;
    if (h.e_phoff > k->size || h.e_phnum * sizeof(Elf64_Phdr) > k->size - h.e_phoff)
        return error_set(err, EINVAL, "it is cut short (no program headers)");
    k->format = BOOT_ELF;
    k->entry = h.e_entry;
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;

        memcpy(&p, k->data + h.e_phoff + i * sizeof(p), sizeof(p));
        if (p.p_type != PT_LOAD || !p.p_memsz)
            continue;
        rc = add_segment(k, &p, err);
        if (rc)
            return rc;
        lowest = MIN(lowest, p.p_paddr);
        /* e_entry is a virtual address; segments go by physical ones. */
        if (!entry_found && h.e_entry - p.p_vaddr < p.p_memsz) {
            k->entry = h.e_entry - p.p_vaddr + p.p_paddr;
            entry_found = true;
        }
    }
    if (!k->segment_count || !entry_found)
        return error_set(err, EINVAL, "it has nothing to execute");
    k->absolute = lowest >= RAM_BASE && lowest < UINT64_MAX >> 1;
    if (!k->absolute) {
        for (size_t i = 0; i < k->segment_count; i++)
            k->segments[i].addr -= lowest;
        k->entry -= lowest;
        k->end_addr -= lowest;
    }
    return 0;
}
