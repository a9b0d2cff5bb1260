/* Names for generated code, for host tools: perf's map file, gdb's interface for compilers at run
 * time, and an ELF file with all of the code that objdump disassembles.
 *
 * A unit is called after the guest address where its first instruction was when it was translated;
 * it may be run at others, too. perf reads its map once, at the end: after the cache was full and
 * began anew, older lines name what is no longer there.
 *
 * Threads: all under cache.lock.
 * Specs: System V ABI, chapter 4 (ELF); GDB manual, "JIT Compilation Interface";
 * linux/tools/perf/Documentation/jit-interface.txt. */
#include "cpu/engine/symbols.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_BYTES 40

struct symbol {
    uint64_t address, size;
    char name[NAME_BYTES];
};

/* --- gdb: these names and layouts are its. */

struct jit_code_entry {
    struct jit_code_entry *next_entry, *prev_entry;
    const char *symfile_addr;
    uint64_t symfile_size;
};
struct jit_descriptor {
    uint32_t version, action_flag;
    struct jit_code_entry *relevant_entry, *first_entry;
};
enum { JIT_NOACTION, JIT_REGISTER, JIT_UNREGISTER };

extern struct jit_descriptor __jit_debug_descriptor;
extern void __jit_debug_register_code(void);
struct jit_descriptor __jit_debug_descriptor = {.version = 1};

/** gdb has a breakpoint here. */
__attribute__((noinline)) void __jit_debug_register_code(void)
{
    __asm__ volatile("" ::: "memory");
}

struct symbols {
    struct symbols_config config;
    FILE *perf; /* NULL = none */
    struct symbol *list;
    size_t count, size;
    struct jit_code_entry *entries; /* those gdb was told of */
};

/* --- ELF */

enum { SECTION_TEXT = 1, SECTION_SYMBOLS, SECTION_STRINGS, SECTIONS };
static const char section_names[] = "\0.text\0.symtab\0.strtab";

struct image_layout {
    size_t sections, symbols, strings, names, text, end;
};

static struct image_layout lay_out(size_t count, uint64_t text_bytes)
{
    struct image_layout l = {.sections = sizeof(Elf64_Ehdr)};

    l.symbols = l.sections + SECTIONS * sizeof(Elf64_Shdr);
    l.strings = l.symbols + (count + 1) * sizeof(Elf64_Sym);
    l.names = l.strings + sizeof(section_names);
    l.text = (l.names + count * NAME_BYTES + 15) & ~(size_t)15;
    l.end = l.text + text_bytes;
    return l;
}

static void fill_sections(Elf64_Shdr *s, const struct image_layout *l, size_t count,
                          uint64_t address, uint64_t size, bool with_text)
{
    s[SECTION_TEXT] = (Elf64_Shdr){.sh_name = 1,
                                   .sh_type = with_text ? SHT_PROGBITS : SHT_NOBITS,
                                   .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                                   .sh_addr = address,
                                   .sh_offset = l->text,
                                   .sh_size = size,
                                   .sh_addralign = 16};
    s[SECTION_SYMBOLS] = (Elf64_Shdr){.sh_name = 7,
                                      .sh_type = SHT_SYMTAB,
                                      .sh_offset = l->symbols,
                                      .sh_size = (count + 1) * sizeof(Elf64_Sym),
                                      .sh_link = SECTION_STRINGS,
                                      .sh_info = 1,
                                      .sh_addralign = 8,
                                      .sh_entsize = sizeof(Elf64_Sym)};
    s[SECTION_STRINGS] = (Elf64_Shdr){.sh_name = 15,
                                      .sh_type = SHT_STRTAB,
                                      .sh_offset = l->strings,
                                      .sh_size = l->text - l->strings,
                                      .sh_addralign = 1};
}

/** An ELF file on the heap that says where the @count symbols of @list are, in code of @size bytes
 * at @address; with the code, if @text is not NULL. NULL: no memory. */
static char *make_image(const struct symbol *list, size_t count, uint64_t address, uint64_t size,
                        const uint8_t *text, size_t *ret_size)
{
    struct image_layout l = lay_out(count, text ? size : 0);
    char *image = calloc(1, l.end);

    if (!image)
        return NULL;
    *(Elf64_Ehdr *)(void *)image = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_shoff = l.sections,
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = SECTIONS,
        .e_shstrndx = SECTION_STRINGS,
    };
    fill_sections((Elf64_Shdr *)(void *)(image + l.sections), &l, count, address, size,
                  text != NULL);
    memcpy(image + l.strings, section_names, sizeof(section_names));
    Elf64_Sym *symbols = (Elf64_Sym *)(void *)(image + l.symbols);
    for (size_t i = 0; i < count; i++) {
        symbols[i + 1] =
            (Elf64_Sym){.st_name = (Elf64_Word)(sizeof(section_names) + i * NAME_BYTES),
                        .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                        .st_shndx = SECTION_TEXT,
                        .st_value = list[i].address,
                        .st_size = list[i].size};
        memcpy(image + l.names + i * NAME_BYTES, list[i].name, NAME_BYTES);
    }
    if (text)
        memcpy(image + l.text, text, size);
    *ret_size = l.end;
    return image;
}

/* --- The engine's calls */

int symbols_new(const struct symbols_config *config, struct symbols **ret, struct error *err)
{
    struct symbols *s;
    char path[64];

    *ret = NULL;
    if (!config->perf_map && !config->gdb && !config->elf)
        return 0;
    s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->config = *config;
    if (config->perf_map) {
        (void)snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

        s->perf = fd < 0 ? NULL : fdopen(fd, "w");
        if (!s->perf) {
            int rc = error_set(err, errno, "cannot write '%s': %s", path, strerror(errno));

            free(s);
            return rc;
        }
    }
    *ret = s;
    return 0;
}

static void tell_gdb(struct symbols *s, const struct symbol *symbol)
{
    struct jit_code_entry *e = calloc(1, sizeof(*e));
    size_t size = 0;
    char *image = e ? make_image(symbol, 1, symbol->address, symbol->size, NULL, &size) : NULL;

    if (!image) { /* then this one has no name */
        free(e);
        return;
    }
    *e = (struct jit_code_entry){
        .next_entry = s->entries, .symfile_addr = image, .symfile_size = size};
    if (s->entries)
        s->entries->prev_entry = e;
    s->entries = __jit_debug_descriptor.first_entry = __jit_debug_descriptor.relevant_entry = e;
    __jit_debug_descriptor.action_flag = JIT_REGISTER;
    __jit_debug_register_code();
    __jit_debug_descriptor.action_flag = JIT_NOACTION;
}

void symbols_add(struct symbols *s, const void *code, size_t size, uint64_t pc, const char *kind)
{
    struct symbol symbol = {.address = (uint64_t)(uintptr_t)code, .size = size};

    (void)snprintf(symbol.name, sizeof(symbol.name), "%s_0x%llx", kind, (unsigned long long)pc);
    if (s->perf) {
        (void)fprintf(s->perf, "%llx %zx %s\n", (unsigned long long)symbol.address, size,
                      symbol.name);
        (void)fflush(s->perf); /* perf may look when we were killed */
    }
    if (s->config.gdb)
        tell_gdb(s, &symbol);
    if (!s->config.elf)
        return;
    if (s->count == s->size) {
        size_t more = s->size ? 2 * s->size : 4096;
        struct symbol *list = realloc(s->list, more * sizeof(*list));

        if (!list)
            return; /* it has no name */
        s->list = list;
        s->size = more;
    }
    s->list[s->count++] = symbol;
}

void symbols_reset(struct symbols *s)
{
    s->count = 0;
    while (s->entries) {
        struct jit_code_entry *e = s->entries;

        s->entries = e->next_entry;
        if (s->entries)
            s->entries->prev_entry = NULL;
        __jit_debug_descriptor.first_entry = s->entries;
        __jit_debug_descriptor.relevant_entry = e;
        __jit_debug_descriptor.action_flag = JIT_UNREGISTER;
        __jit_debug_register_code();
        __jit_debug_descriptor.action_flag = JIT_NOACTION;
        free((void *)(uintptr_t)e->symfile_addr);
        free(e);
    }
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);

        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

void symbols_free(struct symbols *s, const void *code, size_t size)
{
    size_t image_size = 0;

    if (!s)
        return;
    if (s->config.elf) {
        char *image =
            make_image(s->list, s->count, (uint64_t)(uintptr_t)code, size, code, &image_size);
        int fd = open(s->config.elf, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

        if (!image || fd < 0 || !write_all(fd, image, image_size))
            log_warn("cannot write generated code to '%s': %s", s->config.elf, strerror(errno));
        if (fd >= 0)
            (void)close(fd); /* what was written is there */
        free(image);
    }
    symbols_reset(s);
    if (s->perf)
        (void)fclose(s->perf); /* a map that is cut off is of use, too */
    free(s->list);
    free(s);
}
