/* From an instance's configuration to a machine's. No state; any thread. */
#include "monitor/machine.h"

#include "base/fd.h"
#include "base/opt.h"
#include "base/paths.h"
#include "image/image.h"
#include "vm/firmware.h"
#include "vm/words.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

/** Keep @s (heap, may be NULL = no memory) until machine_done(). NULL with @err set. */
static char *own(struct machine *m, char *s, struct error *err)
{
    if (!s || m->owned_count == MACHINE_OWNED_MAX) {
        free(s);
        (void)error_set(err, s ? E2BIG : ENOMEM, s ? "too many devices" : "out of memory");
        return NULL;
    }
    return m->owned[m->owned_count++] = s;
}

void machine_done(struct machine *m)
{
    for (size_t i = 0; i < m->owned_count; i++)
        free(m->owned[i]);
    if (m->has_vars)
        fd_close(m->vars_fd);
    *m = (struct machine){0};
}

static void choose(struct vm_config *v, const struct instance_config *c)
{
    static const char *const engines[] = {[VM_ENGINE_JIT] = "jit",
                                          [VM_ENGINE_INTERP] = "interp",
                                          [VM_ENGINE_CHECK] = "check",
                                          [VM_ENGINE_KVM] = "kvm"};
    static const char *const cpus[] = {[VM_CPU_MAX] = "max",
                                       [VM_CPU_RVA23] = "rva23",
                                       [VM_CPU_RVA22] = "rva22",
                                       [VM_CPU_X86_64_V2] = "x86-64-v2",
                                       [VM_CPU_X86_64_V3] = "x86-64-v3",
                                       [VM_CPU_X86_64_V4] = "x86-64-v4"};

    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (!strcmp(engines[i], c->engine))
            v->engine = (enum vm_engine)i;
    }
    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        if (!strcmp(cpus[i], c->cpu))
            v->cpu = (enum vm_cpu)i;
    }
    v->machine = strcmp(c->arch, "amd64") ? VM_RISCV64 : VM_AMD64;
    v->vlen = (unsigned)strtoul(c->vlen, NULL, 10); /* a choice, so it is one */
}

/** @file as the machine finds it: relative ones lie in the instance's folder. "" = NULL. */
static int set_file(struct machine *m, const struct instance *in, const char *file,
                    const char **ret, struct error *err)
{
    if (!*file)
        return 0;
    *ret = own(m, in && *file != '/' ? instance_path(in, err, "%s", file) : strdup(file), err);
    return *ret ? 0 : -ENOMEM;
}

static int set_memory(struct vm_config *v, uint64_t bytes, struct error *err)
{
    struct sysinfo host;
    char text[32];

    v->memory_bytes = bytes;
    if (sysinfo(&host))
        return 0;
    uint64_t most = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
    if (bytes <= most)
        return 0;
    return error_set(err, ENOMEM, "memory: %s is more than this host has (%" PRIu64 "M)",
                     opt_format_size(bytes, text, sizeof(text)), most >> 20);
}

static int add_disk(struct machine *m, const struct vm_disk_config *d, struct error *err)
{
    if (m->config.disk_count == VM_MAX_DISKS)
        return error_set(err, EINVAL, "at most %d disks are possible", VM_MAX_DISKS);
    m->config.disks[m->config.disk_count++] = *d;
    return 0;
}

/** The disks of its tree. Their layers may lie on another instance's, or on a base: the store made
 * the references. */
static int add_own_disks(struct machine *m, const struct instance_config *c,
                         const struct instance *in, struct error *err)
{
    struct tree *t;
    int r = instance_tree(in, &t, err);

    if (r)
        return r;
    for (size_t i = 0; !r && i < t->current.disk_count; i++) {
        struct vm_disk_config d = {
            .format = "qcow2",
            .refs = DISK_REFS_ANY,
            .bus = strcmp(c->disk_bus, "ahci") ? VM_BUS_VIRTIO : VM_BUS_AHCI,
        };
        char path[TREE_PATH_BYTES];

        tree_layer_path(path, t->current.disks[i].layer);
        d.path = own(m, instance_path(in, err, "%s", path), err);
        r = d.path ? add_disk(m, &d, err) : -ENOMEM;
    }
    tree_free(t);
    return r;
}

static int add_disks(struct machine *m, const struct instance_config *c, const struct instance *in,
                     struct error *err)
{
    struct vm_disk_config d;
    int r = in ? add_own_disks(m, c, in, err) : 0;

    for (size_t i = 0; !r && i < c->disks.n; i++) {
        char *words = own(m, strdup(c->disks.v[i]), err);
        r = words ? vm_parse_disk(words, &d, err) : -ENOMEM;
        if (!r)
            r = add_disk(m, &d, err);
        if (r == -EINVAL)
            error_prefix(err, "disks");
    }
    if (!r && *c->cloud_init) {
        d = (struct vm_disk_config){.format = "raw", .readonly = true};
        r = set_file(m, in, c->cloud_init, &d.path, err);
        if (!r)
            r = add_disk(m, &d, err);
    }
    return r;
}

static int add_volume(struct machine *m, const char *text, struct error *err)
{
    struct vm_share_config *s = &m->config.shares[m->config.share_count];
    char *words = own(m, strdup(text), err);
    struct stat st;

    int r = words ? vm_parse_share(words, s, err) : -ENOMEM;
    if (r)
        return r;
    if (stat(s->host_path, &st))
        return error_set(err, EINVAL, "cannot share '%s': %s", s->host_path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, EINVAL, "cannot share '%s': it is not a folder", s->host_path);
    s->tag = own(m, paths_format(err, "share%zu", m->config.share_count), err);
    m->config.share_count++;
    return s->tag ? 0 : -ENOMEM;
}

static int add_network(struct machine *m, const struct instance_config *c, struct error *err)
{
    struct vm_config *v = &m->config;
    int r = 0;

    v->net = !strcmp(c->net, "user");
    for (size_t i = 0; !r && i < c->publish.n; i++) {
        r = vm_parse_forward(c->publish.v[i], &m->forwards[i], err);
        if (r)
            error_prefix(err, "publish");
    }
    v->forwards = m->forwards;
    v->forward_count = c->publish.n;
    return r || !*c->mac ? r : vm_parse_mac(c->mac, v->mac, err);
}

/** Is "console=" one of the words of @text? */
static bool has_console(const char *text)
{
    for (const char *p = text; (p = strstr(p, "console=")); p++) {
        if (p == text || p[-1] == ' ')
            return true;
    }
    return false;
}

/** Kernel arguments: the console, the configuration's, the mounts'. */
static int compose_append(struct machine *m, const char *append, bool volume_args,
                          struct error *err)
{
    struct vm_config *v = &m->config;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    bool good = f != NULL;

    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    if (!has_console(append))
        (void)fprintf(f, "console=%s%s", v->console_uart ? "ttyS0" : "hvc0", *append ? " " : "");
    (void)fprintf(f, "%s", append);
    /* A kernel that panics says so by a warm reset, and does not spin for ever where nobody looks.
     */
    v->warm_is_panic = volume_args && v->machine == VM_RISCV64 && !v->firmware && !v->flash &&
                       !strstr(append, "panic=");
    if (v->warm_is_panic)
        (void)fprintf(f, " panic=-1 reboot=panic_warm");
    for (size_t i = 0; volume_args && i < v->share_count; i++) {
        cleanup(freep) char *mount =
            image_mount_argument(v->shares[i].tag, v->shares[i].guest_path, v->shares[i].readonly);
        good &= mount != NULL;
        (void)fprintf(f, " %s", mount ? mount : "");
    }
    good &= !fclose(f);
    if (!good) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    v->append = own(m, text, err);
    return v->append ? 0 : -ENOMEM;
}

static int copy_file(const char *from, int to, struct error *err)
{
    cleanup(fd_closep) int fd = open(from, O_RDONLY | O_CLOEXEC);
    struct stat st;
    off_t at = 0;

    if (fd < 0 || fstat(fd, &st))
        return error_set(err, errno, "cannot open '%s': %s", from, strerror(errno));
    while (at < st.st_size) {
        ssize_t n = sendfile(to, fd, &at, (size_t)(st.st_size - at));
        if (n <= 0)
            return error_set(err, n ? errno : EIO, "cannot copy '%s': %s", from,
                             strerror(n ? errno : EIO));
    }
    return 0;
}

/** Variables of a machine that has none yet begin as @template has them. A file appears whole, by a
 * rename: a machine that ends here leaves none. Without one they are gone with the machine. */
static int make_vars(struct machine *m, const char *template, struct error *err)
{
    if (!m->config.flash) {
        m->vars_fd = memfd_create("posada-vars", MFD_CLOEXEC);
        m->has_vars = m->vars_fd >= 0;
        m->config.flash = own(m, paths_format(err, "/proc/self/fd/%d", m->vars_fd), err);
        return !m->has_vars       ? error_set(err, errno, "memfd_create: %s", strerror(errno))
               : !m->config.flash ? -ENOMEM
                                  : copy_file(template, m->vars_fd, err);
    }
    cleanup(freep) char *fresh = paths_format(err, "%s.new", m->config.flash);
    if (!fresh)
        return -ENOMEM;
    cleanup(fd_closep) int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, errno, "cannot make '%s': %s", fresh, strerror(errno));
    int r = copy_file(template, fd, err);
    if (!r && (fsync(fd) || rename(fresh, m->config.flash)))
        r = error_set(err, errno, "cannot make '%s': %s", m->config.flash, strerror(errno));
    return r;
}

/** By name: the host's, with variables of the machine's own. */
static int set_named_firmware(struct machine *m, const struct instance_config *c,
                              const struct instance *in, struct error *err)
{
    struct vm_config *v = &m->config;
    const char *vars;
    int r = vm_firmware_find(c->firmware, &v->firmware, &vars, err);

    if (!r && (*c->flash || (in && vars)))
        r = set_file(m, in, *c->flash ? c->flash : "vars.fd", &v->flash, err);
    if (r || !vars || (v->flash && !access(v->flash, F_OK)))
        return r;
    return make_vars(m, vars, err);
}

static int set_boot(struct machine *m, const struct instance_config *c, const struct instance *in,
                    struct error *err)
{
    struct vm_config *v = &m->config;
    int r = set_file(m, in, c->kernel, &v->kernel, err);

    if (!r)
        r = set_file(m, in, c->initrd, &v->initrd, err);
    if (!r)
        r = set_file(m, in, c->payload, &v->firmware_payload, err);
    if (!r && vm_firmware_is_name(c->firmware)) {
        r = set_named_firmware(m, c, in, err);
    } else if (!r) {
        r = set_file(m, in, c->firmware, &v->firmware, err);
        if (!r)
            r = set_file(m, in, c->flash, &v->flash, err);
    }
    v->boot_cdrom = !strcmp(c->boot, "cdrom");
    /* firmware speaks on the UART, and an amd64 kernel has no driver for the other built in; a
     * riscv64 kernel alone finds virtio-console faster */
    v->console_uart = !strcmp(c->console, "auto")
                          ? v->firmware || v->flash || !strcmp(c->arch, "amd64")
                          : !strcmp(c->console, "uart");
    return r;
}

/** What the machine says it is. A temporary one is new each time. */
static int set_identity(struct machine *m, const struct instance_config *c, struct error *err)
{
    struct vm_config *v = &m->config;
    const char *p = c->uuid;

    if (!*p && getrandom(v->uuid, sizeof(v->uuid), 0) != sizeof(v->uuid))
        return error_set(err, EIO, "the host has no random numbers");
    for (size_t i = 0; *p && i < sizeof(v->uuid); i++) {
        unsigned byte;

        p += *p == '-';
        if (sscanf(p, "%2x", &byte) != 1)
            return error_set(err, EINVAL, "uuid: expected a UUID, not '%s'", c->uuid);
        v->uuid[i] = (uint8_t)byte;
        p += 2;
    }
    static_assert(CONFIG_LIST_MAX <= VM_MAX_OEM, "there is room");
    for (size_t i = 0; i < c->oem_strings.n; i++) {
        v->oem[i] = own(m, strdup(c->oem_strings.v[i]), err);
        if (!v->oem[i])
            return -ENOMEM;
    }
    v->oem_count = c->oem_strings.n;
    return 0;
}

int machine_init(struct machine *m, const char *name, const struct instance_config *c,
                 const struct instance *in, bool volume_args, struct error *err)
{
    struct vm_config *v = &m->config;

    *m = (struct machine){
        .config = {.name = name,
                   .cpus = (unsigned)c->cpus,
                   .console_in = -1,
                   .console_out = -1,
                   .no_rng = !c->rng,
                   .no_balloon = !c->balloon}
    };
    choose(v, c);
    int r = image_check_memory(c->image, c->memory, err);
    if (!r)
        r = set_memory(v, c->memory, err);
    if (!r)
        r = set_identity(m, c, err);
    if (!r)
        r = set_boot(m, c, in, err);
    if (!r)
        r = add_disks(m, c, in, err);
    for (size_t i = 0; !r && i < c->volumes.n; i++) {
        r = add_volume(m, c->volumes.v[i], err);
        if (r)
            error_prefix(err, "volumes");
    }
    if (!r)
        r = add_network(m, c, err);
    if (!r && v->kernel)
        r = compose_append(m, c->append, volume_args, err);
    if (r)
        machine_done(m);
    return r;
}
