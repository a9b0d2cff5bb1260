/* Kernel modules. Packages have no modules.dep (depmod writes it where they are installed), so
 * dependencies are read from each needed module's .modinfo.
 *
 * Module files come out of a signed package, yet every offset in them is checked. One thread.
 * Formats: ELF-64 (System V gABI); .modinfo: Linux include/linux/module.h; modules.dep(5). */
#include "image/modules.h"

#include "base/bits.h"
#include "base/fd.h"
#include "base/paths.h"
#include "image/control.h"
#include "image/cpio.h"
#include "image/unpack.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MODULE_MAX       (64u << 20)
#define MODULE_NAME_SIZE 64

struct module {
    char name[MODULE_NAME_SIZE]; /* "virtio_blk": '-' is '_' */
    char *data;
    size_t size;
    bool unpacked, wanted;
    bool marked;   /* in the set that a search is gathering */
    unsigned rank; /* 1... in an order of loading; 0 = not placed yet */
};

struct modules {
    struct module *list;
    size_t count, room;
};

struct modules *modules_new(void)
{
    return calloc(1, sizeof(struct modules));
}

void modules_free(struct modules *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++)
        free(m->list[i].data);
    free(m->list);
    free(m);
}

bool modules_is_path(const char *name)
{
    const char *base = strrchr(name, '/');
    const char *ko = base ? strstr(base, ".ko") : NULL;

    return ko && strstr(name, "lib/modules/") &&
           (!ko[3] || !strcmp(ko, ".ko.xz") || !strcmp(ko, ".ko.zst") || !strcmp(ko, ".ko.gz"));
}

int modules_add(struct modules *m, const char *path, char *data, size_t size)
{
    const char *base = strrchr(path, '/');

    if (m->count == m->room) {
        size_t room = m->room ? 2 * m->room : 1024;
        struct module *list = reallocarray(m->list, room, sizeof(*list));

        if (!list) {
            free(data);
            return -ENOMEM;
        }
        m->list = list;
        m->room = room;
    }
    struct module *mod = &m->list[m->count++];
    *mod = (struct module){.data = data, .size = size};
    base = base ? base + 1 : path;
    for (size_t i = 0; i + 1 < sizeof(mod->name) && base[i] && strncmp(base + i, ".ko", 3); i++)
        mod->name[i] = base[i] == '-' ? '_' : base[i];
    return 0;
}

static struct module *find(struct modules *m, struct slice name)
{
    char normal[MODULE_NAME_SIZE] = "";

    if (name.n >= sizeof(normal))
        return NULL;
    for (size_t i = 0; i < name.n; i++)
        normal[i] = name.p[i] == '-' ? '_' : name.p[i];
    for (size_t i = 0; i < m->count; i++)
        if (!strcmp(m->list[i].name, normal))
            return &m->list[i];
    return NULL;
}

static bool in_file(uint64_t offset, uint64_t length, size_t size)
{
    return offset <= size && length <= size - offset;
}

int modules_modinfo(const void *data, size_t size, const char **ret, size_t *ret_size)
{
    const unsigned char *file = data;
    Elf64_Ehdr eh;
    Elf64_Shdr names, sh;

    if (size < sizeof(eh))
        return -EBADMSG;
    memcpy(&eh, file, sizeof(eh));
    uint64_t table = le64toh(eh.e_shoff);
    uint16_t count = le16toh(eh.e_shnum), names_index = le16toh(eh.e_shstrndx);
    if (memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
        eh.e_ident[EI_DATA] != ELFDATA2LSB || le16toh(eh.e_shentsize) != sizeof(sh) ||
        !in_file(table, (uint64_t)count * sizeof(sh), size) || names_index >= count)
        return -EBADMSG;
    memcpy(&names, file + table + names_index * sizeof(sh), sizeof(names));
    uint64_t strings = le64toh(names.sh_offset), strings_size = le64toh(names.sh_size);
    if (!in_file(strings, strings_size, size))
        return -EBADMSG;
    for (unsigned i = 0; i < count; i++) {
        memcpy(&sh, file + table + i * sizeof(sh), sizeof(sh));
        uint64_t name = le32toh(sh.sh_name);
        if (!in_file(name, sizeof(".modinfo"), strings_size) ||
            memcmp(file + strings + name, ".modinfo", sizeof(".modinfo")))
            continue;
        if (!in_file(le64toh(sh.sh_offset), le64toh(sh.sh_size), size))
            return -EBADMSG;
        *ret = (const char *)file + le64toh(sh.sh_offset);
        *ret_size = le64toh(sh.sh_size);
        return 0;
    }
    return -EBADMSG;
}

/** Unpack @mod if that is still to be done. */
static int unpack(struct module *mod, struct error *err)
{
    char *data = NULL;
    size_t size = 0;

    if (mod->unpacked)
        return 0;
    int r = unpack_memory(mod->data, mod->size, MODULE_MAX, &data, &size, err);
    if (r) {
        error_prefix(err, "kernel module '%s'", mod->name);
        return r;
    }
    free(mod->data);
    mod->data = data;
    mod->size = size;
    mod->unpacked = true;
    return 0;
}

/** Call for each value of @key in a module's .modinfo; @rest begins as the whole section. */
static bool next_value(struct slice *rest, const char *key, struct slice *ret)
{
    size_t n = strlen(key);

    for (struct slice item; slice_cut(rest, 0, &item);) {
        if (item.n > n && !memcmp(item.p, key, n) && item.p[n] == '=') {
            *ret = (struct slice){item.p + n + 1, item.n - n - 1};
            return true;
        }
    }
    return false;
}

static int modinfo_of(const struct module *mod, struct slice *ret, struct error *err)
{
    if (modules_modinfo(mod->data, mod->size, &ret->p, &ret->n))
        return error_set(err, EBADMSG, "kernel module '%s' has no readable .modinfo", mod->name);
    return 0;
}

/** Mark and unpack a module, and put what it depends on on the work list. */
static int want(struct modules *m, struct module *mod, size_t *work, size_t *work_count,
                struct error *err)
{
    struct slice info, list, one;

    if (mod->wanted)
        return 0;
    mod->wanted = true;
    int r = unpack(mod, err);
    if (!r)
        r = modinfo_of(mod, &info, err);
    while (!r && next_value(&info, "depends", &list)) {
        while (slice_cut(&list, ',', &one)) {
            struct module *d = find(m, one);

            if (d && !d->wanted && *work_count < m->count)
                work[(*work_count)++] = (size_t)(d - m->list);
        }
    }
    return r;
}

/** Call @fn for each wanted module that @mod names in its "depends"; stops when it returns false.
 */
static bool each_dependency(struct modules *m, const struct module *mod,
                            bool (*fn)(struct module *d, void *arg), void *arg)
{
    struct slice info, list, one;

    if (modules_modinfo(mod->data, mod->size, &info.p, &info.n))
        return true;
    while (next_value(&info, "depends", &list)) {
        while (slice_cut(&list, ',', &one)) {
            struct module *d = find(m, one);

            if (d && d->wanted && !fn(d, arg))
                return false;
        }
    }
    return true;
}

static bool is_placed(struct module *d, void *arg)
{
    return d->rank != 0;
}

/** Number the wanted modules so that each comes after what it depends on (a cycle, which no real
 * kernel has, is broken anywhere). Returns how many there are. */
static unsigned rank_modules(struct modules *m)
{
    unsigned rank = 0;

    for (size_t i = 0; i < m->count; i++)
        m->list[i].rank = 0;
    for (bool progress = true, force = false; progress || !force;) {
        force = !progress;
        progress = false;
        for (size_t i = 0; i < m->count; i++) {
            struct module *mod = &m->list[i];

            if (!mod->wanted || mod->rank)
                continue;
            if (force || each_dependency(m, mod, is_placed, NULL)) {
                mod->rank = ++rank;
                progress = true;
                force = false;
            }
        }
    }
    return rank;
}

static bool mark(struct module *d, void *arg)
{
    bool *grew = arg;

    *grew |= !d->marked;
    d->marked = true;
    return true;
}

/** "NAME.ko: DEP.ko..." with every indirect dependency; modprobe loads them from right to left. */
static void put_dep_line(struct modules *m, struct module *mod, unsigned ranks, FILE *f)
{
    bool grew = false;

    for (size_t i = 0; i < m->count; i++)
        m->list[i].marked = false;
    (void)each_dependency(m, mod, mark, &grew); /* mark() never stops it */
    while (grew) {
        grew = false;
        for (size_t i = 0; i < m->count; i++)
            if (m->list[i].marked)
                (void)each_dependency(m, &m->list[i], mark, &grew);
    }
    fprintf(f, "%s.ko:", mod->name);
    for (unsigned rank = ranks; rank; rank--)
        for (size_t i = 0; i < m->count; i++)
            if (m->list[i].marked && m->list[i].rank == rank && &m->list[i] != mod)
                fprintf(f, " %s.ko", m->list[i].name);
    putc('\n', f);
}

/** modprobe's line for each value of @key, "alias" or "softdep". */
static int put_values(const struct module *mod, const char *key, FILE *f, struct error *err)
{
    struct slice info, value;
    int r = modinfo_of(mod, &info, err);

    while (!r && next_value(&info, key, &value)) {
        fprintf(f, "%s ", key);
        if (!strcmp(key, "softdep"))
            fprintf(f, "%s %.*s\n", mod->name, (int)value.n, value.p);
        else
            fprintf(f, "%.*s %s\n", (int)value.n, value.p, mod->name);
    }
    return r;
}

/** One of modprobe's tables, over all wanted modules. */
static int write_table(struct modules *m, const char *table, const char *release, struct cpio *c,
                       struct error *err)
{
    cleanup(freep) char *text = NULL;
    cleanup(freep) char *path = paths_format(err, "lib/modules/%s/modules.%s", release, table);
    unsigned ranks = rank_modules(m);
    size_t size = 0;
    int r = 0;

    FILE *f = path ? open_memstream(&text, &size) : NULL;
    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < m->count && !r; i++) {
        if (!m->list[i].wanted)
            continue;
        if (strcmp(table, "dep"))
            r = put_values(&m->list[i], table, f, err);
        else
            put_dep_line(m, &m->list[i], ranks, f);
    }
    if (fclose(f))
        r = error_set(err, ENOMEM, "out of memory");
    return r ? r : cpio_add_file(c, path, 0644, text, size);
}

int modules_write(struct modules *m, const char *const *names, const char *release, struct cpio *c,
                  struct error *err)
{
    cleanup(freep) size_t *work = calloc(m->count + 1, sizeof(*work));
    size_t work_count = 0;
    int r = 0;

    if (!work)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < m->count; i++)
        m->list[i].wanted = false;
    for (; *names && !r; names++) {
        struct module *mod = find(m, slice_of(*names));

        if (mod)
            r = want(m, mod, work, &work_count, err);
        while (!r && work_count)
            r = want(m, &m->list[work[--work_count]], work, &work_count, err);
    }
    for (size_t i = 0; i < m->count && !r; i++) {
        if (!m->list[i].wanted)
            continue;
        cleanup(freep) char *path =
            paths_format(err, "lib/modules/%s/%s.ko", release, m->list[i].name);
        r = path ? cpio_add_file(c, path, 0644, m->list[i].data, m->list[i].size) : -ENOMEM;
    }
    if (!r)
        r = write_table(m, "dep", release, c, err);
    if (!r)
        r = write_table(m, "alias", release, c, err);
    if (!r)
        r = write_table(m, "softdep", release, c, err);
    return r;
}
